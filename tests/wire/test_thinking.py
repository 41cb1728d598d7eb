"""Thinking inside an answer: found at its start, however it is cut, and nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magics.types import ModelResponse, StreamChunk
from llm_magics.wire.decoders import ThinkTags
from tests.support.cutting import cut_anyhow


def apart(pieces: list[str], finish_reason: str | None = "stop") -> ModelResponse:
    """The answer that comes out when the text comes in ``pieces``."""
    tags = ThinkTags()
    chunks = [tags.split(StreamChunk(piece)) for piece in pieces]
    chunks.append(tags.split(StreamChunk("", finish_reason=finish_reason)))
    chunks.append(tags.flush())
    return ModelResponse.of(chunks)


@given(
    st.text().filter(lambda text: "</think>" not in text),
    st.text().map(lambda text: text.lstrip("\n")),
    st.lists(st.integers(0)),
    st.sampled_from(["stop", None]),
)
def test_thinking_is_kept_apart_however_it_is_cut(
    thought: str, answer: str, cuts: list[int], finish_reason: str | None
) -> None:
    """Tags may come in pieces; nothing of either text is lost, with or without a last chunk."""
    whole = f"\n<think>{thought}</think>\n\n{answer}"
    pieces: list[str] = cut_anyhow(whole, cuts)  # type: ignore[arg-type, assignment]
    response = apart(pieces, finish_reason)
    assert (response.reasoning, response.text) == (thought, answer)


@given(st.lists(st.text()))
def test_other_text_is_left_as_it_is(pieces: list[str]) -> None:
    """An answer that does not begin with the tag comes out unchanged."""
    text = "".join(pieces)
    if not text.lstrip().startswith("<think>"):
        assert apart(pieces).text == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the tag <think> opens", ("", "the tag <think> opens")),
        ("<think>never closed", ("never closed", "")),
        ("<thin", ("", "<thin")),
        ("<think></think>a </think> b", ("", "a </think> b")),
        ("<think>a</thi", ("a</thi", "")),
    ],
)
def test_half_tags_and_tags_in_passing(text: str, expected: tuple[str, str]) -> None:
    """What is no thinking stays; thinking that is cut off stays thinking."""
    response = apart(list(text))
    assert (response.reasoning, response.text) == expected


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="<`")),
    st.text(st.characters(codec="utf-8", exclude_characters="<")).map(lambda t: t.lstrip("\n")),
    st.lists(st.integers(0)),
    st.sampled_from(["stop", None]),
)
def test_a_lone_closing_tag_ends_the_thinking(
    thought: str, answer: str, cuts: list[int], finish_reason: str | None
) -> None:
    """The prompt ended with the opening one; what was handed out before is thinking after all."""
    thought = f"{thought}\n"
    whole = f"{thought}</think>\n\n{answer}"
    pieces: list[str] = cut_anyhow(whole, cuts)  # type: ignore[arg-type, assignment]
    response = apart(pieces, finish_reason)
    assert (response.reasoning, response.text) == (thought, answer)


@pytest.mark.parametrize(
    "text",
    [
        "the tag `</think>` closes it",
        'he wrote "</think>" there',
        "```\n</think>\n```\nso",
        "<b>bold</b> and <think> opens, </think> closes",
        "nothing </thin",
    ],
)
def test_a_tag_that_is_spoken_of_is_text(text: str) -> None:
    """In quotes, in code, and with its opening one before it."""
    response = apart(list(text))
    assert (response.reasoning, response.text) == ("", text)
