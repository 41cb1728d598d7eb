"""An answer on its way into a cell."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magics.host import TRANSIENT_KEY, Progress
from llm_magics.notebook.display.answer import LiveDisplay, StaticDisplay, TextDisplay
from llm_magics.notebook.display.output import (
    ProgressBar,
    SegmentSplitter,
    UpdatableOutput,
)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Cell:
    """A cell as a front end keeps it: outputs, replaced in place by their display id."""

    def __init__(self) -> None:
        self.outputs: dict[str, dict[str, str]] = {}
        self.metadata: list[Any] = []
        self.published = 0

    def publish(self, data: dict[str, str], metadata: Any, **rest: Any) -> None:
        name = rest.get("transient", {}).get("display_id") or str(len(self.outputs))
        assert rest.get("update", False) == (name in self.outputs)
        self.outputs[name] = data
        self.metadata = [*self.metadata[: len(self.outputs) - 1], metadata]
        self.published += 1

    @property
    def left(self) -> list[dict[str, str]]:
        """What is saved with the notebook."""
        return list(self.outputs.values())


def shown_live(pieces: list[str], gap_s: float) -> Cell:
    """What a live display leaves of an answer that came in ``pieces``."""
    cell, clock = Cell(), Clock()
    with LiveDisplay(cell.publish, clock=clock) as display:
        for piece in pieces:
            display.write(piece)
            clock.now += gap_s
    return cell


def shown_static(pieces: list[str]) -> Cell:
    """What a static display leaves of it."""
    cell = Cell()
    with StaticDisplay(cell.publish) as display:
        for piece in pieces:
            display.write(piece)
    return cell


blocks = st.sampled_from(
    ["word " * 80 + "\n\n", "# title\n\n", "```py\nx = 1\n\n\ny\n```\n\n", "- a\n\n- b\n\n", "| a |\n|---|\n| 1 |\n", "\n"]
)  # fmt: skip


@settings(deadline=None)  # the machine may be busy
@given(st.lists(blocks, max_size=40), st.integers(1, 400), st.sampled_from([0.0, 0.01, 1.0]))
def test_live_and_static_leave_the_same(written: list[str], size: int, gap_s: float) -> None:
    """Whatever the pieces and the pace: the same outputs, and each static one published once."""
    text = "".join(written)
    pieces = [text[n : n + size] for n in range(0, len(text), size)]
    live, static = shown_live(pieces, gap_s), shown_static(pieces)
    assert live.left == static.left
    assert static.published == len(static.left)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(blocks, max_size=60), st.lists(st.integers(0), max_size=20))
def test_segments_depend_on_the_text_alone(written: list[str], cuts: list[int]) -> None:
    """Cut anyhow they come out the same, lose nothing, and never split a fence."""
    text = "".join(written)
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    whole, piecemeal = SegmentSplitter(), SegmentSplitter()
    at_once = whole.feed(text)
    by_pieces = [
        segment for start, end in pairwise(places) for segment in piecemeal.feed(text[start:end])
    ]
    assert (at_once, whole.open) == (by_pieces, piecemeal.open)
    assert "".join(at_once) + whole.open == text
    assert whole.open_length == len(whole.open)
    for segment in at_once:
        assert segment.count("```") % 2 == 0


def test_a_very_long_answer_stays_within_fifty_outputs() -> None:
    """JupyterLab would cut off what comes after the fiftieth."""
    paragraphs = ["word " * 60 + "\n\n"] * 2000  # 600 kB
    assert len(shown_static(paragraphs).left) < 50


def test_a_live_answer_grows_in_place() -> None:
    """One output, many updates, the plain text with the last."""
    cell = shown_live(["word "] * 100, gap_s=0.05)
    assert len(cell.left) == 1
    assert cell.published > 5
    assert cell.left[0]["text/plain"] == "word " * 100


def test_a_slow_model_is_seen_to_work() -> None:
    """Two words a second: each is shown before the next comes."""
    cell, clock = Cell(), Clock()
    with LiveDisplay(cell.publish, clock=clock) as display:
        for count in range(1, 12):
            display.write("word ")
            assert cell.left[0]["text/html"].count("word") == count
            clock.now += 0.5


def test_nothing_is_shown_of_nothing() -> None:
    """An empty answer leaves no output."""
    assert shown_live([], 0.1).left == shown_static([]).left == []
    assert shown_live(["\n", " "], 0.1).left == shown_static(["\n", " "]).left == []


def test_progress_gives_way_to_the_answer() -> None:
    """Both use the same output: nothing of the bar is saved."""
    cell, clock = Cell(), Clock()
    with LiveDisplay(cell.publish, clock=clock) as display:
        display.show_progress(Progress("fetching <x>", 1, 2))
        assert "&lt;x&gt;" in cell.left[0]["text/html"]
        assert 'value="0.500"' in cell.left[0]["text/html"]
        display.write("answer")
        display.show_progress(None)
    assert cell.left == shown_static(["answer"]).left


@pytest.mark.parametrize("kind", ["live", "whole"])
def test_a_waiting_cell_shows_for_what_and_how_long(kind: str) -> None:
    """After a quarter of a second; the answer takes the place of the line."""
    cell, clock, model = Cell(), Clock(), [""]
    display = (
        LiveDisplay(cell.publish, lambda: model[0], clock)
        if kind == "live"
        else StaticDisplay(cell.publish, lambda: model[0], clock, is_live=True)
    )
    with display:
        display.catch_up()
        assert not cell.left
        clock.now = 0.3
        display.catch_up()
        assert cell.left[0]["text/plain"] == "waiting …"
        model[0], clock.now = "openai/gpt-5", 3.2
        display.catch_up()
        assert cell.left[0]["text/plain"] == "waiting for openai/gpt-5 … 3 s"
        published = cell.published
        display.catch_up()
        assert cell.published == published
        display.show_progress(Progress("loading <b>, 2.0 GB"))
        clock.now = 5.3
        display.catch_up()
        assert "loading &lt;b&gt;, 2.0 GB … 2 s" in cell.left[0]["text/html"]
        display.show_progress(Progress("downloading", 1, 4))
        clock.now = 9.0
        display.catch_up()
        assert "25%" in cell.left[0]["text/plain"]
        display.write("answer")
    assert len(cell.left) == 1
    assert cell.left[0]["text/plain"] == "answer"
    assert ">openai/gpt-5</div>" in cell.left[0]["text/html"]


@pytest.mark.parametrize("kind", ["live", "whole"])
def test_nothing_of_the_waiting_is_left_without_an_answer(kind: str) -> None:
    """After an error or an interrupt; the output that remains is marked."""
    cell, clock = Cell(), Clock()
    display = (
        LiveDisplay(cell.publish, str, clock)
        if kind == "live"
        else StaticDisplay(cell.publish, str, clock, is_live=True)
    )
    with display:
        clock.now = 1.0
        display.catch_up()
    assert cell.left == [{}]
    assert TRANSIENT_KEY in cell.metadata[0]


def test_only_the_first_segment_has_the_name_of_the_model() -> None:
    """Live and static; the plain text has no name."""
    text = ("word " * 80 + "\n\n") * 20
    for kind in (LiveDisplay, StaticDisplay):
        cell = Cell()
        with kind(cell.publish, lambda: "a/model") as display:
            display.write(text)
        assert len(cell.left) > 1
        assert ["a/model" in each["text/html"] for each in cell.left].count(True) == 1
        assert "a/model" in cell.left[0]["text/html"]
        assert "a/model" not in cell.left[0]["text/plain"]


def test_thoughts_stream_dimmed_with_seconds_and_tokens() -> None:
    """Their end is displayed while they arrive; then they are folded."""
    cell, clock = Cell(), Clock()
    with LiveDisplay(cell.publish, clock=clock) as display:
        display.think("x " * 2000)
        clock.now = 12.2
        display.think("the <end>")
        live = cell.left[0]["text/html"]
        assert "thinking … 12 s, about 1,002 tokens" in live
        assert "the &lt;end&gt;" in live
        assert len(live) < 2_000
        clock.now = 20.4
        display.catch_up()
        assert "thinking … 20 s" in cell.left[0]["text/html"]
        display.write("answer")
        assert cell.left[0]["text/html"].startswith("<details")


def test_a_bar_is_redrawn_a_few_times_a_second() -> None:
    """A thousand steps in a second are five frames and the last."""
    cell, clock = Cell(), Clock()
    bar = ProgressBar(UpdatableOutput(cell.publish), clock)
    for step in range(1, 1001):
        bar(Progress("x", step, 1000))
        clock.now += 0.001
    assert cell.published <= 7
    bar(None)
    assert cell.left == [{}]


def test_a_terminal_gets_plain_text_as_it_comes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without escapes, and with a newline at the end."""
    with TextDisplay() as display:
        display.write("a\x1b[2J")
        assert capsys.readouterr().out == "a[2J"
        display.write("b")
    assert capsys.readouterr().out == "b\n"


def test_a_terminal_shows_progress_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rewritten in place, and gone before the answer."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    display = TextDisplay()
    display.show_progress(Progress("loading x"))
    display.write("a")
    assert terminal.getvalue() == "\r\x1b[Kloading x\r\x1b[K"


def test_a_table_that_swells_stays_within_bounds() -> None:
    """Two hundred columns and short rows: a renderer pads them to a hundred times the text."""
    pieces = ["|" + " a |" * 200 + "\n", "|" + "---|" * 200 + "\n", *["|\n"] * 100]
    assert shown_live(pieces, gap_s=0.5).published <= 10


def test_what_was_kept_back_is_shown_when_nothing_comes() -> None:
    """A burst and then silence: all of it is on the screen after a moment."""
    published: list[dict[str, Any]] = []
    now = [0.0]
    display = LiveDisplay(lambda **content: published.append(content), clock=lambda: now[0])
    display.write("one ")
    display.write("two")
    assert "two" not in str(published)
    now[0] = 0.5
    display.catch_up()
    assert "one two" in str(published[-1])
    count = len(published)
    now[0] = 5.0
    display.catch_up()
    assert len(published) == count
