"""Anthropic's Message Batches: their lifecycle, results, refusals, and the official client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import anthropic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magics import ChatMessage, ModelParameters
from llm_magics.errors import (
    AuthenticationError,
    ConnectionError,
    ModelNotFoundError,
    ProviderError,
    ResultsGoneError,
    UnsupportedError,
)
from llm_magics.providers import create_provider
from llm_magics.providers.anthropic import AnthropicProvider
from llm_magics.providers.batches import offline
from llm_magics.providers.batches.anthropic import Batches
from llm_magics.providers.batches.service import BatchResult, JobStatus, Submission
from llm_magics.types import ModelResponse
from llm_magics.wire import anthropic_batches as wire
from tests.support.batch_answers import answer_to, tokens_in
from tests.support.batch_fakes import Answer, Request
from tests.support.examples import examples
from tests.support.fake_anthropic import CHAT, refusal
from tests.support.fake_anthropic_batches import PATH, FakeAnthropicBatches, missing
from tests.support.serving import Server, as_json, serving

KEY = "a-key-of-the-test"
MARK = "0123456789abcdefghij"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
T = TypeVar("T")


@pytest.fixture
def fake() -> FakeAnthropicBatches:
    """The service."""
    return FakeAnthropicBatches()


@pytest.fixture
def server(fake: FakeAnthropicBatches) -> Iterator[Server]:
    """Where it is served."""
    with serving(fake) as served:
        yield served


def use(
    server: Server, do: Callable[[Batches], Awaitable[T]], *, key: str = KEY, **settings: Any
) -> T:
    """What ``do`` gives with our service."""

    async def run() -> T:
        provider = create_provider("anthropic", base_url=server.url, api_key=key, **settings)
        async with provider:
            assert isinstance(provider, AnthropicProvider)
            return await do(Batches(provider))

    return asyncio.run(run())


async def lines_of(
    service: Batches, texts: Sequence[str], parameters: ModelParameters | None = None
) -> list[bytes]:
    """The lines of the prompts, as a job has them."""
    lines = []
    for number, text in enumerate(texts):
        request = await offline.chat_request_of(
            service.provider, [ChatMessage("user", text)], CHAT, parameters or ModelParameters()
        )
        assert request.path in service.paths
        lines.append(service.encode(f"{MARK}-{number}", request.path, request.body))
    return lines


def submission_of(lines: Sequence[bytes]) -> Submission:
    """A job of these lines, in a file."""
    path = Path("lines.jsonl")
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return Submission(mark=MARK, path="/v1/messages", model=CHAT, lines=path, count=len(lines))


async def created(service: Batches, texts: Sequence[str] = ("a", "b", "c")) -> JobStatus:
    """A job with a request for each text."""
    return await service.create(submission_of(await lines_of(service, texts)))


async def read(service: Batches, status: JobStatus) -> dict[str, BatchResult]:
    """All results, by their identifiers."""
    found = [each async for each in service.results(status)]
    assert len({each.custom_id for each in found}) == len(found)
    return {each.custom_id: each for each in found}


def create(server: Server, texts: Sequence[str] = ("a", "b", "c")) -> JobStatus:
    """A job with a request for each text, created by its own provider."""
    return use(server, lambda service: created(service, texts))


def finish(server: Server, job_id: str) -> dict[str, BatchResult]:
    """The results of a job that has ended."""

    async def do(service: Batches) -> dict[str, BatchResult]:
        return await read(service, await service.retrieve(job_id))

    return use(server, do)


def test_a_batch_from_its_creation_to_its_answers(
    fake: FakeAnthropicBatches, server: Server
) -> None:
    """Results arrive in another order, and are read as live answers are."""
    texts = [f"text {number} é\u2028\u0085\n" for number in range(20)]
    status = create(server, texts)
    assert (status.state, status.total, status.done, status.outcome) == ("running", 20, 0, "")
    assert status.created == datetime.fromtimestamp(fake.clock(), UTC)
    assert status.expires == status.created + timedelta(hours=24)
    assert (status.mark, status.results) == (None, ())
    fake.clock.advance(100)

    async def do(service: Batches) -> list[str]:
        ended = await service.retrieve(status.id)
        assert (ended.state, ended.done, ended.failed) == ("ended", 20, 0)
        assert ended.outcome == "ended"
        order = [each.custom_id async for each in service.results(ended)]
        assert order != sorted(order, key=lambda name: int(name.rpartition("-")[2]))
        results = await read(service, ended)
        answers = []
        for number, text in enumerate(texts):
            body = results[f"{MARK}-{number}"].body
            assert body is not None
            chunks = await offline.chat_chunks_of(
                service.provider, [ChatMessage("user", text)], CHAT, ModelParameters(), body
            )
            answer = ModelResponse.of(chunks)
            assert answer.usage is not None
            assert answer.usage.output_tokens == tokens_in(answer.text)
            answers.append(answer.text)
        return answers

    assert use(server, do) == [answer_to(text) for text in texts]
    assert len(fake.billed()) == 20


def test_requests_are_those_of_live_calls_without_the_stream(
    fake: FakeAnthropicBatches, server: Server
) -> None:
    """The service gets what it would get live, with schema and parameters."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    parameters = ModelParameters(max_tokens=99, schema={**schema, "additionalProperties": False})

    async def do(service: Batches) -> dict[str, Any]:
        messages = [ChatMessage("user", "hi")]
        live = await offline.chat_request_of(service.provider, messages, CHAT, parameters)
        await service.create(submission_of(await lines_of(service, ["hi"], parameters)))
        return live.body

    live = use(server, do)
    (job,) = fake.jobs.values()
    assert live.pop("stream") is True
    assert job.requests[0].body == live
    assert json.loads(finish_one(fake, server).body["content"][0]["text"]).keys() == {"a"}  # type: ignore[index]


