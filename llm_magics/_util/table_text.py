"""Tables as text: Markdown, aligned columns, and summaries of DataFrames for a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llm_magics.errors import TemplateError

if TYPE_CHECKING:
    from pandas import DataFrame, Series

# The number of tokens for one table in a prompt; a token is about four characters of such text.
_BUDGET_TOKENS = 1000


_CHARACTERS_A_TOKEN = 4


_MAX_ROWS = 20


_MAX_CELL = 200


# Integers below this are exact as floats.
_MAX_EXACT = 2**53


def is_table(value: object) -> bool:
    """Return whether ``value`` is a DataFrame or a Series, without importing pandas."""
    kind = type(value)
    is_theirs = kind.__module__.partition(".")[0] == "pandas"
    return is_theirs and kind.__name__ in ("DataFrame", "Series")


def summarize_table(value: DataFrame | Series[Any], tokens: int = _BUDGET_TOKENS) -> str:
    """
    Summarize ``value`` in about ``tokens`` tokens: its size, columns, types, and first rows.

    The text contains the number of omitted rows, so that the model does not mistake a part for the
    whole.
    """
    frame = _frame(value)
    lines = [f"{len(frame):,} rows x {frame.shape[1]} columns", f"columns: {_columns(frame)}"]
    room = tokens * _CHARACTERS_A_TOKEN - sum(map(len, lines))
    count = min(_MAX_ROWS, len(frame))
    while count > 1 and len(_markdown(frame.head(count))) > room:
        count //= 2
    lines.append(_markdown(frame.head(count)))
    if count < len(frame):
        lines.append(f"({len(frame) - count:,} more rows)")
    return "\n".join(lines)


def format_table(value: DataFrame | Series[Any], rows: int = _MAX_ROWS) -> str:
    """Return the first ``rows`` rows as a Markdown table, with the number of omitted rows."""
    frame = _frame(value)
    text = _markdown(frame.head(rows))
    left = len(frame) - rows
    return f"{text}\n({left:,} more rows)" if left > 0 else text


def describe_table(value: DataFrame | Series[Any]) -> str:
    """Return counts, means and quartiles of every column, as a Markdown table."""
    description = _frame(value).describe(include="all").reset_index(names="")
    return _markdown(description)


def _frame(value: DataFrame | Series[Any]) -> DataFrame:
    if not is_table(value):
        msg = f"Expected a DataFrame or Series, got {type(value).__name__}."
        raise TemplateError(
            msg, hint="Use table and describe with a DataFrame or one of its columns."
        )
    return value.to_frame() if type(value).__name__ == "Series" else value  # type: ignore[operator, return-value]


def _columns(frame: DataFrame) -> str:
    missing = frame.isna().sum().tolist()
    columns = []
    for name, kind, lacking in zip(frame.columns, frame.dtypes, missing, strict=True):
        lacks = f", {lacking:,} missing" if lacking else ""
        columns.append(f"{name} ({kind}{lacks})")
    return ", ".join(columns)


def _markdown(frame: DataFrame) -> str:
    rows = [[_cell(value) for value in row] for row in frame.itertuples(index=False)]
    return format_markdown([_cell(name) for name in frame.columns], rows)


def format_markdown(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table without padding, because a model charges for every token."""
    from tabulate import DataRow, TableFormat

    row = DataRow("| ", " | ", " |")
    markdown = TableFormat(
        lineabove=None,
        linebelowheader=lambda widths, _: f"| {' | '.join(['---'] * len(widths))} |",
        linebetweenrows=None,
        linebelow=None,
        headerrow=row,
        datarow=row,
        padding=0,
        with_header_hide=None,
    )
    return _tabulate(rows, headers, markdown, None)


def format_columns(rows: Sequence[Sequence[str]]) -> str:
    """Return ``rows`` as lines, with columns separated by spaces and aligned on the left."""
    return _tabulate(rows, (), "plain", "left")


def _tabulate(
    rows: Sequence[Sequence[str]], headers: Sequence[str], style: Any, alignment: str | None
) -> str:
    from tabulate import SEPARATING_LINE, tabulate

    # tabulate would draw a line instead of a row with this cell.
    rows = [
        ["\N{REPLACEMENT CHARACTER}" if cell == SEPARATING_LINE else cell for cell in row]
        for row in rows
    ]
    text: str = tabulate(
        rows,
        headers,
        tablefmt=style,
        stralign=alignment,
        numalign=alignment,
        disable_numparse=True,
    )
    return text


def _number(value: float) -> str:
    """Format with six digits; an integer is not rounded, because it may be an identifier."""
    is_whole = value.is_integer() and abs(value) < _MAX_EXACT
    return str(int(value)) if is_whole else f"{value:.6g}"


def _cell(value: Any) -> str:
    """Return one value on one line, with escaped bars, which would end the cell."""
    missing = value is None or value != value  # noqa: PLR0124 (NaN differs from itself)
    if missing is True or type(value).__name__ in ("NAType", "NaTType"):
        return ""
    text = _number(value) if isinstance(value, float) else str(value)
    text = " ".join(text.split()).replace("|", "\\|")
    return text if len(text) <= _MAX_CELL else f"{text[: _MAX_CELL - 1]}…"
