"""What may cost much is asked about before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llm_magics._async.bridge import bridge
from llm_magics.engine.chat import ChatCall
from llm_magics.engine.many import ManyCall
from llm_magics.engine.prompt import Prompt
from llm_magics.engine.session import session
from llm_magics.errors import LLMError
from llm_magics.frames.costs import ask_if_much, total_usd


def allow(calls: Mapping[str, Sequence[ChatCall]], times: float = 1) -> None:
    """
    Have whoever sits there allow what each model's ``calls``, so many ``times``, may cost.

    With a budget nothing is asked: so much is allowed.

    Raises:
        UsageError: it was not allowed, or nobody is there.
    """
    if session.config.budget is not None:
        return
    usd = bridge.run(_usd(calls)) * times
    count = round(sum(map(len, calls.values())) * times)
    how = "Give it yes=True, or raise it: %llm config ask_above_usd 20"
    ask_if_much(usd, f"{count:,} requests", how)


async def _usd(calls: Mapping[str, Sequence[ChatCall]]) -> float:
    usd = 0.0
    for model, of_model in calls.items():
        try:
            if await ManyCall(session, [Prompt("", model)]).may_cost():
                told = [await call.to_send() for call in of_model]
                usd += total_usd(each for each in told if each is not None)
        except LLMError:  # it is told of in the rows of this model, and stops no other
            continue
    return usd
