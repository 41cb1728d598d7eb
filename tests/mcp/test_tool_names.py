"""The names of tools as they are sent to models."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from llm_magics.mcp.tool_names import sent_names, shown_name


def test_a_plain_name_is_sent_with_its_server() -> None:
    """Two underscores in place of the dot."""
    assert shown_name("files", "read") == "files.read"
    assert sent_names([("files", "read"), ("web", "read")]) == ["files__read", "web__read"]


def test_two_names_that_are_cleaned_alike_get_digests() -> None:
    """Each the same, whichever tools are listed with it and in whichever order."""
    one, other = ("s", "a.b"), ("s", "a b")
    names = sent_names([one, other])
    assert len(set(names)) == 2
    assert names == sent_names([other, one, ("s", "c")])[1::-1]
    assert all(re.fullmatch(r"s__a_b_[0-9a-f]{8}", name) for name in names)


def test_a_name_of_a_function_is_left_to_it() -> None:
    """The tool of the server gets the digest."""
    (name,) = sent_names([("s", "read")], taken=["s__read"])
    assert name.startswith("s__read_")


@given(st.lists(st.tuples(st.sampled_from(["s", "t_"]), st.text(min_size=1)), unique=True))
def test_any_names_are_sent_valid_and_different(tools: list[tuple[str, str]]) -> None:
    """Within the characters and the length that every service accepts."""
    names = sent_names(tools)
    assert len(set(names)) == len(tools)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in names)
