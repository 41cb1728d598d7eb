"""Claims never rest on a row that was not in their prompt, and merging loses no row."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magics.dataframes.operators.claims import (
    Claim,
    claim_ids,
    extraction_prompt,
    merge_prompt,
    merged_claims,
    read_claims,
)
from llm_magics.dataframes.operators.packing import row_ids
from llm_magics.dataframes.operators.row_packs import cut_text, pack, row_tokens
from tests.support.examples import examples

IDS = ["1-abc", "2-abc", "3-abc"]
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(IDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["claims", "claim", "ids"]), inner),
    max_leaves=8,
)  # fmt: skip
CLAIMS = st.lists(
    st.builds(Claim, st.text("ab", min_size=1, max_size=3), st.frozensets(st.integers(0, 9), min_size=1)),
    max_size=6,
)  # fmt: skip


@settings(max_examples=examples(50))
@given(ANY | st.fixed_dictionaries({"claims": st.lists(ANY, max_size=4)}))
def test_any_answer_is_read(value: Any) -> None:
    """Each claim has a text and at least one place, and all places exist."""
    found = read_claims(value, IDS)
    for text, places in found.claims:
        assert text.strip()
        assert places
        assert {*places} <= {0, 1, 2}
        assert len(places) == len({*places})


def test_invented_and_repeated_ids() -> None:
    """Unknown ids are counted, claims without a known one are dropped, equal claims are one."""
    claims = [
        {"claim": "it is  loud", "ids": ["1-abc", "1-abc", "1", "9-abc"]},
        {"claim": "it is loud", "ids": ["3-abc"]},
        {"claim": "it is hot", "ids": ["2-xyz"]},
        {"claim": " ", "ids": ["1-abc"]},
    ]
    found = read_claims({"claims": claims}, IDS)
    assert found.claims == [("it is loud", [0, 2])]
    assert (found.dropped, found.invalid) == (2, 3)


@settings(max_examples=examples(50))
@given(CLAIMS, st.data())
def test_merging_loses_and_invents_no_row(claims: list[Claim], data: st.DataObject) -> None:
    """Whatever the model names."""
    ids = claim_ids(claims)
    named = st.lists(st.sampled_from([*ids, "0-zzz"]), max_size=4)
    answer = st.fixed_dictionaries({"claim": st.text("xy", max_size=2), "ids": named})
    value = {"claims": data.draw(st.lists(answer, max_size=5))}
    merged = merged_claims(claims, read_claims(value, ids))
    rows = {row for claim in claims for row in claim.rows}
    assert {row for claim in merged for row in claim.rows} == rows
    assert len({claim.text for claim in merged}) == len(merged)


@settings(max_examples=examples(50))
@given(st.lists(st.text(max_size=20), min_size=1, max_size=6))
def test_the_rows_of_a_prompt_can_be_read_back(texts: list[str]) -> None:
    """Each text is one row, whatever it contains."""
    prompt = extraction_prompt("Why?", texts)
    rows = json.loads(prompt[prompt.index("The rows:\n\n[") + 11 :])
    assert [row["text"] for row in rows] == texts
    assert [row["id"] for row in rows] == row_ids(texts)


def test_a_merge_names_the_number_of_rows() -> None:
    """So that the model knows which claims are common."""
    prompt = merge_prompt("Why?", [Claim("a", frozenset({1, 2})), Claim("b", frozenset({3}))])
    claims = json.loads(prompt[prompt.index("The claims:\n\n[") + 13 :])
    assert [claim["rows"] for claim in claims] == [2, 1]
    assert len({claim["id"] for claim in claims}) == 2


@settings(max_examples=examples(50))
@given(st.lists(st.integers(0, 12), max_size=30), st.integers(1, 20), st.integers(1, 6))
def test_packs_have_all_rows_within_the_limits(
    tokens: list[int], max_tokens: int, max_rows: int
) -> None:
    """In their order; only a row that is too long alone exceeds the tokens."""
    packs = [*pack(tokens, max_tokens, max_rows)]
    assert [row for part in packs for row in part] == [*range(len(tokens))]
    for part in packs:
        assert 1 <= len(part) <= max_rows
        assert len(part) == 1 or sum(tokens[row] for row in part) <= max_tokens


@pytest.mark.parametrize("text", ["a" * 1000, "é" * 1000, "語" * 1000, "🙂" * 400])
def test_a_text_is_cut_at_a_character(text: str) -> None:
    """It then fits, and ends with a mark."""
    cut = cut_text(text, 100)
    assert row_tokens(cut) <= 100
    assert cut.endswith(" […]")
    assert text.startswith(cut.removesuffix(" […]"))
    assert cut_text(text[:10], 100) == text[:10]
