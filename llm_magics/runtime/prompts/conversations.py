"""
Conversations: what was asked and answered before, and goes along with the next prompt.

A turn belongs to the cell that asked it. When that cell asks again, its turn is replaced, and
those that came after it go: they hung on an answer that is no more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llm_magics.types import ChatMessage

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, slots=True)
class Turn:
    """
    A question and its answer.

    Attributes:
        key: what tells this turn from all others.
        cell: what tells the cell that asked from all others; empty where no cell did.
        run: what tells that run of the cell from its others.
        asked, answered: the messages.
        model: who answered.
        is_whole: whether the answer came to its end.
    """

    key: str
    cell: str
    run: str
    asked: ChatMessage
    answered: ChatMessage
    model: str
    is_whole: bool = True


@dataclass
class Threads:
    """The conversations of this session, by name."""

    _turns: dict[str, list[Turn]] = field(default_factory=dict)

    def names(self) -> list[str]:
        """The conversations there are, in the order in which they began."""
        return list(self._turns)

    def before(self, name: str, cell: str = "", run: str = "") -> list[ChatMessage]:
        """What goes along when a ``run`` of ``cell`` asks in the thread ``name``."""
        return [
            message
            for turn in self._kept(name, cell, run)
            for message in (turn.asked, turn.answered)
        ]

    def add(self, name: str, turn: Turn) -> int:
        """
        Put ``turn`` in its place; how many later ones went because they hung on an old one.

        One that broke off does not take the place of a turn that others hang on: they stay.
        """
        turns = self._turns.get(name, [])
        known = [each.key for each in turns]
        if turn.key in known:  # asked again, with what was wrong
            turns[known.index(turn.key)] = turn
            return 0
        kept = self._kept(name, turn.cell, turn.run)
        dropped = len(turns) - len(kept) - 1
        if dropped > 0 and not turn.is_whole:
            return 0
        self._turns[name] = [*kept, turn]
        return max(0, dropped)

    def leave(self, cell: str, but: str | None = None) -> None:
        """``cell`` asks in no thread any more, ``but`` for that one: its turns go, with what hung."""
        for name in [each for each in self._turns if each != but and cell]:
            self._turns[name] = self._kept(name, cell, "")
            if not self._turns[name]:
                del self._turns[name]

    def _kept(self, name: str, cell: str, run: str) -> list[Turn]:
        """The turns before the first of an earlier run of the cell."""
        turns = self._turns.get(name, [])
        earlier = (
            place
            for place, turn in enumerate(turns)
            if cell and turn.cell == cell and turn.run != run
        )
        return turns[: next(earlier, None)]

    def forget(self, name: str | None = None) -> int:
        """End a conversation, or all of them; how many turns there were."""
        names = self.names() if name is None else [name]
        return sum(len(self._turns.pop(each, ())) for each in names)

    def frame(self, name: str | None = None) -> DataFrame:
        """
        What the next prompt will carry, one row a message.

        Columns: ``thread``, ``turn`` (from 1), ``role``, ``content``, ``model``, ``whole``
        (false where the answer was broken off).
        """
        from llm_magics._util.tables import SafeFrame

        rows = [
            (thread, number, message.role, message.content, turn.model, turn.is_whole)
            for thread in self.names()
            if name in (None, thread)
            for number, turn in enumerate(self._turns[thread], 1)
            for message in (turn.asked, turn.answered)
        ]
        return SafeFrame(rows, columns=["thread", "turn", "role", "content", "model", "whole"])
