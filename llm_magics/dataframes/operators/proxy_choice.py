"""The proxy that the argument ``proxy=`` of an operator means, and the choice among several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_magics.dataframes.operators.calibration import platt, sigmoid
from llm_magics.dataframes.operators.classifiers import (
    KeywordClassifier,
    VectorClassifier,
    count_fewest,
    require_sklearn,
    stratified_folds,
)
from llm_magics.dataframes.operators.model_proxies import (
    ModelAnswers,
    ModelConfidence,
    may_have_confidence,
)
from llm_magics.dataframes.operators.proxies import ColumnScores, Proxy
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.dataframes.vectors import is_vector_column
from llm_magics.errors import UnsupportedError, UsageError, abbreviate
from llm_magics.runtime.session import session

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame

    from llm_magics.dataframes.row_texts import RowTexts

# The most columns of vectors that are tried.
_MOST_VECTORS = 3

# A proxy must predict better than those before it by this share of the loss: a pilot is small.
_MARGIN = 0.05

# With fewer labels of a class, the pilot cannot measure the quality.
_FEWEST_LABELS = 2


@dataclass(frozen=True, kw_only=True)
class ProxyTask:
    """
    What the proxies of an operator predict.

    Attributes:
        frame: the table.
        rows: the positions of the rows that have a question.
        statements: the rendered statement of each row of the table.
        prompt_spec: how to send prompts; its model and parameters are those of the oracle.
    """

    frame: DataFrame
    rows: NDArray[np.intp]
    statements: RowTexts
    prompt_spec: RowPrompts

    def prompts_for(self, model: str) -> RowPrompts:
        """Return how to send prompts to another ``model``, without the parameters of the oracle's."""
        return replace(self.prompt_spec, model=model, parameters={})


@dataclass(frozen=True, kw_only=True)
class ProxyQuality:
    """
    How well a proxy predicts the labels of the pilot.

    Attributes:
        name: the name of the proxy.
        rows: the number of labels.
        log_loss: the mean loss of calibrated predictions for held-out labels, in nats; ``inf`` if
            there are too few labels of a class.
        auc: the probability that a positive row has a higher score than a negative one; ``nan``
            without both.
    """

    name: str
    rows: int
    log_loss: float
    auc: float

    def __str__(self) -> str:
        return f"{self.name}: AUC {self.auc:.2f}, log loss {self.log_loss:.2f} on {self.rows:,} labels"


def named_proxies(task: ProxyTask, proxy: Any) -> list[Proxy]:
    """
    Return the proxies that a user names: a column of scores, or those that ask a model.

    A string that is both is the column.

    Raises:
        UsageError: it is not a string, or the column has values other than scores.
    """
    if not isinstance(proxy, str):
        msg = f"Invalid value for proxy: {abbreviate(proxy)}."
        hint = 'Pass "auto", the name of a column of scores, the name of a model, or None.'
        raise UsageError(msg, hint=hint)
    if proxy in task.frame.columns:
        return [ColumnScores(task.frame, proxy, task.rows)]
    return model_proxies(task, proxy)


def model_proxies(task: ProxyTask, model: str) -> list[Proxy]:
    """
    Return the proxies that ask ``model``.

    They are its confidence, if it can have one, and its answers.
    """
    prompts = task.prompts_for(model)
    answers = ModelAnswers(task.statements, task.rows, prompts)
    if not may_have_confidence(model):
        return [answers]
    return [ModelConfidence(task.statements, task.rows, prompts), answers]


def candidates(task: ProxyTask) -> list[Proxy]:
    """
    Return the proxies that need no preparation, those without a cost first.

    They are columns of vectors, keywords (with scikit-learn), and the model of the setting
    ``proxy_model``.

    Raises:
        UsageError: there are none, because scikit-learn is not installed.
    """
    found: list[Proxy] = []
    if find_spec("sklearn") is not None:
        found += _vector_classifiers(task)
        found.append(KeywordClassifier(task.statements, task.statements.codes[task.rows]))
    model = session.config.proxy_model
    if model is not None:
        found += model_proxies(task, model)
    if not found:
        require_sklearn('proxy="auto"')
    return found


def _vector_classifiers(task: ProxyTask) -> list[Proxy]:
    names = [name for name in task.frame.columns if is_vector_column(task.frame[name])]
    found: list[Proxy] = []
    for name in names[:_MOST_VECTORS]:
        try:
            found.append(VectorClassifier(task.frame[name], name, task.rows))
        except UsageError:  # lists of different lengths are no vectors
            continue
    return found


def compare(
    proxies: Sequence[Proxy],
    rows: NDArray[np.intp],
    labels: NDArray[np.int8],
    pilot: NDArray[np.intp] | None = None,
) -> list[tuple[Proxy, ProxyQuality]]:
    """
    Return the proxies with their quality on the labels of a pilot, the best one first.

    A proxy comes before an earlier one only if it predicts clearly better, so the order of
    ``proxies`` is that of preference. A model that turns out to return no log probabilities is left
    out.

    Args:
        proxies: the proxies. Those that ask a model are asked about ``rows`` only.
        rows, labels: rows with their labels, 0 or 1.
        pilot: those that were drawn at random, by default all. Only they measure the quality,
            because the others are the least certain ones; all do if the pilot has fewer than two
            labels of a class.

    Raises:
        LLMError: a model cannot be asked.
    """
    is_measured = np.ones(len(rows), np.bool_) if pilot is None else np.isin(rows, pilot)
    if count_fewest(labels[is_measured]) < _FEWEST_LABELS:
        is_measured[:] = True
    found: list[tuple[Proxy, ProxyQuality]] = []
    for proxy in proxies:
        try:
            values = proxy.held_out(rows, labels)
        except UnsupportedError:
            if len(proxies) == 1:
                raise
            continue
        quality = measure(proxy.name, values[is_measured], labels[is_measured])
        found.append((proxy, quality))
    ranked: list[tuple[Proxy, ProxyQuality]] = []
    for each in found:
        # Before the first one that it clearly beats.
        worse = (
            place
            for place, (_, other) in enumerate(ranked)
            if each[1].log_loss < other.log_loss * (1 - _MARGIN)
        )
        ranked.insert(next(worse, len(ranked)), each)
    return ranked


def measure(name: str, values: NDArray[np.float64], labels: NDArray[np.int8]) -> ProxyQuality:
    """Return how well ``values``, which do not depend on the labels, predict them."""
    return ProxyQuality(
        name=name,
        rows=len(labels),
        log_loss=_held_out_loss(values, labels),
        auc=auc(values, labels),
    )


def _held_out_loss(values: NDArray[np.float64], labels: NDArray[np.int8]) -> float:
    """Return the log loss of held-out rows, with values calibrated on the others."""
    if count_fewest(labels) < 2:
        return float("inf")
    scale = float(values.std()) or 1.0
    values = (values - values.mean()) / scale
    folds = stratified_folds(labels)
    losses = np.empty(len(labels))
    for fold in range(int(folds.max()) + 1):
        is_in = folds == fold
        slope, intercept = platt(values[~is_in], labels[~is_in].astype(np.float64))
        p = sigmoid(slope * values[is_in] + intercept)
        losses[is_in] = -np.log(np.where(labels[is_in] == 1, p, 1 - p))
    return float(losses.mean())


def auc(values: NDArray[np.float64], labels: NDArray[np.int8]) -> float:
    """Return the area under the ROC curve; ties count as one half."""
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return float("nan")
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    above = ranks[labels == 1].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))
