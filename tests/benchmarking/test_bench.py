"""``lm.bench``: loads as they were asked for, nothing dropped, nothing flattered."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import pytest

import llm_magics as lm
from llm_magics.benchmarking.measurements import Measurements
from llm_magics.benchmarking.workload import Plan, Step, arrival_times
from llm_magics.errors import Interrupted, UsageError
from tests.conftest import eventually
from tests.support.serving import Asked, Says, Server, as_json, chat_event, chat_stream, serving


class Service:
    """Answers in OpenAI's format, and remembers when each request came."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.tokens = ("one", " two", " three")
        self.delay_s = 0.0
        self.gap_s = 0.0
        self.fails = lambda number: False
        self.has_usage = True
        self.once: Callable[[int], Callable[[], bool]] = lambda number: lambda: True

    def __call__(self, asked: Asked) -> Says:
        self.times.append(time.perf_counter())
        if self.fails(len(self.times)):
            return as_json({"error": {"message": "broken", "code": "server_error"}}, 400)
        pieces = chat_stream(*self.tokens)
        if not self.has_usage:
            pieces = [piece for piece in pieces if b'"usage"' not in piece]
        once = self.once(len(self.times))
        return Says(pieces, delay_s=self.delay_s, gap_s=self.gap_s, once=once)


@pytest.fixture
def service() -> Service:
    """One that answers at once."""
    return Service()


@pytest.fixture
def server(service: Service) -> Iterator[Server]:
    """It, as the provider ``lab``."""
    with serving(service) as served:
        lm.config.providers = {
            "lab": {"type": "openai", "base_url": f"{served.url}/v1", "api_key": "k"},
            "other": {"type": "openai", "base_url": f"{served.url}/v1", "api_key": "k"},
        }
        yield served


def prompts_of(server: Server) -> list[str]:
    """What the service was asked, in order."""
    return [asked.json()["messages"][-1]["content"] for asked in server.asked]


def test_a_row_a_request_with_what_was_seen(server: Server) -> None:
    """Times, tokens as the service counts them, bytes, and what it was asked."""
    runs = lm.bench(models="lab/m", prompts=["a", "b"], repeat=2)
    assert runs.prompt.tolist() == ["a", "b", "a", "b"]
    assert runs["repeat"].tolist() == [0, 0, 1, 1]
    assert (runs.text == "one two three").all()
    assert runs.tokens_from.tolist() == ["service"] * 4
    assert runs.output_tokens.tolist() == [3] * 4
    assert runs.cached_tokens.tolist() == [24] * 4
    assert (runs.ttft_s > 0).all()
    assert (runs.e2e_s >= runs.ttft_s).all()
    assert (runs.latency_s >= runs.e2e_s).all()
    assert (runs.bytes_received > 400).all()
    assert (runs.bytes_sent > 50).all()
    assert set(runs.kinds) == {"eaaaeu"}
    assert runs.pieces.tolist() == [len(each) for each in runs.times_s]
    assert ((runs.client_cpu > 0) & (runs.client_cpu < 3)).all()


def test_the_columns_of_runs_are_there(server: Server) -> None:
    """By the names that they have in ``lm.runs()``, of the types that they have there."""
    lm.bench(models="lab/m", repeat=1)
    known = lm.runs()
    runs = lm.bench(models="lab/m", repeat=1)
    shared = set(known) - {"time", "kind", "cell"}
    assert shared <= set(runs)
    for name in ("ttft_s", "itl_ms", "e2e_s", "tokens_per_s", "input_tokens", "output_tokens"):
        assert runs[name].dtype == known[name].dtype


def test_warming_up_is_kept_apart(server: Server) -> None:
    """It is asked first, of each model, and counts nowhere."""
    runs = lm.bench(models=["lab/m", "other/m"], prompts="a", repeat=1, warmup=2)
    assert len(runs) == 2
    assert len(server.asked) == 6
    assert runs.warm_up.asked.tolist() == ["lab/m", "other/m"] * 2
    assert lm.bench(models="lab/m", repeat=1, warmup=0).warm_up.empty


