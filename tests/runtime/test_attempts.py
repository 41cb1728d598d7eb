"""One pipeline for all requests: shared pauses, retries, circuit breakers, budget, routes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any

import pandas as pd
import pytest

import llm_magics as lm
from llm_magics import errors
from llm_magics._async.bridge import bridge
from llm_magics.errors import ConnectionError, ProviderError, RateLimitError
from llm_magics.host import Progress
from llm_magics.runtime.batch import BatchCall
from llm_magics.runtime.chat import ChatCall
from llm_magics.runtime.embedding import EmbeddingCall, EmbedOptions
from llm_magics.runtime.media_calls import MediaCall, image_call, transcription_call
from llm_magics.runtime.prompts.prompt import Prompt
from llm_magics.runtime.session import session
from tests.support import virtual_time
from tests.support.chatter import Chatter
from tests.support.embedder import Embedder, vector_of
from tests.support.fake_media import PNG, WAV, FakeMedia
from tests.support.servers import BUSY, GOOD, once, servers
from tests.support.serving import Asked, Says, as_json, chat_stream, serving
from tests.support.virtual_time import SharedServer, SimulatedProvider, SimulatedSession

TEXTS = [f"text {number}" for number in range(6000)]


class TokenBucketServer:
    """
    A service that takes ``burst`` rows at once and ``rate`` more a second, each answer 50 ms.

    ``names`` makes of the exact seconds what a refusal says of the wait.
    """

    def __init__(
        self, burst: float, rate: float, names: Callable[[float], float | None] = lambda s: s
    ) -> None:
        self._burst, self._rate, self._names = burst, rate, names
        self._level = burst
        self._at = 0.0
        self.refusals: list[tuple[float, float]] = []  # when, and until when to wait
        self.arrivals: list[float] = []

    async def __call__(self, texts: Sequence[str]) -> None:
        now = asyncio.get_running_loop().time()
        self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now
        self.arrivals.append(now)
        if self._level < len(texts):
            wait_s = (len(texts) - self._level) / self._rate
            named = self._names(wait_s)
            self.refusals.append((now, now + (named or 0.0)))
            await asyncio.sleep(0.01)
            raise RateLimitError("slow down", status=429, retry_after=named)
        self._level -= len(texts)
        await asyncio.sleep(0.05)


async def walked(call: Any) -> list[Progress]:
    """What a call tells on its way."""
    async with aclosing(call.events()) as events:
        return [event async for event in events if isinstance(event, Progress)]


def embedding(provider: SimulatedProvider, texts: Sequence[str] = TEXTS) -> EmbeddingCall:
    """Texts to be embedded by ``provider``, nothing kept."""
    return EmbeddingCall(
        session=SimulatedSession(provider), texts=texts, model="lab/m", options=EmbedOptions()
    )


@pytest.fixture(autouse=True)
def without_store() -> None:
    """Threads that write know nothing of virtual time."""
    lm.config.vectors = "off"


@pytest.mark.parametrize(
    "names",
    [lambda s: math.ceil(s * 1000) / 1000, math.ceil, lambda s: None],
    ids=["retry-after-ms", "retry-after", "nothing"],
)
def test_a_token_bucket_is_waited_for(names: Callable[[float], float | None]) -> None:
    """All rows come, nearly as fast as the service admits them, and few requests are refused."""
    server = TokenBucketServer(1500, 600, names)
    call = embedding(SimulatedProvider(server))
    told, seconds = virtual_time.run(walked(call))
    assert call.results.count(1) == len(TEXTS)
    assert not call.results.errors
    at_least_s = (len(TEXTS) - 1500) / 600
    assert seconds < 2.5 * at_least_s
    assert len(server.refusals) <= 60
    if names(0.5) is not None:
        assert any("lab requests a delay" in str(each) for each in told)


def test_all_calls_share_one_pause() -> None:
    """Chats, row prompts and embeddings of one session: nothing is sent before its end."""
    server = TokenBucketServer(300, 100)
    provider = SimulatedProvider(server)

    async def all_of_them() -> None:
        shared = SimulatedSession(provider)
        texts = EmbeddingCall(
            session=shared, texts=TEXTS[:600], model="lab/m", options=EmbedOptions(batch_size=50)
        )
        rows = BatchCall(shared, [Prompt(text=f"row {n}", model="lab/m") for n in range(100)])
        chats = [ChatCall(shared, Prompt(text=f"chat {n}", model="lab/m")) for n in range(20)]
        await asyncio.gather(*(walked(each) for each in (texts, rows, *chats)))
        assert texts.results.count(1) == 600
        assert not rows.errors
        assert all(each.response().text == "said" for each in chats)

    virtual_time.run(all_of_them())
    assert server.refusals
    for came, until in server.refusals:
        # Those under way when the first refusal came are refused as well.
        early = [at for at in server.arrivals if came + 0.011 < at < until - 0.001]
        assert not early, (came, until, early)


def test_a_column_is_patient_while_it_moves() -> None:
    """Sixty rows a minute and no word on the wait: far more refusals than retries, and all come."""
    server = TokenBucketServer(60, 1, lambda s: None)
    call = BatchCall(
        SimulatedSession(SimulatedProvider(server)),
        [Prompt(text=f"row {number}", model="lab/m") for number in range(180)],
    )
    _, seconds = virtual_time.run(walked(call))
    assert not call.errors
    assert all(call.responses)
    assert 119 < seconds < 240


def test_a_service_that_admits_nobody_is_given_up() -> None:
    """After the retries of ten prompts, or of one batch, and not after all of them."""

    async def refuse(texts: Sequence[str]) -> None:
        await asyncio.sleep(0.01)
        raise RateLimitError("no", status=429, retry_after=0.5)

    for call, most in (
        (embedding(provider := SimulatedProvider(refuse)), 20),
        (
            BatchCall(
                SimulatedSession(provider2 := SimulatedProvider(refuse)),
                [Prompt(text=f"row {number}", model="lab/m") for number in range(1000)],
            ),
            60,
        ),
    ):
        with pytest.raises(RateLimitError, match="no"):
            virtual_time.run(walked(call))
        asked = provider if isinstance(call, EmbeddingCall) else provider2
        assert len(asked.requests) <= most


def test_a_wait_that_is_too_long_is_an_error_at_once() -> None:
    """And pauses no other call."""

    async def refuse(texts: Sequence[str]) -> None:
        raise RateLimitError("no", status=429, retry_after=3600)

    call = embedding(SimulatedProvider(refuse), TEXTS[:10])
    with pytest.raises(RateLimitError):
        virtual_time.run(walked(call))


class Outage:
    """A server that fails from some request on, in one way."""

    def __init__(self, after: int, error: Callable[[], ProviderError]) -> None:
        self._left = after
        self._error = error
        self.failures = self.rows = 0

    async def __call__(self, texts: Sequence[str]) -> None:
        await asyncio.sleep(0.05)
        if self._left <= 0:
            self.failures += 1
            raise self._error()
        self._left -= 1
        self.rows += len(texts)


BROKEN: list[Callable[[], ProviderError]] = [
    lambda: ProviderError("down", status=500, retryable=True),
    lambda: ProviderError("down", status=503, retryable=True),
    lambda: ConnectionError("gone"),
    lambda: RateLimitError("spent", status=429, code="insufficient_quota", retryable=False),
]


@pytest.mark.parametrize("error", BROKEN, ids=["500", "503", "connection", "quota"])
@pytest.mark.parametrize("retries", [0, 2, 20])
def test_an_outage_ends_a_column_after_ten_failures(
    error: Callable[[], ProviderError], retries: int
) -> None:
    """What was answered stays, the rest is unanswered, and the error says how to go on."""
    lm.config.retries = retries
    server = Outage(100, error)
    call = BatchCall(
        SimulatedSession(SimulatedProvider(server)),
        [Prompt(text=f"row {number}", model="lab/m") for number in range(1000)],
        concurrency=8,
    )
    with pytest.raises(ProviderError, match="10 ") as caught:
        virtual_time.run(walked(call))
    assert "100 of 1,000 prompts are answered" in str(caught.value.hint)
    assert sum(each is not None for each in call.responses) == 100
    assert not call.errors
    assert 10 <= server.failures <= 10 + 8


@pytest.mark.parametrize("error", BROKEN, ids=["500", "503", "connection", "quota"])
def test_an_outage_ends_an_embedding(error: Callable[[], ProviderError]) -> None:
    """No batch is split down to its texts."""
    server = Outage(10, error)
    call = embedding(SimulatedProvider(server))
    with pytest.raises(ProviderError) as caught:
        virtual_time.run(walked(call))
    assert f"{server.rows:,} of 6,000 texts are embedded" in str(caught.value.hint)
    assert server.failures <= 10 + 64
    assert not call.results.errors


def test_failures_now_and_then_end_nothing() -> None:
    """Every third request fails: all rows are answered by a retry, however many those are."""
    asked = 0

    async def sometimes(texts: Sequence[str]) -> None:
        nonlocal asked
        asked += 1
        is_third = asked % 3 == 0
        await asyncio.sleep(0.05)
        if is_third:
            raise ProviderError("down", status=502, retryable=True)

    lm.config.retries = 10
    call = BatchCall(
        SimulatedSession(SimulatedProvider(sometimes)),
        [Prompt(text=f"row {number}", model="lab/m") for number in range(300)],
    )
    virtual_time.run(walked(call))
    assert not call.errors
    assert all(call.responses)


@pytest.mark.parametrize("bad", [{0}, {0, 255}, {3, 300, 600, 1500}, {255, 256}])
def test_texts_that_a_server_stumbles_over_are_found(bad: set[int]) -> None:
    """It says 500 to a batch with one of them: they fail alone, and the service is not to blame."""
    odd = {TEXTS[number] for number in bad}

    async def stumble(texts: Sequence[str]) -> None:
        await asyncio.sleep(0.01)
        if odd & set(texts):
            raise ProviderError("json: unsupported value: NaN", status=500, retryable=True)

    call = embedding(SimulatedProvider(stumble), TEXTS[:2000])
    virtual_time.run(walked(call))
    assert set(call.results.errors) == bad
    assert call.results.count(1) == 2000 - len(bad)


def test_waiting_for_a_retry_ends_with_the_batch() -> None:
    """Nobody sleeps through a long back-off when the failures of others have ended the column."""
    lm.config.retries, lm.config.max_retry_delay_s = 20, 1000
    lm.config.retry_timeout_s = 100_000
    asked = 0

    async def fail(texts: Sequence[str]) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise ProviderError("down", status=500, retryable=True, retry_after=900)
        await asyncio.sleep(0.05)
        raise ProviderError("down", status=500, retryable=True)

    call = BatchCall(
        SimulatedSession(SimulatedProvider(fail)),
        [Prompt(text=f"row {number}", model="lab/m") for number in range(50)],
    )

    async def timed() -> float:
        with pytest.raises(ProviderError):
            await walked(call)
        return asyncio.get_running_loop().time()

    ended_s, _ = virtual_time.run(timed())
    assert ended_s < 100


@pytest.fixture
def embedder(quick_retries: None) -> Iterator[Embedder]:
    """The service ``lab``, which embeds, with a store."""
    fake = Embedder()
    lm.config.vectors = "kept"
    with serving(fake) as server:
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url, "api_key": "k"}}
        lm.config.embedding_model = "lab/m"
        yield fake


PAGE = Says([b"<html><body>Sign in</body></html>"], 200, "text/html")


def short_answer() -> Says:
    """Vectors of fewer texts than were sent."""
    row = {"index": 0, "embedding": vector_of("text 0")}
    return as_json({"data": [row], "usage": {"prompt_tokens": 1}})


ODD = {
    "page": PAGE,
    "short": short_answer(),
    "truncated": Says([b'{"data": [{"index": 0, "embed'], 200, "application/json"),
    "empty": Says([b""], 200, "application/json"),
    "cut": Says([b'{"data": ['], 200, "application/json", cut=True),
    "dropped": Says(drop=True),
}


@pytest.mark.parametrize("kind", sorted(ODD))
def test_an_odd_answer_is_a_retry_and_not_the_end(kind: str, embedder: Embedder) -> None:
    """Of an embedding: once it is asked again, thrice it is an error, and nothing is stored."""
    embedder.refusals = [ODD[kind]]
    assert lm.embed(TEXTS[:600]).shape == (600, 8)
    assert lm.runs().retries.iloc[-1] == 1
    embedder.refusals = [ODD[kind]] * 100
    before = embedder.requests
    with pytest.raises(errors.ProviderError):
        lm.embed(["another", "text"])
    assert embedder.requests - before == 3


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize("kind", sorted(set(ODD) - {"short"}))
def test_so_it_is_of_a_chat(kind: str) -> None:
    """Before the first word."""
    with servers(one=once(ODD[kind], GOOD)) as running:
        answer = lm.ask("x", model="one/m")
        assert (answer.text, answer.retries) == ("hi", 1)
        assert len(running["one"].asked) == 2


def test_an_embedding_goes_on_where_an_outage_ended_it(embedder: Embedder) -> None:
    """The second run pays only for what is missing."""
    texts = TEXTS[:3000]
    down = as_json({"error": {"message": "down"}}, 500)
    answer, left = embedder.__call__, [6]

    def until(asked: Asked) -> Says:
        left[0] -= 1
        return answer(asked) if left[0] >= 0 else down

    with serving(until) as server:
        lm.config.set("providers.lab.base_url", server.url)
        with pytest.raises(errors.ProviderError, match="10 ") as caught:
            lm.embed(texts)
        assert "and stored. Run it again" in str(caught.value.hint)
        assert len(server.asked) < 100
        left[0] = 10_000
        assert lm.embed(texts).shape == (3000, 8)
    assert sorted(embedder.paid) == sorted(texts)


@pytest.mark.usefixtures("quick_retries")
def test_a_column_goes_on_where_an_outage_ended_it() -> None:
    """What was answered stands in the frame, and is not asked again."""
    service, left = Chatter(), [30]

    def until(asked: Asked) -> Says:
        left[0] -= 1
        return service(asked) if left[0] >= 0 else as_json({"error": {"message": "down"}}, 503)

    lm.config.cache_dir = "cache"
    frame = pd.DataFrame({"text": [f"row {number}" for number in range(100)]})
    with servers(lab=until) as running:
        lm.config.model = "lab/m"
        with pytest.raises(errors.ProviderError, match="10 ") as caught:
            frame.llm.prompt("{{ text }}")
        assert "30 of 100 rows" in str(caught.value.hint)
        assert len(running["lab"].asked) < 30 + 10 + 65
        assert frame["answer"].notna().sum() == 30
        left[0] = 1000
        frame.llm.prompt("{{ text }}")
    assert frame["answer"].notna().all()
    assert sorted(service.paid) == sorted(frame["text"])


def media(call: MediaCall[Any]) -> tuple[Any, list[str]]:
    """What comes of an image or a transcription, and what it told."""
    told = [str(event) for event in bridge.iterate(call.events())]
    return call.result, told


def image(model: str = "one/gpt-image-1") -> MediaCall[Any]:
    """A picture of something."""
    return image_call(session, "a cat", model, {})


def speech(model: str = "one/whisper-1") -> MediaCall[Any]:
    """Speech to be written down."""
    return transcription_call(session, WAV, model, {})


MEDIA = [image, speech]


@pytest.mark.parametrize("make", MEDIA)
def test_images_and_transcriptions_are_retried(make: Callable[..., MediaCall[Any]]) -> None:
    """As often as the setting says, and the log says how often."""
    with servers(one=once(BUSY, FakeMedia()(Asked("POST", "/images/generations", {}, b'{"model": "gpt-image-1"}')) if make is image else as_json({"text": "hello"}))) as running:  # fmt: skip
        result, told = media(make())
        assert result in ([PNG], "hello")
        assert any("retrying" in each for each in told)
        assert len(running["one"].asked) == 2
    assert lm.runs().retries.tolist() == [1]
    with servers(one=BUSY) as running:
        lm.config.retries = 0
        with pytest.raises(errors.RateLimitError):
            media(make())
        assert len(running["one"].asked) == 1


@pytest.mark.parametrize("make", MEDIA)
def test_images_and_transcriptions_follow_routes(make: Callable[..., MediaCall[Any]]) -> None:
    """The next model answers, and the log says in whose place."""
    lm.config.retries = 0
    with servers(one=as_json({"error": {"message": "down"}}, 500), two=FakeMedia()):
        lm.config.routes = {"any": ["one/gpt-image-1", "two/gpt-image-1"]}
        result, _ = media(make("any"))
        assert result
    row = lm.runs().iloc[-1]
    assert (row.provider, row.fallback_from) == ("two", "one/gpt-image-1 (ProviderError)")


@pytest.mark.parametrize("make", MEDIA)
def test_images_and_transcriptions_keep_to_the_limits(
    make: Callable[..., MediaCall[Any]],
) -> None:
    """So many at once, and so many a minute."""
    slow = Says(
        as_json({"error": {"message": "no"}}).pieces, 400, "application/json", delay_s=0.01
    )

    async def ask(call: MediaCall[Any]) -> None:
        with pytest.raises(errors.ProviderError):
            await walked(call)

    async def all_of_them() -> None:
        await asyncio.gather(*(ask(make()) for _ in range(9)))

    with servers(one=slow) as running:
        lm.config.set("providers.one.concurrency", 2)
        bridge.run(all_of_them())
        assert running["one"].most_at_once == 2
        lm.config.set("providers.one.requests_per_minute", 600)
        limiter = session.limiter(session.provider("one"))
        bridge.run(all_of_them())
        assert limiter._requests is not None
        assert limiter._requests.take(0) == 0
        assert limiter._requests._level < 600


@pytest.mark.parametrize("make", MEDIA)
def test_a_budget_refuses_what_has_no_price(make: Callable[..., MediaCall[Any]]) -> None:
    """Nothing is sent."""
    with servers(one=FakeMedia()) as running:
        lm.config.budget = 1.0
        with pytest.raises(errors.BudgetError):
            media(make())
        assert running["one"].asked == []


def test_a_cell_says_that_the_service_asks_to_wait() -> None:
    """Before the wait, with its length and its reason."""
    busy = Says(BUSY.pieces, 429, "application/json", headers={"retry-after-ms": "20"})
    with servers(one=once(busy, GOOD)):
        events = list(bridge.iterate(ChatCall(session, Prompt(text="x", model="one/m")).events()))
    told = [str(each) for each in events if isinstance(each, Progress)]
    assert "one requests a delay of 1 s (rate limit)" in told


def test_a_call_that_was_cancelled_leaves_the_breaker_to_others() -> None:
    """The one that may try after a pause was cut short: another one may."""
    breakers = session.circuit_breakers
    breakers.open_s = 0
    with servers(one=Says(chat_stream()[:1], hang=True), two=GOOD) as running:
        breakers = session.circuit_breakers
        breakers.open_s = 0
        for _ in range(3):
            breakers.failed("one")
        lm.config.routes = {"both": ["one/m", "two/m"]}

        async def cut_short() -> None:
            call = ChatCall(session, Prompt(text="x", model="both"))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await walked(call)

        bridge.run(cut_short())
        assert len(running["one"].asked) == 1
        assert breakers.may_try("one")


def test_a_tool_call_that_was_handed_out_is_not_asked_for_again() -> None:
    """It counts as words do: what breaks after it is an error with what came."""
    from llm_magics.types import StreamChunk, ToolCall

    class Half(SimulatedProvider):
        async def generate_chat(self, *_: Any) -> AsyncGenerator[StreamChunk, None]:  # type: ignore[override]
            self.requests.append([])

            async def chunks() -> AsyncGenerator[StreamChunk, None]:
                yield StreamChunk(tool_calls=(ToolCall("a", "f", "{}"),))
                raise ConnectionError("gone")

            return chunks()

    provider = Half(SharedServer(lambda count: 1.0).serve)  # type: ignore[arg-type]
    call = ChatCall(SimulatedSession(provider), Prompt(text="x", model="lab/m"))
    with pytest.raises(ConnectionError):
        virtual_time.run(walked(call))
    assert len(provider.requests) == 1
    assert call.response().tool_calls
