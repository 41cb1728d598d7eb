"""Types for API keys, with masked text and repr, and functions that mask keys in texts."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, NoReturn
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

_MASK = "****"

# The format of the keys of large services. Registered keys are also found by their value.
_KEY_SHAPES = re.compile(
    r"\b(?:sk-(?:ant-|proj-|or-)?[A-Za-z0-9_-]{16,}|hf_[A-Za-z0-9]{16,}|gsk_[A-Za-z0-9]{16,})"
)
# Their beginnings. To look for these first takes a hundredth of the time in a text without keys.
_KEY_STARTS = ("sk-", "hf_", "gsk_")

_KEY_NAMES = re.compile(
    r"(?:^|[_.])(?:api_?key|key|token|secret|password|extra_headers)s?(?:$|\.)", re.IGNORECASE
)

# Keys of this length or more are masked anywhere in a text. Shorter keys could be ordinary words,
# so they are masked only in places where a key is expected.
_MIN_LENGTH = 8

_secrets: set[str] = set()
_short_secrets: set[str] = set()
# Patterns for keys with special characters, which may be escaped in a text.
_patterns: dict[str, re.Pattern[str]] = {}
_MAX_SPELLED_LENGTH = 512

_KEY_HEADERS = re.compile(
    r"auth|key|token|secret|passw|cookie|session|credential|sign", re.IGNORECASE
)

# The user information of a URL, and secret parameters in its query.
_USER = re.compile(r"(?<=://)[^/\s\"'<>]+@")
_QUERY_KEY = re.compile(
    r"(?<=[?&])(?=[\w.-]*(?:key|token|secret|passw|auth|sig|credential))([\w.-]+=)[^&#\s\"'<>]+",
    re.IGNORECASE,
)

# Words after which a message may contain a short secret, and the maximum distance to it.
_KEY_WORDS = r"(?:key|token|secret|passw\w*|credential\w*|authorization|bearer|basic)"
_MAX_DISTANCE = 40

# Characters that may split a key in a wrapped message.
_ZERO_WIDTH = r"\u00ad\u200b-\u200f\u2060\ufeff"
_GAPS = re.compile(f"[{_ZERO_WIDTH}]+")


def _may_be_key(name: str, value: str) -> bool:
    """Whether a header may contain a key, because of its name or because its value is not words."""
    return _KEY_HEADERS.search(name) is not None or not re.fullmatch(r"[A-Za-z_.\s-]*", value)


def strip_whitespace(value: str | None) -> str:
    """
    Return ``value`` without surrounding white space, such as the newline at the end of a file.

    The byte order mark, which some editors write at the start of a file, counts as white space.
    """
    return (value or "").strip().strip("\ufeff\u200b").strip()


def environment_value(name: str) -> str:
    """Return the environment variable ``name`` as `clean_value` does; empty if it is unset."""
    return clean_value(os.environ.get(name)) if name else ""


def clean_value(value: str | None) -> str:
    """
    Return the value of an environment variable without blanks and quotes around it.

    ``docker run --env-file`` and ``set NAME="value"`` on Windows leave the quotes in the value.
    """
    text = strip_whitespace(value)
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return strip_whitespace(text[1:-1]) if is_quoted else text


def is_secret_name(name: str) -> bool:
    """Whether a setting of this name may contain a key."""
    return _KEY_NAMES.search(name) is not None


class Secret:
    """
    A key whose text and repr are ``****``; only `reveal` returns its value.

    It cannot be pickled, so that it is not written to a file or sent to another process by mistake.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value
        register_secret(value)

    @classmethod
    def of(cls, value: str | None) -> Secret | None:
        """Return ``value`` as a secret, without surrounding white space; ``None`` if blank."""
        value = strip_whitespace(value)
        return cls(value) if value else None

    def reveal(self) -> str:
        """Return the plain key. Use it only for the request."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret('{_MASK}')"

    def __str__(self) -> str:
        return _MASK

    def __format__(self, format_spec: str) -> str:
        return _MASK

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> NoReturn:
        msg = "a Secret cannot be pickled"
        raise TypeError(msg)


class OpaqueValue:
    """A value that may contain keys, such as headers; its text and repr are ``****``."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value
        register_headers(value if isinstance(value, Mapping) else {"key": value})

    def reveal(self) -> object:
        """Return the value."""
        return self._value

    def __repr__(self) -> str:
        return f"OpaqueValue('{_MASK}')"

    def __str__(self) -> str:
        return _MASK


