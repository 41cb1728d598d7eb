"""
The fees of web searches, which services bill in addition to tokens.

They are from the services' price lists as of November 2026; no account was used to check them.

| price list | fee | source |
|---|---|---|
| ``anthropic`` | $10 per 1,000 searches | https://platform.claude.com/docs/en/about-claude/pricing, litellm 1.109.1 |
| ``google`` | Gemini 3 and later: $14 per 1,000 searches; before: $35 per 1,000 answers with a search. Free searches of an account are not counted. | https://ai.google.dev/gemini-api/docs/pricing, litellm 1.109.1 |
| ``openai`` | $10 per 1,000 searches with ``web_search`` | https://developers.openai.com/api/docs/pricing, litellm 1.109.1, which has $25 for models before GPT-5, the price of the former tool ``web_search_preview`` |
| ``perplexity`` | $2.50 per 1,000 searches | https://docs.perplexity.ai/docs/getting-started/pricing |
| ``x-ai`` | $5 per 1,000 searches | https://docs.x.ai/developers/pricing |

OpenRouter's fee depends on the model and on the search engine, so it is unknown.
"""

from __future__ import annotations

import re

from llm_magics.wire.web_search import MAX_SEARCHES

_USD = {"anthropic": 0.010, "openai": 0.010, "perplexity": 0.0025, "x-ai": 0.005}
_GEMINI_SEARCH_USD, _GEMINI_ANSWER_USD = 0.014, 0.035
_OLD_GEMINI = re.compile(r"(?:models/)?gemini-[12]\.")

# The estimated tokens of the results of one search, which a model reads like its prompt.
_TOKENS_PER_SEARCH = 8000


def search_cost_usd(
    price_list: str, model: str, searches: int | None, own_usd: float | None = None
) -> float | None:
    """
    Return the fee of ``searches`` web searches in US dollars; ``None`` if it is unknown.

    ``own_usd`` is the fee of one search in the user's settings, if any.
    """
    if not searches:
        return 0.0
    if own_usd is not None:
        return own_usd * searches
    if price_list == "google":
        is_old = _OLD_GEMINI.match(model) is not None
        return _GEMINI_ANSWER_USD if is_old else _GEMINI_SEARCH_USD * searches
    fee = _USD.get(price_list)
    return None if fee is None else fee * searches


def expected_searches(*, search: bool) -> tuple[int | None, int]:
    """Return the assumed number of searches of an answer, and the tokens of their results."""
    return (MAX_SEARCHES, MAX_SEARCHES * _TOKENS_PER_SEARCH) if search else (None, 0)
