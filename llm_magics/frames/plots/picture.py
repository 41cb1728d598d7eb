"""A picture of vectors: in a notebook, in a file, as matplotlib's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llm_magics._util.plotting import (
    GREY,
    SHAPES,
    Marks,
    check_matplotlib,
    empty_figure,
    legend,
    marks_of,
)
from llm_magics.errors import UsageError
from llm_magics.frames.plots.hovering import page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# More points than these are not seen in a picture, and make a notebook slow.
_MOST_SHOWN = 4000

# So near to an edge, as a share of the width, a label goes inwards.
_EDGE = 0.25


@dataclass(frozen=True, eq=False)
class VectorPlot:
    """
    A picture of vectors.

    Attributes:
        frame: a row for each point: ``x``, ``y``, ``text``, and ``cluster`` and ``color`` where
            there are some, on the index of the column.
        title: what it shows, in words.
    """

    frame: pd.DataFrame
    title: str

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """With texts where the mouse is, in a notebook."""
        frame = self.frame
        title = self.title
        if len(frame) > _MOST_SHOWN:
            frame = frame.sample(_MOST_SHOWN, random_state=0)
            title = f"{title} · {_MOST_SHOWN:,} of them drawn"
        points = frame[["x", "y"]].to_numpy(np.float32)
        texts = frame["text"].tolist()
        shown = page(points, self._marks(frame), texts, self._labels(), title)
        return {"text/html": shown, "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"VectorPlot({self.title})"

    def figure(self, ax: Axes | None = None) -> Figure:
        """
        The same as matplotlib's figure, on ``ax`` if given; readable on light and dark pages.

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
        Keep the picture in a file: ``.html`` with the texts, else what matplotlib writes.

        Raises:
            UsageError: its folder is not there; matplotlib is not installed.
        """
        if not Path(path).parent.is_dir():
            msg = f"There is no folder {Path(path).parent}."
            raise UsageError(msg, hint="Make it first, or name another file.")
        if Path(path).suffix.lower() in (".html", ".htm"):
            shown = self._repr_mimebundle_()["text/html"]
            whole = f'<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark">{shown}'
            Path(path).write_text(whole, encoding="utf-8")
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
            share = (x - low) / ((high - low) or 1.0)  # towards the middle, not over the edge
            ax.annotate(
                words,
                (x, y),
                ha="left" if share < _EDGE else "right" if share > 1 - _EDGE else "center",
                va="center",
                color=GREY,
                weight="bold",
                parse_math=False,
            )
        if len(marks.names) > 1:
            handles = ax.collections[-len(marks.names) :]
            legend(ax, marks.names, handles, loc="center left", anchor=(1, 0.5))
        ax.set_title(f"{self.title}{marks.told}", color=GREY, fontsize="small", parse_math=False)
        ax.set(xticks=[], yticks=[])
        ax.patch.set_alpha(0)
        for spine in ax.spines.values():
            spine.set_color(GREY)

    def _marks(self, frame: pd.DataFrame) -> Marks:
        by = "color" if "color" in frame else "cluster" if "cluster" in frame else None
        return marks_of(frame[by] if by else None, len(frame))

    def _labels(self) -> list[tuple[float, float, str]]:
        """Where the name of each group stands: in its middle."""
        if "cluster" not in self.frame:
            return []
        middles = self.frame.groupby("cluster", observed=True)[["x", "y"]].median()
        return [(float(row.x), float(row.y), str(name)) for name, row in middles.iterrows()]
