"""
About how many tokens a prompt takes, without the tokenizer of its model.

Rather too many than too few: it is used for what may be spent. English has four letters to a
token, most other scripts one to two; in bytes of UTF-8 that is three for all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from llm_magics.types import ChatMessage, ModelParameters

_BYTES_A_TOKEN = 3
# What stands around a message.
_A_MESSAGE = 4
# A picture of the size that the services scale to.
_A_PICTURE = 1500


def of_text(text: str) -> int:
    """Of one text."""
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_A_TOKEN)


def of_messages(messages: Iterable[ChatMessage], parameters: ModelParameters) -> int:
    """Of a conversation with its pictures, its schema and its tools."""
    tokens = sum(
        of_text(message.content) + _A_MESSAGE + len(message.images) * _A_PICTURE
        for message in messages
    )
    beside = [parameters.schema] if parameters.schema else []
    beside += [tool.as_dict() for tool in parameters.tools]
    return tokens + sum(of_text(json.dumps(each, default=str)) for each in beside)
