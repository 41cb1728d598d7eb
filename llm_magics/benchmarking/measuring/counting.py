"""How many tokens an answer has, and who says so."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from llm_magics.benchmarking.measuring.stamps import WRITTEN, Stamps
from llm_magics.errors import UsageError
from llm_magics.runtime.response import Response

# How many tokens a text has.
Counter = Callable[[str], int]


class Tokens(NamedTuple):
    """
    Of one call.

    Attributes:
        read: of the prompt, where that is known.
        written: of the answer, its thinking included.
        source: who counted: the ``service``, a ``tokenizer``, or ``pieces`` of the stream,
            each taken for one token.
    """

    read: int | None
    written: int | None
    source: str | None


def tokens_of(response: Response, stamps: Stamps, count: Counter | None) -> Tokens:
    """The service's count; else the tokenizer's; else that of the pieces."""
    usage = response.usage
    if usage.output_tokens is not None:
        return Tokens(usage.input_tokens, usage.output_tokens, "service")
    if count is not None:
        asked = "\n".join(message.content for message in response.messages)
        read = count(asked) if usage.input_tokens is None else usage.input_tokens
        return Tokens(read, count(response.reasoning + response.text), "tokenizer")
    if not stamps.times_s:
        return Tokens(usage.input_tokens, None, None)
    return Tokens(usage.input_tokens, len(stamps.of(WRITTEN)), "pieces")


def counter_of(tokenizer: Any) -> Counter | None:
    """
    How ``tokenizer`` counts.

    Args:
        tokenizer: a function from a text to its tokens or to their number; a tokenizer of
            Hugging Face's; a ``tokenizer.json``; the name of a model on the hub.

    Raises:
        UsageError: it is none of these, or cannot be had.
    """
    if tokenizer is None:
        return None
    if isinstance(tokenizer, str | Path):
        tokenizer = _loaded(str(tokenizer))
    encode = getattr(tokenizer, "encode", tokenizer)
    if not callable(encode):
        msg = f"tokenizer cannot be {tokenizer!r:.60}."
        raise UsageError(msg, hint="Give it a function from a text to its tokens.")

    def count(text: str) -> int:
        tokens: Any = encode(text)
        return tokens if isinstance(tokens, int) else len(getattr(tokens, "ids", tokens))

    return count


@cache
def _loaded(name: str) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        msg = "tokenizers is not installed."
        raise UsageError(msg, hint="pip install tokenizers") from None
    try:
        is_file = Path(name).is_file()
        return Tokenizer.from_file(name) if is_file else Tokenizer.from_pretrained(name)
    except Exception as error:  # whatever the library raises, a bare Exception among it
        msg = f"The tokenizer {name} cannot be had: {error}"
        raise UsageError(msg, hint="Give it a tokenizer.json, or a function.") from error
