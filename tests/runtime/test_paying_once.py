"""Rows that are paid: exact numbers, whatever goes wrong between the first and the last."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import errors
from llm_magics.runtime.session import session
from tests.conftest import eventually
from tests.support.embedder import WIDTH, Embedder, vector_of
from tests.support.examples import examples
from tests.support.fake_ollama import EMBED, FakeOllama
from tests.support.kernels import Kernel
from tests.support.nested import plain_environment
from tests.support.serving import Asked, Says, as_json, serving


@pytest.fixture
def service() -> Iterator[Embedder]:
    """The service ``lab``, whose model ``m`` embeds where none is named."""
    fake = Embedder()
    with serving(fake) as server:
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url, "api_key": "k"}}
        lm.config.embedding_model = "lab/m"
        yield fake


TEXTS = [f"text {number}" for number in range(1000)]


def test_a_second_run_pays_nothing(service: Embedder) -> None:
    """The vectors are the same, in whatever order and by whatever way they are asked for."""
    first = lm.embed(TEXTS)
    assert sorted(service.paid) == sorted(TEXTS)
    again = lm.embed(TEXTS[::-1])
    np.testing.assert_array_equal(again, first[::-1])
    frame = pd.DataFrame({"text": TEXTS}).llm.embed("text")
    np.testing.assert_array_equal(lm.matrix(frame["vector"]), first)
    assert len(service.paid) == 1000
    assert frame.llm.report.cached == 1000
    assert lm.runs().cached.tolist() == [False, True, True]


def test_another_model_shares_nothing(service: Embedder) -> None:
    """Nor the same model at another address."""
    lm.embed(["a"], model="lab/m")
    lm.embed(["a"], model="lab/n")
    assert service.paid == ["a", "a"]
    with serving(other := Embedder()) as server:
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url, "api_key": "k"}}
        lm.embed(["a"], model="lab/m")
    assert other.paid == ["a"]


def test_duplicates_and_gaps_are_not_paid(service: Embedder) -> None:
    """Each text once; nulls, empty and blank ones not at all; index and order stay."""
    texts = ["a", None, "b", "", "a", "  ", float("nan"), "b"]
    frame = pd.DataFrame({"text": texts}, index=list("hgfedcba")).llm.embed("text")
    assert sorted(service.paid) == ["a", "b"]
    assert frame.index.tolist() == list("hgfedcba")
    assert frame["vector"].isna().tolist() == [False, True, False, True, False, True, True, False]
    assert str(frame.llm.report) == "4 ok · 2 missing · 2 empty · 8 dimensions · lab/m"
    told = frame.llm.report.frame()
    assert told.index.tolist() == list("gecb")
    assert told.outcome.tolist() == ["missing", "empty", "empty", "missing"]


@pytest.mark.parametrize("at", [0, 1, 500, 999])
def test_one_poisonous_row_costs_itself(service: Embedder, at: int) -> None:
    """A batch that is refused is halved until the guilty row is found; all others are paid once."""
    service.poison = {TEXTS[at]}
    with pytest.warns(UserWarning, match="999 ok · 1 failed"):
        frame = pd.DataFrame({"text": TEXTS}).llm.embed("text")
    assert sorted(service.paid) == sorted(set(TEXTS) - service.poison)
    assert np.flatnonzero(frame["vector"].isna()).tolist() == [at]
    told = frame.llm.report.frame()
    assert told.text.tolist() == [TEXTS[at]]
    assert "Invalid input" in told.error.iloc[0]
    service.poison = set()
    frame.llm.embed("text")
    assert len(service.paid) == 1000
    assert service.paid[-1] == TEXTS[at]


@given(st.sets(st.integers(0, 19), max_size=4), st.integers(1, 20))
@settings(
    max_examples=examples(15),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_whichever_rows_are_poisonous(service: Embedder, bad: set[int], batch_size: int) -> None:
    """All of them are named, and every other is paid once."""
    texts = [f"{id(bad)} {time.monotonic_ns()} {number}" for number in range(20)]
    service.paid.clear()
    service.poison = {texts[number] for number in bad}
    matrix = lm.embed(texts, on_error="null", batch_size=batch_size)
    assert np.flatnonzero(np.isnan(matrix[:, 0])).tolist() == sorted(bad)
    assert sorted(service.paid) == sorted(set(texts) - service.poison)


def test_raise_raises_when_the_others_have_landed(service: Embedder) -> None:
    """The next run pays for the guilty row alone."""
    service.poison = {TEXTS[3]}
    with pytest.raises(errors.ProviderError, match="Invalid input"):
        lm.embed(TEXTS)
    assert len(service.paid) == 999


def test_what_is_wrong_with_all_is_found_out_soon(service: Embedder) -> None:
    """A service that refuses everything is not asked a thousand times."""
    service.poison = set(TEXTS)
    with pytest.raises(errors.ProviderError, match="Invalid input"):
        lm.embed(TEXTS, on_error="null")
    assert service.requests < 60


BUSY = Says(as_json({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}).pieces, 429, "application/json", headers={"retry-after": "0"})  # fmt: skip


def test_a_429_costs_nothing_twice(service: Embedder) -> None:
    """The batch is sent again, and paid once."""
    service.refusals = [BUSY]
    lm.embed(TEXTS)
    assert sorted(service.paid) == sorted(TEXTS)
    assert lm.runs().retries.tolist() == [1]


def test_a_wrong_key_ends_it_at_once(service: Embedder) -> None:
    """It is not about the texts."""
    service.refusals = [as_json({"error": {"message": "no", "code": "invalid_api_key"}}, 401)] * 50
    with pytest.raises(errors.AuthenticationError):
        lm.embed(TEXTS)
    assert service.requests <= 4


def test_texts_that_are_too_long(service: Embedder) -> None:
    """Truncated, averaged or refused; the others are paid once, and a second run pays nothing."""
    service.longest = 10
    long = " ".join(f"w{number}" for number in range(35))
    texts = ["short", long, "also short"]
    frame = pd.DataFrame({"text": texts})
    cut = frame.llm.embed("text").llm.report
    assert str(cut).startswith("2 ok · 1 truncated")
    beginning = next(text for text in service.paid if text.startswith("w0"))
    assert long.startswith(beginning)
    assert len(beginning.split()) >= 5
    np.testing.assert_allclose(frame["vector"][1], vector_of(beginning), rtol=1e-6)
    paid = len(service.paid)
    assert str(frame.llm.embed("text").llm.report) == str(cut)
    assert len(service.paid) == paid
    mean = frame.llm.embed("text", too_long="chunk-mean").llm.report
    assert str(mean).startswith("2 ok · 1 averaged")
    assert np.linalg.norm(frame["vector"][1]) == pytest.approx(1)
    assert {"short", "also short"} & set(service.paid[paid:]) == set()
    with pytest.warns(UserWarning, match="1 failed"):
        frame.llm.embed("text", too_long="error")
    with pytest.raises(errors.ContextLengthError):
        lm.embed(texts)


def test_batches_go_at_once_and_within_their_bounds(service: Embedder) -> None:
    """As many as are asked for, no more; and no batch is longer than it may be."""
    service.delay_s = 0.05
    served = service.__call__

    def counting(asked: Asked) -> Says:
        assert len(asked.json()["input"]) <= 100
        return served(asked)

    with serving(counting) as server:
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url, "api_key": "k"}}
        lm.embed(TEXTS, batch_size=100, concurrency=5)
    assert service.requests == 10


def test_an_interrupt_keeps_what_had_come(service: Embedder, watched_kernel: Kernel) -> None:
    """The column has it; the same cell sends only what is missing."""
    kernel = watched_kernel
    service.delay_s = 0.2
    url = lm.config.get("providers.lab.base_url")
    kernel.run(
        "import llm_magics as lm, pandas as pd\n"
        f"lm.config.providers = {{'lab': {{'type': 'openai', 'base_url': {url!r}, 'api_key': 'k'}}}}\n"
        "lm.config.embedding_model = 'lab/m'\n"
        "df = pd.DataFrame({'text': [f'text {n}' for n in range(1000)]})"
    )
    line = "%embed df.text --into vector --batch-size 50 --concurrency 2"
    pressed: list[int] = []

    def press(_: object) -> None:
        if not pressed and len(service.paid) >= 200:
            pressed.append(1)
            kernel.interrupt()

    done = kernel.run(line, on_output=press)
    assert "will not be requested again" in done.error
    had = kernel.value("int(df['vector'].notna().sum())")
    assert 0 < had < 1000
    missing = set(kernel.value("df['text'][df['vector'].isna()].tolist()"))
    time.sleep(0.5)  # for what was sent and given up: the server may only read it now
    before = len(service.paid)
    assert kernel.run(line).status == "ok"
    again = service.paid[before:]
    assert sorted(again) == sorted(missing), "each missing text is paid once, and no other"
    assert kernel.value("int(df['vector'].notna().sum())") == 1000


CRASHING = """
import sys, llm_magics as lm
lm.config.providers = {"lab": {"type": "openai", "base_url": sys.argv[1], "api_key": "k"}}
lm.embed([f"text {n}" for n in range(1000)], model="lab/m", batch_size=50, concurrency=2)
"""


def test_kill_nine_in_the_middle(service: Embedder) -> None:
    """What was answered before is not paid again, but for the batches under way."""
    service.delay_s = 0.05
    url = lm.config.get("providers.lab.base_url")
    command = [sys.executable, "-c", CRASHING, url]
    victim = subprocess.Popen(command, env=plain_environment())
    assert eventually(lambda: len(service.paid) >= 300, 60)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    time.sleep(0.1)  # for what the server still does
    before = len(service.paid)
    service.delay_s = 0.0
    matrix = lm.embed(TEXTS)
    assert not np.isnan(matrix).any()
    again = len(service.paid) - 1000
    assert 0 <= again <= 3 * 50, (before, again)
    assert len(set(service.paid)) == 1000


@pytest.mark.parametrize(
    "kind", ["list", "array", "series", "string", "category", "polars", "pyarrow"]
)
def test_columns_of_all_libraries(service: Embedder, kind: str) -> None:
    """Lists, numpy, pandas of any dtype, polars and pyarrow."""
    texts = ["a", None, "b"]
    if kind in ("polars", "pyarrow"):
        library = pytest.importorskip(kind)
        given: Any = library.Series(texts) if kind == "polars" else library.chunked_array([texts])
    elif kind == "list":
        given = texts
    elif kind == "array":
        given = np.array(texts, dtype=object)
    else:
        given = pd.Series(texts, dtype=None if kind == "series" else kind)
    assert np.isnan(lm.embed(given)[:, 0]).tolist() == [False, True, False]
    assert sorted(service.paid) == ["a", "b"]


def test_vectors_that_are_none_are_failed_rows(service: Embedder) -> None:
    """NaN and zeros from a service are no vectors."""
    wrong = {
        "data": [
            {"index": 0, "embedding": [0.0] * WIDTH},
            {"index": 1, "embedding": [1.0] * WIDTH},
        ]
    }
    service.refusals = [as_json(wrong)]
    matrix = lm.embed(["b", "a"], on_error="null")
    assert np.isnan(matrix[:, 0]).sum() == 1
    assert lm.embed(["b", "a"]).shape == (2, WIDTH)
    assert len(service.paid) == 1


def test_nothing_is_kept_where_that_is_not_wanted(service: Embedder) -> None:
    """``vectors: off``."""
    lm.config.vectors = "off"
    lm.embed(["a"])
    lm.embed(["a"])
    assert service.paid == ["a", "a"]


def test_the_flags_of_the_magic(shell: InteractiveShell, service: Embedder) -> None:
    """They reach the call; a wrong one is named."""
    lm.config.embedding_model = "lab/m"
    service.poison = {"bad"}
    shell.user_ns["texts"] = ["good", "bad", "fine"]
    shell.run_line_magic("embed", "texts -o v --batch-size 1 --concurrency 1")
    assert service.requests == 3
    assert np.isnan(shell.user_ns["v"][:, 0]).tolist() == [False, True, False]
    with pytest.raises(errors.ProviderError):
        shell.run_line_magic("embed", "texts --on-error raise")
    for line in ("texts --on-error never", "texts --too-long cut", "texts --batch-size 0"):
        with pytest.raises(errors.UsageError):
            shell.run_line_magic("embed", line)


def test_a_recording_needs_no_server(service: Embedder) -> None:
    """Not even one that would tell which weights it has."""
    with serving(FakeOllama()) as server:
        lm.config.set("providers.ollama.base_url", server.url)
        lm.config.record = "vectors.jsonl"
        first = lm.embed(["a", "b"], model=f"ollama/{EMBED}")
    lm.config.record, lm.config.replay, lm.config.replay_strict = None, "vectors.jsonl", True
    np.testing.assert_array_equal(lm.embed(["b", "a"], model=f"ollama/{EMBED}"), first[::-1])
    lm.config.replay = None
    with pytest.raises(errors.ConnectionError):
        lm.embed(["c"], model=f"ollama/{EMBED}")


def test_what_was_kept_goes_into_a_recording(service: Embedder) -> None:
    """A recording is whole, whoever had the vectors before."""
    lm.embed(["a", "b"])
    lm.config.record = "vectors.jsonl"
    first = lm.embed(["a", "b", "c"])
    assert sorted(service.paid) == ["a", "b", "c"]
    lm.config.record, lm.config.replay, lm.config.replay_strict = None, "vectors.jsonl", True
    lm.config.vectors = "off"
    np.testing.assert_array_equal(lm.embed(["a", "b", "c"]), first)
    assert len(service.paid) == 3


def test_a_dry_run_tells_and_sends_nothing(
    shell: InteractiveShell, service: Embedder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows, different texts, what is kept, tokens and dollars."""
    lm.config.embedding_model = "lab/m"
    lm.config.prices = {"lab/*": {"input_usd": 1000, "output_usd": 0}}
    lm.embed(["a"])
    shell.user_ns["texts"] = ["a", "b", "b", None]
    capsys.readouterr()
    shell.run_line_magic("embed", "texts -o v --dry-run")
    told = capsys.readouterr().out
    assert told.startswith(
        "4 rows · 2 distinct texts · 1 already stored · 1 to send to lab/m: about 1 tokens"
    )
    assert "$0.001" in told
    shell.run_cell_magic("embed", "--dry-run", "x\ny")
    assert "2 to send" in capsys.readouterr().out
    assert service.paid == ["a"]
    assert "v" not in shell.user_ns


