"""What may cost much is asked about before it is sent."""

from __future__ import annotations

from collections.abc import Iterable

from llm_magics import host
from llm_magics._async.bridge import bridge
from llm_magics._util.text import dollars
from llm_magics.engine.many import ManyCall
from llm_magics.engine.money import Estimate
from llm_magics.engine.session import session


def allowed(call: ManyCall) -> None:
    """
    Have whoever sits there allow what may cost more than the setting ``ask_above_usd``.

    With a budget nothing is asked: so much is allowed.

    Raises:
        UsageError: it was not allowed, or nobody is there.
    """
    if session.config.budget is not None or not bridge.run(call.may_cost()):
        return
    left = bridge.run(call.to_send())
    ask_if_much(
        total_usd(left),
        f"{len(left):,} prompts",
        "Give it yes=True, or raise it: %llm config ask_above_usd 20",
        is_partial=any(each.cost_usd is None for each in left),
    )


def total_usd(estimates: Iterable[Estimate]) -> float:
    """Return what calls may cost together, of those whose price is known."""
    return sum(each.cost_usd for each in estimates if each.cost_usd is not None)


def ask_if_much(
    usd: float | None, of_what: str, how_to_allow: str, *, is_partial: bool = False
) -> None:
    """
    Have what may cost ``usd`` allowed, if that is more than the setting ``ask_above_usd``.

    ``is_partial``: there are calls beside whose price is not known.

    Raises:
        UsageError: it was not allowed, or nobody is there.
    """
    limit = session.config.ask_above_usd
    if usd is not None and usd > limit:
        at_least = "at least " if is_partial else ""
        what = f"This may cost {at_least}{dollars(usd)} ({of_what}), and the setting ask_above_usd is {dollars(limit)}."
        host.obtain(what, how_to_allow)
