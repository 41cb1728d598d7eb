"""
`VectorMap`: an interactive map of a column of vectors, and the rows that are selected on it.

A notebook shows two outputs: the widget, and a picture with the same colours. A widget is visible
only while its kernel runs, so the picture is what a saved or exported notebook shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llm_magics._util.validation import check_integer, require_package
from llm_magics.dataframes.map_selection import PointSelection
from llm_magics.dataframes.plot import PlottedColumn, project_column
from llm_magics.dataframes.search import nearest
from llm_magics.dataframes.vector_plot import VectorPlot
from llm_magics.dataframes.vectors import find_embedding_model, tag_array
from llm_magics.errors import UsageError

if TYPE_CHECKING:
    from llm_magics.dataframes.map_widget import MapWidget


def create_map(
    frame: pd.DataFrame, column: pd.Series[Any], *, model: str | None = None, **options: Any
) -> VectorMap:
    """
    Return a map of ``column``, whose rows are those of ``frame``. The options are those of `plot`.

    Raises:
        UsageError: jupyter-scatter is not installed, or as for `plot`.
    """
    require_package("jscatter", "A map", extra="map", package="jupyter-scatter")
    plotted = project_column(column, model=model, **options)
    embedding_model = find_embedding_model(column)
    if embedding_model is not None:  # a search finds it with the array
        tag_array(plotted.vectors, embedding_model)
    return VectorMap(frame, plotted, model)


class VectorMap:
    """
    An interactive map of vectors. In a notebook, points are selected with the mouse or by a search.

    Attributes:
        plot: the map as a picture, whose ``frame`` has the points.
    """

    def __init__(self, frame: pd.DataFrame, plotted: PlottedColumn, model: str | None) -> None:
        self.plot: VectorPlot = plotted.plot
        self._frame, self._index = frame, frame.index
        self._positions = plotted.positions
        self._vectors, self._model = plotted.vectors, model
        self._selected = PointSelection()
        self._widget: MapWidget | None = None

    @property
    def selection(self) -> pd.DataFrame:
        """
        The selected rows of the DataFrame, as they are now; after a search, the best first.

        Raises:
            UsageError: rows of the DataFrame were added, removed or moved since the map was made.
        """
        if not self._frame.index.equals(self._index):
            msg = "The rows of the DataFrame have changed since the map was made."
            raise UsageError(msg, hint="Make it again: df.llm.map(…)")
        return self._frame.iloc[self._positions[self._selected.points]]

    def search(self, query: str, k: int = 20, *, prefix: str = "") -> pd.DataFrame:
        """
        Select the ``k`` rows whose vectors are closest to ``query``; return them, best first.

        Args:
            query: a text, which is embedded, or a vector.
            k: number of rows.
            prefix: as for `llm_magics.nearest`.
        """
        k = check_integer("k", k)
        cosines = nearest(self._vectors, query, k=k, model=self._model, prefix=prefix)
        found = cosines.index.to_numpy(np.int64)
        found = found[np.isin(found, self._positions)]  # a vector may be too large for a point
        self._selected.points = np.searchsorted(self._positions, found)
        return self.selection

    def select(self, rows: Any) -> pd.DataFrame:
        """
        Select the rows for which ``rows`` is true, ``m.select(df.rating < 3)``; return them.

        Rows without a vector are not on the map and are not selected.

        Raises:
            UsageError: ``rows`` is not a column of ``True`` and ``False`` for all rows.
        """
        try:
            mask = pd.Series(rows)
        except (TypeError, ValueError):
            mask = pd.Series()
        is_aligned = not isinstance(rows, pd.Series) or mask.index.equals(self._index)
        if len(mask) != len(self._index) or not pd.api.types.is_bool_dtype(mask) or not is_aligned:
            msg = f"select needs True or False for each of the {len(self._index):,} rows."
            raise UsageError(msg, hint="Pass a condition: m.select(df.rating < 3)")
        is_selected = mask.to_numpy(np.bool_, na_value=False)
        self._selected.points = np.flatnonzero(is_selected[self._positions])
        return self.selection

    def clear(self) -> None:
        """Select no row."""
        self._selected.clear()

    def on_select(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` without arguments whenever the selection has changed."""
        self._selected.on_change(callback)

    def _ipython_display_(self) -> None:
        """Display the widget where a person watches, and the picture in any notebook."""
        from llm_magics.dataframes.map_widget import MapWidget, display_map, is_watched

        if self._widget is None and is_watched():
            self._widget = MapWidget(self.plot, self._selected, self.search)
        display_map(self.plot, repr(self), self._widget)

    def __repr__(self) -> str:
        return f"VectorMap({self.plot.title})"
