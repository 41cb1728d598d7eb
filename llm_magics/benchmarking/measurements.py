"""`Measurements`: a DataFrame with one row per request and methods to summarize and plot it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from llm_magics._util.tables import CompactFrame
from llm_magics.benchmarking import analysis, evaluation, tool_metrics
from llm_magics.benchmarking import analysis as summaries
from llm_magics.benchmarking import report as reporting
from llm_magics.benchmarking.measure import COLUMN_TYPES
from llm_magics.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from llm_magics.benchmarking.tool_metrics import Tool

# The timestamps of an answer, which are stored but not displayed.
_TIMESTAMP_COLUMNS = ["times_s", "kinds"]
_REQUIRED_COLUMNS = (analysis.MODEL_COLUMN, "prompt", "error")
_SUMMARY_COLUMNS = ("cached", "retries", "cost_usd", "output_tokens")


class Measurements(CompactFrame):
    """
    The result of ``lm.bench`` and ``lm.compare``: a DataFrame with one row per request.

    All pandas methods work, including ``to_parquet`` and ``to_csv``. A selection of rows, such as
    ``runs[runs.asked == "p/m"]``, has the same methods; its throughput is that of its rows. The
    column ``asked`` has the name of the model in the call. To load saved measurements, use
    ``lm.Measurements(pd.read_parquet(…))``. A CSV file loses ``attrs``: the time, machine, versions
    and parameters of the measurement. The columns are described in
    `llm_magics.benchmarking.latencies`.
    """

    def __init__(self, data: Any = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(data, *args, **kwargs)  # type: ignore[call-arg]
        if isinstance(data, pd.DataFrame):  # pandas does not copy attrs
            self.attrs = data.attrs

    @property
    def _constructor(self) -> Callable[..., Measurements]:
        return Measurements

    @classmethod
    def of(
        cls,
        rows: Iterable[Mapping[str, Any]],
        about: Mapping[str, Any],
        before: Iterable[Mapping[str, Any]] = (),
    ) -> Measurements:
        """Return the measurements of ``rows``; ``before`` has the rows of the warm-up."""
        frame = cls(list(rows))
        frame = frame[
            [name for name in frame if name not in _TIMESTAMP_COLUMNS]
            + [name for name in _TIMESTAMP_COLUMNS if name in frame]
        ]
        types = {name: kind for name, kind in COLUMN_TYPES.items() if name in frame}
        frame = frame.astype(types)
        empty = [
            name for name in ("rate", "concurrency") if name in frame and frame[name].isna().all()
        ]
        frame = frame.drop(columns=empty)
        frame.attrs.update(about)
        frame.attrs["warm_up"] = [_without_timestamps(row) for row in before]
        return frame

    @property
    def frame(self) -> pd.DataFrame:
        """The measurements as a plain DataFrame."""
        return pd.DataFrame(self)

    @property
    def warm_up(self) -> pd.DataFrame:
        """The warm-up requests, which are not counted."""
        return pd.DataFrame(self.attrs.get("warm_up", []))

    def summary(self, confidence: float = 0.95) -> pd.DataFrame:
        """
        Return one row per model, and per load if there are several.

        Scores have their mean and its interval (Wilson's for scores of 0 and 1, otherwise a
        bootstrap over prompts). Times have their median, its interval (``_low``, ``_high``, by
        bootstrap), and the 90th and 99th percentile (for tokens/s the 10th and 1st). Failed
        requests are counted in ``failed``, and answers from a cache or a recording in
        ``cached``; neither have times. ``client_cpu`` is the CPU use of this process, as a
        share of one core: near 1, this process limits the result. With fewer than 100 requests
        the 99th percentile is close to the maximum.

        Raises:
            UsageError: scipy, which computes the intervals, is not installed.
        """
        return summaries.summary(
            self._checked_frame(*_SUMMARY_COLUMNS), check_confidence(confidence)
        )

    def differences(
        self, by: str | None = None, *, baseline: str | None = None, confidence: float = 0.95
    ) -> pd.DataFrame:
        """
        Compare each pair of models over the same prompts.

        Args:
            by: a score or a measurement (``exact``, ``e2e_s``); by default the first score,
                otherwise ``e2e_s``. A failed request scores 0 and has no time.
            baseline: compare this model with all others; by default every pair is compared.
            confidence: confidence level of the interval and of the verdict.

        Returns:
            one row per pair, and per load if there are several: ``n`` common prompts (for
            times: requests), both means, the ``difference`` (other minus model) with its
            interval (paired bootstrap), the test (McNemar if all values are 0 or 1, otherwise
            Wilcoxon) with ``p`` and ``p_corrected`` (Holm), the number of prompts ``n_needed``
            for a power of 80 %, and a ``verdict`` in words.

        Raises:
            UsageError: the measurement or the model is unknown, or scipy is not installed.
        """
        return analysis.differences(
            self._checked_frame(), by, baseline, check_confidence(confidence)
        )

    def wins(self, by: str | None = None) -> pd.DataFrame:
        """
        Return the share of prompts on which the row's model beats the column's model.

        A tie counts as half.
        """
        return analysis.win_matrix(self._checked_frame(), by)

    def scored(self, score: Any, expected: Any = None, *, yes: bool = False) -> Measurements:
        """
        Return the measurements with a column ``score_…`` per score.

        Args:
            score: see `llm_magics.benchmarking.scorers`.
            expected: the expected answers: one for all, one per prompt in the same order, or a
                mapping from prompts; by default the column ``expected``.
            yes: do not ask for confirmation of the cost of a judge.
        """
        frame = self._checked_frame("text")
        known = expected if expected is not None else frame.get("expected")
        evaluation.check_scorers(score, known, frame[analysis.MODEL_COLUMN].nunique())
        scored = self.copy()
        evaluation.add_scores(scored, score, expected, yes=yes)
        return scored

    def as_measured_by(self, tool: Tool) -> pd.DataFrame:
        """
        Return the metrics that another tool would report for the same timestamps.

        The result has one row per model and load, with the column names of that tool: ``vllm``,
        ``guidellm`` or ``aiperf``.
        """
        return tool_metrics.report_as(self._checked_frame(*_TIMESTAMP_COLUMNS), tool)

    def metrics(self) -> dict[str, float]:
        """Return all numbers of the summary by ``model/metric``, for ``mlflow.log_metrics``."""
        return reporting.metrics(self.summary())

    def report(self, path: Any = None) -> str:
        """
        Return a report in Markdown: results, differences, method and environment.

        Args:
            path: a file to write the report to.
        """
        text = reporting.report(
            self._checked_frame(), self.summary(), self.attrs, self.differences
        )
        if path is not None:
            reporting.write_report(text, path)
        return text

    def plot_load(self) -> Figure:
        """Plot time to first token and throughput against the load."""
        from llm_magics.benchmarking import plots

        return plots.load(self.summary())

    def plot_latency(self, by: str = "e2e_s") -> Figure:
        """Plot the distribution of a measurement: the share of requests at or below each value."""
        from llm_magics.benchmarking import plots

        return plots.latency(self._checked_frame(), by)

    def plot_frontier(self, quality: str | None = None, cost: str | None = None) -> Figure:
        """
        Plot quality against cost, with the frontier: the models that no other model dominates.

        Args:
            quality: a score, by default the first.
            cost: a measurement; by default ``cost_usd`` if it is known, otherwise ``e2e_s``.
        """
        from llm_magics.benchmarking import plots

        return plots.frontier(self._checked_frame(), quality, cost)

    def plot_wins(self, by: str | None = None) -> Figure:
        """Plot how often each model beats each other model."""
        from llm_magics.benchmarking import plots

        return plots.wins(self.wins(by), analysis.column_to_compare(self._checked_frame(), by))

    def _checked_frame(self, *more: str) -> pd.DataFrame:
        """Return the measurements as a plain DataFrame, after a check that the columns exist."""
        if not len(self):
            msg = "The selection has no measurements."
            hint = "Check the selection; the column asked holds the models as they were named."
            raise UsageError(msg, hint=hint)
        missing = [name for name in (*_REQUIRED_COLUMNS, *more) if name not in self]
        if missing:
            msg = f"The column {missing[0]} is missing."
            raise UsageError(
                msg, hint="Use the result of lm.bench or lm.compare with all of its columns."
            )
        return self.frame

    def _displayed_columns(self) -> tuple[str, ...]:
        scores = analysis.score_columns(self)
        loads = analysis.varying_loads(self)
        content = () if "run" in self else ("prompt", "text")  # a benchmark repeats its prompts
        times = ("ttft_s", "itl_ms", "e2e_s") if "run" in self else ("e2e_s", "output_tokens")
        rest = ("tokens_per_s", "cost_usd", "finish_reason", "error")
        return (analysis.MODEL_COLUMN, *loads, *content, *scores, *times, *rest)


def _without_timestamps(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without its timestamps, to be stored as JSON in the attributes of a frame."""
    return {name: value for name, value in row.items() if name not in _TIMESTAMP_COLUMNS}


def check_confidence(confidence: Any) -> float:
    """
    Return a confidence level as a float.

    Raises:
        UsageError: it is not a number between 0 and 1.
    """
    is_number = isinstance(confidence, int | float) and not isinstance(confidence, bool)
    if not is_number or not 0 < confidence < 1:
        msg = f"Invalid confidence: {confidence!r:.60}."
        raise UsageError(msg, hint="Pass a number between 0 and 1, such as 0.95.")
    return float(confidence)
