"""Turns of a conversation: what the assistant said between two messages of the user."""

from __future__ import annotations

from collections.abc import Sequence

from llm_magics.types import ChatMessage


def in_tool_turns(messages: Sequence[ChatMessage]) -> list[bool]:
    """
    Return for each message whether tools were called in its turn.

    Services that want their thinking back want it with every answer of such a turn, and ignore
    or refuse it elsewhere.
    """
    found: list[bool] = []
    turn = 0
    for place, message in enumerate(messages):
        if message.role == "user":
            turn = place
        found.append(False)
        if message.tool_calls or message.role == "tool":
            found[turn:] = [True] * (len(found) - turn)
        elif place > turn:
            found[place] = found[place - 1]
    return found


def is_current(messages: Sequence[ChatMessage]) -> list[bool]:
    """Return for each message whether it comes after the last one of the user."""
    last = max((n for n, each in enumerate(messages) if each.role == "user"), default=-1)
    return [place > last for place in range(len(messages))]
