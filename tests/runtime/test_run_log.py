"""What a call took."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from llm_magics.runtime.storage.run_log import Run, RunLog, measure
from llm_magics.types import EngineTimings, StreamChunk, Usage
from tests.support.run_columns import COLUMNS


def stream(*stamps: float, **last: object) -> list[StreamChunk]:
    """A role chunk at 0.05, a token at each stamp, and a last chunk."""
    return [
        StreamChunk(elapsed_s=0.05),
        *(StreamChunk("x", elapsed_s=stamp) for stamp in stamps),
        StreamChunk(elapsed_s=stamps[-1] + 0.1, **last),  # type: ignore[arg-type]
    ]


def test_ttft_is_the_first_token_and_not_the_first_chunk() -> None:
    """An empty chunk that names the role is no token."""
    assert measure(stream(0.2, 0.3), Usage(1, 2)).ttft_s == pytest.approx(0.2)


def test_itl_counts_tokens_and_not_chunks() -> None:
    """Forty tokens in ten chunks have thirty-nine gaps."""
    timing = measure(stream(*(1 + n / 5 for n in range(10))), Usage(1, 40))
    assert timing.itl_ms == pytest.approx(1800 / 39)
    assert timing.tokens_per_s == pytest.approx(39 / 1.8)


def test_the_engines_own_times_are_used() -> None:
    """Its generation time gives ITL and speed; its load time is not in TTFT."""
    timings = EngineTimings(load_s=0.15, generation_s=2.0)
    timing = measure(stream(0.2, 0.3, timings=timings), Usage(1, 21), load_s=1.0)
    assert timing.itl_ms == pytest.approx(100)
    assert timing.tokens_per_s == pytest.approx(10.5)
    assert timing.ttft_s == pytest.approx(0.05)
    assert timing.load_s == pytest.approx(1.15)
    assert timing.e2e_s == pytest.approx(0.25)


@pytest.mark.parametrize("usage", [None, Usage(1, 1), Usage(1, 0), Usage()])
def test_one_token_has_no_gap(usage: Usage | None) -> None:
    """Where nothing can be said nothing is said, and nothing is divided by zero."""
    timing = measure(stream(0.2), usage)
    assert timing.itl_ms is None
    assert timing.tokens_per_s is None


def test_an_empty_answer_has_no_first_token() -> None:
    """And a call that never got an answer has no times at all."""
    assert measure([StreamChunk(elapsed_s=0.4, finish_reason="stop")], Usage(1, 0)).ttft_s is None
    assert measure([], None, load_s=2.0).e2e_s is None


def test_an_empty_log_is_a_frame_with_all_its_columns() -> None:
    """So that code that reads it works before the first call."""
    frame = RunLog().frame()
    assert list(frame.columns) == COLUMNS
    assert frame.empty
    assert str(frame["output_tokens"].dtype) == "Int64"


def test_an_estimate_reads_no_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked before each call is kept by model: no run is looked at twice."""
    log = RunLog()
    empty: dict[str, Any] = dict.fromkeys(field.name for field in fields(Run))
    for number in range(300):
        told = {"provider": "p", "model": f"m{number % 2}", "cached": number == 299}
        times = {"output_tokens": number, "e2e_s": float(number), "tokens_per_s": float(number)}
        log.add(Run(**{**empty, **told, **times}))
    monkeypatch.setattr(log, "_runs", None)
    assert (log.longest_output("p", "m0"), log.longest_output("p", "m1")) == (298, 299)
    assert log.longest_output("p", "other") == 0
    assert log.median_seconds("p", "m0") == 279  # the median of the last twenty
    assert log.median_seconds("p", "m1") == 278  # the last of it was given before
    assert log.median_seconds("p", "other") is None
    assert log.speeds() == {"p/m0": 279, "p/m1": 278}
