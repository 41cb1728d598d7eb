"""Filtering a Dask DataFrame: decided at once, applied to each partition."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from llm_magics import errors
from llm_magics.dataframes.arrow import arrow_column

dd = pytest.importorskip("dask.dataframe")

from llm_magics.dataframes.dask.filtering import needed_columns  # noqa: E402 (needs Dask)

FRAME = pd.DataFrame(
    {"text": [f"{'yes' if number % 3 else 'no'} {number}" for number in range(30)]},
    index=np.repeat(np.arange(15), 2),
).assign(n=range(30), label=lambda frame: frame["text"].str.startswith("yes"))


@pytest.mark.parametrize("partitions", [1, 4])
def test_each_partition_keeps_its_rows(partitions: int) -> None:
    """In their order, with the report."""
    frame = dd.from_pandas(FRAME, npartitions=partitions)
    kept = frame.llm.filter("{{ text }} is good", oracle="label")
    assert kept.npartitions == frame.npartitions
    assert kept.divisions == frame.divisions
    assert kept.llm.report.kept == 20
    assert frame.llm.report is None
    expected = frame.compute(scheduler="sync")
    pd.testing.assert_frame_equal(kept.compute(scheduler="sync"), expected[expected["label"]])


def test_only_needed_columns_are_computed() -> None:
    """Those of the statement, the oracle, the proxy, and vectors; for a function, all."""
    vectors = arrow_column(np.ones((30, 2), np.float32), FRAME.index, "v")
    frame = dd.from_pandas(FRAME.assign(v=vectors), npartitions=2)
    statement = "{{ text }} is good"
    assert needed_columns(frame, statement, {"proxy": None}) == ["text"]
    assert needed_columns(frame, statement, {"oracle": "label", "proxy": "n"}) == ["text", "n", "label"]  # fmt: skip
    assert needed_columns(frame, statement, {}) == ["text", "v"]
    assert needed_columns(frame, statement, {"oracle": bool}) == ["text", "n", "label", "v"]
    kept = frame.llm.filter(statement, oracle=lambda row: row["n"] > 27)
    assert kept.compute(scheduler="sync")["n"].tolist() == [28, 29]


def test_mistakes_are_raised_at_once() -> None:
    """And not on a worker."""
    frame = dd.from_pandas(FRAME, npartitions=2)
    with pytest.raises(errors.UsageError, match="no such column"):
        frame.llm.filter("{{ txt }}", oracle="label")
    with pytest.raises(errors.UsageError, match="Both oracle and model"):
        frame.llm.filter("{{ text }}", model="m", oracle="label")


def test_arguments_of_an_aggregate_have_their_own_names() -> None:
    """The model is passed on; a mistyped name is refused before anything is computed."""
    frame = dd.from_pandas(FRAME, npartitions=2)
    with pytest.raises(errors.ConfigurationError, match="nothing"):
        frame.llm.aggregate("What?", model="nothing/at-all", on="text")
    with pytest.raises(errors.UsageError, match="Unknown argument: modl"):
        frame.llm.aggregate("What?", modl="nothing/at-all", on="text")
    with pytest.raises(errors.UsageError, match="no argument oracle"):
        frame.llm.aggregate("What?", oracle="label", on="text")
