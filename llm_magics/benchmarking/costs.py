"""What may cost much is asked about before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llm_magics.bridge import bridge
from llm_magics.engine.many import ManyCall
from llm_magics.engine.prompt import Prompt
from llm_magics.engine.session import session
from llm_magics.errors import LLMError
from llm_magics.frames.costs import ask_if_much


def allow(prompts: Mapping[str, Sequence[Prompt]], times: float) -> None:
    """
    Have whoever sits there allow what asking each model its prompts so many ``times`` may cost.

    With a budget nothing is asked: so much is allowed.

    Raises:
        UsageError: it was not allowed, or nobody is there.
    """
    if session.config.budget is not None:
        return
    usd = sum(_usd(each) for each in prompts.values()) * times
    count = round(sum(map(len, prompts.values())) * times)
    how = "Give it yes=True, or raise it: %llm config ask_above_usd 20"
    ask_if_much(usd, f"{count:,} requests", how)


def _usd(prompts: Sequence[Prompt]) -> float:
    call = ManyCall(session, prompts)
    try:
        if not bridge.run(call.may_cost()):
            return 0.0
        return sum(each.cost_usd or 0.0 for each in bridge.run(call.to_send()))
    except LLMError:  # it is told of in the rows of this model, and stops no other
        return 0.0