def test_prompts_are_made_distinct(server: Server) -> None:
    """By a mark at the beginning, so that no cache of prompts answers sooner; or not, if asked."""
    runs = lm.bench(models="lab/m", prompts=["same", "same too"], repeat=4)
    sent = prompts_of(server)
    assert len({*sent}) == len(sent) == 9
    assert all(text.endswith(("] same", "] same too")) for text in sent)
    assert len({text[:10] for text in sent}) == 9
    assert set(runs.prompt) == {"same", "same too"}
    lm.bench(models="lab/m", prompts="same", repeat=2, distinct=False, warmup=0)
    assert prompts_of(server)[-2:] == ["same", "same"]


def test_marks_differ_between_runs_unless_drawn_alike(server: Server) -> None:
    """A second run must not find what the first one left in a cache."""
    for draw in (None, None, 5, 5):
        lm.bench(models="lab/m", prompts="x", repeat=1, warmup=0, draw=draw)
    one, two, three, four = prompts_of(server)
    assert one != two
    assert three == four


def test_models_take_turns(server: Server) -> None:
    """In each round all of them, in an order that is drawn."""
    models = ["lab/a", "lab/b", "lab/c"]
    lm.bench(models=models, prompts="x", repeat=6, warmup=0)
    asked = [each.json()["model"] for each in server.asked]
    rounds = [tuple(asked[at : at + 3]) for at in range(0, 18, 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len(set(rounds)) > 1


@pytest.mark.parametrize("at_once", [1, 3, 8])
def test_a_closed_loop_has_so_many_under_way(
    at_once: int, service: Service, server: Server
) -> None:
    """Never more, and never fewer: a request is answered once the others have arrived."""
    total = 4 * at_once

    def once_full(number: int) -> Callable[[], bool]:
        return lambda: len(service.times) >= min(number + at_once - 1, total)

    service.once = once_full
    runs = lm.bench(models="lab/m", concurrency=at_once, requests=total, warmup=0)
    assert runs.error.isna().all()
    assert server.most_at_once == at_once
    assert len(runs) == total


def test_a_sweep_has_its_loads_one_after_the_other(service: Service, server: Server) -> None:
    """A row of the summary for each; enough requests to reach the load."""
    service.delay_s = 0.04
    runs = lm.bench(models=["lab/a", "lab/b"], concurrency=[1, 4])
    told = runs.summary()
    assert told.index.tolist() == [("lab/a", 1), ("lab/b", 1), ("lab/a", 4), ("lab/b", 4)]
    assert told.requests.tolist() == [3, 3, 16, 16]
    assert server.most_at_once == 4
    one, four = (group for _, group in runs.groupby("concurrency"))
    assert one.ended_s.max() <= four.sent_s.min()
    for group, load in ((one, 1), (four, 4)):
        running = [((group.sent_s <= at) & (group.ended_s > at)).sum() for at in group.sent_s]
        assert max(running) == load


def test_an_open_loop_keeps_its_times(service: Service, server: Server) -> None:
    """Whether or not the service keeps up; latency counts from when it was meant to begin."""
    service.delay_s = 0.5
    runs = lm.bench(models="lab/m", rate=10, arrival="constant", requests=10)
    gaps = [after - before for before, after in pairwise(service.times[1:])]
    assert server.most_at_once > 3
    assert median(gaps) == pytest.approx(0.1, rel=0.4)
    assert runs.rate.tolist() == [10.0] * 10
    meant = runs.intended_s - runs.intended_s.iloc[0]
    assert meant.tolist() == pytest.approx([n / 10 for n in range(10)])
    assert runs.latency_s.tolist() == pytest.approx(
        (runs.ended_s - runs.intended_s).tolist(), abs=0.02
    )


def test_a_request_that_waits_is_late(service: Service) -> None:
    """For this side's own limit: that time is no latency of the service's, and is told of."""
    service.delay_s = 0.04
    with serving(service) as served:
        lm.config.providers = {
            "lab": {
                "type": "openai",
                "base_url": f"{served.url}/v1",
                "api_key": "k",
                "concurrency": 1,
            }
        }
        runs = lm.bench(models="lab/m", rate=1000, arrival="constant", requests=4, warmup=0)
    assert served.most_at_once == 1
    assert runs.queue_s.max() > 0.1
    assert (runs.e2e_s + runs.queue_s <= runs.latency_s + 0.02).all()
    assert runs.latency_s.max() > 0.14


def test_arrivals_are_of_the_rate() -> None:
    """Constant, or as those of many people are (Poisson): gaps of the mean, and as spread."""
    draw = random.Random(1)
    even = arrival_times(4, "constant", draw)
    assert [next(even) for _ in range(4)] == [0, 0.25, 0.5, 0.75]
    times = arrival_times(4, "poisson", draw)
    told = [next(times) for _ in range(4000)]
    gaps = pd.Series(told).diff().dropna()
    assert gaps.mean() == pytest.approx(0.25, rel=0.1)
    assert gaps.std() == pytest.approx(0.25, rel=0.1)


def test_so_many_seconds(service: Service, server: Server) -> None:
    """Each model at each load, as many requests as fit."""
    service.delay_s = 0.02
    began = time.perf_counter()
    runs = lm.bench(models=["lab/a", "lab/b"], seconds=0.75, concurrency=2, warmup=0)
    assert time.perf_counter() - began > 1.45
    assert runs.groupby("asked").size().min() >= 8
    assert set(runs["round"]) == {0, 1, 2}


def test_failures_are_counted_and_not_dropped(service: Service, server: Server) -> None:
    """A model that fails half its requests has half as many times, and the rest as failed."""
    service.fails = lambda number: number % 2 == 0
    runs = lm.bench(models="lab/m", repeat=10, warmup=0)
    told = runs.summary().iloc[0]
    assert (told.requests, told.failed) == (10, 5)
    assert runs.error.notna().sum() == 5
    assert runs[runs.error.notna()].text.isna().all()
    assert told.ttft_s > 0
    assert "failed 5 of 10 requests" in runs.report()


def test_a_model_that_is_not_there_stops_no_other(server: Server) -> None:
    """Its rows say why."""
    runs = lm.bench(models=["nobody/m", "lab/m"], repeat=2)
    assert runs.error.notna().tolist() == [True, False, True, False]
    assert runs.summary().failed.tolist() == [2, 0]


def test_a_service_without_usage(service: Service, server: Server) -> None:
    """Its tokens are counted by a tokenizer, or by pieces; the column and the report say so."""
    service.has_usage = False
    by_pieces = lm.bench(models="lab/m", repeat=1)
    assert by_pieces.tokens_from.tolist() == ["pieces"]
    assert by_pieces.output_tokens.tolist() == [3]
    by_words = lm.bench(models="lab/m", repeat=1, tokenizer=lambda text: len(text.split()) + 10)
    assert by_words.tokens_from.tolist() == ["tokenizer"]
    assert by_words.output_tokens.tolist() == [13]
    assert "counts are from tokenizer" in by_words.report()


def test_an_answer_of_one_token(service: Service, server: Server) -> None:
    """It is counted, timed as far as it can be, and nothing is divided by nothing."""
    service.tokens = ("one",)
    runs = lm.bench(models="lab/m", repeat=3)
    told = runs.summary().iloc[0]
    assert runs.output_tokens.tolist() == [1] * 3
    assert runs.error.isna().all()
    assert runs.ttft_s.notna().all()
    assert runs.itl_ms.isna().all()
    assert told.e2e_s > 0
    assert runs.report()


def test_an_empty_answer_is_a_request_that_failed(service: Service, server: Server) -> None:
    """A service that answers nothing is not the fastest of all."""
    service.tokens = ()
    runs = lm.bench(models="lab/m", repeat=3)
    assert runs.error.str.startswith("EmptyAnswerError").all()
    assert runs.output_tokens.tolist() == [0] * 3
    assert runs.itl_ms.isna().all()
    told = runs.summary().iloc[0]
    assert (told.failed, bool(pd.isna(told.e2e_s))) == (3, True)
    assert runs.report()


def test_retries_are_counted(service: Service, server: Server) -> None:
    """The time of the last try is measured; waiting for it stands in the queue."""
    lm.config.retries = 2

    def answer(asked: Asked) -> Says:
        service.times.append(0.0)
        if len(service.times) == 1:
            return Says([b"{}"], 503, "application/json", headers={"Retry-After": "0.1"})
        return Says(chat_stream("ok"))

    with serving(answer) as served:
        lm.config.providers = {"lab": {"type": "openai", "base_url": served.url, "api_key": "k"}}
        runs = lm.bench(models="lab/m", repeat=1, warmup=0)
    assert runs.retries.tolist() == [1]
    assert runs.queue_s.iloc[0] > 0.07
    assert runs.e2e_s.iloc[0] < runs.latency_s.iloc[0] - 0.07


def test_an_interrupt_keeps_what_was_measured(service: Service, server: Server) -> None:
    """Whole rows, and those under way as far as they had come."""
    service.gap_s = 0.02
    service.fails = lambda number: number == 8 and os.kill(os.getpid(), signal.SIGINT) is not None
    with pytest.raises(Interrupted) as caught:
        lm.bench(models="lab/m", requests=100, concurrency=2, warmup=0)
    partial = caught.value.partial
    assert isinstance(partial, Measurements)
    assert 2 <= len(partial) < 100
    whole = partial[partial.finish_reason == "stop"]
    assert partial.summary().requests.iloc[0] == len(partial)
    assert len(whole) >= 2
    assert "answer" in str(caught.value)
    assert eventually(lambda: server.running == 0, 10)


def test_nothing_comes_from_the_cache(server: Server) -> None:
    """Also where answers are kept; but a recording is played, and then there are no times."""
    lm.config.cache = True
    lm.ask("x", model="lab/m")
    runs = lm.bench(models="lab/m", prompts="x", repeat=2, distinct=False)
    assert not runs.cached.any()
    assert len(server.asked) == 4


def test_what_is_replayed_has_no_times(server: Server, tmp_path: Path) -> None:
    """Whose would they be? The row, the summary and the report say so."""
    tape = str(tmp_path / "answers.jsonl")
    lm.config.record = tape
    lm.bench(models="lab/m", prompts="x", repeat=2)
    lm.config.record = "off"
    lm.config.replay = tape
    lm.config.replay_strict = True
    count = len(server.asked)
    runs = lm.bench(models="lab/m", prompts="x", repeat=2)
    assert len(server.asked) == count
    assert runs.cached.all()
    assert runs.error.isna().all()
    for name in ("ttft_s", "itl_ms", "e2e_s", "latency_s", "tokens_per_s", "queue_s"):
        assert runs[name].isna().all()
    assert runs.note.str.contains("no times").all()
    assert runs.summary().cached.tolist() == [2]
    assert "from a cache or a recording" in runs.report()


def test_it_can_be_awaited(server: Server) -> None:
    """In a loop that goes on turning; two at once."""

    async def both() -> list[Measurements]:
        return await asyncio.gather(
            lm.abench(models="lab/a", repeat=1), lm.abench(models="lab/b", repeat=1)
        )

    one, two = asyncio.run(both())
    assert (one.model.tolist(), two.model.tolist()) == (["a"], ["b"])


def test_measurements_are_a_frame(server: Server, tmp_path: Path) -> None:
    """Cut, joined, written and read again they can still be summed up, with what they were made on."""
    runs = lm.bench(models=["lab/a", "lab/b"], repeat=3)
    assert isinstance(runs, pd.DataFrame)
    assert type(runs.frame) is pd.DataFrame
    part = runs[runs.asked == "lab/b"]
    assert part.summary().index.tolist() == ["lab/b"]
    joined = pd.concat([runs, runs], ignore_index=True)
    assert joined.summary().requests.tolist() == [6, 6]
    runs.to_parquet(tmp_path / "runs.parquet")
    again = Measurements(pd.read_parquet(tmp_path / "runs.parquet"))
    pd.testing.assert_frame_equal(again.summary(), runs.summary())
    pd.testing.assert_frame_equal(again.as_measured_by("vllm"), runs.as_measured_by("vllm"))
    assert again.attrs == runs.attrs
    assert again.warm_up.asked.tolist() == ["lab/a", "lab/b"]
    runs.drop(columns=["times_s", "kinds"]).to_csv(tmp_path / "runs.csv")
    assert "kinds" not in repr(runs)
    assert "times_s" not in (runs._repr_html_() or "")


def test_where_it_was_measured_is_kept(server: Server) -> None:
    """Versions, the machine, addresses; nothing secret, and all of it JSON."""
    lm.config.providers = {
        "lab": {"type": "openai", "api_key": "sk-secret", "base_url": server.url + "/v1"}
    }
    runs = lm.bench(models="lab/m", repeat=1)
    assert {"python", "llm_magics", "system", "cpus", "time", "libraries", "services"} <= {
        *runs.attrs
    }
    assert runs.attrs["services"]["lab"] == server.url
    assert "sk-secret" not in json.dumps(runs.attrs)
    assert "sk-secret" not in runs.report()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"repeat": 0}, "repeat: 0"),
        ({"repeat": True}, "repeat: True"),
        ({"concurrency": 0}, "concurrency: 0"),
        ({"concurrency": []}, "empty"),
        ({"concurrency": "8"}, "concurrency: '8'"),
        ({"rate": 0}, "rate: 0"),
        ({"rate": float("nan")}, "rate: nan"),
        ({"rate": 1, "concurrency": 2}, "cannot be combined"),
        ({"rate": 1, "arrival": "never"}, "arrival"),
        ({"seconds": -1}, "seconds: -1"),
        ({"requests": 1.5}, "requests: 1.5"),
        ({"warmup": -1}, "warmup: -1"),
        ({"prompts": []}, "prompts is empty"),
        ({"prompts": ["a", None]}, "not a string: None"),
        ({"prompts": pd.DataFrame({"a": ["b"]})}, "prompts: got DataFrame"),
        ({"seconds": 1, "requests": 2}, "cannot be combined"),
        ({"repeat": 1, "requests": 2}, "cannot be combined"),
        ({"concurency": 2}, "argument: concurency"),
        ({"tokenizer": 3}, "tokenizer: 3"),
        ({"max_token": 3}, "parameter: max_token"),
    ],
)
def test_a_slip_is_told_of_before_anything_is_sent(
    options: dict[str, Any], says: str, server: Server
) -> None:
    """With what to write in its place."""
    with pytest.raises(UsageError, match=says) as caught:
        lm.bench(models="lab/m", **options)
    assert caught.value.hint
    assert not server.asked


