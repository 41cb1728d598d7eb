"""The totals of each day and model, from which costs are added up."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magics.runtime.history import queries, retention, schema
from llm_magics.runtime.history.database import delete_all, insert_entries, open_history, reading
from llm_magics.runtime.history.retention import Limits

NOW = datetime(2026, 3, 20, tzinfo=UTC)

# The totals as a scan over all runs finds them.
SCAN = """
SELECT substr(time, 1, 10) AS day, model, count(*), sum(input_tokens), sum(output_tokens),
    sum(cost_usd), sum(cost_usd IS NULL)
FROM runs GROUP BY 1, 2 ORDER BY 1, 2
"""


def entry(number: int, **fields: Any) -> dict[str, Any]:
    """An entry with an id, a time and a model."""
    moment = f"{NOW:%Y-%m-%d %H:%M:%S.%f}"
    return {"id": f"{number:021x}", "time": moment, "model": "lab/big", **fields}


def totals(path: Path) -> list[tuple[Any, ...]]:
    """The stored totals, by day and model."""
    with reading(path) as connection:
        return connection.execute("SELECT * FROM days ORDER BY 1, 2").fetchall()


def scanned(path: Path) -> list[tuple[Any, ...]]:
    """The totals of all runs, by day and model."""
    with reading(path) as connection:
        return [
            tuple(pytest.approx(each) if isinstance(each, float) else each for each in row)
            for row in connection.execute(SCAN)
        ]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file for all examples, each of which empties it first."""
    return tmp_path_factory.mktemp("totals") / "history.sqlite"


RUNS = st.fixed_dictionaries(
    {
        "days": st.integers(0, 40),
        "model": st.sampled_from(["lab/big", "lab/small", "other/b"]),
        "input_tokens": st.none() | st.integers(0, 10**9),
        "output_tokens": st.none() | st.integers(0, 10**6),
        "cost_usd": st.none() | st.floats(0, 1_000) | st.sampled_from([0.1, 2e-8, 0.0]),
    }
)
STEPS = st.lists(
    st.tuples(st.just("add"), st.lists(RUNS, max_size=6))
    | st.tuples(st.just("forget"), st.lists(st.integers(0, 30), max_size=6))
    | st.tuples(st.just("age"), st.integers(0, 40)),
    max_size=8,
)


def apply(connection: sqlite3.Connection, steps: Sequence[tuple[str, Any]]) -> None:
    """Add and delete runs."""
    count = 0
    for kind, what in steps:
        if kind == "add":
            entries = []
            for run in what:
                moment = NOW - timedelta(days=run["days"], seconds=count)
                entries.append(entry(count, **{**run, "time": f"{moment:%Y-%m-%d %H:%M:%S.%f}"}))
                count += 1
            insert_entries(connection, entries)
            insert_entries(connection, entries)  # they are known, and not counted again
        elif kind == "forget":
            retention._forget(connection, [f"{number:021x}" for number in what])
        else:
            retention.enforce(connection, Limits(10**10, what), NOW.timestamp())


@given(steps=STEPS)
def test_totals_are_those_of_the_runs(path: Path, steps: list[tuple[str, Any]]) -> None:
    """After any sequence of calls, deletions on request and deletions by age."""
    with closing(open_history(path)) as connection:
        delete_all(connection)
        apply(connection, steps)
        assert totals(path) == scanned(path)
        retention.enforce(connection, Limits(10**10, 0), NOW.timestamp() + 1)
        assert totals(path) == []


@pytest.fixture
def old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file of the first version, without totals, which is open in a kernel."""
    path = tmp_path / "history.sqlite"
    with monkeypatch.context() as patch:
        patch.delitem(schema.MIGRATIONS, 1)
        kernel = open_history(path)
    fields = [{"cost_usd": 0.1, "input_tokens": 3}, {"model": "lab/small"}, {"cost_usd": 0.2}]
    insert_entries(kernel, [entry(number, **each) for number, each in enumerate(fields)])
    with closing(kernel):
        yield path
        insert_entries(kernel, [entry(100, cost_usd=0.3), entry(101, model="lab/tiny")])
        assert totals(path) == scanned(path)
        assert len(totals(path)) == 3


def test_a_file_without_totals_gets_them(old_file: Path) -> None:
    """From its runs, when it is read; a kernel that has it open adds to them from then on."""
    found = queries.cost(old_file, "by model").set_index("model")
    assert found.loc["lab/big", ["calls", "unpriced"]].tolist() == [2, 0]
    assert found.loc["lab/big", "cost_usd"] == pytest.approx(0.3)
    assert found.loc["lab/small", ["calls", "unpriced"]].tolist() == [1, 1]
    assert totals(old_file) == scanned(old_file)


def test_costs_of_a_period_are_those_of_its_days(path: Path) -> None:
    """A week ends today; months are of the calendar; days are in UTC."""
    now = datetime.now(UTC)
    with closing(open_history(path)) as connection:
        delete_all(connection)
        moments = [now, now - timedelta(days=5), now - timedelta(days=8), now - timedelta(days=70)]
        insert_entries(
            connection,
            [
                entry(number, time=f"{moment:%Y-%m-%d %H:%M:%S.%f}", cost_usd=1.0)
                for number, moment in enumerate(moments)
            ],
        )
    assert queries.cost(path, "week")["day"].tolist() == [
        f"{moment:%Y-%m-%d}" for moment in reversed(moments[:2])
    ]
    assert queries.cost(path, "month")["cost_usd"].sum() == 3
    months = queries.cost(path, "by month").groupby("month")["calls"].sum()
    assert months.to_dict() == {
        month: sum(f"{each:%Y-%m}" == month for each in moments)
        for month in {f"{each:%Y-%m}" for each in moments}
    }
    assert queries.cost(path, "by model")["calls"].tolist() == [4]


def test_deleting_all_deletes_the_totals(path: Path) -> None:
    """No name of a model stays."""
    with closing(open_history(path)) as connection:
        insert_entries(connection, [entry(number) for number in range(3)])
        delete_all(connection)
    assert totals(path) == []
