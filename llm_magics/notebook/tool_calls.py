"""Tool calls of a model: confirm and run notebook functions, display and return their results."""

from __future__ import annotations

import html
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llm_magics._async.bridge import bridge
from llm_magics._util.text import escape_invisible, pluralize
from llm_magics.errors import LLMError, UsageError, nearest
from llm_magics.notebook import frontend, markdown
from llm_magics.notebook.frontend import display_mode
from llm_magics.runtime.response import Response
from llm_magics.runtime.session import session
from llm_magics.runtime.structured import StructuredCall, calls_message
from llm_magics.runtime.telemetry.calls import trace_tool
from llm_magics.tools import Toolbox, format_call, format_json, truncate
from llm_magics.types import ChatMessage, Tool, ToolCall

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from llm_magics.mcp.calls import ServerCalls

_NOT_ALLOWED = "Error: the user did not allow this call."

_MAX_RESULT = 4000
_MAX_LINE = 300


def find_functions(names: str, variables: Mapping[str, Any]) -> list[Callable[..., Any]]:
    """
    Return the notebook functions named in ``names``, separated by commas.

    Raises:
        UsageError: a name is not defined or is not a function.
    """
    found = []
    for name in filter(None, (each.strip() for each in names.split(","))):
        value = variables.get(name)
        if not callable(value):
            known = [each for each, other in variables.items() if callable(other)]
            what = "not a function" if name in variables else "not defined"
            msg = f"--tools {name}: {name} is {what}."
            raise UsageError(
                msg,
                hint=nearest(name, known, listed=False)
                or "Define it with def in an earlier cell.",
            )
        found.append(value)
    return found


