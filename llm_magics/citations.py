"""Citations of an answer, the searches behind it, and both as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlsplit

from llm_magics._util.text import count_or_none, replace_lone_surrogates
from llm_magics.secrets import scrub

if TYPE_CHECKING:
    from pandas import DataFrame

Unit = Literal["", "character", "page", "block"]

# The maximum length of a link; the notebook file would have all of a longer address.
_MAX_LINK = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """
    A passage of an answer, and the source that supports it.

    Offsets count characters from 0, and an end is the first character after the passage.

    Attributes:
        number: the number of the source, from 1; the same for all citations of a source.
        title: the title of the source.
        url: the address of a web page; empty for a document.
        cited_text: the passage of the source, if the service quotes it.
        start, end: the passage of the answer; ``None`` if the service does not report it.
        document: the number of the attached document, from 0; ``None`` for a web page.
        unit: what ``source_start`` and ``source_end`` count: characters, pages or blocks.
        source_start, source_end: the position in the source. Characters and blocks count from 0,
            and their end is exclusive. Pages count from 1, and their end is the last page.
    """

    number: int = 0
    title: str = ""
    url: str = ""
    cited_text: str = ""
    start: int | None = None
    end: int | None = None
    document: int | None = None
    unit: Unit = ""
    source_start: int | None = None
    source_end: int | None = None

    def __post_init__(self) -> None:
        """Replace invalid values, because a service may send any value."""
        for name in ("title", "url", "cited_text"):
            value = getattr(self, name)
            text = scrub(replace_lone_surrogates(value)) if isinstance(value, str) else ""
            object.__setattr__(self, name, text)
        for name in ("start", "end", "document", "source_start", "source_end"):
            object.__setattr__(self, name, count_or_none(getattr(self, name)))
        object.__setattr__(self, "number", count_or_none(self.number) or 0)
        if self.start is None or self.end is None or self.end <= self.start:
            object.__setattr__(self, "start", None)
            object.__setattr__(self, "end", None)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that are known, for a recording."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}

    @classmethod
    def from_dict(cls, recorded: Mapping[str, Any]) -> Self:
        """Return a citation from a recording."""
        return cls(
            **{each.name: recorded[each.name] for each in fields(cls) if each.name in recorded}
        )

    def moved(self, by: int, length: int | None = None) -> Self:
        """Return the citation of an answer before which ``by`` characters were added."""
        if self.start is None or self.end is None:
            return self
        start, end = self.start + by, self.end + by
        is_inside = start >= 0 and (length is None or end <= length)
        return replace(self, start=start if is_inside else None, end=end if is_inside else None)

    @property
    def host(self) -> str:
        """The host of a web page that can be linked to; empty if it cannot."""
        return link_host(self.url)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """
    One web search of a service.

    Attributes:
        query: the words that were searched for; empty if the service does not report them.
        error: the service's word for the error of a failed search; empty if it succeeded.
        url: the page with the results, which the terms of the service require to link to.
    """

    query: str = ""
    error: str = ""
    url: str = ""

    def __post_init__(self) -> None:
        for name in ("query", "error", "url"):
            value = getattr(self, name)
            text = scrub(replace_lone_surrogates(value)) if isinstance(value, str) else ""
            object.__setattr__(self, name, text)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that are known, for a recording."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def from_dict(cls, recorded: Mapping[str, Any]) -> Self:
        """Return a search from a recording."""
        return cls(
            **{each.name: recorded[each.name] for each in fields(cls) if each.name in recorded}
        )


def link_host(url: str) -> str:
    """
    Return the host of ``url`` in ASCII if it may be a link, and otherwise an empty text.

    Only addresses of web pages may: ``javascript:`` and ``data:`` would run code. An address with a
    user name is refused too, because the name may look like the host, and so is a very long one.

    >>> link_host("https://example.com/a"), link_host("javascript:alert(1)")
    ('example.com', '')
    """
    if len(url) > _MAX_LINK or any(
        character.isspace() or not character.isprintable() or character in '\\"<>`'
        for character in url
    ):
        return ""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode()
        is_web = parts.scheme.lower() in ("http", "https") and "@" not in parts.netloc
        _ = parts.port  # an invalid port raises an error
    except (UnicodeError, ValueError):
        return ""
    return host if is_web else ""


def number_sources(citations: Iterable[Citation]) -> list[Citation]:
    """Return the different ``citations``, with a number for each source that has none."""
    found = list(dict.fromkeys(citations))
    numbers: dict[tuple[Any, ...], int] = {}
    for each in found:
        if each.number:
            numbers.setdefault(_source(each), each.number)
    following = max(numbers.values(), default=0)
    for each in found:
        if _source(each) not in numbers:
            following += 1
            numbers[_source(each)] = following
    return [replace(each, number=each.number or numbers[_source(each)]) for each in found]


def _source(citation: Citation) -> tuple[Any, ...]:
    return (citation.url,) if citation.url else (citation.document, citation.title)


_TYPES = {
    "number": "int64",
    "title": "object",
    "url": "object",
    "cited_text": "object",
    "start": "Int64",
    "end": "Int64",
    "document": "Int64",
    "unit": "object",
    "source_start": "Int64",
    "source_end": "Int64",
}


def citations_frame(citations: Sequence[Citation]) -> DataFrame:
    """Return one row per citation; its columns are the attributes of `Citation`."""
    from llm_magics._util.tables import SafeFrame, display_when_empty

    rows = [asdict(each) for each in citations]
    frame = SafeFrame(rows, columns=list(_TYPES)).astype(_TYPES)
    hint = "The answer has no citations. Let a model search the web with search=True."
    return display_when_empty(SafeFrame(frame), hint)
