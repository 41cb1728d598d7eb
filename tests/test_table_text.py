"""Tables as text: what stands in a cell stays in it."""

from __future__ import annotations

import pandas as pd

from llm_magics._util.table_text import format_columns, format_markdown, format_table
from llm_magics.benchmarking.report import markdown

HOSTILE = ["a | b", "two\nlines", "<b>bold</b>", "1e5", " 007 ", "\x01"]


def test_a_markdown_table_has_a_line_a_row() -> None:
    """Bars and breaks end no cell, digits stay, and no row is taken for a ruler."""
    lines = format_table(pd.DataFrame({"x|y": HOSTILE, "n": range(6)})).split("\n")
    assert lines[:2] == ["| x\\|y | n |", "| --- | --- |"]
    assert lines[2:6] == [
        "| a \\| b | 0 |",
        "| two lines | 1 |",
        "| <b>bold</b> | 2 |",
        "| 1e5 | 3 |",
    ]
    assert lines[6:] == ["| 007 | 4 |", "| \N{REPLACEMENT CHARACTER} | 5 |"]


def test_markup_in_a_report_is_text() -> None:
    """A report is rendered as a page, where a prompt is not."""
    lines = markdown(pd.DataFrame({"a": ["<script>", "[x](y)", None]})).split("\n")
    assert lines[2:] == ["| &lt;script> |", "| \\[x](y) |", "|  |"]


def test_empty_tables() -> None:
    """Have their heading alone."""
    assert format_markdown(["a", "b"], []) == "| a | b |\n| --- | --- |"
    assert format_columns([]) == ""


def test_columns_are_as_wide_as_they_look() -> None:
    """Characters that take two places included; no line ends in spaces."""
    assert format_columns([["漢字", "x"], ["abc", ""]]) == "漢字  x\nabc"
