"""The widget of a `VectorMap`: the points (jupyter-scatter), a search, and the selected texts."""

from __future__ import annotations

import html
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets
import numpy as np
import pandas as pd
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.getipython import get_ipython
from IPython.display import publish_display_data

from llm_magics._util.plotting import OTHERS_COLOUR, Marks, colour_ramp, png_of, single_line
from llm_magics._util.text import pluralize
from llm_magics.dataframes.map_selection import PointSelection
from llm_magics.dataframes.vector_plot import PICTURE_DPI, PICTURE_WIDTH_PX, VectorPlot
from llm_magics.errors import LLMError
from llm_magics.host import TRANSIENT_KEY
from llm_magics.secrets import redact
from llm_magics.settings.config import config

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Codes = NDArray[np.int64]

_HEIGHT_PX = 460

# The longest text under the mouse, and of the selected texts in the list.
_MAX_HOVER, _MAX_LISTED = 400, 90
_LISTED_ROWS = 8

# The numbers of rows that a search can select, and the one that is chosen at first.
_SEARCH_ROWS, _DEFAULT_ROWS = (10, 20, 50, 100, 500), 20

# The number of colours for numbers.
_RAMP_STEPS = 32

# The size of a point in pixels, for few points and for many.
_LARGE_POINT, _SMALL_POINT, _MANY_POINTS = 5, 2, 20_000

# A few selected points are enlarged, so that they are visible among many. More of them would hide
# their neighbours.
_MAX_ENLARGED = 1000
_ENLARGED = {"pointSizeSelected": 4, "pointOutlineWidth": 1}
_AS_BEFORE = {"pointSizeSelected": 0.01, "pointOutlineWidth": 0.01}  # 0 is ignored

# At a distance of 1, the outermost points are on the edges.
_CAMERA_DISTANCE = 1.08

# Opaque enough to see the other points while some are selected.
_UNSELECTED_OPACITY = 0.15

_GREY = "color:#797979"  # can be read on light and dark pages
_HOW_TO = "Draw around points to select them, or search for a meaning."


class MapWidget:
    """Shows the points of a plot, on which ``selected`` is changed with the mouse and ``search``."""

    def __init__(
        self, plot: VectorPlot, selected: PointSelection, search: Callable[[str, int], object]
    ) -> None:
        self._plot, self._selected, self._search = plot, selected, search
        self._marks = plot.marks()
        self._codes, self._colours = _colour_codes(self._marks)
        self._points = _create_points(plot, self._codes, self._colours)
        self._query = ipywidgets.Text(
            description="Search",
            placeholder="a meaning, then Enter",
            continuous_update=False,
            layout=ipywidgets.Layout(width="340px", max_width="100%"),
        )
        self._rows = ipywidgets.Dropdown(
            description="Rows",
            options=_SEARCH_ROWS,
            value=_DEFAULT_ROWS,
            layout=ipywidgets.Layout(width="160px"),
        )
        self._clear = ipywidgets.Button(description="Clear", layout={"width": "80px"})
        self._list = ipywidgets.HTML(layout=ipywidgets.Layout(width="100%"))
        self.box = self._lay_out()
        self._points.observe(self._take_selection, "selection")
        self._query.observe(self._search_query, "value")
        self._rows.observe(self._search_query, "value")
        self._clear.on_click(self._empty)
        selected.on_change(self._render)
        self._render()

    def _lay_out(self) -> ipywidgets.VBox:
        wrapped = ipywidgets.Layout(flex_flow="row wrap", width="100%")
        search = ipywidgets.HBox([self._query, self._rows, self._clear], layout=wrapped)
        points = ipywidgets.Box([self._points], layout={"flex": "3 1 380px", "min_width": "0"})
        side = ipywidgets.VBox(
            [ipywidgets.HTML(_legend_html(self._marks)), self._list],
            layout={"flex": "1 1 240px", "padding": "0 0 0 12px", "min_width": "0"},
        )
        title = ipywidgets.HTML(_paragraph(self._plot.title + self._marks.title_suffix, _GREY))
        below = ipywidgets.HBox([points, side], layout=wrapped)
        return ipywidgets.VBox([title, search, below], layout={"width": "100%"})

    def _take_selection(self, change: Any) -> None:
        """Take over what is selected with the mouse."""
        points = change["new"]
        selected = np.empty(0, np.int64) if points is None else np.asarray(points, np.int64)
        if not self._selected.has(selected):
            self._selected.points = np.sort(selected)

    def _search_query(self, _: Any) -> None:
        query = self._query.value.strip()
        if not query:
            return
        self._list.value = _paragraph(f"Searching for “{query}” …")
        try:
            self._search(query, self._rows.value)
        except LLMError as error:
            self._list.value = _paragraph(redact(f"{error} {error.hint or ''}"))
        else:
            self._render()

    def _empty(self, _: Any) -> None:
        self._query.value = ""
        self._selected.clear()
        self._render()

    def _render(self) -> None:
        """Show the selection."""
        shown, selected = self._points.selection, self._selected.points
        if not self._selected.has(np.empty(0, np.int64) if shown is None else shown):
            self._points.selection = selected.astype(np.uint32)
        self._points.regl_scatterplot_options = (
            _ENLARGED if len(selected) <= _MAX_ENLARGED else _AS_BEFORE
        )
        self._list.value = self._selection_html(selected)

    def _selection_html(self, selected: Codes) -> str:
        """Return how many points are selected, and the first of their texts."""
        if not len(selected):
            return _paragraph(_HOW_TO, _GREY)
        texts = self._plot.frame["text"]
        listed = selected[:_LISTED_ROWS].tolist()
        lines = [
            f"<div>{_dot(self._colours[self._codes[point]])}"
            f"{_escaped(texts.iloc[point], _MAX_LISTED)}</div>"
            for point in listed
        ]
        if more := len(selected) - len(listed):
            lines.append(f'<div style="{_GREY}">and {more:,} more</div>')
        count = f"{len(selected):,} of {pluralize(len(texts), 'point')} selected"
        return _block(f"<b>{count}</b>{''.join(lines)}")


