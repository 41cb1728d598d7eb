"""Cells for several models: answers side by side, with a table of tokens, times and cost."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from llm_magics._async.bridge import bridge
from llm_magics._util.text import display_name
from llm_magics.errors import Interrupted, LLMError, ModelNotFoundError, UsageError
from llm_magics.host import Progress, current_host, warn
from llm_magics.notebook import markdown
from llm_magics.notebook.display.footnotes import show_footnotes
from llm_magics.notebook.display.side_by_side import Columns
from llm_magics.notebook.frontend import display_mode
from llm_magics.notebook.provenance import get_provenance
from llm_magics.runtime.batch import ParallelCalls
from llm_magics.runtime.chat import ChatCall
from llm_magics.runtime.prompts.prompt import Prompt
from llm_magics.runtime.response import cut_warning
from llm_magics.runtime.routing import find_route
from llm_magics.runtime.session import session

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell
    from pandas import DataFrame

    from llm_magics.benchmarking.measurements import Measurements


_COLUMNS = ["provider", "model", "text", "ttft_s", "tokens_per_s", "output_tokens", "cost_usd", "finish_reason", "error"]  # fmt: skip

# The texts are already displayed side by side.
_DISPLAYED_COLUMNS = [name for name in _COLUMNS if name != "text"]

# Flags that are only valid for one model.
_SINGLE_MODEL_FLAGS = {
    "dry_run": "--dry-run works with one model",
    "thread": "--thread works with one model",
    "tools": "--tools works with one model",
    "mcp": "--mcp works with one model",
    "schema": "--schema works with one model",
}


def compare(shell: InteractiveShell, prompt: Prompt, options: argparse.Namespace) -> DataFrame:
    """Send the prompt to all models, show their answers, and return a table of measurements."""
    for flag, why in _SINGLE_MODEL_FLAGS.items():
        if getattr(options, flag):
            msg = f"{why}, but the cell names several."
            raise UsageError(msg, hint="Name one model, or remove the flag.")
    _check_models(options.model)
    calls = [ChatCall(session, replace(prompt, model=model)) for model in options.model]
    for call in calls:
        call.warns_of_cut = False  # one warning for all of them
    parallel = ParallelCalls(calls)
    try:
        _show(shell, parallel, options, calls)
    except KeyboardInterrupt:
        frame = _frame(prompt, options, calls, parallel)
        _store(shell, options.output, frame)
        hint = f"Partial answers are in {options.output}." if options.output else None
        msg = f"Stopped: {frame['text'].astype(bool).sum()} of {len(frame)} models had started to answer."
        raise Interrupted(msg, hint=hint, partial=frame) from None
    frame = _frame(prompt, options, calls, parallel)
    _store(shell, options.output, frame)
    if frame["error"].notna().all():
        msg = f"All {len(frame)} models failed. First error: {frame['error'].iloc[0]}"
        is_prose = frame["error"].str.startswith("ModelNotFoundError").all()
        prose = "If these words are the prompt, write them in the lines below %%llm."
        raise LLMError(
            msg, hint=prose if is_prose else "Run one of them alone for the full error."
        )
    cut = sum(call.is_cut_unasked for call in calls)
    if cut:
        warn(cut_warning("", cut, len(calls)))
    from llm_magics._util.tables import display_columns

    return display_columns(frame.frame[_COLUMNS], *_DISPLAYED_COLUMNS)


def _check_models(models: Sequence[str]) -> None:
    """
    Refuse a word that is not a model, such as a part of the prompt, before any request.

    Raises:
        ModelNotFoundError: a word is not a model.
    """
    for word in models:
        if "/" not in word:
            try:
                bridge.run(find_route(session, word))
            except ModelNotFoundError as error:
                prose = "Write the prompt in the lines below %%llm; put a value of several words in quotes."
                hint = f"{error.hint or ''} {prose}".strip()
                raise ModelNotFoundError(str(error), hint=hint) from None


def _show(
    shell: InteractiveShell,
    parallel: ParallelCalls,
    options: argparse.Namespace,
    calls: Sequence[ChatCall],
) -> None:
    mode = display_mode(shell)
    is_live = mode == "live" and not options.no_stream
    columns = Columns(shell.display_pub.publish, options.model, is_live=is_live)
    texts = [""] * len(options.model)
    show_progress = current_host().create_progress_display()

    def update() -> None:
        for number, error in parallel.ended():
            columns.end(number, "" if error is None else f"{type(error).__name__}: {error}")
        columns.catch_up()

    with closing(bridge.iterate(parallel.events(), update)) as events:
        try:
            for number, event in events:
                if isinstance(event, Progress):
                    show_progress(event)
                else:
                    if event.ends_reasoning:
                        texts[number] = ""
                        columns.rethink(number)
                    texts[number] += event.text
                    columns.write(number, event.text)
                update()
        finally:
            show_progress(None)
            if mode == "text":
                _print(options.model, texts)
            else:
                update()
                columns.close([get_provenance(call) for call in calls])
    for call in calls:
        response = call.response()
        show_footnotes(shell, response, of=response.model)


def _print(names: list[str], texts: list[str]) -> None:
    for name, text in zip(names, texts, strict=True):
        if text:
            sys.stdout.write(markdown.to_plain_text(f"{display_name(name)}:\n{text.strip()}\n\n"))


def _frame(
    prompt: Prompt, options: argparse.Namespace, calls: list[ChatCall], parallel: ParallelCalls
) -> Measurements:
    from llm_magics.benchmarking import measure
    from llm_magics.benchmarking.measure import MeasuredCall
    from llm_magics.benchmarking.measurements import Measurements

    rows = []
    for model, call, error in zip(options.model, calls, parallel.errors, strict=True):
        answered = MeasuredCall(
            model=model, response=call.response(), chunks=call.chunks, error=error
        )
        rows.append({"asked": model, "prompt": prompt.text, **answered.answer()})
    return Measurements.of(rows, measure.describe_environment(options.model))


def _store(shell: InteractiveShell, name: str | None, frame: DataFrame) -> None:
    if name and len(frame):
        shell.user_ns[name] = frame
