"""Many dimensions as two: principal components, or UMAP where that is installed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from llm_magics.dataframes.vectors import normalize
from llm_magics.errors import UsageError, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Array = NDArray[np.float32]
    Numbers = NDArray[np.int64]

Method = Literal["pca", "umap"]

# Oversampling and power iterations of the randomised decomposition: with these the first two
# components are exact to three digits.
_OVERSAMPLING, _POWER_ITERATIONS = 10, 8


def project(vectors: Floats, method: Method) -> tuple[Floats, tuple[float, float] | None]:
    """
    ``vectors`` (n, d) as points (n, 2), the same each time.

    Returns:
        The points; and, of principal components, the share of the variance that each has.

    Raises:
        UsageError: there is no such method, or it is not installed.
    """
    if method not in get_args(Method):
        msg = f"method cannot be {method!r}."
        raise UsageError(msg, hint=nearest(str(method), get_args(Method)))
    return principal_components(vectors) if method == "pca" else (_umap(vectors), None)


def principal_components(vectors: Floats) -> tuple[Floats, tuple[float, float]]:
    """
    The two principal components of ``vectors``, by randomised subspace iteration.

    Source: Halko, Martinsson & Tropp, "Finding structure with randomness", 2011, algorithm 4.4.
    """
    centred = vectors - vectors.mean(axis=0)
    wide = min(2 + _OVERSAMPLING, *centred.shape)
    basis = np.random.default_rng(0).standard_normal((centred.shape[1], wide)).astype(np.float32)
    for _ in range(_POWER_ITERATIONS):
        basis, _ = np.linalg.qr(centred.T @ (centred @ basis))
    _, sizes, turned = np.linalg.svd(centred @ basis, full_matrices=False)
    directions = _with_fixed_signs((basis @ turned.T).T[:2])
    points = np.zeros((len(vectors), 2), np.float32)  # of one dimension the second is nothing
    points[:, : len(directions)] = centred @ directions.T
    total_variance = float((centred.astype(np.float64) ** 2).sum()) or 1.0
    shares = [float(size) ** 2 / total_variance for size in sizes[:2]]
    return points, (shares[0], shares[1] if len(shares) > 1 else 0.0)


def _with_fixed_signs(directions: Any) -> Any:
    """Each the way that its largest number is positive: the other way is as right."""
    largest = np.abs(directions).argmax(axis=1)
    signs = np.sign(directions[np.arange(len(directions)), largest])
    return directions * np.where(signs == 0, 1, signs)[:, None]


def _umap(vectors: Floats) -> Floats:
    """
    Neighbours stay neighbours; distances further off mean little.

    Source: McInnes, Healy & Melville, "UMAP", 2018, https://arxiv.org/abs/1802.03426.
    """
    if find_spec("umap") is None:
        msg = "UMAP is not installed."
        raise UsageError(msg, hint='pip install umap-learn, or leave method="umap" out.')
    import umap

    near = min(15, len(vectors) - 1)
    if near < 3:
        return principal_components(vectors)[0]
    reducer = umap.UMAP(
        n_neighbors=near,
        metric="cosine",
        random_state=0,
        n_jobs=1,
        init="random" if near < 5 else "spectral",
    )
    points: Floats = np.asarray(reducer.fit_transform(vectors), np.float32)
    return points


_RESTARTS, _MAX_ITERATIONS = 10, 50

# Centres are found among so many vectors; all are put to them afterwards.
_SAMPLE = 20_000


def cluster(vectors: Array, k: int) -> tuple[Numbers, Array]:
    """
    A number for each of ``vectors`` (n, d), the largest group first, and the centres (k, d).

    Centres begin far from each other ("k-means++"); of several tries the tightest counts.
    Source: Arthur & Vassilvitskii, "k-means++: the advantages of careful seeding", 2007.
    """
    rows = normalize(vectors)
    draw = np.random.default_rng(0)
    sample = rows if len(rows) <= _SAMPLE else rows[draw.choice(len(rows), _SAMPLE, replace=False)]
    tries = (_refine_centres(sample, _seed_centres(sample, k, draw)) for _ in range(_RESTARTS))
    centres = max(tries, key=lambda each: float((sample @ each.T).max(axis=1).sum()))
    numbers = (rows @ centres.T).argmax(axis=1)
    order = np.argsort(-np.bincount(numbers, minlength=len(centres)), kind="stable")
    return np.argsort(order)[numbers], centres[order]


def _seed_centres(rows: Array, k: int, draw: np.random.Generator) -> Array:
    centres = [rows[draw.integers(len(rows))]]
    far = 1 - rows @ centres[0]
    for _ in range(k - 1):
        chances = np.clip(far, 0, None).astype(np.float64) ** 2
        total = chances.sum()
        row = draw.choice(len(rows), p=chances / total) if total else draw.integers(len(rows))
        centres.append(rows[row])
        far = np.minimum(far, 1 - rows @ centres[-1])
    return np.stack(centres)


def _refine_centres(rows: Array, centres: Array) -> Array:
    """Each centre to the middle of its rows, until none changes."""
    numbers = np.full(len(rows), -1)
    for _ in range(_MAX_ITERATIONS):
        now = (rows @ centres.T).argmax(axis=1)
        if (now == numbers).all():
            break
        numbers = now
        sums = np.zeros_like(centres)
        np.add.at(sums, numbers, rows)
        moved = normalize(sums)
        centres = np.where(np.isnan(moved), centres, moved)  # nobody's centre stays where it is
    return centres


_WORD = re.compile(r"[^\W\d_]{3,}")
_WORDS_PER_NAME = 3

# Words of English that stand in any text and name no group. They are passed over in other languages
# too, where a few of them mean something; for the rest rarity decides.
_STOP_WORDS = frozenset(
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
    words = [set(_WORD.findall(text.lower())) - _STOP_WORDS for text in texts]
    everywhere = Counter(word for each in words for word in each)
    names = []
    for group in range(count):
        mine = [words[row] for row in np.flatnonzero(numbers == group).tolist()]
        within = Counter(word for each in mine for word in each)
        scores = {
            word: often / len(mine) * np.log(len(words) / everywhere[word])
            for word, often in within.items()
            if often / len(mine) > (everywhere[word] - often) / max(1, len(words) - len(mine))
        }
        best = sorted(scores, key=lambda word: (-round(scores[word], 9), word))
        names.append(", ".join(best[:_WORDS_PER_NAME]) or f"group {group + 1}")
    return names
