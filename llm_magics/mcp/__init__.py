"""
Tools of MCP servers: programs and web services that offer tools to language models.

MCP is the Model Context Protocol (modelcontextprotocol.io). The official package ``mcp`` (extra
``mcp``) speaks its revisions 2026-07-28 and 2025-11-25; it is imported when a server is first used.
"""
