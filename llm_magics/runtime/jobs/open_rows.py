"""Rows of a job and their numbers in the work of a run, in little memory."""

from __future__ import annotations

from array import array


class OpenRows:
    """The rows of a job whose results are not read yet, and their numbers in the work."""

    def __init__(self, numbers: array[int]) -> None:
        self._numbers = array("q", numbers)
        self._count = sum(number >= 0 for number in numbers)

    def __contains__(self, row: int) -> bool:
        return self._numbers[row] >= 0

    def __len__(self) -> int:
        return self._count

    def number(self, row: int) -> int:
        """Return the number in the work of an open row."""
        return self._numbers[row]

    def take(self, row: int) -> int:
        """Return the number in the work of an open row, which is no longer open."""
        number, self._numbers[row] = self._numbers[row], -1
        self._count -= 1
        return number

    def left(self) -> list[int]:
        """Return the open rows."""
        return [row for row, number in enumerate(self._numbers) if number >= 0]
