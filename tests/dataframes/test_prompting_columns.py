"""A prompt for each row: asked once, kept, typed, and one that fails stops no other."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import llm_magics as lm
from llm_magics import errors
from llm_magics.host import TerminalHost, install_host
from tests.conftest import eventually
from tests.support.chatter import Chatter
from tests.support.kernels import Kernel
from tests.support.prepared_python import run_prepared
from tests.support.serving import serving


@pytest.fixture
def service() -> Iterator[Chatter]:
    """The service ``lab``, whose model ``m`` is asked where none is named."""
    fake = Chatter()
    with serving(fake) as server:
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url, "api_key": "k"}}
        lm.config.model = "lab/m"
        lm.config.cache_dir = "cache"
        yield fake


def test_each_row_has_its_answer(service: Chatter) -> None:
    """Index and order stay; rows that ask the same are asked once, and those without text not."""
    frame = pd.DataFrame(
        {"text": ["a", "b", "a", None, " "], "n": [1, 2, 1, 4, 5]}, index=list("vwxyz")
    )
    done = frame.llm.prompt("Sum up {{ text }}", into="summary", concurrency=4)
    assert done is frame
    assert frame["summary"].tolist()[:3] == ["said: Sum up a", "said: Sum up b", "said: Sum up a"]
    assert frame["summary"].isna().tolist() == [False, False, False, True, True]
    assert sorted(service.paid) == ["Sum up a", "Sum up b"]
    assert str(frame.llm.report) == "3 ok · 2 missing"
    frame.llm.prompt("{{ text }} and {{ n }}")
    assert frame["answer"].tolist()[3] == "said:  and 4"


def test_a_second_run_pays_nothing(service: Chatter) -> None:
    """Nor one with more rows for those it had; ``fresh`` asks anew."""
    frame = pd.DataFrame({"text": ["a", "b"]})
    frame.llm.prompt("{{ text }}")
    more = pd.DataFrame({"text": ["b", "c", "a"]}).llm.prompt("{{ text }}")
    assert sorted(service.paid) == ["a", "b", "c"]
    report = more.llm.report
    assert (report.sent, report.cached, report.counts["ok"]) == (1, 2, 3)
    more.llm.prompt("{{ text }}", fresh=True)
    assert len(service.paid) == 6


def test_one_that_fails_stops_no_other(service: Chatter) -> None:
    """It is told of; the next run pays for it alone."""
    service.poison = {"bad"}
    frame = pd.DataFrame({"text": ["a", "bad", "b"]}, index=[7, 8, 9])
    with pytest.warns(UserWarning, match="2 ok · 1 failed"):
        frame.llm.prompt("{{ text }}")
    told = frame.llm.report.frame()
    assert told.index.tolist() == [8]
    assert "Not that" in told.error[8]
    assert told.prompt[8] == "bad"
    with pytest.raises(errors.ProviderError, match="Not that"):
        frame.llm.prompt("{{ text }}", on_error="raise")
    service.poison = set()
    frame.llm.prompt("{{ text }}")
    assert sorted(service.paid) == ["a", "b", "bad"]


def test_a_schema_becomes_typed_columns(service: Chatter) -> None:
    """One for each field, whatever the column of texts is called."""
    frame = pd.DataFrame({"my text": ["one two", "three", None]})
    frame.llm.extract("my text", "last, words int")
    assert frame["last"].tolist()[:2] == ["two", "three"]
    assert str(frame["words"].dtype) == "Int64"
    assert frame["words"].isna().tolist() == [False, False, True]


def test_labels_become_a_category(service: Chatter) -> None:
    """Of the labels and no other; fewer than two are refused."""
    frame = pd.DataFrame({"text": ["it is go", "it is ba", None]})
    frame.llm.classify("text", ["good", "bad", "{odd}"], into="mood")
    assert frame["mood"].tolist()[:2] == ["good", "bad"]
    assert frame["mood"].cat.categories.tolist() == ["good", "bad", "{odd}"]
    assert "{odd}" in service.paid[0]
    for wrong in (["one"], "good", ["a", "a"], [1, 2]):
        with pytest.raises(errors.UsageError, match="labels"):
            frame.llm.classify("text", wrong)


def test_labels_and_schemas_need_valid_unicode() -> None:
    """A lone surrogate cannot be sent, so no answer would match."""
    with pytest.raises(errors.UsageError, match=r"'a\\ud800'"):
        lm.classify(["x"], ["a\ud800", "b"], model="echo/echo")
    schema = {"type": "object", "properties": {"a": {"enum": ["\udfff"]}}}
    for each in (schema, "a x\udfff|y"):
        with pytest.raises(errors.ConfigurationError, match=r"'\\udfff'"):
            lm.extract(["x"], each, model="echo/echo")


@pytest.mark.parametrize(
    ("prompt", "given", "message"),
    [
        ("{{ txt }}", {}, "no such column"),
        ("{{ text }}", {"on_error": "never"}, "on_error"),
        ("{{ text }}", {"temperatur": 1}, "parameter: temperatur"),
        ("{{ text", {}, "Line 1 of the prompt"),
    ],
)
def test_slips_are_named_before_anything_is_sent(
    service: Chatter, prompt: str, given: dict[str, object], message: str
) -> None:
    """Nothing is asked."""
    with pytest.raises(errors.LLMError, match=message):
        pd.DataFrame({"text": ["a"]}).llm.prompt(prompt, **given)
    assert service.paid == []


def test_a_dry_run_tells_and_sends_nothing(service: Chatter) -> None:
    """Rows, different prompts, tokens and dollars."""
    lm.config.prices = {"lab/*": {"input_usd": 1, "output_usd": 10}}
    frame = pd.DataFrame({"text": ["a", "b", "a"]})
    told = frame.llm.prompt("{{ text }}", dry_run=True, max_tokens=100)
    assert (told.rows, told.prompts, told.output_tokens) == (3, 2, 200)
    assert told.cost_usd == pytest.approx(200 * 10 / 1e6, rel=0.1)
    assert "2 prompts to send" in str(told)
    assert service.paid == []
    assert "answer" not in frame


def test_a_budget_ends_it_and_loses_nothing(service: Chatter) -> None:
    """Answers that had come are in the frame, and the next run goes on."""
    lm.config.prices = {"lab/*": {"input_usd": 0, "output_usd": 1_000_000}}
    lm.config.budget = 12
    frame = pd.DataFrame({"text": [f"text {number}" for number in range(30)]})
    with pytest.raises(errors.BudgetError):
        frame.llm.prompt("{{ text }}", max_tokens=1, concurrency=1)
    came = frame["answer"].notna().sum()
    assert 0 < came < 30
    lm.config.budget = None
    frame.llm.prompt("{{ text }}", max_tokens=1, concurrency=1, yes=True)
    assert len(service.paid) == 30


CRASHING = """
import os, pathlib, sys, llm_magics as lm, pandas as pd
pathlib.Path("pid").write_text(str(os.getpid()), "utf-8")
lm.config.providers = {"lab": {"type": "openai", "base_url": sys.argv[1], "api_key": "k"}}
lm.config.cache_dir = sys.argv[2]
frame = pd.DataFrame({"text": [f"text {n}" for n in range(100)]})
frame.llm.prompt("{{ text }}", model="lab/m", concurrency=4)
"""


def test_kill_nine_in_the_middle(service: Chatter) -> None:
    """What was answered before is not paid again, but for what was under way."""
    service.delay_s = 0.03

    def kill() -> None:
        assert eventually(lambda: len(service.paid) >= 40, 60)
        os.kill(int(Path("pid").read_text("utf-8")), signal.SIGKILL)

    with ThreadPoolExecutor() as pool:
        killer = pool.submit(kill)
        url = lm.config.get("providers.lab.base_url")
        killed = run_prepared(CRASHING, url, str(lm.config.cache_dir), check=False)
        killer.result()
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    time.sleep(0.1)  # for what was under way
    service.delay_s = 0.0
    frame = pd.DataFrame({"text": [f"text {n}" for n in range(100)]}).llm.prompt(
        "{{ text }}", model="lab/m"
    )
    assert frame["answer"].notna().all()
    assert 100 <= len(service.paid) <= 100 + 2 * 4


def test_a_recording_plays_it(service: Chatter) -> None:
    """Recorded once, with no service afterwards."""
    lm.config.record = "answers.jsonl"
    frame = pd.DataFrame({"text": ["a", "b"]}).llm.prompt("{{ text }}", temperature=0)
    lm.config.record, lm.config.replay, lm.config.replay_strict = None, "answers.jsonl", True
    lm.config.set("providers.lab.base_url", "http://127.0.0.1:9")
    again = pd.DataFrame({"text": ["b", "a"]}).llm.prompt("{{ text }}", temperature=0)
    assert again["answer"].tolist() == frame["answer"].tolist()[::-1]


def test_an_interrupt_keeps_what_was_answered(service: Chatter, watched_kernel: Kernel) -> None:
    """The column has the answers that had come, and the same cell asks only for the others."""
    kernel = watched_kernel
    url = lm.config.get("providers.lab.base_url")
    kernel.run(
        f"""
