"""Functions of the notebook that a model may call: asked for, run, shown, and told back."""

from __future__ import annotations

import html
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llm_magics import kernel_loop
from llm_magics.completeness import is_cut
from llm_magics.engine.checking import CheckedCall
from llm_magics.engine.response import Response
from llm_magics.engine.session import session
from llm_magics.errors import LLMError, UsageError, nearest
from llm_magics.media import ToolCall
from llm_magics.notebook import inert
from llm_magics.notebook.watching import rendering
from llm_magics.tools import Toolbox
from llm_magics.types import ChatMessage

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_LONGEST_SHOWN = 4000


def functions_named(names: str, variables: Mapping[str, Any]) -> list[Callable[..., Any]]:
    """The functions of the notebook in ``names``, which are separated by commas."""
    found = []
    for name in filter(None, (each.strip() for each in names.split(","))):
        value = variables.get(name)
        if not callable(value):
            known = [each for each, other in variables.items() if callable(other)]
            what = "no function" if name in variables else "not there"
            msg = f"--tools {name}: {name} is {what}."
            raise UsageError(msg, hint=nearest(name, known, listed=False) or "Define it with def.")
        found.append(value)
    return found


class ToolRounds:
    """
    The calls of one answer.

    Nothing runs that was not allowed: by ``--yes`` beforehand, or by who sits there when asked.
    Where nobody does, a model that calls is an error.
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
        self._toolbox = Toolbox(functions, kernel_loop.run)
        self._is_allowed = is_allowed
        self._ask = ask

    def of(self, call: CheckedCall) -> Iterator[list[ChatMessage]]:
        """
        What goes back to the model, round for round, until it answers without a call.

        Raises:
            LLMError: it still calls after as many rounds as the settings allow.
        """
        most = session.config.tool_rounds
        for _ in range(most):
            response = call.response()
            if not self._toolbox.tools or not response.tool_calls:
                return
            if is_cut(response.finish_reason):
                msg = f"{response.model} was cut in the middle of its calls; none was run."
                error = LLMError(msg, hint="Raise max_tokens.")
                raise error
            yield self.messages(response)
        if call.response().tool_calls:
            msg = f"{call.response().model} still calls tools after {most} rounds of them."
            raise LLMError(msg, hint="Ask more plainly, or raise it: %llm config tool_rounds 20")

    def messages(self, response: Response) -> list[ChatMessage]:
        """What the model wanted, and what came of each of its calls."""
        wanted = ChatMessage(
            "assistant",
            response.text,
            tool_calls=response.tool_calls,
            reasoning_blocks=response.reasoning_blocks,
        )
        results = [
            ChatMessage("tool", self._run(call), tool_call_id=call.id)
            for call in response.tool_calls
        ]
        return [wanted, *results]

    def _run(self, call: ToolCall) -> str:
        if call.name in self._toolbox and not self._may_run(call):
            result = "Error: the user does not allow this call."
        else:
            result = self._toolbox.call(call)
        self._show(call, result)
        return result

    def _may_run(self, call: ToolCall) -> bool:
        if self._is_allowed:
            return True
        if rendering(self._shell) != "live":
            msg = f"The model wants to call {_written(call)}, and nobody is there to allow it."
            raise UsageError(msg, hint="Write --yes to allow the calls of this cell.")
        answer = self._ask(f"The model wants to call {_written(call)}. Run it? [y/N/all] ")
        self._is_allowed = answer.strip().lower() in ("a", "all")
        return self._is_allowed or answer.strip().lower() in ("y", "yes")

    def _show(self, call: ToolCall, result: str) -> None:
        """The call and its result, folded."""
        line = f"{_written(call)} → {_beginning(result)}"
        if rendering(self._shell) == "text":
            sys.stdout.write(f"{inert.plain(line)}\n")
            return
        told = html.escape(inert.plain(result[:_LONGEST_SHOWN]))
        self._shell.display_pub.publish(
            data={
                "text/plain": inert.plain(line),
                "text/html": (
                    '<details class="mathjax_ignore"><summary><code>'
                    f"{html.escape(inert.plain(line))}</code></summary>"
                    f'<pre style="white-space: pre-wrap">{told}</pre></details>'
                ),
            },
            metadata={},
        )


def _written(call: ToolCall) -> str:
    """A call as it would be written in Python."""
    try:
        given = call.arguments.items()
    except LLMError:
        return f"{call.name}({call.arguments_text[:200]})"
    told = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in given)
    return f"{call.name}({_beginning(told, 300)})"


def _beginning(text: str, length: int = 80) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= length else f"{flat[: length - 1]}…"
