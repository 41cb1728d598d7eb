"""
Prices of calls, before and after they are sent; an unknown price is ``None``, never 0.

A price in the user's settings takes precedence, then the list of pydantic (``genai-prices``, the
extra ``prices``; with tiers and dates), then the package's own table.

The tokens of a prompt are estimated without the model's tokenizer, rather too high than too low.
English has four letters per token, most other scripts one to two; in UTF-8, both are about three
bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

from llm_magics.parameters import ModelParameters
from llm_magics.providers.base import BaseModelProvider
from llm_magics.runtime.answer_bounds import schema_tokens, text_tokens
from llm_magics.runtime.search_fees import expected_searches, search_cost_usd
from llm_magics.runtime.storage.run_log import RunLog
from llm_magics.runtime.tier_prices import (
    PriceSource,
    Share,
    find_share,
    has_usual_price,
    in_tier,
)
from llm_magics.settings.config import Config
from llm_magics.types import ChatMessage, ModelResponse, Usage

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """
    Prices in US dollars per million tokens; ``None`` for unknown ones.

    Attributes:
        input_usd, output_usd: the price of tokens in the prompt and in the answer.
        cached_usd: the price of tokens read from the service's cache; by default ``input_usd``.
        written_usd: the price of tokens written to the service's cache; by default ``input_usd``.
        reasoning_usd: the price of thinking; by default ``output_usd``.
        search_usd: the fee of one web search, in US dollars; by default that of the service.
        batch_share: the price in a batch job as a share of these; by default that of the service.
    """

    input_usd: float | None = None
    output_usd: float | None = None
    cached_usd: float | None = None
    written_usd: float | None = None
    reasoning_usd: float | None = None
    search_usd: float | None = None
    batch_share: float | None = None

    def of(self, usage: Usage) -> float | None:
        """Return the cost of ``usage`` in US dollars, or ``None`` if a part of it is unknown."""
        if self.input_usd is None or usage.input_tokens is None:
            return None
        if usage.output_tokens is None and self.output_usd != 0:
            return None
        written_to = usage.output_tokens or 0
        if written_to and self.output_usd is None:
            return None
        thought = usage.reasoning_tokens
        if written_to and thought is None and self.reasoning_usd not in (None, self.output_usd):
            return None
        thought = min(thought or 0, written_to)
        cached, written = usage.cached_tokens or 0, usage.cache_write_tokens or 0
        plain = max(0, usage.input_tokens - cached - written)
        parts = (
            plain * self.input_usd,
            cached * _value_or(self.cached_usd, self.input_usd),
            written * _value_or(self.written_usd, self.input_usd),
            (written_to - thought) * (self.output_usd or 0.0),
            thought * _value_or(self.reasoning_usd, self.output_usd or 0.0),
        )
        return sum(parts) / _MILLION

    def in_tier(self, usage: Usage, share: Share | None) -> float | None:
        """Return the cost of ``usage`` in its tier, with the service's ``share`` if it is known."""
        is_batch = (usage.service_tier or "").lower() == "batch"
        if is_batch and self.batch_share is not None:
            share = Share(self.batch_share, self.batch_share)
        if share is None and not is_batch:  # the user has set the price of this tier
            return self.of(usage)
        return in_tier(self.of, usage, share)


def _value_or(value: float | None, other: float) -> float:
    return other if value is None else value


def listed_cost_usd(source: PriceSource, model: str, usage: Usage) -> float | None:
    """
    Return the cost by the list of ``genai-prices``, for the tier that the answer names.

    Return ``None`` if the list, the model, or a price of that tier is missing.
    """

    def usual(usage: Usage) -> float | None:
        return _listed_usd(source, model, usage, {})

    tier = (usage.service_tier or "").lower()
    if not usual(usage) or has_usual_price(usage.service_tier):
        return usual(usage)
    if source.price_list == "openrouter" and tier == "batch":
        return _listed_usd(source, f"{model}:batch", usage, {}, is_exact=True)
    share = find_share(source.price_list, model, tier)
    counted = share.counted(usage) if share else usage
    context = {"processing": tier} if tier == "batch" else {"service_tier": tier}
    listed = _listed_usd(source, model, counted, context)
    # The list returns the usual price for a tier that it does not contain.
    if listed is not None and listed != usual(counted):
        return listed
    return in_tier(usual, usage, share)


