"""The proxy of ``share``: its choice, and when one that costs money is worth it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_magics.dataframes.operators.consent import no_cost
from llm_magics.dataframes.operators.cross_fitting import cross_fit, labelled_rows
from llm_magics.dataframes.operators.proxy_choice import (
    ProxyTask,
    candidates,
    compare,
    named_proxies,
)
from llm_magics.errors import UnsupportedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llm_magics.dataframes.operators.prediction_powered import Predictions
    from llm_magics.dataframes.operators.proxies import Proxy
    from llm_magics.dataframes.reports import RowsEstimate

AUTO = "auto"

# With fewer labels of a class, no proxy is fitted: all intervals are exact.
FEWEST_LABELS = 5

# Returns the cost of so many more labels; ``None`` if unknown.
Price = Callable[[int], float | None]


class ShareProxies:
    """The proxies that may predict the answers about the rows of a table."""

    def __init__(self, task: ProxyTask, proxy: Any) -> None:
        """
        Find the proxies; nothing is sent.

        Args:
            task: what they predict.
            proxy: ``"auto"``, or the name of a proxy.

        Raises:
            UsageError: the proxy does not exist.
        """
        self._is_auto = isinstance(proxy, str) and proxy == AUTO and AUTO not in task.frame
        self._proxies = candidates(task) if self._is_auto else named_proxies(task, proxy)
        self._rows = len(task.rows)

    def estimate(self) -> RowsEstimate:
        """Return the estimated cost of the most expensive proxy."""
        costs = [each.estimate() for each in self._proxies]
        known = [each for each in costs if each is not None]
        return max(known, key=lambda each: each.prompts, default=no_cost(0))

    @property
    def calls(self) -> int:
        """The number of prompts that were sent."""
        return sum(each.calls for each in self._proxies)

    @property
    def costs_usd(self) -> list[float | None]:
        """The cost of each proxy in US dollars; ``None`` if unknown."""
        return [each.cost_usd for each in self._proxies]

    def predict(
        self,
        items: NDArray[np.intp],
        drawn: NDArray[np.intp],
        answers: NDArray[np.int8],
        price: Price,
    ) -> tuple[str, Predictions] | None:
        """
        Return the name of the best proxy and its predictions; ``None`` if there is none.

        Args:
            items: the item of each row.
            drawn: the rows that were drawn.
            answers: the answer about each item.
            price: returns the cost of more labels.

        Raises:
            LLMError: a model cannot be asked.
            KeyboardInterrupt: the user interrupted the call.
        """
        rows = labelled_rows(items, drawn, answers)
        labels = answers[items[rows]]
        fewest = min(int(labels.sum()), int((labels == 0).sum()))
        if fewest < FEWEST_LABELS or not (answers[items] < 0).any():
            return None
        with ExitStack() as stack:
            for each in self._proxies:
                stack.enter_context(each)
            proxy = self._choose(rows, labels, price) if self._is_auto else self._proxies[0]
            if proxy is None:
                return None
            try:
                return proxy.name, cross_fit(proxy, items, rows, answers)
            except UnsupportedError:  # the model returns no log probabilities
                if self._is_auto or len(self._proxies) == 1:
                    raise
            proxy = self._proxies[1]
            return proxy.name, cross_fit(proxy, items, rows, answers)

    def _choose(
        self, rows: NDArray[np.intp], labels: NDArray[np.int8], price: Price
    ) -> Proxy | None:
        """Return the best proxy that is worth its cost."""
        ranked = [proxy for proxy, _ in compare(self._proxies, rows, labels)]
        ratios = [_variance_ratio(each.held_out(rows, labels), labels) for each in ranked]
        costs = [each.estimate() for each in ranked]
        free = [ratio for ratio, cost in zip(ratios, costs, strict=True) if not _is_paid(cost)]
        for proxy, ratio, cost in zip(ranked, ratios, costs, strict=True):
            if not _is_paid(cost):
                return proxy
            # More labels would reduce the variance as much.
            more = len(rows) * (min([1.0, *free]) / max(ratio, 1e-3) - 1)
            more = min(max(0, round(more)), self._rows - len(rows))
            instead = price(more) if more else 0.0
            paid = cost.cost_usd if cost is not None else None
            if paid is not None and instead is not None and paid <= instead:
                return proxy
        return None


def _is_paid(cost: RowsEstimate | None) -> bool:
    return cost is not None and cost.prompts > 0 and cost.cost_usd != 0


def _variance_ratio(values: NDArray[np.float64], labels: NDArray[np.int8]) -> float:
    """Return the part of the variance of the labels that held-out ``values`` do not explain."""
    if not values.std() or not labels.std():
        return 1.0
    found = float(np.corrcoef(values, labels)[0, 1])
    return 1 - max(0.0, found) ** 2
