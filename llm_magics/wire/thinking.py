"""Thinking that a model wrote into its answer, taken out of it."""

from __future__ import annotations

from llm_magics.types import StreamChunk

_OPEN, _CLOSE = "<think>", "</think>"


class ThinkTags:
    """
    Puts what stands between ``<think>`` and ``</think>`` at the start of an answer apart.

    Servers that know a model's manner do this themselves; others hand its words on as they
    are. Anywhere but at the start the tags are text: an answer may be about them.
    """

    def __init__(self) -> None:
        self.is_past = False
        self._held = ""
        self._is_thinking = False
        self._is_after = False

    def split(self, chunk: StreamChunk) -> StreamChunk:
        """``chunk`` with thinking in ``reasoning``; what may be half a tag is held back."""
        if self.is_past or not (chunk.text or chunk.finish_reason):
            return chunk
        text, reasoning = self._split(chunk.text)
        if chunk.finish_reason:
            rest = self.flush()
            text, reasoning = text + rest.text, reasoning + rest.reasoning
        return chunk._replace(text=text, reasoning=chunk.reasoning + reasoning)

    def flush(self) -> StreamChunk:
        """What is still held back when the answer ends."""
        held, self._held = self._held, ""
        return StreamChunk("", held) if self._is_thinking else StreamChunk(held)

    def _split(self, text: str) -> tuple[str, str]:
        text, self._held = self._held + text, ""
        reasoning = ""
        if not self._is_thinking and not self._is_after:
            start = text.lstrip()
            if _OPEN.startswith(start[: len(_OPEN)]) and len(start) < len(_OPEN):
                self._held = text
                return "", ""
            if not start.startswith(_OPEN):
                self.is_past = True
                return text, ""
            self._is_thinking, text = True, start[len(_OPEN) :]
        if self._is_thinking:
            reasoning, closed, text = text.partition(_CLOSE)
            if not closed:
                keep = _half_of_close(reasoning)
                self._held = reasoning[len(reasoning) - keep :]
                return "", reasoning[: len(reasoning) - keep]
            self._is_thinking, self._is_after = False, True
        text = text.lstrip("\n")  # the lines that part the answer from the thinking
        self.is_past = bool(text)
        return text, reasoning


def _half_of_close(text: str) -> int:
    """How many of the last characters may begin the closing tag."""
    for length in range(min(len(_CLOSE) - 1, len(text)), 0, -1):
        if _CLOSE.startswith(text[-length:]):
            return length
    return 0
