"""Tool calls of a model: confirm and run notebook functions, display and return their results."""

from __future__ import annotations

import html
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llm_magics._util.text import escape_invisible
from llm_magics.errors import LLMError, UsageError, nearest
from llm_magics.notebook import frontend, markdown
from llm_magics.notebook.frontend import display_mode
from llm_magics.runtime.response import Response
from llm_magics.runtime.session import session
from llm_magics.runtime.structured import StructuredCall
from llm_magics.tools import Toolbox
from llm_magics.types import ChatMessage, ToolCall
from llm_magics.wire.finish_reasons import is_cut

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

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
    The rounds of tool calls of one answer.

    A call only runs if ``--yes`` is set or the user confirms it. Without ``--yes``, a call is an
    error in a session that is not interactive.
    """

    def __init__(
        self,
        shell: InteractiveShell,
        functions: Sequence[Callable[..., Any]],
        *,
        is_allowed: bool,
        ask: Callable[[str], str] = input,
    ) -> None:
        self._shell = shell
        self._toolbox = Toolbox(functions, frontend.run_coroutine)
        self._is_allowed = is_allowed
        self._ask = ask

    def of(self, call: StructuredCall) -> Iterator[list[ChatMessage]]:
        """
        Yield the messages of each round for the model, until it answers without a tool call.

        Raises:
            LLMError: the answer was cut during its tool calls, or the model still calls tools
                after the maximum number of rounds (setting ``tool_rounds``).
        """
        most = session.config.tool_rounds
        for _ in range(most):
            response = call.response()
            if not response.tool_calls:
                return
            if is_cut(response.finish_reason):
                msg = (
                    f"{response.model} was cut off in the middle of its tool calls; none was run."
                )
                error = LLMError(msg, hint="Raise max_tokens.")
                raise error
            yield self.messages(response)
        if call.response().tool_calls:
            msg = f"{call.response().model} still calls tools after {most} rounds."
            raise LLMError(
                msg, hint="Simplify the prompt, or raise the limit: %llm config tool_rounds 20"
            )

    def messages(self, response: Response) -> list[ChatMessage]:
        """Run the calls in ``response``; return them and their results as messages."""
        request = ChatMessage(
            "assistant",
            response.text,
            tool_calls=response.tool_calls,
            reasoning_blocks=response.reasoning_blocks,
        )
        most = session.config.tool_calls_max
        results = [
            ChatMessage(
                "tool",
                self._run(call) if number < most else self._left_out(call, most),
                tool_call_id=call.id,
            )
            for number, call in enumerate(response.tool_calls)
        ]
        return [request, *results]

    def _run(self, call: ToolCall) -> str:
        if call.name in self._toolbox and not self._may_run(call):
            result = "Error: the user did not allow this call."
        else:
            result = truncate(self._toolbox.call(call), session.config.tool_result_max_chars)
        self._show(call, result)
        return result

    def _left_out(self, call: ToolCall, most: int) -> str:
        result = f"Error: this call was not run. At most {most} calls run per round."
        self._show(call, result)
        return result

    def _may_run(self, call: ToolCall) -> bool:
        if self._is_allowed:
            return True
        question = f"The model wants to call {format_call(call)}"
        if display_mode(self._shell) != "live":
            error = UsageError(
                f"{question}\nConfirmation is required, but the session is not interactive.",
                hint="Add --yes to allow the calls of this cell.",
            )
            error.lines_shown = len(str(error).splitlines())
            raise error
        answer = self._ask(f"{question}\nRun it? [y/N/all] ")
        self._is_allowed = answer.strip().lower() in ("a", "all")
        return self._is_allowed or answer.strip().lower() in ("y", "yes")

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


def format_call(call: ToolCall) -> str:
    """
    Return the call with all its arguments, one per line, for the confirmation.

    The text is complete. Invisible and bidirectional characters in it are escaped.
    """
    name = escape_invisible(call.name)
    try:
        arguments = call.arguments
    except LLMError:
        return f"{name}, with arguments that are not a JSON object:\n    {escape_invisible(call.arguments_text)}"
    if not arguments:
        return f"{name}, without arguments."
    lines = [f"    {escape_invisible(each)}: {_json(value)}" for each, value in arguments.items()]
    return "\n".join([f"{name}:", *lines])


def truncate(text: str, most: int) -> str:
    """Return the first ``most`` characters of ``text``, with the number of omitted characters."""
    left = len(text) - most
    return text if left <= 0 else f"{text[:most]}\n[… {left:,} more characters left out]"


def _format_short(call: ToolCall) -> str:
    """Return a call in Python syntax, or with one argument per line if it is long."""
    try:
        arguments = call.arguments.items()
    except LLMError:
        return format_call(call)
    text = ", ".join(f"{escape_invisible(name)}={_json(value)}" for name, value in arguments)
    return (
        f"{escape_invisible(call.name)}({text})" if len(text) <= _MAX_LINE else format_call(call)
    )


def _json(value: Any) -> str:
    return escape_invisible(json.dumps(value, ensure_ascii=False))


def _beginning(text: str, length: int = 80) -> str:
    flat = escape_invisible(" ".join(text.split()))
    return flat if len(flat) <= length else f"{flat[: length - 1]}…"
