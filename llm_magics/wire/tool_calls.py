"""Tool calls put together from the pieces in which services send them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_magics.media import ToolCall


@dataclass(slots=True)
class _Call:
    index: int | None
    id: str
    name: str = ""
    arguments: str = ""


class ToolCallAssembler:
    """
    Takes pieces in the order they come; gives the calls when they are whole.

    An index names a call — unless another id comes at a used index, which is another call
    (Ollama, several look-alikes). Without index and id a piece belongs to the latest call.
    """

    def __init__(self) -> None:
        self._calls: list[_Call] = []

    def add(
        self,
        index: int | None,
        call_id: str | None,
        name: str | None,
        arguments: str | Mapping[str, Any] | None,
    ) -> None:
        """One piece; any part of it may be missing."""
        call = self._find(index, call_id)
        if call and name and call.name and call.arguments and index is None and not call_id:
            call = None  # without index or id, a name says that another call begins
        if call is None:
            call = _Call(index, call_id or "")
            self._calls.append(call)
        call.name = name or call.name  # later pieces may repeat it as ""
        if isinstance(arguments, Mapping):
            call.arguments = json.dumps(arguments)
        else:
            call.arguments += arguments or ""

    def _find(self, index: int | None, call_id: str | None) -> _Call | None:
        for call in reversed(self._calls):
            same_place = index is None or call.index == index
            if same_place and (not call_id or call.id in ("", call_id)):
                call.id = call.id or call_id or ""
                return call
        return None

    def take(self) -> tuple[ToolCall, ...]:
        """The calls so far, which are now given away."""
        calls, self._calls = self._calls, []
        return tuple(ToolCall(call.id, call.name, call.arguments) for call in calls)