def finish_one(fake: FakeAnthropicBatches, server: Server) -> BatchResult:
    """The only result of the only job, after its end."""
    fake.clock.advance(1000)
    (job,) = fake.jobs.values()
    (result,) = finish(server, job.id).values()
    return result


def test_expired_requests_are_free_and_answered_ones_are_kept(
    fake: FakeAnthropicBatches, server: Server
) -> None:
    """After 24 hours, a batch ends with the answers until then."""
    fake.change_fate(run_s=2 * 86_400.0)
    status = create(server, ["a", "b", "c", "d"])
    fake.clock.advance(86_400)
    results = finish(server, status.id)
    ended = use(server, lambda service: service.retrieve(status.id))
    assert (ended.outcome, ended.done, ended.failed) == ("expired", 4, 2)
    late = [each for each in results.values() if each.is_expired]
    assert len(late) == 2
    assert all(each.body is None and each.error and each.error.retryable for each in late)
    assert {each.custom_id for each in late} == {f"{MARK}-2", f"{MARK}-3"}


def test_a_cancelled_batch_has_the_answers_until_then(
    fake: FakeAnthropicBatches, server: Server
) -> None:
    """Canceling takes a while; what was done is billed, the rest is free."""
    status = create(server, ["a", "b", "c", "d"])
    fake.clock.advance(50)
    use(server, lambda service: service.cancel(status.id))
    assert use(server, lambda service: service.retrieve(status.id)).state == "cancelling"
    fake.clock.advance(10)
    results = finish(server, status.id)
    assert [each.is_expired for _, each in sorted(results.items())] == [False, False, True, True]
    assert use(server, lambda service: service.retrieve(status.id)).outcome == "canceled"
    assert len(fake.billed()) == 2


def test_cancelling_an_ended_batch_is_no_error(fake: FakeAnthropicBatches, server: Server) -> None:
    """It may end while the user decides; an unknown one is an error."""
    status = create(server)
    fake.clock.advance(100)
    use(server, lambda service: service.cancel(status.id))
    with pytest.raises(ProviderError) as caught:
        use(server, lambda service: service.cancel("msgbatch_unknown"))
    assert caught.value.status == 404


