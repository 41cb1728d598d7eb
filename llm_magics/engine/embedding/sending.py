"""One batch of texts to the provider: in its turn, within the budget, again where that helps."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from llm_magics.engine import money
from llm_magics.engine.embedding.landing import is_usable
from llm_magics.engine.road import Route, patience_of
from llm_magics.engine.session import Session
from llm_magics.errors import ProviderError, UnsupportedError
from llm_magics.policies.retrying import Retries
from llm_magics.types import PackedVectors, Usage

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Sender:
    """Sends batches, and counts what they took: ``sent`` texts, ``tokens``, ``retries``, dollars."""

    def __init__(self, session: Session, route: Route, dimensions: int | None = None) -> None:
        self._session = session
        self._route = route
        self._dimensions = dimensions
        self._costs_usd: list[float | None] = []
        self.tokens: int | None = None
        self.retries = 0
        self.sent = 0

    @property
    def cost_usd(self) -> float | None:
        """Of all that was sent; unknown where it is of a part."""
        known = [usd for usd in self._costs_usd if usd is not None]
        return sum(known) if len(known) == len(self._costs_usd) else None

    async def send(self, texts: Sequence[str], *, truncate: bool = False) -> NDArray[np.float32]:
        """
        Their vectors, of shape (n, d).

        Args:
            truncate: have the provider itself cut texts that are too long, which it can.

        Raises:
            ProviderError: the provider refused them, or gave another number of vectors.
        """
        packed = await self._asked(texts, truncate)
        name, provider, model = self._route.name, self._route.provider.name, self._route.model
        count = len(packed.data) // (4 * packed.dimensions) if packed.dimensions else 0
        if count != len(texts):
            msg = f"{name} gave {count} vectors for {len(texts)} texts."
            hint = "They were not kept, for it is unclear whose they are."
            raise ProviderError(msg, hint=hint, provider=provider, model=model)
        rows = np.frombuffer(packed.data, "<f4").reshape(count, packed.dimensions)
        if self._dimensions not in (None, packed.dimensions) and is_usable(rows).any():
            msg = (
                f"{name} gave vectors of {packed.dimensions} dimensions, and {self._dimensions} "
                "were asked for. They were not kept."
            )
            hint = "The model cannot shorten its vectors to that: leave dimensions out."
            raise UnsupportedError(msg, hint=hint, provider=provider, model=model)
        return rows

    async def send_again(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The same, of texts that are counted already."""
        rows = await self.send(texts)
        self.sent -= len(texts)
        return rows

    async def _asked(self, texts: Sequence[str], truncate: bool) -> PackedVectors:
        """Asked for again where that may help; another model's would not do."""
        retries = Retries(patience_of(self._session.config))
        while True:
            try:
                return await self._attempt(texts, truncate)
            except ProviderError as error:
                wait_s = retries.wait_s(error)
                if wait_s is None:
                    raise
                self.retries += 1
                await asyncio.sleep(wait_s)

    async def _attempt(self, texts: Sequence[str], truncate: bool) -> PackedVectors:
        """Ask once, when it is this call's turn, and within the budget."""
        session, provider, model = self._session, self._route.provider, self._route.model
        estimate = money.embedding_estimate(session, provider, model, texts)
        async with session.limiter(provider).place(lambda: estimate.input_tokens):
            with session.budget.held(self._route.name, estimate.cost_usd) as hold:
                try:
                    packed = await self._packed(texts, truncate)
                except ProviderError:
                    hold.spent_usd = 0.0
                    raise
                used = Usage(packed.usage.input_tokens if packed.usage else None, 0)
                hold.spent_usd = money.cost_usd(session, provider, model, used)
                self._costs_usd.append(hold.spent_usd)
                self.sent += len(texts)
                if used.input_tokens is not None:
                    self.tokens = (self.tokens or 0) + used.input_tokens
                return packed

    async def _packed(self, texts: Sequence[str], truncate: bool) -> PackedVectors:
        try:
            provider, model = self._route.provider, self._route.model
            if truncate:
                return await provider.generate_truncated(texts, model, self._dimensions)
            if self._dimensions is None:
                return await provider.generate_packed(texts, model)
            return await provider.generate_shortened(texts, model, self._dimensions)
        except ValueError as error:  # vectors of several lengths
            msg = f"{self._route.name} sent what cannot be vectors: {error}."
            raise ProviderError(msg, provider=self._route.provider.name) from error
