"""``topk``: the rows for which a statement is true to the highest degree."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llm_magics._util.text import pluralize
from llm_magics._util.validation import check_integer
from llm_magics.dataframes.answer_columns import check_columns_free, tag_answer_columns
from llm_magics.dataframes.operators.comparisons import ModelComparisons
from llm_magics.dataframes.operators.consent import (
    Consent,
    DryRunEnd,
    no_cost,
    scale_estimate,
)
from llm_magics.dataframes.operators.item_scores import ColumnScores, ItemScores, top_items
from llm_magics.dataframes.operators.model_scores import ModelScores
from llm_magics.dataframes.operators.options import check_parameters
from llm_magics.dataframes.operators.packed_prompts import RowsPerPrompt
from llm_magics.dataframes.operators.packing_check import CHECK_PROMPTS
from llm_magics.dataframes.operators.questions import statement_texts
from llm_magics.dataframes.operators.same_kind import row_labels
from llm_magics.dataframes.operators.sampling import sampling_order
from llm_magics.dataframes.operators.topk_report import TopKReport
from llm_magics.dataframes.operators.tournament import (
    Outcome,
    Pair,
    Tournament,
    max_comparisons,
)
from llm_magics.dataframes.reports import announce, store_report, sum_known
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.dataframes.rows import OnError, to_frame
from llm_magics.errors import Interrupted, LLMError, UsageError, abbreviate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from pandas import DataFrame

    from llm_magics.dataframes.reports import RowsEstimate

__all__ = ["topk"]

RANK, SCORE = "rank", "score"

# The candidates of each place. With scores of rank correlation 0.9, 5 per place contain 95 % of the
# best 10 of 1,000.
CANDIDATES_PER_PLACE = 5

# The number of pairs from which the cost of comparisons is estimated before the scores are known.
_SAMPLED_PAIRS = 50


def topk(  # noqa: PLR0913 (as for lm.prompt)
    rows: Any,
    prompt: str,
    k: int = 10,
    *,
    model: str | None = None,
    scores: Any = None,
    candidates: int | None = None,
    rows_per_prompt: RowsPerPrompt = "auto",
    seed: int = 0,
    system: str | None = None,
    concurrency: int | None = None,
    on_error: OnError = "null",
    fresh: bool = False,
    dry_run: bool = False,
    yes: bool = False,
    **parameters: Any,
) -> DataFrame | RowsEstimate:
    """
    Return the ``k`` rows for which a statement is true to the highest degree, best first.

    All rows are scored, several in one prompt; then the candidates with the highest scores are
    compared in pairs, each pair in both orders. Answers are cached: the same call continues where
    it stopped, and is free after it has ended.

    Args:
        rows: a DataFrame; or a list, array, or column of pandas, polars or pyarrow.
        prompt: a statement with ``{{ column }}``, such as ``"{{ text }} is urgent"``. Rows in which
            all of these columns are missing are left out, and equal statements are one candidate.
        k: the number of rows.
        model: the model that compares, and gives the scores.
        scores: the name of a column of scores, of which the highest is the best; or of a model that
            gives them, such as a cheaper one.
        candidates: the number of candidates, from ``k`` to 5 times ``k`` (the default).
        rows_per_prompt: the number of rows in a prompt for scores.
        seed: another seed chooses other candidates among rows with equal scores.
        system, parameters: as for `llm_magics.ask`, the same for all prompts.
        concurrency: number of concurrent requests.
        on_error: with ``null``, scores decide the comparisons that failed, and a row without a
            score is a candidate only after all others; ``raise`` raises the error.
        fresh: send prompts even if their answers are cached.
        dry_run: return an estimate of tokens, cost and time, and send nothing. It has the most
            comparisons that may be needed; unless their check is stored, packs of 20 rows.
        yes: do not ask for confirmation of the cost (setting ``confirm_above_usd``). Without it,
            there is another question if the check shows that packs have to be smaller.

    Returns:
        a new DataFrame with the columns ``rank`` (from 1; the same for equal statements) and, if a
        model gave it, ``score`` (0 to 100). Its ``.llm.report`` is a `TopKReport`.

    Raises:
        UsageError: the prompt names no column of the rows, or the cost needs confirmation.
        Interrupted: ``partial`` has the rows that are ranked so far.
        LLMError: an error that affects all rows.
    """
    check_parameters(topk, parameters)
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
    search = _Search(to_frame(rows), prompt_spec, k=k, candidates=candidates, seed=seed)
    search.score_by(scores, rows_per_prompt)
    try:
        search.run()
    except DryRunEnd as end:
        return replace(end.estimate, rows=len(search.frame))
    except KeyboardInterrupt:
        raise search.interrupted() from None
    return no_cost(len(search.frame)) if dry_run else search.finish()


class _Search:
    """
    The search for the best rows of ``frame``.

    An *item* is a distinct statement; a *candidate* is the number of an item in the order of the
    scores.
    """

    def __init__(
        self,
        frame: DataFrame,
        prompt_spec: RowPrompts,
        *,
        k: int,
        candidates: int | None,
        seed: int,
    ) -> None:
        self.frame = frame
        self._spec = prompt_spec
        self._k = check_integer("k", k)
        check_columns_free(frame, [RANK], "The column")
        self._statements = statement_texts(frame, prompt_spec)
        self._codes = self._statements.codes
        count = len(self._statements)
        most = CANDIDATES_PER_PLACE * self._k
        if candidates is not None:
            most = check_integer("candidates", candidates, least=self._k, most=most)
        self._count = min(most, count)
        self._order = sampling_order(self._statements.digests, _check_seed(seed))
        self._consent = Consent(prompt_spec)
        self._scores: ItemScores
        self._values: NDArray[np.float64] = np.full(count, np.nan)
        self._items: NDArray[np.intp] = np.empty(0, np.intp)
        self._comparisons = ModelComparisons([], prompt_spec)
        self._tournament = Tournament([], self._k)

    def score_by(self, scores: Any, rows_per_prompt: RowsPerPrompt) -> None:
        """
        Set what gives the scores: the column or the model ``scores``, or the model that compares.

        Raises:
            UsageError: ``scores`` or ``rows_per_prompt`` is something else.
        """
        is_name = scores is not None and pd.api.types.is_hashable(scores)
        if is_name and scores in list(self.frame.columns):
            self._scores = ColumnScores(self.frame, scores, self._codes)
            return
        if scores is not None and not isinstance(scores, str):
            msg = f"The DataFrame has no column of scores {abbreviate(scores)}."
            raise UsageError(msg, hint="Pass the name of a column, or of a model.")
        check_columns_free(self.frame, [SCORE], "The column")
        spare = _spare_prompts(self._count, self._k)
        if rows_per_prompt == "auto":  # with few candidates, the check exceeds the limit
            spare = max(spare, CHECK_PROMPTS)
        self._scores = ModelScores(
            self._statements,
            self._order.tolist(),
            prompt_spec=replace(self._spec, model=scores or self._spec.model),
            rows_per_prompt=rows_per_prompt,
            max_extra=spare,
        )

    def run(self) -> None:
        """
        Score the items, and rank the candidates.

        Raises:
            DryRunEnd: the call is a dry run, and an answer is missing.
            LLMError: an error that affects all rows.
            KeyboardInterrupt: the user interrupted the call.
        """
        self._consent.obtain(self._scores.estimate, self._estimate_comparisons)
        if self._scores.check_packing():
            done = self._scores.calls + self._scores.cached
            self._consent.renew("because fewer rows fit into a prompt than expected", done)
            self._consent.obtain(self._scores.estimate, self._estimate_comparisons)
        self._values = self._scores.obtain()
        self._check(self._scores.errors.values(), is_lost=bool(np.isnan(self._values).all()))
        places = np.empty(len(self._order), np.intp)
        places[self._order] = np.arange(len(self._order))
        self._items = top_items(self._values, places, self._count)
        weights = np.bincount(self._codes[self._codes >= 0], minlength=len(places))
        self._tournament = Tournament(weights[self._items].tolist(), self._k)
        statements = [self._statements[item] for item in self._items.tolist()]
        self._comparisons = ModelComparisons(statements, self._spec)
        waves = self._comparisons.waves
        waves.expected = 2 * max_comparisons(self._count, self._k)
        with waves:
            self._tournament.run(self._compare)
        outcomes = self._tournament.outcomes.values()
        is_lost = bool(outcomes) and all(each is Outcome.FAILED for each in outcomes)
        self._check(self._comparisons.errors, is_lost=is_lost)

    def _compare(self, pairs: Sequence[Pair]) -> list[Outcome]:
        """Return the outcomes of a round."""
        waves, left = self._comparisons.waves, max_comparisons(self._count, self._k)
        left -= len(self._tournament.outcomes) + len(pairs)
        wave = partial(waves.estimate, self._comparisons.prompts(pairs))
        self._consent.obtain(wave, lambda: scale_estimate(wave(), 2 * left))
        found = self._comparisons(pairs)
        if self._spec.on_error == "raise":
            self._check(self._comparisons.errors)
        return found

    def _estimate_comparisons(self) -> RowsEstimate:
        """Return the estimated cost of the comparisons before the candidates are known."""
        sample = self._order[: 2 * _SAMPLED_PAIRS].tolist()
        pairs = [(one, one + 1) for one in range(0, len(sample) - 1, 2)]
        drawn = ModelComparisons([self._statements[each] for each in sample], self._spec)
        estimate = drawn.waves.estimate(drawn.prompts(pairs))
        return scale_estimate(estimate, 2 * max_comparisons(self._count, self._k))

    def _check(self, errors: Iterable[LLMError], *, is_lost: bool = False) -> None:
        """Raise the first of ``errors`` if the user wants it, or if nothing else is left."""
        first = next(iter(errors), None)
        if first is not None and (is_lost or self._spec.on_error == "raise"):
            raise first

    def result(self) -> DataFrame:
        """Return the rows that are ranked so far, with their report."""
        ranking = self._items[self._tournament.ranking]
        ranks = np.full(len(self._values) + 1, len(ranking))  # the last one: rows without an item
        ranks[ranking] = np.arange(len(ranking))
        order = np.argsort(ranks[self._codes], kind="stable")
        positions = order[ranks[self._codes[order]] < len(ranking)][: self._k]
        items = self._codes[positions]
        found = self.frame.iloc[positions].copy()
        # Equal statements share a rank, as in sports.
        is_first = np.append(True, items[1:] != items[:-1])[: len(items)]
        places = np.where(is_first, np.arange(len(items)), 0)
        found[RANK] = np.maximum.accumulate(places) + 1
        if self._scores.is_new:
            found[SCORE] = pd.array(self._values[items], dtype="Float64")
        tag_answer_columns(found, [RANK, SCORE])
        store_report(found, self._report(len(found)))
        return found

    def finish(self) -> DataFrame:
        """Return the result, and announce its report."""
        found = self.result()
        report = self._report(len(found))
        has_failed = report.failed + report.scores_failed > 0
        announce(report, "", has_failed=has_failed, details="see .llm.report.failures()")
        return found

    def interrupted(self) -> Interrupted:
        """Return the exception for an interrupt."""
        done = self._scores.calls + self._scores.cached
        done += self._comparisons.waves.calls + self._comparisons.waves.cached
        found = self.result()
        msg = f"Stopped: {len(found):,} of {min(self._k, self._rows):,} rows are ranked."
        hint = (
            f"The {pluralize(done, 'answer')} so far are stored and will not be requested again."
        )
        return Interrupted(msg, hint=None if self._spec.fresh else hint, partial=found)

    @property
    def _rows(self) -> int:
        return int((self._codes >= 0).sum())

    def _report(self, found: int) -> TopKReport:
        waves, outcomes = self._comparisons.waves, self._tournament.outcomes
        first_rows = np.full(len(self._values), -1)
        with_item = np.flatnonzero(self._codes >= 0)[::-1]
        first_rows[self._codes[with_item]] = with_item
        counts = Counter(outcomes.values())
        return TopKReport(
            rows=len(self.frame),
            found=found,
            missing=len(self.frame) - self._rows,
            items=len(self._statements),
            candidates=len(self._items),
            scores=self._scores.name,
            scores_failed=len(self._scores.errors),
            packing=self._scores.packing,
            comparisons=len(outcomes),
            rounds=self._tournament.rounds,
            inconsistent=counts[Outcome.TIE],
            failed=counts[Outcome.FAILED],
            calls=self._scores.calls + waves.calls,
            cached=self._scores.cached + waves.cached,
            cost_usd=sum_known([self._scores.cost_usd, waves.cost_usd]),
            _answers=self._comparisons.answers,
            _outcomes=outcomes,
            _labels=row_labels(self.frame.index, first_rows[self._items]),
            _score_errors=[
                (row_labels(self.frame.index, first_rows[[item]])[0], error)
                for item, error in self._scores.errors.items()
            ],
        )


def _spare_prompts(candidates: int, k: int) -> int:
    """
    Return the number of prompts that the comparisons leave for the check of packs and repeated rows.

    All prompts are at most one for each pack of rows, and 2(m + m ceil(log2 m)) for ``m`` candidates.
    It is at least `CHECK_PROMPTS` with five candidates for each place.
    """
    most = 2 * (candidates + candidates * max(0, candidates - 1).bit_length())
    return most - 2 * max_comparisons(candidates, k)


def _check_seed(seed: int) -> int:
    """Return ``seed``, an integer of up to 64 bits."""
    return check_integer("seed", seed, least=-(2**63), most=2**63 - 1)
