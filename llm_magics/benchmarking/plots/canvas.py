"""What all pictures have in common: an empty figure, colours, lines, and axes in grey."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_magics._util import plotting
from llm_magics._util.plotting import COLOURS, GREY, SHAPES, empty_figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DASHES = ("-", "--", "-.", ":")


def empty(
    columns: int = 1, *, width: float = 7.0, height: float = 4.0
) -> tuple[Figure, list[Axes]]:
    """
    A figure that shows itself in a notebook, and its axes side by side.

    Raises:
        UsageError: matplotlib is not installed.
    """
    figure = empty_figure(width, height)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for ax in axes:
        _grey(ax)
    return figure, list(axes)


def _grey(ax: Axes) -> None:
    ax.patch.set_alpha(0)
    ax.tick_params(colors=GREY, labelsize="small", which="both")
    for name, spine in ax.spines.items():
        spine.set_color(GREY)
        spine.set_visible(name in ("left", "bottom"))
    ax.grid(visible=True, color=GREY, alpha=0.25, linewidth=0.6)


def line_of(number: int) -> dict[str, Any]:
    """How the group ``number`` is drawn: by colour, and by dashes and marks for those who see grey."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": _DASHES[number % len(_DASHES)],
        "marker": SHAPES[number % len(SHAPES)],
        "markersize": 5,
        "linewidth": 1.6,
    }


def label(ax: Axes, *, x: str = "", y: str = "", title: str = "") -> None:
    """Words on axes, taken as they are: a name with dollars in it is no formula."""
    for text in (
        ax.set_xlabel(x, color=GREY, fontsize="small"),
        ax.set_ylabel(y, color=GREY, fontsize="small"),
        ax.set_title(title, color=GREY, fontsize="small"),
    ):
        text.set_parse_math(False)


def legend(ax: Axes, names: Sequence[str], handles: Sequence[Any]) -> None:
    """Whose line is whose, beside the picture."""
    plotting.legend(ax, names, handles, loc="upper left", anchor=(1.0, 1.0))
