"""
The prices of service tiers and of batch jobs, as shares of the usual prices.

They are from the services' documents as of November 2026; no account was used to check them.
``genai-prices`` has precedence where it lists prices of a tier for a model.

| price list | batch jobs | source |
|---|---|---|
| ``anthropic`` | half, cached and written tokens too | https://platform.claude.com/docs/en/build-with-claude/batch-processing |
| ``azure`` | half of Global Standard; for models before GPT-5 no discount for cached tokens | https://learn.microsoft.com/azure/ai-foundry/openai/how-to/batch, Azure's retail price list |
| ``google`` | half; cached tokens at their usual price | https://ai.google.dev/gemini-api/docs/batch-api |
| ``groq`` | half, without a discount for cached tokens | https://console.groq.com/docs/batch |
| ``mistral`` | half | https://docs.mistral.ai/capabilities/batch |
| ``openai`` | half; for models before GPT-5 no discount for cached tokens | https://developers.openai.com/api/docs/pricing |
| ``openrouter`` | depends on the model: the price of ``MODEL:batch`` in its list of models | https://openrouter.ai/docs/guides/features/batch-api |
| ``together`` | half for the models below, the usual price for the others | https://docs.together.ai/docs/inference/batch/overview |

The fees of web searches have no discount.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from llm_magics.usage import Usage

# The names that services give the tier with their usual prices, in the answer to a call.
_USUAL_TIERS = frozenset({"auto", "default", "on_demand", "standard"})


@dataclass(frozen=True, slots=True)
class PriceSource:
    """Where to look up prices: the name of a price list, or else the service's address."""

    price_list: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class Share:
    """
    The price in a tier as a share of the usual price.

    Attributes:
        tokens: the share of the price of all tokens but cached ones.
        cached: the share of the price of cached tokens; ``None`` if they have no discount, so that
            they cost as much as other tokens of the prompt in this tier.
    """

    tokens: float
    cached: float | None

    def counted(self, usage: Usage) -> Usage:
        """Return ``usage`` with cached tokens only if they have a discount."""
        return replace(usage, cached_tokens=0) if self.cached is None else usage

    def of(self, usual: Callable[[Usage], float | None], usage: Usage) -> float | None:
        """Return the price of ``usage`` in this tier, from the function for the usual price."""
        usage = self.counted(usage)
        whole = usual(usage)
        if whole is None or self.cached in (None, self.tokens) or not usage.cached_tokens:
            return None if whole is None else whole * self.tokens
        read = usage.input_tokens or 0
        # Of a prompt of the same length, because longer prompts can have higher prices.
        cached = usual(Usage(read, 0, cached_tokens=read))
        if cached is None:
            return None
        part = cached * min(1.0, usage.cached_tokens / read) if read else 0.0
        return whole * self.tokens + part * (self.cached - self.tokens)


def in_tier(
    usual: Callable[[Usage], float | None], usage: Usage, share: Share | None
) -> float | None:
    """Return the price of ``usage`` in a tier; ``None`` if the usual price or the share is unknown."""
    whole = usual(usage)
    if not whole:  # unknown, or free in every tier
        return whole
    return share.of(usual, usage) if share else None


_HALF, _USUAL = Share(0.5, 0.5), Share(1.0, 1.0)

# https://platform.openai.com/docs/guides/flex-processing,
# https://ai.google.dev/gemini-api/docs/flex-inference,
# https://learn.microsoft.com/azure/foundry/openai/how-to/flex-processing and
# https://console.groq.com/docs/flex-processing (November 2026).
_FLEX = {"azure": _HALF, "google": _HALF, "groq": _USUAL, "openai": _HALF}

_BATCH = {
    "anthropic": _HALF,
    "azure": _HALF,
    "google": Share(0.5, 1.0),
    "groq": Share(0.5, None),
    "mistral": _HALF,
    "openai": _HALF,
}
_BEFORE_GPT_5 = re.compile(r"(?:^|[/:])(?:gpt-?[34]|chatgpt-4|o[134](?:-|$))", re.IGNORECASE)
_TOGETHER_MODELS = frozenset(
    {
        "meta-llama/Llama-3-70b-chat-hf",
        "meta-llama/Llama-3.3-70B-Instruct-Turbo",
        "mistralai/Mixtral-8x7B-Instruct-v0.1",
        "Qwen/Qwen2.5-7B-Instruct-Turbo",
        "zai-org/GLM-4.5-Air-FP8",
    }
)


def has_usual_price(tier: str | None) -> bool:
    """Return whether calls of a tier are billed at the usual prices."""
    return tier is None or tier.lower() in _USUAL_TIERS


def find_share(price_list: str, model: str, tier: str | None) -> Share | None:
    """Return the price of ``model`` in ``tier`` as a share of its usual price, if it is known."""
    if has_usual_price(tier):
        return _USUAL
    if str(tier).lower() == "flex":
        return _FLEX.get(price_list)
    if str(tier).lower() != "batch":
        return None
    if price_list in ("azure", "openai") and _BEFORE_GPT_5.search(model):
        return Share(0.5, None)
    if price_list == "together":
        return _HALF if model in _TOGETHER_MODELS else _USUAL
    return _BATCH.get(price_list)
