"""
Rows, and pairs of rows, in random order, which is the same in each run.

A place in the order is a hash of contents and a seed, so that it does not depend on the order of
the table. There may be many more pairs than are drawn: only the first ones are stored, and their
hash is that of SplitMix64 (its finalizer; Steele, Lea and Flood, 2014).
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The number of places that are computed at the same time: 8 MB.
_BLOCK = 1_000_000

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def sampling_order(digests: NDArray[np.void], seed: int) -> NDArray[np.intp]:
    """
    Return a random permutation of rows.

    It depends on the contents of the rows and the seed, not on their order in the table: a row's
    place is the hash of its content, the seed, and the number of earlier rows with that content.

    Args:
        digests: the digest of the content of each row, dtype ``V16``.
        seed: another seed gives an independent permutation.
    """
    key = seed.to_bytes(16, "little", signed=True)
    seen: dict[bytes, int] = {}
    places = np.empty(len(digests), "<u8")
    for row, digest in enumerate(digests.tolist()):
        copy = seen.get(digest, 0)
        seen[digest] = copy + 1
        data = digest + copy.to_bytes(8, "little")
        place = blake2b(data, digest_size=8, key=key).digest()
        places[row] = int.from_bytes(place, "little")
    return np.argsort(places, kind="stable")


class PairOrder:
    """A random order of all pairs; pair ``i * len(right) + j`` has the left row i and right row j."""

    def __init__(
        self, left: NDArray[np.uint64], right: NDArray[np.uint64], *, seed: int, purpose: str
    ) -> None:
        """
        Prepare an order.

        Args:
            left, right: the hash of each row; see `row_hashes`.
            seed: another seed gives an independent order.
            purpose: another one gives an independent order too.
        """
        key = blake2b(purpose.encode(), key=seed.to_bytes(16, "little", signed=True)).digest()
        salts = np.frombuffer(key[:16], "<u8").astype(np.uint64)
        self._left, self._right = _mix(left ^ salts[0]), _mix(right ^ salts[1])
        self._limit = 0.0  # The first pairs are those whose place is below this share of all.
        self._first = np.empty(0, np.int64)

    @property
    def size(self) -> int:
        """The number of pairs."""
        return len(self._left) * len(self._right)

    def places(self, pairs: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Return the place of each of ``pairs`` as a random number."""
        left, right = np.divmod(pairs, max(1, len(self._right)))
        return _mix(_mix(self._left[left] + self._right[right]))

    def first(self, count: int) -> NDArray[np.int64]:
        """Return at least the first ``count`` pairs, or all, in order."""
        count = min(count, self.size)
        while len(self._first) < count:
            # All places are computed again for each part, so a part is large.
            least = max(2 * count, min(self.size // 32, _BLOCK))
            expected = max(2.0 * len(self._first), least + 5.0 * least**0.5 + 10.0)
            self._limit = max(2 * self._limit, expected / self.size)
            self._first = self._below(self._limit)
        return self._first

    def _below(self, limit: float) -> NDArray[np.int64]:
        """Return the pairs whose place is below a share of all possible places, in order."""
        threshold = None if limit >= 1 else np.uint64(int(limit * 2.0**64))
        columns = len(self._right)
        rows = max(1, _BLOCK // max(1, columns))
        pairs, places = [], []
        for start in range(0, len(self._left), rows):
            block = self._left[start : start + rows, None] + self._right
            mixed = _mix(_mix(block)).reshape(-1)
            chosen = (
                np.arange(len(mixed)) if threshold is None else (mixed < threshold).nonzero()[0]
            )
            pairs.append(chosen + start * columns)
            places.append(mixed[chosen])
        numbers = np.concatenate(pairs).astype(np.int64)
        return numbers[np.lexsort((numbers, np.concatenate(places)))]


def row_hashes(digests: NDArray[np.void], codes: NDArray[np.integer[Any]]) -> NDArray[np.uint64]:
    """
    Return a hash of each row: of its content, and of the number of earlier rows with the same one.

    Args:
        digests: the digest of each content, dtype ``V16``.
        codes: the number of the content of each row; not negative.
    """
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(codes) else order
    lengths = np.diff(np.append(starts, len(codes)))
    copies = np.empty(len(codes), np.uint64)
    copies[order] = (np.arange(len(codes)) - np.repeat(starts, lengths)).astype(np.uint64)
    halves = np.ascontiguousarray(digests).view("<u8").reshape(-1, 2)[:, 0]
    return _mix(halves[codes].astype(np.uint64) + copies * _STEP)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a bijective hash of 64-bit numbers."""
    mixed = values + _STEP
    mixed ^= mixed >> np.uint64(30)
    mixed *= _FIRST
    mixed ^= mixed >> np.uint64(27)
    mixed *= _SECOND
    mixed ^= mixed >> np.uint64(31)
    return mixed
