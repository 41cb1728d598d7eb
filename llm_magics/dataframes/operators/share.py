"""``share``: for which share of the rows a statement is true, with intervals, by group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llm_magics._util.tables import CompactFrame
from llm_magics._util.text import pluralize
from llm_magics._util.validation import check_integer, require_package
from llm_magics.dataframes.operators.choose_oracle import create_oracle
from llm_magics.dataframes.operators.consent import Consent, add_estimates, no_cost
from llm_magics.dataframes.operators.cross_fitting import correlation, labelled_rows
from llm_magics.dataframes.operators.finite_population import labels_to_halve
from llm_magics.dataframes.operators.groups import group_columns, group_rows
from llm_magics.dataframes.operators.labelled_sample import UNKNOWN, Labels
from llm_magics.dataframes.operators.model_oracle import stores_answers
from llm_magics.dataframes.operators.options import check_parameters, check_single_oracle
from llm_magics.dataframes.operators.oracle import FAILED
from llm_magics.dataframes.operators.prediction_powered import Predictions, estimate_shares
from llm_magics.dataframes.operators.proxy_choice import ProxyTask
from llm_magics.dataframes.operators.questions import statement_texts
from llm_magics.dataframes.operators.remembering_oracle import RememberingOracle
from llm_magics.dataframes.operators.sampling import sampling_order
from llm_magics.dataframes.operators.share_proxy import ShareProxies
from llm_magics.dataframes.operators.share_report import (
    ShareReport,
    group_details,
    mean_width_ratio,
)
from llm_magics.dataframes.operators.share_sampling import (
    Population,
    draw,
    missed_chance,
    rows_per_group,
)
from llm_magics.dataframes.reports import announce, store_report, sum_known
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.dataframes.rows import OnError, to_frame
from llm_magics.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame

    from llm_magics.dataframes.operators.known_oracles import RowFunction
    from llm_magics.dataframes.reports import RowsEstimate

__all__ = ["share"]

# The columns of the result, after those of the groups.
COLUMNS = ("share", "low", "high", "rows", "labels", "labels_to_halve")


def share(  # noqa: PLR0913 (as for lm.prompt)
    rows: Any,
    prompt: str,
    *,
    by: Any = None,
    labels: int = 200,
    confidence: float = 0.95,
    simultaneous: bool = False,
    oracle: str | RowFunction | None = None,
    proxy: str | None = "auto",
    seed: int = 0,
    model: str | None = None,
    system: str | None = None,
    concurrency: int | None = None,
    on_error: OnError = "null",
    fresh: bool = False,
    dry_run: bool = False,
    yes: bool = False,
    **parameters: Any,
) -> DataFrame | RowsEstimate:
    """
    Estimate for which share of the rows a statement is true, with an interval, for each group.

    The oracle is asked about some rows, drawn at random; a proxy predicts its answers for all rows,
    which makes the intervals narrower but never wrong (prediction-powered inference). The share is
    that among the rows of this table: a group whose rows are all labelled has an interval of width
    zero. Answers are cached, and more ``labels`` later use the earlier ones again.

    Args:
        rows: a DataFrame; or a list, array, or column of pandas, polars or pyarrow.
        prompt: a statement with ``{{ column }}``, such as ``"{{ text }} asks for a refund"``. Rows
            in which all of these columns are missing are left out, and equal statements are asked
            about once.
        by: the column that groups the rows, or a list of columns. Missing values are a group.
        labels: the number of different statements to ask about. Half of them are spread evenly over
            the groups, half in proportion to their rows. With duplicated texts it is approximate.
        confidence: the probability that an interval contains the share.
        simultaneous: whether it is the probability that the intervals of all groups do.
        oracle: what decides: the name of a model; the name of a column of human labels, where rows
            without a label are left out; or a function of the row (a `pandas.Series`) that returns
            a bool. By default, ``model``.
        proxy: ``"auto"`` (the best of stored vectors, keywords and the setting ``proxy_model``),
            the name of a column of scores in [0, 1], the name of a model, or ``None``.
        seed: another seed draws other rows.
        model, system, parameters: as for `llm_magics.ask`, for a model as the oracle.
        concurrency: number of concurrent requests.
        on_error: with ``null``, rows for which the oracle fails count on neither side, and are in
            the report; ``raise`` raises the error.
        fresh: send prompts even if their answers are cached.
        dry_run: return an estimate of tokens, cost and time, and send nothing.
        yes: do not ask for confirmation of the cost (setting ``confirm_above_usd``).

    Returns:
        a DataFrame with a row for each group: the columns of ``by``, ``share``, ``low``, ``high``,
        ``rows``, ``labels`` (the number of answers used), and ``labels_to_halve`` (about how many
        more would halve the interval). Its ``.llm.report`` is a `ShareReport`.

    Raises:
        UsageError: the prompt names no column of the rows, the extra ``operators`` is not
            installed, or the cost needs confirmation.
        Interrupted: ``partial`` has the estimates from the answers so far.
        LLMError: an error that affects all rows.
    """
    require_package("scipy", "share", extra="operators")
    check_parameters(share, parameters)
    check_single_oracle(oracle, model)
    prompt_spec = RowPrompts(
        text=prompt,
        model=model,
        system=system,
        parameters=parameters,
        concurrency=concurrency,
        on_error=on_error,
        fresh=fresh,
        dry_run=dry_run,
        yes=yes,
    )
    frame = to_frame(rows)
    design = Design(labels=labels, confidence=confidence, simultaneous=simultaneous, seed=seed)
    survey = _Survey(frame, prompt_spec, by=by, design=design, oracle=oracle)
    survey.predict_by(proxy)
    if dry_run:
        return survey.estimate()
    survey.run()
    return survey.finish()


@dataclass(frozen=True, kw_only=True)
class Design:
    """
    The sample and the intervals that the user wants.

    Attributes:
        labels, confidence, simultaneous, seed: as for `share`.
    """

    labels: int
    confidence: float
    simultaneous: bool
    seed: int

    def __post_init__(self) -> None:
        """
        Check the values.

        Raises:
            UsageError: a value is invalid.
        """
        check_integer("labels", self.labels)
        check_integer("seed", self.seed, least=-(2**63), most=2**63 - 1)
        is_number = isinstance(self.confidence, int | float)
        if not is_number or not 0 < self.confidence < 1:
            msg = f"Invalid value for confidence: {self.confidence!r:.60}."
            raise UsageError(msg, hint="Pass a number between 0 and 1: confidence=0.95")
        if not isinstance(self.simultaneous, bool):
            msg = f"Invalid value for simultaneous: {self.simultaneous!r:.60}."
            raise UsageError(msg, hint="Use True or False.")

    def alpha(self, groups: int) -> float:
        """Return the probability that the interval of one of so many groups is wrong."""
        return (1 - self.confidence) / (max(1, groups) if self.simultaneous else 1)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Sample:
    """Rows drawn, the probability that each item was not, and the items in the order drawn."""

    rows: NDArray[np.intp]
    missed: NDArray[np.float64]
    items: NDArray[np.int32]


class _Survey:
    """A sample of the rows that have an item; these are numbered from 0 here."""

    def __init__(
        self, frame: DataFrame, prompt_spec: RowPrompts, *, by: Any, design: Design, oracle: Any
    ) -> None:
        self._frame = frame
        self._spec = prompt_spec
        self._design = design
        groups, self._keys = group_rows(frame, group_columns(frame, by, COLUMNS))
        self._oracle = create_oracle(frame, prompt_spec, oracle)
        self._rows = np.flatnonzero(self._oracle.items >= 0)
        items = self._oracle.items[self._rows].astype(np.intp)
        self._population = Population.of(items, groups[self._rows], len(self._keys))
        self._order = sampling_order(self._oracle.digests[items], design.seed)
        self._sample = self._draw(design.labels)
        self._answers = np.full(self._population.item_count, UNKNOWN, np.int8)
        self._proxies: ShareProxies | None = None
        self._proxy: str | None = None
        self._predictions: Predictions | None = None

    def predict_by(self, proxy: Any) -> None:
        """
        Set the proxy; see `share`.

        Raises:
            UsageError: the proxy does not exist.
        """
        if proxy is None:
            return
        task = ProxyTask(
            frame=self._frame,
            rows=self._rows,
            statements=statement_texts(self._frame, self._spec),
            prompt_spec=self._spec,
        )
        self._proxies = ShareProxies(task, proxy)

    def estimate(self) -> RowsEstimate:
        """Return the estimated cost of the labels and of the proxy."""
        labels = self._oracle.estimate(self._sample.items) or no_cost(0)
        total = add_estimates(no_cost(len(self._frame)), labels)
        return total if self._proxies is None else add_estimates(total, self._proxies.estimate())

    def run(self) -> None:
        """
        Ask the oracle, and let the proxy predict its answers.

        Raises:
            Interrupted: the user interrupted the call.
            LLMError: an error that affects all rows.
        """
        Consent(self._spec).obtain(self.estimate, lambda: no_cost(0))
        items = self._sample.items
        try:
            with self._oracle:
                self._oracle.expect(len(items))
                self._answers[items] = self._oracle.ask(items)
            if self._spec.on_error == "raise" and self._oracle.errors:
                raise next(iter(self._oracle.errors.values()))
            if self._proxies is not None:
                found = self._proxies.predict(
                    self._population.items, self._sample.rows, self._answers, self._price
                )
                self._proxy, self._predictions = found or (None, None)
        except KeyboardInterrupt:
            raise self._interrupted() from None

    def finish(self) -> DataFrame:
        """Return the estimates, and announce their report."""
        result, report = self._result()
        announce(report, "", has_failed=report.failed > 0)
        return result

    def _draw(self, labels: int) -> _Sample:
        per_group = rows_per_group(self._population, labels)
        rows = draw(self._population, self._order, per_group)
        items = self._population.items[rows]
        _, first = np.unique(items, return_index=True)
        return _Sample(
            rows=rows,
            missed=missed_chance(self._population, per_group),
            items=items[np.sort(first)].astype(np.int32),
        )

    def _price(self, labels: int) -> float | None:
        """Return the cost of so many more labels."""
        items = self._draw(self._design.labels + labels).items
        cost = self._oracle.estimate(items[self._answers[items] == UNKNOWN])
        return 0.0 if cost is None else cost.cost_usd

    def _result(self) -> tuple[DataFrame, ShareReport]:
        population, sample = self._population, self._sample
        labels = Labels(drawn=sample.rows, answers=self._answers, missed=sample.missed)
        alpha = self._design.alpha(int((population.sizes > 0).sum()))
        shares = estimate_shares(population, labels, self._predictions, alpha)
        alone = estimate_shares(population, labels, None, alpha)
        items = np.bincount(population.pair_groups, minlength=len(self._keys))
        more = labels_to_halve(shares.share, shares.labels, items, shares.is_exact, alpha)
        columns = (shares.share, shares.low, shares.high, population.sizes, shares.labels, more)
        estimates = pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)), self._keys.index)
        result = CompactFrame(pd.concat([self._keys, estimates], axis=1))
        is_failed = self._answers[population.items] == FAILED
        failed = np.bincount(population.groups[is_failed], minlength=len(self._keys))
        details = group_details(self._keys, shares, alone, failed)
        report = self._report(result, details, is_failed, mean_width_ratio(shares, alone))
        store_report(result, report)
        return result, report

    def _report(
        self,
        result: DataFrame,
        details: DataFrame,
        is_failed: NDArray[np.bool_],
        width_ratio: float,
    ) -> ShareReport:
        oracle, proxies, items = self._oracle, self._proxies, self._population.items
        found = None
        if self._predictions is not None:
            rows = labelled_rows(items, self._sample.rows, self._answers)
            found = correlation(self._predictions, items, rows, self._answers)
        return ShareReport(
            rows=len(self._frame),
            missing=len(self._frame) - len(self._rows),
            labels=int((self._answers >= 0).sum()),
            failed=int(is_failed.sum()),
            confidence=self._design.confidence,
            simultaneous=self._design.simultaneous,
            oracle=oracle.name,
            proxy=self._proxy,
            correlation=found,
            width_ratio=width_ratio,
            calls=oracle.calls + (proxies.calls if proxies is not None else 0),
            cached=oracle.cached,
            cost_usd=sum_known([oracle.cost_usd, *(proxies.costs_usd if proxies else [])]),
            groups=details,
            _shares=result,
            _errors=oracle.errors,
            _failed_items=items[is_failed],
            _failed_index=self._frame.index[self._rows[is_failed]],
        )

    def _interrupted(self) -> Interrupted:
        """Return the exception for an interrupt, with the estimates from the answers so far."""
        items, oracle = self._sample.items, self._oracle
        wanted = len(items)
        if isinstance(oracle, RememberingOracle):
            left = oracle.not_asked(items)
            is_known = np.ones(len(self._answers), np.bool_)
            is_known[left] = False
            self._sample = self._draw(self._known_labels(is_known))
            known = self._sample.items
            self._answers[known] = oracle.ask(known)  # they are stored
            wanted -= len(left)
        is_stored = stores_answers(oracle, self._spec)
        state = "are stored" if is_stored else "have answers"
        msg = f"Stopped: {wanted:,} of {pluralize(len(items), 'label')} {state}."
        hint = "They will not be requested again." if is_stored else None
        partial = self._result()[0] if (self._answers != UNKNOWN).any() else None
        return Interrupted(msg, hint=hint, partial=partial)

    def _known_labels(self, is_known: NDArray[np.bool_]) -> int:
        """Return the largest number of labels whose items are all known."""
        low, high = 0, self._design.labels
        while low < high:
            middle = (low + high + 1) // 2
            if is_known[self._draw(middle).items].all():
                low = middle
            else:
                high = middle - 1
        return low
