"""Values of rows and answers, exact to the last digit, in columns typed by the schema alone."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Literal

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

import llm_magics as lm
from llm_magics._util import table_text
from llm_magics.dataframes.answer_columns import field_dtypes, schema_fields, to_typed_column
from llm_magics.runtime.parsing import parse_table
from tests.support.serving import Asked, Says, as_json, chat_stream, serving

BIG, BIGGER = 1234567890123456789, 1234567890123456791
BEYOND = 2**70


class Oracle:
    """Gives the answer whose key stands at the end of the question; says back other questions."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.said: list[str] = []

    def __call__(self, asked: Asked) -> Says:
        said = asked.json()["messages"][-1]["content"]
        self.said.append(said)
        key = said.rsplit(maxsplit=1)[-1]
        if key == "fail":
            return as_json({"error": {"message": "Not that.", "code": "invalid_value"}}, 400)
        answer = self.answers.get(key)
        return Says(chat_stream(said if answer is None else json.dumps(answer)))


@pytest.fixture
def oracle() -> Iterator[Oracle]:
    """The service ``lab``, whose model ``m`` is asked where none is named."""
    fake = Oracle()
    with serving(fake) as server:
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url, "api_key": "k"}}
        lm.config.model = "lab/m"
        lm.config.cache_dir = "cache"
        yield fake


def test_integers_keep_their_digits(oracle: Oracle) -> None:
    """Also beside rows without an answer; those beyond 64 bits stay Python's own."""
    oracle.answers = {"a": {"id": BIG}, "b": {"id": BIGGER}, "c": {"id": BEYOND}}
    found = lm.extract(["a", "b", None], "id int")["id"]
    assert str(found.dtype) == "Int64"
    assert found.tolist()[:2] == [BIG, BIGGER]
    assert found.isna().tolist() == [False, False, True]
    assert lm.extract(["a", "b"], "id int")["id"].tolist() == [BIG, BIGGER]
    beyond = lm.extract(["a", "c", None], "id int")["id"]
    assert beyond.dtype == object
    assert beyond.tolist() == [BIG, BEYOND, None]
    frame = pd.DataFrame({"text": ["a", "b", None]}, index=[7, 7, 9])
    frame.llm.extract("text", "id int")
    assert frame["id"].tolist()[:2] == [BIG, BIGGER]
    again = pd.Series(["a", "b"]).llm.extract("id int")
    assert again["id"].tolist() == [BIG, BIGGER]


FIELDS = (
    "i int, f float, s, b bool, d date, t datetime, size small|large, tags list[str], "
    "oi int?, of float?, os?, ob bool?, od date?, ot datetime?, osize small|large?"
)
WHOLE = {
    "i": 1,
    "f": 1.5,
    "s": "x",
    "b": True,
    "d": "2026-01-02",
    "t": "2026-01-02T03:04:05+02:00",
    "size": "small",
    "tags": ["a"],
}
DTYPES = {
    "i": "Int64",
    "f": "Float64",
    "s": "string",
    "b": "boolean",
    "d": "datetime64[ns]",
    "t": "datetime64[ns, UTC]",
    "size": "category",
    "tags": "object",
}
DTYPES |= {f"o{name}": DTYPES[name] for name in ("i", "f", "s", "b", "d", "t", "size")}


@pytest.mark.filterwarnings("ignore:.* failed:UserWarning")
def test_dtypes_follow_from_the_schema_alone(oracle: Oracle) -> None:
    """The same where values are there, where none is, and where there is no row."""
    nulls = {name: None for name in DTYPES if name not in WHOLE}
    more = {f"o{name}": WHOLE[name] for name in ("i", "f", "s", "b", "d", "t", "size")}
    oracle.answers = {"a": {**WHOLE, **more}, "b": {**WHOLE, **nulls}}
    for rows in (["a", "b"], ["b"], ["a", None], [None], [], ["a", "fail"]):
        found = lm.extract(rows, FIELDS)
        assert {name: str(dtype) for name, dtype in found.dtypes.items()} == DTYPES, rows
        assert found["size"].cat.categories.tolist() == ["small", "large"]
    found = lm.extract(["a", "b"], FIELDS)
    assert found["d"][0] == pd.Timestamp("2026-01-02")
    assert found["t"][0] == pd.Timestamp("2026-01-02T01:04:05Z")
    assert found["tags"].tolist() == [["a"], ["a"]]
    assert found["oi"].isna().tolist() == [False, True]


