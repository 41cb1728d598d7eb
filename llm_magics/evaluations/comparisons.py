"""Comparison of two runs over the same items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from llm_magics._util.text import display_name, pluralize
from llm_magics.benchmarking import analysis
from llm_magics.benchmarking.analysis import ITEM_COLUMN, MODEL_COLUMN
from llm_magics.errors import UsageError
from llm_magics.host import warn

_MAX_LISTED = 5


@dataclass(frozen=True, kw_only=True)
class Side:
    """
    One of two runs.

    Attributes:
        frame: its rows.
        attrs: its attributes.
        digests: the digests of the items in its rows, by id.
    """

    frame: pd.DataFrame
    attrs: Mapping[Any, Any]
    digests: Mapping[str, str]

    @property
    def models(self) -> list[str]:
        """The models, in the order of the rows."""
        return list(dict.fromkeys(self.frame[MODEL_COLUMN]))


@dataclass(frozen=True, kw_only=True)
class CommonItems:
    """
    The items of two runs.

    Attributes:
        same: the ids of the items that both have.
        changed: the ids of items whose inputs or expected answer differ.
        only_now, only_then: the ids of items that only one run has.
    """

    same: Sequence[str]
    changed: Sequence[str]
    only_now: Sequence[str]
    only_then: Sequence[str]

    @property
    def is_all(self) -> bool:
        """Whether both runs have the same items."""
        return not (self.changed or self.only_now or self.only_then)

    def __str__(self) -> str:
        parts = [
            ("changed", self.changed),
            ("missing in the other run", self.only_now),
            ("missing in this run", self.only_then),
        ]
        return ", ".join(f"{len(ids):,} {what} ({_listed(ids)})" for what, ids in parts if ids)


def _listed(ids: Sequence[str]) -> str:
    names = [display_name(each) for each in ids[:_MAX_LISTED]]
    return ", ".join([*names, *(["…"] if len(ids) > _MAX_LISTED else [])])


def common_items(now: Mapping[str, str], then: Mapping[str, str]) -> CommonItems:
    """Return the items of two runs, from their digests by id."""
    both = [id_ for id_ in now if id_ in then]
    return CommonItems(
        same=[id_ for id_ in both if now[id_] == then[id_]],
        changed=[id_ for id_ in both if now[id_] != then[id_]],
        only_now=[id_ for id_ in now if id_ not in then],
        only_then=[id_ for id_ in then if id_ not in now],
    )


def compare_runs(
    now: Side, then: Side, by: str | None, confidence: float, common: bool
) -> pd.DataFrame:
    """
    Return the differences of two runs, paired by item; see `EvaluationResults.differences`.

    Raises:
        UsageError: their items differ and ``common`` is false, or they have no item or no model
            in common.
    """
    items = common_items(now.digests, then.digests)
    if not items.same:
        msg = "The runs have no items in common."
        raise UsageError(msg, hint="Compare runs of the same evaluation set.")
    if not items.is_all and not common:
        msg = f"The items of the runs differ: {items}."
        hint = f"Pass common=True to compare the {pluralize(len(items.same), 'item')} of both."
        raise UsageError(msg, hint=hint)
    column = analysis.column_to_compare(now.frame, by)
    if column not in then.frame:
        msg = f"The other run has no column {column}."
        raise UsageError(msg, hint="Score it first: other.scored(…)")
    _warn_of_changed_score(column, now, then)
    suffix = f" @ {_label(now.attrs, then.attrs)}"
    pairs = _pairs(now.models, then.models, suffix)
    chosen = set(items.same)
    earlier = then.frame.assign(**{MODEL_COLUMN: then.frame[MODEL_COLUMN] + suffix})
    frame = pd.concat(
        [part[part[ITEM_COLUMN].isin(chosen)] for part in (earlier, now.frame)], ignore_index=True
    )
    result = analysis.differences(frame, by, None, confidence, pairs=pairs)
    result.attrs["items"] = {
        "compared": len(items.same),
        "changed": list(items.changed),
        "only_now": list(items.only_now),
        "only_then": list(items.only_then),
    }
    return result


def _label(now: Mapping[Any, Any], then: Mapping[Any, Any]) -> str:
    """Return what distinguishes the other run: its name, or its id if both have the same name."""
    name = then.get("name")
    own = name if name != now.get("name") else None
    return str(own or then.get("id") or then.get("time") or "other run")


def _pairs(now: Sequence[str], then: Sequence[str], suffix: str) -> list[tuple[str, str]]:
    """Return the models to compare: those of the same name, or the only ones of both runs."""
    pairs = [(f"{model}{suffix}", model) for model in now if model in then]
    if not pairs and len(now) == len(then) == 1:
        pairs = [(f"{then[0]}{suffix}", now[0])]
    if not pairs:
        msg = f"The runs have no model in common: {', '.join(now)}; {', '.join(then)}."
        hint = 'Select one model of each: runs[runs.asked == "p/m"]'
        raise UsageError(msg, hint=hint)
    return pairs


def _warn_of_changed_score(column: str, now: Side, then: Side) -> None:
    name = column.removeprefix(analysis.SCORE_PREFIX)
    codes = [side.attrs.get("scores", {}).get(name) for side in (now, then)]
    if None not in codes and codes[0] != codes[1]:
        msg = (
            f"The runs were scored by different versions of {name}."
            " Score both again with .scored(…) to compare like with like."
        )
        warn(msg)
