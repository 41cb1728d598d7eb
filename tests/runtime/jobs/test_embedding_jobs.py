"""The vectors of texts from batch jobs: where they are stored, what they cost, and what can fail."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llm_magics as lm
from llm_magics import errors
from llm_magics.runtime.embedding import EmbeddingCall, EmbedOptions
from llm_magics.runtime.embedding.results import FAILED, OK, PENDING, TRUNCATED
from llm_magics.runtime.jobs.embeddings import EmbeddingJobs
from llm_magics.runtime.jobs.work import JobOptions
from llm_magics.runtime.session import session
from llm_magics.runtime.storage import vector_files
from tests.support.batch_answers import openai_answer, tokens_in
from tests.support.batch_fakes import Answer, Request
from tests.support.embedding_batches import MODEL, World, batch_price, embedding_world
from tests.support.fake_openai import unit

TEXTS = ["a fox", "a hen", "a cow"]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The service."""
    with embedding_world(monkeypatch) as world:
        yield world


def jobs_of(
    texts: Sequence[str] = TEXTS, options: EmbedOptions | None = None, **how: Any
) -> EmbeddingJobs:
    """A call that is not run yet."""
    return EmbeddingJobs(
        session=session,
        texts=texts,
        model=how.pop("model", MODEL),
        options=options,
        job_options=JobOptions(**how),
    )


def run(call: EmbeddingCall) -> Any:
    """Run a call to its end."""

    async def work() -> None:
        async for _ in call.events():
            pass

    asyncio.run(work())
    return call


def test_vectors_are_those_of_live_calls_at_half_the_batch_price(world: World) -> None:
    """One request for each text; the second call finds them, live or not."""
    call = run(jobs_of())
    assert world.sent() == TEXTS
    assert call.results.matrix == pytest.approx(np.array([unit(text) for text in TEXTS]))
    assert call.sent == 3
    assert call.response().cost_usd == pytest.approx(batch_price(TEXTS))
    assert call.response().usage.input_tokens == sum(tokens_in([text]) for text in TEXTS)
    assert lm.jobs()["cost_usd"].tolist() == [pytest.approx(batch_price(TEXTS))]
    assert lm.jobs()["kind"].tolist() == ["embedding"]
    live = run(EmbeddingCall(session=session, texts=TEXTS, model=MODEL))
    assert live.results.is_cached.all()
    again = run(jobs_of())
    assert again.results.is_cached.all()
    assert (again.sent, again.response().cost_usd) == (0, 0.0)
    assert len(world.fake.jobs) == 1
    assert not world.live


def test_only_texts_without_a_vector_are_submitted(world: World) -> None:
    """Some are stored by a live call, and one is in a job of another kernel."""
    run(EmbeddingCall(session=session, texts=TEXTS[:1], model=MODEL))
    run(jobs_of(TEXTS[:2], wait=False))
    call = run(jobs_of([*TEXTS, "a cat"]))
    assert world.sent() == ["a hen", "a cow", "a cat"]
    assert (call.results.outcomes == OK).all()
    assert call.results.is_cached.tolist() == [True, False, False, False]


def test_options_make_other_vectors(world: World) -> None:
    """A prefix and a length are in the request and in the key."""
    run(jobs_of(TEXTS[:1]))
    run(jobs_of(TEXTS[:1], EmbedOptions(prefix="query: ")))
    assert world.sent() == ["a fox", "query: a fox"]
    short = [each / np.linalg.norm(each) for each in [np.array(unit("a fox")[:4])]]
    world.fake.answer = lambda request: Answer(
        {**openai_answer(request).body, "data": [{"index": 0, "embedding": short[0].tolist()}]}
    )
    call = run(jobs_of(TEXTS[:1], EmbedOptions(dimensions=4)))
    assert call.results.matrix.shape == (1, 4)
    assert [*world.fake.jobs.values()][-1].requests[0].body["dimensions"] == 4
    with pytest.raises(errors.UnsupportedError, match="dimensions"):
        run(jobs_of(TEXTS[:1], EmbedOptions(dimensions=5)))