class Item(BaseModel):
    """References, unions and literals as pydantic writes them."""

    id: int
    price: int | float
    kind: Literal["a", "b"]
    level: Literal[1, 2] | None = None
    born: dt.date | None = None
    either: int | str = 0
    inner: Item | None = None


def test_types_behind_references_and_unions() -> None:
    """Of a class that refers to itself too."""
    made = {name: str(dtype) for name, dtype in field_dtypes(schema_fields(Item)).items()}
    assert made == {
        "id": "Int64",
        "price": "Float64",
        "kind": "category",
        "level": "Int64",
        "born": "datetime64[ns]",
        "either": "object",
        "inner": "object",
    }


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([3.0, None], "Int64", [3, None]),
        (["3"], "Int64", [3]),
        ([2**53 + 1], "Float64", None),
        ([1], "Float64", [1.0]),
        (["1066-10-14"], "datetime64[ns]", None),
        (["yesterday"], "datetime64[ns, UTC]", None),
        (["2026-01-02T03:04:05"], "datetime64[ns, UTC]", [pd.Timestamp("2026-01-02T03:04:05Z")]),
        (["c"], pd.CategoricalDtype(["a", "b"]), None),
        ([3.5], "Int64", None),
        ([[1], {"a": BIG}, None], "object", [[1], {"a": BIG}, None]),
    ],
)
def test_what_a_dtype_cannot_hold_stays_as_it_is(
    values: list[Any], dtype: Any, expected: list[Any] | None
) -> None:
    """Nothing is rounded or lost; the column is then one of objects."""
    made = to_typed_column(values, dtype, pd.RangeIndex(len(values)))
    if expected is None:
        assert made.dtype == object
        assert made.tolist() == values
    else:
        assert str(made.dtype) == str(dtype)
        assert [None if pd.api.types.is_scalar(v) and pd.isna(v) else v for v in made] == expected


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)))
def test_any_integers(values: list[int | None]) -> None:
    """Come out as they went in."""
    made = to_typed_column(values, "Int64", pd.RangeIndex(len(values)))
    assert str(made.dtype) == "Int64"
    assert [None if pd.isna(value) else int(value) for value in made] == values


MOMENT = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
VALUES: dict[str, tuple[list[Any], str]] = {
    "id": ([BIG, None], str(BIG)),
    "small": ([9007199254740993, None], "9007199254740993"),
    "day": ([dt.date(2026, 1, 2), None], "2026-01-02"),
    "at": ([MOMENT, None], "2026-01-02 03:04:05+00:00"),
    "is_it": ([True, None], "True"),
    "price": ([Decimal("1.10"), None], "1.10"),
    "many": ([[1, BIG], None], f"[1, {BIG}]"),
    "nested": ([{"a": BIG}, None], f"{{'a': {BIG}}}"),
    "raw": ([b"x", None], "b'x'"),
    "word": (["w", None], "w"),
}


def as_polars() -> pl.DataFrame:
    """Each column with a null; the word is categorical."""
    frame = pl.DataFrame({name: values for name, (values, _) in VALUES.items()})
    return frame.with_columns(pl.col("word").cast(pl.Categorical))


def as_pandas(frame: pl.DataFrame) -> pd.DataFrame:
    """Of Arrow's types within pandas."""
    arrow = frame.with_columns(pl.col("word").cast(pl.String)).to_arrow()
    types = {name: pd.ArrowDtype(arrow.schema.field(name).type) for name in arrow.column_names}
    return pd.DataFrame(
        {
            name: pd.Series(arrow[name].to_pylist(), dtype=types[name])
            for name in arrow.column_names
        }
    )


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("kind", ["polars", "pyarrow", "batch", "pandas", "lone", "lone arrow"])
def test_values_of_rows_are_read_as_they_are(oracle: Oracle, name: str, kind: str) -> None:
    """No value goes through a float or a foreign type on its way into a prompt."""
    frame = as_polars()
    table_ = frame.to_arrow()
    field = "text" if kind.startswith("lone") else name
    rows: Any = {
        "polars": frame,
        "pyarrow": table_,
        "batch": table_.combine_chunks().to_batches()[0],
        "pandas": as_pandas(frame),
        "lone": frame[name],
        "lone arrow": table_[name],
    }[kind]
    answers = lm.prompt(rows, f"Say {{{{ {field} }}}}")
    expected = VALUES[name][1]
    said = answers.tolist()[0]
    if kind == "pandas" and name == "many":  # pandas gives an array
        said = said.replace("  ", " ")
    assert said.removesuffix(" 00:00:00") == f"Say {expected}"
    assert answers.isna().tolist() == [False, True]


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([BIG, None], dtype="Int64"),
        pd.Series([BIG, None], dtype=object),
        pd.Series([BIG, None], dtype=pd.ArrowDtype(pa.int64())),
        pd.Series([BIG, None], dtype="Int64").astype("category"),
        [BIG, None],
    ],
    ids=str,
)
def test_integers_with_gaps_in_pandas(oracle: Oracle, column: Any) -> None:
    """Of every dtype that has both."""
    assert lm.prompt(column, "Say {{ text }}").tolist()[0] == f"Say {BIG}"
    if isinstance(column, pd.Series):
        frame = column.to_frame("n")
        frame.llm.prompt("Say {{ n }}", into="said")
        assert frame["said"].tolist()[0] == f"Say {BIG}"