def test_no_model_is_a_slip() -> None:
    """An empty list measures nothing; a model is named once."""
    for models, says in (([], "models is empty"), (None, "needs models="), ([None], "not a string")):  # fmt: skip
        with pytest.raises(UsageError, match=says):
            lm.bench(models=models)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="twice"):
        lm.bench(models=["echo/echo", "echo/echo"])


def test_what_may_cost_much_is_asked_about(server: Server) -> None:
    """All requests together; where nobody is there it is refused, and nothing is sent."""
    lm.config.prices = {"lab/m": {"input_usd": 0.0, "output_usd": 1e6}}
    with pytest.raises(UsageError, match="may cost"):
        lm.bench(models="lab/m", requests=100, max_tokens=10)
    assert not server.asked
    runs = lm.bench(models="lab/m", requests=3, max_tokens=10, yes=True)
    assert runs.cost_usd.sum() == pytest.approx(9.0)


def test_requests_are_shared_out_among_rounds() -> None:
    """None is lost, and rounds of a closed loop are long enough to be full."""
    for at_once in (1, 2, 8, 64):
        for requests in (1, 5, 31, 32, 33, 100, 300):
            plan = Plan(
                models=["a", "b"], prompts=["x", "y"], steps=[Step(at_once)], requests=requests
            )
            places = [job.position for block in plan.blocks() for job in block.jobs()]
            assert sorted(places) == [(0, n, m) for n in range(requests) for m in range(2)]
            assert plan.total == 2 * requests
            rounds = plan.rounds_at(Step(at_once))
            assert 1 <= rounds <= 3
            assert rounds == 1 or requests // rounds >= min(at_once, 4 * at_once)


def test_thinking_is_the_first_token_and_not_the_answer() -> None:
    """Both times are told; the tokens are the service's."""
    pieces = [
        chat_event(choices=[{"index": 0, "delta": {"reasoning_content": "hm"}}]),
        *chat_stream("so"),
    ]
    says = Says(pieces, gap_s=0.02)
    with serving(says) as served:
        lm.config.providers = {"lab": {"type": "openai", "base_url": served.url, "api_key": "k"}}
        runs = lm.bench(models="lab/m", repeat=1, warmup=0)
    row = runs.iloc[0]
    assert row.ttft_answer_s - row.ttft_s > 0.03
    assert row.kinds.startswith("re")


def test_a_virtual_clock_has_no_throughput() -> None:
    """Its times are not those of the load: the rows say so, and what is over real time is missing."""
    runs = lm.bench(
        models="echo/lorem", prompts=["a", "b"], concurrency=[1, 2], requests=4, max_tokens=20
    )
    assert runs.note.str.contains("simulated clock").all()
    assert runs.summary().throughput_tokens_per_s.isna().all()
    assert runs.summary().tokens_per_s.notna().all()
    runs.plot_load()
