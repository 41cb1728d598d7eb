"""Projection of vectors to two dimensions, clusters and their keywords, with scikit-learn."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from llm_magics._util.validation import require_package
from llm_magics.dataframes.vectors import normalize
from llm_magics.errors import UsageError, nearest
from llm_magics.host import Progress, ProgressDisplay

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Numbers = NDArray[np.int64]

Method = Literal["pca", "umap"]


def check_method(method: Method) -> None:
    """
    Check that `project` can use ``method``, before any text is embedded.

    Raises:
        UsageError: ``method`` is unknown, or a package it needs is not installed.
    """
    if method not in get_args(Method):
        msg = f"Invalid method: {method!r}."
        raise UsageError(msg, hint=nearest(str(method), get_args(Method)))
    require_package("sklearn", "A picture of vectors", extra="plots", package="scikit-learn")
    if method == "umap" and find_spec("umap") is None:
        msg = "UMAP is not installed."
        raise UsageError(msg, hint='Run: pip install umap-learn, or leave method="umap" out.')


def project(
    vectors: Floats, method: Method, show: ProgressDisplay
) -> tuple[Floats, tuple[float, float] | None]:
    """
    Project ``vectors`` (n, d) to points (n, 2). The result is reproducible.

    For principal components, also return the share of the variance of each of the two.
    """
    show(Progress(f"projecting {len(vectors):,} vectors"))
    if method == "pca":
        return principal_components(vectors)
    return _umap(vectors, show), None


def principal_components(vectors: Floats) -> tuple[Floats, tuple[float, float]]:
    """Return the two principal components of ``vectors``, and their shares of the variance."""
    from sklearn.decomposition import PCA
    from sklearn.utils.extmath import svd_flip

    count = min(2, *vectors.shape)
    # With eight power iterations the components are exact to three digits.
    pca = PCA(count, svd_solver="randomized", iterated_power=8, random_state=0)
    points = np.zeros((len(vectors), 2), np.float32)  # a single dimension has no second component
    with np.errstate(over="ignore", invalid="ignore"):  # equal vectors have no variance to share
        scores = pca.fit_transform(vectors)
    # The sign of a component depends on the version of PCA: make its largest number positive.
    points[:, :count], _ = svd_flip(scores, pca.components_, u_based_decision=False)
    shares = [*np.nan_to_num(pca.explained_variance_ratio_).tolist(), 0.0]
    return points, (shares[0], shares[1])


def _umap(vectors: Floats, show: ProgressDisplay) -> Floats:
    """
    Project vectors with UMAP, which preserves neighbourhoods but not large distances.

    Source: McInnes, Healy & Melville, "UMAP", 2018, https://arxiv.org/abs/1802.03426.
    """
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
    with _shown_epochs(show):
        points: Floats = np.asarray(reducer.fit_transform(vectors), np.float32)
    return points


@contextmanager
def _shown_epochs(show: ProgressDisplay) -> Iterator[None]:
    """
    Display the progress of UMAP inside the block.

    UMAP accepts no callback, and its progress bar would remain in the notebook, so the function
    that it counts its epochs with is replaced.
    """
    from umap import layouts

    def count(epochs: Sequence[int], **_: Any) -> Iterator[int]:
        began = time.perf_counter()
        for done, epoch in enumerate(epochs, 1):
            yield epoch
            elapsed_s = time.perf_counter() - began
            show(Progress("projecting with UMAP", done, len(epochs), "epochs", elapsed_s))

    original = layouts.tqdm
    layouts.tqdm = count
    try:
        yield
    finally:
        layouts.tqdm = original


_RESTARTS, _MAX_ITERATIONS = 4, 50

# The size of the sample in which centres are found. All vectors are then assigned to a centre.
_SAMPLE = 20_000


def cluster(vectors: Floats, k: int) -> tuple[Numbers, Floats]:
    """Return the cluster of each of ``vectors`` (n, d), the largest first, and the centres (k, d)."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    rows = normalize(vectors)
    draw = np.random.default_rng(0)
    sample = rows if len(rows) <= _SAMPLE else rows[draw.choice(len(rows), _SAMPLE, replace=False)]
    kmeans = KMeans(k, n_init=_RESTARTS, max_iter=_MAX_ITERATIONS, random_state=0)
    with warnings.catch_warnings():  # with fewer distinct vectors than k, some clusters are empty
        warnings.simplefilter("ignore", ConvergenceWarning)
        kmeans.fit(sample)
    numbers = kmeans.predict(rows)
    order = np.argsort(-np.bincount(numbers, minlength=k), kind="stable")
    return np.argsort(order)[numbers], kmeans.cluster_centers_[order]


# A run of three letters or more. Numbers are not useful as names.
_WORD = r"[^\W\d_]{3,}"
_WORDS_PER_NAME = 3

# scikit-learn's English stop words include a few useful nouns and do not include the parts of
# contractions.
_NAMING_WORDS = frozenset(["bill", "cry", "detail", "fire", "front", "interest", "mill", "system"])
_CONTRACTIONS = frozenset(
    ["aren", "didn", "doesn", "don", "hadn", "hasn", "haven", "isn", "wasn", "weren", "won"]
)


def keywords(texts: Sequence[str], numbers: Numbers, count: int) -> list[str]:
    """
    Return for each of ``count`` clusters the words that distinguish it, or "group 1".

    A word is scored by its share of the cluster's texts, times the logarithm of its
    rarity among all texts (class-based tf-idf). English words such as "with" are ignored.
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

    stop_words = ENGLISH_STOP_WORDS - _NAMING_WORDS | _CONTRACTIONS
    vectorizer = CountVectorizer(binary=True, token_pattern=_WORD, stop_words=sorted(stop_words))
    try:
        has_word = vectorizer.fit_transform(texts)
    except ValueError:  # none of the texts has a word
        return [f"group {number + 1}" for number in range(count)]
    words = vectorizer.get_feature_names_out()
    everywhere = _column_sums(has_word)
    names = []
    for number in range(count):
        is_mine = numbers == number
        size = int(is_mine.sum())
        within = _column_sums(has_word[is_mine])
        share = within / max(1, size)
        is_telling = share > (everywhere - within) / max(1, len(texts) - size)
        scores = np.where(is_telling, share * np.log(len(texts) / everywhere), -1.0).round(9)
        best = np.argsort(-scores, kind="stable")[:_WORDS_PER_NAME]  # ties in alphabetical order
        chosen = words[best[is_telling[best]]].tolist()
        names.append(", ".join(chosen) or f"group {number + 1}")
    return names


def _column_sums(matrix: Any) -> Any:
    return np.asarray(matrix.sum(axis=0), np.float64).ravel()
