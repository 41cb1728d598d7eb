"""Keys that cannot be shown by accident, and text from which keys are taken out."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, NoReturn
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

_HIDDEN = "****"

# What the big services' keys look like; a known key is found by its value as well.
_KEY_SHAPES = re.compile(
    r"\b(?:sk-(?:ant-|proj-|or-)?[A-Za-z0-9_-]{16,}|hf_[A-Za-z0-9]{16,}|gsk_[A-Za-z0-9]{16,})"
)

_KEY_NAMES = re.compile(
    r"(?:^|[_.])(?:api_?key|key|token|secret|password|extra_headers)s?(?:$|\.)", re.IGNORECASE
)

# Keys of this length or more are replaced wherever they are shown. Shorter ones would blank out
# ordinary words, and are replaced only in the places where a key stands.
_LONG = 8

_known: set[str] = set()
_short: set[str] = set()
# Keys with more than letters and digits in them, as a service or a log may spell these.
_spelled: dict[str, re.Pattern[str]] = {}
_LONGEST_SPELLED = 512

_KEY_HEADERS = re.compile(
    r"auth|key|token|secret|passw|cookie|session|credential|sign", re.IGNORECASE
)

# The part of an address before its host, and what stands in its query.
_USER = re.compile(r"(?<=://)[^/\s\"'<>]+@")
_QUERY_KEY = re.compile(
    r"(?<=[?&])([\w.-]*(?:key|token|secret|passw|auth|sig|credential)[\w.-]*=)[^&#\s\"'<>]+",
    re.IGNORECASE,
)

# Words after which a short secret may stand in a message, and how near.
_ABOUT_KEYS = r"(?:key|token|secret|passw\w*|credential\w*|authorization|bearer|basic)"
_NEAR = 40

# What may split a key where a message is wrapped.
_ZERO_WIDTH = r"\u00ad\u200b-\u200f\u2060\ufeff"
_GAPS = re.compile(f"[{_ZERO_WIDTH}]+")


def _may_be_key(name: str, value: str) -> bool:
    """Whether a header may hold a key: one by its name, or one that is no plain word."""
    return _KEY_HEADERS.search(name) is not None or not re.fullmatch(r"[A-Za-z_.\s-]*", value)


def stripped(value: str | None) -> str:
    """
    Return ``value`` without white space around it: files and ``$(cat …)`` end in a newline.

    The mark of the byte order, with which some editors begin a file, counts as white space.
    """
    return (value or "").strip().strip("\ufeff\u200b").strip()


def environment_value(name: str) -> str:
    """Return the environment variable ``name`` stripped; empty if it is unset or blank."""
    return stripped(os.environ.get(name)) if name else ""


def is_secret_name(name: str) -> bool:
    """Whether a setting of this name may hold a key."""
    return _KEY_NAMES.search(name) is not None


class Secret:
    """
    A key that shows itself as ``****`` everywhere but in `reveal`.

    It cannot be pickled, so that it does not travel into a file or another process unseen.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value
        remember(value)

    @classmethod
    def of(cls, value: str | None) -> Secret | None:
        """``value`` wrapped, without white space around it; ``None`` if there is nothing else."""
        value = stripped(value)
        return cls(value) if value else None

    def reveal(self) -> str:
        """The key itself: for the header that needs it, and for nothing else."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret('{_HIDDEN}')"

    def __str__(self) -> str:
        return _HIDDEN

    def __format__(self, format_spec: str) -> str:
        return _HIDDEN

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> NoReturn:
        msg = "a Secret cannot be pickled"
        raise TypeError(msg)


class Hidden:
    """A value that holds keys among other things — headers, say — and shows itself as ``****``."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value
        remember_headers(value if isinstance(value, Mapping) else {"key": value})

    def reveal(self) -> object:
        """The value itself."""
        return self._value

    def __repr__(self) -> str:
        return f"Hidden('{_HIDDEN}')"

    def __str__(self) -> str:
        return _HIDDEN


