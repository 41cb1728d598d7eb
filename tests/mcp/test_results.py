"""What a model reads of the result of a tool."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_magics.mcp.results import read_result


def blocks(*texts: str) -> list[dict[str, Any]]:
    """Blocks of text, as a server sends them."""
    return [{"type": "text", "text": text} for text in texts]


@pytest.mark.parametrize(
    ("texts", "structured"),
    [
        (["42"], {"result": 42}),
        (["yes"], {"result": "yes"}),
        (["a", "b"], {"result": ["a", "b"]}),
        (['{"a": 1}'], {"a": 1}),
        (['{"result": 42}'], {"result": 42}),
    ],
)
def test_structured_content_that_the_text_has_too_is_not_repeated(
    texts: list[str], structured: Any
) -> None:
    """The official package sends each result in both forms, for older clients."""
    assert read_result(blocks(*texts), structured).text == "\n".join(texts)


@pytest.mark.parametrize(
    ("texts", "structured"),
    [
        (["Found it."], {"result": 42}),
        (["a"], {"result": ["a", "b"]}),
        (["42"], {"result": 42, "unit": "cm"}),
        ([], {"a": 1}),
    ],
)
def test_other_structured_content_follows_the_text(texts: list[str], structured: Any) -> None:
    """As JSON."""
    text = read_result(blocks(*texts), structured).text
    assert text.splitlines() == [*texts, json.dumps(structured)]
