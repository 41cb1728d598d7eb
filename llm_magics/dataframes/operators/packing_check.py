"""
How many rows may be in one prompt, found by asking a sample of rows in both ways.

The rows of the sample are asked alone, and again in prompts of 20, 10 and 5 rows, until a size
gives the same answers. At most one of 30 answers may differ: the share of differing answers is
then at most 15 % at a confidence of 95 % (the exact binomial bound; 10 % if none differs). If all
answers but one are the same, such as in a table in which few rows are positive, the sample says
little about the other answer, and more than 5 rows are not packed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

# The number of rows that are asked in both ways, and how many of them may differ.
SAMPLE = 30
_MOST_DIFFERENT = 1

# The numbers of rows in a prompt that are tried.
SIZES = (20, 10, 5)

# The prompts in addition to those of packs that a check needs to try 20 and 10 rows, or only 5.
CHECK_PROMPTS = 32

# With fewer answers that can be compared, rows are asked alone.
_FEWEST = 20

# With fewer answers that differ from the others, only the smallest size is tried.
_FEWEST_OTHERS = 2

# For fewer rows, the check would cost more than it saves.
FEWEST_ROWS = 4 * SAMPLE


@dataclass(frozen=True, kw_only=True)
class PackingCheck:
    """
    The result of a check.

    Attributes:
        rows_per_prompt: the number of rows in a prompt from now on; 1 if no size passed.
        rows: the number of rows that were compared.
        different: how many answers differed, for each size that was tried.
    """

    rows_per_prompt: int
    rows: int
    different: dict[int, int]

    @property
    def extra_prompts(self) -> int:
        """
        The most prompts that the check added.

        All rows are asked in at most one prompt for each pack of ``rows_per_prompt`` rows, and in
        these.
        """
        return _extra_prompts(list(self.different), self.rows_per_prompt)

    def __str__(self) -> str:
        tried = ", ".join(
            f"{count} of {self.rows} with {size}" for size, count in self.different.items()
        )
        many = "1 row" if self.rows_per_prompt == 1 else f"{self.rows_per_prompt} rows"
        return f"{many} in a prompt" + (f" (answers that differed: {tried})" if tried else "")


def check_sizes(
    alone: Sequence[Any],
    ask_packed: Callable[[int], Sequence[Any]],
    is_same: Callable[[Any, Any], bool],
    max_extra: int | None = None,
) -> PackingCheck:
    """
    Return the largest size whose answers are the same.

    Args:
        alone: the answer to each row of the sample, asked alone; ``None`` if it failed.
        ask_packed: returns the answers to these rows in prompts of a number of rows, where ``None``
            means that the row had no valid answer.
        is_same: whether two answers are the same.
        max_extra: the most prompts that the check may add; sizes that need more are not tried.
    """
    answered = [place for place, answer in enumerate(alone) if answer is not None]
    different: dict[int, int] = {}
    if len(answered) < _FEWEST:
        return PackingCheck(rows_per_prompt=1, rows=len(answered), different=different)
    known = [alone[place] for place in answered]
    others = min(sum(not is_same(one, other) for other in known) for one in known)
    for size in SIZES if others >= _FEWEST_OTHERS else SIZES[-1:]:
        if max_extra is not None and _extra_prompts([*different, size], size) > max_extra:
            break
        packed = ask_packed(size)
        different[size] = sum(
            packed[place] is None or not is_same(alone[place], packed[place]) for place in answered
        )
        if different[size] <= _MOST_DIFFERENT:
            return PackingCheck(rows_per_prompt=size, rows=len(answered), different=different)
    return PackingCheck(rows_per_prompt=1, rows=len(answered), different=different)


def _extra_prompts(tried: Sequence[int], size: int) -> int:
    """Return how many prompts a check adds that tries some sizes, and ends with ``size``."""
    saved = SAMPLE // size  # the rows of the sample are not asked again
    return max(0, SAMPLE + sum(-(-SAMPLE // each) for each in tried) - saved)
