"""Figures out of stamps: by our definitions, and by those of vLLM, guidellm and aiperf."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magics.benchmarking import tool_metrics
from llm_magics.benchmarking.latencies import (
    ChunkTimestamps,
    chunk_timestamps,
    compute_latencies,
    count_tokens,
    resolve_tokenizer,
)
from llm_magics.benchmarking.measure import CLOCK_WENT_BACK_NOTE, MeasuredCall
from llm_magics.benchmarking.measurements import Measurements
from llm_magics.errors import UsageError
from llm_magics.runtime.response import Response
from llm_magics.types import EngineTimings, StreamChunk, Timing, Usage
from tests.support import peers_figures
from tests.support.nested import plain_environment

# A role at 50 ms; twenty tokens of thinking; forty of the answer in pieces of four; the count.
WORKED = ChunkTimestamps(
    (0.05, *(0.2 + 0.05 * n for n in range(20)), *(1.2 + 0.2 * n for n in range(10)), 3.01),
    "e" + "r" * 20 + "a" * 10 + "u",
)


def test_each_figure_by_its_formula() -> None:
    """By tokens and not by pieces; thinking counts as tokens, and the answer's first word apart."""
    told = compute_latencies(WORKED, 60)
    assert told.ttft_s == pytest.approx(0.2)
    assert told.ttft_answer_s == pytest.approx(1.2)
    assert told.itl_ms == pytest.approx((3.0 - 0.2) / 59 * 1000)
    assert told.tpot_ms == pytest.approx((3.01 - 0.2) / 59 * 1000)
    assert told.e2e_s == pytest.approx(3.01)
    assert told.tokens_per_s == pytest.approx(59 / 2.8)


def test_loading_is_taken_out() -> None:
    """What the engine tells of it lies before the first token, and in no figure."""
    told = compute_latencies(ChunkTimestamps((2.5, 2.6, 2.7), "aae"), 2, load_s=2.0)
    assert told.ttft_s == pytest.approx(0.5)
    assert told.e2e_s == pytest.approx(0.7)
    assert told.itl_ms == pytest.approx(100)


@pytest.mark.parametrize(
    ("stamps", "tokens", "known"),
    [
        (ChunkTimestamps(), None, set()),
        (ChunkTimestamps((0.3,), "e"), 0, {"e2e_s"}),
        (ChunkTimestamps((0.1, 0.2), "ae"), 1, {"ttft_s", "ttft_answer_s", "e2e_s"}),
        (ChunkTimestamps((0.1, 0.2), "re"), 1, {"ttft_s", "e2e_s"}),
        (ChunkTimestamps((0.1,), "a"), 5, {"ttft_s", "ttft_answer_s", "e2e_s"}),
        (ChunkTimestamps((0.1, 0.05), "aa"), 2, set()),
        (ChunkTimestamps((-0.1, 0.05), "aa"), 2, set()),
    ],
    ids=["nothing", "no words", "one token", "only thought", "at once", "backwards", "before"],
)
def test_what_cannot_be_measured_is_not_told(
    stamps: ChunkTimestamps, tokens: int | None, known: set[str]
) -> None:
    """Answers of no or one token, all in one piece, or by a clock that goes backwards."""
    told = compute_latencies(stamps, tokens)
    assert {name for name in told.__slots__ if getattr(told, name) is not None} == known


@given(
    st.lists(st.floats(0, 1e6), max_size=30),
    st.text("artsue", max_size=30),
    st.none() | st.integers(0, 10**6),
)
def test_no_figure_is_below_nothing(times: list[float], kinds: str, tokens: int | None) -> None:
    """Whatever the stamps, a figure is a number of 0 or more, or is missing."""
    size = min(len(times), len(kinds))
    told = compute_latencies(ChunkTimestamps(tuple(times[:size]), kinds[:size]), tokens)
    for name in told.__slots__:
        value = getattr(told, name)
        assert value is None or value >= 0


def test_kinds_of_pieces() -> None:
    """Words, thinking, a count alone, and what is empty."""
    chunks = [
        StreamChunk("", "", 0.1, raw={"choices": [{"delta": {"role": "assistant"}}]}),
        StreamChunk("", "hm", 0.2),
        StreamChunk("yes", "", 0.3),
        StreamChunk("", "", 0.4, finish_reason="stop", raw={"choices": [{}]}),
        StreamChunk("", "", 0.5, usage=Usage(1, 2), raw={"choices": []}),
        StreamChunk("never stamped"),
    ]
    assert chunk_timestamps(chunks) == ChunkTimestamps((0.1, 0.2, 0.3, 0.4, 0.5), "eraeu")


def recorded() -> dict[str, Any]:
    """Stamps, and what the tools' own code makes of them."""
    told: dict[str, Any] = json.loads(peers_figures.FILE.read_text("utf-8"))
    return told


def requests() -> list[peers_figures.Request]:
    """The recorded stamps."""
    return [peers_figures.Request(**each) for each in recorded()["requests"]]


def as_frame(request: peers_figures.Request) -> Measurements:
    """One request as measurements."""
    row = {
        "asked": "m",
        "prompt": "x",
        "error": None,
        "cached": False,
        "output_tokens": request.tokens,
        "times_s": request.times_s,
        "kinds": request.kinds,
    }
    return Measurements(pd.DataFrame([row]))


