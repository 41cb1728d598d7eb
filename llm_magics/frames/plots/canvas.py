"""What pictures have in common: a figure that shows itself, grey words, and a legend."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from llm_magics.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Seen on white and on black.
GREY = "#808080"


def check_matplotlib() -> None:
    """
    Raise where there is nothing to draw with.

    Raises:
        UsageError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        msg = "matplotlib is not installed."
        raise UsageError(msg, hint="pip install matplotlib")


def empty_figure(width: float, height: float) -> Figure:
    """A figure that shows itself in a notebook and lets the page through."""
    check_matplotlib()
    from llm_magics.frames.plots.figures import ShownFigure

    made = ShownFigure(figsize=(width, height), layout="constrained")
    made.patch.set_alpha(0)
    return made


def legend(
    ax: Axes,
    names: Sequence[str],
    handles: Sequence[Any],
    *,
    loc: Literal["upper left", "center left"],
    anchor: tuple[float, float],
) -> None:
    """What is whose, beside the picture; a name is taken as it is, and is no formula."""
    made = ax.legend(
        handles,
        [f" {name}" for name in names],  # a name that begins with _ would be left out
        frameon=False,
        labelcolor=GREY,
        fontsize="small",
        loc=loc,
        bbox_to_anchor=anchor,
    )
    for text in made.get_texts():
        text.set_parse_math(False)
