"""Texts on their way to vectors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence

from llm_magics.engine import money
from llm_magics.engine.response import Response
from llm_magics.engine.road import Route, find_route, logged, made_ready, patience_of
from llm_magics.engine.session import Session
from llm_magics.errors import ProviderError
from llm_magics.policies import metrics, recordings
from llm_magics.policies.retrying import Retries
from llm_magics.types import Embeddings, Progress, StreamChunk, Usage, whole_text

# Small enough to show progress and to lose little, large enough to keep an engine busy.
_BATCH = 64


class EmbeddingCall:
    """
    Texts on their way; afterwards ``vectors`` holds one for each, in their order.

    An interrupted or failed call keeps the vectors of the batches that came back.
    """

    def __init__(self, session: Session, texts: Sequence[str], model: str | None = None) -> None:
        self._session = session
        self._texts = [whole_text(text) for text in texts]
        self._model = model or session.config.embedding_model
        self._route: Route | None = None
        self._elapsed_s: float | None = None
        self._tokens: int | None = None
        self._retries = 0
        self._is_replayed = True
        self._costs_usd: list[float | None] = []
        self.vectors: list[list[float]] = []

    async def events(self) -> AsyncGenerator[Progress, None]:
        """Walk the road, yielding how far it has come; where there is no text, nowhere."""
        if not self._texts:
            return
        self._route = route = await find_route(self._session, self._model)
        with logged(self._session, "embedding", lambda: route, self.response):
            if not self._all_are_kept(route):
                async for progress in made_ready(route, "embeddings"):
                    yield progress
            sent_at = time.perf_counter()
            for start in range(0, len(self._texts), _BATCH):
                await self._embed(route, self._texts[start : start + _BATCH])
                self._elapsed_s = time.perf_counter() - sent_at
                yield Progress(
                    f"embedding with {route.name}",
                    done=len(self.vectors),
                    total=len(self._texts),
                    unit="rows",
                    elapsed_s=self._elapsed_s,
                )

    def _all_are_kept(self, route: Route) -> bool:
        """Whether a recording has all vectors, so that no model is needed."""
        tape = self._session.tape
        return tape is not None and all(
            tape.find(recordings.embedding_request(route.name, text)) for text in self._texts
        )

    async def _embed(self, route: Route, texts: Sequence[str]) -> None:
        """The vectors of a batch: those kept in a recording, and the others asked for."""
        requests = [recordings.embedding_request(route.name, text) for text in texts]
        tape = self._session.tape
        kept = [tape.find(request) if tape else None for request in requests]
        missing = [text for text, found in zip(texts, kept, strict=True) if found is None]
        asked = iter(await self._sent(route, missing) if missing else [])
        self._is_replayed = not missing and self._is_replayed
        vectors = [
            recordings.unpacked(found["vector"]) if found else next(asked) for found in kept
        ]
        if tape:
            tape.keep_all(
                (request, {"vector": recordings.packed(vector)})
                for request, vector, found in zip(requests, vectors, kept, strict=True)
                if found is None
            )
        self.vectors += vectors

    async def _sent(self, route: Route, texts: Sequence[str]) -> list[list[float]]:
        vectors = await self._asked(route, texts)
        if len(vectors) != len(texts):
            msg = f"{route.name} gave {len(vectors)} vectors for {len(texts)} texts."
            hint = "They were not kept, for it is unclear whose they are."
            raise ProviderError(msg, hint=hint, provider=route.provider.name, model=route.model)
        return vectors

    async def _asked(self, route: Route, texts: Sequence[str]) -> list[list[float]]:
        """The vectors, asked for again where that may help; another model's would not do."""
        retries = Retries(patience_of(self._session.config))
        while True:
            try:
                return await self._attempt(route, texts)
            except ProviderError as error:
                wait_s = retries.wait_s(error)
                if wait_s is None:
                    raise
                self._retries += 1
                await asyncio.sleep(wait_s)

    async def _attempt(self, route: Route, texts: Sequence[str]) -> list[list[float]]:
        """Ask once, when it is this call's turn, and within the budget."""
        budget, provider, model = self._session.budget, route.provider, route.model
        estimate = money.embedding_estimate(self._session, provider, model, texts)
        async with self._session.limiter(provider).place(lambda: estimate.input_tokens):
            with budget.held(route.name, estimate.cost_usd) as hold:
                try:
                    vectors = await provider.generate_embeddings(texts, model)
                except ProviderError:
                    hold.spent_usd = 0.0
                    raise
                usage = vectors.usage if isinstance(vectors, Embeddings) else None
                used = Usage(usage.input_tokens if usage else None, 0)
                hold.spent_usd = money.cost_usd(self._session, provider, model, used)
                self._costs_usd.append(hold.spent_usd)
                if used.input_tokens is not None:
                    self._tokens = (self._tokens or 0) + used.input_tokens
                return vectors

    @property
    def _cost_usd(self) -> float | None:
        """Of all that was sent; unknown where it is of a part."""
        known = [usd for usd in self._costs_usd if usd is not None]
        return sum(known) if len(known) == len(self._costs_usd) else None

    def response(self) -> Response:
        """The measurements of the call, as a response without text."""
        route = self._route
        usage = Usage(self._tokens)
        chunks = [StreamChunk(elapsed_s=self._elapsed_s)] if self._elapsed_s else []
        return Response(
            text="",
            model=route.name if route else "",
            finish_reason="stop",
            usage=usage,
            timing=metrics.measure(chunks, usage, route.load_s if route else 0.0),
            cost_usd=self._cost_usd,
            retries=self._retries,
            cached=self._is_replayed and bool(self.vectors),
        )
