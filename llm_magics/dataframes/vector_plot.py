"""
`VectorPlot`: vectors in two dimensions, as a picture in a notebook or file.

The picture is drawn by matplotlib. In a notebook it is an image in HTML, with an invisible element
over each point. An untrusted notebook shows the texts of points as the ``title`` of these elements.
A trusted one also applies the style sheet, which shows the texts immediately. Without any styles
the picture remains.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llm_magics._util.plotting import (
    Marks,
    create_marks,
    empty_figure,
    png_of,
    single_line,
    without_glyph_warnings,
)
from llm_magics._util.scatter import Label, draw_scatter, points_in_percent
from llm_magics.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Points = NDArray[np.float64]

# With more elements, they overlap and the notebook becomes slow.
_MAX_TEXTS = 1500

# With more points, they overlap and the picture looks the same.
_MAX_POINTS = 50_000

# The size of the picture, which figures have at 100 dots per inch, and its resolution.
PICTURE_WIDTH_PX, _HEIGHT_PX, PICTURE_DPI = 700, 450, 160

# The width and height of the element over a point, in percent of the picture.
_SPOT_WIDTH, _SPOT_HEIGHT = 1.3, 2.02

# The empty title of the element inside prevents that the browser shows the text a second time.
_STYLE = """
.llmm-spot b{position:absolute;top:0;right:0;bottom:0;left:0}
.llmm-spot:hover{z-index:2;border-radius:50%;outline:2px solid currentColor}
.llmm-spot:hover::after{content:attr(title);position:absolute;top:14px;left:14px;width:max-content;
max-width:24em;padding:3px 7px;font:12px/1.4 sans-serif;white-space:normal;border-radius:3px;
color:#212121;background:#fff;color:var(--jp-ui-font-color1,#212121);
background:var(--jp-layout-color1,#fff);border:1px solid #808080}
.llmm-left:hover::after{left:auto;right:14px}.llmm-up:hover::after{top:auto;bottom:14px}
""".replace("\n", "")


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
        """Return the plot for notebooks: a picture, with the texts of points under the mouse."""
        frame = self.frame
        if len(frame) > _MAX_TEXTS:
            frame = frame.sample(_MAX_TEXTS, random_state=0)
        figure = self.figure()
        places = points_in_percent(figure, frame[["x", "y"]].to_numpy(np.float64))
        page = (
            f'<style>{_STYLE}</style><div class="mathjax_ignore" '
            f'style="position:relative;width:{PICTURE_WIDTH_PX}px;max-width:100%">'
            f"{self._image(figure)}{_spots_html(places, frame['text'].tolist())}</div>"
        )
        return {"text/html": page, "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"VectorPlot({self.title})"

    def marks(self) -> Marks:
        """Return the colours and groups of the points."""
        by = next((name for name in ("color", "cluster") if name in self.frame), None)
        return create_marks(self.frame[by] if by else None, len(self.frame))

    def figure(self, ax: Axes | None = None) -> Figure:
        """
        Draw the plot with matplotlib, on ``ax`` if given. It is readable on light and dark pages.

        Of more than 50,000 points, a sample is drawn.
        """
        if ax is None:
            ax = empty_figure(PICTURE_WIDTH_PX / 100, _HEIGHT_PX / 100).subplots()
        marks, count = self.marks(), len(self.frame)
        title, rows = f"{self.title}{marks.title_suffix}", np.arange(count)
        if count > _MAX_POINTS:
            draw = np.random.default_rng(0)
            rows = np.sort(draw.choice(count, _MAX_POINTS, replace=False))
            title += f" · {_MAX_POINTS:,} drawn"
        points = self.frame[["x", "y"]].to_numpy(np.float64)
        draw_scatter(ax, points, marks, labels=self._labels(), title=single_line(title), rows=rows)
        figure: Figure = ax.get_figure()  # type: ignore[assignment]
        return figure

    def save(self, path: Any) -> None:
        """
        Save the plot: ``.html`` with the texts, or any format of matplotlib.

        Raises:
            UsageError: the folder does not exist.
        """
        if not Path(path).parent.is_dir():
            msg = f"The folder {Path(path).parent} does not exist."
            raise UsageError(msg, hint="Create it first, or choose another path.")
        if Path(path).suffix.lower() in (".html", ".htm"):
            page = self._repr_mimebundle_()["text/html"]
            document = f'<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark">{page}'
            Path(path).write_text(document, encoding="utf-8")
        else:
            with without_glyph_warnings():
                self.figure().savefig(path, dpi=PICTURE_DPI)

    def _image(self, figure: Figure) -> str:
        """Return the picture as HTML, with a description of it in words."""
        names = ", ".join(single_line(name) for name in self.marks().names)
        words = html.escape(f"Plot of {single_line(self.title)}{names and f'. Groups: {names}'}")
        data = base64.b64encode(png_of(figure, dpi=PICTURE_DPI)).decode()
        return (
            f'<img alt="{words}" src="data:image/png;base64,{data}" '
            'style="display:block;width:100%;margin:0">'
        )

    def _labels(self) -> list[Label]:
        """Return the name of each cluster at the median of its points, the largest first."""
        if "cluster" not in self.frame:
            return []
        groups = self.frame.groupby("cluster", observed=True)[["x", "y"]]
        middles = groups.median().loc[groups.size().sort_values(ascending=False).index]
        return [Label(float(row.x), float(row.y), str(name)) for name, row in middles.iterrows()]


def _spots_html(places: Points, texts: Sequence[str]) -> str:
    """Return an invisible element for each point, whose title is its text."""
    return "".join(
        f'<i class="{_spot_class(x, y)}" style="position:absolute;left:{x - _SPOT_WIDTH / 2:.2f}%;'
        f'top:{y - _SPOT_HEIGHT / 2:.2f}%;width:{_SPOT_WIDTH}%;height:{_SPOT_HEIGHT}%" '
        f'title="{html.escape(single_line(text))}"><b title=""></b></i>'
        for (x, y), text in zip(places.tolist(), texts, strict=True)
    )


def _spot_class(x: float, y: float) -> str:
    """Return the classes that open the text towards the middle of the picture."""
    return "llmm-spot" + " llmm-left" * (x > 50) + " llmm-up" * (y > 70)
