"""``join``: the pairs of rows of two tables for which a statement is true."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from llm_magics._util.text import format_percent, pluralize
from llm_magics._util.validation import check_integer
from llm_magics.dataframes.operators.blocking import rank_pairs
from llm_magics.dataframes.operators.choose_oracle import create_pair_oracle
from llm_magics.dataframes.operators.consent import (
    DryRunEnd,
    PlannedConsent,
    add_estimates,
    describe_so_far,
    no_cost,
    scale_estimate,
)
from llm_magics.dataframes.operators.join_report import JoinReport
from llm_magics.dataframes.operators.joined_rows import HOWS, check_suffixes, joined_rows
from llm_magics.dataframes.operators.model_oracle import PromptOracle, stores_answers
from llm_magics.dataframes.operators.options import check_parameters, check_single_oracle
from llm_magics.dataframes.operators.oracle import YES
from llm_magics.dataframes.operators.pair_decisions import (
    PILOT_CALLS,
    Expectation,
    PairDecider,
    PairDecisions,
    PairProblem,
)
from llm_magics.dataframes.operators.pair_scores import AUTO, SCORES, Side, choose_scores
from llm_magics.dataframes.operators.sampling import PairOrder, row_hashes
from llm_magics.dataframes.reports import announce, store_report
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.dataframes.rows import OnError, to_frame
from llm_magics.errors import Interrupted, UsageError, abbreviate

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame

    from llm_magics.dataframes.operators.known_oracles import RowFunction
    from llm_magics.dataframes.reports import RowsEstimate

__all__ = ["join"]

How = Literal["inner", "left", "right", "outer"]

# The number of pairs from which the cost of many is estimated.
_SAMPLED_PAIRS = 200

_NO_PAIRS = np.empty(0, np.int64)


def join(  # noqa: PLR0913 (as for lm.prompt)
    left: Any,
    right: Any,
    prompt: str,
    how: How = "inner",
    *,
    recall: float = 0.9,
    confidence: float = 0.95,
    oracle: str | RowFunction | None = None,
    candidates: Any = AUTO,
    on_left: str | None = None,
    on_right: str | None = None,
    embedding_model: str | None = None,
    suffixes: tuple[str, str] = ("_x", "_y"),
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
    Return the pairs of rows for which a statement is true, found without asking about all pairs.

    With probability ``confidence``, at least the share ``recall`` of all true pairs is found. Each
    pair of the result was answered, so the precision is 1. The oracle is asked about the most
    likely pairs, and about a random sample of the others, which bounds the true pairs that are
    missed. Where that saves nothing, it is asked about all pairs. Answers are cached: the same call
    continues where it stopped, and one with a higher ``recall`` pays only for further pairs.

    Args:
        left, right: DataFrames; or lists, arrays, or columns of pandas, polars or pyarrow, which
            become the column ``text``.
        prompt: a statement with ``{{ left.column }}`` and ``{{ right.column }}``, or
            ``{{ left["a column"] }}``. Rows in which all of these are missing are in no pair.
        how: ``inner``; ``left``, ``right`` or ``outer`` keep rows without a pair.
        recall: the share of all true pairs to find.
        confidence: the probability of finding that share.
        oracle: whose answers count as right: the name of a model; or a function that returns
            ``True`` or ``False`` for a row with the columns ``left.NAME`` and ``right.NAME``. By
            default, ``model``.
        candidates: how likely pairs are found. ``vectors``: by the cosine of their vectors, and
            texts are embedded; ``ngrams``: by the characters that their texts have in common;
            ``auto``: by vectors if both tables have a column of them, otherwise by texts; or an
            array of scores of shape (rows of left, rows of right).
        on_left, on_right: the columns of vectors or texts for candidates; by default the only
            column of vectors, or the columns that the prompt names.
        embedding_model: the model that embeds texts for candidates.
        suffixes: what is appended to the names of columns that both tables have.
        seed: another seed draws other pairs.
        model, system, parameters: as for `llm_magics.ask`, the same for all prompts.
        concurrency: number of concurrent requests.
        on_error: with ``null``, pairs without an answer are left out and listed in the report;
            ``raise`` raises the error.
        fresh: send prompts even if their answers are cached.
        dry_run: send nothing, and return an estimate of tokens, cost and time: of all pairs, or, if
            the answers of the pilot are stored, of those that are expected to be asked.
        yes: do not ask for confirmation of the cost (setting ``confirm_above_usd``). Without it,
            the expected cost is confirmed after a pilot of at most 200 calls.

    Returns:
        a new DataFrame with the columns of both tables. Its ``.llm.report`` is a `JoinReport`.

    Raises:
        UsageError: the prompt does not name columns of both tables, or the cost needs confirmation.
        Interrupted: ``partial`` has the pairs that are found so far.
        LLMError: an error that affects all pairs.
    """
    check_parameters(join, parameters)
    check_single_oracle(oracle, model)
    if how not in HOWS:
        msg = f"Invalid value for how: {abbreviate(how)}."
        raise UsageError(msg, hint=f"Use one of: {', '.join(HOWS)}.")
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
    frames = to_frame(left), to_frame(right)
    check_suffixes(frames, suffixes)
    seed = check_integer("seed", seed, least=-(2**63), most=2**63 - 1)
    run = _Join(frames, prompt_spec, oracle, recall=recall, confidence=confidence)
    try:
        run.prepare(candidates, (on_left, on_right), embedding_model, seed)
    except DryRunEnd as end:
        return end.estimate
    try:
        run.decide()
    except DryRunEnd as end:
        return end.estimate
    except KeyboardInterrupt:
        raise run.interrupted(how, suffixes) from None
    return no_cost(run.pairs) if dry_run else run.finish(how, suffixes)


