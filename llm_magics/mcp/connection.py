"""A connection to one MCP server, with the errors and the timeouts of its calls."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from llm_magics._util.text import one_line, reason_of
from llm_magics.errors import LLMError, ToolServerError
from llm_magics.mcp.results import ToolResult, read_result
from llm_magics.mcp.schema_bounds import is_bounded
from llm_magics.secrets import Secret, redact

if TYPE_CHECKING:
    from mcp.client import Client
    from mcp.types import CallToolResult

    from llm_magics.mcp.http_transport import HttpTransport
    from llm_magics.mcp.transport import ProcessTransport
    from llm_magics.settings.schema import ServerSettings

_T = TypeVar("_T")

# The bounds on the list of tools: pages, tools, and characters of one tool as JSON.
_MAX_PAGES = 50
_MAX_TOOLS = 500
_MAX_TOOL_CHARS = 50_000

# The code of the package's error for a connection that has ended (mcp.types.CONNECTION_CLOSED).
_CONNECTION_CLOSED = -32000

# The time that a server has to end, in seconds.
_CLOSING_S = 4.0


class Connection:
    """
    A server that runs, or an address that is connected.

    The package ``mcp`` requires that one task opens and closes a connection, so each has a task,
    which ends when `close` is called.

    Attributes:
        listed: the tools at the last time when they were listed.
    """

    def __init__(self, name: str, settings: ServerSettings, token: Secret | None) -> None:
        self.name = name
        self.settings = settings
        self._token = token
        self.listed: list[dict[str, Any]] = []
        self._client: Client | None = None
        self._transport: ProcessTransport | HttpTransport | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    async def open(self) -> None:
        """
        Start the server and agree on a revision of the protocol.

        Raises:
            ToolServerError: it could not be started, or did not respond within its timeout.
        """
        await asyncio.to_thread(_import_package)
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ready.add_done_callback(_retrieve)
        self._task = asyncio.create_task(self._serve(ready))
        try:
            await self._within_timeout(lambda: asyncio.shield(ready), "start")
        except BaseException:
            await self.close()
            raise

    async def _serve(self, ready: asyncio.Future[None]) -> None:
        from mcp.client import Client
        from mcp.types import Implementation

        import llm_magics

        try:
            self._transport = self._create_transport()
            info = Implementation(name="llm_magics", version=llm_magics.__version__)
            async with Client(self._transport, client_info=info, cache=None) as client:
                self._bound_checks(client)
                self._client = client
                ready.set_result(None)
                await self._closing.wait()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            if not ready.done():
                ready.set_exception(await self._explain(error, "start"))
        finally:
            self._client = None
            if self._transport is not None:
                self._transport.kill()

    def _bound_checks(self, client: Client) -> None:
        """Let the package check results only against schemas for which that ends soon."""
        check = client.session.validate_tool_result

        async def check_if_bounded(name: str, result: CallToolResult) -> None:
            outputs = [tool["output"] for tool in self.listed if tool["name"] == name]
            if outputs and outputs[0] is not None and is_bounded(outputs[0]):
                await check(name, result)

        vars(client.session)["validate_tool_result"] = check_if_bounded

    def _create_transport(self) -> ProcessTransport | HttpTransport:
        if self.settings.url is not None:
            from llm_magics.mcp.http_transport import HttpTransport

            return HttpTransport(self.name, self.settings.url, self._token)
        from llm_magics.mcp.transport import ProcessTransport, server_environment

        environment = server_environment(self.settings.env)
        return ProcessTransport(self.name, self.settings.command, environment)

    @property
    def is_open(self) -> bool:
        """Whether calls can be sent."""
        return (
            self._client is not None
            and self._transport is not None
            and self._transport.is_running
            and not self._closing.is_set()
        )

    @property
    def has_died(self) -> bool:
        """Whether the process has ended by itself, rather than because of a problem or `close`."""
        transport = self._transport
        is_ended = transport is not None and not transport.is_running and not transport.problem
        return is_ended and not self._closing.is_set()

    @property
    def revision(self) -> str:
        """The revision of the protocol; empty before the server has answered."""
        return self._client.protocol_version if self._client is not None else ""

    async def close(self) -> None:
        """End the server; one that does not end in time is killed."""
        self._closing.set()
        if self._task is None:
            return
        _, running = await asyncio.wait([self._task], timeout=_CLOSING_S)
        if running:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=1)
        if self._transport is not None:
            self._transport.kill()

    async def list_tools(self) -> list[dict[str, Any]]:
        """
        Return the tools as they are now: dicts with name, description, parameters and output.

        Raises:
            ToolServerError: the list is invalid, too long, or did not arrive in time.
        """
        self.listed = await self._within_timeout(self._list_tools, "list its tools")
        return self.listed

    async def _list_tools(self) -> list[dict[str, Any]]:
        assert self._client is not None
        found: dict[str, dict[str, Any]] = {}
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            page = await self._client.list_tools(cursor=cursor)
            for tool in page.tools:
                if tool.name in found:
                    raise _ProtocolError(f"lists two tools named {tool.name}")
                found[tool.name] = {
                    "name": tool.name,
                    "description": tool.description or tool.title or "",
                    "parameters": tool.input_schema,
                    "output": tool.output_schema,
                }
                _check_tool(found[tool.name])
            cursor = page.next_cursor
            if len(found) > _MAX_TOOLS:
                break
            if cursor is None:
                return list(found.values())
        raise _ProtocolError(
            f"lists more than {_MAX_TOOLS} tools, or more than {_MAX_PAGES} pages"
        )

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> ToolResult:
        """
        Call a tool. An error that the tool reports is part of the result, for the model.

        Raises:
            ToolServerError: the server ended, did not respond in time, or its result does not
                match the schema of the tool.
        """

        async def send() -> ToolResult:
            from mcp.shared.exceptions import MCPError

            assert self._client is not None
            try:
                answer = await self._client.call_tool(tool, dict(arguments))
            except MCPError as error:
                if error.code == _CONNECTION_CLOSED or not self.is_open:
                    raise
                return read_result([{"type": "text", "text": error.message}], is_error=True)
            content = [block.model_dump(mode="json", by_alias=True) for block in answer.content]
            return read_result(content, answer.structured_content, is_error=answer.is_error)

        return await self._within_timeout(send, f"answer the call of {tool}")

    async def _within_timeout(self, work: Callable[[], Awaitable[_T]], what: str) -> _T:
        """Await ``work``; an error becomes a `ToolServerError`, and a silent server is ended."""
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                return await work()
        except asyncio.CancelledError:
            raise
        except TimeoutError as error:
            if self._transport is not None and self._transport.problem:
                raise await self._explain(error, what) from None
            if self._transport is not None:
                self._transport.kill()
            self._closing.set()
            msg = (
                f"The MCP server {self.name} did not {what} within {self.settings.timeout_s:g} s "
                "and was ended."
            )
            hint = f"Raise its timeout_s in the settings, or check it: %llm mcp test {self.name}"
            raise ToolServerError(msg, hint=hint) from None
        except Exception as error:
            raise await self._explain(error, what) from None

    async def _explain(self, error: BaseException, what: str) -> LLMError:
        """Return the error for the user."""
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, LLMError):
            return error
        transport = self._transport
        is_closed = getattr(error, "code", None) == _CONNECTION_CLOSED
        if transport is not None and is_closed:
            await transport.wait_for_end()
        if isinstance(error, _ProtocolError):
            why = str(error)
        elif transport is not None and (
            is_closed or not transport.is_running or transport.status >= 400
        ):
            why = transport.describe_end()
        else:
            why = f"could not {what}: {_first_line(error)}"
        msg = redact(f"The MCP server {self.name} {why.rstrip('.')}.")
        return ToolServerError(msg, hint=f"Check it: %llm mcp test {self.name}")


class _ProtocolError(Exception):
    """The server violates the protocol or the bounds; the message follows the server's name."""


