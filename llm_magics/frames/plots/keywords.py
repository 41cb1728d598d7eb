"""Words that a group of texts has, and others have not: a name that needs no model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WORD = re.compile(r"[^\W\d_]{3,}")
_WORDS_IN_A_NAME = 3


def keywords(texts: Sequence[str], numbers: NDArray[np.int64], count: int) -> list[str]:
    """
    For each of ``count`` groups the words that tell it from the others; "group 1" where none do.

    A word counts by the share of the group's texts that have it, times the logarithm of its
    rarity among all texts ("tf-idf", Spärck Jones, 1972).
    """
    words = [set(_WORD.findall(text.lower())) for text in texts]
    everywhere = Counter(word for each in words for word in each)
    names = []
    for group in range(count):
        mine = [words[place] for place in np.flatnonzero(numbers == group).tolist()]
        within = Counter(word for each in mine for word in each)
        scores = {
            word: often / len(mine) * np.log(len(words) / everywhere[word])
            for word, often in within.items()
            if often / len(mine) > (everywhere[word] - often) / max(1, len(words) - len(mine))
        }
        best = sorted(scores, key=lambda word: (-round(scores[word], 9), word))
        names.append(", ".join(best[:_WORDS_IN_A_NAME]) or f"group {group + 1}")
    return names
