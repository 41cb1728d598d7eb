"""Measurements as a DataFrame: one row a request, with what one wants to know of them a call away."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from llm_magics._util import typesetting
from llm_magics._util.terminal import escape_controls
from llm_magics.benchmarking import analysis, evaluation, tool_metrics
from llm_magics.benchmarking import analysis as summaries
from llm_magics.benchmarking import report as reporting
from llm_magics.benchmarking.measure import COLUMN_TYPES
from llm_magics.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from llm_magics.benchmarking.tool_metrics import Tool

# All stamps of an answer: they are kept, and not shown.
_STAMPS = ["times_s", "kinds"]
_NEEDED = ("asked", "prompt", "error")
_SUMMED = ("cached", "retries", "cost_usd", "output_tokens")


class Measurements(pd.DataFrame):
    """
    What ``lm.bench`` and ``lm.compare`` give: a DataFrame with one row a request.

    All of pandas works, ``to_parquet`` and ``to_csv`` included; what is cut out of it
    (``runs[runs.asked == "p/m"]``) can be summed up like the whole; ``asked`` is a model as it
    was named. Throughput is that of the rows that are there. Read from a file again it is
    ``lm.Measurements(pd.read_parquet(…))``; of CSV ``attrs`` are lost, which tell when, where, with
    what versions and parameters it was measured. The columns are told of in
    `llm_magics.benchmarking.latencies`.
    """

    def __init__(self, data: Any = None, *args: Any, **given: Any) -> None:
        super().__init__(data, *args, **given)  # type: ignore[call-arg]
        if isinstance(data, pd.DataFrame):  # pandas leaves behind what was noted with it
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
        """Made of ``rows``; ``before`` are those of the warm-up, which do not count."""
        made = cls(list(rows))
        made = made[
            [name for name in made if name not in _STAMPS]
            + [name for name in _STAMPS if name in made]
        ]
        types = {name: kind for name, kind in COLUMN_TYPES.items() if name in made}
        made = made.astype(types)
        empty = [
            name for name in ("rate", "concurrency") if name in made and made[name].isna().all()
        ]
        made = made.drop(columns=empty)
        made.attrs.update(about)
        made.attrs["warm_up"] = [_plain(row) for row in before]
        return made

    @property
    def frame(self) -> pd.DataFrame:
        """The same as a plain DataFrame."""
        return pd.DataFrame(self)

    @property
    def warm_up(self) -> pd.DataFrame:
        """The requests before those that count."""
        return pd.DataFrame(self.attrs.get("warm_up", []))

    def summary(self, confidence: float = 0.95) -> pd.DataFrame:
        """
        One row a model, and a load where there were several.

        Of scores the mean with its interval (of right and wrong Wilson's, else by bootstrap over
        prompts). Of times the median, its interval (``_low``, ``_high``, by bootstrap), and the
        90th and 99th percentile (of tokens/s the 10th and 1st). Requests that failed are counted in
        ``failed`` and have no times; those from a cache or a recording, in ``cached``, neither.
        ``client_cpu`` is the share of one core that this process was busy: near 1 it was
        measured itself, and not the service. Of fewer than 100 requests a 99th percentile is
        little more than the slowest.
        """
        return summaries.summary(self._whole(*_SUMMED), _share(confidence))

    def differences(
        self, by: str | None = None, *, baseline: str | None = None, confidence: float = 0.95
    ) -> pd.DataFrame:
        """
        Which model is better, pair by pair, over the same prompts.

        Args:
            by: a score or a measurement (``exact``, ``e2e_s``); the first score if not given,
                else ``e2e_s``. An answer that failed scores 0, and has no time.
            baseline: compare all others with this model only.
            confidence: of the interval, and of the verdict.

        Returns:
            For each pair, and each load where there are several: ``n`` prompts in common (of
            times: requests), both means, the ``difference`` (other less model) with its interval by paired bootstrap, the test
            (McNemar where all is 0 or 1, else Wilcoxon) with its ``p`` and the one corrected
            for the number of pairs (Holm), how many prompts would be ``n_needed`` to tell
            (power 80 %), and a ``verdict`` in words.

        Raises:
            UsageError: there is no such measurement or model; scipy is not installed.
        """
        return analysis.differences(self._whole(), by, baseline, _share(confidence))

    def wins(self, by: str | None = None) -> pd.DataFrame:
        """The share of prompts on which the row's model beats the column's; a tie is half."""
        return analysis.win_matrix(self._whole(), by)

    def scored(self, score: Any, expected: Any = None, *, yes: bool = False) -> Measurements:
        """
        The same with a column ``score_…`` for each score.

        Args:
            score: see `llm_magics.benchmarking.scorers`.
            expected: what is right: one for all, one a prompt in their order, or by prompt;
                the column ``expected`` if not given.
            yes: do not ask about what a judge costs.
        """
        frame = self._whole("text")
        known = expected if expected is not None else frame.get("expected")
        evaluation.check(score, known, frame["asked"].nunique())
        made = self.copy()
        evaluation.add_scores(made, score, expected, yes=yes)
        return made

    def as_measured_by(self, tool: Tool) -> pd.DataFrame:
        """
        What another tool would report of the same stamps: ``vllm``, ``guidellm`` or ``aiperf``.

        One row a model and load, its columns named as that tool names them.
        """
        return tool_metrics.reported(self._whole(*_STAMPS), tool)

    def metrics(self) -> dict[str, float]:
        """All numbers of the summary by ``model/figure``, as ``mlflow.log_metrics`` takes them."""
        return reporting.metrics(self.summary())

    def report(self, path: Any = None) -> str:
        """
        A report in Markdown: figures, differences, how and where they were measured.

        Args:
            path: a file to write it to.
        """
        text = reporting.report(self._whole(), self.summary(), self.attrs, self.differences)
        if path is not None:
            reporting.write(text, path)
        return text

    def plot_load(self) -> Figure:
        """Time to first token, and tokens a second, over the load."""
        from llm_magics.benchmarking import plots

        return plots.load(self.summary())

    def plot_latency(self, by: str = "e2e_s") -> Figure:
        """How a measurement is spread: the share of requests at or below each value."""
        from llm_magics.benchmarking import plots

        return plots.latency(self._whole(), by)

    def plot_frontier(self, quality: str | None = None, cost: str | None = None) -> Figure:
        """
        Quality against cost; on the frontier are those that no other beats in both.

        Args:
            quality: a score, the first if not given.
            cost: ``cost_usd`` if it is known, else ``e2e_s``, or another measurement.
        """
        from llm_magics.benchmarking import plots

        return plots.frontier(self._whole(), quality, cost)

    def plot_wins(self, by: str | None = None) -> Figure:
        """Which model beats which, and how often."""
        from llm_magics.benchmarking import plots

        return plots.wins(self.wins(by), analysis.column_to_compare(self._whole(), by))

    def _whole(self, *more: str) -> pd.DataFrame:
        """What all figures are made of; or an error that says what is missing."""
        if not len(self):
            msg = "There are no measurements in it."
            hint = "Measure some; of one model they are runs[runs.asked == 'provider/name']."
            raise UsageError(msg, hint=hint)
        missing = [name for name in (*_NEEDED, *more) if name not in self]
        if missing:
            msg = f"The column {missing[0]} is missing."
            raise UsageError(msg, hint="Take what lm.bench or lm.compare gave, with its columns.")
        return self.frame

    def _repr_html_(self) -> str | None:
        html = self._shown()._repr_html_()  # type: ignore[operator]
        return None if html is None else typesetting.sanitize_table(escape_controls(html))

    def __repr__(self) -> str:
        return escape_controls(repr(self._shown()))

    def _shown(self) -> pd.DataFrame:
        return self.frame.drop(columns=[name for name in _STAMPS if name in self])


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """What of a row can be kept as JSON beside a frame."""
    return {name: value for name, value in row.items() if name not in _STAMPS}


def _share(confidence: Any) -> float:
    is_number = isinstance(confidence, int | float) and not isinstance(confidence, bool)
    if not is_number or not 0 < confidence < 1:
        msg = f"confidence cannot be {confidence!r:.60}."
        raise UsageError(msg, hint="Give it a share below 1, like 0.95.")
    return float(confidence)
