"""Ask the user to confirm expensive calls before they are sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from llm_magics._async.bridge import bridge
from llm_magics._util.text import format_usd
from llm_magics.errors import DeclinedError, LLMError, UsageError
from llm_magics.host import current_host
from llm_magics.runtime.batch import BatchCall, BatchEstimate
from llm_magics.runtime.chat import ChatCall
from llm_magics.runtime.pricing import Estimate
from llm_magics.runtime.prompts.prompt import Prompt
from llm_magics.runtime.session import session

_HOW_TO_ALLOW = "Pass yes=True, or raise the limit: %llm config confirm_above_usd 20"


class Prompts(Protocol):
    """Many prompts: live calls, or batch jobs."""

    async def may_cost(self) -> bool:
        """Return whether the model has a price."""

    async def to_send(self) -> BatchEstimate:
        """Return the estimate of those without a stored answer."""


def confirm_batch(call: Prompts) -> None:
    """
    Ask the user to allow calls that may cost more than the setting ``confirm_above_usd``.

    With a budget, it does not ask, because the budget is the limit.

    Raises:
        DeclinedError: the user declined.
        UsageError: the session is not interactive.
    """
    if session.config.budget is not None or not bridge.run(call.may_cost()):
        return
    left = bridge.run(call.to_send())
    confirm_cost(
        left.known_usd,
        f"{left.prompts:,} prompts",
        is_partial=left.has_unknown_cost,
    )


def total_usd(estimates: Iterable[Estimate]) -> float:
    """Return the total cost of the calls whose price is known."""
    return sum(each.cost_usd for each in estimates if each.cost_usd is not None)


def confirm_cost(
    usd: float | None,
    of_what: str,
    *,
    how_to_allow: str = _HOW_TO_ALLOW,
    is_partial: bool = False,
    so_far: str = "Nothing was sent",
) -> None:
    """
    Ask the user to allow a cost of ``usd``, if it exceeds the setting ``confirm_above_usd``.

    ``is_partial`` means that the price of some calls is unknown; ``so_far`` says what was sent.

    Raises:
        DeclinedError: the user declined.
        UsageError: the session is not interactive.
    """
    limit = session.config.confirm_above_usd
    if usd is not None and usd > limit:
        at_least = "at least " if is_partial else ""
        cost = f"{at_least}{format_usd(usd)} ({of_what})"
        what = f"This may cost {cost}, more than confirm_above_usd ({format_usd(limit)})."
        _require_permission(cost, what, how_to_allow, so_far)


def _require_permission(cost: str, what: str, how_to_allow: str, so_far: str) -> None:
    """
    Ask the user to allow ``cost``; ``what`` is a sentence about it.

    Raises:
        DeclinedError: the answer was not yes.
        UsageError: the session is not interactive.
    """
    answer = current_host().ask(f"{what} Continue? [y/N] ")
    if answer is None:
        msg = f"{what} Confirmation is required, but the session is not interactive. {so_far}."
        raise UsageError(msg, hint=how_to_allow)
    if answer.strip().lower() not in ("y", "yes"):
        msg = f"{so_far}: you declined a cost of {cost}."
        raise DeclinedError(msg, hint=how_to_allow)


def confirm_calls(calls: Mapping[str, Sequence[ChatCall]], times: float = 1) -> None:
    """
    Ask the user to allow the cost of each model's ``calls``, repeated ``times``.

    With a budget, it does not ask, because the budget is the limit.

    Raises:
        DeclinedError: the user declined.
        UsageError: the session is not interactive.
    """
    if session.config.budget is not None:
        return
    usd = bridge.run(_estimate_usd(calls)) * times
    count = round(sum(map(len, calls.values())) * times)
    confirm_cost(usd, f"{count:,} requests")


async def _estimate_usd(calls: Mapping[str, Sequence[ChatCall]]) -> float:
    usd = 0.0
    for model, of_model in calls.items():
        try:
            if await BatchCall(session, [Prompt(text="", model=model)]).may_cost():
                estimates = [await call.to_send() for call in of_model]
                usd += total_usd(each for each in estimates if each is not None)
        except LLMError:  # reported in the rows of this model; the others continue
            continue
    return usd
