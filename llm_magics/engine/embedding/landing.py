"""What has come of each text: its vector, where it is from, or why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from llm_magics.errors import ProviderError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llm_magics.errors import LLMError

    Floats = NDArray[np.float32]

# What can have come of a text.
PENDING, OK, TRUNCATED, AVERAGED, FAILED = range(5)
OUTCOMES = ("pending", "ok", "truncated", "averaged", "failed")


class Landed:
    """
    The vectors of ``count`` texts as they come; ``matrix`` has a row for each, NaN until then.

    ``kept`` marks those that were there before, and cost nothing.
    """

    def __init__(self, count: int, texts: Sequence[str] = ()) -> None:
        self._texts = texts
        self.outcomes = np.full(count, PENDING, np.uint8)
        self.kept = np.zeros(count, bool)
        self.matrix: Floats = np.empty((count, 0), np.float32)
        self.errors: dict[int, LLMError] = {}

    @property
    def dimensions(self) -> int:
        """Of each vector; 0 before there is one."""
        return int(self.matrix.shape[1])

    @property
    def pending(self) -> list[int]:
        """The texts that nothing has come of yet."""
        return [int(place) for place in np.flatnonzero(self.outcomes == PENDING)]

    def count(self, *outcomes: int) -> int:
        """How many have come to this."""
        return int(np.isin(self.outcomes, outcomes).sum())

    def adopt(self, found: NDArray[np.bool_], matrix: Floats) -> None:
        """Rows that were kept before, of a ``matrix`` with a row for each text."""
        if not found.any():
            return
        self.matrix = matrix
        self.outcomes[found] = OK
        self.kept[found] = True

    def land(self, places: Sequence[int], rows: Floats, outcome: int = OK) -> list[int]:
        """
        Rows that have come; those of ``places`` whose vectors are good.

        Raises:
            ProviderError: they are of another length than those before.
        """
        good = is_usable(rows)
        for place in np.asarray(places)[~good].tolist():
            self.fail(place, self._unusable(place))
        if not good.any():
            return []
        if not self.dimensions:
            self.matrix = np.full((len(self.outcomes), rows.shape[1]), np.nan, np.float32)
        if rows.shape[1] != self.dimensions:
            msg = f"Vectors of {rows.shape[1]} dimensions came, and those before had {self.dimensions}."
            hint = "Another model may stand behind that name now. What came is kept: run it again."
            raise ProviderError(msg, hint=hint)
        landed = np.asarray(places)[good]
        self.matrix[landed] = rows[good]
        self.outcomes[landed] = outcome
        return [int(place) for place in landed]

    def _unusable(self, place: int) -> ProviderError:
        text = self._texts[place] if place < len(self._texts) else ""
        of = f" for {text[:60]!r}{'…' if len(text) > 60 else ''}" if text else ""
        msg = (
            f"The service gave no usable vector{of}: not a list of finite numbers, all zeros, "
            "or not as long as the others."
        )
        hint = "The other texts have theirs. Run it again to ask once more for this one."
        return ProviderError(msg, hint=hint)

    def fail(self, place: int, error: LLMError) -> None:
        """A text for which there is no vector."""
        self.outcomes[place] = FAILED
        self.errors[place] = error


def is_usable(rows: Floats) -> NDArray[np.bool_]:
    """Which ``rows`` have a direction: all numbers finite, and not all of them zero."""
    return np.asarray(np.isfinite(rows).all(axis=1) & (rows != 0).any(axis=1), np.bool_)
