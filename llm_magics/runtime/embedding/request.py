"""
Send one batch of texts to a provider, check its vectors, and handle texts that are too long.

Some servers returned another vector for a text in a batch than for the text alone
(ollama/ollama#6262). Servers on the user's own machine, where one more text is free, are tested for
this.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

import numpy as np

from llm_magics.errors import ContextLengthError, ProviderError, UnsupportedError
from llm_magics.host import warn
from llm_magics.runtime import pricing
from llm_magics.runtime.attempts import Batch, attempts
from llm_magics.runtime.embedding.results import is_usable
from llm_magics.runtime.routing import Candidate, Route
from llm_magics.runtime.session import Session
from llm_magics.types import PackedVectors, Usage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llm_magics.runtime.pricing import Estimate

    Floats = NDArray[np.float32]


class Sender:
    """Sends batches, and counts the texts sent, tokens, retries and costs."""

    def __init__(
        self,
        *,
        session: Session,
        route: Route,
        dimensions: int | None = None,
        batch: Batch | None = None,
    ) -> None:
        self._session = session
        self._route = route
        self._dimensions = dimensions
        self._batch = batch
        self._costs_usd: list[float | None] = []
        self.tokens: int | None = None
        self.retries = 0
        self.sent = 0
        self._has_tried = False

    @property
    def cost_usd(self) -> float | None:
        """Return the cost of everything that was sent; ``None`` if a part of it is unknown."""
        if not self._costs_usd and self._has_tried:  # a refusal is free if the price is known
            route = self._route
            is_known = pricing.has_known_price(self._session.config, route.provider, route.model)
            return 0.0 if is_known else None
        known = [usd for usd in self._costs_usd if usd is not None]
        return sum(known) if len(known) == len(self._costs_usd) else None

    async def send(self, texts: Sequence[str], *, truncate: bool = False) -> NDArray[np.float32]:
        """
        Return the vectors of ``texts``, of shape (n, d), without falling back to another model.

        Args:
            truncate: let the provider truncate texts that are too long; it must support this.

        Raises:
            ProviderError: the provider refused the texts, or returned another number of vectors.
        """

        async def resolve(candidate: Candidate) -> Route:
            return self._route

        def splits(error: ProviderError) -> bool:
            """Whether the caller splits the batch instead; a 500 may be caused by one text."""
            return error.status == 500 and len(texts) > 1

        run = attempts(
            self._session,
            [Candidate(self._route.name)],
            resolve,
            tokens=lambda route: self._estimate(texts).input_tokens,
            estimate_usd=lambda route: self._estimate(texts).cost_usd,
            batch=self._batch,
            is_final=splits,
        )
        rows = np.empty((0, 0), np.float32)
        self._has_tried = True
        try:
            async for attempt in run:
                async with attempt, aclosing(attempt.ready()) as steps:
                    async for _ in steps:
                        pass
                    try:
                        packed = await self._packed(texts, truncate)
                    except ProviderError as error:
                        if error.may_be_billed:
                            self._costs_usd.append(self._cost(Usage()))
                        raise
                    attempt.is_billed = True
                    attempt.cost_usd = self._count(packed)
                    attempt.amount = len(texts)
                    rows = self._checked(packed, len(texts))
        finally:
            self.retries += run.retries
        self.sent += len(texts)
        return rows

    async def send_again(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Send texts again that are counted already."""
        rows = await self.send(texts)
        self.sent -= len(texts)
        return rows

    def _estimate(self, texts: Sequence[str]) -> Estimate:
        route = self._route
        return pricing.embedding_estimate(self._session.config, route.provider, route.model, texts)

    def _count(self, packed: PackedVectors) -> float | None:
        """Add the tokens and the cost of an answer to the totals, and return the cost."""
        used = Usage(packed.usage.input_tokens if packed.usage else None, 0)
        cost_usd = self._cost(used)
        self._costs_usd.append(cost_usd)
        if used.input_tokens is not None:
            self.tokens = (self.tokens or 0) + used.input_tokens
        return cost_usd

    def _cost(self, used: Usage) -> float | None:
        route = self._route
        return pricing.cost_usd(self._session.config, route.provider, route.model, used)

    def _checked(self, packed: PackedVectors, expected: int) -> NDArray[np.float32]:
        route = self._route
        count = len(packed.data) // (4 * packed.dimensions) if packed.dimensions else 0
        if count != expected:
            raise ProviderError(
                f"{route.name} returned {count} vectors for {expected} texts.",
                hint="They were discarded, because they cannot be matched with the texts. Run it again.",
                provider=route.provider.name,
                model=route.model,
                retryable=True,
            )
        rows = np.frombuffer(packed.data, "<f4").reshape(count, packed.dimensions)
        if self._dimensions not in (None, packed.dimensions) and is_usable(rows).any():
            msg = (
                f"{route.name} gave vectors of {packed.dimensions} dimensions, and "
                f"{self._dimensions} were asked for. They were not kept."
            )
            hint = "The model does not support this number of dimensions; remove dimensions."
            raise UnsupportedError(msg, hint=hint, provider=route.provider.name, model=route.model)
        return rows

    async def _packed(self, texts: Sequence[str], truncate: bool) -> PackedVectors:
        try:
            provider, model = self._route.provider, self._route.model
            if truncate:
                return await provider.generate_truncated(texts, model, self._dimensions)
            if self._dimensions is None:
                return await provider.generate_packed(texts, model)
            return await provider.generate_shortened(texts, model, self._dimensions)
        except ValueError as error:  # vectors of different lengths
            msg = f"{self._route.name} returned an invalid embedding response: {error}."
            name = self._route.provider.name
            raise ProviderError(msg, provider=name, retryable=True, may_be_billed=True) from error