class OpaqueKey:
    """A value that supports only comparison; its repr is masked."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OpaqueKey) and other._value == self._value

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"OpaqueKey('{_MASK}')"


class Address(str):
    """A URL whose ``repr`` does not contain its user, password and keys."""

    __slots__ = ()

    def __repr__(self) -> str:
        address = redact_address(str(self))
        # The scheme may be missing, for example in the address of Ollama.
        return repr(address if "://" in address else address.rpartition("@")[2])


class KeyHeaders(dict[str, str]):
    """Headers by name. The ``repr`` shows only the names, because a value may be a key."""

    def __repr__(self) -> str:
        return repr(dict.fromkeys(self, _MASK))


def register_secret(value: str) -> None:
    """Mask the key ``value`` in all texts from now on, in all common encodings."""
    if len(value) < _MIN_LENGTH:
        if value:
            _short_secrets.add(value)
        return
    _secrets.update(_encodings(value))
    if len(value) <= _MAX_SPELLED_LENGTH and not re.fullmatch(r"[A-Za-z0-9]*", value):
        _patterns[value] = re.compile("".join(map(_spelling_pattern, value)))


def forget_secret(value: str) -> None:
    """Stop masking ``value``, a token that has expired."""
    _secrets.difference_update(_encodings(value))
    _patterns.pop(value, None)


def _spelling_pattern(character: str) -> str:
    """Return a pattern that matches a character in plain text, URLs, JSON and HTML."""
    literal, code = re.escape(character), ord(character)
    if re.fullmatch(r"[A-Za-z0-9]", character):
        return literal
    octets = "".join(f"%(?:25)*{each:02x}" for each in character.encode("utf-8", "surrogatepass"))
    plus = r"|\+" if character == " " else ""
    return rf"(?:\\*{literal}|(?i:{octets}|\\+u{code:04x}|&#0*{code};|&#x0*{code:x};){plus})"


def _encodings(value: str) -> Iterator[str]:
    """Yield ``value`` as encoded in URLs, JSON, HTML, Python literals, base64 and hex."""
    yield value
    yield quote(value, safe="", errors="surrogatepass")
    yield quote_plus(value, errors="surrogatepass")
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield escape(value)
    yield repr(value)[1:-1]
    raw = value.encode("utf-8", "surrogatepass")
    for encoded in (base64.b64encode(raw), base64.urlsafe_b64encode(raw)):
        yield encoded.decode().rstrip("=")
    for before in (1, 2):  # the key after other bytes, such as "user:"; only the key's own part
        encoded = base64.b64encode(bytes(before) + raw)[before + 1 : (before + len(raw)) // 3 * 4]
        if len(encoded) >= _MIN_LENGTH:
            yield encoded.decode()
            yield encoded.decode().translate(str.maketrans("+/", "-_"))
    encoded = base64.b64encode(raw)[: len(raw) // 3 * 4]  # the key followed by other bytes
    if len(encoded) >= _MIN_LENGTH:
        yield encoded.decode()
        yield encoded.decode().translate(str.maketrans("+/", "-_"))
    yield raw.hex()
    yield raw.hex().upper()


def register_headers(headers: Mapping[Any, Any]) -> None:
    """Mask the keys in ``headers`` from now on, but not words before them such as ``Bearer``."""
    for name, value in headers.items():
        text = str(value)
        if not _may_be_key(str(name), text):
            continue
        register_secret(text)
        for part in re.split(r"[\s;,=\"]+", text):
            is_word = re.fullmatch(r"[A-Za-z_-]{0,15}", part) is not None
            if len(part) >= _MIN_LENGTH and not is_word:
                register_secret(part)


def register_address(address: str) -> None:
    """Mask the user, the password and the keys in ``address`` in all texts from now on."""
    try:
        parts = urlsplit(address)
        password, user = parts.password or "", parts.username or ""
    except ValueError:
        return
    for word in (password, user if not password else ""):
        register_secret(word)
        register_secret(unquote(word))
    if password:
        register_headers({"user": user})
        for pair in (f"{user}:{password}", f"{unquote(user)}:{unquote(password)}"):
            register_secret(pair)
            register_secret(base64.b64encode(pair.encode("utf-8", "replace")).decode())
    for name, value in parse_qsl(parts.query):
        if _KEY_HEADERS.search(name):
            register_secret(value)


def redact_address(address: str) -> str:
    """Return ``address`` with its user information and the values of its query masked."""
    address = _USER.sub(f"{_MASK}@", address)
    return re.sub(r"(?<==)[^&#\s]+", _MASK, address)


def strip_credentials(address: str) -> str:
    """Return ``address`` without user, password and secret parameters in its query."""
    scheme, mark, rest = address.rpartition("://")
    bare, found, query = rest.partition("?")
    host, slash, path = bare.partition("/")
    host = host.rpartition("@")[2]
    remaining = [part for part in query.split("&") if part and not _KEY_HEADERS.search(part)]
    return f"{scheme}{mark}{host}{slash}{path}{found if remaining else ''}{'&'.join(remaining)}"


def scrub(text: str) -> str:
    """Return ``text`` with ``****`` for all registered keys and texts with the format of a key."""
    if len(text) < _MIN_LENGTH:
        return text
    found = [value for value in _secrets.copy() if value in text]
    for value in sorted(found, key=len, reverse=True):  # a key may be part of another
        text = text.replace(value, _MASK)
    for pattern in list(_patterns.values()):
        text = pattern.sub(_MASK, text)
    if any(start in text for start in _KEY_STARTS):
        text = _KEY_SHAPES.sub(_MASK, text)
    return text


def partial_secret_length(text: str) -> int:
    """Return the number of characters at the end of ``text`` that may start a registered key."""
    longest = 0
    for value in _secrets.copy():
        at = text.find(value[0], max(0, len(text) - len(value) + 1))
        while at != -1 and not value.startswith(text[at:]):
            at = text.find(value[0], at + 1)
        longest = max(longest, len(text) - at if at != -1 else 0)
    return longest


# The types of values in JSON that are not texts and contain none.
_PLAIN_TYPES = {bool, float, int, type(None)}


def may_contain_keys(value: object) -> bool:
    """Return whether a text in decoded JSON may contain a key; faster than `scrub_json`."""
    texts, rest = list[str](), list[Any]([value])
    while rest:
        each = rest.pop()
        kind = type(each)
        if kind is str:
            texts.append(each)
        elif kind is dict:
            rest += each
            rest += each.values()
        elif kind is list or kind is tuple:
            rest += each
        elif kind not in _PLAIN_TYPES:
            return True  # it is not looked at
    joined = "\n".join(texts)  # one search instead of many
    return scrub(joined) != joined


def scrub_json(value: object) -> object:
    """Apply `scrub` to decoded JSON. A value that is nested too deeply is masked entirely."""
    try:
        return _scrub_json(value)
    except RecursionError:
        return _MASK


def _scrub_json(value: object) -> object:
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, Mapping):
        return {_scrub_json(key): _scrub_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_scrub_json(each) for each in value]
    return value


def redact(message: str) -> str:
    """
    Return ``message``, a text about a request, with all possible keys masked.

    In addition to `scrub`, this masks credentials in URLs, and short keys in places where a key is
    expected. It is for errors, logs and tables; prompts and answers are only scrubbed.
    """
    message = _mask_split_secrets(scrub(message))
    if "://" in message:
        message = _USER.sub(f"{_MASK}@", message)
        message = _QUERY_KEY.sub(rf"\1{_MASK}", message)
    for value in sorted(_short_secrets.copy(), key=len, reverse=True):
        if value in message:
            message = _short_secret_pattern(value).sub(rf"\1{_MASK}", message)
    return message


def _short_secret_pattern(value: str) -> re.Pattern[str]:
    """Return a pattern for ``value`` close after a word such as "key" and a separator."""
    return re.compile(
        rf"({_KEY_WORDS}[^\n]{{0,{_MAX_DISTANCE}}}?[\s:=\"'`(])(?<![\w]){re.escape(value)}(?!\w)",
        re.IGNORECASE,
    )


def _mask_split_secrets(text: str) -> str:
    """Mask keys in ``text`` that are split by line breaks, spaces or zero-width characters."""
    bare = _GAPS.sub("", "".join(text.split()))
    if bare == text:
        return text
    for known in _secrets.copy():
        value = _GAPS.sub("", known)
        if len(value) >= 2 * _MIN_LENGTH and value in bare:
            text = re.sub(rf"[\s{_ZERO_WIDTH}]*".join(map(re.escape, value)), _MASK, text)
    return text


def redact_json(value: object) -> object:
    """
    Apply `redact` to decoded JSON that a service sent with an error.

    A string that is exactly a short key is masked too. A value that is nested too deeply is masked
    entirely.
    """
    try:
        return _redact_json(value)
    except RecursionError:
        return _MASK


def _redact_json(value: object) -> object:
    if isinstance(value, str):
        return _MASK if value.strip().removeprefix("Bearer ") in _short_secrets else redact(value)
    if isinstance(value, bytes):
        return redact(value.decode("utf-8", "replace")).encode()
    if isinstance(value, Mapping):
        return {_redact_json(key): _redact_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_redact_json(each) for each in value]
    return value
