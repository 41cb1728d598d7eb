"""The user's consent to the cost of an operator that sends prompts in several waves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from llm_magics._util.text import pluralize
from llm_magics.dataframes.operators.prompt_waves import MOST_ESTIMATED
from llm_magics.dataframes.reports import RowsEstimate, sum_known
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.runtime.confirm import confirm_cost
from llm_magics.runtime.session import session

# If so many more calls are needed than were confirmed, the cost is confirmed again.
_GROWTH = 1.5


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
        self._is_fresh = prompt_spec.fresh
        self._reason, self._so_far = "", "Nothing was sent"

    def renew(self, reason: str, answers: int) -> None:
        """
        Ask again before the next wave, because more prompts are needed than was estimated.

        ``reason`` says why, and ``answers`` is the number of answers so far.
        """
        self._is_given = self._is_always_given
        self._reason = f", {reason}"
        self._so_far = describe_so_far(answers, is_stored=not self._is_fresh)

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


class PlannedConsent:
    """
    The user's consent to a number of calls that an operator has planned.

    Attributes:
        is_always_given: whether no question is needed.
        calls: the number of calls, in total, to which the user agreed; ``None`` before.
    """

    def __init__(self, prompt_spec: RowPrompts, so_far: Callable[[], str]) -> None:
        """``so_far`` returns what a user who declines has paid for."""
        self.is_always_given = prompt_spec.yes or session.config.budget is not None
        self.calls: int | None = None
        self._so_far = so_far

    def covers(self, calls: int) -> bool:
        """Return whether the user agreed to so many calls in total, or to nearly so many."""
        return self.is_always_given or (self.calls is not None and calls <= _GROWTH * self.calls)

    def obtain(
        self, costs_usd: Sequence[float | None], of_what: str, calls: int | None = None
    ) -> None:
        """
        Obtain the consent to costs, of which some may be unknown.

        Args:
            costs_usd: the costs of all that follows, or of one wave.
            of_what: what they are for.
            calls: the calls in total to which the user then has agreed; ``None`` for one wave.

        Raises:
            DeclinedError: the user declined.
            UsageError: the session is not interactive.
        """
        known = [usd for usd in costs_usd if usd is not None]
        confirm_cost(
            sum(known) if known else None,
            of_what,
            is_partial=len(known) < len(costs_usd),
            so_far=self._so_far(),
        )
        if calls is not None:
            self.calls = calls


def describe_so_far(answers: int, *, is_stored: bool) -> str:
    """Return what was sent before a user declines: a sentence without its full stop."""
    if not answers:
        return "Nothing was sent"
    if is_stored:
        return f"The {pluralize(answers, 'answer')} so far are stored"
    return "No further prompts were sent"


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
