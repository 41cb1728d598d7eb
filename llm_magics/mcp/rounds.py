"""``lm.ask(mcp=…)``: call the tools of servers until the model answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import replace
from typing import Any

from llm_magics._async.sync import CoroutineCall, Operation
from llm_magics.errors import Interrupted, UsageError
from llm_magics.host import current_host
from llm_magics.mcp.calls import CheckedCall, ServerCalls
from llm_magics.mcp.results import ToolResult
from llm_magics.mcp.servers import servers
from llm_magics.runtime.prompts.prompt import Prompt
from llm_magics.runtime.response import Response
from llm_magics.runtime.session import session
from llm_magics.runtime.structured import StructuredCall, calls_message
from llm_magics.tools import create_tool, format_call
from llm_magics.types import ChatMessage, ToolCall

Steps = Generator[Operation[Any], Any, Response]


def answer_with_servers(request: Prompt, names: Sequence[str]) -> Steps:
    """
    Yield the operations that answer a prompt with the tools of the servers ``names``.

    Each operation is run by the caller, which sends its result. Calls to the functions in
    ``request.tools`` are not run: the answer that has them is returned.

    Raises:
        UsageError: a call needs permission, and the session is not interactive.
        ToolServerError: a server failed.
    """
    names = [names] if isinstance(names, str) else list(names)
    taken = [create_tool(each).name for each in request.tools]
    tools = yield _operation(lambda: servers.tools(names, taken))
    call = StructuredCall(session, replace(request, tools=(*request.tools, *tools)))
    calls = ServerCalls(tools)

    def interrupted() -> Interrupted:
        msg = "Stopped; the partial answer is in the exception's .partial."
        return Interrupted(msg, partial=call.response())

    yield Operation(call, call.response, interrupted)
    is_allowed = False
    for response in call.tool_rounds(session.config.tool_rounds):
        if not all(wanted.name in calls for wanted in response.tool_calls):
            break
        messages = [calls_message(response)]
        most = session.config.tool_calls_max
        for number, wanted in enumerate(response.tool_calls):
            result = ToolResult(
                f"Error: this call was not run. At most {most} calls run per round."
            )
            if number < most:
                checked: CheckedCall = yield _check(calls, wanted, response.messages)
                answer = "y"
                if checked.result is None and checked.needs_question(is_allowed=is_allowed):
                    answer = _ask(calls, wanted, checked)
                is_allowed = is_allowed or answer in ("a", "all")
                if checked.result is not None:
                    result = checked.result
                elif answer in ("y", "yes", "a", "all"):
                    result = yield _run(calls, wanted, checked)
                else:
                    result = ToolResult("Error: the user did not allow this call.")
            messages.append(result.as_message(wanted.id))
        call.go_on(messages)
        yield Operation(call, call.response, interrupted)
    answered = call.response()
    answered.check()
    return answered


def _check(
    calls: ServerCalls, call: ToolCall, messages: Sequence[ChatMessage]
) -> Operation[CheckedCall]:
    return _operation(lambda: calls.check(call, messages))


def _run(calls: ServerCalls, call: ToolCall, checked: CheckedCall) -> Operation[ToolResult]:
    return _operation(lambda: calls.run(call, checked))


def _operation(work: Callable[[], Awaitable[Any]]) -> Operation[Any]:
    call = CoroutineCall(work)
    return Operation(call, call.result)


def _ask(calls: ServerCalls, call: ToolCall, checked: CheckedCall) -> str:
    """Return the user's answer, in lower case, to the question whether to run a call."""
    question = permission_question(calls.shown(call), checked)
    answer = current_host().ask(f"{question}\nRun it? [y/N/all] ")
    if answer is None:
        raise unattended_error(question, f"Allow it: {calls.how_to_allow(call)}")
    return answer.strip().lower()


def permission_question(call: ToolCall, checked: CheckedCall) -> str:
    """Return the complete description of a call, and of what has changed, for the user."""
    from llm_magics._util.text import escape_invisible

    question = f"The model wants to call {format_call(call)}"
    change = escape_invisible(checked.change, allowed="\n")
    return f"{question}\n{change}" if change else question


def unattended_error(question: str, hint: str) -> UsageError:
    """Return the error for a call that needs permission in a session that is not interactive."""
    error = UsageError(
        f"{question}\nConfirmation is required, but the session is not interactive.", hint=hint
    )
    error.lines_shown = len(str(error).splitlines())
    return error