def test_an_errored_request_has_the_error_of_a_live_call(
    fake: FakeAnthropicBatches, server: Server
) -> None:
    """The provider maps it: a missing model, an invalid field, an overload."""
    kinds = ["not_found_error", "invalid_request_error", "overloaded_error", "api_error"]

    def answer(request: Request) -> Answer:
        kind = kinds[int(request.custom_id.rpartition("-")[2])]
        error = {"type": "error", "error": {"type": kind, "message": "why"}, "request_id": "r"}
        return Answer(error, 500)

    fake.answer = answer
    status = create(server, kinds)
    fake.clock.advance(100)
    results = finish(server, status.id)
    errors = [results[f"{MARK}-{number}"].error for number in range(4)]
    assert isinstance(errors[0], ModelNotFoundError)
    assert [each.code for each in errors if each] == kinds
    assert [each.retryable for each in errors if each] == [False, False, True, True]
    assert not any(each.is_expired for each in results.values())
    assert use(server, lambda service: service.retrieve(status.id)).failed == 4


def test_an_answer_that_the_service_has_paused_is_an_error_of_its_row() -> None:
    """A live call continues it after the searches; here its text would be repeated."""
    body = {
        "id": "msg_1",
        "type": "message",
        "model": CHAT,
        "content": [{"type": "text", "text": "Let me search."}],
        "stop_reason": "pause_turn",
        "usage": {"input_tokens": 1, "output_tokens": 2},
    }
    provider = create_provider("anthropic", api_key=KEY)
    assert isinstance(provider, AnthropicProvider)
    parameters = ModelParameters(search=True)
    messages = [ChatMessage("user", "hi")]
    with pytest.raises(ProviderError, match="paused") as caught:
        asyncio.run(offline.chat_chunks_of(provider, messages, CHAT, parameters, body))
    assert type(caught.value) is ProviderError
    assert caught.value.hint == "Send it without batch=True."
    assert caught.value.partial.text == "Let me search."
    chunks = asyncio.run(
        offline.chat_chunks_of(
            provider, messages, CHAT, parameters, {**body, "stop_reason": "end_turn"}
        )
    )
    assert "".join(chunk.text for chunk in chunks) == "Let me search."


def test_an_unknown_type_of_result_is_an_error_of_its_row(
    fake: FakeAnthropicBatches, server: Server
) -> None:
    """A future type of result costs no other row."""
    result = json.dumps({"custom_id": f"{MARK}-0", "result": {"type": "deferred"}}).encode()
    status = create(server)
    fake.clock.advance(100)
    ended = use(server, lambda service: service.retrieve(status.id))
    fake.fail(path="results", says=as_json(None))
    fake.faults[-1].says.pieces = [result]  # type: ignore[union-attr]
    (found,) = use(server, lambda service: read(service, ended)).values()
    assert "unknown type 'deferred'" in str(found.error)


def test_results_are_gone_after_29_days(fake: FakeAnthropicBatches, server: Server) -> None:
    """The batch still exists, but says that it is archived."""
    status = create(server)
    fake.clock.advance(100)
    ended = use(server, lambda service: service.retrieve(status.id))
    fake.clock.advance(29 * 86_400)
    for known in (ended, use(server, lambda service: service.retrieve(status.id))):
        with pytest.raises(ResultsGoneError, match="29 days"):
            use(server, lambda service, known=known: read(service, known))  # type: ignore[misc]


def test_a_404_for_an_existing_batch_can_be_tried_again(
    fake: FakeAnthropicBatches, server: Server
) -> None:
    """The service has answered so for batches that exist; nothing is given up because of it."""
    status = create(server)
    fake.clock.advance(100)
    ended = use(server, lambda service: service.retrieve(status.id))
    fake.fail(path=status.id, says=missing())
    with pytest.raises(ProviderError) as caught:
        use(server, lambda service: service.retrieve(status.id))
    assert (caught.value.status, caught.value.retryable) == (404, True)
    fake.fail(path="results", says=missing())
    with pytest.raises(ProviderError) as caught:
        use(server, lambda service: read(service, ended))
    assert (type(caught.value), caught.value.retryable) == (ProviderError, True)
    assert len(use(server, lambda service: read(service, ended))) == 3
    assert fake.paths().count("/v1/models?limit=1000") == 0