def _create_points(plot: VectorPlot, codes: Codes, colours: Sequence[str]) -> Any:
    """Return the points as a widget, which requests the text under the mouse from the kernel."""
    texts = [single_line(text, _MAX_HOVER) for text in plot.frame["text"]]
    data = pd.DataFrame({"x": plot.frame["x"].array, "y": plot.frame["y"].array, "text": texts})
    with warnings.catch_warnings():
        # jupyter-scatter 1.0 uses what pandas 3.1 deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        from jscatter import Scatter
    scatter = Scatter("x", "y", data=data, height=_HEIGHT_PX, axes=False)
    scatter.background("#ffffff00")  # transparent, on light and dark pages
    if len(colours) > 1:
        data["group"] = pd.Categorical.from_codes(codes, pd.RangeIndex(len(colours)))
        scatter.color(by="group", map=list(colours))
    else:
        scatter.color(default=colours[0])
    scatter.tooltip(enable=True, properties=[], preview="text", preview_text_lines=6)
    scatter.opacity(unselected=_UNSELECTED_OPACITY)
    scatter.camera(distance=_CAMERA_DISTANCE)
    scatter.mouse(mode="lasso")  # JupyterLab uses Shift and a drag to select cells
    scatter.size(default=_LARGE_POINT if len(codes) < _MANY_POINTS else _SMALL_POINT)
    widget = scatter.show()
    widget.layout.width = "100%"
    widget.color_selected = widget.color  # the colour of a selected point is that of its group
    return widget


def _colour_codes(marks: Marks) -> tuple[Codes, list[str]]:
    """Return the position of each point's colour among the colours that occur, and these colours."""
    if marks.span is None:
        codes, colours = marks.numbers, list(marks.colours)
    else:
        codes, colours = _ramp_codes(marks)
    used, codes = np.unique(codes, return_inverse=True)
    return codes, [colours[code] for code in used.tolist()]


def _ramp_codes(marks: Marks) -> tuple[Codes, list[str]]:
    from matplotlib.colors import to_hex

    assert marks.quantities is not None
    assert marks.span is not None
    low, high = marks.span
    shares = (marks.quantities - low) / ((high - low) or 1.0)
    is_known = np.isfinite(shares)
    steps = (np.where(is_known, shares, 0) * (_RAMP_STEPS - 1)).round().astype(np.int64)
    ramp = colour_ramp()
    colours = [to_hex(ramp(step / (_RAMP_STEPS - 1))) for step in range(_RAMP_STEPS)]
    return np.where(is_known, steps, _RAMP_STEPS), [*colours, OTHERS_COLOUR]


def _paragraph(text: str, style: str = "") -> str:
    return _block(_escaped(text, 300), style)


def _block(content: str, style: str = "") -> str:
    layout = "line-height:1.5;white-space:normal"
    return f'<div class="mathjax_ignore tex2jax_ignore" style="{layout};{style}">{content}</div>'


def _escaped(text: str, length: int) -> str:
    return html.escape(single_line(text, length))


def _dot(colour: str) -> str:
    return (
        f'<span style="display:inline-block;width:9px;height:9px;border-radius:50%;'
        f'background:{colour};margin-right:6px"></span>'
    )


def _legend_html(marks: Marks) -> str:
    if not marks.names:
        return ""
    counts = np.bincount(marks.numbers, minlength=len(marks.names)).tolist()
    lines = (
        f'<div>{_dot(colour)}{_escaped(name, 60)} <span style="{_GREY}">{count:,}</span></div>'
        for name, colour, count in zip(marks.names, marks.colours, counts, strict=True)
    )
    return _block("".join(lines))


def is_watched() -> bool:
    """Whether the code runs in a notebook that a person watches, so that widgets are useful."""
    shell = get_ipython()
    if not hasattr(shell, "kernel") or config.render in ("static", "text"):
        return False
    if isinstance(shell.display_pub, CapturingDisplayPublisher):
        return False
    return config.render == "live" or bool(getattr(shell.kernel, "_allow_stdin", True))


_VIEW = "application/vnd.jupyter.widget-view+json"


def display_map(plot: VectorPlot, words: str, widget: MapWidget | None) -> None:
    """Display the widget, if there is one, and the picture; in a terminal, only ``words``."""
    shell = get_ipython()
    if not hasattr(shell, "kernel") or config.render == "text":
        sys.stdout.write(f"{words}\n")
        return
    if widget is not None:
        view = {"version_major": 2, "version_minor": 0, "model_id": widget.box.model_id}
        publish_display_data({_VIEW: view}, {TRANSIENT_KEY: "widget"})
    picture = png_of(plot.figure(), dpi=PICTURE_DPI)
    publish_display_data(
        {"image/png": picture, "text/plain": words},
        {"image/png": {"width": PICTURE_WIDTH_PX}},
    )
