"""Oracles about pairs of rows: pairs are numbers until they are asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

import llm_magics as lm
from llm_magics import errors
from llm_magics.dataframes.operators import pair_oracles
from llm_magics.dataframes.operators.choose_oracle import create_pair_oracle
from llm_magics.dataframes.operators.oracle import FAILED, NO, YES
from llm_magics.dataframes.operators.pair_oracles import PairTexts
from llm_magics.dataframes.row_prompts import RowPrompts
from tests.support.judge import Judge
from tests.support.serving import serving

LEFT = pd.DataFrame({"text": ["a", "b", "a", None], "values": [1, 2, 1, 4]}, index=[0, 0, 1, 1])
RIGHT = pd.DataFrame({"a text": ["x", "yes"], "row": [1, 2]})
SPEC = RowPrompts(text='{{ left.text }}{{ left.values }} fits {{ right["a text"] }}')
PAIRS = np.array([0, 1, 2, 3, 0]), np.array([0, 0, 0, 0, 1])


@pytest.fixture
def service(own_settings: None) -> Iterator[Judge]:
    """The service ``lab``, whose model ``m`` is asked where none is named."""
    fake = Judge()
    with serving(fake) as server:
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url, "api_key": "k"}}
        lm.config.model = "lab/m"
        lm.config.cache_dir = "cache"
        yield fake


def test_equal_pairs_are_one_item(service: Judge) -> None:
    """By the contents of the columns that the statement names."""
    oracle = create_pair_oracle((LEFT, RIGHT), SPEC)
    items = oracle.items_of(*PAIRS)
    assert items.tolist() == [0, 2, 0, 4, 1]
    assert oracle.ask(items).tolist() == [NO, NO, NO, NO, YES]
    assert sorted(service.paid) == ["4 fits x", "a1 fits x", "a1 fits yes", "b2 fits x"]


def test_a_row_without_values_is_in_no_pair() -> None:
    """On either side."""
    gaps = pd.DataFrame({"t": ["a", None, " "]})
    texts = PairTexts("{{ left.t }} {{ right.t }}", (gaps, gaps))
    left, right = np.divmod(np.arange(9), 3)
    assert texts.items_of(left, right).tolist() == [0, *[-1] * 8]


def test_a_pair_is_rendered_when_it_is_asked() -> None:
    """Many pairs of a few rows are numbers until then."""
    frame = pd.DataFrame({"text": [f"t{n}" for n in range(300)]})
    texts = PairTexts("{{ left.text }} = {{ right.text }}", (frame, frame))
    assert len(texts) == 90_000
    assert texts[302].endswith("t1 = t2")


def test_whole_rows_can_be_named() -> None:
    """With the names of their columns."""
    texts = PairTexts("{{ left }} | {{ right.row }}", (LEFT, RIGHT))
    assert texts[3].endswith("text: b\nvalues: 2 | 2")


def test_a_function_of_a_pair_gets_both_rows() -> None:
    """As one Series; each pair is an item of its own, and fails on its own."""

    def fits(row: pd.Series[Any]) -> Any:
        return row["left.values"] == row["right.row"] or (row["left.text"] == "b" and None)

    oracle = create_pair_oracle((LEFT, RIGHT), SPEC, fits)
    items = oracle.items_of(*PAIRS)
    assert items.tolist() == [0, 2, 4, 6, 1]
    assert oracle.ask(items).tolist() == [YES, FAILED, YES, NO, NO]
    assert list(oracle.errors) == [2]
    assert oracle.calls == 5


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("{{ text }}", "neither left nor right"),
        ("{{ left.text }}", "does not use the right row"),
        ("{{ left.text", "Line 1 of the prompt"),
        ("{{ left.txt }} {{ right.row }}", 'uses "left.txt"'),
    ],
)
def test_a_statement_about_pairs_names_both_rows(statement: str, message: str) -> None:
    """And columns that exist."""
    with pytest.raises(errors.LLMError, match=message):
        PairTexts(statement, (LEFT, RIGHT))


def test_too_many_pairs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their numbers have 32 bits."""
    monkeypatch.setattr(pair_oracles, "MOST_PAIRS", 7)
    with pytest.raises(errors.UsageError, match="8 pairs"):
        PairTexts("{{ left.text }} {{ right.row }}", (LEFT, RIGHT))
