"""Bytes into server-sent events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_magics.wire.decoders import EventDecoder, ServerEvent
from tests.support.cutting import cut_anyhow


def events_of(pieces: list[bytes]) -> list[ServerEvent]:
    """What a decoder makes of the pieces."""
    decoder = EventDecoder()
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return events + decoder.flush()


texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1, max_size=8)


@given(
    st.lists(st.tuples(st.sampled_from(["", "ping", "error"]), st.lists(texts, min_size=1))),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.lists(st.integers(0)),
)
def test_events_survive_any_cut_and_any_line_end(
    written: list[tuple[str, list[str]]], newline: str, cuts: list[int]
) -> None:
    """Encode, cut anywhere, decode: the same events."""
    lines = []
    for name, data in written:
        lines += [f"event: {name}"] if name else []
        lines += [f"data: {line}" for line in data] + [""]
    stream = "".join(line + newline for line in lines).encode()
    assert events_of(cut_anyhow(stream, cuts)) == [
        ServerEvent((name or "message").encode(), "\n".join(data).encode())
        for name, data in written
    ]


def test_the_last_event_counts_without_its_blank_line() -> None:
    """A stream that ends right after its data has still sent it."""
    assert events_of([b"data: a\n\ndata: b"])[-1].data == b"b"


def test_comments_and_unknown_fields_are_passed_over() -> None:
    """Pings, ids and retry times are not events."""
    assert events_of([b": ping\n\nid: 1\nretry: 5\n\n:hi\ndata:x\n\n"]) == [
        ServerEvent(b"message", b"x")
    ]


def test_a_mark_of_the_byte_order_is_no_part_of_the_first_event() -> None:
    """Some servers begin with one."""
    assert events_of([b"\xef\xbb\xbfdata: a\n\n"])[0].data == b"a"
