"""
Proxies that learn from the labels that the oracle has given: logistic regression.

Their predictions are calibrated. The labelled rows are divided into folds, and each is scored by a
regression that was fitted without its fold. Platt scaling of these values turns the scores of the
regression on all labels into probabilities.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_magics._util.validation import require_package
from llm_magics.dataframes.operators.calibration import platt, sigmoid
from llm_magics.dataframes.operators.proxies import Proxy
from llm_magics.dataframes.vectors import matrix, normalize

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

# The number of folds; fewer with many labels, where each fit takes longer and changes little.
_FOLDS, _FOLDS_OF_MANY, _MANY = 5, 3, 1000

# The strength of the regularization is chosen again when there are this many times more labels.
_CHOOSE_AGAIN = 2.0
_FEWEST_TO_CHOOSE = 40

# A gradient below this ends a fit; a proxy that is not exact is as valid as any other.
_TOLERANCE, _MOST_STEPS = 3e-4, 60

# The slope of standardized scores that cannot be calibrated: those of a single label of a class.
_WEAK_SLOPE = 0.5


class LinearClassifier(Proxy):
    """A logistic regression on features of the rows."""

    learns = True

    # Values of C, the inverse of the regularization's strength, and the default.
    grid: Sequence[float]
    default_c: float

    def __init__(self) -> None:
        require_package("scipy", "A proxy that learns", extra="operators")
        self._c = self.default_c
        self._chosen_at = 0
        self._coefficients: tuple[NDArray[np.float32], float] | None = None
        self._slope, self._intercept = 1.0, 0.0
        self._base_rate = 0.5

    @abstractmethod
    def _features(self) -> Any:
        """Return the matrix of features, dense or sparse, with a row for each distinct content."""

    def _content(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the row of the matrix for each of ``rows``."""
        return rows

    def _expand(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scores of all rows from those of the distinct contents."""
        return scores

    def fit(self, rows: NDArray[np.intp], labels: NDArray[np.int8]) -> None:
        """Fit the regression and its calibration to the labels."""
        count, positives, fewest = len(labels), int(labels.sum()), count_fewest(labels)
        self._base_rate = (positives + 1) / (count + 2)
        self._coefficients = None
        if not fewest:
            return
        features = self._features()[self._content(rows)]
        columns = _used_columns(features)
        features = features[:, columns]
        with _one_thread():
            if count >= _FEWEST_TO_CHOOSE and count >= _CHOOSE_AGAIN * self._chosen_at:
                self._c = self._choose_c(features, labels)
                self._chosen_at = count
            fitted = _fit(features, labels, self._c)
            weights = np.zeros(self._features().shape[1], np.float32)
            weights[columns] = fitted[0]
            self._coefficients = weights, fitted[1]
            if fewest == 1:
                self._calibrate_weakly(_decision(features, fitted))
                return
            values = _held_out(features, labels, self._c)
        self._slope, self._intercept = platt(values, labels.astype(np.float64))

    def _calibrate_weakly(self, values: NDArray[np.float64]) -> None:
        """Calibrate without values of rows whose label was unknown: the order matters, not more."""
        self._slope = _WEAK_SLOPE / max(float(values.std()), 1e-9)
        odds = np.log(self._base_rate / (1 - self._base_rate))
        self._intercept = float(odds - self._slope * values.mean())

    def predict(self) -> NDArray[np.float64]:
        """Return the calibrated probability of yes for each row."""
        features = self._features()
        if self._coefficients is None:
            scores = np.full(features.shape[0], self._base_rate)
        else:
            values = _decision(features, self._coefficients)
            scores = sigmoid(self._slope * values + self._intercept)
        return self._expand(scores)

    def held_out(self, rows: NDArray[np.intp], labels: NDArray[np.int8]) -> NDArray[np.float64]:
        """Return the score of each row by a regression that was fitted without its fold."""
        if count_fewest(labels) < 2:
            return np.zeros(len(rows))
        features = self._features()[self._content(rows)]
        features = features[:, _used_columns(features)]
        with _one_thread():
            return _held_out(features, labels, self._c)

    def _choose_c(self, features: Any, labels: NDArray[np.int8]) -> float:
        """Return the value of C with the lowest cross-validated loss."""
        if count_fewest(labels) < _FOLDS:
            return self.default_c
        losses = [_log_loss(_held_out(features, labels, c), labels) for c in self.grid]
        return self.grid[int(np.argmin(losses))]


class VectorClassifier(LinearClassifier):
    """A logistic regression on stored vectors."""

    # For vectors of length 1, scaled to a variance of about 1 in each dimension.
    grid = (0.003, 0.01, 0.03, 0.1)
    default_c = 0.01

    def __init__(self, column: Any, name: Hashable, rows: NDArray[np.intp]) -> None:
        """
        Read the vectors.

        Args:
            column: the column of vectors. Rows without one are predicted by the others' mean.
            name: its name.
            rows: the positions of the rows that have a question.

        Raises:
            UsageError: SciPy is not installed, or the vectors differ in length.
        """
        super().__init__()
        self.name = f"vectors in the column {name}"
        vectors = normalize(matrix(column)[rows])
        present = np.isfinite(vectors).all(axis=1)
        if present.any():
            vectors -= vectors[present].mean(axis=0)
        vectors *= np.sqrt(vectors.shape[1])
        vectors[~present] = 0.0
        self._vectors = vectors

    def _features(self) -> Any:
        return self._vectors


class KeywordClassifier(LinearClassifier):
    """A logistic regression on the words in the texts, weighted by TF-IDF."""

    grid = (1.0, 3.0, 10.0, 30.0)
    default_c = 10.0
    name = "keywords"

    def __init__(self, texts: Sequence[str], codes: NDArray[np.integer[Any]]) -> None:
        """
        Prepare to count words; they are counted when the first labels are there.

        Args:
            texts: the distinct texts.
            codes: the text of each row that has a question.

        Raises:
            UsageError: scikit-learn is not installed.
        """
        require_sklearn("A proxy of keywords")
        super().__init__()
        self._texts = texts
        self._codes = codes
        self._counted: Any = None

    def _features(self) -> Any:
        if self._counted is None:
            self._counted = count_words(self._texts)
        return self._counted

    def _content(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        return self._codes[rows].astype(np.intp)

    def _expand(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        expanded: NDArray[np.float64] = scores[self._codes]
        return expanded


# Texts whose words are longer than this on average are written without spaces.
_LONG_WORD = 16

# The most words and pairs of words that are features.
_MOST_WORDS = 50_000


def count_words(texts: Sequence[str]) -> Any:
    """
    Return a sparse matrix of TF-IDF weights, float32, with a row for each text.

    Features are words and pairs of words; for texts without spaces, up to three characters. If the
    texts have no words, the matrix is zero.
    """
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer

    head = texts[: min(len(texts), 200)]
    words = sum(len(text.split()) for text in head)
    by_words = sum(map(len, head)) <= _LONG_WORD * max(1, words)
    vectorizer = TfidfVectorizer(
        analyzer="word" if by_words else "char",
        ngram_range=(1, 2) if by_words else (1, 3),
        token_pattern=r"(?u)\b\w+\b" if by_words else None,
        sublinear_tf=True,
        max_features=_MOST_WORDS,
        min_df=1 if len(texts) < 500 else 2,
        dtype=np.float32,
    )
    try:
        return vectorizer.fit_transform(list(texts))
    except ValueError:  # no words
        return csr_matrix((len(texts), 1), dtype=np.float32)


def require_sklearn(what: str) -> None:
    """
    Check that scikit-learn is installed.

    Raises:
        UsageError: it is not.
    """
    require_package("sklearn", what, extra="operators", package="scikit-learn")


def _used_columns(features: Any) -> Any:
    """Return the columns with a weight: of sparse features, those of words that occur in a row."""
    return np.unique(features.indices) if hasattr(features, "indices") else slice(None)


def _fit(
    features: Any, labels: NDArray[np.int8], c: float, used: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.float32], float]:
    """
    Return the coefficients and the intercept of a logistic regression.

    ``used`` says which rows to learn from. SciPy's optimizer is called directly, because the checks
    of scikit-learn take longer than a fit to a few hundred rows.
    """
    from scipy.optimize import minimize

    signs = np.where(labels == 1, 1, -1).astype(np.float32)
    shares = np.ones(len(labels)) if used is None else used.astype(np.float64)
    shares /= shares.sum()
    penalty = 1 / (c * float(len(labels) if used is None else used.sum()))
    transposed = features.T

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        own, intercept = weights[:-1], weights[-1]
        margins = signs * (features @ own.astype(np.float32) + np.float32(intercept))
        pull = -signs * shares * sigmoid(-margins)
        gradient = np.append(transposed @ pull.astype(np.float32) + penalty * own, pull.sum())
        value = shares @ np.logaddexp(0, -margins) + penalty / 2 * (own @ own)
        return float(value), gradient

    start = np.zeros(features.shape[1] + 1)
    options = {"gtol": _TOLERANCE, "ftol": 0.0, "maxiter": _MOST_STEPS}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
    return found[:-1].astype(np.float32), float(found[-1])


def _decision(
    features: Any, coefficients: tuple[NDArray[np.float32], float]
) -> NDArray[np.float64]:
    weights, intercept = coefficients
    values: NDArray[np.float64] = (features @ weights).astype(np.float64) + intercept
    return values


def _held_out(features: Any, labels: NDArray[np.int8], c: float) -> NDArray[np.float64]:
    """Return the score of each row by a regression on the other folds; each class has two rows."""
    folds = stratified_folds(labels)
    values = np.empty(len(labels))
    for fold in range(int(folds.max()) + 1):
        is_in = folds == fold
        fitted = _fit(features, labels, c, ~is_in)
        values[is_in] = _decision(features[is_in], fitted)
    return values


def count_fewest(labels: NDArray[np.int8]) -> int:
    """Return the number of labels of the rarer class."""
    positives = int(labels.sum())
    return min(positives, len(labels) - positives)


def stratified_folds(labels: NDArray[np.int8]) -> NDArray[np.intp]:
    """Return the fold of each row; each fold has about the same share of both classes."""
    count = _FOLDS if len(labels) <= _MANY else _FOLDS_OF_MANY
    count = min(count, count_fewest(labels))
    folds = np.empty(len(labels), np.intp)
    for label in (0, 1):
        rows = np.flatnonzero(labels == label)
        folds[rows] = np.arange(len(rows)) % count
    return folds


def _log_loss(values: NDArray[np.float64], labels: NDArray[np.int8]) -> float:
    return float(np.logaddexp(0, np.where(labels == 1, -values, values)).mean())


@cache
def _thread_limits() -> Callable[..., AbstractContextManager[Any]]:
    import scipy.optimize  # noqa: F401 (its libraries are limited only if they are loaded)

    if find_spec("threadpoolctl") is None:  # it comes with scikit-learn
        return lambda *, limits: nullcontext(limits)
    from threadpoolctl import ThreadpoolController

    limit: Callable[..., AbstractContextManager[Any]] = ThreadpoolController().limit
    return limit


def _one_thread() -> AbstractContextManager[Any]:
    """Use one thread: the matrices are small, and threads that wait for a busy core are slower."""
    return _thread_limits()(limits=1)
