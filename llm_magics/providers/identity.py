"""What tells one service and its settings from another, without the credentials in them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from llm_magics.attachments import ReasoningBlock
from llm_magics.types import ChatMessage

_CREDENTIAL_NAME = re.compile(
    r"auth|key|token|secret|pass|pwd|cookie|session|credential|sign|jwt|bearer", re.IGNORECASE
)

# A run of letters and digits that no word or date has.
_CREDENTIAL_VALUE = re.compile(r"(?=[^\s]*\d)(?=[^\s]*[A-Za-z])[A-Za-z0-9+/=_]{20,}")


def settings_digest(settings: Mapping[str, Any]) -> str:
    """
    Return a digest of ``settings``, which is the same for every key and password.

    What is not set is left out, so that a setting that is new in a version changes nothing.
    """
    public = json.dumps(_remove_credentials(settings), sort_keys=True, default=str)
    return blake2b(public.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def digest_former_identity(identity: str) -> str:
    """Convert an identity written out as JSON, as earlier versions stored it, to a digest."""
    if not identity.startswith("{"):
        return identity
    try:
        settings, end = json.JSONDecoder().raw_decode(identity)
    except ValueError:
        return identity
    return settings_digest(settings) + identity[end:]


def remove_credential_headers(headers: Mapping[str, Any]) -> dict[str, str]:
    """Return those of ``headers`` that cannot hold a key."""
    return {
        str(name): str(value)
        for name, value in headers.items()
        if not _may_be_credential(str(name), str(value))
    }


def _remove_credentials(settings: Mapping[str, Any]) -> dict[str, Any]:
    public = {
        name: value
        for name, value in settings.items()
        if value not in (None, "", {}, [])
        and not re.search(r"(?:^|_)(?:api_?key|token|secret|password)$", name)
    }
    if isinstance(public.get("base_url"), str):
        public["base_url"] = _public_address(public["base_url"])
    if isinstance(public.get("extra_headers"), Mapping):
        public["extra_headers"] = remove_credential_headers(public["extra_headers"])
        if not public["extra_headers"]:
            del public["extra_headers"]
    return public


def _public_address(address: str) -> str:
    """An address without its user, its password and the keys in its query."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return address.rpartition("@")[2]
    query = [
        (name, value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if not _may_be_credential(name, value)
    ]
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, urlencode(query), ""))


def _may_be_credential(name: str, value: str) -> bool:
    is_named = _CREDENTIAL_NAME.search(name) is not None
    return is_named or _CREDENTIAL_VALUE.search(value) is not None


def remove_foreign_reasoning(messages: Sequence[ChatMessage], origin: str) -> list[ChatMessage]:
    """
    Return ``messages`` without the reasoning blocks of another service or model.

    Blocks of unknown origin stay: a wire format sends only those that have its shape.
    """
    return [_remove_foreign(message, origin) for message in messages]


def _remove_foreign(message: ChatMessage, origin: str) -> ChatMessage:
    if not message.reasoning_blocks:
        return message
    blocks = map(ReasoningBlock.of, message.reasoning_blocks)
    own = tuple(block for block in blocks if block.origin in ("", origin))
    return replace(message, reasoning_blocks=own)