def test_a_deleted_batch_is_a_404(fake: FakeAnthropicBatches, server: Server) -> None:
    """It cannot be distinguished from a batch that the service does not find at present."""
    status = create(server)
    fake.clock.advance(100)
    ended = use(server, lambda service: service.retrieve(status.id))
    fake.jobs[status.id].deleted = True
    with pytest.raises(ProviderError, match="Not Found") as caught:
        use(server, lambda service: read(service, ended))
    assert (caught.value.status, caught.value.retryable) == (404, True)
    assert "deleted" in str(caught.value.hint)


def test_an_ended_batch_without_an_address_can_be_asked_again(server: Server) -> None:
    """Without results and without an archive, the service is not ready."""
    ended = JobStatus(id="msgbatch_1", state="ended", outcome="ended")
    with pytest.raises(ProviderError, match="results") as caught:
        use(server, lambda service: read(service, ended))
    assert caught.value.retryable
    assert server.asked == []


@pytest.mark.parametrize("host", ["https://evil.example", "http://127.0.0.1:1", "ftp://x", "//x"])
def test_the_key_is_not_sent_to_another_address(
    fake: FakeAnthropicBatches, server: Server, host: str
) -> None:
    """``results_url`` is a text of the service, and may be anything."""
    status = create(server)
    fake.clock.advance(100)
    fake.results_host = host
    with pytest.raises(ProviderError, match="another address") as caught:
        finish(server, status.id)
    assert not caught.value.retryable
    assert not any("results" in path for path in fake.paths())


def test_a_hostile_identifier_stays_in_its_path(server: Server) -> None:
    """An identifier from a journal is one segment of the path."""
    with pytest.raises(ProviderError):
        use(server, lambda service: service.retrieve("../models?x=1#"))
    assert server.asked[-1].path == f"{PATH}/..%2Fmodels%3Fx%3D1%23"


