"""The drawing of the architecture: packages as boxes, importing only from rows below."""

from __future__ import annotations

from html import escape

# Rows from top to bottom: boxes with the packages and modules they stand for, and what these do.
ROWS: list[list[tuple[str, str]]] = [
    [("notebook", "magics, subcommands of %llm, display, picker"), ("pytest_plugin", "gates as tests")],
    [("evaluations", "lm.evaluate, agreement with people, gate for CI")],
    [("benchmarking", "lm.compare, lm.bench, scores"), ("dataframes", "df.llm, search, plots, Dask")],
    [("past_runs, api", "lm.ask, lm.stream, lm.models, lm.runs, lm.history")],
    [("mcp", "tools of MCP servers: connections, permissions, results")],
    [("runtime", "one call: prompt, cache and recording, routes, retries, limits, budget, log")],
    [("providers", "local, ollama, openai, anthropic, gemini, lmstudio, huggingface, echo, and plug-ins")],
    [("_async", "event loop"), ("wire", "formats of services"), ("settings", "values, files, keys"),
     ("sandbox", "templates")],
    [("tools", "functions"), ("schemas, types", "values"), ("parameters", "of a call"),
     ("documents", "PDF, text")],
    [("attachments", "images, sound"), ("citations", "sources of an answer"),
     ("usage", "tokens, searches"), ("http", "connections")],
    [("_util", "shared helpers"), ("errors", "error classes"), ("secrets", "masking of keys"),
     ("host", "progress, questions")],
]  # fmt: skip

_WIDTH, _HEIGHT, _GAP, _MARGIN = 880, 54, 12, 20
_FILLS = [
    "#dbeafe",
    "#cffafe",
    "#dcfce7",
    "#e0e7ff",
    "#f3e8ff",
    "#fef3c7",
    "#fde2e2",
    "#f1f5f9",
    "#f1f5f9",
    "#f1f5f9",
    "#f1f5f9",
]


def architecture() -> str:
    """Return the drawing as SVG, with an opaque background that suits light and dark pages."""
    height = 2 * _MARGIN + len(ROWS) * (_HEIGHT + _GAP) - _GAP
    title = "Packages of llm_magics, from the notebook at the top to shared modules at the bottom"
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
            f'font-family="sans-serif" text-anchor="middle" fill="#0f172a">'
        ),
        f"<title>{title}</title>",
        f'<rect width="{_WIDTH}" height="{height}" rx="10" fill="#ffffff"/>',
    ]
    for number, (row, fill) in enumerate(zip(ROWS, _FILLS, strict=True)):
        top = _MARGIN + number * (_HEIGHT + _GAP)
        width = (_WIDTH - 2 * _MARGIN + _GAP) / len(row) - _GAP
        for place, (name, text) in enumerate(row):
            left = _MARGIN + place * (width + _GAP)
            middle = left + width / 2
            parts += [
                (
                    f'<rect x="{left:.0f}" y="{top}" width="{width:.0f}" height="{_HEIGHT}" rx="6" '
                    f'fill="{fill}" stroke="#64748b"/>'
                ),
                (
                    f'<text x="{middle:.0f}" y="{top + 23}" font-size="16" font-weight="bold">'
                    f"{escape(name)}</text>"
                ),
                f'<text x="{middle:.0f}" y="{top + 42}" font-size="12.5">{escape(text)}</text>',
            ]
    return "\n".join([*parts, "</svg>"]) + "\n"
