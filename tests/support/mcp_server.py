"""
An MCP server written with the official package; arguments: a file for its id, the transport.

``python mcp_server.py PIDFILE`` speaks by its standard input and output, and
``python mcp_server.py PIDFILE http PORT TOKEN`` by HTTP at /mcp, to those who send the token.
"""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path
from typing import Any

from mcp.server import MCPServer
from mcp.types import ImageContent, TextContent
from pydantic import BaseModel

# The smallest PNG: one pixel.
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

server = MCPServer("shop")


class Stock(BaseModel):
    """How many pieces of a product there are."""

    product: str
    pieces: int


@server.tool()
def stock(product: str) -> Stock:
    """Count the pieces of a product in the stock."""
    return Stock(product=product, pieces=len(product))


@server.tool()
def photo(product: str) -> list[Any]:
    """Return a photo of a product."""
    data = base64.b64encode(PIXEL).decode()
    return [
        TextContent(type="text", text=f"Photo of {product}:"),
        ImageContent(type="image", data=data, mime_type="image/png"),
    ]


@server.tool()
def environment() -> list[str]:
    """List the environment variables of the server."""
    return sorted(os.environ)


@server.tool()
def fail() -> str:
    """Raise an error."""
    msg = "the shelf is empty"
    raise ValueError(msg)


@server.tool()
def long(characters: int) -> str:
    """Return a long text."""
    return "x" * characters


def guarded(app: Any, token: str) -> Any:
    """Refuse requests without the token."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers", []))
        if scope["type"] == "http" and headers.get(b"authorization") != f"Bearer {token}".encode():
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await app(scope, receive, send)

    return answer


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(str(os.getpid()), "utf-8")
    if sys.argv[2:3] == ["http"]:
        import uvicorn

        app = guarded(server.streamable_http_app(), sys.argv[4])
        uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[3]), log_level="error")
    else:
        server.run("stdio")
