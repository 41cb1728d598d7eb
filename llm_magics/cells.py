"""Which cell of the notebook is running; told by the notebook, read by all."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import uuid4


@dataclass(frozen=True, slots=True)
class Cell:
    """
    A run of a cell.

    Attributes:
        key: what tells the cell from all others, also when it runs again; empty where none is known.
        number: that of the run, as in ``In [3]``.
        run: what tells this run from all others.
    """

    key: str = ""
    number: int | None = None
    run: str = field(default_factory=lambda: uuid4().hex, compare=False)


_running = Cell()


def running() -> Cell:
    """The cell that runs, or ran last."""
    return _running


def begin(cell: Cell) -> None:
    """``cell`` runs from now on."""
    global _running  # noqa: PLW0603 (one notebook a process)
    _running = cell