def _listed_usd(
    source: PriceSource,
    model: str,
    usage: Usage,
    context: Mapping[str, str],
    *,
    is_exact: bool = False,
) -> float | None:
    """Return the cost by the list; with ``is_exact`` only if it has a model of that very name."""
    is_counted = usage.input_tokens is not None and usage.output_tokens is not None
    if not is_counted or not _has_list() or not (source.price_list or source.address):
        return None
    from genai_prices import Usage as Used
    from genai_prices import calc_price

    if source.price_list == "google":  # Vertex AI names the publisher of a model too
        model = model.removeprefix("google/")
    given: Any = dict(context) or None
    used = Used(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens or 0,
        cache_read_tokens=min(usage.cached_tokens or 0, usage.input_tokens or 0),
        cache_write_tokens=usage.cache_write_tokens or 0,
        output_reasoning_tokens=min(usage.reasoning_tokens or 0, usage.output_tokens or 0),
    )
    try:
        if source.price_list:
            found = calc_price(used, model, provider_id=source.price_list, price_context=given)
        else:
            found = calc_price(used, model, provider_api_url=source.address, price_context=given)
    except (LookupError, ValueError):
        return None
    if is_exact and found.model.id != model:
        return None
    if found.model_price.input_mtok is None:  # billed per hour or image; tokens are not free
        return None
    return float(found.total_price)


@cache
def _has_list() -> bool:
    return find_spec("genai_prices") is not None


# The tokens around each message.
_TOKENS_PER_MESSAGE = 4
# The tokens of an image in the size to which services scale it.
TOKENS_PER_IMAGE = 1500


def message_tokens(messages: Iterable[ChatMessage], parameters: ModelParameters) -> int:
    """Return the estimated tokens of a conversation with its images, its schema and its tools."""
    tokens = sum(
        text_tokens(message.content) + _TOKENS_PER_MESSAGE + len(message.images) * TOKENS_PER_IMAGE
        for message in messages
    )
    beside = [parameters.schema] if parameters.schema else []
    beside += [tool.as_dict() for tool in parameters.tools]
    return tokens + sum(text_tokens(json.dumps(each, default=str)) for each in beside)


# For displaying prices: a million tokens in the prompt, and a million in the answer.
A_MILLION_EACH = Usage(1_000_000, 1_000_000)
_A_MILLION_IN = Usage(1_000_000, 0)

# The assumed length of an answer, if it has no limit and the model has not given a longer one.
_DEFAULT_ANSWER_TOKENS = 1000

# Services' names of the limit of an answer's length.
_MAX_TOKENS_NAMES = (
    "max_completion_tokens",
    "max_output_tokens",
    "max_new_tokens",
    "num_predict",
    "n_predict",
)


def cost_usd(
    config: Config, provider: BaseModelProvider, model: str, usage: Usage
) -> float | None:
    """Return the price of a call with ``usage`` in US dollars, or ``None`` if unknown."""
    own = configured_price(config, f"{provider.name}/{model}")
    tokens = _tokens_usd(own, provider, model, usage)
    own_fee = own.search_usd if own else None
    fee = search_cost_usd(provider.price_list, model, usage.searches, own_fee)
    return None if tokens is None or fee is None else tokens + fee


def _tokens_usd(
    own: Price | None, provider: BaseModelProvider, model: str, usage: Usage
) -> float | None:
    """Return the price of the tokens of a call, by the user's ``own`` price if there is one."""
    share = find_share(provider.price_list, model, usage.service_tier)
    if own is not None:
        return own.in_tier(usage, share)
    if provider.is_free(model):
        return 0.0
    source = PriceSource(provider.price_list, provider.address)
    listed = listed_cost_usd(source, model, usage)
    if listed is not None:
        return listed
    known = provider.known(model)
    price = Price(
        input_usd=known.input_usd,
        output_usd=known.output_usd,
        cached_usd=known.cached_usd,
        written_usd=known.written_usd,
    )
    return in_tier(price.of, usage, share)


class Cost(NamedTuple):
    """The cost of an answer in US dollars, and the part of it for thinking; ``None`` if unknown."""

    usd: float | None
    reasoning_usd: float | None


def answer_cost(
    config: Config,
    provider: BaseModelProvider,
    model: str,
    answer: ModelResponse,
    *,
    is_sent: bool,
) -> Cost:
    """
    Return the cost of an answer; unknown for one that was interrupted before its token count.

    A request that was not sent, or was refused, is free if the price of the model is known.
    """
    if not is_sent:
        return Cost(0.0 if has_known_price(config, provider, model) else None, None)
    usage = answer.usage if answer.finish_reason and answer.usage else Usage()
    return Cost(
        cost_usd(config, provider, model, usage), _reasoning_usd(config, provider, model, usage)
    )


def _reasoning_usd(
    config: Config, provider: BaseModelProvider, model: str, usage: Usage
) -> float | None:
    """Return the part of the price of a call that is for thinking; ``None`` if it is not counted."""
    thought, written = usage.reasoning_tokens, usage.output_tokens
    if thought is None or written is None:
        return None
    rest = replace(usage, output_tokens=max(0, written - thought), reasoning_tokens=0)
    whole, without = (cost_usd(config, provider, model, each) for each in (usage, rest))
    return None if whole is None or without is None else max(0.0, whole - without)