def test_fewer_dimensions_and_prefixes_are_other_vectors(service: Embedder) -> None:
    """Each is asked for as such, and kept apart."""
    lm.embed(["a"])
    lm.embed(["a"], prefix="query: ")
    assert service.paid == ["a", "query: a"]
    service.refusals = []
    lm.embed(["a"], dimensions=4)
    assert service.dimensions == [None, None, 4]
    lm.embed(["a"], dimensions=4)
    lm.embed(["query: a"])
    assert len(service.paid) == 3
    with pytest.raises(errors.UnsupportedError, match="shorten"):
        lm.embed(["a"], model="echo/echo", dimensions=4)
    with pytest.raises(errors.UsageError, match="dimensions"):
        lm.embed(["a"], dimensions=0)
    frame = pd.DataFrame({"text": ["a"]}).llm.embed("text", prefix="query: ", dimensions=None)
    assert len(service.paid) == 3
    assert frame.llm.nearest("a", prefix="query: ").cosine.iloc[0] == pytest.approx(1, abs=1e-5)


def test_ollama_is_asked_for_fewer_dimensions() -> None:
    """By its own word for it."""
    with serving(FakeOllama()) as server:
        lm.config.providers = {"ollama": {"base_url": server.url}}
        lm.embed(["a"], model=f"ollama/{EMBED}", dimensions=16)
    asked = [each.json() for each in server.asked if each.path == "/api/embed"]
    assert [each["dimensions"] for each in asked] == [16]