def test_answers_go_back_to_polars_and_pyarrow(oracle: Oracle) -> None:
    """Integers as integers, days as days."""
    oracle.answers = {"a": {"id": BIG, "d": "2026-01-02"}}
    found = lm.extract(pl.Series(["a", None]), "id int, d date")
    back = pl.from_pandas(found)
    assert back["id"].to_list() == [BIG, None]
    assert back.schema["id"] == pl.Int64
    assert back.schema["d"].is_temporal()
    assert pa.Table.from_pandas(found)["id"].to_pylist() == [BIG, None]


def test_rows_that_are_chosen_keep_their_types() -> None:
    """By `nearest` and `dedupe`."""
    lm.config.embedding_model = "echo/echo"
    frame = pd.DataFrame({"text": ["a", "b"], "id": pd.array([BIG, None], dtype="Int64")})
    frame.llm.embed("text")
    for chosen in (frame.llm.nearest("a", k=2), frame.llm.dedupe()):
        assert str(chosen["id"].dtype) == "Int64"
        assert BIG in chosen["id"].dropna().tolist()


@pytest.mark.parametrize(
    "text",
    [
        f"```csv\nid,code,x\n{BIG},00123,1.5\n{BIGGER},007,\n,,2\n```",
        f"```tsv\nid\tcode\tx\n{BIG}\t00123\t1.5\n{BIGGER}\t007\t\n\t\t2\n```",
        f"|id|code|x|\n|-|-|-|\n|{BIG}|00123|1.5|\n|{BIGGER}|007||\n|||2|",
        f'[{{"id": {BIG}, "code": "00123", "x": 1.5}}, {{"id": {BIGGER}, "code": "007"}}, {{"x": 2}}]',
        f'{{"id": [{BIG}, {BIGGER}, null], "code": ["00123", "007", null], "x": [1.5, null, 2]}}',
    ],
    ids=["csv", "tsv", "markdown", "records", "columns"],
)
def test_tables_in_answers_keep_digits_and_zeros(text: str) -> None:
    """However the table is written; numbers stay numbers."""
    frame = parse_table(text)
    assert str(frame["id"].dtype) == "Int64"
    assert frame["id"].tolist()[:2] == [BIG, BIGGER]
    assert frame["code"].tolist()[:2] == ["00123", "007"]
    assert frame["x"].tolist()[::2] == [1.5, 2]


def test_tables_beyond_64_bits() -> None:
    """Exact, as Python's own integers or as they are written."""
    assert parse_table(f"```csv\nid\n{BEYOND}\n1\n```")["id"].tolist() == [BEYOND, 1]
    assert parse_table(f'[{{"id": {BEYOND}}}, {{"id": null}}]')["id"].tolist() == [BEYOND, None]
    assert parse_table(f"|id|\n|-|\n|{BEYOND}|")["id"].tolist() == [str(BEYOND)]
    assert parse_table(f"```csv\nid\n{BIG}\n0.5\n```")["id"].tolist() == [str(BIG), "0.5"]
    plain = parse_table("```csv\na,b,c,d\n1,1.5,x,true\n2,2.5,y,false\n```")
    assert [dtype.kind for dtype in plain.dtypes][:2] == ["i", "f"]
    assert plain["d"].dtype == bool


def test_tables_shown_to_models_keep_digits() -> None:
    """Whole numbers have all of theirs, and what is missing is empty."""
    frame = pd.DataFrame({"id": pd.array([BIG, None], dtype="Int64"), "n": [1234567.0, None]})
    shown = table_text.format_table(frame)
    assert f"| {BIG} | 1234567 |" in shown
    assert "|  |  |" in shown
