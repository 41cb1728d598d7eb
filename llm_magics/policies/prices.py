"""What a call costs. Where no price is known there is none: unknown is never shown as free."""

from __future__ import annotations

from llm_magics.types import Usage

# They run on the user's own machine.
FREE_PROVIDERS = frozenset({"echo", "local"})


def cost_usd(provider: str, usage: Usage | None) -> float | None:
    """The price of a call in US dollars, or ``None`` where it is not known."""
    return 0.0 if provider in FREE_PROVIDERS else None
