"""What may cost much is asked about before it is sent."""

from __future__ import annotations

from llm_magics import consent
from llm_magics.bridge import bridge
from llm_magics.engine.many import ManyCall
from llm_magics.engine.session import session
from llm_magics.policies.budget import dollars


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
    usd = sum(each.cost_usd or 0.0 for each in left)
    ask_if_much(
        usd,
        f"{len(left):,} prompts",
        "Give it yes=True, or raise it: %llm config ask_above_usd 20",
    )


def ask_if_much(usd: float | None, of_what: str, how_to_allow: str) -> None:
    """
    Have what may cost ``usd`` allowed, if that is more than the setting ``ask_above_usd``.

    Raises:
        UsageError: it was not allowed, or nobody is there.
    """
    limit = session.config.ask_above_usd
    if usd is not None and usd > limit:
        what = f"This may cost {dollars(usd)} ({of_what}), and the setting ask_above_usd is {dollars(limit)}."
        consent.obtain(what, how_to_allow)
