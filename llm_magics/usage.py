"""The tokens and searches of a call that a service counts, and the times that it measures."""

from __future__ import annotations

from dataclasses import dataclass, fields

from llm_magics._util.text import count_or_none


@dataclass(frozen=True, slots=True)
class Usage:
    """
    Tokens read and written, as counted by the service; ``None`` if it does not report them.

    Attributes:
        input_tokens: tokens of the prompt, cached or not. (Ollama 0.30 and later counts only
            tokens that were not in its cache.)
        output_tokens: tokens of the answer, including thinking.
        cached_tokens: tokens of the prompt that were read from the service's cache.
        cache_write_tokens: tokens of the prompt that were added to the service's cache.
        reasoning_tokens: tokens of the answer that are thinking, visible or not.
        service_tier: the tier that the service bills (``flex``, ``priority`` …).
        searches: the number of web searches that the service bills.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    service_tier: str | None = None
    searches: int | None = None

    def __post_init__(self) -> None:
        """Replace invalid values by ``None``, because a service may send any value."""
        for name in self.__slots__:
            if name != "service_tier":
                object.__setattr__(self, name, count_or_none(getattr(self, name)))
        if not isinstance(self.service_tier, str) or not self.service_tier.isprintable():
            object.__setattr__(self, "service_tier", None)

    def __repr__(self) -> str:
        """Return a repr with the known fields."""
        values = ((name, getattr(self, name)) for name in self.__slots__)
        known = ", ".join(f"{name}={value!r}" for name, value in values if value is not None)
        return f"Usage({known})"

    @property
    def total_tokens(self) -> int | None:
        """The sum of input and output tokens; ``None`` if one of them is unknown."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens + self.output_tokens


def add_usage(one: Usage, other: Usage) -> Usage:
    """Return the sum of the tokens and searches of two requests; unknown values are left out."""
    sums: dict[str, int | None] = {}
    for each in fields(Usage):
        if each.name != "service_tier":
            values = [getattr(one, each.name), getattr(other, each.name)]
            known = [value for value in values if value is not None]
            sums[each.name] = sum(known) if known else None
    return Usage(**sums, service_tier=other.service_tier or one.service_tier)


@dataclass(frozen=True, slots=True)
class EngineTimings:
    """The times that an engine reports, in seconds; ``None`` if it does not report them."""

    load_s: float | None = None
    prompt_s: float | None = None
    generation_s: float | None = None

    def __post_init__(self) -> None:
        """Replace invalid values by ``None``, because a service may send any value."""
        for name in ("load_s", "prompt_s", "generation_s"):
            value = getattr(self, name)
            is_time = type(value) in (int, float) and 0 <= value < 2**63
            object.__setattr__(self, name, value if is_time else None)
