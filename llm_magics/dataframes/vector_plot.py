"""
`VectorPlot`: vectors in two dimensions, as HTML in a notebook or file, or as a matplotlib figure.

The HTML works without scripts: CSS shows the text of a point while the mouse is over it. Texts are
in attributes, so that an untrusted notebook, whose styles are removed, shows no text instead of all
texts at once. All colours except those of the points are the page's.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llm_magics._util.plotting import (
    COLOURS,
    GREY,
    SHAPES,
    Marks,
    check_matplotlib,
    create_marks,
    empty_figure,
    legend,
)
from llm_magics.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

_MAX_TEXT = 160

_STYLE = """
.llmm-plot{position:relative;max-width:44em;height:28em;margin:.5em 1em 1em 0;
border:1px solid color-mix(in srgb,currentColor 30%,transparent);font-size:12px}
.llmm-plot i{position:absolute;width:7px;height:7px;margin:-3.5px;opacity:.8;border-radius:50%}
.llmm-plot i.s1{border-radius:0}.llmm-plot i.s2{border-radius:0;transform:rotate(45deg)}
.llmm-plot i.s3{clip-path:polygon(50% 0,100% 100%,0 100%)}
.llmm-plot i.s4{clip-path:polygon(0 0,100% 0,50% 100%)}
.llmm-plot i.s5{border-radius:50% 0}.llmm-plot i.s6{border-radius:50% 50% 0 0}
.llmm-plot i.s7{border-radius:0 50%}
.llmm-plot i:hover{z-index:2;opacity:1;clip-path:none;transform:none;outline:2px solid currentColor}
.llmm-plot i:hover::after{content:attr(data-tip);position:absolute;top:12px;left:12px;width:max-content;
max-width:22em;padding:3px 7px;font-style:normal;white-space:normal;border-radius:3px;
color:var(--jp-ui-font-color1,CanvasText);background:var(--jp-layout-color1,Canvas);
border:1px solid var(--jp-border-color1,GrayText)}
.llmm-plot i.e:hover::after{left:auto;right:12px}.llmm-plot i.d:hover::after{top:auto;bottom:12px}
.llmm-plot b{position:absolute;transform:translate(-50%,-50%);padding:0 4px;width:max-content;max-width:26%;text-align:center;border-radius:3px;
pointer-events:none;z-index:1;color:var(--jp-ui-font-color1,CanvasText);
background:color-mix(in srgb,var(--jp-layout-color0,Canvas) 60%,transparent)}
.llmm-key{margin:.5em 0 0;font-size:12px}.llmm-key i{display:inline-block;width:9px;height:9px;
margin:0 4px 0 12px}
""".replace("\n", "")


def scatter_html(
    points: Floats,
    marks: Marks,
    texts: Sequence[str],
    labels: Sequence[tuple[float, float, str]],
    title: str,
) -> str:
    """
    Return the plot as HTML.

    Args:
        points: the coordinates, of shape (n, 2).
        marks: the colours and shapes of the points, and their legend.
        texts: the text of each point.
        labels: the labels of groups, as x, y and text.
        title: the title above the plot.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    places = _to_percent(points, low, high)
    dots = "".join(
        _dot_html(x, y, colour, number, text)
        for (x, y), colour, number, text in zip(
            places.tolist(), marks.colours, marks.numbers.tolist(), texts, strict=True
        )
    )
    centres = np.asarray([label[:2] for label in labels], np.float32).reshape(-1, 2)
    words = "".join(
        f'<b style="left:{min(max(x, 14), 86):.1f}%;top:{y:.1f}%">{html.escape(_single_line(label[2]))}</b>'
        for (x, y), label in zip(_to_percent(centres, low, high).tolist(), labels, strict=True)
    )
    return (
        f"<style>{_STYLE}</style>{_legend_html(marks, title)}"
        f'<div class="llmm-plot mathjax_ignore">{dots}{words}</div>'
    )


def _to_percent(points: Floats, low: Floats, high: Floats) -> Floats:
    """Return points in percent of the plot's size, from its upper left corner, with a margin."""
    span = high - low
    shares = (points - low) / np.where(span > 0, span, 1)
    placed = np.column_stack([shares[:, 0], 1 - shares[:, 1]]) * 94 + 3
    return placed.astype(np.float32)


def _dot_html(x: float, y: float, colour: str, number: int, text: str) -> str:
    names = " ".join([f"s{number}"] * bool(number) + ["e"] * (x > 50) + ["d"] * (y > 70))
    kind = f' class="{names}"' if names else ""
    tip = html.escape(_single_line(text))
    return f'<i{kind} style="left:{x:.1f}%;top:{y:.1f}%;background:{colour}" data-tip="{tip}"></i>'