def test_the_list_has_all_pages_but_none_of_the_past(
    fake: FakeAnthropicBatches, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read from the latest batch until those that are older than asked for."""
    monkeypatch.setattr("llm_magics.providers.batches.anthropic._PAGE", 2)
    fake.keys = {KEY: "account", "other-key": "another"}
    ids = []
    for _ in range(7):
        ids.append(create(server).id)
        fake.clock.advance(10)
    use(server, created, key="other-key")
    since = datetime.fromtimestamp(fake.clock() - 45, UTC)

    async def listed(service: Batches, start: datetime) -> list[str]:
        return [each.id async for each in service.recent(start)]

    fake.asked.clear()
    assert use(server, lambda service: listed(service, since)) == ids[:2:-1]
    assert len(fake.asked) == 3, "the last pages were not asked for"
    assert use(server, lambda service: listed(service, LONG_AGO)) == ids[::-1]


def test_a_list_that_never_ends_is_an_error(server: Server, fake: FakeAnthropicBatches) -> None:
    """A page that names itself as the next one ends the list."""
    page = {"data": [], "has_more": True, "last_id": "x"}
    fake.fail(says=as_json(page), times=9)

    async def listed(service: Batches) -> list[JobStatus]:
        return [each async for each in service.recent(LONG_AGO)]

    assert use(server, listed) == []
    assert len(fake.asked) == 2


def test_the_list_names_no_mark(server: Server) -> None:
    """Whose a batch is only its results show; its size is known before."""
    create(server, ["a", "b"])

    async def listed(service: Batches) -> list[JobStatus]:
        return [each async for each in service.recent(LONG_AGO)]

    (status,) = use(server, listed)
    assert not Batches.has_marks
    assert (status.mark, status.total) == (None, 2)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "at least 1 item"),
        (['{"custom_id":"a","params":{}}'] * 2, "unique"),
        (['{"custom_id":"' + "a" * 65 + '","params":{}}'], "should match pattern"),
        (['{"custom_id":"a b","params":{}}'], "should match pattern"),
        (['{"custom_id":"a","params":{},"method":"POST"}'], "Extra inputs"),
        (['{"custom_id":"a"}'], "params: Field required"),
        (['{"custom_id":"a","params":{}}', "{"], "not valid JSON"),
    ],
)
def test_a_refused_batch_is_an_error_with_its_status(
    fake: FakeAnthropicBatches, server: Server, lines: list[str], words: str
) -> None:
    """The service creates nothing, and the status of the error shows it."""
    with pytest.raises(ProviderError, match=words) as caught:
        use(server, lambda service: service.create(submission_of([x.encode() for x in lines])))
    assert caught.value.status == 400
    assert fake.jobs == {}
    assert len(fake.asked) == 1


def test_too_large_batches_are_refused(fake: FakeAnthropicBatches, server: Server) -> None:
    """By the number of requests, and by their size."""
    fake.most_requests = 2
    with pytest.raises(ProviderError, match="at most 2 items"):
        create(server)
    fake.most_requests, fake.most_bytes = 100, 300
    with pytest.raises(ProviderError) as caught:
        create(server)
    assert caught.value.status == 413


def test_a_wrong_key_is_an_authentication_error(server: Server) -> None:
    """As for a live call."""
    with pytest.raises(AuthenticationError):
        use(server, created, key="wrong")


@pytest.mark.parametrize("when", ["before", "after", "middle"])
def test_a_create_is_sent_once_whatever_happens(
    fake: FakeAnthropicBatches, server: Server, when: str
) -> None:
    """An error without a status leaves open whether the batch exists; the list tells."""
    fake.fail(method="POST", when=when)
    with pytest.raises(ProviderError) as caught:
        create(server)
    assert caught.value.status is None
    assert len(fake.paths("POST")) == 1
    assert len(fake.jobs) == (0 if when == "before" else 1)


def test_a_failing_service_is_asked_once(fake: FakeAnthropicBatches, server: Server) -> None:
    """A status from 500 may come from a proxy that has passed the request on."""
    fake.fail(method="POST", says=refusal("api_error", "Internal server error", 500))
    with pytest.raises(ProviderError) as caught:
        create(server)
    assert caught.value.status == 500
    assert len(fake.asked) == 1


def test_results_that_break_off_are_an_error_after_those_before(
    fake: FakeAnthropicBatches, server: Server
) -> None:
    """What has arrived is given; the rest is read by trying again."""
    status = create(server, [str(number) for number in range(50)])
    fake.clock.advance(100)
    fake.fail(path="results", when="middle")

    async def do(service: Batches) -> tuple[int, ProviderError]:
        count = 0
        try:
            async for _ in service.results(await service.retrieve(status.id)):
                count += 1
        except ConnectionError as error:
            return count, error
        raise AssertionError

    count, error = use(server, do)
    assert 0 < count < 50
    assert error.retryable
    assert len(finish(server, status.id)) == 50


def test_other_services_with_the_format_have_no_batches() -> None:
    """Anthropic's own address has them, and a gateway to it may have them."""
    for address in ({}, {"base_url": "http://127.0.0.1:8080"}):
        provider = create_provider("anthropic", api_key=KEY, **address)
        assert isinstance(provider.batch_service(), Batches)
    other = create_provider(
        "anthropic", base_url="https://bedrock-mantle.us-east-1.api.aws/anthropic", api_key=KEY
    )
    with pytest.raises(UnsupportedError, match="batch jobs"):
        other.batch_service()


def test_embeddings_are_refused(server: Server) -> None:
    """Anthropic has no models for them."""

    async def do(service: Batches) -> None:
        service.embedding_request("a", "m", None)

    with pytest.raises(UnsupportedError, match="embed"):
        use(server, do)


def theirs(server: Server) -> anthropic.Anthropic:
    """The official client, asking once."""
    return anthropic.Anthropic(base_url=server.url, api_key=KEY, max_retries=0)


def asked_by(server: Server) -> tuple[Any, ...]:
    """The latest request: method, path with its query, and body with its type."""
    asked = server.asked[-1]
    kind = asked.headers["content-type"] if asked.body else ""
    return asked.method, asked.path, kind, json.loads(asked.body or b"null")


def test_the_official_client_sends_the_same_requests(
    fake: FakeAnthropicBatches, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Creation, retrieval, list, results and cancellation: whole paths, queries and bodies."""
    monkeypatch.setattr("llm_magics.providers.batches.anthropic._PAGE", 1)

    async def lines(service: Batches) -> list[bytes]:
        return await lines_of(service, ["a é", "b"])

    requests = [json.loads(line) for line in use(server, lines)]
    ours, there = [], []
    with theirs(server) as client:
        batches = client.messages.batches
        theirs_id = batches.create(requests=requests).id
        there.append(asked_by(server))
        use(server, lambda service: created(service, ["a é", "b"]))
        ours.append(asked_by(server))
        batches.retrieve(theirs_id)
        there.append(asked_by(server))
        use(server, lambda service: service.retrieve(theirs_id))
        ours.append(asked_by(server))
        start = len(server.asked)
        listed = [each.id for each in batches.list(limit=1)]
        there += [(each.method, each.path) for each in server.asked[start:]]
        start = len(server.asked)

        async def recent(service: Batches) -> list[str]:
            return [each.id async for each in service.recent(LONG_AGO)]

        assert use(server, recent) == listed
        ours += [(each.method, each.path) for each in server.asked[start:]]
        batches.cancel(theirs_id)
        there.append(asked_by(server))
        use(server, lambda service: service.cancel(theirs_id))
        ours.append(asked_by(server))
        fake.clock.advance(1000)
        their_results = {each.custom_id: each for each in batches.results(theirs_id)}
        there.append(asked_by(server))
        our_results = finish(server, theirs_id)
        ours.append(asked_by(server))
    assert ours == there
    assert {name: each.result.type == "canceled" for name, each in their_results.items()} == {
        name: each.is_expired for name, each in our_results.items()
    }


def test_the_official_client_reads_the_same_results(
    fake: FakeAnthropicBatches, server: Server
) -> None:
    """Its messages and counts equal the bodies and counts here."""
    status = create(server, ["a", "b"])
    fake.clock.advance(100)
    ours = finish(server, status.id)
    with theirs(server) as client:
        batch = client.messages.batches.retrieve(status.id)
        assert batch.request_counts.succeeded == 2
        for each in client.messages.batches.results(status.id):
            assert each.result.type == "succeeded"
            assert each.result.message.to_dict() == ours[each.custom_id].body


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=examples(60))
@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_any_body_survives_its_line(body: dict[str, Any]) -> None:
    """Encoding a request changes nothing but the stream; its line has no end in it."""
    line = wire.encode_request("a-0", {**body, "stream": True})
    assert b"\n" not in line
    body.pop("stream", None)
    assert json.loads(line) == {"custom_id": "a-0", "params": body}


@settings(max_examples=examples(80))
@given(json_values)
def test_any_line_is_a_result_or_an_error(value: Any) -> None:
    """Nothing that a service may write raises an error that is not expected."""
    for parse in (wire.parse_result, wire.parse_batch):
        try:
            parse(value)
        except (AttributeError, KeyError, TypeError, ValueError):
            continue


@settings(max_examples=examples(40))
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("custom_id", "result"), json_values)))
def test_a_result_has_an_identifier_and_an_object(line: dict[str, Any]) -> None:
    """Whatever is read as a result can be given to a row."""
    try:
        found = wire.parse_result(line)
    except (AttributeError, KeyError, TypeError, ValueError):
        return
    assert isinstance(found.custom_id, str)
    assert isinstance(found.content, dict)