def test_equal_texts_after_repair_are_paid_once(world: World) -> None:
    """Two texts that differ only in a lone surrogate are one request."""
    call = run(jobs_of(["\ud800", "\udfff"]))
    assert len(world.sent()) == 1
    assert (call.results.outcomes == OK).all()


def answers(texts: dict[str, Any]) -> Any:
    """A function that answers some texts with other bodies or statuses."""

    def answer(request: Request) -> Answer:
        given = texts.get(request.body["input"][0])
        if isinstance(given, Answer):
            return given
        usual = openai_answer(request)
        if given is None:
            return usual
        return Answer({**usual.body, "data": [{"index": 0, "embedding": given}]})

    return answer


@pytest.mark.parametrize(
    "vector",
    [[0.0] * 8, [math.nan] * 8, [math.inf] * 8, [], ["x"] * 8, [1.0] * 5, None, "?"],
    ids=["zeros", "NaN", "infinite", "empty", "texts", "short", "null", "no base64"],
)
def test_an_unusable_vector_is_an_error_of_its_text(world: World, vector: Any) -> None:
    """The others are stored; it alone is submitted again."""
    body = {"data": [{"index": 0, "embedding": vector}], "usage": {"prompt_tokens": 2}}
    world.fake.answer = answers({"a hen": Answer(body)})
    call = run(jobs_of())
    assert call.results.outcomes.tolist() == [OK, FAILED, OK]
    assert isinstance(call.results.errors[1], errors.ProviderError)
    world.fake.answer = openai_answer
    call = run(jobs_of())
    assert call.results.outcomes.tolist() == [OK, OK, OK]
    assert world.sent() == [*TEXTS, "a hen"]


def test_a_refused_text_is_an_error_of_its_own(world: World) -> None:
    """Of its type; an expired one can be submitted again."""
    refused = Answer({"error": {"message": "Unsafe text.", "code": "content_filter"}}, 400)
    world.fake.answer = answers({"a hen": refused})
    call = run(jobs_of())
    assert isinstance(call.results.errors[1], errors.ContentFilterError)
    assert call.response().cost_usd == pytest.approx(batch_price(["a fox", "a cow"]))
    world.fake.change_fate(run_s=100.0, expires_s=60.0)
    world.fake.answer = openai_answer
    call = run(jobs_of(["a dog", "a bat"]))
    assert call.results.count(FAILED) == 1
    assert "could not be executed before" in str(call.results.errors[1])


def test_a_text_that_is_too_long_is_shortened_live(world: World) -> None:
    """As by a live call, and stored as such; at most 1 % of the texts, but at least one."""
    message = (
        "This model's maximum context length is 8192 tokens, however you requested 9000 tokens"
    )
    long = Answer({"error": {"message": message, "code": "context_length_exceeded"}}, 400)
    world.fake.answer = answers({"a fox" * 2: long, "a hen" * 2: long})
    texts = ["a fox" * 2, "a hen" * 2, "a cow"]
    call = run(jobs_of(texts))
    assert call.results.outcomes.tolist() == [TRUNCATED, FAILED, OK]
    assert len(world.live) == 1
    assert call.sent == 2
    call = run(jobs_of(texts, EmbedOptions(too_long="error")))
    assert call.results.outcomes.tolist() == [FAILED, FAILED, OK]
    assert len(world.live) == 1


def test_without_waiting_the_vectors_come_later(world: World) -> None:
    """The same call can be continued, and another kernel finds the job."""
    call = run(jobs_of(wait=False))
    assert call.pending == 3
    assert (call.results.outcomes == PENDING).all()
    assert len(call.job_ids) == 1
    world.fake.clock.advance(200)
    call.wait_for(100.0)
    run(call)
    assert (call.results.outcomes == OK).all()
    assert call.pending == 0
    assert lm.runs()["kind"].tolist() == ["batch"]
    assert lm.runs()["cost_usd"].tolist() == [pytest.approx(batch_price(TEXTS))]