# What we call what a tool calls so.
OURS = {
    "vllm": {
        "mean_ttft_ms": "mean_ttft_ms",
        "mean_tpot_ms": "mean_tpot_ms",
        "mean_itl_ms": "mean_itl_ms",
        "median_itl_ms": "median_itl_ms",
        "mean_e2el_ms": "mean_e2el_ms",
    },
    "guidellm": {
        name: f"{name}_mean"
        for name in (
            "time_to_first_token_ms",
            "time_to_first_output_token_ms",
            "inter_token_latency_ms",
            "time_per_output_token_ms",
            "request_latency",
        )
    },
    "aiperf": {
        name: f"{name}_mean"
        for name in (
            "time_to_first_token",
            "time_to_first_output_token",
            "inter_token_latency",
            "request_latency",
        )
    },
}


def assert_same(tool: Any, theirs: list[dict[str, Any]]) -> None:
    """What we report as the tool is what it reports."""
    for request, told in zip(requests(), theirs, strict=True):
        ours = as_frame(request).as_measured_by(tool).iloc[0]
        for name, figure in told.items():
            mine = ours[OURS[tool][name]]
            if figure is None:
                assert math.isnan(mine)
            else:
                # guidellm's clock counts from 1970, which leaves it a quarter of a microsecond.
                assert mine == pytest.approx(figure, rel=1e-6, abs=5e-4)
        missing = {name for name in OURS[tool] if name not in told}
        assert all(math.isnan(ours[OURS[tool][name]]) for name in missing)


@pytest.mark.parametrize("tool", ["vllm", "guidellm", "aiperf"])
def test_presets_give_what_the_tools_report(tool: str) -> None:
    """On stamps of a real model and on odd ones, as their own code was seen to."""
    assert_same(tool, recorded()[tool]["figures"])


@pytest.mark.parametrize("tool", ["guidellm", "aiperf"])
def test_the_tools_still_report_that(tool: str) -> None:
    """By their code as it is installed; in a process of its own, for they change the loops of theirs."""
    if find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed")
    command = [sys.executable, "-m", "tests.support.peers_figures", "--print", tool]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], env=plain_environment(), check=True,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert_same(tool, json.loads(done.stdout.splitlines()[-1]))


def test_an_unknown_tool_is_refused() -> None:
    """And the nearest is named."""
    with pytest.raises(UsageError) as caught:
        as_frame(requests()[0]).as_measured_by("vlm")  # type: ignore[arg-type]
    assert "vllm" in str(caught.value.hint)


def test_a_failed_request_counts_in_no_figure_of_a_tool() -> None:
    """It is counted as failed."""
    frame = as_frame(requests()[0])
    both = Measurements(pd.concat([frame, frame.assign(error="X: y")], ignore_index=True))
    for tool in tool_metrics._READERS:
        told = both.as_measured_by(tool).iloc[0]  # type: ignore[arg-type]
        assert (told.completed, told.failed) == (1, 1)


def test_who_counts_tokens_is_told() -> None:
    """The service; else a tokenizer; else each piece is taken for a token."""
    stamps = ChunkTimestamps((0.1, 0.2), "ra")
    served = Response("one two", usage=Usage(3, 9))
    silent = Response("one two", reasoning="hm ")
    words = resolve_tokenizer(str.split)
    assert count_tokens(served, stamps, words) == (3, 9, "service")
    assert count_tokens(silent, stamps, words) == (0, 3, "tokenizer")
    assert count_tokens(silent, stamps, None) == (None, 2, "pieces")
    assert count_tokens(Response(""), ChunkTimestamps(), None) == (None, None, None)


def test_kinds_of_tokenizers(tmp_path: Any) -> None:
    """A function to tokens or to their number, Hugging Face's, its file; and none of these."""
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?")
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    for each in (str.split, lambda text: len(text.split()), made, tmp_path / "tokenizer.json"):
        count = resolve_tokenizer(each)
        assert count is not None
        assert count("a b a") == 3
    assert resolve_tokenizer(None) is None
    (tmp_path / "wrong.json").write_text("{", "utf-8")
    for wrong in (5, tmp_path / "wrong.json"):
        with pytest.raises(UsageError, match="tokenizer"):
            resolve_tokenizer(wrong)


def test_a_clock_that_goes_back_is_said() -> None:
    """The answer is there, and no time of it."""
    chunks = [StreamChunk("a", "", 0.5), StreamChunk("b", "", 0.4, finish_reason="stop")]
    row = MeasuredCall(model="x/y", response=Response("ab", "x/y"), chunks=chunks).row(0.0)
    assert row["note"] == CLOCK_WENT_BACK_NOTE
    assert row["text"] == "ab"
    assert all(row[name] is None for name in ("ttft_s", "itl_ms", "e2e_s"))
    assert math.isnan(row["latency_s"])


def test_loading_told_by_an_engine_lies_in_no_latency() -> None:
    """It stands in a column of its own."""
    timings = EngineTimings(load_s=2.0)
    chunks = [StreamChunk("a", "", 2.5), StreamChunk("b", "", 2.7, "stop", Usage(1, 2), timings)]
    response = Response("ab", "x/y", usage=Usage(1, 2), timing=Timing(load_s=2.0))
    row = MeasuredCall(model="x/y", response=response, chunks=chunks).row(0.0)
    assert row["ttft_s"] == pytest.approx(0.5)
    assert row["load_s"] == 2.0
    assert row["latency_s"] == pytest.approx(0.7)
