"""The user's consent to the cost of an operator that sends prompts in several waves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from llm_magics._util.text import pluralize
from llm_magics.dataframes.operators.prompt_waves import MOST_ESTIMATED
from llm_magics.dataframes.reports import RowsEstimate, sum_known
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.runtime.confirm import confirm_cost
from llm_magics.runtime.session import session


class DryRunEnd(Exception):  # noqa: N818 (not an error)
    """A dry run has reached the first prompt that has no stored answer."""

    def __init__(self, estimate: RowsEstimate) -> None:
        super().__init__(str(estimate))
        self.estimate = estimate


class Consent:
    """
    Asks the user once, before the first wave with a prompt that has no stored answer.

    So the same call can be run again without a question, because all of its answers are stored.
    """

    def __init__(self, prompt_spec: RowPrompts) -> None:
        self._is_dry = prompt_spec.dry_run
        is_allowed = prompt_spec.yes or session.config.budget is not None
        self._is_always_given = self._is_given = is_allowed and not self._is_dry
        self._reason, self._so_far = "", "Nothing was sent"

    def renew(self, reason: str, answers: int) -> None:
        """
        Ask again before the next wave, because more prompts are needed than was estimated.

        ``reason`` says why, and ``answers`` is the number of answers so far.
        """
        self._is_given = self._is_always_given
        self._reason = f", {reason}"
        self._so_far = f"The {pluralize(answers, 'answer')} so far are stored"

    def obtain(
        self, estimate: Callable[[], RowsEstimate], later: Callable[[], RowsEstimate]
    ) -> None:
        """
        Obtain the consent to send a wave of prompts, and those that follow from its answers.

        Args:
            estimate: returns the estimate of the wave, without prompts that have an answer.
            later: returns the estimate of the prompts that follow.

        Raises:
            DryRunEnd: the call is a dry run, and the wave has a prompt without an answer.
            DeclinedError: the user declined.
            UsageError: the session is not interactive.
        """
        if self._is_given:
            return
        wave = estimate()
        is_free = not wave.prompts
        if is_free and (wave.rows <= MOST_ESTIMATED or not self._is_dry):
            return
        total = add_estimates(wave, later())
        if self._is_dry:
            raise DryRunEnd(total)
        what = f"up to {total.prompts:,} prompts{self._reason}"
        confirm_cost(total.cost_usd, what, so_far=self._so_far)
        self._is_given = True


def add_estimates(one: RowsEstimate, other: RowsEstimate) -> RowsEstimate:
    """Return the estimate of both; the number of rows is that of ``one``."""
    times = (one.seconds, other.seconds)
    return RowsEstimate(
        rows=one.rows,
        prompts=one.prompts + other.prompts,
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cost_usd=sum_known([one.cost_usd, other.cost_usd]),
        seconds=sum_known(times),
    )


def scale_estimate(sample: RowsEstimate, prompts: int) -> RowsEstimate:
    """Return the estimate of ``prompts`` prompts like those of ``sample``."""
    times = prompts / max(1, sample.rows)
    return replace(
        sample,
        prompts=round(sample.prompts * times),
        input_tokens=round(sample.input_tokens * times),
        output_tokens=round(sample.output_tokens * times),
        cost_usd=None if sample.cost_usd is None else sample.cost_usd * times,
        seconds=None if sample.seconds is None else sample.seconds * times,
    )


def no_cost(rows: int) -> RowsEstimate:
    """Return the estimate of no prompts."""
    return RowsEstimate(
        rows=rows, prompts=0, input_tokens=0, output_tokens=0, cost_usd=0.0, seconds=0.0
    )
