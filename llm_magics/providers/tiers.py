"""
Service tiers: cheaper requests that a service answers when it has capacity.

The tier ``flex`` is at OpenAI (https://developers.openai.com/api/docs/guides/flex-processing), Azure
(https://learn.microsoft.com/azure/foundry/openai/how-to/flex-processing), Gemini
(https://ai.google.dev/gemini-api/docs/flex-inference) and Groq
(https://console.groq.com/docs/flex-processing, at the usual price), as of November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from llm_magics.errors import ProviderError, RateLimitError, UnsupportedError
from llm_magics.providers.error_bodies import error_text

# The time to wait for the next byte of an answer, in seconds: services advise 10 to 15 minutes.
FLEX_IDLE_S = 900.0

# The providers with modules in this package; for services, the data file has the fact.
_WITH_TIERS = ("gemini",)

# The name of the method for chats; the other one continues raw text.
_CHAT = "generate_chat"

_TIER_WORDS = re.compile(r"service[_ ]?tier|flex", re.IGNORECASE)


def providers_with_tier(tier: str) -> list[str]:
    """Return the names of the providers that have ``tier``, sorted."""
    from llm_magics.providers.services import services

    offering = [name for name, each in services().items() if tier in each.profile.get("tiers", ())]
    return sorted({*_WITH_TIERS, *offering})


def require_tier(tier: str, provider: str, offered: Sequence[str], method: str = _CHAT) -> None:
    """
    Check that ``provider``, with the tiers ``offered``, has ``tier`` for ``method``.

    Raises:
        UnsupportedError: it has not.
    """
    if tier not in offered:
        msg = f"The provider {provider} does not have the tier {tier}."
        hint = f"Use one of: {', '.join(providers_with_tier(tier))}."
    elif method != _CHAT:
        msg, hint = f"The tier {tier} is for chats only.", "Leave out the tier."
    else:
        return
    raise UnsupportedError(msg, hint=hint, provider=provider)


def tier_in(body: Mapping[str, Any]) -> str:
    """Return the cheaper tier in the body of a request; empty if it has none."""
    tier = body.get("service_tier", body.get("serviceTier"))
    return "flex" if tier == "flex" else ""


def explain_tier_error(error: ProviderError, tier: str) -> ProviderError:
    """Return ``error`` of a request in ``tier`` with what to do about the tier."""
    if not tier:
        return error
    is_full = isinstance(error, RateLimitError) or error.status == 503
    if is_full and error.retryable:
        error.hint = f'The tier {tier} may be full. Try again later, or leave out tier="{tier}".'
        return error
    if error.status not in (400, 422) or not _TIER_WORDS.search(error_text(error)):
        return error
    hint = (
        f'The model may not have the tier {tier}. Leave out tier="{tier}", or use another model.'
    )
    return UnsupportedError(str(error), hint=hint, **{**error.details(), "retryable": False})
