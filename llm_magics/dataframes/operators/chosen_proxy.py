"""A proxy that is chosen among several by the labels of the pilot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from llm_magics.dataframes.operators.proxies import UNKNOWN_SCORE, Proxy
from llm_magics.dataframes.operators.proxy_choice import ProxyQuality, compare
from llm_magics.dataframes.reports import sum_known

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Free proxies are compared again when there are this many times more labels.
_AGAIN = 2.0

# Returns whether a proxy that costs money saves more, given the labels of rows.
Pays = Callable[[Proxy, "NDArray[np.intp]", "NDArray[np.int8]"], bool]

# Called before proxies that cost money are asked about rows; raises an error to stop.
ConfirmScores = Callable[[Sequence[Proxy], "NDArray[np.intp]"], None]


def _accept(_: Sequence[Proxy], __: NDArray[np.intp]) -> None:
    """Accept any cost."""


class NoProxy(Proxy):
    """A proxy that knows nothing: the same score for all rows."""

    name = "none"
    learns = False

    def __init__(self, count: int) -> None:
        self._scores = np.full(count, UNKNOWN_SCORE)

    def predict(self) -> NDArray[np.float64]:
        """Return 0.5 for each row."""
        return self._scores

    def held_out(self, rows: NDArray[np.intp], labels: NDArray[np.int8]) -> NDArray[np.float64]:
        """Return 0.5 for each of ``rows``."""
        return self._scores[: len(rows)]


class ChosenProxy(Proxy):
    """
    The proxy that predicts the labels of the pilot best, chosen when it is first fitted.

    One that costs money is chosen only if it pays; without any other, it is `NoProxy`.

    Attributes:
        chosen: the proxy; ``None`` before the choice.
        qualities: the quality of each candidate on the pilot, the best one first.
    """

    def __init__(
        self,
        candidates: Sequence[Proxy],
        count: int,
        pays: Pays,
        *,
        confirm: ConfirmScores = _accept,
    ) -> None:
        """
        Prepare the choice.

        Args:
            candidates: the proxies.
            count: the number of rows.
            pays: returns whether a proxy that costs money saves more than it costs.
            confirm: called before those that cost money are asked about the pilot.
        """
        self._candidates = list(candidates)
        self._nothing = NoProxy(count)
        self._pays = pays
        self._confirm = confirm
        self._chosen_at = 0
        self._pilot: NDArray[np.intp] | None = None
        self._stack = ExitStack()
        self.name = self._nothing.name
        # Before the choice, whether any candidate does.
        self.learns = any(proxy.learns for proxy in candidates)
        self.chosen: Proxy | None = None
        self.qualities: list[ProxyQuality] = []

    @property
    def calls(self) -> int:  # type: ignore[override]
        """The number of prompts of all candidates."""
        return sum(proxy.calls for proxy in self._candidates)

    @property
    def cost_usd(self) -> float | None:  # type: ignore[override]
        """The cost of all candidates in US dollars; ``None`` if unknown."""
        return sum_known(proxy.cost_usd for proxy in self._candidates)

    @property
    def quality(self) -> ProxyQuality | None:
        """The quality of the chosen proxy, if it was measured."""
        return next((each for each in self.qualities if each.name == self.name), None)

    def __enter__(self) -> Self:
        for proxy in self._candidates:
            self._stack.enter_context(proxy)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def fit(self, rows: NDArray[np.intp], labels: NDArray[np.int8]) -> None:
        """Choose a proxy by the labels, if it is time to, and fit it to them."""
        if self.chosen is None:
            self._choose(self._candidates, rows, labels)
        elif not self.chosen.is_paid and len(labels) >= _AGAIN * self._chosen_at:
            free = [proxy for proxy in self._candidates if not proxy.is_paid]
            self._choose(free, rows, labels)
        (self.chosen or self._nothing).fit(rows, labels)

    def predict(self) -> NDArray[np.float64]:
        """Return the scores of the chosen proxy."""
        return (self.chosen or self._nothing).predict()

    def held_out(self, rows: NDArray[np.intp], labels: NDArray[np.int8]) -> NDArray[np.float64]:
        """Return the values of the chosen proxy."""
        return (self.chosen or self._nothing).held_out(rows, labels)

    def _choose(
        self, candidates: Sequence[Proxy], rows: NDArray[np.intp], labels: NDArray[np.int8]
    ) -> None:
        self._chosen_at = max(len(labels), 1)
        if self._pilot is None:
            self._pilot = rows
        self._confirm([proxy for proxy in candidates if proxy.is_paid], rows)
        ranked = compare(candidates, rows, labels, self._pilot)
        measured = {quality.name for _, quality in ranked}
        others = [each for each in self.qualities if each.name not in measured]
        self.qualities = [*(quality for _, quality in ranked), *others]
        good = (
            proxy for proxy, _ in ranked if not proxy.is_paid or self._pays(proxy, rows, labels)
        )
        self.chosen = next(good, self._nothing)
        self.name, self.learns = self.chosen.name, self.chosen.learns
