"""The shared style of figures: colours and marker shapes for groups, legends, empty figures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from llm_magics._util.validation import require_package

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


# The colours of Okabe and Ito that are visible both on white and on black.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C6D31", "#7F7F7F")
# matplotlib's marker shapes, one for each colour.
SHAPES = ("o", "s", "D", "^", "v", "P", "X", "*")

OTHERS = "others"

# From dark blue through green to yellow; in greyscale, from dark to light.
_RAMP = ((59, 82, 139), (33, 145, 140), (94, 201, 98), (240, 200, 40))


@dataclass(frozen=True, kw_only=True)
class Marks:
    """
    The colours and groups of points.

    Attributes:
        numbers: the number of each point's group; all 0 without groups.
        names: the names of the groups, in the order of their numbers.
        colours: the colour of each point, as ``#rrggbb``.
        span: the lowest and the highest value, if the colours show numbers instead of groups.
    """

    numbers: NDArray[np.int64]
    names: Sequence[str]
    colours: list[str]
    span: tuple[float, float] | None = None

    @property
    def title_suffix(self) -> str:
        """The meaning of colours for numbers, to append to a title; empty for groups."""
        if self.span is None:
            return ""
        low, high = self.span
        return f" · colour from {low:.4g} (dark) to {high:.4g} (light)"


def create_marks(values: Any, count: int) -> Marks:
    """Return the marks of ``count`` points: numbers as a colour ramp, other values as groups."""
    nothing = np.zeros(count, np.int64)
    if values is None:
        return Marks(numbers=nothing, names=[], colours=[COLOURS[0]] * count)
    column = pd.Series(values).reset_index(drop=True)
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return _ramped(column.astype("float64").to_numpy(), nothing)
    kinds = (
        pd.Categorical(column) if not isinstance(column.dtype, pd.CategoricalDtype) else column.cat
    )
    codes, names = (
        np.asarray(kinds.codes, np.int64).copy(),
        [str(each) for each in kinds.categories],
    )
    most = len(COLOURS) - 1
    if len(names) > len(COLOURS) or (codes < 0).any():
        by_size = np.argsort(-np.bincount(codes[codes >= 0], minlength=len(names)), kind="stable")
        largest = np.sort(by_size[:most])
        # The last position is for missing names.
        position = np.full(len(names) + 1, len(largest), np.int64)
        position[largest] = np.arange(len(largest))
        codes, names = position[codes], [*(names[each] for each in largest), OTHERS]
    return Marks(numbers=codes, names=names, colours=[COLOURS[code] for code in codes.tolist()])


def _ramped(values: NDArray[Any], numbers: NDArray[np.int64]) -> Marks:
    known = values[np.isfinite(values)]
    if not len(known):
        return Marks(numbers=numbers, names=[], colours=[COLOURS[-1]] * len(values))
    low, high = float(known.min()), float(known.max())
    shares = (values - low) / ((high - low) or 1.0)
    return Marks(
        numbers=numbers,
        names=[],
        colours=[_on_ramp(share) for share in shares.tolist()],
        span=(low, high),
    )


def _on_ramp(share: float) -> str:
    if not np.isfinite(share):
        return COLOURS[-1]
    position = share * (len(_RAMP) - 1)
    left = min(int(position), len(_RAMP) - 2)
    mixed = (
        round(one + (other - one) * (position - left))
        for one, other in zip(_RAMP[left], _RAMP[left + 1], strict=True)
    )
    return "#{:02x}{:02x}{:02x}".format(*mixed)


# Visible both on white and on black.
GREY = "#808080"


def check_matplotlib() -> None:
    """
    Check that matplotlib is installed.

    Raises:
        UsageError: it is not installed.
    """
    require_package("matplotlib", "A figure", extra="plots")


def empty_figure(width: float, height: float) -> Figure:
    """Return a figure that displays itself in a notebook, with a transparent background."""
    check_matplotlib()
    figure = _inline_figure()(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    return figure


@cache
def _inline_figure() -> type[Figure]:
    """Return the class of figures, created on first use, because matplotlib is optional."""
    from matplotlib.figure import Figure

    class InlineFigure(Figure):
        """A figure that displays itself, without pyplot, which retains figures until closed."""

        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            self.savefig(file, format="png", dpi=110)
            return file.getvalue()

    return InlineFigure


def legend(
    ax: Axes,
    names: Sequence[str],
    handles: Sequence[Any],
    *,
    loc: Literal["upper left", "center left"],
    anchor: tuple[float, float],
) -> None:
    """Draw a legend next to the axes; names are literal text, not formulas."""
    drawn = ax.legend(
        handles,
        [f" {name}" for name in names],  # matplotlib omits labels that begin with _
        frameon=False,
        labelcolor=GREY,
        fontsize="small",
        loc=loc,
        bbox_to_anchor=anchor,
    )
    for text in drawn.get_texts():
        text.set_parse_math(False)
