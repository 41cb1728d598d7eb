"""Bytes into lines."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from llm_magics.wire.decoders import LineSplitter
from tests.support.cutting import cut_anyhow


def lines_of(pieces: list[bytes]) -> list[bytes]:
    """What a splitter makes of the pieces."""
    splitter = LineSplitter()
    lines = [line for piece in pieces for line in splitter.feed(piece)]
    return lines + splitter.flush()


@given(
    st.lists(st.sampled_from([b"a", "é\u2028".encode(), b"\n", b"\r", b"\r\n", b"\x0b"])),
    st.lists(st.integers(0)),
)
def test_where_the_bytes_are_cut_does_not_matter(parts: list[bytes], cuts: list[int]) -> None:
    """Every way to cut a stream into blocks gives the lines of the whole."""
    data = b"".join(parts)
    expected = re.split(rb"\r\n|\n|\r", data)
    if expected[-1] == b"":
        expected.pop()
    assert lines_of(cut_anyhow(data, cuts)) == expected


def test_unicode_line_separators_do_not_end_a_line() -> None:
    """U+2028, U+0085 and vertical tab may stand inside a JSON string."""
    line = '{"a": "x\u2028y\x85z\x0b"}'.encode()
    assert lines_of([line + b"\n"]) == [line]
