"""The shared style of figures: colours and marker shapes of groups, fonts, legends, PNG."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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

# The colours of groups: those above, and nine more at the largest distances from them in OKLab.
GROUP_COLOURS = (
    *COLOURS[:-1],
    *("#9600FF", "#960069", "#FF0FFF", "#005A00", "#69C300", "#E10069", "#7878FF", "#5A2DB4"),
    "#962D0F",
)

OTHERS, OTHERS_COLOUR = "others", COLOURS[-1]

# From dark blue through green to yellow; in greyscale, from dark to light.
_RAMP = ("#3B528B", "#21918C", "#5EC962", "#F0C828")


@dataclass(frozen=True, kw_only=True)
class Marks:
    """
    The colours and groups of points.

    Attributes:
        numbers: the number of each point's group; all 0 without groups.
        names: the names of the groups, in the order of their numbers.
        colours: the colour of each group; a single one without groups.
        quantities: the number that each point's colour shows, if it shows no group.
    """

    numbers: NDArray[np.int64]
    names: Sequence[str] = ()
    colours: Sequence[str] = COLOURS[:1]
    quantities: NDArray[np.float64] | None = None

    @property
    def span(self) -> tuple[float, float] | None:
        """The lowest and the highest value; ``None`` if the colours show no numbers."""
        if self.quantities is None:
            return None
        known = self.quantities[np.isfinite(self.quantities)]
        return (float(known.min()), float(known.max())) if len(known) else None

    @property
    def title_suffix(self) -> str:
        """The meaning of colours for numbers, to append to a title; empty for groups."""
        if self.span is None:
            return ""
        low, high = self.span
        return f" · colour from {low:.4g} (dark) to {high:.4g} (light)"


def create_marks(values: Any, count: int) -> Marks:
    """
    Return the marks of ``count`` points: numbers as a colour ramp, other values as groups.

    With more groups than colours, the smallest groups are shown together as ``others``.
    """
    nothing = np.zeros(count, np.int64)
    if values is None:
        return Marks(numbers=nothing)
    column = pd.Series(values).reset_index(drop=True)
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return Marks(numbers=nothing, quantities=column.to_numpy(np.float64, na_value=np.nan))
    kinds = column.astype("category").cat.remove_unused_categories().cat
    codes = np.asarray(kinds.codes, np.int64).copy()
    names = [str(each) for each in kinds.categories]
    colours = GROUP_COLOURS[: len(names)]
    if len(names) > len(GROUP_COLOURS) or (codes < 0).any():
        by_size = np.argsort(-np.bincount(codes[codes >= 0], minlength=len(names)), kind="stable")
        largest = np.sort(by_size[: len(GROUP_COLOURS)])
        # The last position is for missing names.
        position = np.full(len(names) + 1, len(largest), np.int64)
        position[largest] = np.arange(len(largest))
        codes, names = position[codes], [*(names[each] for each in largest), OTHERS]
        colours = (*GROUP_COLOURS[: len(largest)], OTHERS_COLOUR)
    return Marks(numbers=codes, names=names, colours=colours)


def colour_ramp() -> Any:
    """Return the colours of numbers from low to high, and of unknown ones, for matplotlib."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("ramp", _RAMP).with_extremes(bad=OTHERS_COLOUR)


def group_shape(number: int) -> str:
    """Return the marker shape of a group; two groups of similar colours differ in their shape."""
    return SHAPES[(number + number // len(SHAPES)) % len(SHAPES)]


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
            return png_of(self, dpi=110)

    return InlineFigure


# A PNG of a scatter plot with a palette is a quarter of the size of one without.
_PALETTE_COLOURS = 128


def png_of(figure: Figure, *, dpi: int) -> bytes:
    """Return ``figure`` as a PNG with a palette."""
    from PIL import Image

    drawn, file = io.BytesIO(), io.BytesIO()
    with without_glyph_warnings():
        figure.savefig(drawn, format="png", dpi=dpi, pil_kwargs={"compress_level": 0})
    with Image.open(drawn) as image:
        palette = image.quantize(_PALETTE_COLOURS, Image.Quantize.FASTOCTREE)
    palette.save(file, "PNG", optimize=True)
    return file.getvalue()


@contextmanager
def without_glyph_warnings() -> Iterator[None]:
    """Suppress the warning about letters that no font has; they are drawn as boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+")
        yield


# Fonts with the letters that matplotlib's own font does not have.
_FALLBACK_FONTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Hiragino Sans",
    "PingFang SC",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Noto Emoji",
    "Segoe UI Emoji",
)


def font_families() -> list[str]:
    """Return matplotlib's configured fonts, followed by installed fonts for other scripts."""
    import matplotlib as mpl

    return [*mpl.rcParams["font.family"], *_installed_fonts()]


@cache
def _installed_fonts() -> list[str]:
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    return [name for name in _FALLBACK_FONTS if name in installed]


def single_line(text: str, length: int = 160) -> str:
    """Return a text on one line, without non-printable characters, cut to ``length``."""
    text = text[: 4 * length]
    if not text.isprintable():
        text = "".join(sign if sign.isprintable() else " " for sign in text)
    flat = " ".join(text.split())
    return flat if len(flat) <= length else f"{flat[: length - 1].rstrip()}…"


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
        text.set_fontfamily(font_families())
