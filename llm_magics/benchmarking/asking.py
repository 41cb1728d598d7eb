"""One prompt to one model, as a row: what comparing and measuring have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from llm_magics.engine.chat import ChatCall
from llm_magics.engine.exchange import Exchange
from llm_magics.engine.prompt import Prompt
from llm_magics.engine.response import Response
from llm_magics.engine.session import session
from llm_magics.errors import Interrupted, LLMError

if TYPE_CHECKING:
    from pandas import DataFrame


def frame_of(prompts: Iterable[Prompt]) -> DataFrame:
    """One row a prompt, as `rows_of` gives them."""
    import pandas as pd

    return pd.DataFrame(rows_of(prompts))


def rows_of(prompts: Iterable[Prompt]) -> list[dict[str, Any]]:
    """
    One row a prompt: the answer, or what came of one and the error; others go on.

    Interrupted, the rows so far are in the exception's ``partial``, as a frame.
    """
    rows: list[dict[str, Any]] = []
    for prompt in prompts:
        call = ChatCall(session, prompt)
        error: str | None = None
        try:
            with Exchange(call) as exchange:
                exchange.finish()
        except LLMError as failure:
            error = f"{type(failure).__name__}: {failure}"
        except KeyboardInterrupt:
            raise _interrupted(rows) from None
        rows.append(as_row(prompt.text, prompt.model or "", call.response(), error))
    return rows


def _interrupted(rows: list[dict[str, Any]]) -> Interrupted:
    import pandas as pd

    msg = f"Stopped; {len(rows)} answers had come."
    hint = "They are a frame in the exception's .partial." if rows else None
    return Interrupted(msg, hint=hint, partial=pd.DataFrame(rows))


def as_row(prompt: str, model: str, response: Response, error: str | None) -> dict[str, Any]:
    """The columns of ``lm.runs()`` that tell of the answer, with its prompt and its text."""
    provider, _, name = (response.model or model).partition("/")
    return {
        "prompt": prompt,
        "provider": provider,
        "model": name,
        "text": response.text if error is None else None,
        "ttft_s": response.timing.ttft_s,
        "itl_ms": response.timing.itl_ms,
        "e2e_s": response.timing.e2e_s,
        "load_s": response.timing.load_s,
        "input_tokens": response.usage.input_tokens,
        "output_tokens": response.usage.output_tokens,
        "tokens_per_s": response.timing.tokens_per_s,
        "cost_usd": response.cost_usd,
        "cached": response.cached,
        "finish_reason": response.finish_reason if error is None else "error",
        "error": error,
    }


def listed(one_or_many: str | Iterable[str]) -> list[str]:
    """``"a"`` as ``["a"]``, and a list as it is."""
    return [one_or_many] if isinstance(one_or_many, str) else list(one_or_many)