class Unseen:
    """A value that can be compared with another, and is not shown."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unseen) and other._value == self._value

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Unseen('{_HIDDEN}')"


class Address(str):
    """An address whose ``repr`` leaves out the user, the password and the keys in it."""

    __slots__ = ()

    def __repr__(self) -> str:
        shown = address_shown(str(self))
        # An address may lack its scheme, as that of Ollama may.
        return repr(shown if "://" in shown else shown.rpartition("@")[2])


class KeyHeaders(dict[str, str]):
    """Headers by name, whose ``repr`` shows the names alone: a value may be a key."""

    def __repr__(self) -> str:
        return repr(dict.fromkeys(self, _HIDDEN))


def remember(value: str) -> None:
    """Take ``value``, a key, out of what is shown from now on, however it is encoded."""
    if len(value) < _LONG:
        if value:
            _short.add(value)
        return
    _known.update(_forms(value))
    if len(value) <= _LONGEST_SPELLED and not re.fullmatch(r"[A-Za-z0-9]*", value):
        _spelled[value] = re.compile("".join(map(_spellings, value)))


def _spellings(character: str) -> str:
    """Return a pattern of a character as it stands in addresses, in JSON and in HTML."""
    literal, code = re.escape(character), ord(character)
    if re.fullmatch(r"[A-Za-z0-9]", character):
        return literal
    octets = "".join(f"%(?:25)*{each:02x}" for each in character.encode("utf-8", "surrogatepass"))
    plus = r"|\+" if character == " " else ""
    return rf"(?:\\*{literal}|(?i:{octets}|\\+u{code:04x}|&#0*{code};|&#x0*{code:x};){plus})"


def _forms(value: str) -> Iterator[str]:
    """``value`` as it may stand in an address, in JSON, in HTML and in a header."""
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
    for before in (1, 2):  # behind a user and a colon, say: what then stands for the key alone
        encoded = base64.b64encode(bytes(before) + raw)[before + 1 : (before + len(raw)) // 3 * 4]
        if len(encoded) >= _LONG:
            yield encoded.decode()
            yield encoded.decode().translate(str.maketrans("+/", "-_"))
    whole = base64.b64encode(raw)[: len(raw) // 3 * 4]  # something may follow it
    if len(whole) >= _LONG:
        yield whole.decode()
        yield whole.decode().translate(str.maketrans("+/", "-_"))
    yield raw.hex()
    yield raw.hex().upper()


def remember_headers(headers: Mapping[Any, Any]) -> None:
    """Take the keys among ``headers`` out of what is shown; the words before them stay."""
    for name, value in headers.items():
        text = str(value)
        if not _may_be_key(str(name), text):
            continue
        remember(text)
        for part in re.split(r"[\s;,=\"]+", text):
            is_word = re.fullmatch(r"[A-Za-z_-]{0,15}", part) is not None
            if len(part) >= _LONG and not is_word:
                remember(part)


def remember_address(address: str) -> None:
    """Take the user, the password and the keys in ``address`` out of what is shown."""
    try:
        parts = urlsplit(address)
        password, user = parts.password or "", parts.username or ""
    except ValueError:
        return
    for word in (password, user if not password else ""):
        remember(word)
        remember(unquote(word))
    if password:
        remember_headers({"user": user})
        for pair in (f"{user}:{password}", f"{unquote(user)}:{unquote(password)}"):
            remember(pair)
            remember(base64.b64encode(pair.encode("utf-8", "replace")).decode())
    for name, value in parse_qsl(parts.query):
        if _KEY_HEADERS.search(name):
            remember(value)


def address_shown(address: str) -> str:
    """An address without what may be a key in it: the user before its host, values of its query."""
    address = _USER.sub(f"{_HIDDEN}@", address)
    return re.sub(r"(?<==)[^&#\s]+", _HIDDEN, address)


def without_credentials(address: str) -> str:
    """Return ``address`` without a user, a password and the keys in its query."""
    scheme, mark, rest = address.rpartition("://")
    bare, found, query = rest.partition("?")
    host, slash, path = bare.partition("/")
    host = host.rpartition("@")[2]
    kept = [part for part in query.split("&") if part and not _KEY_HEADERS.search(part)]
    return f"{scheme}{mark}{host}{slash}{path}{found if kept else ''}{'&'.join(kept)}"


def scrub(text: str) -> str:
    """``text`` with every known key, and everything shaped like one, replaced by ``****``."""
    for value in sorted(_known.copy(), key=len, reverse=True):  # a key may begin another
        text = text.replace(value, _HIDDEN)
    for pattern in list(_spelled.values()):
        text = pattern.sub(_HIDDEN, text)
    return _KEY_SHAPES.sub(_HIDDEN, text)


def length_of_beginning(text: str) -> int:
    """Return how many characters at the end of ``text`` may be the beginning of a known key."""
    longest = 0
    for value in _known.copy():
        at = text.find(value[0], max(0, len(text) - len(value) + 1))
        while at != -1 and not value.startswith(text[at:]):
            at = text.find(value[0], at + 1)
        longest = max(longest, len(text) - at if at != -1 else 0)
    return longest


def scrubbed(value: object) -> object:
    """The same for decoded JSON; what is nested too deeply to be read is left out."""
    try:
        return _scrubbed(value)
    except RecursionError:
        return _HIDDEN


def _scrubbed(value: object) -> object:
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, Mapping):
        return {_scrubbed(key): _scrubbed(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_scrubbed(each) for each in value]
    return value


def redact(message: str) -> str:
    """
    Return ``message``, a text about a request, without anything that is or may be a key.

    Beyond `scrub` it takes the credentials out of every address, and short keys out of the
    places where a key stands. It is for errors, logs and tables; the texts of prompts and
    answers are only scrubbed.
    """
    message = _unwrapped(scrub(message))
    if "://" in message:
        message = _USER.sub(f"{_HIDDEN}@", message)
        message = _QUERY_KEY.sub(rf"\1{_HIDDEN}", message)
    for value in sorted(_short.copy(), key=len, reverse=True):
        if value in message:
            message = _short_key(value).sub(rf"\1{_HIDDEN}", message)
    return message


def _short_key(value: str) -> re.Pattern[str]:
    """``value`` shortly after a word such as "key", behind a colon, a space or a quote."""
    return re.compile(
        rf"({_ABOUT_KEYS}[^\n]{{0,{_NEAR}}}?[\s:=\"'`(])(?<![\w]){re.escape(value)}(?!\w)",
        re.IGNORECASE,
    )


def _unwrapped(text: str) -> str:
    """``text`` without the keys that line breaks, spaces or zero-width characters have split."""
    bare = _GAPS.sub("", "".join(text.split()))
    if bare == text:
        return text
    for known in _known.copy():
        value = _GAPS.sub("", known)
        if len(value) >= 2 * _LONG and value in bare:
            text = re.sub(rf"[\s{_ZERO_WIDTH}]*".join(map(re.escape, value)), _HIDDEN, text)
    return text


def redacted(value: object) -> object:
    """
    The same for decoded JSON that a service sent with an error.

    A field that consists of a key is replaced as a whole, however short the key is. What is
    nested too deeply to be read is left out.
    """
    try:
        return _redacted(value)
    except RecursionError:
        return _HIDDEN


def _redacted(value: object) -> object:
    if isinstance(value, str):
        return _HIDDEN if value.strip().removeprefix("Bearer ") in _short else redact(value)
    if isinstance(value, bytes):
        return redact(value.decode("utf-8", "replace")).encode()
    if isinstance(value, Mapping):
        return {_redacted(key): _redacted(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(each) for each in value]
    return value
