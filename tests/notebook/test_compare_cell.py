"""Several models in one cell: at once, side by side, and what each took."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import errors
from llm_magics.notebook import markdown
from llm_magics.notebook.display.side_by_side import Columns, compare_texts
from tests.support.cells import Cell
from tests.support.html_reader import Reader
from tests.support.kernels import Kernel
from tests.support.servers import WRONG_KEY, servers
from tests.support.serving import Asked, Says, chat_stream


def test_all_are_asked_at_once(shell: InteractiveShell) -> None:
    """None waits for another: each answers only when all have been asked."""
    all_are_asked = threading.Barrier(3, timeout=20)

    def answer(asked: Asked) -> Says:
        all_are_asked.wait()
        return Says(chat_stream("here ", asked.json()["model"]))

    with servers(one=answer, two=answer, three=answer):
        shown = shell.run_cell_magic("llm", "one/a two/b three/c -o cmp", "hi")
    assert shown.text.tolist() == ["here a", "here b", "here c"]
    assert shell.user_ns["cmp"].columns.tolist() == list(shell.user_ns["cmp"])
    assert {"ttft_s", "tokens_per_s", "output_tokens", "cost_usd", "finish_reason"} <= set(shown)


def test_one_that_fails_stops_no_other(shell: InteractiveShell) -> None:
    """Its error is in its row; where all fail the cell does."""
    with servers(one=Says(chat_stream("fine")), two=WRONG_KEY):
        shown = shell.run_cell_magic("llm", "two/b one/a", "hi")
        assert shown.text.fillna("").tolist() == ["", "fine"]
        assert "AuthenticationError" in shown.error[0]
        assert shown.finish_reason.tolist() == ["error", "stop"]
        with pytest.raises(errors.LLMError, match="All 2 models failed"):
            shell.run_cell_magic("llm", "two/b two/c", "hi")


def test_they_grow_beside_each_other(watched_kernel: Kernel, kernel: Kernel) -> None:
    """Live in one output, which is the one that an unattended run leaves."""
    left = []
    for each in (watched_kernel, kernel):
        told = each.run("%%llm echo/echo echo/lorem --seed 1 --max-tokens 60\none **two**")
        left.append(
            [output["data"] for output in told.outputs if output["kind"] == "display_data"]
        )
        frame = told.outputs[-1]
        assert "ttft_s" in frame["data"]["text/plain"]
    assert left[0] == left[1]
    first = left[0][0]
    assert "<strong>two</strong>" in first["text/html"]
    assert first["text/html"].count("border-left") == 2
    assert first["text/plain"].startswith("echo/echo:\none **two**")
    assert len(left[0]) == 1  # two texts without a word in common are not compared


def test_stopped_what_had_come_is_kept(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the frame, marked; every server saw its connection close."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    hanging = Says(chat_stream("half ", "x")[:2], hang=True)
    with servers(one=hanging, two=hanging) as running:
        monkeypatch.setattr(Columns, "write", interrupt)
        with pytest.raises(errors.Interrupted) as caught:
            shell.run_cell_magic("llm", "one/a two/b -o cmp", "hi")
        assert all(server.hung_up.wait(30) for server in running.values() if server.asked)
    assert "in cmp" in str(caught.value.hint)
    assert "interrupted" in shell.user_ns["cmp"].finish_reason.tolist()
    assert set(lm.runs().finish_reason) == {"interrupted"}


def test_what_is_sent_grows_with_the_text() -> None:
    """Three long answers at once cost a bounded multiple of their text on the wire."""
    now = [0.0]
    sent: list[int] = []

    def publish(**message: Any) -> None:
        sent.append(len(str(message["data"])))

    columns = Columns(publish, list("abc"), is_live=True, clock=lambda: now[0])
    total = 0
    for _ in range(1000):
        now[0] += 0.0125
        for number in range(3):
            columns.write(number, "word ")
            total += 5
    columns.close()
    assert sum(sent) < 30 * total


def test_a_text_that_repeats_itself_is_not_compared() -> None:
    """Of twenty thousand equal words each could be any of the others."""
    text = "word " * 20_000
    assert compare_texts(["a", "b"], [text, text + "end"]) is None
    assert compare_texts(["a", "b"], [text[:5000], text[:5000] + "end"]) is not None


@given(st.lists(st.text(max_size=60), min_size=2, max_size=4))
def test_texts_of_models_are_harmless_here_too(texts: list[str]) -> None:
    """In columns, and in what differs; names of models may be hostile as well."""
    cell = Cell()
    names = [f"<script>{number}" for number in range(len(texts))]
    columns = Columns(cell.publish, names, is_live=False)
    for number, text in enumerate(texts):
        columns.write(number, text + "<img src=x onerror=1>")
    columns.close()
    reader = Reader()
    reader.feed("".join(str(output["data"]["text/html"]) for output in cell.outputs))  # type: ignore[index]
    assert not {tag for tag, _ in reader.tags} & {"script", "img"}
    assert all(not name.startswith("on") for _, attributes in reader.tags for name in attributes)


@given(
    st.lists(st.sampled_from(["a", "b", "c "]), max_size=20),
    st.lists(st.sampled_from(["a", "b", "d"]), max_size=20),
)
def test_a_difference_holds_the_whole_of_both(one: list[str], other: list[str]) -> None:
    """Without what is struck out it is the other, without what was put in it is the first."""
    common = "x " * 20  # texts that are not similar are not compared
    texts = [common + " ".join(one), common + " ".join(other)]
    assume(texts[0] != texts[1])
    told = compare_texts(["m", "n"], texts)
    assert told is not None
    words = re.search(r"<p>(.*)</p>", told["text/html"], re.DOTALL)
    assert words
    without_gone = re.sub(r"<del[^>]*>.*?</del>|</?ins[^>]*>", "", words[1])
    without_come = re.sub(r"<ins[^>]*>.*?</ins>|</?del[^>]*>", "", words[1])
    assert without_gone.split() == markdown.to_plain_text(texts[1]).split()
    assert without_come.split() == markdown.to_plain_text(texts[0]).split()


def test_there_may_be_nothing_to_compare() -> None:
    """One answer, or none, or texts that are not similar."""
    assert compare_texts(["a", "b"], ["x", ""]) is None
    assert compare_texts(["a", "b"], ["one two three", "four five six"]) is None
    assert compare_texts(["a", "b"], ["one two three", "one two six"]) is not None


def test_equal_answers_are_said_to_be_the_same() -> None:
    """Without a word marked."""
    told = compare_texts(["a", "<b>"], ["one two three", "one two three"])
    assert told is not None
    assert told["text/plain"] == "<b> answered the same as a"
    assert "&lt;b&gt; answered" in told["text/html"]
    assert "<del" not in told["text/html"]


def test_each_column_has_a_clock_until_its_answer_has_ended() -> None:
    """The seconds run while nothing arrives, stop with the answer, and are not saved."""
    cell, now = Cell(), [0.0]
    columns = Columns(cell.publish, ["a/x", "b/y"], is_live=True, clock=lambda: now[0])
    columns.catch_up()
    assert not cell.outputs
    for now[0] in (0.3, 1.4, 2.5):
        columns.catch_up()
    assert str(cell.outputs).count("· 2 s<") == 2
    columns.write(0, "done")
    columns.end(0)
    now[0] = 4.0
    columns.catch_up()
    assert "a/x · 2 s<" in str(cell.outputs)
    assert "b/y · 4 s<" in str(cell.outputs)
    columns.end(1, "Error: it failed")
    columns.catch_up()
    assert "it failed" in str(cell.outputs)
    columns.close()
    assert len(cell.outputs) == 1
    assert "·" not in str(cell.outputs)


def test_the_clock_of_a_long_display_costs_little() -> None:
    """It is sent again as a whole, so the seconds of a long answer move in larger steps."""
    now, sent = [0.0], [0]

    def publish(**message: Any) -> None:
        sent[0] += len(str(message["data"]))

    columns = Columns(publish, ["a", "b"], is_live=True, clock=lambda: now[0])
    columns.write(0, "word " * 20_000)
    sent[0] = 0
    for now[0] in range(1, 601):
        columns.catch_up()
    assert sent[0] < 600 * 10_000


def test_what_failed_stands_in_its_column() -> None:
    """Escaped, below what had come."""
    published: list[dict[str, Any]] = []
    columns = Columns(lambda **content: published.append(content), ["a", "b"], is_live=False)
    columns.write(0, "one")
    columns.end(1, "Error: <b>no</b>")
    columns.close()
    assert "(Error: <b>no</b>)" in published[0]["data"]["text/plain"]
    assert ">Error: &lt;b&gt;no&lt;/b&gt;</p>" in published[0]["data"]["text/html"]


def test_a_word_that_is_no_model_is_refused_before_any_is_asked(shell: InteractiveShell) -> None:
    """It may be half of a text that wants quotes; a model that is not there stops no other."""
    with pytest.raises(errors.ModelNotFoundError, match="are") as caught:
        shell.run_cell_magic("llm", "echo/echo --system You are nice", "hi")
    assert "quotes" in str(caught.value.hint)
    assert lm.runs().empty
    frame = shell.run_cell_magic("llm", "echo/echo echo/gone", "hi")
    assert frame.error.isna().tolist() == [True, False]


def test_a_schema_is_for_one_model(shell: InteractiveShell) -> None:
    """It would not be checked for several, which is said instead."""
    with pytest.raises(errors.UsageError, match="one model"):
        shell.run_cell_magic("llm", 'echo/echo echo/lorem --schema "name"', "hi")
    with pytest.raises(errors.UsageError, match="schema"):
        lm.compare(["hi"], ["echo/echo"], schema="name")


@pytest.mark.parametrize("name", ["timeout", "max_retries"])
def test_what_other_libraries_call_otherwise(name: str) -> None:
    """It would go to the service, which passes over it in silence."""
    with pytest.raises(errors.UsageError, match=name) as caught:
        lm.ask("hi", model="echo/echo", **{name: 3})
    assert "%llm config" in str(caught.value.hint)