def test_a_timeout_names_the_job(world: World) -> None:
    """It goes on, and the next run reads it."""
    world.fake.change_fate(run_s=1000.0)
    with pytest.raises(errors.JobError, match="has not ended in time; it goes on"):
        run(jobs_of(timeout_s=60.0))
    assert (run(jobs_of()).results.outcomes == OK).all()
    assert world.sent() == TEXTS


def test_an_estimate_is_at_the_price_of_jobs(world: World) -> None:
    """Without texts that are stored or in jobs; nothing is sent."""
    run(EmbeddingCall(session=session, texts=TEXTS[:1], model=MODEL))
    usual = asyncio.run(EmbeddingCall(session=session, texts=["a cow"], model=MODEL).estimate())
    run(jobs_of(TEXTS[:2], wait=False))
    call = jobs_of()
    name, count, estimate = asyncio.run(call.estimate())
    assert (name, count, call.in_jobs) == (MODEL, 1, 1)
    assert estimate.cost_usd == pytest.approx((usual[2].cost_usd or 0) / 2)
    live_usd = asyncio.run(EmbeddingCall(session=session, texts=TEXTS, model=MODEL).max_cost_usd())
    assert asyncio.run(call.max_cost_usd()) == pytest.approx((live_usd or 0) / 2)
    assert len(world.fake.jobs) == 1


def test_a_budget_is_checked_before_anything_is_submitted(world: World) -> None:
    """The cost of the results counts as spent."""
    lm.config.budget = 1e-9
    with pytest.raises(errors.BudgetError):
        run(jobs_of())
    assert not world.fake.jobs
    lm.config.budget = 1.0
    run(jobs_of())
    assert session.budget.spent_usd == pytest.approx(batch_price(TEXTS))
    lm.config.vectors = Path("off")
    with pytest.raises(errors.UsageError, match="vectors"):
        run(jobs_of(["new"]))
    assert len(world.fake.jobs) == 1


def test_vectors_must_be_stored(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the disk before the journal records it; a full disk is an error, and the job is read again."""
    synced: list[str] = []
    fsync = os.fsync

    def note(file: int) -> None:
        synced.append(Path(f"/proc/self/fd/{file}").readlink().suffix)
        fsync(file)

    monkeypatch.setattr(vector_files.os, "fsync", note)
    run(jobs_of(TEXTS[:1]))
    assert {".rows", ".keys"} <= set(synced)
    run(jobs_of(TEXTS[1:], wait=False))
    append = vector_files.Writer.append

    def fail(*_: Any, **__: Any) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(vector_files.Writer, "append", fail)
    with (
        pytest.warns(UserWarning, match="Could not store vectors"),
        pytest.raises(errors.JobError, match="could not be stored"),
    ):
        run(jobs_of())
    monkeypatch.setattr(vector_files.Writer, "append", append)
    assert (run(jobs_of()).results.outcomes == OK).all()
    assert world.sent() == TEXTS


def test_recordings_have_the_vectors(world: World, tmp_path: Path) -> None:
    """And a replay needs no service."""
    lm.config.record = tmp_path / "vectors.jsonl"
    expected = run(jobs_of()).results.matrix
    lm.config.record = None
    lm.config.replay, lm.config.replay_strict = tmp_path / "vectors.jsonl", True
    lm.config.vectors = Path("off")
    replayed = run(jobs_of())
    assert replayed.results.matrix == pytest.approx(expected)
    assert len(world.fake.jobs) == 1


def test_services_without_such_jobs_are_refused(world: World) -> None:
    """Before anything is written; the error names those that have them."""
    for model in ("echo/echo", "anthropic/m", "groq/m"):
        lm.config.providers = {"groq": {"api_key": "k"}, "anthropic": {"api_key": "k"}}
        with pytest.raises(errors.UnsupportedError, match="batch jobs"):
            run(jobs_of(model=model))
        with pytest.raises(errors.UnsupportedError, match="batch jobs"):
            asyncio.run(jobs_of(model=model).estimate())
    assert not session.journal.path.exists()


def test_no_texts_need_no_job(world: World) -> None:
    """And no service."""
    call = run(jobs_of([]))
    assert call.response().cost_usd == 0.0
    assert asyncio.run(call.max_cost_usd()) == 0.0
    assert not world.fake.asked
