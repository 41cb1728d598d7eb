"""The order in which rows are sampled: random, and the same in each run."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