# Rounding in another order changes a vector far less than this.
_MIN_SIMILARITY = 0.99


async def check_batch_consistency(
    session: Session,
    route: Route,
    send: Callable[[Sequence[str]], Awaitable[Floats]],
    batch: tuple[Sequence[str], Floats],
) -> None:
    """Warn, once per model, if a text of ``batch`` has another vector when sent alone."""
    texts, rows = batch
    is_known = route.name in session.checked_batches
    if is_known or len(texts) < 2 or not route.provider.batches_may_differ(route.model):
        return
    session.checked_batches.add(route.name)
    try:
        (alone,) = await send(texts[-1:])
    except ProviderError:  # not an error: the batch itself succeeded
        return
    lengths = float(np.linalg.norm(alone) * np.linalg.norm(rows[-1]))
    if alone.shape == rows[-1].shape and float(alone @ rows[-1]) < _MIN_SIMILARITY * lengths:
        similarity = float(alone @ rows[-1]) / lengths
        msg = (
            f"{route.name} returns a different vector for a text in a batch than alone (cosine {similarity:.3f}): "
            "batches are not reliable. Embed with batch_size=1, or update the server."
        )
        warn(msg)


Send = Callable[[Sequence[str]], Awaitable["Floats"]]

# The text's length and the limit, in error messages of services that report them.
_TOKEN_COUNTS = re.compile(r"(\d+) tokens\D+?(\d+)")
_MARGIN = 0.9

_MAX_TRIES = 12


async def embed_truncated(text: str, error: ContextLengthError, send: Send) -> Floats:
    """
    Return the vector of the beginning of ``text`` that the model accepts, of shape (1, d).

    Raises:
        ContextLengthError: even a short beginning is refused.
    """
    for _ in range(_MAX_TRIES):
        text = text[: int(len(text) * _fitting_share(error))]
        if not text.strip():
            break
        try:
            return await send([text])
        except ContextLengthError as again:
            error = again
    raise error


async def embed_mean_of_parts(text: str, error: ContextLengthError, send: Send) -> Floats:
    """
    Return the mean of the vectors of parts, weighted by their lengths and normalised, of shape (1,
    d).

    Raises:
        ContextLengthError: even short parts are refused.
    """
    size = len(text)
    for _ in range(_MAX_TRIES):
        size = int(size * _fitting_share(error))
        parts = _parts(text, size)
        if not parts:
            break
        try:
            rows = await send(parts)
        except ContextLengthError as again:
            error = again
            continue
        mean = np.average(rows, axis=0, weights=[len(part) for part in parts])
        return (mean / np.linalg.norm(mean)).astype(np.float32)[None, :]
    raise error


def _fitting_share(error: ContextLengthError) -> float:
    """Return the share of the text to try next, by the error's token counts if it has them."""
    counts = _TOKEN_COUNTS.search(str(error))
    if counts:
        length, limit = sorted(map(int, counts.groups()), reverse=True)
        if 0 < limit < length:
            return limit / length * _MARGIN
    return 0.5


def _parts(text: str, size: int) -> list[str]:
    """Return pieces of at most ``size`` characters, split between words if possible."""
    parts: list[str] = []
    while text and size > 0:
        is_last = len(text) <= size
        cut = size if is_last else text.rfind(" ", size // 2, size) + 1 or size
        parts.append(text[:cut])
        text = text[cut:]
    return [part for part in parts if part.strip()]
