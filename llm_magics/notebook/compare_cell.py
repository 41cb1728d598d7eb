"""Cells for several models: answers side by side, with a table of tokens, times and cost."""

from __future__ import annotations

import argparse
import difflib
import html
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llm_magics._async.bridge import bridge
from llm_magics._util.text import display_name, pluralize
from llm_magics.errors import Interrupted, LLMError, ModelNotFoundError, UsageError
from llm_magics.host import Progress, current_host, warn
from llm_magics.notebook import markdown
from llm_magics.notebook.display.output import Bundle, UpdatableOutput, UpdatePacer
from llm_magics.notebook.frontend import display_mode
from llm_magics.notebook.provenance import PROVENANCE_KEY, get_provenance
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


_ROW = '<div style="display: flex; flex-wrap: wrap; gap: 1.5em">'
_COLUMN = '<div style="flex: 1 1 16em; min-width: 0">'


class Columns:
    """
    Displays one text per column, live or once at the end; both leave the same output.

    In a narrow window the columns are stacked.
    """

    def __init__(
        self,
        publish: Callable[..., Any],
        names: Sequence[str],
        *,
        is_live: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._output = UpdatableOutput(publish)
        self._publish = publish
        self._names = [display_name(each) for each in names]
        self._texts = [""] * len(names)
        self._failures = [""] * len(names)
        self._is_live = is_live
        self._pacer = UpdatePacer(clock)

    def write(self, number: int, text: str) -> None:
        """Add text to one of the answers."""
        self._texts[number] += text
        self._pacer.grew(len(text))
        self.catch_up()

    def rethink(self, number: int) -> None:
        """Discard the text of one of the answers so far, because it was thinking."""
        self._texts[number] = ""

    def catch_up(self) -> None:
        """Display text that was held back, if an update is due."""
        if self._is_live and self._pacer.is_due(sum(map(len, self._texts))):
            frame = {"text/html": _html(self._names, self._texts, self._failures)}
            self._output.show(frame)
            self._pacer.sent(len(frame["text/html"].encode()))

    def fail(self, number: int, why: str) -> None:
        """Record the error that ended one of the answers."""
        self._failures[number] = why

    def close(self, about: Sequence[Mapping[str, Any]] = ()) -> None:
        """Display all answers and their differences; ``about`` has the provenance of each."""
        metadata = {PROVENANCE_KEY: [dict(each) for each in about]} if any(about) else {}
        columns = (self._names, self._texts, self._failures)
        bundle = {"text/plain": _plain(*columns), "text/html": _html(*columns)}
        if self._is_live:
            self._output.show(bundle, metadata)
        else:
            self._publish(data=bundle, metadata=metadata)
        differing = compare_texts(self._names, self._texts)
        if differing:
            self._publish(data=differing, metadata={})


def _plain(names: Sequence[str], texts: Sequence[str], failures: Sequence[str]) -> str:
    parts = []
    for name, text, why in zip(names, texts, failures, strict=True):
        said = "\n".join(part for part in (text.strip(), why and f"({why})") if part)
        parts.append(f"{name}:\n{said}")
    return markdown.to_plain_text("\n\n".join(parts))


def _html(names: Sequence[str], texts: Sequence[str], failures: Sequence[str]) -> str:
    columns = "".join(
        f"{_COLUMN}<strong>{markdown.escape_html(name)}</strong>{markdown.render_safe(text)}{_failure_html(why)}</div>"
        for name, text, why in zip(names, texts, failures, strict=True)
    )
    return f"{_ROW}{columns}</div>"


def _failure_html(why: str) -> str:
    said = html.escape(markdown.to_plain_text(why))
    return f'<p class="mathjax_ignore"><em>{said}</em></p>' if why else ""


def compare_texts(names: Sequence[str], texts: Sequence[str]) -> Bundle | None:
    """
    Return the differences of the other texts from the first one, word by word, folded.

    Return ``None`` if fewer than two texts are not empty.
    """
    first, *others = ((name, text) for name, text in zip(names, texts, strict=True) if text)
    plain, folded = [], []
    for name, text in others:
        words, count = _mark_differences(first[1], text)
        summary = f"{name} differs from {first[0]} in {pluralize(count, 'word')}"
        plain.append(summary)
        folded.append(
            f'<details class="mathjax_ignore"><summary><em>{html.escape(markdown.to_plain_text(summary))}</em>'
            f"</summary><p>{words}</p></details>"
        )
    return {"text/plain": "\n".join(plain), "text/html": "".join(folded)} if plain else None


def _mark_differences(one: str, other: str) -> tuple[str, int]:
    """Return ``other`` as HTML with its differences from ``one``, and their number of words."""
    before, after = (re.findall(r"\S+\s*", markdown.to_plain_text(text)) for text in (one, other))
    parts, count = [], 0
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        gone, come = html.escape("".join(before[a:b])), html.escape("".join(after[c:d]))
        if kind == "equal":
            parts.append(come)
            continue
        count += max(b - a, d - c)
        parts += [f"<del>{gone}</del>" if gone else "", f"<ins>{come}</ins>" if come else ""]
    return "".join(parts), count


_COLUMNS = ["provider", "model", "text", "ttft_s", "tokens_per_s", "output_tokens", "cost_usd", "finish_reason", "error"]  # fmt: skip

# Flags that are only valid for one model.
_SINGLE_MODEL_FLAGS = {
    "dry_run": "--dry-run works with one model",
    "thread": "--thread works with one model",
    "tools": "--tools works with one model",
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
    columns: DataFrame = frame.frame[_COLUMNS]
    return columns


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
    with closing(bridge.iterate(parallel.events(), columns.catch_up)) as events:
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
        finally:
            show_progress(None)
            if mode == "text":
                _print(options.model, texts)
            elif any(texts):
                for number, error in enumerate(parallel.errors):
                    if error is not None:
                        columns.fail(number, f"{type(error).__name__}: {error}")
                columns.close([get_provenance(call) for call in calls])


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
