"""Reports on embedding and prompting: a summary, and the rows whose outcome is not ``ok``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from llm_magics._util.text import display_name, format_usd, pluralize
from llm_magics.dataframes.rows import EMPTY, MISSING, NO_TEXT, Rows
from llm_magics.host import current_host, format_duration
from llm_magics.runtime.embedding.results import FAILED, OUTCOMES, PENDING
from llm_magics.runtime.response import cut_error
from llm_magics.wire.finish_reasons import Outcome

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame, Index

    from llm_magics.runtime.batch import BatchCall
    from llm_magics.runtime.embedding import EmbeddingCall
    from llm_magics.runtime.embedding.results import Throughput
    from llm_magics.runtime.jobs.prompt_jobs import PromptJobs


_MISSING_NAMES = {MISSING: "missing", EMPTY: "empty", NO_TEXT: "no text"}


@dataclass(frozen=True, eq=False, kw_only=True)
class EmbeddingReport:
    """
    The report on embedding some rows.

    Attributes:
        model: the embedding model.
        counts: number of rows by outcome: ``ok``, ``truncated``, ``averaged``, ``failed``,
            ``missing``, ``empty``, ``no text``, ``pending``.
        cached: number of texts whose vectors were cached.
        sent: number of texts that were sent to the provider.
        dimensions: length of the vectors.
        seconds: time from the first request to the last answer.
        cost_usd: cost in US dollars; ``None`` if unknown.
        speed: rows per second and their share of the server's limit; ``None`` if too few texts
            were sent to measure it.
    """

    model: str
    counts: dict[str, int]
    cached: int
    sent: int
    dimensions: int
    seconds: float
    cost_usd: float | None
    speed: Throughput | None
    _rows: Rows
    _call: EmbeddingCall
    _index: Index | None

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self._rows)

    def __str__(self) -> str:
        """Return a summary that is the same in each run: without cache hits, requests and cost."""
        parts = [f"{count:,} {name}" for name, count in self.counts.items() if count]
        if self.dimensions:
            parts.append(f"{self.dimensions} dimensions")
        return " · ".join(
            filter(None, [*(parts or ["0 rows"]), self.model and display_name(self.model)])
        )

    __repr__ = __str__

    def frame(self) -> DataFrame:
        """Return ``outcome``, ``error`` and ``text`` of the rows that are not ``ok``, by index."""
        import pandas as pd

        from llm_magics._util.tables import CompactFrame

        codes, results = self._rows.codes, self._call.results
        outcomes = row_outcomes(self._rows, self._call)
        odd = np.flatnonzero(outcomes != "ok")
        errors = [results.errors.get(int(codes[row])) for row in odd]
        index = self._index if self._index is not None else pd.RangeIndex(len(codes))
        return CompactFrame(
            {
                "outcome": outcomes[odd],
                "error": [error and f"{type(error).__name__}: {error}" for error in errors],
                "text": [self._rows.texts[codes[row]] if codes[row] >= 0 else None for row in odd],
            },
            index=index[odd],
        )


def row_outcomes(rows: Rows, call: EmbeddingCall) -> NDArray[np.str_]:
    """Return the name of the outcome of each row."""
    of_texts = np.asarray(OUTCOMES)[call.results.outcomes]
    outcomes = np.full(len(rows), "", dtype="U9")
    has_text = rows.codes >= 0
    outcomes[has_text] = of_texts[rows.codes[has_text]]
    for code, word in _MISSING_NAMES.items():
        outcomes[rows.codes == code] = word
    return outcomes


def build_report(rows: Rows, call: EmbeddingCall, index: Index | None) -> EmbeddingReport:
    """Return the report on ``call`` for ``rows``."""
    per_text = np.bincount(rows.codes[rows.codes >= 0], minlength=len(rows.texts))
    of_texts = [
        int(per_text[call.results.outcomes == number].sum()) for number in range(len(OUTCOMES))
    ]
    counts = dict(zip(OUTCOMES, of_texts, strict=True))
    counts |= {word: rows.count(code) for code, word in _MISSING_NAMES.items()}
    counts[OUTCOMES[PENDING]] = counts.pop(OUTCOMES[PENDING])  # last, because it is rare
    response = call.response()
    return EmbeddingReport(
        model=response.model,
        counts=counts,
        cached=int(call.results.is_cached.sum()),
        sent=call.sent,
        dimensions=call.results.dimensions,
        seconds=response.timing.e2e_s or 0.0,
        cost_usd=response.cost_usd,
        speed=call.speed,
        _rows=rows,
        _call=call,
        _index=index,
    )


def all_failed(call: EmbeddingCall) -> bool:
    """Whether there was at least one text and all texts failed."""
    outcomes = call.results.outcomes
    return bool(len(outcomes)) and bool((outcomes == FAILED).all())


def sum_known(costs_usd: Iterable[float | None]) -> float | None:
    """Return the sum of costs; ``None`` if one of them is unknown."""
    costs = list(costs_usd)
    known = [usd for usd in costs if usd is not None]
    return sum(known) if len(known) == len(costs) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsEstimate:
    """
    An estimate of a run.

    Attributes:
        rows, prompts: the number of rows, and of prompts to send.
        input_tokens, output_tokens: their estimated tokens.
        cost_usd: their cost in US dollars; ``None`` if prices are unknown.
        seconds: the time; ``None`` if unknown.
        attachments: how attachments would be sent, in words.
        in_jobs: the number of prompts that batch jobs have already.
    """

    rows: int
    prompts: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    seconds: float | None = None
    attachments: str = ""
    in_jobs: int = 0

    def __str__(self) -> str:
        time = "" if self.seconds is None else f" · about {format_duration(self.seconds)}"
        time += f" · attachments: {self.attachments}" if self.attachments else ""
        in_jobs = pluralize(self.in_jobs, "prompt")
        time += f" · {in_jobs} already in batch jobs" if self.in_jobs else ""
        return (
            f"{self.rows:,} rows · {self.prompts:,} prompts to send · about {self.input_tokens:,} tokens, "
            f"and answers of up to {self.output_tokens:,} · cost {format_usd(self.cost_usd)}{time}"
        )

    __repr__ = __str__


@dataclass(frozen=True, eq=False, kw_only=True)
class PromptReport:
    """
    The report on prompts for rows.

    Attributes:
        counts: number of rows by outcome: ``ok``, ``cut`` (at a length limit), ``refused``,
            ``empty`` (an answer without text, or with only thinking), ``failed``, ``missing`` and
            ``pending``. `frame` returns the rows of sent prompts that are not ``ok``.
    """

    counts: dict[str, int]
    _call: BatchCall | PromptJobs
    _codes: NDArray[np.int32]
    _texts: Sequence[str]
    _index: Any

    @property
    def sent(self) -> int:
        """The number of prompts that were sent and answered."""
        return self._call.sent

    @property
    def cached(self) -> int:
        """The number of rows with a cached answer, which is free."""
        is_cached = [self._call.is_cached(number) for number in range(len(self._texts))]
        return self._rows_of(is_cached).size

    @property
    def cost_usd(self) -> float | None:
        """The cost in US dollars; ``None`` if the cost of an answer is unknown."""
        return self._call.cost_usd

    def _rows_of(self, is_chosen: Sequence[bool]) -> NDArray[np.intp]:
        """Return the rows whose distinct prompts are chosen."""
        # The last one is for rows without a prompt, whose code is -1.
        return np.flatnonzero(np.array([*is_chosen, False], np.bool_)[self._codes])

    def __str__(self) -> str:
        return " · ".join(f"{count:,} {name}" for name, count in self.counts.items() if count)

    __repr__ = __str__

    def frame(self) -> DataFrame:
        """
        Return the rows whose prompt was sent and that are not ``ok``, by index.

        Columns: ``error``, ``prompt``, ``outcome`` (as in ``counts``) and ``text``, the answer or
        the part of it that was received.
        """
        # Imported here, because this module is imported as soon as pandas is.
        from llm_magics._util.tables import CompactFrame

        bad = {
            number: outcome
            for number in range(len(self._texts))
            if (outcome := self._call.outcome(number)) not in (None, Outcome.OK)
        }
        rows = self._rows_of([number in bad for number in range(len(self._texts))])
        codes = self._codes[rows].tolist()
        return CompactFrame(
            {
                "error": [self._error(code) for code in codes],
                "prompt": [self._texts[code] for code in codes],
                "outcome": [str(bad[code]) for code in codes],
                "text": [self._text(code) for code in codes],
            },
            index=self._index[rows],
        )

    def _error(self, number: int) -> str:
        error, response = self._call.errors.get(number), self._call.responses[number]
        if error is None:  # the answer was cut at a limit set by the user, and is used
            assert response is not None
            error = cut_error(response)
        return f"{type(error).__name__}: {error}"

    def _text(self, number: int) -> str | None:
        """Return the text of an answer, or its thinking if it has no text."""
        response = self._call.responses[number]
        return None if response is None else response.text or response.reasoning or None


# pandas may create a new accessor each time: the report is stored with the column or frame.
_REPORT_ATTRIBUTE = "_llm_magics_report"


class Report(Protocol):
    """A report on an operation over rows; its ``str`` is a summary in one line."""

    def frame(self) -> DataFrame:
        """Return the details."""


def store_report(of: Any, report: Report) -> None:
    """Store ``report`` as an attribute of a column or frame."""
    object.__setattr__(of, _REPORT_ATTRIBUTE, report)  # pandas would treat it as a column


def stored_report(of: Any) -> Any:
    """Return the report that is stored with a column or frame; ``None`` without one."""
    return of.__dict__.get(_REPORT_ATTRIBUTE)


def announce(
    report: Report, where: str, *, has_failed: bool, details: str = "see .llm.report.frame()"
) -> None:
    """
    Report on rows whose results are in ``where``, a text that may be empty.

    ``details`` says where the failures are described.

    In a notebook, it is a line of output; elsewhere, only failures are reported, as a warning.
    """
    target = f" → {where}" if where else ""
    problem = f"{report}: {details}" if has_failed else ""
    current_host().report(f"{report}{target}{f' ({details})' if has_failed else ''}", problem)


class ReportMixin:
    """The property ``report`` of the DataFrame and Series accessors."""

    def __init__(self, of: Any) -> None:
        self._of = of

    @property
    def report(self) -> Any:
        """The report on the last operation; its ``frame()`` has the rows with problems."""
        return stored_report(self._of)

    def __repr__(self) -> str:
        """Return what the accessor is for, its methods, and the last report."""
        methods = [
            (name, _first_sentence(method))
            for each in type(self).__mro__
            for name, method in vars(each).items()
            if callable(method) and not name.startswith("_")
        ]
        width = max((len(name) for name, _ in methods), default=0)
        lines = [
            _first_sentence(type(self)),
            *(f"  {name:{width}}  {text}" for name, text in methods),
        ]
        last = self.report
        return "\n".join([*lines, *([f"last: {last}"] if last is not None else [])])


def _first_sentence(documented: object) -> str:
    text = " ".join((documented.__doc__ or "").strip().partition("\n\n")[0].split())
    return text.replace("``", "").partition("; ")[0].rstrip(".")
