"""
Error messages that mean something where no code says it, in the words of each service.

A message may quote the prompt, and a prompt may say anything: what stands in quotes does not
count, and most words count only with a status that blames the request.
"""

from __future__ import annotations

import re

# More of an error's text is not read: it may be a whole web page, or worse.
MOST_READ = 4000

# Statuses that blame the request. An error inside a stream has none, and may blame it too.
_BLAMES_THE_REQUEST = frozenset({None, 400, 404, 413, 422})

# Statuses that say what is wrong, whatever the words.
_SAYS_IT_ALL = frozenset({401, 402, 403, 429, 529})

_N = r"\(?[\d,._]+\)?"

# Local servers report with status 500, or inside a stream, that the context is full.
_FULL_CONTEXT = re.compile(
    r"trying to keep the first \d+ tokens"  # LM Studio
    r"|tokens to keep from the initial prompt is greater than the context length"  # LM Studio
    r"|cannot truncate prompt with n_keep"  # LM Studio
    r"|context size has been exceeded"  # llama.cpp and LM Studio, in the middle of an answer
    r"|exceeds? the available context size"  # llama.cpp
    rf"|input {_N} tokens\)? is (?:larger than the max context size|too large)"  # llama.cpp
    r"|input .{0,30}too large to process"  # llama.cpp's embeddings
    r"|prompt too long; exceeded max context length"  # Ollama
    r"|the (?:input length|prompt) exceeds the context length",  # Ollama
    re.IGNORECASE,
)

_TOO_LONG = re.compile(
    # OpenAI, Azure, vLLM, DeepSeek, OpenRouter, Mistral, SGLang, Fireworks
    r"maximum context length"
    r"|context length exceeded|exceed\w* (?:the |this |its |your )?(?:model'?s? )?context length"
    r"|context window|exceeds? the (?:available )?context"
    r"|(?:longer|larger|greater) than the (?:model'?s? )?(?:context|maximum (?:model|context|input)) length"
    r"|exceeds? (?:the )?(?:model'?s? )?max(?:imum)?[ _](?:model|context|input|prompt|sequence)[ _]len"
    r"|maximum prompt length is"  # xAI
    r"|maximum allowed input length"
    r"|input tokens exceed the configured limit"  # OpenAI, Azure
    # OpenAI's embeddings
    rf"|requested {_N} tokens, max {_N} tokens per request"
    # Anthropic
    r"|(?:prompt|input|request) is too long|exceed context limit"
    # Google
    r"|input token count.{0,40}(?:exceeds? the maximum|but (?:the )?model supports)"
    # Groq, Cerebras
    r"|reduce the length of (?:the|your) (?:messages|prompt|input)"
    # TGI, TEI, Together
    r"|inputs` tokens \+ `max_new_tokens` must be|`inputs` must have less than"
    # Mistral's embeddings, Voyage
    rf"|has {_N} tokens, exceeding|max allowed tokens per submitted batch"
    # Cohere, Bedrock
    r"|too many (?:input )?tokens(?!.{0,40}(?:wait|per (?:minute|day)|try again))"
    # Cloudflare, Copilot, Moonshot, watsonx, DashScope
    r"|exceeded this model context window"
    r"|prompt token count of|exceeded model token limit|token limit exceeded"
    r"|cannot exceed the total tokens limit|range of input length should be"
    # look-alikes
    r"|exceeds? the max(?:imum)? (?:number of )?(?:input |prompt |context )?tokens?\b"
    r"|prompt too long",
    re.IGNORECASE,
)

_NO_SUCH_MODEL = re.compile(
    r"model\b.{0,80}\b(?:does not exist|not found|is not supported by any provider)"
    r"|not a valid model",
    re.IGNORECASE,
)

# One request that is larger than what the account may send in a minute, or not in its tier.
_TOO_LARGE_FOR_TIER = re.compile(
    r"^\W*request too large for .{0,300}\b(?:tokens|requests) per|^\W*request too large for model"
    r"|long context beta is not yet available|usage is required for long context",
    re.IGNORECASE | re.DOTALL,
)
_LIMIT_AND_REQUESTED = re.compile(
    r"\bper (?:min|day|hour|minute)\b.{0,40}\blimit:? ([\d,]+).{0,60}?\brequested:? ([\d,]+)",
    re.IGNORECASE | re.DOTALL,
)

_QUOTED = re.compile(
    r"```.*?```|“[^”]*”|«[^»]*»"
    r'|(?<!\w)"[^"]*\s[^"]*"(?!\w)'
    r"|(?<!\w)'[^']*\s[^']*'(?!\w)"
    r"|(?<!\w)`[^`]*\s[^`]*`(?!\w)",
    re.DOTALL,
)


def unquoted(message: str) -> str:
    """Return the beginning of ``message`` without the phrases that it quotes."""
    return _QUOTED.sub(" … ", message[:MOST_READ])


def is_too_long(message: str, status: int | None) -> bool:
    """Return whether ``message`` says that the prompt is longer than the model can read."""
    if status in _SAYS_IT_ALL:
        return False
    words = unquoted(message)
    if _FULL_CONTEXT.search(words):
        return True
    return status in _BLAMES_THE_REQUEST and bool(_TOO_LONG.search(words))


def is_missing_model(message: str, status: int | None) -> bool:
    """Return whether ``message`` says that the model does not exist."""
    blames = status is not None and status in _BLAMES_THE_REQUEST
    return blames and bool(_NO_SUCH_MODEL.search(message[:MOST_READ]))


def is_too_large_for_tier(message: str, status: int | None) -> bool:
    """
    Return whether one request is larger than the account may send in a minute.

    That is a rate limit, and no waiting helps.
    """
    if status not in {*_BLAMES_THE_REQUEST, 429}:
        return False
    words = unquoted(message)
    if _TOO_LARGE_FOR_TIER.search(words):
        return True
    found = _LIMIT_AND_REQUESTED.search(words)
    if found is None:
        return False
    limit, requested = (int(each.replace(",", "") or 0) for each in found.groups())
    return requested > limit > 0
