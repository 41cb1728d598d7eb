"""
The servers of this session: started when first needed, ended with the kernel, and recorded.

A recording contains the tools of the servers and the results of the calls, so that a notebook can
be replayed where no server is, without starting one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_magics._async.bridge import bridge
from llm_magics.errors import LLMError, ToolServerError, UsageError, nearest
from llm_magics.mcp.approvals import tool_digest
from llm_magics.mcp.connection import Connection
from llm_magics.mcp.results import ToolResult
from llm_magics.mcp.tokens import find_token
from llm_magics.mcp.tool_names import sent_names, shown_name
from llm_magics.parameters import Tool
from llm_magics.runtime.session import Session, session
from llm_magics.settings.credentials import require_trusted_server
from llm_magics.settings.schema import ServerSettings

_LISTING = "mcp_tools"
_CALL = "mcp_call"


@dataclass(frozen=True, slots=True)
class ServerTool(Tool):
    """
    A tool of a server that was offered to a model.

    Attributes:
        server: the name of the server in the settings.
        tool: the name of the tool on the server.
        digest: a digest of its description and its schemas.
    """

    server: str = ""
    tool: str = ""
    digest: str = ""

    @property
    def shown(self) -> str:
        """The name for the user: ``server.tool``."""
        return shown_name(self.server, self.tool)


class Servers:
    """The connections to the servers of a session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._open: dict[str, tuple[ServerSettings, int, Connection]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self.failures: dict[str, str] = {}
        bridge.at_exit(self.close)

    def settings(self, name: str) -> ServerSettings:
        """
        Return the settings of the server ``name``.

        Raises:
            UsageError: the server is unknown.
            ConfigurationError: it is from a project that the user does not trust.
        """
        known = self._session.config.servers()
        if name not in known:
            msg = f'No MCP server is named "{name}".'
            hint = nearest(name, known) if known else "Add one: %llm mcp add NAME COMMAND"
            raise UsageError(msg, hint=hint)
        found, source = known[name]
        require_trusted_server(self._session.config, name, source)
        return found

    def running(self, name: str) -> Connection | None:
        """Return the connection to a server; ``None`` if there is none."""
        known = self._open.get(name)
        return known[2] if known is not None and known[2].is_open else None

    async def connection(self, name: str) -> Connection:
        """Return the connection to a server, which is started if it does not run."""
        settings = self.settings(name)
        async with self._locks.setdefault(name, asyncio.Lock()):
            known = self._open.get(name)
            key = (settings, os.getpid())
            if known is not None and known[:2] == key and known[2].is_open:
                return known[2]
            if known is not None and known[1] == os.getpid():
                await known[2].close()
            self._open.pop(name, None)
            connection = Connection(name, settings, find_token(name, settings))
            try:
                await connection.open()
            except LLMError as error:
                self.failures[name] = str(error)
                raise
            self.failures.pop(name, None)
            self._open[name] = (*key, connection)
            return connection

    async def stop(self, name: str) -> bool:
        """End a server; return whether it was running."""
        known = self._open.pop(name, None)
        if known is None or known[1] != os.getpid():
            return False
        await known[2].close()
        return True

    async def close(self) -> None:
        """End all servers."""
        await asyncio.gather(*map(self.stop, list(self._open)), return_exceptions=True)

    async def tools(
        self, names: Sequence[str], taken: Sequence[str] = ()
    ) -> tuple[ServerTool, ...]:
        """
        Return the tools of several servers, for a prompt with functions of the names ``taken``.

        Raises:
            ToolServerError: a server failed.
        """
        names = list(dict.fromkeys(names))
        listings = await asyncio.gather(*map(self._listing, names))
        listed = [
            (name, tool) for name, tools in zip(names, listings, strict=True) for tool in tools
        ]
        sent = sent_names([(name, tool["name"]) for name, tool in listed], taken)
        return tuple(
            ServerTool(
                name=each,
                description=tool["description"],
                parameters=_without_dialect(tool["parameters"]),
                server=name,
                tool=tool["name"],
                digest=tool_digest(tool),
            )
            for each, (name, tool) in zip(sent, listed, strict=True)
        )

    async def _listing(self, name: str) -> list[dict[str, Any]]:
        """Return the tools of a server, from the recording if it has them."""
        request = {"kind": _LISTING, "parameters": {"server": name}}
        recording = self._session.recording
        stored = recording.find(request) if recording is not None else None
        if stored is not None:
            tools: list[dict[str, Any]] = stored["tools"]
            return tools
        tools = await self.list_tools(name)
        if recording is not None:
            recording.keep(request, {"tools": tools})
        return tools

    async def list_tools(self, name: str) -> list[dict[str, Any]]:
        """Return the tools of a server as they are now; one that has died since is started again."""
        was_running = self.running(name) is not None
        connection = await self.connection(name)
        try:
            return await connection.list_tools()
        except ToolServerError:
            if not (was_running and connection.has_died):
                raise
        return await (await self.connection(name)).list_tools()

    async def find_tool(self, tool: ServerTool) -> dict[str, Any] | None:
        """Return a tool as its server describes it now; ``None`` if it was removed."""
        listed = await self.list_tools(tool.server)
        return next((each for each in listed if each["name"] == tool.tool), None)

    async def call(self, tool: ServerTool, arguments: Mapping[str, Any]) -> ToolResult:
        """
        Call a tool.

        Raises:
            ToolServerError: the server failed.
        """
        return await (await self.connection(tool.server)).call(tool.tool, arguments)

    def find_stored(self, request: dict[str, Any]) -> ToolResult | None:
        """Return the recorded result of a call, see `call_request`."""
        recording = self._session.recording
        stored = recording.find(request) if recording is not None else None
        return None if stored is None else ToolResult.from_dict(stored)

    def record(self, request: dict[str, Any], result: ToolResult) -> None:
        """Add the result of a call to the recording, if there is one."""
        recording = self._session.recording
        if recording is not None:
            recording.keep(request, result.as_dict())


def call_request(tool: ServerTool, arguments: Any, call_id: str, after: str) -> dict[str, Any]:
    """Return what identifies a call in a recording; ``after`` is a digest of what came before."""
    return {
        "kind": _CALL,
        "parameters": {
            "server": tool.server,
            "tool": tool.tool,
            "arguments": arguments,
            "call": call_id,
            "after": after,
        },
    }


def _without_dialect(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema without the name of its dialect, which services refuse."""
    return {name: value for name, value in schema.items() if name != "$schema"}


servers = Servers(session)
