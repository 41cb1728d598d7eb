"""
Conversations: earlier prompts and answers, sent with the next prompt of the same thread.

A turn belongs to the cell that sent it. When that cell runs again, its turn is replaced, and
later turns are removed, because they depend on the replaced answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llm_magics.types import ChatMessage

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """
    A question and its answer.

    Attributes:
        key: identifies this turn.
        cell: the key of the cell that sent the prompt; empty outside of cells.
        run: identifies the run of the cell.
        asked, answered: the messages.
        model: who answered.
        is_whole: whether the answer is complete.
    """

    key: str
    cell: str
    run: str
    asked: ChatMessage
    answered: ChatMessage
    model: str
    is_whole: bool = True


@dataclass
class Conversations:
    """The conversations of this session, by name."""

    _turns: dict[str, list[Turn]] = field(default_factory=dict)

    def names(self) -> list[str]:
        """The conversations there are, in the order in which they began."""
        return list(self._turns)

    def before(self, name: str, cell: str = "", run: str = "") -> list[ChatMessage]:
        """What goes along when a ``run`` of ``cell`` asks in the thread ``name``."""
        return [
            message
            for turn in self._turns_before(name, cell, run)
            for message in (turn.asked, turn.answered)
        ]

    def add(self, name: str, turn: Turn) -> int:
        """
        Add ``turn``, or replace the one of its cell; return how many later turns were removed.

        An interrupted turn does not replace one that later turns depend on.
        """
        turns = self._turns.get(name, [])
        known = [each.key for each in turns]
        if turn.key in known:  # repaired in another round
            turns[known.index(turn.key)] = turn
            return 0
        earlier_turns = self._turns_before(name, turn.cell, turn.run)
        dropped = len(turns) - len(earlier_turns) - 1
        if dropped > 0 and not turn.is_whole:
            return 0
        self._turns[name] = [*earlier_turns, turn]
        return max(0, dropped)

    def leave(self, cell: str, but: str | None = None) -> None:
        """``cell`` asks in no thread any more, ``but`` for that one: its turns go, with what hung."""
        for name in [each for each in self._turns if each != but and cell]:
            self._turns[name] = self._turns_before(name, cell, "")
            if not self._turns[name]:
                del self._turns[name]

    def _turns_before(self, name: str, cell: str, run: str) -> list[Turn]:
        """Return the turns before the first of an earlier run of the cell."""
        turns = self._turns.get(name, [])
        earlier = (
            index
            for index, turn in enumerate(turns)
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
