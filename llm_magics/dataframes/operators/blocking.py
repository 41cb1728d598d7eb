"""
Blocking: which pairs of rows of two tables are likely to match.

The score of a pair is the cosine of two vectors: stored or embedded vectors, or TF-IDF weights of
character n-grams. From twice the cosine, the mean cosines of both rows with their nearest rows are
subtracted, because some rows are near to all others (CSLS: Conneau et al., arXiv 1710.04087).
Scores are computed in blocks: the matrix of all pairs is never in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from llm_magics._util.validation import require_package
from llm_magics.dataframes.vectors import normalize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llm_magics.dataframes.operators.sampling import PairOrder

# The numbers in a block of scores: 16 MB.
_BLOCK_NUMBERS = 4_000_000

# The nearest rows whose mean cosine is subtracted.
_NEIGHBOURS = 10

# The most pairs that are ranked; the others are "the rest".
MOST_RANKED = 2_000_000

# Cosines are rounded, because sums of products depend on the order of the table in the last digits.
_DECIMALS = 5


class PairScores(Protocol):
    """Scores of all pairs of ``shape``, computed in blocks of left rows; higher is more likely."""

    shape: tuple[int, int]

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the scores of some left rows with all right rows."""


class DenseScores:
    """Cosines of vectors. A row without a vector has the cosine -1 with all others."""

    def __init__(self, left: NDArray[np.float32], right: NDArray[np.float32]) -> None:
        self.shape = len(left), len(right)
        self._left, self._right = normalize(left), normalize(right).T

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the cosines of some left rows with all right rows."""
        cosines = self._left[start:stop] @ self._right
        return np.nan_to_num(np.round(cosines, _DECIMALS), copy=False, nan=-1.0)


class TextScores:
    """Cosines of the TF-IDF weights of the character n-grams of texts."""

    def __init__(self, left: Sequence[str], right: Sequence[str]) -> None:
        """
        Compute the weights.

        Raises:
            MissingDependencyError: scikit-learn is not installed.
        """
        require_package("sklearn", "A join by texts", extra="operators")
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.shape = len(left), len(right)
        # Within words, of three characters; shorter words are padded with blanks.
        vectorizer = TfidfVectorizer(
            analyzer="char_wb", ngram_range=(3, 3), sublinear_tf=True, dtype=np.float32
        )
        # A first text makes sure that there is an n-gram.
        vectorizer.fit(["text", *left, *right])
        self._left = vectorizer.transform(left)
        self._right = vectorizer.transform(right).T.tocsc()

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the cosines of some left rows with all right rows."""
        cosines: NDArray[np.float32] = (self._left[start:stop] @ self._right).toarray()
        return np.round(cosines, _DECIMALS)


class GivenScores:
    """Scores that the user has computed."""

    def __init__(self, scores: NDArray[Any]) -> None:
        self.shape = (scores.shape[0], scores.shape[1])
        self._scores = scores

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the scores of some left rows with all right rows."""
        return np.nan_to_num(self._scores[start:stop].astype(np.float32), nan=-np.inf)


def rank_pairs(scores: PairScores, ties: PairOrder, *, adjust: bool = True) -> NDArray[np.int64]:
    """
    Return the most likely pairs, best first: all, or the best `MOST_RANKED`.

    Args:
        scores: the scores of all pairs.
        ties: the order of pairs with the same score.
        adjust: subtract the mean scores with the nearest rows.
    """
    rows, columns = scores.shape
    adjustment = _neighbour_means(scores) if adjust and rows * columns else None
    best = np.empty(0, np.int64)
    of_best = np.empty(0, np.float32)
    least = np.float32(-np.inf)
    for start, block in _blocks(scores):
        if adjustment is not None:
            left, right = adjustment
            block *= 2
            block -= left[start : start + len(block), None]
            block -= right
        flat = block.reshape(-1)
        above = np.flatnonzero(flat > least) if least > -np.inf else np.arange(flat.size)
        best = np.append(best, above + start * columns)
        of_best = np.append(of_best, flat[above])
        if len(best) > MOST_RANKED:
            # Equal scores at the end are dropped, whatever their order.
            least = np.partition(of_best, len(best) - MOST_RANKED)[len(best) - MOST_RANKED]
            chosen = of_best > least
            if not chosen.any():  # all scores are equal
                chosen = np.arange(len(best)) < MOST_RANKED
            best, of_best = best[chosen], of_best[chosen]
    return best[np.lexsort((ties.places(best), -of_best))]


def _blocks(scores: PairScores) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the first left row and the scores of each block."""
    rows, columns = scores.shape
    step = max(1, _BLOCK_NUMBERS // max(1, columns))
    for start in range(0, rows, step):
        yield start, scores.block(start, min(start + step, rows))


def _neighbour_means(scores: PairScores) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the mean score of each left and of each right row with its nearest rows."""
    rows, columns = scores.shape
    of_left = np.empty(rows, np.float32)
    nearest = np.empty((0, columns), np.float32)
    for start, block in _blocks(scores):
        of_left[start : start + len(block)] = _top(block, 1).mean(axis=1)
        nearest = _top(np.concatenate([nearest, _top(block, 0)]), 0)
    return of_left, nearest.mean(axis=0)


def _top(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Return the largest values along an axis."""
    length = values.shape[axis]
    if length <= _NEIGHBOURS:
        return values
    found = np.partition(values, length - _NEIGHBOURS, axis=axis)
    return np.take(found, np.arange(length - _NEIGHBOURS, length), axis=axis)
