"""The texts of rows: equal ones once, in little memory."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magics import errors
from llm_magics.dataframes import row_texts
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.dataframes.row_texts import RowTexts

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "object": st.sampled_from(["a", "b", "", " ", None, float("nan"), pd.NA]),
    "mixed": st.sampled_from(["1", 1, True, 1.0, 0.0, -0.0, None, (1,)]),
    "string": st.sampled_from(["a", "b", "ä", None]),
    "Int64": st.sampled_from([0, 1, -1, None]),
    "bool": st.booleans(),
    "float64": st.sampled_from([0.0, -0.0, 1.0, float("nan")]),
}


@st.composite
def columns(draw: st.DrawFn) -> pd.DataFrame:
    """Return a frame with up to three columns of different types."""
    count = draw(st.integers(1, 12))
    kinds = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=3))
    return pd.DataFrame(
        {
            f"c{number}": pd.Series(
                draw(st.lists(VALUES[kind], min_size=count, max_size=count)),
                dtype="object" if kind == "mixed" else kind,
            )
            for number, kind in enumerate(kinds)
        }
    )


def texts_of(frame: pd.DataFrame, spec: RowPrompts) -> list[str | None]:
    """The text of each row."""
    texts = RowTexts(frame, spec)
    used = texts.codes[texts.codes >= 0]
    assert list(dict.fromkeys(used.tolist())) == list(range(len(texts)))  # in order
    assert len(set(texts)) == len(texts)
    return [texts[int(code)] if code >= 0 else None for code in texts.codes]


@given(columns(), st.sampled_from([0, 10**6]))
def test_a_text_is_that_of_its_row_alone(frame: pd.DataFrame, held: int) -> None:
    """Also of rows with equal values, and if the text is rendered when it is read."""
    spec = RowPrompts(text=" | ".join(f"{{{{ {name} }}}}" for name in frame.columns), model="e/e")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(row_texts, "HELD_CHARACTERS", held)
        texts = texts_of(frame, spec)
        alone = [texts_of(frame.iloc[[row]], spec)[0] for row in range(len(frame))]
    assert texts == alone


def test_a_frame_without_rows_or_columns_in_the_prompt() -> None:
    """There is no text, or one for all rows."""
    spec = RowPrompts(text="hello", model="e/e")
    assert texts_of(pd.DataFrame({"text": ["a", "b"]}), spec) == ["hello", "hello"]
    assert texts_of(pd.DataFrame({"text": []}), spec) == []
    assert (
        texts_of(pd.DataFrame({"text": [None, " "]}), RowPrompts(text="x{{ text }}")) == [None] * 2
    )


def test_rows_that_change_while_they_are_sent_are_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An answer is never stored for another prompt."""
    monkeypatch.setattr(row_texts, "HELD_CHARACTERS", 0)
    cell = ["a"]
    texts = RowTexts(pd.DataFrame({"cell": [cell]}), RowPrompts(text="{{ cell }}", model="e/e"))
    assert texts[0] == texts[-1] == "['a']"
    assert texts[0:1] == ["['a']"]
    cell.append("b")
    with pytest.raises(errors.UsageError, match="changed"):
        texts[0]


@pytest.mark.parametrize("dtype", ["object", "string", "str"])
def test_the_texts_of_rows_need_little_memory(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """About a third of the frame, with ten rows for each text."""
    monkeypatch.setattr(row_texts, "HELD_CHARACTERS", 0)
    monkeypatch.setattr(row_texts, "_SLICE", 400)
    words = [f"review {n:06d} of a hotel, which {'was good and ' * 6}clean" for n in range(1200)]
    numbers = np.random.default_rng(0).permutation(np.arange(12_000) % 1200)
    texts = pd.Series(["".join([words[n], "."]) for n in numbers], dtype=dtype)
    frame = pd.DataFrame({"text": texts})
    size = int(frame.memory_usage(deep=True).sum())
    spec = RowPrompts(text="Sum up: {{ text }}", model="e/e")
    RowTexts(frame.head(1), spec)
    tracemalloc.start()
    try:
        found = RowTexts(frame, spec)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == 1200
    assert peak < 0.35 * size
    assert held < 0.1 * size
