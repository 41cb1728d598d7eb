"""An answer on its way back into the cell that asked."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from llm_magics._async.sync import Exchange
from llm_magics._util.terminal import shown_name
from llm_magics.errors import Interrupted, ParseError
from llm_magics.notebook import inert
from llm_magics.notebook.displays import footer
from llm_magics.notebook.displays.answers import answer_display
from llm_magics.notebook.printing import say
from llm_magics.notebook.provenance import PROVENANCE, told_by
from llm_magics.notebook.tool_rounds import ToolRounds
from llm_magics.notebook.watching import rendering
from llm_magics.runtime.prompts.prompt import Prompt
from llm_magics.runtime.response import Response
from llm_magics.runtime.session import session
from llm_magics.runtime.structured import CheckedCall

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

# Where the last answer is kept, as IPython keeps the last result in _.
LAST = "_llm"


def answer(shell: InteractiveShell, options: argparse.Namespace, prompt: Prompt) -> Response:
    """Show the answer as it comes and return it; what came is kept, however it ends."""
    call = CheckedCall(session, prompt)
    form = options.format or ("markdown" if call.schema is None else "json")
    rounds = ToolRounds(shell, prompt.tools, is_allowed=options.yes)
    try:
        _show(shell, call, options, is_shown=form == "markdown")
        for messages in rounds.of(call):
            call.go_on(messages)
            _show(shell, call, options, is_shown=form == "markdown")
    except KeyboardInterrupt:
        raise _interrupted(call.response(), options.output) from None
    finally:
        _keep(shell, options.output, call.response())
    response = call.response()
    if form != "markdown":
        _show_as(shell, form, call)
    _tell(shell, response)
    response.check()
    return response


def _show(
    shell: InteractiveShell, call: CheckedCall, options: argparse.Namespace, *, is_shown: bool
) -> None:
    """Walk the call to its end, showing the answer as it comes if it is to be shown so."""
    if not is_shown:
        with answer_display(shell) as display, Exchange(call, display.show_progress) as asked:
            asked.finish()
        return
    call.ask_once()  # what is shown cannot be taken back
    with answer_display(shell, stream=not options.no_stream) as display:
        written = 0
        try:
            with Exchange(call, display.show_progress, display.catch_up) as exchange:
                for chunk in exchange:
                    if chunk.ends_reasoning:
                        display.rethink()
                        written = 0
                    if chunk.reasoning:
                        display.think(chunk.reasoning)
                    if chunk.text:
                        written += len(chunk.text)
                        display.write(chunk.text)
        finally:
            # What an Interrupt found on its way here had come, and is in the answer too.
            display.write(call.response().text[written:])
        display.tell(told_by(call))


def _tell(shell: InteractiveShell, response: Response) -> None:
    """What it took, in a line or two."""
    if response.retries or response.fallback_from or response.mended:
        say(_what_happened(response))
    if response.dropped:
        turns = "A later turn" if response.dropped == 1 else f"{response.dropped} later turns"
        sys.stdout.write(f"{turns} of the thread hung on the old answer: run those cells again.\n")
    wanted = session.config.footer
    if wanted == "always" or (wanted == "auto" and rendering(shell) == "live"):
        footer.show(shell.display_pub.publish, response)


def _what_happened(response: Response) -> str:
    """In one line, what it took to get the answer."""
    parts = [f"answered by {shown_name(response.model)}"]
    if response.fallback_from:
        parts.append(f"in place of {', '.join(map(shown_name, response.fallback_from))}")
    if response.retries:
        times = "once" if response.retries == 1 else f"{response.retries} times"
        parts.append(f"asked again {times}")
    if response.mended:
        parts.append("shown what did not fit its schema")
    return ", ".join(parts)


def _show_as(shell: InteractiveShell, form: str, call: CheckedCall) -> None:
    try:
        _show_value(form, call)
    except ParseError:  # what it does say is worth seeing
        with answer_display(shell, stream=False) as display:
            display.write(call.response().text)
        raise


def _show_value(form: str, call: CheckedCall) -> None:
    from IPython.display import Code, display

    response = call.response()
    if form == "text":
        sys.stdout.write(inert.plain(response.text).rstrip("\n") + "\n")
        return
    if form == "code":
        value: Any = Code(response.code, language=_language(response))
    else:
        value = response.data if form == "json" else response.df()
    about = told_by(call)
    display(value, metadata={PROVENANCE: about} if about else {})


def _language(response: Response) -> str:
    blocks = response.code_blocks
    return blocks[0].language if blocks and blocks[0].language else "python"


def _keep(shell: InteractiveShell, name: str | None, response: Response) -> None:
    if not response.text and not response.tool_calls:
        return  # an earlier answer is worth more than none
    shell.user_ns[LAST] = response
    if name:
        shell.user_ns[name] = response


def _interrupted(response: Response, name: str | None) -> Interrupted:
    came = f"{len(response.text):,} characters" if response.text else "nothing"
    msg = f"Stopped; {came} had come."
    kept = f"What had come is kept in {name or LAST}." if response.text else None
    return Interrupted(msg, hint=kept, partial=response)
