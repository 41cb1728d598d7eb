"""The models that can be picked, as rows: for the table of the panel and for the saved table."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_magics._util.table_text import format_columns
from llm_magics._util.text import display_name, replace_lone_surrogates
from llm_magics.notebook import markdown
from llm_magics.providers.base import ModelInfo

COLUMNS = ("model", "context", "price", "capabilities", "size", "state")

# The columns of numbers, which are aligned on the right.
NUMBERS = ("context", "price", "size")

# The chosen models by their use: ``chat`` or ``embedding``.
Chosen = Mapping[str, str]

# The provider of the rows of aliases and routes.
SHORT_NAMES = "aliases"

# The maximum number of rows of the table that is saved with the notebook.
_MAX_SAVED = 40


@dataclass(frozen=True, slots=True)
class Row:
    """One model that can be picked, by its full name."""

    name: str
    info: ModelInfo
    provider: str = SHORT_NAMES

    @property
    def cells(self) -> tuple[str, ...]:
        """The text of each column of the row."""
        info = self.info
        cells = (
            display_name(self.name),
            _context(info.context),
            _price(info.input_usd, info.output_usd),
            display_name(", ".join(info.capabilities)),
            _size(info.size_bytes),
            _state(info),
        )
        return tuple(markdown.to_plain_text(text) for text in cells)

    @property
    def uses(self) -> tuple[str, ...]:
        """The uses among ``chat`` and ``embedding``; only ``chat`` if the service lists none."""
        capabilities = self.info.capabilities or ("chat",)
        found = {"chat": "chat" in capabilities, "embedding": "embeddings" in capabilities}
        return tuple(use for use, is_possible in found.items() if is_possible)

    def actions(self, provider_capabilities: Sequence[str]) -> list[str]:
        """Return what else can be done with the model: ``pull``, ``delete`` or ``embed``."""
        if self.info.pulled is not None:
            action = "delete" if self.info.pulled else "pull"
            return [action] if action in provider_capabilities else []
        is_unknown = self.provider != SHORT_NAMES and not self.info.capabilities
        return ["embed"] if is_unknown and "embeddings" in provider_capabilities else []


def create_rows(offered: Mapping[str, Sequence[ModelInfo]]) -> list[Row]:
    """Return the models of the providers."""
    return [
        Row(f"{name}/{info.name}", info, name) for name, infos in offered.items() for info in infos
    ]


def table_rows(
    rows: Iterable[Row], provider_capabilities: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """Return the rows of the table by section; a model with both uses is in two sections."""
    return [
        {
            "name": replace_lone_surrogates(row.name),  # which cannot be sent to the browser
            "provider": row.provider,
            "uses": row.uses or ("other",),
            "cells": row.cells,
            "actions": row.actions(provider_capabilities.get(row.provider, ())),
        }
        for row in rows
    ]


def format_text(rows: Sequence[Row], chosen: Chosen) -> str:
    """Return the table as plain text, with the chosen models marked and first."""
    lines = [("used for", *COLUMNS), *_marked(rows, chosen)]
    return "\n".join([format_columns(lines), *_more(rows)])


def format_html(rows: Sequence[Row], chosen: Chosen) -> str:
    """Return the table as HTML, with the chosen models marked and first."""
    columns = ("used for", *COLUMNS)
    head = "".join(_cell("th", name, name) for name in columns)
    body = "".join(
        f"<tr>{''.join(_cell('td', text, column) for text, column in zip(line, columns, strict=True))}</tr>"
        for line in _marked(rows, chosen)
    )
    more = "".join(f"<p>{line}</p>" for line in _more(rows))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="llm-pick-table mathjax_ignore">{table}{more}</div>'


def _cell(tag: str, text: str, column: str) -> str:
    """Return a cell as HTML, aligned by its column; JupyterLab's default is on the right."""
    style = "text-align:right;white-space:nowrap" if column in NUMBERS else "text-align:left"
    return f'<{tag} style="{style}">{html.escape(text)}</{tag}>'


def _marked(rows: Sequence[Row], chosen: Chosen) -> list[tuple[str, ...]]:
    marked = [(_used_for(row, chosen), *row.cells) for row in rows]
    return sorted(marked, key=lambda line: not line[0])[:_MAX_SAVED]


def _used_for(row: Row, chosen: Chosen) -> str:
    return ", ".join(use for use, name in chosen.items() if name == row.name)


def _more(rows: Sequence[Row]) -> list[str]:
    return [f"and {len(rows) - _MAX_SAVED:,} more"] if len(rows) > _MAX_SAVED else []


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
    """Return the price in US dollars per million input and output tokens."""
    if input_usd is None:
        return ""
    if not input_usd and not output_usd:
        return "free"
    return f"${input_usd:g}" if output_usd is None else f"${input_usd:g} / ${output_usd:g}"


def _state(info: ModelInfo) -> str:
    if info.loaded:
        return "loaded"
    return "not downloaded" if info.pulled is False else ""
