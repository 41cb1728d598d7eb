"""Scatter plots of matplotlib: points in groups, labels that do not overlap, and a legend."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from llm_magics._util.label_placement import place_labels
from llm_magics._util.plotting import (
    GREY,
    Marks,
    colour_ramp,
    font_families,
    group_shape,
    legend,
    single_line,
    without_glyph_warnings,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Points = NDArray[np.float64]
    Rows = NDArray[np.int64]

# The area of a marker in points², for few points and for many.
_LARGE_MARKER, _SMALL_MARKER = 16.0, 1.6
_FEW_POINTS = 1500

_LABEL_WIDTH, _LABEL_LENGTH, _LEGEND_LENGTH = 20, 48, 28  # characters

# A label further away than this from what it describes has a line to it.
_NEAR_PX = 20

# The margin around the points, as a share of their extent.
_MARGIN = 0.03


class Label(NamedTuple):
    """A text, and the position of what it describes."""

    x: float
    y: float
    text: str


def draw_scatter(  # noqa: PLR0913 (the parts of a picture)
    ax: Axes,
    points: Points,
    marks: Marks,
    *,
    labels: Sequence[Label] = (),
    title: str = "",
    rows: Rows | None = None,
) -> None:
    """
    Draw points of shape (n, 2) on ``ax``.

    Args:
        points: the coordinates of all points, which determine the limits of the axes.
        marks: the colours and groups of all points.
        labels: the labels, the most important first. Those without space are left out.
        title: the title.
        rows: the points to draw; by default all.
    """
    rows = np.arange(len(points)) if rows is None else rows
    _set_limits(ax, points)
    if marks.span is None:
        _draw_groups(ax, points, marks, rows)
    else:
        _draw_values(ax, points, marks, rows)
    ax.set_title(
        title, loc="left", color=GREY, fontsize="small", family=font_families(), parse_math=False
    )
    ax.set(xticks=[], yticks=[])
    ax.patch.set_alpha(0)
    for spine in ax.spines.values():
        spine.set_color(GREY)
        spine.set_alpha(0.5)
    _draw_labels(ax, points[rows], labels)


def points_in_percent(figure: Figure, points: Points) -> Points:
    """Return the positions of points in percent of the figure, from its upper left corner."""
    with without_glyph_warnings():
        figure.draw_without_rendering()  # the layout is known only after drawing
    pixels = figure.axes[0].transData.transform(points)
    shares = pixels / [figure.bbox.width, figure.bbox.height]
    places: Points = np.column_stack([shares[:, 0], 1 - shares[:, 1]]) * 100
    return places


def _set_limits(ax: Axes, points: Points) -> None:
    low, high = points.min(axis=0), points.max(axis=0)
    margin = np.where(high > low, (high - low) * _MARGIN, 1.0)
    ax.set_xlim(low[0] - margin[0], high[0] + margin[0])
    ax.set_ylim(low[1] - margin[1], high[1] + margin[1])


def _marker_area(count: int) -> float:
    area = _LARGE_MARKER * _FEW_POINTS / max(1, count)
    return float(np.clip(area, _SMALL_MARKER, _LARGE_MARKER))


def _draw_values(ax: Axes, points: Points, marks: Marks, rows: Rows) -> None:
    assert marks.quantities is not None
    assert marks.span is not None
    xs, ys = points[rows].T
    ax.scatter(
        xs,
        ys,
        s=_marker_area(len(rows)),
        c=np.ma.masked_invalid(marks.quantities[rows]),
        cmap=colour_ramp(),
        vmin=marks.span[0],
        vmax=marks.span[1],
        plotnonfinite=True,
        linewidths=0,
    )


def _draw_groups(ax: Axes, points: Points, marks: Marks, rows: Rows) -> None:
    size, numbers = _marker_area(len(rows)), marks.numbers[rows]
    for number, colour in enumerate(marks.colours):
        xs, ys = points[rows[numbers == number]].T
        shape = group_shape(number)
        ax.scatter(xs, ys, s=size, color=colour, marker=shape, alpha=0.85, linewidths=0)
    if len(marks.names) > 1:
        names = [single_line(name, _LEGEND_LENGTH) for name in marks.names]
        handles = [_legend_handle(number, each) for number, each in enumerate(marks.colours)]
        legend(ax, names, handles, loc="center left", anchor=(1, 0.5))


def _legend_handle(number: int, colour: str) -> Any:
    """Return a marker for the legend, whose size does not depend on the number of points."""
    from matplotlib.lines import Line2D

    shape = group_shape(number)
    return Line2D(
        [], [], linestyle="", color=colour, marker=shape, markersize=5, markeredgewidth=0
    )


def _draw_labels(ax: Axes, points: Points, labels: Sequence[Label]) -> None:
    """Draw the labels where they do not overlap, with lines to groups that are further away."""
    if not labels:
        return
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=3, foreground="white")]  # legible on points, light and dark
    texts = [
        ax.text(
            label.x,
            label.y,
            textwrap.fill(single_line(label.text, _LABEL_LENGTH), _LABEL_WIDTH),
            ha="center",
            va="center",
            color="#212121",
            weight="bold",
            fontsize="small",
            family=font_families(),
            parse_math=False,
            path_effects=halo,
        )
        for label in labels
    ]
    figure: Any = ax.get_figure()
    with without_glyph_warnings():
        figure.draw_without_rendering()
        sizes = np.array([[*text.get_window_extent().size] for text in texts])
    to_pixels, frame = ax.transData, ax.get_window_extent()
    anchors = to_pixels.transform([(label.x, label.y) for label in labels]) - frame.p0
    pixels = to_pixels.transform(points) - frame.p0
    centres = place_labels(anchors, sizes, pixels, (frame.width, frame.height))
    for text, anchor, centre, size in zip(texts, anchors, centres, sizes, strict=True):
        if centre is None:
            text.remove()
            continue
        x, y = to_pixels.inverted().transform(centre + frame.p0)
        text.set_position((float(x), float(y)))
        gap = np.maximum(np.abs(anchor - centre) - size / 2, 0)
        if np.hypot(*gap) > _NEAR_PX:
            edge = np.clip(anchor, centre - size / 2, centre + size / 2)
            line = to_pixels.inverted().transform([anchor + frame.p0, edge + frame.p0])
            ax.plot(*line.T, color=GREY, linewidth=0.9, zorder=text.get_zorder() - 0.1)
