"""The report on `aggregate`: the claims with their rows, rows without a claim, and failures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_magics._util.text import pluralize
from llm_magics.dataframes.operators.claim_tree import Group
from llm_magics.dataframes.operators.same_kind import row_labels

if TYPE_CHECKING:
    from pandas import DataFrame, Index


@dataclass(frozen=True, eq=False, kw_only=True)
class AggregateReport:
    """
    The report on an answer for each group of rows.

    Attributes:
        rows: the number of rows of the table.
        missing: the number of rows without a text.
        cut: the labels of the rows whose text was too long for a prompt and was cut.
        calls: the number of prompts that were sent and answered.
        cached: the number of prompts whose answer was stored before.
        cost_usd: the cost in US dollars; ``None`` if unknown.
    """

    rows: int
    missing: int
    cut: list[Any]
    calls: int
    cached: int
    cost_usd: float | None
    _groups: Sequence[Group]
    _keys: DataFrame
    _index: Index[Any]

    @property
    def cited(self) -> int:
        """The number of rows that a claim rests on."""
        return sum(len(group.cited) for group in self._groups)

    @property
    def failed(self) -> int:
        """The number of prompts that failed. The same call sends only these again."""
        return sum(len(group.failures) for group in self._groups)

    @property
    def dropped(self) -> int:
        """The number of claims that were dropped, because they named no row of their prompt."""
        return sum(group.dropped for group in self._groups)

    @property
    def claims(self) -> DataFrame:
        """
        The claims of all groups, those with the most rows first.

        Columns: those of the groups, ``claim``, ``rows`` (the labels of the rows it rests on) and
        ``support`` (their number).
        """
        pairs = [
            (number, claim) for number, group in enumerate(self._groups) for claim in group.claims
        ]
        return self._frame(
            (number for number, _ in pairs),
            claim=[claim.text for _, claim in pairs],
            rows=[self._labels(claim.rows) for _, claim in pairs],
            support=[len(claim.rows) for _, claim in pairs],
        )

    def frame(self) -> DataFrame:
        """Return the claims; see `claims`."""
        return self.claims

    def groups(self) -> DataFrame:
        """
        Return what was found in each group.

        Columns: those of the groups; the numbers of ``rows``, ``claims``, ``cited`` rows, ``failed``
        prompts, ``dropped`` claims (without a row), ``invalid`` citations (of a row or claim that was
        not in the prompt), and claims ``left_out`` of the answer, which were too many for a prompt;
        and ``uncited``, the labels of the rows that no claim rests on.
        """
        groups = self._groups
        uncited = [group.expand(group.rows) - group.cited for group in groups]

        def counts(count: Callable[[Group], int]) -> list[int]:
            return [count(group) for group in groups]

        return self._frame(
            range(len(groups)),
            rows=counts(lambda group: len(group.expand(group.rows))),
            claims=counts(lambda group: len(group.claims)),
            cited=counts(lambda group: len(group.cited)),
            failed=counts(lambda group: len(group.failures)),
            dropped=counts(lambda group: group.dropped),
            invalid=counts(lambda group: group.invalid),
            left_out=counts(lambda group: group.left_out),
            uncited=[self._labels(rows) for rows in uncited],
        )

    def failures(self) -> DataFrame:
        """
        Return the prompts that failed.

        Columns: those of the groups, ``step`` (``extract``, ``merge`` or ``answer``), ``error``, and
        ``rows``, the labels of the rows that the prompt is about.
        """
        pairs = [
            (number, failure)
            for number, group in enumerate(self._groups)
            for failure in group.failures
        ]
        return self._frame(
            (number for number, _ in pairs),
            step=[each.step for _, each in pairs],
            error=[f"{type(each.error).__name__}: {each.error}" for _, each in pairs],
            rows=[self._labels(each.rows) for _, each in pairs],
        )

    def _frame(self, groups: Iterable[int], **columns: list[Any]) -> DataFrame:
        from llm_magics._util.tables import CompactFrame

        keys = self._keys.iloc[list(groups)].reset_index(drop=True)
        values = CompactFrame(columns)
        for place, name in enumerate(keys.columns):
            values.insert(place, name, keys[name], allow_duplicates=True)
        return values

    def _labels(self, rows: Iterable[int]) -> list[Any]:
        return row_labels(self._index, sorted(rows))

    def __str__(self) -> str:
        """Return a summary that is the same in each run: without cache hits and cost."""
        claims = sum(len(group.claims) for group in self._groups)
        parts = [
            pluralize(len(self._groups), "group"),
            pluralize(claims, "claim"),
            f"{self.cited:,} of {pluralize(self.rows, 'row')} cited",
        ]
        parts += [f"{self.failed:,} failed"] if self.failed else []
        parts += [f"{pluralize(self.dropped, 'claim')} dropped"] if self.dropped else []
        parts += [f"{len(self.cut):,} cut"] if self.cut else []
        parts += [f"{self.missing:,} missing"] if self.missing else []
        return " · ".join(parts)

    __repr__ = __str__
