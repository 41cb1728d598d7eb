"""How fast models answer, one request at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from llm_magics.benchmarking.asking import listed, rows_of
from llm_magics.engine.prompt import Prompt

if TYPE_CHECKING:
    from pandas import DataFrame

_PROMPTS = ("Write three sentences about the sea.",)


def bench(
    models: str | Iterable[str],
    *,
    prompts: str | Iterable[str] = _PROMPTS,
    repeat: int = 3,
    system: str | None = None,
    **parameters: Any,
) -> DataFrame:
    """
    Measure how fast each of ``models`` answers ``prompts``.

    The models take turns, so that a machine that gets slower does so for all of them.

    Args:
        models, prompts: one, or several.
        repeat: how often each is asked.
        system, parameters: as for `lm.ask`, the same for all.

    Returns:
        One row a request: ``repeat`` and ``prompt``, then the columns of `lm.runs`. Failed
        requests are rows too.
    """
    import pandas as pd

    once = [(prompt, model) for prompt in listed(prompts) for model in listed(models)]
    asked = (Prompt(prompt, model, system, parameters) for prompt, model in once * repeat)
    frame = pd.DataFrame(rows_of(asked))
    frame.insert(0, "repeat", [number // len(once) for number in range(len(frame))])
    return frame
