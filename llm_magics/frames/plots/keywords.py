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

# Words of English that stand in any text and name no group. They are passed over in other languages
# too, where a few of them mean something; for the rest rarity decides.
_NO_NAMES = frozenset(
    """
    about above after again all also although always and another any are aren because been before
    being below between both but can cannot could couldn did didn does doesn doing don done down
    during each either else ever every few for from further get gets getting give given goes going
    gone got had hadn has hasn have haven having her here hers him his how however into isn its
    just keep let like made make makes many may maybe might more most much must neither never nor
    not now off often once one only other others our ours out over own quite rather really said
    same say says seem seems shall she should shouldn since some still such than that the their
    theirs them then there these they thing things this those though through thus too under until
    upon use used using very want wanted was wasn way well went were weren what when where whether
    which while who whom whose why will with within without won would wouldn yet you your yours
    """.split()  # noqa: SIM905 (a list of them would be pages long)
)


def keywords(texts: Sequence[str], numbers: NDArray[np.int64], count: int) -> list[str]:
    """
    For each of ``count`` groups the words that tell it from the others; "group 1" where none do.

    A word counts by the share of the group's texts that have it, times the logarithm of its
    rarity among all texts ("tf-idf", Spärck Jones, 1972). English words such as "with" are passed over.
    """
    words = [set(_WORD.findall(text.lower())) - _NO_NAMES for text in texts]
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
