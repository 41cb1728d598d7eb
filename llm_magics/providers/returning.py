"""Keep reasoning blocks of one service out of the requests to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llm_magics.attachments import ReasoningBlock
from llm_magics.types import ChatMessage


def without_foreign(messages: Sequence[ChatMessage], origin: str) -> list[ChatMessage]:
    """
    Return ``messages`` without the reasoning blocks that another service or model made.

    Blocks of unknown origin stay: a wire format sends only those that have its shape.
    """
    return [_own(message, origin) for message in messages]


def _own(message: ChatMessage, origin: str) -> ChatMessage:
    if not message.reasoning_blocks:
        return message
    blocks = map(ReasoningBlock.of, message.reasoning_blocks)
    own = tuple(block for block in blocks if block.origin in ("", origin))
    return replace(message, reasoning_blocks=own)