class ToolRounds:
    """
    The rounds of tool calls of one answer: to notebook functions, and to tools of MCP servers.

    A call only runs if ``--yes`` is set, if the settings allow the tool of a server, or if the user
    confirms it. Otherwise it is an error in a session that is not interactive. A tool of a server
    that has changed since it was allowed is asked for again, also with ``--yes``.
    """

    def __init__(
        self,
        shell: InteractiveShell,
        tools: Sequence[Callable[..., Any] | Tool],
        *,
        is_allowed: bool,
        ask: Callable[[str], str] = input,
    ) -> None:
        self._shell = shell
        functions = [each for each in tools if not isinstance(each, Tool)]
        self._toolbox = Toolbox(functions, frontend.run_coroutine)
        self._server_calls: ServerCalls | None = None
        if len(functions) < len(tools):
            self._server_calls = create_server_calls(tools)
        self._is_allowed = is_allowed
        self._ask = ask

    def of(self, call: StructuredCall) -> Iterator[list[ChatMessage]]:
        """
        Yield the messages of each round for the model, until it answers without a tool call.

        Raises:
            LLMError: the answer was cut during its tool calls, or the model still calls tools
                after the maximum number of rounds (setting ``tool_rounds``).
        """
        for response in call.tool_rounds(session.config.tool_rounds):
            yield self.messages(response)

    def messages(self, response: Response) -> list[ChatMessage]:
        """Run the calls in ``response``; return them and their results as messages."""
        most = session.config.tool_calls_max
        results = [
            self._run(call, response) if number < most else self._left_out(call, most)
            for number, call in enumerate(response.tool_calls)
        ]
        return [calls_message(response), *results]

    def _run(self, call: ToolCall, response: Response) -> ChatMessage:
        if self._server_calls is not None and call.name in self._server_calls:
            return self._run_on_server(self._server_calls, call, response)
        if call.name in self._toolbox and not self._may_run(call):
            result = _NOT_ALLOWED
        else:
            with trace_tool(call, "function") as span:
                result = truncate(
                    self._toolbox.call(call, span.fail), session.config.tool_result_max_chars
                )
                span.finish(result)
        self._show(call, result)
        return ChatMessage("tool", result, tool_call_id=call.id)

    def _run_on_server(
        self, calls: ServerCalls, call: ToolCall, response: Response
    ) -> ChatMessage:
        """Run a call to a tool of an MCP server; a recorded one needs no server and no permission."""
        shown = calls.shown(call)
        checked = bridge.run(calls.check(call, response.messages))
        message = ChatMessage("tool", _NOT_ALLOWED, tool_call_id=call.id)
        if checked.result is not None:
            message = checked.result.as_message(call.id)
        elif not checked.needs_question(is_allowed=self._is_allowed) or self._confirm(
            f"{format_call(shown)}{_format_change(checked.change)}", calls.how_to_allow(call)
        ):
            message = bridge.run(calls.run(call, checked)).as_message(call.id)
        pictures = f" [{pluralize(len(message.images), 'picture')}]" if message.images else ""
        self._show(shown, f"{message.content}{pictures}")
        return message

    def _left_out(self, call: ToolCall, most: int) -> ChatMessage:
        result = f"Error: this call was not run. At most {most} calls run per round."
        self._show(call, result)
        return ChatMessage("tool", result, tool_call_id=call.id)

    def _may_run(self, call: ToolCall) -> bool:
        return self._is_allowed or self._confirm(format_call(call))

    def _confirm(self, call: str, how_to_allow: str = "") -> bool:
        """Ask the user to allow a call, which is shown in full."""
        question = f"The model wants to call {call}"
        if display_mode(self._shell) != "live":
            hint = "Add --yes to allow the calls of this cell."
            if how_to_allow:
                hint = f"Allow this tool: {how_to_allow}"
                hint += (
                    "" if self._is_allowed else ", or add --yes to allow the calls of this cell."
                )
            error = UsageError(
                f"{question}\nConfirmation is required, but the session is not interactive.",
                hint=hint,
            )
            error.lines_shown = len(str(error).splitlines())
            raise error
        answer = self._ask(f"{question}\nRun it? [y/N/all] ").strip().lower()
        self._is_allowed = self._is_allowed or answer in ("a", "all")
        return answer in ("a", "all", "y", "yes")

    def _show(self, call: ToolCall, result: str) -> None:
        """Display the call and its result: the beginning on one line, and the full text folded."""
        line = f"{_format_short(call)} → {_beginning(result)}"
        if display_mode(self._shell) == "text":
            sys.stdout.write(f"{markdown.to_plain_text(line)}\n")
            return
        details = escape_invisible(truncate(result, _MAX_RESULT), allowed="\n\t")
        if "\n" in line:
            details = f"{format_call(call)}\n\n{details}"
        summary = line.partition("\n")[0]
        self._shell.display_pub.publish(
            data={
                "text/plain": markdown.to_plain_text(line),
                "text/html": (
                    '<details class="mathjax_ignore"><summary><code>'
                    f"{html.escape(markdown.to_plain_text(summary))}</code></summary>"
                    '<pre style="white-space: pre-wrap">'
                    f"{html.escape(markdown.to_plain_text(details))}</pre></details>"
                ),
            },
            metadata={},
        )


def create_server_calls(tools: Sequence[Callable[..., Any] | Tool]) -> ServerCalls:
    """Return the calls to those of the tools that are on MCP servers."""
    from llm_magics.mcp.calls import ServerCalls
    from llm_magics.mcp.servers import ServerTool

    return ServerCalls(each for each in tools if isinstance(each, ServerTool))


def find_server_tools(
    names: Sequence[str], functions: Sequence[Callable[..., Any]]
) -> tuple[Tool, ...]:
    """Return the tools of MCP servers; ``names`` may have several names separated by commas."""
    from llm_magics.mcp.servers import servers

    words = [word.strip() for name in names for word in name.split(",")]
    taken = [each.__name__ for each in functions]
    return bridge.run(servers.tools([word for word in words if word], taken))


def _format_change(change: str) -> str:
    return f"\n{escape_invisible(change, allowed=chr(10))}" if change else ""


def _format_short(call: ToolCall) -> str:
    """Return a call in Python syntax, or with one argument per line if it is long."""
    try:
        arguments = call.arguments.items()
    except LLMError:
        return format_call(call)
    text = ", ".join(f"{escape_invisible(name)}={format_json(value)}" for name, value in arguments)
    return (
        f"{escape_invisible(call.name)}({text})" if len(text) <= _MAX_LINE else format_call(call)
    )


def _beginning(text: str, length: int = 80) -> str:
    flat = escape_invisible(" ".join(text.split()))
    return flat if len(flat) <= length else f"{flat[: length - 1]}…"
