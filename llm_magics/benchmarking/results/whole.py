"""Which rows count: those of answers that came whole, and those at one load."""

from __future__ import annotations

from typing import Any

import pandas as pd

from llm_magics.runtime.response import INTERRUPTED

# What tells one load from another.
LOAD = ("concurrency", "rate")


def is_whole(frame: pd.DataFrame) -> pd.Series[Any]:
    """Whether an answer neither failed nor broke off: of others there are no times."""
    answered = frame["error"].isna()
    if "finish_reason" not in frame:
        return answered
    return answered & (frame["finish_reason"] != INTERRUPTED)


def several_loads(frame: pd.DataFrame) -> list[str]:
    """The columns that tell loads apart, where there are several."""
    return [name for name in LOAD if name in frame and len(frame[name].unique()) > 1]
