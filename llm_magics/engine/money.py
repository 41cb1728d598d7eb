"""What calls cost: of one that was made, and of one before it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from llm_magics.engine.session import Session
from llm_magics.policies import prices, tokens
from llm_magics.policies.prices import Price, Seller
from llm_magics.providers.base import BaseModelProvider
from llm_magics.types import ChatMessage, ModelParameters, Usage

# For telling of prices: a million tokens read, and as many written.
A_MILLION_EACH = Usage(1_000_000, 1_000_000)
_A_MILLION_IN = Usage(1_000_000, 0)

# So long an answer is expected where its bound is not said, and none of the model's was longer.
_USUAL_ANSWER = 1000

# What services call the bound of an answer.
_LONGEST = (
    "max_completion_tokens",
    "max_output_tokens",
    "max_new_tokens",
    "num_predict",
    "n_predict",
)


def cost_usd(
    session: Session, provider: BaseModelProvider, model: str, usage: Usage
) -> float | None:
    """The price of a call of ``usage`` in US dollars, or ``None`` where it is not known."""
    own = own_price(session, f"{provider.name}/{model}")
    if own is not None:
        return own.of(usage)
    if provider.is_free(model):
        return 0.0
    seller = Seller(provider.price_list, provider.address)
    listed = prices.listed_cost_usd(seller, model, usage)
    if listed is not None:
        return listed
    known = provider.known(model)
    price = Price(known.input_usd, known.output_usd, known.cached_usd, known.written_usd)
    return prices.of_tier(price.of(usage), seller, usage.service_tier)


def has_known_price(session: Session, provider: BaseModelProvider, model: str) -> bool:
    """Return whether the price of ``model`` is known, be it nothing."""
    return any(
        cost_usd(session, provider, model, usage) is not None
        for usage in (_A_MILLION_IN, A_MILLION_EACH)
    )


def has_price(session: Session, provider: BaseModelProvider, model: str) -> bool:
    """Whether asking ``model`` costs something, as far as that is known; vectors have no output."""
    return any(
        cost_usd(session, provider, model, usage) for usage in (_A_MILLION_IN, A_MILLION_EACH)
    )


def own_price(session: Session, model: str) -> Price | None:
    """What the user has said of the price of ``model``, by its name or by a pattern."""
    told = session.config.prices
    patterns = [model, *(pattern for pattern in told if fnmatchcase(model, pattern))]
    for pattern in patterns:
        if pattern in told:
            given = told[pattern]
            return Price(given.input_usd, given.output_usd, given.cached_usd, given.written_usd)
    return None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a call may take: tokens read and written, and US dollars where prices are known."""

    input_tokens: int
    output_tokens: int
    cost_usd: float | None


def chat_estimate(
    session: Session,
    provider: BaseModelProvider,
    model: str,
    messages: Sequence[ChatMessage],
    parameters: ModelParameters,
) -> Estimate:
    """Of a prompt; its answer is taken to be as long as it may be, or as the longest before."""
    read = tokens.of_messages(messages, parameters)
    written = _longest_answer(parameters)
    bound = _bound_by_schema(provider, model, parameters)
    if bound is not None:
        written = bound if written is None else min(bound, written)
    elif written is None:
        longest = session.runs.longest_answer(provider.name, model)
        written = max(_USUAL_ANSWER, longest)
    tier = parameters.extra_body.get("service_tier")
    return _priced(session, provider, model, Usage(read, written, service_tier=tier))


def _bound_by_schema(
    provider: BaseModelProvider, model: str, parameters: ModelParameters
) -> int | None:
    """Return about how long an answer can be that fits the schema, thinking included."""
    bound = None if parameters.schema is None else tokens.of_answer_to(parameters.schema)
    if bound is None:
        return None
    can_think = "reasoning" in provider.known(model).abilities
    thinks = parameters.reasoning if parameters.reasoning is not None else can_think
    return (bound + (_USUAL_ANSWER if thinks else 0)) * _answers(parameters)


def _longest_answer(parameters: ModelParameters) -> int | None:
    """As long as the answers together may be, by whatever name the service knows that."""
    beside = parameters.extra_body
    told = [parameters.max_tokens, *(beside.get(name) for name in _LONGEST)]
    bounds = [bound for bound in told if type(bound) is int]
    times = _answers(parameters)
    return max(bounds) * times if bounds else None if times == 1 else _USUAL_ANSWER * times


def _answers(parameters: ModelParameters) -> int:
    """Return how many answers are asked for."""
    choices = [parameters.extra_body.get(name) for name in ("n", "best_of")]
    return max([1, *(each for each in choices if type(each) is int)])


def embedding_estimate(
    session: Session, provider: BaseModelProvider, model: str, texts: Sequence[str]
) -> Estimate:
    """Of texts to embed."""
    return _priced(session, provider, model, Usage(sum(map(tokens.of_text, texts)), 0))


def _priced(session: Session, provider: BaseModelProvider, model: str, usage: Usage) -> Estimate:
    usd = cost_usd(session, provider, model, usage)
    return Estimate(usage.input_tokens or 0, usage.output_tokens or 0, usd)