def has_known_price(config: Config, provider: BaseModelProvider, model: str) -> bool:
    """Return whether the price of ``model`` is known, even if it is zero."""
    return any(
        cost_usd(config, provider, model, usage) is not None
        for usage in (_A_MILLION_IN, A_MILLION_EACH)
    )


def has_price(config: Config, provider: BaseModelProvider, model: str) -> bool:
    """Return whether ``model`` has a known price above zero; embedding models have no output."""
    return any(
        cost_usd(config, provider, model, usage) for usage in (_A_MILLION_IN, A_MILLION_EACH)
    )


def configured_price(config: Config, model: str) -> Price | None:
    """Return the price for ``model`` in the settings, by name or pattern."""
    prices = config.prices
    patterns = [model, *(pattern for pattern in prices if fnmatchcase(model, pattern))]
    for pattern in patterns:
        if pattern in prices:
            price = prices[pattern]
            return Price(
                input_usd=price.input_usd,
                output_usd=price.output_usd,
                cached_usd=price.cached_usd,
                written_usd=price.written_usd,
                reasoning_usd=price.reasoning_usd,
                search_usd=price.search_usd,
                batch_share=price.batch_share,
            )
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The estimated tokens and searches of a call, and its cost in US dollars if known."""

    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    searches: int = 0


def chat_estimate(  # noqa: PLR0913 (the prompt and the model)
    config: Config,
    runs: RunLog,
    provider: BaseModelProvider,
    model: str,
    *,
    messages: Sequence[ChatMessage],
    parameters: ModelParameters,
    attachment_tokens: int = 0,
    tier: str | None = None,
) -> Estimate:
    """
    Estimate a prompt; the answer's length is its limit, or that of the longest one so far.

    ``tier`` is the tier that is billed, such as ``batch``; by default that of the parameters.
    """
    read = message_tokens(messages, parameters) + attachment_tokens
    written = _max_answer_tokens(parameters, provider.output_limit(model, parameters))
    bound = _bound_by_schema(provider, model, parameters)
    if bound is not None:
        written = bound if written is None else min(bound, written)
    elif written is None:
        longest = runs.longest_output(provider.name, model)
        written = max(_DEFAULT_ANSWER_TOKENS, longest)
    tier = tier or parameters.extra_body.get("service_tier") or parameters.tier
    searches, results = expected_searches(search=parameters.search)
    usage = Usage(read + results, written, service_tier=tier, searches=searches)
    return _make_estimate(config, provider, model, usage)


def _bound_by_schema(
    provider: BaseModelProvider, model: str, parameters: ModelParameters
) -> int | None:
    """Return the estimated length of an answer that matches the schema, including thinking."""
    bound = None if parameters.schema is None else schema_tokens(parameters.schema)
    if bound is None:
        return None
    can_think = "reasoning" in provider.known(model).capabilities
    thinks = parameters.reasoning if parameters.reasoning is not None else can_think
    return (bound + (_DEFAULT_ANSWER_TOKENS if thinks else 0)) * _answer_count(parameters)


def _max_answer_tokens(parameters: ModelParameters, limit: int | None) -> int | None:
    """Return the limit of all answers in tokens, by any parameter name of the service."""
    beside = parameters.extra_body
    if parameters.choices:
        return len(parameters.choices)  # at most one token for each difference
    limits = [limit, *(beside.get(name) for name in _MAX_TOKENS_NAMES)]
    bounds = [bound for bound in limits if type(bound) is int]
    times = _answer_count(parameters)
    return (
        max(bounds) * times if bounds else None if times == 1 else _DEFAULT_ANSWER_TOKENS * times
    )


def _answer_count(parameters: ModelParameters) -> int:
    """Return the number of requested answers."""
    choices = [parameters.extra_body.get(name) for name in ("n", "best_of")]
    return max([1, *(each for each in choices if type(each) is int)])


def embedding_estimate(
    config: Config,
    provider: BaseModelProvider,
    model: str,
    texts: Iterable[str],
    *,
    tier: str | None = None,
) -> Estimate:
    """Estimate the tokens and the cost of texts to embed, in ``tier`` if that is given."""
    usage = Usage(sum(map(text_tokens, texts)), 0, service_tier=tier)
    return _make_estimate(config, provider, model, usage)


def _make_estimate(
    config: Config, provider: BaseModelProvider, model: str, usage: Usage
) -> Estimate:
    usd = cost_usd(config, provider, model, usage)
    return Estimate(
        input_tokens=usage.input_tokens or 0,
        output_tokens=usage.output_tokens or 0,
        cost_usd=usd,
        searches=usage.searches or 0,
    )
