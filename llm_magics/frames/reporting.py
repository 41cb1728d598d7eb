"""How the last embedding or asking went, kept with the column or frame it was of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_magics.frames.asking.report import PromptReport
    from llm_magics.frames.report import EmbeddingReport

# pandas may make an accessor anew each time: what is to stay is kept with the column or frame.
_KEPT = "_llm_magics_report"


def keep_report(of: Any, report: EmbeddingReport | PromptReport) -> None:
    """Keep ``report`` with a column or frame."""
    object.__setattr__(of, _KEPT, report)  # pandas' own takes it for a column


class Reporting:
    """What both accessors have."""

    def __init__(self, of: Any) -> None:
        self._of = of

    @property
    def report(self) -> EmbeddingReport | PromptReport | None:
        """How the last embedding or asking went; its ``frame()`` has the rows that did not go plainly."""
        report: EmbeddingReport | PromptReport | None = self._of.__dict__.get(_KEPT)
        return report
