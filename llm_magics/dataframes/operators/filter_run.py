"""One run of `filter`: questions to the oracle, consent to their cost, decisions, and the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from llm_magics._util.text import format_percent, format_usd, pluralize
from llm_magics.dataframes.operators.calibration import calibrate
from llm_magics.dataframes.operators.cascade import Cascade
from llm_magics.dataframes.operators.choose_oracle import RowOracle, create_oracle
from llm_magics.dataframes.operators.chosen_proxy import ChosenProxy
from llm_magics.dataframes.operators.consent import (
    DryRunEnd,
    PlannedConsent,
    describe_so_far,
    no_cost,
    scale_estimate,
)
from llm_magics.dataframes.operators.decisions import Decisions, estimate_quality
from llm_magics.dataframes.operators.filter_report import (
    CACHE,
    MISSING,
    ORACLE,
    PROXY,
    FilterReport,
    RowDecisions,
    sum_failures,
)
from llm_magics.dataframes.operators.known_oracles import RowFunction
from llm_magics.dataframes.operators.labelling import UNKNOWN, LabelledRows, Sampled
from llm_magics.dataframes.operators.model_oracle import stores_answers
from llm_magics.dataframes.operators.oracle import NO, YES
from llm_magics.dataframes.operators.planning import CascadePlan
from llm_magics.dataframes.operators.proxies import Proxy
from llm_magics.dataframes.operators.proxy_choice import ProxyTask, candidates, named_proxies
from llm_magics.dataframes.operators.sampling import sampling_order
from llm_magics.dataframes.operators.targets import Problem, Target, create_cascade
from llm_magics.dataframes.operators.training import Ranking
from llm_magics.dataframes.reports import sum_known
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.host import current_host

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame

    from llm_magics.dataframes.reports import RowsEstimate

# With fewer rows, a sample that shows anything is all of them.
_FEWEST_ROWS = 50

# The number of questions from which the cost of many is estimated.
_SAMPLED = 100

# A paid proxy must save this share of the questions, if the prices are unknown.
_LEAST_SAVING = 0.05


class FilterRun:
    """The decisions about the rows of ``frame``."""

    def __init__(
        self, frame: DataFrame, prompt_spec: RowPrompts, *, target: Target, seed: int
    ) -> None:
        self._frame = frame
        self._spec = prompt_spec
        self._target = target
        self._seed = seed
        self._oracle: RowOracle
        self._proxy: ChosenProxy | None = None
        self._cascade: Cascade
        self._plan: CascadePlan | None = None
        self._decisions: Decisions | None = None
        self._consent = PlannedConsent(prompt_spec, self._so_far)
        self._expected = 0  # calls in total, by the last plan
        self._is_announced = prompt_spec.dry_run

    def prepare(self, oracle: str | RowFunction | None, proxy: str | None) -> None:
        """
        Choose the oracle and the proxies; nothing is sent.

        Raises:
            UsageError: one of them is invalid, or scikit-learn is not installed.
        """
        self._oracle = create_oracle(self._frame, self._spec, oracle)
        items = self._oracle.items
        # The rows that have a question; they are numbered from 0 in the cascade.
        self._positions = np.flatnonzero(items >= 0)
        self._items = items[self._positions]
        order = sampling_order(self._oracle.digests[self._items], self._seed)
        self._proxy = self._choose_proxies(proxy)
        problem = Problem(
            order=order,
            items=self._items,
            ask=self._ask,
            may_fail=self._oracle.may_fail,
            proxy=self._proxy or ChosenProxy([], len(self._positions), self._pays),
            target=self._target,
            seed=self._seed,
            confirm=self._confirm,
        )
        self._cascade = create_cascade(problem)

    def _choose_proxies(self, proxy: str | None) -> ChosenProxy | None:
        """Return the choice among proxies; ``None`` to ask about every row."""
        count = len(self._positions)
        task = ProxyTask(
            frame=self._frame,
            rows=self._positions,
            statements=self._oracle.statements,
            prompt_spec=self._spec,
        )
        found: list[Proxy] = []
        if isinstance(proxy, str) and proxy == "auto":
            found = candidates(task) if self._is_worth_a_proxy else []
        elif proxy is not None:
            found = named_proxies(task, proxy)
        if self._spec.dry_run:
            found = [each for each in found if not each.is_paid]
        if not self._is_worth_a_proxy or (proxy is None and not self._target.has_fixed_budget):
            return None
        return ChosenProxy(found, count, self._pays, confirm=self._confirm_scores)

    @property
    def _is_worth_a_proxy(self) -> bool:
        """Whether the table is large enough for one."""
        count = len(self._positions)
        is_enough = self._target.has_fixed_budget and count <= self._target.max_calls
        return count >= _FEWEST_ROWS and not is_enough

    def decide(self) -> None:
        """
        Ask the oracle until the target is kept.

        Raises:
            DryRunEnd: the call is a dry run, and an answer is missing.
            LLMError: an error that affects all rows.
            KeyboardInterrupt: the user interrupted the call.
        """
        if self._spec.dry_run and self._oracle.estimate(self._items[:0]) is None:
            return
        with self._oracle:
            if self._proxy is None:
                self._ask_all()
                return
            with self._proxy:
                self._decisions = self._cascade.run()
                if self._plan is not None and not self._is_announced:  # all answers were stored
                    self._announce(self._plan.calls)

    def _ask_all(self) -> None:
        table = self._table
        self._oracle.expect(self.questions)
        table.ask(table.order)
        nothing, count = Sampled.none(), len(table)
        unknown = np.full(count, np.nan)
        precision, recall = estimate_quality(table, nothing, nothing, 0.05, unknown)
        self._decisions = Decisions(
            labels=table.labels,
            is_asked=np.ones(count, np.bool_),
            probability=unknown,
            kept=nothing,
            dropped=nothing,
            pilot_calls=0,
            training_calls=0,
            calls=table.calls,
            bound=dict.fromkeys(self._target.shares, 1.0),
            precision=precision,
            recall=recall,
        )

    @property
    def _table(self) -> LabelledRows:
        return self._cascade.table

    def _ask(self, rows: NDArray[np.intp]) -> NDArray[np.int8]:
        """Return the answers to a wave of rows."""
        items = self._items[rows]
        self._obtain_consent(items)
        answers = self._oracle.ask(items)
        if self._spec.on_error == "raise" and self._oracle.errors:
            raise next(iter(self._oracle.errors.values()))
        return answers

    def _obtain_consent(self, items: NDArray[np.int32]) -> None:
        """
        Obtain the consent to questions; end a dry run.

        Before there is a plan, each wave of questions is confirmed alone; then, all that follow are,
        with the first one whose answer is not stored. So the same call can be run again without a
        question. If many more are needed than were planned, they are confirmed again.

        Raises:
            DryRunEnd: the call is a dry run, and an answer is missing.
            DeclinedError: the user declined.
            UsageError: the session is not interactive, and the cost is too high.
        """
        needed = self._table.calls + len(items)
        is_agreed = self._consent.covers(needed)
        if self._spec.dry_run:
            wave = self._oracle.estimate(items)
            if wave is not None and wave.prompts:
                calls = self.questions if self._plan is None else self._expected
                all_left = self._estimate(calls - self._table.calls)
                least = replace(wave, rows=self.rows)
                raise DryRunEnd(max(all_left, least, key=lambda each: each.prompts))
        elif self._plan is None:
            wave = None if is_agreed else self._oracle.estimate(items)
            if wave is not None:
                self._consent.obtain([wave.cost_usd], f"{wave.prompts:,} prompts")
        elif not self._is_announced or not is_agreed:
            wave = self._oracle.estimate(items)
            if wave is None or wave.prompts:
                self._announce(max(self._expected, needed))

    def _confirm(self, plan: CascadePlan) -> None:
        """Receive a plan: the first one after the pilot."""
        self._plan = self._plan or plan
        self._expected = plan.calls
        self._oracle.expect(plan.calls)

    def _announce(self, expected: int) -> None:
        """
        Say what is expected after the pilot, or later if it is much more; obtain the consent to it.

        Args:
            expected: the number of calls in total.

        Raises:
            DeclinedError: the user declined.
            UsageError: the session is not interactive, and the cost is too high.
        """
        is_first = not self._is_announced
        self._is_announced = True
        calls = max(expected - self._table.calls, 0)
        if self._decisions is not None:  # all answers were stored
            calls = 0
        left = self._estimate(calls)
        spent_usd = self._oracle.cost_usd
        own_usd = sum_known([spent_usd, left.cost_usd])
        all_usd = sum_known(
            [spent_usd, self._estimate(self.questions - self._table.calls).cost_usd]
        )
        rows = len(self._positions)
        what = f"{format_percent(expected / max(self.questions, 1))} of "
        what += (
            f"{rows:,} rows" if self.questions == rows else f"{self.questions:,} different rows"
        )
        if own_usd and all_usd:
            what += f", about {format_usd(own_usd)} instead of {format_usd(all_usd)}"
        stored = self._oracle.cached + calls - left.prompts
        if self._oracle.cached:
            what += f"; {pluralize(stored, 'answer')} already stored"
        if is_first:
            current_host().report(f"The oracle will be asked about {what}")
        else:
            what += f"; {self._consent.calls or 0:,} were expected before"
        if not self._consent.covers(expected):
            self._consent.obtain([left.cost_usd], what, expected)

    def _so_far(self) -> str:
        """Return what a user who declines has paid for."""
        return describe_so_far(self.asked, is_stored=self.stores_answers)

    @property
    def stores_answers(self) -> bool:
        """Whether the same call later finds the answers so far."""
        return stores_answers(self._oracle, self._spec)

    def _estimate(self, calls: int) -> RowsEstimate:
        """Return the estimated cost of so many questions, from a sample of those not asked."""
        items = self._oracle.not_asked(self._items[self._table.order])
        items = items[:: max(1, len(items) // _SAMPLED)]  # answers to the first ones may be stored
        sample = self._oracle.estimate(items)
        if sample is None or not len(items):
            return no_cost(self.rows)
        return replace(scale_estimate(sample, max(calls, 0)), rows=self.rows)

    def _confirm_scores(self, proxies: Sequence[Proxy], rows: NDArray[np.intp]) -> None:
        """
        Obtain the consent to the scores of proxies for some rows.

        Raises:
            DeclinedError: the user declined.
            UsageError: the session is not interactive, and the cost is too high.
        """
        if self._consent.is_always_given:
            return
        waves = [each for each in (proxy.estimate(rows) for proxy in proxies) if each is not None]
        names = " and ".join(proxy.name for proxy in proxies)
        what = f"up to {sum(each.prompts for each in waves):,} prompts for scores by {names}"
        self._consent.obtain([each.cost_usd for each in waves], what)

    def _pays(self, proxy: Proxy, rows: NDArray[np.intp], labels: NDArray[np.int8]) -> bool:
        """
        Return whether a paid proxy saves more than it costs, by its scores of the pilot.

        Raises:
            DeclinedError: it does, and the user declined the cost.
            UsageError: it does, the cost is high, and the session is not interactive.
        """
        table, known = self._table, proxy.held_out(rows, labels)
        unknown = np.flatnonzero(table.labels == UNKNOWN)
        if not len(unknown) or not len(rows):
            return False
        # The other rows have scores like those of the pilot; copies have the same.
        unknown = unknown[np.argsort(self._items[unknown], kind="stable")]
        places = np.linspace(0, len(known) - 1, len(unknown)).astype(np.intp)
        probability = np.sort(calibrate(np.sort(known)[places], known, labels))
        calls = self._cascade.expected_calls(
            *self._cascade.uncertain(Ranking(unknown, probability))
        )
        saving = self.questions - calls
        # Stored answers count, so that running the same call again decides in the same way.
        own = proxy.estimate(with_stored=True)
        left = self._oracle.not_asked(self._items[table.order])
        each = self._oracle.estimate(left[:_SAMPLED], with_stored=True)
        own_usd = 0.0 if own is None else own.cost_usd
        each_usd = None if each is None or each.cost_usd is None else each.cost_usd / each.rows
        if not own_usd or not each_usd:
            pays = saving >= _LEAST_SAVING * (self.questions - table.calls)
        else:
            pays = saving * each_usd > own_usd
        scores = proxy.estimate()
        if pays and not self._consent.is_always_given and scores is not None and scores.cost_usd:
            left_usd = self._estimate(calls - table.calls).cost_usd
            share = scores.cost_usd / (scores.cost_usd + (left_usd or 0.0))
            what = f"{format_percent(share)} of it for scores by {proxy.name}"
            self._consent.obtain([scores.cost_usd, left_usd], what, calls)
        return pays

    @property
    def rows(self) -> int:
        """The number of rows of the table."""
        return len(self._frame)

    @cached_property
    def questions(self) -> int:
        """The number of different questions."""
        return len(np.unique(self._items))

    @property
    def asked(self) -> int:
        """The number of questions that the oracle was asked."""
        return self._oracle.calls + self._oracle.cached

    @property
    def labels(self) -> NDArray[np.int8]:
        """The decision about each row that has a question; after an interrupt, the answers so far."""
        if self._decisions is not None:
            return self._decisions.labels
        known = ~np.isin(self._items, self._oracle.not_asked(self._items))
        labels = np.full(len(self._items), UNKNOWN, np.int8)
        labels[known] = self._oracle.ask(self._items[known])
        return labels

    @property
    def kept(self) -> NDArray[np.intp]:
        """The positions of the rows of the result."""
        kept: NDArray[np.intp] = self._positions[self.labels == YES]
        return kept

    def report(self) -> FilterReport:
        """Return the report of this run."""
        done, oracle, proxy = self._decisions, self._oracle, self._proxy
        labels = self.labels
        return FilterReport(
            rows=self.rows,
            kept=int((labels == YES).sum()),
            missing=self.rows - len(labels),
            failed=sum_failures(labels),
            target=self._target,
            bound={} if done is None else done.bound,
            precision=None if done is None else done.precision,
            recall=None if done is None else done.recall,
            questions=self.questions,
            asked=self.asked,
            expected=None if self._plan is None else self._plan.calls,
            oracle=oracle.name,
            calls=oracle.calls,
            cached=oracle.cached,
            cost_usd=sum_known([oracle.cost_usd, 0.0 if proxy is None else proxy.cost_usd]),
            proxy="none" if proxy is None else proxy.name,
            proxy_quality=None if proxy is None else proxy.quality,
            proxy_calls=0 if proxy is None else proxy.calls,
            qualities=[] if proxy is None else proxy.qualities,
            reason="" if done is None else self._reason(done),
            warning="" if done is None else self._warning(done),
            _decisions=self._row_decisions(labels),
        )

    def _reason(self, done: Decisions) -> str:
        if self._proxy is not None or not len(self._items):
            return done.reason
        if self._is_worth_a_proxy:
            return "Every row was asked, as proxy=None says."
        return "Every row was asked, because the table is small."

    def _warning(self, done: Decisions) -> str:
        """Return a warning if returning nothing would keep the target too."""
        answered = int(np.isin(done.labels, (YES, NO)).sum())
        accuracy = self._target.accuracy
        if accuracy is None or not answered:
            return ""
        positives = (
            (done.labels == YES).sum() * done.precision.value / max(done.recall.value, 1e-9)
        )
        if positives > (1 - accuracy) * answered:
            return ""
        return (
            f"Returning no rows would have an accuracy of about {1 - positives / answered:.3f}: "
            "set precision and recall"
        )

    def _row_decisions(self, labels: NDArray[np.int8]) -> RowDecisions:
        """Return the decision about each row of the table."""
        done, at = self._decisions, self._positions
        all_labels = np.full(self.rows, UNKNOWN, np.int8)
        all_labels[at] = labels
        sources = np.full(self.rows, MISSING, np.int8)
        is_asked = labels != UNKNOWN if done is None else done.is_asked
        from_oracle = np.where(self._oracle.is_cached[self._items], CACHE, ORACLE)
        otherwise = 0 if done is None else PROXY
        sources[at] = np.where(is_asked, from_oracle, otherwise)
        scores = np.full(self.rows, np.nan)
        if done is not None and self._proxy is not None:
            scores[at] = done.probability
        errors = {
            int(position): self._oracle.errors[item]
            for position, item in zip(at, self._items.tolist(), strict=True)
            if item in self._oracle.errors
        }
        return RowDecisions(
            labels=all_labels,
            sources=sources,
            scores=scores,
            errors=errors,
            index=self._frame.index,
        )