def _retrieve(future: asyncio.Future[None]) -> None:
    """Mark the error of a future as read, because its timeout may have been reported instead."""
    if not future.cancelled():
        future.exception()


def _first_line(error: BaseException) -> str:
    """Return what went wrong on one line; of an invalid message, the first invalid field."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        return f"it sent an invalid message: {where}: {first['msg']}"[:500]
    return one_line((reason_of(error).splitlines() or [""])[0])[:500]


def _check_tool(tool: Mapping[str, Any]) -> None:
    """Raise an error for a tool that no model could be offered."""
    from jsonschema import Draft202012Validator, SchemaError
    from jsonschema.validators import validator_for

    name = str(tool["name"])
    if not name or len(name) > 256 or not name.isprintable():
        raise _ProtocolError(f"has a tool with an invalid name: {name[:80]!r}")
    try:
        if len(json.dumps(tool)) > _MAX_TOOL_CHARS:
            raise _ProtocolError(
                f"describes the tool {name} in more than {_MAX_TOOL_CHARS:,} characters"
            )
        for schema in filter(None, (tool["parameters"], tool["output"])):
            validator_for(schema, default=Draft202012Validator).check_schema(schema)
    except (SchemaError, RecursionError) as error:
        why = getattr(error, "message", "it is nested too deeply")
        raise _ProtocolError(f"has an invalid schema for the tool {name}: {why}"[:500]) from None
    if tool["parameters"].get("type") != "object":
        raise _ProtocolError(f"has an invalid schema for the tool {name}: it is not an object")


def _import_package() -> None:
    """Import the package ``mcp``, which takes about a second."""
    try:
        import mcp.client  # noqa: F401 (in a thread, so that it does not block the event loop)
    except ImportError as error:
        msg = f"MCP servers need the package mcp ({reason_of(error)})."
        raise ToolServerError(
            msg, hint='Install it: pip install "jupyter-llm-magics[mcp]"'
        ) from None
    # Its warnings would appear below the cell; the errors raised here contain what matters.
    for name in ("mcp", "client"):
        logging.getLogger(name).addHandler(logging.NullHandler())
