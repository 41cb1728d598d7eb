"""A figure of matplotlib's that shows itself in a notebook, whether or not pyplot was imported."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class ShownFigure(Figure):
    """pyplot, which keeps figures until they are closed, has no part in it."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=110)
        return file.getvalue()