def test_costly_columns_are_asked_about(service: Embedder) -> None:
    """Texts that are kept cost nothing; without anybody to ask nothing is sent."""
    lm.config.prices = {"lab/*": {"input_usd": 1_000_000}}
    frame = pd.DataFrame({"text": [f"text {n}" for n in range(10)]})
    with pytest.raises(errors.UsageError):
        frame.llm.embed("text")
    assert service.paid == []
    frame.llm.embed("text", yes=True)
    frame.llm.embed("text")
    assert len(service.paid) == 10
    lm.config.budget = 1000
    frame["other"] = frame["text"] + "!"
    frame.llm.embed("other")
    assert len(service.paid) == 20


class Muddling(FakeOllama):
    """Gives texts in a batch the vector of the first one, as some servers did."""

    def embed(self, body: dict[str, Any]) -> Says:
        vectors = [vector_of(body["input"][0] if self.muddles else text) for text in body["input"]]
        return as_json({"model": body["model"], "embeddings": vectors})

    muddles = True
    routes: ClassVar[Any] = {**FakeOllama.routes, ("POST", "/api/embed"): embed}


@pytest.mark.parametrize("muddles", [True, False])
def test_a_batch_is_checked_against_a_text_alone(
    muddles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for a model on one's own machine; one whose batches are wrong is warned of."""
    monkeypatch.setattr(session, "checked_batches", set())
    fake = Muddling()
    fake.muddles = muddles
    with serving(fake) as server, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        lm.config.providers = {"ollama": {"base_url": server.url}}
        lm.embed(TEXTS[:20], model=f"ollama/{EMBED}")
        lm.embed(TEXTS[20:40], model=f"ollama/{EMBED}")
    asked = [len(each.json()["input"]) for each in server.asked if each.path == "/api/embed"]
    assert asked == [20, 1, 20]
    said = [str(each.message) for each in told if "batches" in str(each.message)]
    assert len(said) == muddles
    assert lm.runs()["kind"].tolist() == ["embedding", "embedding"]