class _Join:
    """A join of two tables. A *pair* is a number: place of the left row * right rows + place."""

    def __init__(
        self,
        frames: tuple[DataFrame, DataFrame],
        prompt_spec: RowPrompts,
        oracle: str | RowFunction | None,
        *,
        recall: float,
        confidence: float,
    ) -> None:
        self._frames = frames
        self._spec = prompt_spec
        self._oracle = create_pair_oracle(frames, prompt_spec, oracle)
        self._recall = _share("recall", recall)
        self._confidence = _share("confidence", confidence)
        if self._confidence == 1:
            msg = "confidence must be below 1."
            raise UsageError(msg, hint="Use 0.95 or 0.99.")
        contents = self._oracle.texts.contents
        self._rows = (
            np.flatnonzero(contents[0].codes >= 0),
            np.flatnonzero(contents[1].codes >= 0),
        )
        self._candidates = ""
        self._decider: PairDecider
        self._consent = PlannedConsent(prompt_spec, self._so_far)
        # The pairs of the wave that an error or an interrupt has ended, and their answers.
        self._last = _NO_PAIRS, np.empty(0, np.int8)

    @property
    def pairs(self) -> int:
        """The number of pairs."""
        left, right = self._rows
        return len(left) * len(right)

    def prepare(
        self,
        candidates: Any,
        on: tuple[str | None, str | None],
        embedding_model: str | None,
        seed: int,
    ) -> None:
        """
        Rank the pairs.

        Raises:
            DryRunEnd: the call is a dry run, and texts would be embedded.
        """
        contents = self._oracle.texts.contents
        sides = (
            Side(self._frames[0], self._rows[0], contents[0], on[0]),
            Side(self._frames[1], self._rows[1], contents[1], on[1]),
        )
        hashes = [
            row_hashes(each.digests, each.codes[rows])
            for each, rows in zip(contents, self._rows, strict=True)
        ]
        order, pilot, ties = (
            PairOrder(hashes[0], hashes[1], seed=seed, purpose=purpose)
            for purpose in ("sample", "pilot", "ties")
        )
        self._order = order
        ranking = np.empty(0, np.int64)
        if self.pairs > PILOT_CALLS:  # fewer are all asked
            try:
                self._candidates, scores = choose_scores(
                    sides,
                    candidates,
                    embedding_model,
                    yes=self._spec.yes,
                    dry_run=self._spec.dry_run,
                )
            except DryRunEnd as end:
                raise DryRunEnd(add_estimates(self._estimate(self.pairs), end.estimate)) from None
            ranking = rank_pairs(scores, ties, adjust=self._candidates != SCORES)
        problem = PairProblem(
            size=self.pairs,
            ranking=ranking,
            order=order,
            pilot_order=pilot,
            ask=self._ask,
            recall=self._recall,
            delta=1 - self._confidence,
            confirm=self._confirm,
        )
        self._decider = PairDecider(problem)

    def decide(self) -> None:
        """
        Ask about pairs until the promise holds.

        Raises:
            DryRunEnd: the call is a dry run, and an answer is missing.
            LLMError: an error that affects all pairs.
            KeyboardInterrupt: the user interrupted the call.
        """
        if self._spec.dry_run and not isinstance(self._oracle, PromptOracle):
            return
        with self._oracle if isinstance(self._oracle, PromptOracle) else nullcontext():
            self._decider.run()

    def _positions(self, pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the positions of the left and of the right row of each pair."""
        left, right = np.divmod(pairs, max(1, len(self._rows[1])))
        return self._rows[0][left], self._rows[1][right]

    def _items(self, pairs: NDArray[np.int64]) -> NDArray[np.int32]:
        return self._oracle.items_of(*self._positions(pairs))

    def _ask(self, pairs: NDArray[np.int64]) -> NDArray[np.int8]:
        """Return the answers to a wave of pairs."""
        items = self._items(pairs)
        self._obtain_consent(items)
        try:
            answers = self._oracle.ask(items)
        except BaseException:
            known = ~np.isin(items, self._oracle.not_asked(items))
            self._last = pairs[known], self._oracle.ask(items[known])
            raise
        if self._spec.on_error == "raise" and self._oracle.errors:
            raise next(iter(self._oracle.errors.values()))
        return answers

    def _obtain_consent(self, items: NDArray[np.int32]) -> None:
        """
        Obtain the consent to the pilot, or to all pairs if they are few; end a dry run.

        Raises:
            DryRunEnd: the call is a dry run, and an answer is missing.
            UsageError: the session is not interactive, and the cost is too high.
        """
        expectation = self._decider.decisions.expectation
        if self._spec.dry_run:
            wave = self._oracle.estimate(items)
            if wave is not None and wave.prompts:
                asked = self._decider.decisions.pairs
                calls = self.pairs if expectation is None else expectation.calls
                all_left = self._estimate(calls - len(asked), asked)
                least = replace(wave, rows=self.pairs)
                raise DryRunEnd(max(all_left, least, key=lambda each: each.prompts))
        elif not self._consent.is_always_given and expectation is None:
            wave = self._oracle.estimate(items)
            if wave is not None:
                self._consent.obtain([wave.cost_usd], f"{wave.prompts:,} prompts")

    def _confirm(self, expectation: Expectation) -> None:
        """Obtain the consent to what is expected after the pilot."""
        if isinstance(self._oracle, PromptOracle):
            asked = self._decider.decisions.pairs
            more = expectation.calls - expectation.asked
            self._oracle.expect(self._questions(asked) + self._questions_left(more, asked))
            if not self._consent.is_always_given and not self._spec.dry_run:
                estimate = self._estimate(more, asked)
                share = format_percent(expectation.calls / self.pairs)
                what = (
                    f"about {expectation.calls:,} of {self.pairs:,} pairs, {share}; "
                    f"{expectation.asked:,} of them were asked"
                )
                self._consent.obtain([estimate.cost_usd], what, expectation.calls)

    def _estimate(self, calls: int, asked: NDArray[np.int64] = _NO_PAIRS) -> RowsEstimate:
        """
        Return the estimated cost of asking so many pairs, from a sample of those not asked.

        ``asked`` are the pairs that were asked.
        """
        if calls <= 0 or not isinstance(self._oracle, PromptOracle):
            return no_cost(self.pairs)
        wanted = len(asked) + _SAMPLED_PAIRS
        while True:
            first = self._order.first(wanted)
            items = self._oracle.not_asked(self._items(first))
            if len(items) or len(first) == self.pairs:
                break
            wanted *= 2
        sample = self._oracle.estimate(items[:_SAMPLED_PAIRS])
        questions = self._questions_left(calls, asked)
        return replace(scale_estimate(sample, questions), rows=self.pairs)

    def _questions(self, pairs: NDArray[np.int64]) -> int:
        """Return the number of different questions about ``pairs``."""
        return len(np.unique(self._items(pairs)))

    def _questions_left(self, calls: int, asked: NDArray[np.int64]) -> int:
        """Return how many different questions so many pairs have, drawn from those not asked."""
        left, right = self._oracle.texts.contents
        questions = len(left) * len(right) - self._questions(asked)
        pairs = self.pairs - len(asked)
        if not pairs or not questions:
            return 0
        # Each question is that of so many pairs, of which any one suffices.
        copies = pairs / questions
        drawn_share = min(max(calls, 0) / pairs, 1.0)
        return round(float(questions * (1 - (1 - drawn_share) ** copies)))

    @property
    def _stores_answers(self) -> bool:
        return stores_answers(self._oracle, self._spec)

    def _so_far(self) -> str:
        """Return what a user who declines has paid for."""
        asked = len(self._decider.decisions.pairs)
        return describe_so_far(asked, is_stored=self._stores_answers)

    def _seen(self) -> PairDecisions:
        """Return the answers so far, those of the wave that an interrupt has ended included."""
        seen, (pairs, answers) = self._decider.decisions, self._last
        sources = np.full(len(pairs), self._decider.source, np.int8)
        return replace(
            seen,
            pairs=np.append(seen.pairs, pairs),
            answers=np.append(seen.answers, answers),
            sources=np.append(seen.sources, sources),
        )

    def result(self, how: How, suffixes: tuple[str, str]) -> DataFrame:
        """Return the pairs that were found so far, with their report."""
        seen = self._seen()
        pairs = seen.pairs[seen.answers == YES]
        found = joined_rows(self._frames, self._positions(pairs), how, suffixes)
        store_report(found, self._report())
        return found

    def finish(self, how: How, suffixes: tuple[str, str]) -> DataFrame:
        """Return the result, and announce its report."""
        found = self.result(how, suffixes)
        report = self._report()
        announce(report, "", has_failed=report.failed > 0)
        return found

    def interrupted(self, how: How, suffixes: tuple[str, str]) -> Interrupted:
        """Return the exception for an interrupt."""
        found = self.result(how, suffixes)
        asked = len(self._decider.decisions.pairs) + len(self._last[0])
        msg = f"Stopped: {asked:,} of {self.pairs:,} pairs have answers."
        hint = (
            f"The {pluralize(asked, 'answer')} so far are stored and will not be requested again."
        )
        return Interrupted(msg, hint=hint if self._stores_answers else None, partial=found)

    def _report(self) -> JoinReport:
        seen, oracle = self._seen(), self._oracle
        items = self._items(seen.pairs)
        return JoinReport(
            pairs=self.pairs,
            missing=(
                len(self._frames[0]) - len(self._rows[0]),
                len(self._frames[1]) - len(self._rows[1]),
            ),
            found=seen.positives,
            oracle=oracle.name,
            candidates=self._candidates,
            recall=self._recall,
            confidence=self._confidence,
            is_complete=len(seen.pairs) == self.pairs,
            expected_calls=seen.expectation and seen.expectation.calls,
            calls=oracle.calls,
            cached=oracle.cached,
            cost_usd=oracle.cost_usd,
            _decisions=seen,
            _rows=self._positions(seen.pairs),
            _labels=(self._frames[0].index, self._frames[1].index),
            _errors={
                place: oracle.errors[item]
                for place, item in enumerate(items.tolist())
                if item in oracle.errors
            },
            _is_cached=oracle.is_cached[items],
        )


def _share(name: str, value: float) -> float:
    """Return ``value``, a number above 0 and at most 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        msg = f"Invalid value for {name}: {value!r:.60}."
        raise UsageError(msg, hint=f"Pass a number above 0 and at most 1: {name}=0.9")
    return float(value)
