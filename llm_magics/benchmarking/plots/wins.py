"""Which model beats which, as a matrix."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llm_magics.benchmarking.plots import canvas
from llm_magics.benchmarking.results.differences import SCORE
from llm_magics.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def figure(shares: pd.DataFrame, column: str) -> Figure:
    """``shares`` as `Measurements.wins` gives them: in each field its number, and a shade of it."""
    if len(shares) < 2:
        msg = "There is one model only."
        raise UsageError(msg, hint="Compare two at least.")
    size = 1.2 + 0.9 * len(shares)
    drawn, (ax,) = canvas.empty(width=size + 2.2, height=size)
    ax.grid(visible=False)
    # Blue in colour, from light to dark in grey: read by the number in either.
    ax.imshow(shares.to_numpy("float64"), cmap="Blues", vmin=0, vmax=1, alpha=0.85)
    for row, name in enumerate(shares.index):
        for place, other in enumerate(shares.columns):
            value = float(shares.loc[name, other])
            if not math.isnan(value):
                ink = "white" if value > 0.55 else "#202020"
                ax.text(place, row, f"{value:.0%}", ha="center", va="center", color=ink)
    ticks = range(len(shares))
    for text in (
        *ax.set_xticks(ticks, [str(name) for name in shares.columns], rotation=30, ha="right"),
        *ax.set_yticks(ticks, [str(name) for name in shares.index]),
    ):
        for told in (text.label1, text.label2):
            told.set_parse_math(False)
    canvas.label(
        ax, title=f"{column.removeprefix(SCORE)}: share of prompts that the row wins, ties half"
    )
    return drawn
