"""Which rows of measurements are about the same item: a prompt, and what is expected of it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from llm_magics.benchmarking.results.whole import several_loads


def items(frame: pd.DataFrame) -> pd.Series[Any]:
    """
    Return the item of each row: its prompt.

    A prompt that occurs with several expected answers is an item with each of them.
    """
    prompts = frame["prompt"]
    if "expected" not in frame:
        return prompts
    expected = frame["expected"].map(repr)
    apart = expected.groupby(prompts).transform("nunique") > 1
    return prompts.where(~apart, prompts.astype("str") + "\0" + expected)


def occurrences(frame: pd.DataFrame) -> list[tuple[str, int]]:
    """Return each row's prompt and its number of earlier occurrences for the same model and load."""
    repeats = [name for name in ("repeat",) if name in frame]
    keys = ["asked", "prompt", *repeats, *several_loads(frame)]
    counts = frame.groupby(keys, dropna=False, sort=False).cumcount()
    return list(zip(frame["prompt"].tolist(), counts.tolist(), strict=True))
