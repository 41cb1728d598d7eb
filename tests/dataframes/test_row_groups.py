"""Rows with equal values are rendered once, in little memory."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magics.dataframes.prompt_run import RowPromptRun
from llm_magics.dataframes.row_groups import group_rows
from llm_magics.dataframes.row_prompts import RowPrompts

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


@given(columns())
def test_a_group_is_rendered_as_its_rows_are(frame: pd.DataFrame) -> None:
    """The text of each row is the same as when it is the only row."""
    spec = RowPrompts(text=" | ".join(f"{{{{ {name} }}}}" for name in frame.columns), model="e/e")
    run = RowPromptRun(frame, spec)
    texts = [run._texts[code] if code >= 0 else None for code in run.codes]
    alone = [RowPromptRun(frame.iloc[[row]], spec)._texts for row in range(len(frame))]
    assert texts == [each[0] if each else None for each in alone]
    used = run.codes[run.codes >= 0]
    assert list(dict.fromkeys(used.tolist())) == list(range(len(run._texts)))  # in order


def test_the_first_row_of_each_group_is_returned() -> None:
    """Groups are numbered in the order of their first rows, also of several columns."""
    texts = pd.Series(["b", "a", None, "b", float("nan")], dtype=object)
    first, groups = group_rows([texts])
    assert (first.tolist(), groups.tolist()) == ([0, 1, 2], [0, 1, 2, 0, 2])
    first, groups = group_rows([texts, pd.Series([1, 1, 1, 2, 1])])
    assert (first.tolist(), groups.tolist()) == ([0, 1, 2, 3], [0, 1, 2, 3, 2])


@pytest.mark.parametrize("dtype", ["object", "string", "str"])
def test_prompts_of_rows_need_less_than_half_of_the_frame(dtype: str) -> None:
    """With ten rows for each text; the memory is that of the distinct texts."""
    words = [f"review {n:06d} of a hotel, which {'was good and ' * 6}clean" for n in range(3000)]
    numbers = np.random.default_rng(0).permutation(np.arange(30_000) % 3000)
    texts = pd.Series(["".join([words[n], "."]) for n in numbers], dtype=dtype)
    frame = pd.DataFrame({"text": texts})
    size = int(frame.memory_usage(deep=True).sum())
    spec = RowPrompts(text="Sum up: {{ text }}", model="e/e")
    RowPromptRun(frame.head(1), spec)
    tracemalloc.start()
    try:
        run = RowPromptRun(frame, spec)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(run._texts) == 3000
    assert peak < 0.5 * size
