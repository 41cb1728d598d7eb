"""Tables that display the columns that matter, and keep all of them."""

from __future__ import annotations

import math
import pickle

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics._util.tables import CompactFrame, display_columns
from tests.support.html_reader import Reader

WIDE = {f"c{number}": [number, number + 1] for number in range(12)}


def wide(**columns: object) -> CompactFrame:
    """A frame of more than eight columns."""
    return CompactFrame({**columns, **WIDE})


def test_preferred_columns_with_values_are_displayed_in_their_order() -> None:
    """At most eight; the text and the HTML name the number of all columns."""
    frame = display_columns(wide(text=["x", "y"], gone=[None, None]), "c3", "gone", "text", "c1")
    header, *rows, _, size = repr(frame).splitlines()
    assert header.split() == ["c3", "text", "c1"]
    assert rows[0].split() == ["0", "3", "x", "1"]
    assert size == "2 rows × 14 columns (3 shown)"
    assert size in str(frame._repr_html_())
    many = display_columns(wide(), *WIDE)
    assert repr(many).splitlines()[0].split() == [f"c{number}" for number in range(8)]


def test_all_columns_of_a_narrow_frame_are_displayed() -> None:
    """The selection of a user is displayed as it was selected."""
    frame = display_columns(wide(), "c3", "c1")[["c5", "c1"]]
    assert repr(frame).splitlines()[0].split() == ["c5", "c1"]


def test_the_data_is_unchanged_and_rows_stay_compact() -> None:
    """Selections, copies and pickles have all columns, and display the same ones."""
    frame = display_columns(wide(), "c3")
    for derived in (
        frame[frame.c0 == 0],
        frame.copy(),
        pickle.loads(pickle.dumps(frame)),
        frame.head(1),
    ):
        assert list(derived.columns) == list(WIDE)
        assert repr(derived).splitlines()[0].split() == ["c3"]


def test_what_is_derived_without_these_columns_is_displayed_by_pandas() -> None:
    """A transposed or grouped frame has other columns."""
    frame = display_columns(wide(), "c3")
    assert repr(frame.T) == repr(pd.DataFrame(frame).T)
    assert repr(frame[["c1"] * 9]).startswith("   c1  c1")


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("x", 0.123456, "0.123"),
        ("x", 12345.678, "12,346"),
        ("x", 3.0, "3"),
        ("x", math.nan, ""),
        ("x", math.inf, "inf"),
        ("x", 1e-9, "1e-09"),
        ("x", 1_200_000, "1,200,000"),
        ("x", True, "True"),
        ("cost_usd", 0.00042, "$0.00042"),
        ("cost_usd", None, ""),
        ("x", "one\ntwo", "one two"),
        ("x", "w" * 200, "w" * 179 + "…"),
        ("x", [1, 2], "[1, 2]"),
    ],
)  # fmt: skip
def test_values_are_made_for_reading(name: str, value: object, shown: str) -> None:
    """Three digits, thousands, dollars, one line; a missing value is blank."""
    frame = display_columns(pd.DataFrame({name: pd.Series([value]), "y": ["end"]}), "y")
    assert repr(frame).splitlines()[1].split() == ["0", *shown.split(), "end"]


def test_times_are_local_and_full_values_are_tooltips() -> None:
    """The exact time, all digits and the whole text are in the title of the cell."""
    frame = CompactFrame(
        {
            "time": pd.to_datetime(["2026-01-02 03:04:05.678"], utc=True),
            "x": [0.123456],
            "text": ["a " * 200],
        }
    )
    frame = display_columns(frame, "time")
    local = pd.Timestamp("2026-01-02 03:04:05", tz="UTC").to_pydatetime().astimezone()
    assert f"{local:%Y-%m-%d %H:%M:%S}" in repr(frame)
    shown = str(frame._repr_html_())
    assert 'title="0.123456"' in shown
    assert f'title="{"a " * 200}"' in shown
    assert "03:04:05.678" in shown


