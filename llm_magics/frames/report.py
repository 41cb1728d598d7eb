"""How an embedding went: in a line, and row by row for the rows that did not go plainly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llm_magics._util.terminal import shown_name
from llm_magics.frames.rows import EMPTY, MISSING, NO_TEXT, Rows
from llm_magics.runtime.embedding.results import FAILED, OUTCOMES, PENDING

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame, Index

    from llm_magics.runtime.embedding import EmbeddingCall
    from llm_magics.runtime.embedding.results import Speed

_WHY = {MISSING: "missing", EMPTY: "empty", NO_TEXT: "no text"}


@dataclass(frozen=True, eq=False)
class EmbeddingReport:
    """
    Attributes:
        model: who embedded.
        counts: rows by outcome: ``ok``, ``truncated``, ``averaged``, ``failed``, ``missing``,
            ``empty``, ``no text``, ``pending``.
        cached: texts whose vectors were there before.
        sent: texts that were sent, and are paid where that costs.
        dimensions: of each vector.
        seconds: from the first request to the last answer.
        cost_usd: US dollars, ``None`` where unknown.
        speed: rows a second and their share of the server's limit, ``None`` where too few were
            sent to tell.
    """

    model: str
    counts: dict[str, int]
    cached: int
    sent: int
    dimensions: int
    seconds: float
    cost_usd: float | None
    speed: Speed | None
    _rows: Rows
    _call: EmbeddingCall
    _index: Index | None

    @property
    def rows(self) -> int:
        """All of them."""
        return len(self._rows)

    def __str__(self) -> str:
        """The same each time it is run: what was cached, sent and paid stands beside it."""
        parts = [f"{count:,} {name}" for name, count in self.counts.items() if count]
        if self.dimensions:
            parts.append(f"{self.dimensions} dimensions")
        return " · ".join(
            filter(None, [*(parts or ["0 rows"]), self.model and shown_name(self.model)])
        )

    __repr__ = __str__

    def frame(self) -> DataFrame:
        """The rows that did not go plainly: their ``outcome``, ``error`` and ``text``, by index."""
        import pandas as pd

        from llm_magics._util.tables import WideFrame

        codes, landed = self._rows.codes, self._call.landed
        outcomes = outcomes_of(self._rows, self._call)
        odd = np.flatnonzero(outcomes != "ok")
        errors = [landed.errors.get(int(codes[row])) for row in odd]
        index = self._index if self._index is not None else pd.RangeIndex(len(codes))
        return WideFrame(
            {
                "outcome": outcomes[odd],
                "error": [error and f"{type(error).__name__}: {error}" for error in errors],
                "text": [self._rows.texts[codes[row]] if codes[row] >= 0 else None for row in odd],
            },
            index=index[odd],
        )


def outcomes_of(rows: Rows, call: EmbeddingCall) -> NDArray[np.str_]:
    """What came of each row, in a word."""
    of_texts = np.asarray(OUTCOMES)[call.landed.outcomes]
    told = np.full(len(rows), "", dtype="U9")
    has_text = rows.codes >= 0
    told[has_text] = of_texts[rows.codes[has_text]]
    for code, word in _WHY.items():
        told[rows.codes == code] = word
    return told


def report_of(rows: Rows, call: EmbeddingCall, index: Index | None) -> EmbeddingReport:
    """How ``call`` went for ``rows``."""
    per_text = np.bincount(rows.codes[rows.codes >= 0], minlength=len(rows.texts))
    of_texts = [
        int(per_text[call.landed.outcomes == number].sum()) for number in range(len(OUTCOMES))
    ]
    counts = dict(zip(OUTCOMES, of_texts, strict=True))
    counts |= {word: rows.count(code) for code, word in _WHY.items()}
    counts[OUTCOMES[PENDING]] = counts.pop(OUTCOMES[PENDING])  # last, for it is seldom so
    response = call.response()
    return EmbeddingReport(
        model=response.model,
        counts=counts,
        cached=int(call.landed.kept.sum()),
        sent=call.sent,
        dimensions=call.landed.dimensions,
        seconds=response.timing.e2e_s or 0.0,
        cost_usd=response.cost_usd,
        speed=call.speed,
        _rows=rows,
        _call=call,
        _index=index,
    )


def lost(call: EmbeddingCall) -> bool:
    """Whether there were texts, and all of them failed."""
    outcomes = call.landed.outcomes
    return bool(len(outcomes)) and bool((outcomes == FAILED).all())
