"""What can be picked, as the lines of a list and of a table."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from llm_magics._util.terminal import shown_name
from llm_magics.notebook import inert
from llm_magics.providers.base import ModelInfo

# Browsers fold plain spaces in a list's lines.
_SPACE = "\N{NO-BREAK SPACE}"

# A longer name is cut in the list, which would else be all spaces.
_LONGEST_NAME = 44

COLUMNS = ("model", "size", "context", "price", "abilities", "state")

# The rows of the table that is saved with the notebook.
_MOST_SAVED = 40


@dataclass(frozen=True, slots=True)
class Row:
    """One model that can be picked, by its full name."""

    name: str
    info: ModelInfo

    @property
    def cells(self) -> tuple[str, ...]:
        """Its line, a text a column."""
        info = self.info
        told = (
            shown_name(self.name),
            _size(info.size_bytes),
            _context(info.context),
            _price(info.input_usd, info.output_usd),
            shown_name(", ".join(info.abilities)),
            _state(info),
        )
        return tuple(inert.plain(text) for text in told)


def rows_of(offered: Mapping[str, Sequence[ModelInfo]]) -> list[Row]:
    """The models that providers offer, those that chat before the others."""
    rows = [Row(f"{name}/{info.name}", info) for name, infos in offered.items() for info in infos]
    return sorted(
        rows, key=lambda row: bool(row.info.abilities) and "chat" not in row.info.abilities
    )


def matching(rows: Iterable[Row], wanted: str) -> list[Row]:
    """Those in whose lines all words of ``wanted`` occur."""
    words = wanted.lower().split()
    return [row for row in rows if all(word in " ".join(row.cells).lower() for word in words)]


def labels(rows: Sequence[Row]) -> list[str]:
    """The lines of a list, in columns as wide as they need be."""
    cells = [(_cut(row.cells[0]), *row.cells[1:]) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        .rstrip()
        .replace(" ", _SPACE)
        for line in cells
    ]


def as_text(rows: Sequence[Row], chosen: str) -> str:
    """The table for a terminal and for what is saved, with the chosen model marked."""
    lines = [("", *COLUMNS), *_marked(rows, chosen)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    told = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([*told, *_more(rows)])


def as_html(rows: Sequence[Row], chosen: str) -> str:
    """The same for a page."""
    head = "".join(f"<th>{name}</th>" for name in ("", *COLUMNS))
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in line)}</tr>"
        for line in _marked(rows, chosen)
    )
    more = "".join(f"<p>{line}</p>" for line in _more(rows))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="llm-pick-table mathjax_ignore">{table}{more}</div>'


def _marked(rows: Sequence[Row], chosen: str) -> list[tuple[str, ...]]:
    first = sorted(rows, key=lambda row: row.name != chosen)[:_MOST_SAVED]
    return [("→" if row.name == chosen else "", *row.cells) for row in first]


def _more(rows: Sequence[Row]) -> list[str]:
    return [f"and {len(rows) - _MOST_SAVED:,} more"] if len(rows) > _MOST_SAVED else []


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _size(size_bytes: int | None) -> str:
    if not size_bytes:
        return ""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"


def _context(tokens: int | None) -> str:
    if tokens is None:
        return ""
    if tokens >= 1_000_000:
        return f"{tokens / 1e6:.3g}M"
    return f"{tokens / 1000:.0f}k" if tokens >= 10_000 else f"{tokens:,}"


def _price(input_usd: float | None, output_usd: float | None) -> str:
    """US dollars for a million tokens read and written."""
    if input_usd is None:
        return ""
    if not input_usd and not output_usd:
        return "free"
    return f"${input_usd:g}" if output_usd is None else f"${input_usd:g} / ${output_usd:g}"


def _state(info: ModelInfo) -> str:
    if info.loaded:
        return "loaded"
    return "not pulled" if info.pulled is False else ""