def _legend_html(marks: Marks, title: str) -> str:
    """Return the title and the legend of colours and shapes as HTML."""
    caption = html.escape(_single_line(f"{title}{marks.title_suffix}"))
    groups = "".join(
        f'<i class="s{number}" style="position:static;background:{COLOURS[number]}"></i>{html.escape(_single_line(name))}'
        for number, name in enumerate(marks.names)
    )
    return f'<div class="llmm-key mathjax_ignore llmm-plot-key">{caption}{groups}</div>'


def _single_line(text: str) -> str:
    """Return a text on one line, without non-printable characters, cut to the maximum length."""
    flat = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return flat if len(flat) <= _MAX_TEXT else f"{flat[: _MAX_TEXT - 1]}…"


# With more points, they overlap and the notebook becomes slow.
_MAX_POINTS = 4000

# A label within this share of the width from an edge is aligned towards the middle.
_EDGE_SHARE = 0.25


@dataclass(frozen=True, eq=False)
class VectorPlot:
    """
    A plot of vectors in two dimensions.

    Attributes:
        frame: one row per point with ``x``, ``y``, ``text``, and ``cluster`` and ``color`` if the
            plot has them, on the index of the column.
        title: the title of the plot.
    """

    frame: pd.DataFrame
    title: str

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """Return the plot as HTML for notebooks, with the texts of points under the mouse."""
        frame = self.frame
        title = self.title
        if len(frame) > _MAX_POINTS:
            frame = frame.sample(_MAX_POINTS, random_state=0)
            title = f"{title} · {_MAX_POINTS:,} shown"
        points = frame[["x", "y"]].to_numpy(np.float32)
        texts = frame["text"].tolist()
        page = scatter_html(points, self._marks(frame), texts, self._labels(), title)
        return {"text/html": page, "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"VectorPlot({self.title})"

    def figure(self, ax: Axes | None = None) -> Figure:
        """
        Draw the plot with matplotlib, on ``ax`` if given. It is readable on light and dark pages.

        Raises:
            UsageError: matplotlib is not installed.
        """
        check_matplotlib()
        if ax is None:
            ax = empty_figure(7, 4.5).subplots()
        self._draw(ax)
        figure: Figure = ax.get_figure()  # type: ignore[assignment]
        return figure

    def save(self, path: Any) -> None:
        """
        Save the plot: ``.html`` with the texts, or any format of matplotlib.

        Raises:
            UsageError: the folder does not exist, or matplotlib is needed and not installed.
        """
        if not Path(path).parent.is_dir():
            msg = f"The folder {Path(path).parent} does not exist."
            raise UsageError(msg, hint="Create it first, or choose another path.")
        if Path(path).suffix.lower() in (".html", ".htm"):
            page = self._repr_mimebundle_()["text/html"]
            document = f'<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark">{page}'
            Path(path).write_text(document, encoding="utf-8")
        else:
            self.figure().savefig(path, dpi=150)

    def _draw(self, ax: Axes) -> None:
        marks = self._marks(self.frame)
        xs, ys = self.frame["x"].to_numpy(), self.frame["y"].to_numpy()
        for number in range(max(1, len(marks.names))):
            mine = marks.numbers == number
            colours = [
                colour for colour, is_mine in zip(marks.colours, mine, strict=True) if is_mine
            ]
            ax.scatter(
                xs[mine],
                ys[mine],
                s=14,
                c=colours,
                marker=SHAPES[number],
                alpha=0.8,
                linewidths=0,
            )
        low, high = xs.min(), xs.max()
        for x, y, words in self._labels():
            share = (x - low) / ((high - low) or 1.0)  # aligned so that it stays inside the plot
            ax.annotate(
                words,
                (x, y),
                ha="left"
                if share < _EDGE_SHARE
                else "right"
                if share > 1 - _EDGE_SHARE
                else "center",
                va="center",
                color=GREY,
                weight="bold",
                parse_math=False,
            )
        if len(marks.names) > 1:
            handles = ax.collections[-len(marks.names) :]
            legend(ax, marks.names, handles, loc="center left", anchor=(1, 0.5))
        ax.set_title(
            f"{self.title}{marks.title_suffix}", color=GREY, fontsize="small", parse_math=False
        )
        ax.set(xticks=[], yticks=[])
        ax.patch.set_alpha(0)
        for spine in ax.spines.values():
            spine.set_color(GREY)

    def _marks(self, frame: pd.DataFrame) -> Marks:
        by = "color" if "color" in frame else "cluster" if "cluster" in frame else None
        return create_marks(frame[by] if by else None, len(frame))

    def _labels(self) -> list[tuple[float, float, str]]:
        """Return the position (the median of the points) and the name of each group."""
        if "cluster" not in self.frame:
            return []
        middles = self.frame.groupby("cluster", observed=True)[["x", "y"]].median()
        return [(float(row.x), float(row.y), str(name)) for name, row in middles.iterrows()]
