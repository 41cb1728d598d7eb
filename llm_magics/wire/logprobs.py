"""
Log probabilities of tokens, in the forms in which services send them.

| service | request | answer |
|---|---|---|
| OpenAI chat, vLLM, llama.cpp, Fireworks | ``logprobs: true``, ``top_logprobs: n`` | ``choices[].logprobs.content[]`` |
| OpenAI Responses | ``include``, ``top_logprobs: n`` | ``logprobs[]`` in ``response.output_text.delta`` |
| completions, Together | ``logprobs: n`` | ``choices[].logprobs.tokens``, ``token_logprobs``, ``top_logprobs`` |
| Together, streamed | ``logprobs: n`` | ``choices[].logprobs``, a number, and ``choices[].top_logprobs`` |
| Ollama | ``logprobs: true``, ``top_logprobs: n`` | ``logprobs[]`` in each line |
| Gemini | ``responseLogprobs``, ``logprobs: n`` | ``candidates[].logprobsResult`` |

Sources (November 2026): openai 3.57.0, together 3.1.1, fireworks-ai 1.2.30, ollama 0.6.3 and
google-genai 3.6.1; Ollama 0.30.0 and llama.cpp b11434 were observed. Together's stream is read by
the types of its client, and was not observed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from llm_magics.types import TokenLogprob

# Used for an impossible token, as OpenAI does. JSON cannot express minus infinity.
IMPOSSIBLE = -9999.0

# Further digits are noise, and would be stored.
_DIGITS = 6

# The maximum number of alternatives per token that OpenAI, Ollama and Gemini return.
MAX_LOGPROBS = 20

# The field of OpenAI's Responses API that requests log probabilities.
INCLUDE = "message.output_text.logprobs"


def build_fields(count: int, most: int | None = None) -> dict[str, Any]:
    """
    Return the fields that request log probabilities.

    Args:
        count: the number of alternatives per token.
        most: the maximum number of alternatives that the service accepts.
    """
    count = count if most is None else min(count, most)
    return {"logprobs": True, **({"top_logprobs": count} if count else {})}


def parse_choice(choice: Mapping[str, Any], text: str) -> tuple[TokenLogprob, ...]:
    """Return the tokens in a choice of a chat or a completion; ``text`` is the text in it."""
    found = choice.get("logprobs")
    if isinstance(found, Mapping):
        if isinstance(found.get("content"), list):
            return parse_tokens(found["content"])
        return _parse_columns(found)
    value = _as_logprob(found)
    if value is None or not text:
        return ()
    return (TokenLogprob(text, value, b"", _parse_alternatives(choice.get("top_logprobs"))),)


def parse_tokens(tokens: Any) -> tuple[TokenLogprob, ...]:
    """Return the tokens of a list of objects with ``token``, ``logprob`` and ``top_logprobs``."""
    if not isinstance(tokens, list):
        return ()
    parsed = (_parse_token(each) for each in tokens)
    return tuple(each for each in parsed if each is not None)


def _parse_token(entry: Any) -> TokenLogprob | None:
    """Return a token; ``None`` if it is invalid. llama.cpp sends ``prob`` after sampling."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("token"), str):
        return None
    value = _as_logprob(entry["logprob"]) if "logprob" in entry else _of_prob(entry.get("prob"))
    if value is None:
        return None
    top = entry.get("top_logprobs") or entry.get("top_probs")
    return TokenLogprob(
        entry["token"], value, _parse_bytes(entry), parse_tokens(top) if top else ()
    )


def _parse_bytes(entry: Mapping[str, Any]) -> bytes:
    """Return the bytes of a token if its text does not express them, otherwise empty bytes."""
    numbers = entry.get("bytes")
    if not isinstance(numbers, list):
        return b""
    try:
        data = bytes(numbers)
    except (TypeError, ValueError):
        return b""
    return b"" if data == entry["token"].encode("utf-8", "replace") else data


def _parse_columns(found: Mapping[str, Any]) -> tuple[TokenLogprob, ...]:
    tokens, values, tops = (
        found.get(name) or () for name in ("tokens", "token_logprobs", "top_logprobs")
    )
    if not isinstance(tokens, list) or not isinstance(values, list):
        return ()
    tops = tops if isinstance(tops, list) else []
    return tuple(
        TokenLogprob(token, known, b"", _parse_alternatives(top))
        for token, value, top in zip_longest(tokens, values, tops[: len(tokens)])
        if isinstance(token, str) and (known := _as_logprob(value)) is not None
    )


def _parse_alternatives(top: Any) -> tuple[TokenLogprob, ...]:
    """Return alternatives from a mapping of tokens to log probabilities, most likely first."""
    if not isinstance(top, Mapping):
        return ()
    known = ((token, _as_logprob(value)) for token, value in top.items())
    found = [TokenLogprob(token, value) for token, value in known if value is not None]
    return tuple(sorted(found, key=lambda each: -each.logprob))


def parse_gemini(result: Any) -> tuple[TokenLogprob, ...]:
    """Return the tokens of Gemini's ``logprobsResult``."""
    if not isinstance(result, Mapping):
        return ()
    chosen, tops = result.get("chosenCandidates") or (), result.get("topCandidates") or ()
    if not isinstance(chosen, list) or not isinstance(tops, list | tuple):
        return ()
    return tuple(_parse_candidates(chosen, tops))


def _parse_candidates(chosen: Sequence[Any], tops: Sequence[Any]) -> Iterable[TokenLogprob]:
    for each, top in zip_longest(chosen, tops[: len(chosen)]):
        found = _parse_candidate(each)
        if found is None:
            continue
        listed = top.get("candidates") if isinstance(top, Mapping) else None
        others = map(_parse_candidate, listed) if isinstance(listed, list) else ()
        yield found._replace(top=tuple(other for other in others if other is not None))


def _parse_candidate(candidate: Any) -> TokenLogprob | None:
    if not isinstance(candidate, Mapping) or not isinstance(candidate.get("token"), str):
        return None
    # The service omits values that are 0.
    value = _as_logprob(candidate.get("logProbability", 0.0))
    return None if value is None else TokenLogprob(candidate["token"], value)


def _as_logprob(value: Any) -> float | None:
    """Return a log probability, at most 0; ``None`` if ``value`` is not a number."""
    if type(value) not in (int, float) or math.isnan(value):
        return None
    return round(min(0.0, max(float(value), IMPOSSIBLE)), _DIGITS)


def _of_prob(value: Any) -> float | None:
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        return None
    return round(min(0.0, math.log(value)), _DIGITS) if value else IMPOSSIBLE
