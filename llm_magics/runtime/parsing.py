"""Extract code, JSON and tables from the text of an answer."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from llm_magics.errors import ParseError
from llm_magics.host import warn
from llm_magics.schemas import validate_json
from llm_magics.types import ModelResponse
from llm_magics.wire.schema_dialects import unwrap_answer

if TYPE_CHECKING:
    from pandas import DataFrame


# A number in a table. With a leading zero it is a code, and therefore text.
_PLAIN_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?")
_CODE = re.compile(r"[-+]?0\d+")
_DIGITS = re.compile(r"[-+]?\d+")

# The bounds of 64-bit integers, and of integers that a float represents exactly.
_MAX_INT64 = 2**63
_MAX_EXACT_INTEGER = 2**53

# The maximum number of braces and brackets in prose at which a value is searched.
_MAX_STARTS = 200


class CodeBlock(NamedTuple):
    """A fenced block: its language (or ``""``), and its content."""

    language: str
    code: str


def code_blocks(text: str) -> list[CodeBlock]:
    """Return the fenced blocks of a Markdown text, in order."""
    from markdown_it import MarkdownIt

    return [
        CodeBlock((token.info.split() or [""])[0].lower(), token.content)
        for token in MarkdownIt().parse(text)
        if token.type == "fence"
    ]


def extract_code(text: str, language: str | None = None) -> str:
    """
    Return the code in an answer: its first fenced block, or the first in ``language``.

    A text without any fence is taken as code, because models that are instructed to write only code
    often omit the fence.

    Raises:
        ParseError: there are fenced blocks, but none in ``language``.
    """
    blocks = code_blocks(text)
    for block in blocks:
        if language is None or block.language == language.lower():
            return block.code.rstrip("\n")
    if blocks:
        found = ", ".join(sorted({block.language or "no language" for block in blocks}))
        msg = f"The answer has no {language} code block; its blocks are: {found}."
        raise ParseError(msg, hint="All blocks are in .code_blocks.")
    return text.strip()


def parse_json(text: str, *, repair: bool = False) -> Any:
    """
    Return the JSON in an answer: the full text, a fenced block, or the first value in its prose.

    Invalid JSON is only repaired with ``repair``, and with a warning.

    Raises:
        ParseError: it contains no valid JSON.
    """
    for candidate in (text, *_json_blocks(text)):
        try:
            return json.loads(candidate)
        except (ValueError, RecursionError):
            continue
    found = _json_in_prose(text)
    if found:
        return max(found, key=lambda each: each.end - each.start).value
    if repair:
        return _repair_json(text)
    msg = f"The answer contains no valid JSON: {_preview(text)}"
    raise ParseError(msg, hint="Request JSON only, for example with a schema, or use .text.")


class FoundJSON(NamedTuple):
    """A JSON value in a text, with its position."""

    value: Any
    start: int
    end: int


def find_json_values(text: str) -> list[FoundJSON]:
    """
    Return the JSON values in a text, the last one first.

    If the full text is one value, it is the only one. Nested values are not listed.
    """
    with suppress(ValueError, RecursionError):
        return [FoundJSON(json.loads(text), 0, len(text))]
    found = _json_in_prose(text)
    spans = {(each.start, each.end) for each in found}
    for block in _json_blocks(text):  # fenced numbers and strings are values too
        start = text.rfind(block)
        with suppress(ValueError, RecursionError):
            value = json.loads(block)
            length = len(block.rstrip())
            if not any(begin >= start and end <= start + length for begin, end in spans):
                found.append(FoundJSON(value, start, start + length))
    return sorted(found, key=lambda each: each.start, reverse=True)


def _json_in_prose(text: str) -> list[FoundJSON]:
    """Return the values in a text, all of them: ``[1]`` may be a citation before the object."""
    starts = [each.start() for each in re.finditer(r"[{[]", text)]
    found = _decode_values_at(text, starts[:_MAX_STARTS])
    if len(starts) > _MAX_STARTS:  # in long thoughts the end is most important
        past = found[-1].end if found else 0
        last = [start for start in starts[-_MAX_STARTS:] if start >= past]
        found += _decode_values_at(
            text, [each for each in last if each not in starts[:_MAX_STARTS]]
        )
    return found


def _decode_values_at(text: str, starts: Sequence[int]) -> list[FoundJSON]:
    decoder = json.JSONDecoder()
    found: list[FoundJSON] = []
    past = 0
    for start in starts:
        if start >= past:
            with suppress(ValueError, RecursionError):
                value, past = decoder.raw_decode(text, start)
                found.append(FoundJSON(value, start, past))
    return found


def _repair_json(text: str) -> Any:
    """Return a repaired value. It may be wrong, so the user is warned."""
    try:
        from json_repair import repair_json
    except ImportError:
        msg = "json(repair=True) needs the package json-repair."
        raise ParseError(msg, hint="Run: pip install json-repair") from None
    blocks = _json_blocks(text)
    try:
        value = repair_json(blocks[0] if blocks else text, return_objects=True)
    except (ValueError, RecursionError):
        value = ""
    if value in ("", [], {}):
        msg = f"The answer contains nothing that could be repaired to JSON: {_preview(text)}"
        raise ParseError(msg, hint="The answer is in .text.")
    warn("The answer's JSON was invalid and was repaired; check the result.")
    return value


def parse_partial_json(text: str) -> Any:
    """
    Return the JSON value received so far in an incomplete text.

    Raises:
        ParseError: no value has begun, or it is invalid.
    """
    complete = _json_in_prose(text)
    partial = [
        _parse_partial_at(text, begin.start())
        for begin in islice(re.finditer(r"[{[]", text), 20)
        if not any(each.start < begin.start() < each.end for each in complete)
    ]
    lengths = [(each.value, each.end - each.start) for each in complete]
    found = [each for each in (*lengths, *partial) if each is not None]
    if found:
        return max(found, key=lambda each: each[1])[0]
    msg = f"The answer so far contains no JSON: {_preview(text)}"
    raise ParseError(msg, hint="Wait for more of the answer.")


def _json_blocks(text: str) -> list[str]:
    return [block.code for block in code_blocks(text) if block.language in {"json", "", "jsonc"}]


def parse_table(text: str) -> DataFrame:
    """
    Return the table in an answer: JSON rows, a fenced CSV or TSV, or a Markdown table.

    Raises:
        ParseError: it contains no table.
    """
    try:
        return _parse_table(text)
    except (ParseError, ValueError, TypeError):  # pandas raises several types for an invalid table
        msg = f"The answer contains no table: {_preview(text)}"
        hint = "Request a JSON list of objects, a CSV code block or a Markdown table."
        raise ParseError(msg, hint=hint) from None


def _parse_table(text: str) -> DataFrame:
    import pandas as pd

    for block in code_blocks(text):
        if block.language in {"csv", "tsv"}:
            return _parse_separated(block.code, "," if block.language == "csv" else "\t")
    rows = _markdown_rows(text)
    if rows:
        header, *cells = rows
        columns = dict(enumerate(map(_infer_types, zip(*cells, strict=True))))
        frame = pd.DataFrame(columns, index=range(len(cells)), columns=range(len(header)))
        return frame.set_axis(header, axis=1)
    return _frame_of(_unwrap_records(parse_json(text)))


def _parse_separated(text: str, separator: str) -> DataFrame:
    """Parse CSV or TSV; a column in which pandas would lose digits stays as text or integers."""
    import pandas as pd

    read: dict[str, Any] = {"sep": separator, "skipinitialspace": True}
    frame: DataFrame = pd.read_csv(io.StringIO(text), **read)
    written = pd.read_csv(io.StringIO(text), dtype=str, **read)
    if not frame.columns.equals(written.columns) or not frame.index.equals(written.index):
        return frame
    for index, name in enumerate(frame.columns):
        cells = [None if pd.isna(cell) else str(cell).strip() for cell in written.iloc[:, index]]
        present = [cell for cell in cells if cell is not None]
        if any(map(_CODE.fullmatch, present)):
            frame[name] = pd.Series(cells, index=frame.index, dtype=object)
        elif present and all(map(_DIGITS.fullmatch, present)):
            frame[name] = _integers([None if cell is None else int(cell) for cell in cells], frame)
        elif frame.dtypes.iloc[index].kind == "f" and any(map(_is_beyond_floats, present)):
            frame[name] = pd.Series(cells, index=frame.index, dtype=object)
    return frame


def _is_beyond_floats(cell: str) -> bool:
    return bool(_DIGITS.fullmatch(cell)) and abs(int(cell)) > _MAX_EXACT_INTEGER


def _integers(values: list[int | None], like: DataFrame) -> Any:
    """Return int64, Int64 if values are missing, or Python integers if they exceed 64 bits."""
    import pandas as pd

    present = [each for each in values if each is not None]
    if any(not -_MAX_INT64 <= each < _MAX_INT64 for each in present):
        return pd.Series(values, index=like.index, dtype=object)
    return pd.Series(values, index=like.index, dtype="int64" if present == values else "Int64")


def _frame_of(records: Any) -> DataFrame:
    """Return JSON rows or columns as a table; integers stay integers if there are nulls."""
    import pandas as pd

    frame = pd.DataFrame(records)
    exact = pd.DataFrame(records, dtype=object)
    for index, name in enumerate(frame.columns):
        if frame.dtypes.iloc[index].kind not in "fiu" or not frame.columns.is_unique:
            continue
        values = [None if _is_missing(each) else each for each in exact.iloc[:, index]]
        present = [each for each in values if each is not None]
        if present and all(type(each) is int for each in present):
            frame[name] = _integers(values, frame)
        elif any(type(each) is int and abs(each) > _MAX_EXACT_INTEGER for each in present):
            frame[name] = pd.Series(values, index=frame.index, dtype=object)
    return frame


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _infer_types(cells: Sequence[str]) -> Any:
    """
    Return the cells of a column as numbers if all are plain numbers or empty, otherwise as texts.

    Possible codes stay texts (007, +47, 1e5, NA), as do numbers that cannot be represented exactly.
    """
    import pandas as pd

    present = [cell for cell in cells if cell]
    if not present or not all(map(_PLAIN_NUMBER.fullmatch, present)):
        return list(cells)
    if any("." in cell for cell in present):
        if any(map(_is_beyond_floats, present)):
            return list(cells)
        return [float(cell) if cell else math.nan for cell in cells]
    if any(not -_MAX_INT64 <= int(cell) < _MAX_INT64 for cell in present):
        return list(cells)
    if len(present) == len(cells):
        return [int(cell) for cell in cells]
    return pd.array([int(cell) if cell else None for cell in cells], dtype="Int64")


def _unwrap_records(value: Any) -> Any:
    """Return the rows in a JSON value, which may wrap them: ``{"rows": [{…}, …]}``."""
    if isinstance(value, dict):
        inner = list(value.values())
        if len(inner) == 1 and isinstance(inner[0], list):
            return inner[0]
        return value if all(isinstance(each, list) for each in inner) else [value]
    return value


def _markdown_rows(text: str) -> list[list[str]]:
    """Return the cells of the first Markdown table, with its header first."""
    from markdown_it import MarkdownIt

    rows: list[list[str]] = []
    inside = False
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for before, token in pairwise(tokens):
        if token.type == "table_close":
            break
        if token.type == "tr_open":
            rows.append([])
        inside = before.type in {"th_open", "td_open"}
        if inside and rows:
            rows[-1].append(token.content)
    return rows


def _preview(text: str) -> str:
    flat = " ".join(text.split())
    return f'it starts with "{flat[:60]}".' if flat else "it is empty."


def _parse_partial_at(text: str, start: int) -> tuple[Any, int] | None:
    """Return the incomplete value that begins at ``start``, and the length of its text."""
    from pydantic_core import from_json

    body = text[start:]
    with suppress(ValueError, RecursionError):
        json.JSONDecoder().raw_decode(body)
        return None  # the value is complete, followed by other text
    fence = body.rfind("```")
    for part in (body, body[: fence if fence >= 0 else len(body)]):
        with suppress(ValueError):
            return from_json(part, allow_partial="trailing-strings"), len(part)
    return None


class _Answer(Protocol):
    @property
    def text(self) -> str: ...
    @property
    def reasoning(self) -> str: ...
    @property
    def tool_calls(self) -> Sequence[Any]: ...


def is_thought_only(answer: _Answer) -> bool:
    """Return whether the model has thought, but its answer is empty."""
    return bool(answer.reasoning.strip()) and not answer.text.strip() and not answer.tool_calls


def find_fitting_json(text: str, schema: Any) -> FoundJSON | None:
    """Return the last JSON value in ``text`` that matches ``schema``, validated; else ``None``."""
    for found in find_json_values(text):
        values = [found.value]
        if (inner := unwrap_answer(found.value)) is not found.value:
            values.append(inner)
        for value in values:
            try:
                return found._replace(value=validate_json(value, schema))
            except ParseError:
                continue
    return None


def answer_in_thoughts(answer: ModelResponse, schema: Any) -> ModelResponse:
    """
    Return ``answer`` with the JSON in its thoughts as its text, if it has no text.

    Some servers put the full output of a thinking model into its thoughts if the answer is
    constrained to a schema. JSON that does not match the schema stays in the thoughts.
    """
    if schema is None or not is_thought_only(answer):
        return answer
    found = find_fitting_json(answer.reasoning, schema)
    if found is None:
        return answer
    thoughts = answer.reasoning
    text = thoughts[found.start : found.end].strip()
    rest = f"{thoughts[: found.start]}{thoughts[found.end :]}"
    return replace(answer, text=text, reasoning=rest.strip())