def test_a_long_table_displays_its_ends() -> None:
    """As pandas does, with the number of rows."""
    frame = display_columns(pd.DataFrame({"x": range(1000)}), "x")
    lines = repr(frame).splitlines()
    assert [line.split()[0] for line in lines[1:12]] == [
        "0",
        "1",
        "2",
        "3",
        "4",
        "…",
        "995",
        "996",
        "997",
        "998",
        "999",
    ]
    assert lines[-1] == "1,000 rows × 1 column"


@settings(deadline=None)
@given(st.lists(st.text(max_size=80), min_size=1, max_size=5), st.text(min_size=1, max_size=20))
def test_texts_and_names_are_harmless(texts: list[str], name: str) -> None:
    """Any text of a service or a column name stays text."""
    name = f"{name}<script>"
    frame = CompactFrame({name: [f'{text}\x1b[2J" onload=x <img src=x>' for text in texts]})
    frame = display_columns(frame, name)
    reader = Reader()
    reader.feed(str(frame._repr_html_()))
    assert {tag for tag, _ in reader.tags} <= {"table", "thead", "tbody", "tr", "th", "td", "p"}
    assert {key for _, attributes in reader.tags for key in attributes} <= {
        "style",
        "title",
        "class",
    }
    assert "\x1b" not in repr(frame)


def test_a_named_index_is_labelled() -> None:
    """One level or several."""
    frame = wide(m=["a", "b"], n=[1, 2]).set_index(["m", "n"])
    lines = repr(display_columns(frame, "c1")).splitlines()
    assert lines[0].split() == ["m", "n", "c1"]
    assert lines[1].split() == ["a", "1", "1"]


def test_vectors_are_displayed_short_in_a_notebook(shell: InteractiveShell) -> None:
    """Bars and dimensions; what is printed, the dtype and other frames stay as they are."""
    frame = pd.DataFrame({"text": ["a", None], "own": [[0.1, 0.2], [0.3, 0.4]]})
    frame.llm.embed("text", model="echo/echo")
    formatted, _ = shell.display_formatter.format(frame)
    for shown in formatted.values():
        assert shown.count(" 64-d") == 1
        assert "0.1, 0.2" in shown
    assert "64-d" not in str(frame)
    assert len(frame.vector[0]) == 64
    plain = pd.DataFrame({"vector": frame.vector.to_numpy()})
    assert "64-d" not in shell.display_formatter.format(plain)[0]["text/plain"]


def test_the_accessor_describes_itself() -> None:
    """Its methods with a sentence each, and the last report."""
    frame = pd.DataFrame({"text": ["a", "b"]})
    frame.llm.embed("text", model="echo/echo")
    described = repr(frame.llm)
    for name in ("embed", "prompt", "extract", "classify", "nearest", "dedupe", "plot"):
        assert f"\n  {name}" in described
    assert described.splitlines()[-1] == "last: 2 ok · 64 dimensions · echo/echo"
    assert "Return the vector" in repr(frame.text.llm)


def test_the_tables_of_calls_and_models_have_at_most_eight_columns() -> None:
    """All columns stay in the data."""
    lm.ask("hi", model="echo/echo")
    compared = lm.compare(["a b"], ["echo/echo", "echo/lorem"])
    for frame in (
        lm.runs(),
        lm.models("echo"),
        compared,
        compared.summary(),
        compared.differences(),
    ):
        header = repr(frame).splitlines()[0].split()
        assert len(header) <= 8 + len([name for name in frame.index.names if name])
        assert len(header) < frame.shape[1]
    assert repr(compared.differences()).split()[0] == "verdict"


def test_texts_share_the_width_of_a_row() -> None:
    """Each column of long texts has its part of it; an option of pandas that the user set holds."""
    frame = display_columns(
        pd.DataFrame({"a": ["x" * 300], "b": ["y" * 300], "c": ["short"]}), "a"
    )
    assert repr(frame).splitlines()[1].split()[1:] == ["x" * 89 + "…", "y" * 89 + "…", "short"]
    with pd.option_context("display.max_colwidth", 10):
        assert "x" * 9 + "…" in repr(frame)
    with pd.option_context("display.max_colwidth", None):
        assert "x" * 300 in repr(frame)
