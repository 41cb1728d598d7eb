"""Tool calls: assemble them from streamed pieces, create their ids, and find their turns."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from llm_magics.errors import ParseError
from llm_magics.types import ChatMessage, ToolCall


class CallIds:
    """
    Creates ids for calls without one.

    The ids of an answer are reproducible, and unique within the conversation. They have nine
    letters and digits, which is the format of the strictest service (Mistral).
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._used: set[str] = set()
        self._number = len(self._taken)

    def reserve(self, ids: Iterable[str]) -> None:
        """Exclude ``ids`` from the ids to create."""
        self._taken.update(ids)

    def make_unique(self, call_id: str) -> str:
        """Return ``call_id``, or a new id if it is empty or already used in this answer."""
        unique = call_id
        while not unique or unique in self._used or (unique != call_id and unique in self._taken):
            self._number += 1
            unique = f"call{self._number:05d}"
        self._used.add(unique)
        return unique


def serialize_arguments(arguments: Any) -> str:
    """Return the arguments of a call as JSON text; some services send the object itself."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, default=str)


def encode_arguments(call: ToolCall) -> dict[str, Any]:
    """Return the arguments of a call as an object, which services require, even if invalid."""
    try:
        return call.arguments
    except ParseError:  # the tool's result reports the error
        return {"invalid_json": call.arguments_text}


_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(slots=True, kw_only=True)
class _Scan:
    """The state of an incremental scan for the end of a JSON object in pieces of text."""

    read: int = 0
    depth: int = 0
    in_string: bool = False
    is_escaped: bool = False

    def is_balanced(self, pieces: Sequence[str]) -> bool:
        """Return whether all brackets and quotes are closed, after scanning the new pieces."""
        for piece in pieces[self.read :]:
            self._take(piece)
        self.read = len(pieces)
        return self.depth <= 0 and not self.in_string

    def _take(self, piece: str) -> None:
        for letter in piece:
            if self.is_escaped:
                self.is_escaped = False
            elif self.in_string:
                self.is_escaped = letter == "\\"
                self.in_string = letter != '"'
            elif letter == '"':
                self.in_string = True
            elif letter in "{[":
                self.depth += 1
            elif letter in "}]":
                self.depth -= 1


@dataclass(slots=True, kw_only=True)
class _Call:
    """
    A call that may not be complete yet.

    Attributes:
        pieces: its arguments as received.
        snapshot: the last piece, as long as each piece starts with the previous one: some services
            repeat all arguments so far in each piece.
        named: the number of pieces with the name.
        is_doubtful: whether it may only be a repetition of the previous call's name.
        has_arguments: whether any piece was not blank.
        is_broken: whether all brackets were closed, but the text was not valid JSON.
    """

    index: int | None
    id: str
    name: str = ""
    pieces: list[str] = field(default_factory=list)
    snapshot: str | None = None
    named: int = 0
    is_doubtful: bool = False
    has_arguments: bool = False
    is_broken: bool = False
    scan: _Scan = field(default_factory=_Scan)
    extra: dict[str, Any] = field(default_factory=dict)

    def add(self, text: str) -> None:
        if not text:
            return
        if not self.pieces:
            self.snapshot = text
        elif self.snapshot is not None:
            self.snapshot = text if text.startswith(self.snapshot) else None
        self.pieces.append(text)
        self.has_arguments = self.has_arguments or bool(text.strip())

    @property
    def text(self) -> str:
        """The arguments: the joined pieces or the last snapshot, whichever is valid JSON."""
        joined = "".join(self.pieces)
        if len(self.pieces) < 2 or self.snapshot is None or _is_json(joined):
            return joined
        return self.snapshot if _is_json(self.snapshot) else joined

    @property
    def is_growing(self) -> bool:
        """Whether each piece contains all arguments so far."""
        return len(self.pieces) > 1 and self.snapshot is not None

    @property
    def is_complete(self) -> bool:
        """Whether the arguments are valid JSON already."""
        if self.is_growing and _is_json(self.snapshot or ""):
            return True
        if self.is_broken or not self.has_arguments or not self.scan.is_balanced(self.pieces):
            return False
        self.is_broken = not _is_json("".join(self.pieces))
        return not self.is_broken


class ToolCallAssembler:
    """
    Takes pieces in the order of the stream, and returns the complete calls at the end.

    A piece belongs to the call with its id, otherwise to the one at its index, otherwise to the
    latest. A piece with a name starts a new call if its id or its name differs, or if the arguments
    so far are complete: some services use the index 0 for all calls, omit ids and indexes, or repeat
    the name in each piece.
    """

    def __init__(self, names: Collection[str] = (), taken: Iterable[str] = ()) -> None:
        """
        Prepare for one answer.

        Args:
            names: the tools that may be called, to recognise a name that arrives in pieces.
            taken: the ids of earlier calls in the conversation.
        """
        self._names = frozenset(names)
        self._ids = CallIds(taken)
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}
        self._latest: _Call | None = None
        self.extras: dict[str, Mapping[str, Any]] = {}

    def add(
        self,
        index: Any,
        call_id: Any,
        name: Any,
        arguments: Any,
        extra: Mapping[str, Any] = _NOTHING,
    ) -> None:
        """
        Add one piece, of which any part may be missing.

        ``extra`` is sent back with the call; it is in ``extras`` after the calls are taken.
        """
        index = _parse_index(index)
        call_id = str(call_id) if call_id is not None else ""
        name = name if isinstance(name, str) else ""
        text = serialize_arguments(arguments)
        is_whole = isinstance(arguments, Mapping)
        call = self._find(index, call_id, name)
        is_doubtful = False
        if call is not None and self._begins(call, call_id, name, text, is_whole=is_whole):
            is_doubtful = name == call.name and not call_id and not text.strip()
            call = None
        if call is None:
            call = _Call(index=index, id=call_id, is_doubtful=is_doubtful)
            self._calls.append(call)
        self._latest = call
        call.id = call.id or call_id
        if call.id:
            self._by_id[call.id] = call
        if index is not None:
            self._by_index[index] = call
        call.named += bool(name)
        call.name = self._name(call.name, name)
        if not (name and _is_repeated(call, text, is_same=bool(call_id))):
            call.add(text)
        if extra:
            call.extra |= extra

    def _find(self, index: int | None, call_id: str, name: str) -> _Call | None:
        """Return the call to which a piece may belong, or ``None``."""
        there = self._by_index.get(index) if index is not None else None
        known = self._by_id.get(call_id) if call_id else None
        if there is not None and (known is None or there.id in ("", call_id)):
            return there
        if known is not None and (None in (index, known.index) or not known.is_complete):
            return known
        if index is None:
            return self._latest
        return there if there or name or call_id else self._latest

    def _begins(self, call: _Call, call_id: str, name: str, text: str, *, is_whole: bool) -> bool:
        """Return whether a piece that may belong to ``call`` starts another call."""
        is_other_id = bool(call_id and call.id and call_id != call.id)
        if not name:
            return is_other_id and bool(text.strip()) and call.is_complete
        if is_other_id:
            return True
        if call.name and name != call.name:
            return bool(call.pieces) or not self._is_part(call.name, name)
        is_repeated = bool(call_id) and call_id == call.id and not text.strip()
        if is_repeated or _is_repeated(call, text, is_same=bool(call_id)):
            return False
        return (is_whole and call.has_arguments) or call.is_complete

    def _is_part(self, before: str, name: str) -> bool:
        """Return whether ``name`` continues the name that starts with ``before``."""
        if before in self._names and name in self._names:
            return False
        longer = (before + name, name if name.startswith(before) else before + name)
        return any(known.startswith(longer) for known in self._names)

    def _name(self, before: str, name: str) -> str:
        """Return the name after another piece of it; later pieces may repeat it or be empty."""
        if not name or name == before:
            return before
        return name if not before or name.startswith(before) else before + name

    def take(self) -> tuple[ToolCall, ...]:
        """Return the calls so far, and reset the assembler."""
        calls, self._calls, self._latest = self._calls, [], None
        self._by_index, self._by_id = {}, {}
        calls_left: list[_Call] = []
        for call in calls:
            # A name without arguments, after a call whose name was repeated in every piece.
            if call.is_doubtful and not call.pieces and calls_left and calls_left[-1].named > 1:
                continue
            calls_left.append(call)
        self._ids.reserve(each.id for each in calls_left)
        tool_calls = tuple(
            ToolCall(self._ids.make_unique(each.id), each.name, each.text) for each in calls_left
        )
        self.extras = {
            call.id: each.extra for call, each in zip(tool_calls, calls_left, strict=True)
        }
        return tool_calls


def _is_repeated(call: _Call, text: str, *, is_same: bool) -> bool:
    """Return whether ``text`` repeats all arguments of ``call``; ``is_same`` if the ids match."""
    if not text.strip() or not (is_same or call.is_growing):
        return False
    return (call.snapshot in (None, text)) and call.is_complete and text == call.text


def _parse_index(index: Any) -> int | None:
    if isinstance(index, str) and index.isdecimal() and len(index) < 10:
        return int(index)
    return index if type(index) is int else None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def collect_call_ids(messages: Sequence[ChatMessage]) -> list[str]:
    """Return the ids of all calls in a conversation."""
    return [call.id for message in messages for call in message.tool_calls]


def mark_tool_turns(messages: Sequence[ChatMessage]) -> list[bool]:
    """
    Return for each message whether tools were called in its turn.

    Services that require their thinking back require it with every answer of such a turn, and
    ignore or refuse it in other turns.
    """
    found: list[bool] = []
    turn = 0
    for index, message in enumerate(messages):
        if message.role == "user":
            turn = index
        found.append(False)
        if message.tool_calls or message.role == "tool":
            found[turn:] = [True] * (len(found) - turn)
        elif index > turn:
            found[index] = found[index - 1]
    return found
