"""
Many texts on their way to vectors, batch by batch.

What was paid for before is not sent; what lands is kept at once, so that a call that ends in
any way has lost nothing. A batch that the service refuses for what is in it is halved until the
guilty texts are found; whatever else goes wrong ends the call.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

import numpy as np

from llm_magics.engine import money
from llm_magics.engine.crew import done_by
from llm_magics.engine.embedding import alone
from llm_magics.engine.embedding.keeping import Keeping
from llm_magics.engine.embedding.landing import FAILED, OK, PENDING, Landed, is_usable
from llm_magics.engine.embedding.long_texts import Send, mean_of_parts, truncated
from llm_magics.engine.embedding.options import EmbedOptions
from llm_magics.engine.embedding.sending import Sender
from llm_magics.engine.embedding.speed import Speed
from llm_magics.engine.money import Estimate
from llm_magics.engine.response import Response
from llm_magics.engine.road import Route, find_route, logged, made_ready
from llm_magics.engine.session import Session
from llm_magics.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectionError,
    ContextLengthError,
    ModelNotFoundError,
    ProviderError,
    RateLimitError,
    UnsupportedError,
)
from llm_magics.policies import metrics
from llm_magics.policies.batching import Bounds, batches
from llm_magics.policies.pacing import Pace
from llm_magics.types import Progress, StreamChunk, Usage, whole_text

if TYPE_CHECKING:
    from llm_magics.engine.embedding.landing import Floats

# These are about the call, whatever texts are in it.
_OF_THE_CALL = (
    AuthenticationError,
    ConfigurationError,
    ConnectionError,
    ModelNotFoundError,
    RateLimitError,
    UnsupportedError,
)

# Beyond this no service is faster, and many refuse.
_MOST_AT_ONCE = 32

# If so many texts were refused and none was taken, it is not the texts.
_HOPELESS = 8


class EmbeddingCall:
    """
    Texts on their way, each of them another; afterwards ``landed`` has what came of each.

    ``texts`` are not empty: what is has no meaning to embed.
    """

    def __init__(
        self,
        session: Session,
        texts: Sequence[str],
        model: str | None = None,
        options: EmbedOptions | None = None,
    ) -> None:
        self._session = session
        self._options = options = options or EmbedOptions()
        self._texts = [text if text.isascii() else whole_text(text) for text in texts]
        if options.prefix:
            prefix = whole_text(options.prefix)
            self._texts = [f"{prefix}{text}" for text in self._texts]
        self._model = model or session.config.embedding_model
        self._route: Route | None = None
        self._sender: Sender | None = None
        self._keeping: Keeping | None = None
        self._pace: Pace | None = None
        self._cpu_s = self._sending_s = 0.0
        self._elapsed_s: float | None = None
        self.landed = Landed(len(texts), self._texts)

    async def events(self) -> AsyncGenerator[Progress, None]:
        """Walk the road, yielding how far it has come; where there is no text, nowhere."""
        if not self._texts:
            return
        self._route = route = await find_route(self._session, self._model)
        self._sender = Sender(self._session, route, self._options.dimensions)
        with logged(self._session, "embedding", lambda: route, self.response):
            began = time.perf_counter()
            await self._find_kept(route)
            if (self.landed.outcomes == PENDING).any():
                async for progress in made_ready(route, "embeddings"):
                    yield progress
                async for _ in self._walked(route):
                    self._elapsed_s = time.perf_counter() - began
                    yield self._progress(route)
            self._elapsed_s = time.perf_counter() - began

    async def most_usd(self) -> float | None:
        """What all of them may cost, were none kept, where prices are known."""
        if not self._texts:
            return 0.0
        route = await find_route(self._session, self._model)
        if not money.has_price(self._session, route.provider, route.model):
            return None
        told = money.embedding_estimate(self._session, route.provider, route.model, self._texts)
        return told.cost_usd

    async def estimate(self) -> tuple[str, int, Estimate]:
        """Who would embed, how many texts would be sent, and what that may take; nothing is."""
        self._route = route = await find_route(self._session, self._model)
        await self._find_kept(route)
        left = [self._texts[place] for place in self.landed.pending]
        told = money.embedding_estimate(self._session, route.provider, route.model, left)
        return route.name, len(left), told

    async def _find_kept(self, route: Route) -> None:
        self._keeping = Keeping(self._session, route, self._texts, self._options, self.landed)
        await self._keeping.find()

    # What is sent.

    async def _walked(self, route: Route) -> AsyncGenerator[None, None]:
        """Send all batches, several at once, yielding whenever one has ended."""
        left = self.landed.pending
        lengths = [len(self._texts[place].encode()) for place in left]
        bounds = Bounds(self._options.batch_size or route.provider.texts_at_once)
        todo = ([left[number] for number in batch] for batch in batches(lengths, bounds))
        self._pace = pace = self._new_pace(route)
        began, cpu_s = time.perf_counter(), time.process_time()
        async with aclosing(done_by(lambda: pace.at_once, self._embed, todo)) as walked:
            async for _ in walked:
                self._sending_s = time.perf_counter() - began
                self._cpu_s = time.process_time() - cpu_s
                yield

    def _new_pace(self, route: Route) -> Pace:
        """As many at once as is said; else as many as a service of others' is faster for."""
        wanted = self._options.concurrency
        if wanted is not None or route.provider.is_free(route.model):
            at_once = wanted or route.provider.embeds_at_once
            return Pace(at_once, at_once)
        return Pace(route.provider.embeds_at_once, _MOST_AT_ONCE)

    async def _embed(self, places: list[int]) -> None:
        """Embed a batch, or the halves of it that are not refused."""
        assert self._sender is not None
        assert self._keeping is not None
        assert self._pace is not None
        try:
            rows = await self._sender.send([self._texts[place] for place in places])
        except ProviderError as error:
            if not _is_about_texts(error):
                raise
            if len(places) == 1:
                await self._treat(places[0], error)
                return
            await self._embed_halves(places)
            return
        if len(places) > 1 and not is_usable(rows).any():  # one text may spoil its whole batch
            await self._embed_halves(places)
            return
        self._pace.landed(len(rows))
        await self._keep(places, rows)
        await self._check_alone(places, rows)

    async def _embed_halves(self, places: list[int]) -> None:
        middle = len(places) // 2
        await self._embed(places[:middle])
        await self._embed(places[middle:])

    async def _keep(self, places: list[int], rows: Floats) -> None:
        """
        Keep what has come.

        Raises:
            ProviderError: they are of another length than those before, or none could be used.
        """
        assert self._keeping is not None
        landed = self.landed
        if len(places) == 1 and is_usable(rows).all() and await self._is_odd(rows):
            text = self._texts[places[0]]
            msg = (
                f"The service gave {text[:60]!r} a vector of {rows.shape[1]} dimensions, and "
                f"other texts vectors of {landed.dimensions}."
            )
            landed.fail(places[0], ProviderError(msg))
            return
        await self._keeping.keep(places, rows)
        if len(landed.errors) >= _HOPELESS and not landed.dimensions:
            raise landed.errors[min(landed.errors)]

    async def _is_odd(self, rows: Floats) -> bool:
        """Whether one vector is of another length, and the model still gives those of before."""
        assert self._sender is not None
        landed = self.landed
        if landed.dimensions in (0, rows.shape[1]):
            return False
        known = np.flatnonzero(np.isin(landed.outcomes, (OK,)))
        if len(known) < 2:  # nothing tells which of them is the odd one
            return False
        again = await self._sender.send_again([self._texts[int(known[0])]])
        return bool(is_usable(again).all()) and again.shape[1] == landed.dimensions

    async def _check_alone(self, places: list[int], rows: Floats) -> None:
        if self._route is not None and self._sender is not None:
            batch = [self._texts[place] for place in places], rows
            await alone.check(self._session, self._route, self._sender.send_again, batch)

    async def _treat(self, place: int, error: ProviderError) -> None:
        """A text that is refused for itself: treated where it is too long, else failed."""
        assert self._sender is not None
        assert self._keeping is not None
        text, policy = self._texts[place], self._options.too_long
        if isinstance(error, ContextLengthError) and policy != "error":
            treat = self._truncated if policy == "truncate" else mean_of_parts
            try:
                rows = await treat(text, error, self._sender.send)
            except ContextLengthError as again:
                error = again
            else:
                await self._keeping.keep([place], rows, self._keeping.treatment)
                return
        self.landed.fail(place, error)
        if len(self.landed.errors) >= _HOPELESS and not self._sender.sent:
            raise error

    async def _truncated(self, text: str, error: ContextLengthError, send: Send) -> Floats:
        """The vector of the beginning of ``text``, cut by the service where it can."""
        assert self._sender is not None
        assert self._route is not None
        if self._route.provider.truncates_texts:
            return await self._sender.send([text], truncate=True)
        return await truncated(text, error, send)

    # What is told of it.

    def _progress(self, route: Route) -> Progress:
        told = [f"embedding with {route.name}"]
        for count, word in (
            (int(self.landed.kept.sum()), "cached"),
            (self.landed.count(FAILED), "failed"),
        ):
            if count:
                told.append(f"{count:,} {word}")
        if self._sender is not None and self._sender.cost_usd:
            told.append(f"${self._sender.cost_usd:.2g}")
        if self._sender is not None and self._sender.tokens:
            told.insert(1, f"{self._sender.tokens:,} tokens")
        done = len(self._texts) - self.landed.count(PENDING)
        return Progress(
            " · ".join(told),
            done=done,
            total=len(self._texts),
            unit="rows",
            elapsed_s=self._elapsed_s or 0.0,
            before=int(self.landed.kept.sum()),
        )

    @property
    def speed(self) -> Speed | None:
        """How fast it went, where enough was sent to tell."""
        pace = self._pace
        if pace is None or not pace.fastest or not self._sending_s:
            return None
        rows_per_s, cpu_share = self.sent / self._sending_s, self._cpu_s / self._sending_s
        return Speed(rows_per_s, pace.fastest, pace.at_once, cpu_share)

    @property
    def asked_dimensions(self) -> int | None:
        """How many dimensions were asked for, if that was said."""
        return self._options.dimensions

    @property
    def sent(self) -> int:
        """How many texts were sent and answered."""
        return self._sender.sent if self._sender else 0

    def response(self) -> Response:
        """The measurements of the call, as a response without text."""
        route, sender = self._route, self._sender
        usage = Usage(sender.tokens if sender else None)
        chunks = [StreamChunk(elapsed_s=self._elapsed_s)] if self._elapsed_s else []
        return Response(
            text="",
            model=route.name if route else "",
            finish_reason="stop",
            usage=usage,
            timing=metrics.measure(chunks, usage, route.load_s if route else 0.0),
            cost_usd=sender.cost_usd if sender else None,
            retries=sender.retries if sender else 0,
            cached=not self.sent and bool(self.landed.kept.any()),
        )


def _is_about_texts(error: ProviderError) -> bool:
    """Whether other texts might be taken: a 500 too, which is how some say that one is odd."""
    if isinstance(error, ContextLengthError):
        return True
    if isinstance(error, _OF_THE_CALL) or error.status is None:
        return False
    return (400 <= error.status < 500 and error.status != 402) or error.status == 500
