"""Bytes cut into pieces, as a network may deliver them."""

from __future__ import annotations

from itertools import pairwise


def cut_anyhow(data: bytes, cuts: list[int]) -> list[bytes]:
    """``data`` in pieces, cut at the given places."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(places)]
