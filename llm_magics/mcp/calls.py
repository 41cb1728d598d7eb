"""The calls of one prompt to tools of servers: whether the user allows them, and their results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llm_magics.errors import LLMError
from llm_magics.mcp import approvals
from llm_magics.mcp.results import ToolResult
from llm_magics.mcp.schema_bounds import is_bounded
from llm_magics.mcp.servers import Servers, ServerTool, call_request, servers
from llm_magics.runtime.session import session
from llm_magics.runtime.storage.serialization import digest_messages
from llm_magics.runtime.telemetry.calls import trace_tool
from llm_magics.tools import truncate
from llm_magics.types import ChatMessage, ToolCall


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedCall:
    """
    A call that may be run.

    Attributes:
        request: what identifies it in a recording.
        result: its result, if it is recorded, or if the call is a mistake; then nothing runs.
        digest: a digest of the description and the schema of its tool as they are now.
        change: how the tool has changed since it was allowed, for the user; empty if it has not.
        is_listed: whether the settings allow the tool without a question.
    """

    request: dict[str, Any]
    result: ToolResult | None = None
    digest: str = ""
    change: str = ""
    is_listed: bool = False

    def needs_question(self, *, is_allowed: bool) -> bool:
        """Whether the user must be asked; ``is_allowed`` if all calls of the prompt are allowed."""
        return bool(self.change) or not (is_allowed or self.is_listed)


class ServerCalls:
    """The tools of servers that were offered to a model, by the names that were sent."""

    def __init__(self, tools: Iterable[ServerTool], known: Servers = servers) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._servers = known

    def __contains__(self, name: str) -> bool:
        return name in self._tools

    @property
    def names(self) -> list[str]:
        """The names of the tools as they were sent."""
        return list(self._tools)

    def shown(self, call: ToolCall) -> ToolCall:
        """Return the call with the name of its tool for the user: ``server.tool``."""
        tool = self._tools.get(call.name)
        return call if tool is None else replace(call, name=tool.shown)

    def how_to_allow(self, call: ToolCall) -> str:
        """Return the line that allows the tool from now on."""
        tool = self._tools[call.name]
        return f"%llm mcp allow {tool.server} {tool.tool}"

    async def check(self, call: ToolCall, messages: Sequence[ChatMessage]) -> CheckedCall:
        """
        Look a call up in the recording, check its arguments, and compare its tool with before.

        ``messages`` came before the call.

        Raises:
            ToolServerError: the server failed.
        """
        tool = self._tools[call.name]
        try:
            arguments: Any = call.arguments
        except LLMError:
            arguments = call.arguments_text
        request = call_request(tool, arguments, call.id, digest_messages(messages))
        stored = self._servers.find_stored(request)
        if stored is not None:
            return CheckedCall(request=request, result=stored)
        if mistake := _find_mistake(tool, call):
            return CheckedCall(request=request, result=ToolResult(mistake))
        now = await self._servers.find_tool(tool)
        if now is None:
            gone = ToolResult(f"Error: the server {tool.server} no longer has this tool.")
            return CheckedCall(request=request, result=gone)
        digest = approvals.tool_digest(now)
        change = ""
        if digest != approvals.allowed_digests(tool.server).get(tool.tool, tool.digest):
            change = f"{tool.shown} has changed since it was allowed. It is now described as:\n"
            change += f"{now['description']}\n{now['parameters']}"
        elif digest != tool.digest:
            change = f"{tool.shown} has changed since it was offered to the model."
        return CheckedCall(
            request=request,
            digest=digest,
            change=change,
            is_listed=tool.tool in self._servers.settings(tool.server).allow,
        )

    async def run(self, call: ToolCall, checked: CheckedCall) -> ToolResult:
        """
        Call the tool, whose current version the user has allowed, and record the result.

        Raises:
            ToolServerError: the server failed.
        """
        tool = self._tools[call.name]
        if approvals.allowed_digests(tool.server).get(tool.tool) != checked.digest:
            approvals.remember(tool.server, {tool.tool: checked.digest})
        with trace_tool(call, "extension") as span:
            result = await self._servers.call(tool, call.arguments)
            span.finish(result.text)
            if result.is_error:
                span.fail("tool_error")
        result = replace(result, text=truncate(result.text, session.config.tool_result_max_chars))
        self._servers.record(checked.request, result)
        return result


def _find_mistake(tool: ServerTool, call: ToolCall) -> str:
    """
    Return why the arguments do not match the schema, for the model; empty if they do.

    With a schema that takes too long to check, only their JSON is checked here.
    """
    from jsonschema import Draft202012Validator, ValidationError
    from jsonschema.validators import validator_for
    from referencing import Registry

    if not is_bounded(tool.parameters):
        try:
            _ = call.arguments
        except LLMError as error:
            return f"Error: {error}"[:2000]
        return ""
    kind = validator_for(tool.parameters, default=Draft202012Validator)
    try:  # an empty registry: a reference to another document is not fetched
        kind(tool.parameters, registry=Registry()).validate(call.arguments)
    except ValidationError as error:
        return f"Error: the arguments do not match the schema at {error.json_path}: {error.message}"[:2000]  # fmt: skip
    except LLMError as error:
        return f"Error: {error}"[:2000]
    except Exception as error:  # a reference that cannot be resolved, or an invalid pattern
        return f"Error: the schema of the tool cannot be used: {error}"[:500]
    return ""
