"""`EvaluationResults`: the answers to the items of an evaluation set, with their scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from llm_magics._util.filesystem import display_path
from llm_magics._util.tables import display_columns
from llm_magics._util.text import reason_of
from llm_magics._util.validation import check_integer
from llm_magics.benchmarking import analysis, evaluation
from llm_magics.benchmarking.analysis import CLUSTER_COLUMN, ITEM_COLUMN, MODEL_COLUMN
from llm_magics.benchmarking.measurements import Measurements, check_confidence
from llm_magics.errors import UsageError
from llm_magics.evaluations import comparisons
from llm_magics.evaluations.code_digests import score_digests
from llm_magics.evaluations.datasets import EvaluationSet
from llm_magics.evaluations.run_files import RunFile, read_run, write_run

# Attributes of a run that its rows give again.
_WITHOUT = ("warm_up",)
# Why a run with all answers is incomplete.
WHILE_SCORING = "while scoring"
# The first columns, before the scores.
_FIRST = (ITEM_COLUMN, MODEL_COLUMN, "repeat", "prompt", "expected", CLUSTER_COLUMN, "text")


class EvaluationResults(Measurements):
    """
    The result of ``lm.evaluate``: a DataFrame with one row per item, model and repeat.

    The columns ``item``, ``asked`` (the model as named in the call) and ``repeat`` identify a row;
    ``prompt``, ``expected``, ``text`` and the ``score_…`` of the answer follow, and then the columns
    of `Measurements`. A failed request has an ``error`` and scores 0. An answer that could not be
    scored has no score (NaN), and does not count in means.

    ``attrs`` describes the run: its ``name``, ``id``, ``time``, ``task``, ``digest`` of the data,
    ``models`` and ``parameters``; ``stopped`` if it is incomplete.
    """

    _metadata = ["_preferred", "_set", "_stored_digests"]  # noqa: RUF012 (pandas expects a list)
    _set: EvaluationSet | None = None
    _stored_digests: Mapping[str, str] | None = None  # before keys were masked in the file

    @property
    def _constructor(self) -> Callable[..., EvaluationResults]:
        return EvaluationResults

    @property
    def data(self) -> EvaluationSet:
        """
        The evaluation set of the run; ``data.frame`` has its inputs and labels.

        Raises:
            UsageError: the results were read from a file of pandas, which does not have them.
        """
        if self._set is None:
            msg = "These results do not have their items."
            raise UsageError(msg, hint="Load them with lm.load_evaluation(…).")
        return self._set

    def differences(
        self,
        by: str | None = None,
        *,
        other: EvaluationResults | str | Path | None = None,
        baseline: str | None = None,
        common: bool = False,
        confidence: float = 0.95,
    ) -> pd.DataFrame:
        """
        Compare the models with each other, or with another run over the same items.

        Values are paired by item, and repeats of an item are averaged first.

        Args:
            by: a score or a measurement (``exact``, ``e2e_s``); by default the first score.
            other: the run to compare with: results, the path of a file, the id or name of a
                stored run, or ``"previous"``, the last stored run before this one with its name.
                By default, models are compared with each other; the only model of a run, with
                the previous run.
            baseline: compare this model with all others of this run.
            common: compare the items that both runs have, although others are missing or have
                changed.
            confidence: confidence level of the intervals and of the verdict.

        Returns:
            one row per pair, as for `Measurements.differences`. With ``other``, ``model`` is the
            other run (``MODEL @ NAME``, with its id if both have the same name), so that a positive
            difference means higher values in this run; ``attrs["items"]`` has the items that are
            compared, missing and changed.

        Raises:
            UsageError: the items of the runs differ, they have no common model, the run is not
                stored, or scipy is not installed.
        """
        frame = self._checked_frame()
        if other is None and baseline is None and len(set(frame[MODEL_COLUMN])) == 1:
            other = "previous"
        if other is None:
            return super().differences(by, baseline=baseline, confidence=confidence)
        if baseline is not None:
            msg = "baseline is a model of this run, and other is another run."
            raise UsageError(msg, hint="Pass only one of them.")
        return comparisons.compare_runs(
            self._side(), _find(self, other)._side(), by, check_confidence(confidence), common
        )

    def _side(self) -> comparisons.Side:
        return comparisons.Side(
            frame=self._checked_frame(), attrs=self.attrs, digests=self._digests()
        )

    def _digests(self) -> dict[str, str]:
        """Return the digests of the items in the rows, by id."""
        asked, known = set(self[ITEM_COLUMN]), self._stored_digests or {}
        return {
            item.id: known.get(item.id) or item.digest for item in self.data if item.id in asked
        }

    def item_scores(self, by: str | None = None) -> pd.DataFrame:
        """
        Return the mean of a score for each item, with a column for each model.

        Args:
            by: a score or a measurement; by default the first score.

        Raises:
            UsageError: the results have no score.
        """
        frame = self._checked_frame()
        if by is None and not analysis.score_columns(frame):
            msg = "These results have no score."
            raise UsageError(msg, hint="Add one: runs.scored(…), or name a measurement.")
        table = analysis.pivot_by_model(frame, analysis.column_to_compare(frame, by))
        table = table.reindex(list(dict.fromkeys(frame[ITEM_COLUMN])))
        table.index.name, table.columns.name = ITEM_COLUMN, None
        return table

    def failures(self, n: int = 20, by: str | None = None) -> pd.DataFrame:
        """
        Return the answers with the lowest scores, at most ``n``; errors come first.

        Args:
            n: the maximum number of rows.
            by: the score, by default the first; without scores, only errors are returned.
        """
        count = check_integer("n", n)
        frame = self._checked_frame()
        scores = analysis.score_columns(frame)
        names = [
            ITEM_COLUMN,
            MODEL_COLUMN,
            "repeat",
            "prompt",
            "expected",
            "text",
            *scores,
            "error",
        ]
        failed = frame["error"].notna()
        if scores:
            column = analysis.column_to_compare(frame, by)
            values = pd.to_numeric(frame[column])
            chosen = frame[failed | (values < values.max()) | (values == 0)]
            order = values[chosen.index].where(~failed[chosen.index], -float("inf"))
            chosen = chosen.loc[order.sort_values(kind="stable").index]
        else:
            chosen = frame[failed]
        known = [name for name in names if name in frame]
        return display_columns(chosen[known].head(count), *known)

    def scored(self, score: Any, expected: Any = None, *, yes: bool = False) -> EvaluationResults:
        """
        Return the results with a column ``score_…`` per score; the answers are not asked again.

        Args:
            score: as for ``lm.evaluate``.
            expected: the expected answers: one for all, or a mapping from prompts; by default
                those of the data.
            yes: do not ask for confirmation of the cost of a judge.
        """
        frame = self._checked_frame("text")
        known = expected if expected is not None else frame.get("expected")
        evaluation.check_scorers(score, known, frame[MODEL_COLUMN].nunique())
        scored = self.copy()
        scored.attrs["scores"] = {**self.attrs.get("scores", {}), **score_digests(score)}
        add_scores(scored, score, expected, yes=yes)
        if scored.attrs.get("stopped") == WHILE_SCORING:
            del scored.attrs["stopped"]
        return scored

    def save(self, path: str | Path) -> None:
        """
        Write the results and their items to a file of JSON lines, for ``lm.load_evaluation``.

        Only the user can read the file.

        Raises:
            UsageError: it cannot be written, or a column has values that JSON cannot store.
        """
        try:
            write_run(Path(path), self.to_file())
        except OSError as error:
            msg = f"Could not write {display_path(Path(path))}: {reason_of(error)}."
            raise UsageError(msg, hint="Use another path.") from None

    def to_file(self) -> RunFile:
        """Return the contents of a file of these results."""
        about = {str(name): value for name, value in self.attrs.items() if name not in _WITHOUT}
        return RunFile(
            about=about,
            scores=self._mean_scores(),
            items=[item.record for item in self.data],
            digests={item.id: item.digest for item in self.data}
            | dict(self._stored_digests or {}),
            rows=pd.DataFrame(self).to_dict("records"),  # type: ignore[arg-type]
        )

    def _mean_scores(self) -> list[dict[str, Any]]:
        """Return the mean scores of each model, as `summary` has them, without intervals."""
        frame = pd.DataFrame(self)
        return [
            {
                "model": model,
                **{
                    name: analysis.mean_of_known(group.groupby(ITEM_COLUMN)[name].mean())
                    for name in analysis.score_columns(frame)
                },
            }
            for model, group in frame.groupby(MODEL_COLUMN, sort=False)
        ]

    @classmethod
    def load(cls, path: str | Path) -> EvaluationResults:
        """
        Read results that `save` has written.

        Raises:
            UsageError: the file cannot be read, or does not contain an evaluation.
        """
        return cls.of_file(read_run(Path(path)))

    @classmethod
    def of_file(cls, run: RunFile) -> EvaluationResults:
        """
        Return the results in a file.

        Raises:
            UsageError: items of its answers are missing.
        """
        known = {str(item.get("id")) for item in run.items}
        if not known or any(str(row.get("item")) not in known for row in run.rows):
            msg = "The file of the evaluation is damaged: items of its answers are missing."
            raise UsageError(msg, hint="Run the evaluation again.")
        results = cls.of_rows(run.rows, run.about, EvaluationSet(list(run.items)))
        results._stored_digests = run.digests
        return results

    @classmethod
    def of_rows(cls, rows: Any, about: Any, data: EvaluationSet) -> EvaluationResults:
        """Return results with the attributes ``about``."""
        results = cls.of(rows, about)
        assert isinstance(results, EvaluationResults)
        known = [str(name) for name in results]
        first = [*_FIRST, *analysis.score_columns(results)]
        first = [name for name in first if name in known]
        results = results[[*first, *(name for name in known if name not in first)]]
        results._set = data
        for name in analysis.score_columns(results):
            results[name] = pd.to_numeric(results[name]).astype("float64")
        return results

    def _displayed_columns(self) -> tuple[str, ...]:
        scores = analysis.score_columns(self)
        return (ITEM_COLUMN, MODEL_COLUMN, "prompt", "expected", "text", *scores, "cost_usd", "error")  # fmt: skip


def add_scores(
    results: EvaluationResults, score: Any, expected: Any = None, *, yes: bool = False
) -> None:
    """Insert the columns ``score_…``; scorers that read rows get those of the items."""

    def read_rows(frame: pd.DataFrame) -> list[pd.Series[Any]]:
        rows = {item.id: item.series for item in results.data}
        return [rows[id_] for id_ in frame[ITEM_COLUMN]]

    evaluation.add_scores(results, score, expected, yes=yes, read_rows=read_rows)


def _find(results: EvaluationResults, other: Any) -> EvaluationResults:
    """
    Return the results that ``other`` names.

    Raises:
        UsageError: they do not exist, or ``other`` is not a run.
    """
    from llm_magics.evaluations import stored

    if isinstance(other, EvaluationResults):
        return other
    if isinstance(other, str | Path):
        is_previous = other == "previous"
        return (
            stored.find_previous(results.attrs) if is_previous else stored.load_evaluation(other)
        )
    msg = f"Invalid value for other: got {type(other).__name__}."
    raise UsageError(msg, hint='Pass results, a path, the id of a stored run, or "previous".')
