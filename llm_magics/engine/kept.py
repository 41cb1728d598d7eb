"""Answers that were given before: those of a recording, and those of the cache."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from llm_magics.engine.road import Route
from llm_magics.engine.session import Session
from llm_magics.policies import recordings
from llm_magics.policies.recordings import Request
from llm_magics.secrets import scrub
from llm_magics.types import StreamChunk


class KeptAnswers:
    """
    Where the answer to one chat may be, and where a new one is put.

    A recording counts before the cache. ``is_fresh``: the cache is not asked, only told.
    """

    def __init__(self, session: Session, route: Route, request: Request, is_fresh: bool) -> None:
        self._tape = session.tape
        self._cache = session.cache
        self._route = route
        self._request = request
        self._is_fresh = is_fresh
        self._key = b""

    async def find(self) -> Mapping[str, Any] | None:
        """The kept answer; a strict recording without it raises `ReplayMissError`."""
        kept = self._tape.find(self._request) if self._tape else None
        if kept is not None or self._cache is None:
            return kept
        identity = await self._route.provider.identity(self._route.model)
        told = f"{recordings.key_of(self._request)} {identity}"
        self._key = hashlib.sha256(told.encode()).digest()
        found = None if self._is_fresh else self._cache.get(self._key)
        return None if found is None else _answer_in(found)

    async def keep(self, chunks: Sequence[StreamChunk]) -> None:
        """Keep a whole answer."""
        if self._tape is None and self._cache is None:
            return
        told = recordings.told_by(chunks)
        if self._tape:
            self._tape.keep(self._request, told)
        if self._cache:
            text = scrub(json.dumps(told, ensure_ascii=False, default=str))
            # Another kernel may be writing: not on the loop that all streams run on.
            await asyncio.to_thread(self._cache.put, self._key, text.encode())


def _answer_in(found: bytes) -> Mapping[str, Any] | None:
    """The answer; what somebody else has put there is none."""
    try:
        told = json.loads(found)
        list(recordings.chunks_of(told))
    except (ValueError, KeyError, TypeError):
        return None
    return dict(told)
