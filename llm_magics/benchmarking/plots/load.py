"""Time to first token and throughput over the load."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llm_magics.benchmarking.plots import canvas
from llm_magics.benchmarking.results.whole import LOAD
from llm_magics.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_TOLD = {"concurrency": "requests at once", "rate": "requests a second"}


def figure(summary: pd.DataFrame) -> Figure:
    """Of a summary with several loads: the median with its 90th percentile, and tokens a second."""
    load = next((name for name in LOAD if name in summary.index.names), None)
    if load is None:
        msg = "The load was the same for all requests."
        raise UsageError(msg, hint="Measure with concurrency=[1, 4, 16], or rate=[1, 2, 4].")
    drawn, (first, speed) = canvas.empty(2, width=9.5)
    names, handles = [], []
    for number, (name, group) in enumerate(summary.groupby(level="model", sort=False)):
        at = group.index.get_level_values(load).astype(float).to_numpy()
        style = canvas.line_of(number)
        first.fill_between(
            at, group["ttft_s"], group["ttft_s_p90"], color=style["color"], alpha=0.15, linewidth=0
        )
        first.plot(at, group["ttft_s"], **style)
        handles += speed.plot(at, group["throughput_tokens_per_s"], **style)
        names.append(str(name))
    for ax in (first, speed):
        top = ax.dataLim.ymax  # infinite where nothing was drawn
        ax.set_ylim(0, 1.08 * top if math.isfinite(top) and top > 0 else 1)
        ax.set_xticks(sorted({*summary.index.get_level_values(load).astype(float)}))
    canvas.label(first, x=_TOLD[load], y="seconds", title="time to first token: median, to the 90th percentile")  # fmt: skip
    canvas.label(speed, x=_TOLD[load], y="tokens/s", title="tokens a second, of all requests")
    canvas.legend(speed, names, handles)
    return drawn
