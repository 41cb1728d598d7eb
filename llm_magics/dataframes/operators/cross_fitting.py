"""Predictions of a proxy that do not depend on the label they are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llm_magics.dataframes.operators.oracle import NO, YES
from llm_magics.dataframes.operators.prediction_powered import Predictions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llm_magics.dataframes.operators.proxies import Proxy

# The number of folds; fewer with many labels, where each fit takes longer and changes little.
_FOLDS, _FOLDS_OF_MANY, _MANY = 10, 5, 1000


def labelled_rows(
    items: NDArray[np.intp], drawn: NDArray[np.intp], answers: NDArray[np.int8]
) -> NDArray[np.intp]:
    """
    Return a row of each item with the answer `YES` or `NO`: the first one drawn.

    Args:
        items: the item of each row.
        drawn: the rows that were drawn.
        answers: the answer about each item.
    """
    _, first = np.unique(items[drawn], return_index=True)
    rows = drawn[np.sort(first)]
    found: NDArray[np.intp] = rows[np.isin(answers[items[rows]], (YES, NO))]
    return found


def cross_fit(
    proxy: Proxy, items: NDArray[np.intp], rows: NDArray[np.intp], answers: NDArray[np.int8]
) -> Predictions:
    """
    Return the predictions of ``proxy`` for all rows.

    For a proxy that learns, the labels are divided into folds, without regard to the answers; the
    predictions of a fold come from the labels of the other folds, and are standardized.

    Args:
        proxy: the proxy.
        items: the item of each row.
        rows: a row of each item with an answer, in the order in which they were drawn.
        answers: the answer about each item.
    """
    folds = np.zeros(len(answers), np.intp)
    if not proxy.learns:
        return Predictions(values=proxy.predict()[None], folds=folds)
    count = _FOLDS if len(rows) <= _MANY else _FOLDS_OF_MANY
    count = max(1, min(count, len(rows)))
    labels = answers[items[rows]]
    fold = np.arange(len(rows)) % count
    folds[items[rows]] = fold
    values = np.empty((count, len(items)))
    for number in range(count):
        others = np.flatnonzero(fold != number)
        proxy.fit(rows[others], labels[others])
        values[number] = proxy.predict()
    # The fits of the folds differ in their scale, but all folds share one slope.
    values -= values.mean(axis=1, keepdims=True)
    scale = values.std(axis=1, keepdims=True)
    values /= np.where(scale > 0, scale, 1)
    return Predictions(values=values, folds=folds)


def correlation(
    predictions: Predictions,
    items: NDArray[np.intp],
    rows: NDArray[np.intp],
    answers: NDArray[np.int8],
) -> float:
    """
    Return the correlation of predictions with the labels of ``rows``, which they do not use.

    A prediction counts as its difference from those of the rows without a label.
    """
    folds = predictions.folds[items[rows]]
    others = np.flatnonzero(answers[items] < 0)
    means = (
        predictions.values[:, others].mean(axis=1)
        if len(others)
        else np.zeros(len(predictions.values))
    )
    values = predictions.values[folds, rows] - means[folds]
    labels = answers[items[rows]].astype(np.float64)
    if len(rows) < 2 or values.std() < 1e-9 or not labels.std():
        return 0.0
    return float(np.corrcoef(values, labels)[0, 1])