import pandas as pd, llm_magics as lm
lm.config.providers = {{"lab": {{"type": "openai", "base_url": {url!r}, "api_key": "k"}}}}
lm.config.cache_dir = "cache"
frame = pd.DataFrame({{"text": [f"text {{n}}" for n in range(60)]}})"""
    )
    service.delay_s = 0.1
    cell = 'frame.llm.prompt("{{ text }}", model="lab/m", concurrency=2);'
    pressed: list[int] = []

    def press(_: object) -> None:
        if not pressed and len(service.paid) >= 10:
            pressed.append(1)
            kernel.interrupt()

    stopped = kernel.run(cell, on_output=press)
    assert "of 60 rows" in stopped.error
    assert "in the column answer" in stopped.error
    service.delay_s = 0.0
    assert 8 <= kernel.value("int(frame.answer.notna().sum())") < 60
    kernel.run(cell)
    assert kernel.value("bool(frame.answer.notna().all())")
    assert 60 <= len(service.paid) <= 60 + 2 * 2


@pytest.mark.parametrize("kind", ["list", "array", "series", "polars", "pyarrow"])
def test_columns_of_all_libraries(service: Chatter, kind: str) -> None:
    """``lm.prompt`` and its kin give answers on the index of what they are given."""
    texts = ["a", None, "b"]
    column: Any = {
        "list": lambda: texts,
        "array": lambda: np.array(texts, dtype=object),
        "series": lambda: pd.Series(texts, index=[5, 6, 5], name="words"),
        "polars": lambda: pytest.importorskip("polars").Series("words", texts),
        "pyarrow": lambda: pytest.importorskip("pyarrow").array(texts),
    }[kind]()
    answers = lm.prompt(column, "Sum up {{ text }}")
    assert answers.tolist()[0] == "said: Sum up a"
    assert answers.isna().tolist() == [False, True, False]
    assert answers.index.tolist() == ([5, 6, 5] if kind == "series" else [0, 1, 2])
    assert str(answers.llm.report) == "2 ok · 1 missing"
    labels = lm.classify(column, ["good", "bad"])
    assert list(labels.cat.categories) == ["good", "bad"]
    fields = lm.extract(column, "last, words int")
    assert list(fields) == ["last", "words"]
    assert str(fields.dtypes["words"]) == "Int64"


def test_frames_of_other_libraries(service: Chatter) -> None:
    """A polars frame has columns to name in a prompt too."""
    frame = pytest.importorskip("polars").DataFrame({"who": ["a"], "what": ["b"]})
    assert lm.prompt(frame, "{{ who }} {{ what }}").tolist() == ["said: a b"]


def test_a_column_has_the_same(service: Chatter) -> None:
    """``series.llm`` gives what ``lm`` gives, and remembers how it went."""
    column = pd.Series(["it is go", "it is ba"], index=["x", "y"])
    assert column.llm.prompt("{{ text }}!").tolist() == ["said: it is go!", "said: it is ba!"]
    assert str(column.llm.report) == "2 ok"
    assert column.llm.classify(["good", "bad"]).tolist() == ["good", "bad"]
    assert column.llm.extract("words int")["words"].index.tolist() == ["x", "y"]
    told = column.llm.prompt("{{ text }} {{ text }}", dry_run=True)
    assert told.prompts == 2
    with pytest.raises(errors.UsageError, match="txt"):
        column.llm.prompt("{{ txt }}")


def test_one_of_a_few_labels_is_a_category(service: Chatter) -> None:
    """Also where a schema has it among other fields."""
    schema = {
        "type": "object",
        "properties": {
            "mood": {"type": "string", "enum": ["good", "bad"]},
            "n": {"type": "integer"},
        },
    }
    found = lm.extract(["it is ba"], schema)
    assert found["mood"].cat.categories.tolist() == ["good", "bad"]
    assert found["mood"].tolist() == ["bad"]


class Asker(TerminalHost):
    """Answers questions, and remembers them."""

    def __init__(self, answer: str | None) -> None:
        super().__init__()
        self.answer = answer
        self.asked: list[str] = []

    def ask(self, question: str) -> str | None:
        self.asked.append(question)
        return self.answer


@pytest.fixture
def asker() -> Iterator[Asker]:
    """Somebody who answers as he is told to."""
    made = Asker("y")
    install_host(made)
    yield made
    install_host(TerminalHost())


def test_what_may_cost_much_is_asked_about(service: Chatter, asker: Asker) -> None:
    """Once, before anything is sent; what was answered before costs nothing and is not counted."""
    lm.config.prices = {"lab/*": {"input_usd": 0, "output_usd": 1_000_000}}
    frame = pd.DataFrame({"text": ["a", "b", "c"]})
    asker.answer = "n"
    with pytest.raises(errors.DeclinedError, match=r"\$3\.00") as declined:
        frame.llm.prompt("{{ text }}", max_tokens=1)
    assert declined.value._render_traceback_() == [str(declined.value)]
    assert (service.paid, list(frame)) == ([], ["text"])
    asker.answer = "y"
    frame.llm.prompt("{{ text }}", max_tokens=1)
    assert len(service.paid) == 3
    assert "may cost $3.00 (3 prompts)" in asker.asked[-1]
    frame.llm.prompt("{{ text }}", max_tokens=1)
    assert len(asker.asked) == 2
    asker.answer = None
    with pytest.raises(errors.UsageError) as caught:
        lm.classify(["d", "e"], ["x", "y"], max_tokens=1)
    assert "yes=True" in str(caught.value.hint)
    lm.classify(["d", "e"], ["x", "y"], max_tokens=1, yes=True)
    lm.config.confirm_above_usd = 10
    lm.prompt(["f", "g"], "{{ text }}", max_tokens=1)
    assert len(service.paid) == 7


def test_a_notebook_that_runs_by_itself_is_refused(service: Chatter, kernel: Kernel) -> None:
    """Where nobody watches, a costly column is an error that says what to write."""
    url = lm.config.get("providers.lab.base_url")
    kernel.run(
        f"""
import pandas as pd, llm_magics as lm
lm.config.providers = {{"lab": {{"type": "openai", "base_url": {url!r}, "api_key": "k"}}}}
lm.config.prices = {{"lab/*": {{"input_usd": 1e6, "output_usd": 1e6}}}}
df = pd.DataFrame({{"text": ["a long text, of some words"]}})"""
    )
    shown = str(kernel.run('df.llm.prompt("{{ text }}", model="lab/m")'))
    assert "Confirmation is required" in shown
    shown = str(kernel.run("%embed df.text --model lab/m --into vector"))
    assert "Confirmation is required" in shown
    assert "--yes" in shown
    assert service.paid == []


def test_a_dry_run_tells_the_time(service: Chatter) -> None:
    """Once the model has answered something, by how long that took."""
    service.delay_s = 0.2
    assert lm.prompt(["a"], "{{ text }}", dry_run=True).seconds is None
    lm.prompt(["a"], "{{ text }}")
    told = lm.prompt([f"b {n}" for n in range(80)], "{{ text }}", dry_run=True, concurrency=8)
    assert told.seconds == pytest.approx(2.5, rel=0.6)
    assert "about" in str(told)
    assert lm.prompt(["a"], "{{ text }}", dry_run=True).prompts == 0
