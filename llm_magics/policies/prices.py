"""
What a call costs. Where no price is known there is none: unknown is never shown as free.

A price of the user's own counts first, then the list that pydantic keeps (``genai-prices``, the
extra ``prices``; with tiers and dates), then what is known of the model otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

from llm_magics.types import Usage

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """
    US dollars for a million tokens; ``None`` where it is not known.

    Attributes:
        input_usd, output_usd: of the prompt and of the answer.
        cached_usd: of what the service had read before; as any other input where not known.
        written_usd: of what it keeps to read again; the same.
    """

    input_usd: float | None = None
    output_usd: float | None = None
    cached_usd: float | None = None
    written_usd: float | None = None

    def of(self, usage: Usage) -> float | None:
        """What ``usage`` costs in US dollars, or ``None`` where a part of it is not known."""
        if self.input_usd is None or usage.input_tokens is None:
            return None
        if usage.output_tokens is None and self.output_usd != 0:
            return None
        written_to = usage.output_tokens or 0
        if written_to and self.output_usd is None:
            return None
        cached, written = usage.cached_tokens or 0, usage.cache_write_tokens or 0
        plain = max(0, usage.input_tokens - cached - written)
        parts = (
            plain * self.input_usd,
            cached * _first(self.cached_usd, self.input_usd),
            written * _first(self.written_usd, self.input_usd),
            written_to * (self.output_usd or 0.0),
        )
        return sum(parts) / _MILLION


def _first(value: float | None, other: float) -> float:
    return other if value is None else value


@dataclass(frozen=True, slots=True)
class Seller:
    """Who is paid: the name of a price list, or else the address that is asked."""

    price_list: str = ""
    address: str = ""


# What services call the tier that their usual prices are for, in the answer to a call.
_USUAL_TIERS = frozenset({"auto", "default", "on_demand", "standard"})

# The share of the usual price by seller and tier: the same for all models of the seller.
# Source: https://platform.openai.com/docs/guides/flex-processing (November 2026).
_SHARES = {("openai", "flex"): 0.5}


def has_usual_price(tier: str | None) -> bool:
    """Return whether calls of a tier are billed by the usual prices."""
    return tier is None or tier.lower() in _USUAL_TIERS


def of_tier(usd: float | None, seller: Seller, tier: str | None) -> float | None:
    """Return a usual price ``usd`` as it is in ``tier``; ``None`` where that is not known."""
    if usd in (None, 0.0) or has_usual_price(tier):
        return usd
    share = _SHARES.get((seller.price_list, str(tier).lower()))
    return None if share is None else usd * share


def listed_cost_usd(seller: Seller, model: str, usage: Usage) -> float | None:
    """
    Return the cost by the list of ``genai-prices``, by the tier that the answer names.

    ``None`` where the list, the model in it, or a price of that tier is missing.
    """
    usual = _listed_usd(seller, model, usage, None)
    tier = usage.service_tier
    if not usual or has_usual_price(tier):
        return usual
    # The list gives the usual price for a tier that it does not have.
    listed = _listed_usd(seller, model, usage, str(tier).lower())
    return listed if listed != usual else of_tier(usual, seller, tier)


def _listed_usd(seller: Seller, model: str, usage: Usage, tier: str | None) -> float | None:
    is_counted = usage.input_tokens is not None and usage.output_tokens is not None
    if not is_counted or not _has_list() or not (seller.price_list or seller.address):
        return None
    from genai_prices import Usage as Used
    from genai_prices import calc_price

    context: Any = {"service_tier": tier} if tier else None
    used = Used(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens or 0,
        cache_read_tokens=min(usage.cached_tokens or 0, usage.input_tokens or 0),
        cache_write_tokens=usage.cache_write_tokens or 0,
    )
    try:
        if seller.price_list:
            found = calc_price(used, model, provider_id=seller.price_list, price_context=context)
        else:
            found = calc_price(used, model, provider_api_url=seller.address, price_context=context)
    except (LookupError, ValueError):
        return None
    if found.model_price.input_mtok is None:  # it bills hours or pictures: tokens are not free
        return None
    return float(found.total_price)


@cache
def _has_list() -> bool:
    return find_spec("genai_prices") is not None
