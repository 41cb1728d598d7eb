"""The answer as a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llm_magics._util.validation import attribute_error
from llm_magics.completeness import is_cut
from llm_magics.errors import ParseError
from llm_magics.runtime import parsing
from llm_magics.runtime.parsing import fitting_json
from llm_magics.schemas import validated
from llm_magics.secrets import scrub
from llm_magics.types import ChatMessage, Timing, ToolCall, Usage

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, slots=True)
class Response:
    """
    What a model answered, and how.

    Attributes:
        text: the answer.
        model: who answered, as ``provider/name``.
        finish_reason: ``stop``, ``length`` … as the service says, or ``interrupted``.
        usage: tokens read and written, as the service counts them.
        timing: what it took; see `llm_magics.runtime.storage.run_log`.
        cost_usd: its price in US dollars, ``None`` where that is unknown.
        cached: whether it is an earlier answer shown again.
        messages: what was sent.
        reasoning: the model's thinking, where it shows any.
        tool_calls: what the model wants to have called.
        schema: what the answer was asked to look like.
        retries: how often it had to be asked for again.
        fallback_from: the models of a route that had failed before, each with its error.
        repairs: how often it was asked for again because it did not fit the schema.
        removed_turns: how many later turns of its thread hung on the answer that it took the place of.
        raw: the last thing the service sent, decoded.
        reasoning_blocks: what the service requires to be sent back with this answer.
    """

    text: str
    model: str = ""
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    timing: Timing = field(default_factory=Timing)
    cost_usd: float | None = None
    cached: bool = False
    messages: Sequence[ChatMessage] = ()
    reasoning: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict)
    tool_calls: tuple[ToolCall, ...] = ()
    schema: Any = field(default=None, repr=False)
    retries: int = 0
    fallback_from: tuple[str, ...] = ()
    repairs: int = 0
    removed_turns: int = 0
    reasoning_blocks: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    def __getattr__(self, name: str) -> Any:
        raise attribute_error(self, name, {"mended": "repairs", "dropped": "removed_turns"})

    @property
    def data(self) -> Any:
        """
        The value in it, which fits the schema it was asked for; an instance of it if a class.

        Raises:
            ParseError: there is none, or it does not fit.
        """
        value = self.json()
        return value if self.schema is None else validated(value, self.schema)

    def check(self) -> None:
        """Raise the `ParseError` of `data`, if there is one, with this answer in ``partial``."""
        misfit = self.misfit()
        if misfit is not None:
            raise misfit

    def misfit(self) -> ParseError | None:
        """Why it does not fit the schema it was asked for, if it does not."""
        if self.schema is None or self.tool_calls:
            return None
        try:
            self.data  # noqa: B018 (it is read for its error)
        except ParseError as misfit:
            return self._told(misfit)
        return None

    def _told(self, misfit: ParseError) -> ParseError:
        if is_cut(self.finish_reason):
            msg = "The answer was cut off at its longest, before it was whole."
            misfit = ParseError(msg, hint="Raise max_tokens.")
        misfit.partial = self
        return misfit

    @property
    def code(self) -> str:
        """The first fenced block, or the whole text where nothing is fenced."""
        return parsing.code(self.text)

    @property
    def code_blocks(self) -> list[parsing.CodeBlock]:
        """All fenced blocks with their languages."""
        return parsing.code_blocks(self.text)

    def code_in(self, language: str) -> str:
        """The first fenced block that is marked as ``language``."""
        return parsing.code(self.text, language)

    def json(self, *, partial: bool = False, repair: bool = False) -> Any:
        """
        Return the JSON value in it; a `ParseError` where there is none.

        Of several values it is the last one that fits the schema; without a schema, the longest.

        Args:
            partial: of a text that is not whole yet, the value as far as it has come.
            repair: where it is no valid JSON, mend it (extra ``repair``), with a warning.
        """
        if partial:
            return parsing.partial_json(self.text)
        if self.schema is not None:
            found = fitting_json(self.text, self.schema)
            if found is not None:
                return found.value
        return parsing.json_value(self.text, repair=repair)

    def df(self) -> DataFrame:
        """The table in it as a DataFrame; a `ParseError` where there is none."""
        return parsing.table(self.text)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        shown = self.text if len(self.text) <= 60 else f"{self.text[:57]}…"
        facts = [f"model={self.model!r}"]
        if self.usage.output_tokens is not None:
            facts.append(f"output_tokens={self.usage.output_tokens}")
        if self.finish_reason not in (None, "stop"):
            facts.append(f"finish_reason={self.finish_reason!r}")
        return scrub(f"Response({shown!r}, {', '.join(facts)})")


INTERRUPTED = "interrupted"
