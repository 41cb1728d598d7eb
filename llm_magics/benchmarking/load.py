"""How fast models answer, one request at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from llm_magics.benchmarking.asking import as_row, asked, listed

if TYPE_CHECKING:
    from pandas import DataFrame

_PROMPTS = ("Write three sentences about the sea.",)


def bench(
    models: str | Iterable[str],
    *,
    prompts: str | Iterable[str] = _PROMPTS,
    repeat: int = 3,
    **parameters: Any,
) -> DataFrame:
    """
    Measure how fast each of ``models`` answers ``prompts``.

    The models take turns, so that a machine that gets slower does so for all of them.

    Args:
        models, prompts: one, or several.
        repeat: how often each is asked.
        parameters: as for `lm.ask`, the same for all.

    Returns:
        One row a request: ``repeat`` and ``prompt``, then the columns of `lm.runs`. Failed
        requests are rows too.
    """
    import pandas as pd

    rows = [
        {"repeat": turn, **as_row(prompt, model, *asked(prompt, model, parameters))}
        for turn in range(repeat)
        for prompt in listed(prompts)
        for model in listed(models)
    ]
    return pd.DataFrame(rows)
