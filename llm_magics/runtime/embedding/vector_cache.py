"""What is there already of some texts' vectors, and where new ones are put as they land."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_magics.errors import LLMError, ProviderError
from llm_magics.runtime.embedding.results import (
    AVERAGED,
    OK,
    TRUNCATED,
    EmbedOptions,
    Landed,
    is_usable,
)
from llm_magics.runtime.routing import Route
from llm_magics.runtime.session import Session
from llm_magics.runtime.storage.serialization import Request, embedding_request, packed, vector_in
from llm_magics.runtime.storage.vector_store import VectorStore, keys_of

if TYPE_CHECKING:
    from llm_magics.runtime.embedding.results import Floats


class Keeping:
    """The vectors of ``texts`` by the model of ``route``: in a recording, and in the store."""

    def __init__(
        self,
        session: Session,
        route: Route,
        texts: Sequence[str],
        options: EmbedOptions,
        landed: Landed,
    ) -> None:
        self._session = session
        self._route = route
        self._texts = texts
        self._options = options
        self._landed = landed
        self._store: VectorStore | None = None

    @property
    def treatment(self) -> int:
        """What comes of a text that is too long."""
        return TRUNCATED if self._options.too_long == "truncate" else AVERAGED

    async def find(self) -> None:
        """Take what a recording has, then what was paid for in an earlier call."""
        landed = self._landed
        self._play()
        if not landed.pending:  # and nobody need be there to be asked
            return
        self._store = await self._find_store()
        if self._store is None:
            return
        if not landed.kept.any():
            landed.adopt(*self._store.find(keys_of(self._texts)))
        else:  # a recording has some of them
            self._find_left(self._store, "", OK)
        self._find_left(self._store, self._treated, self.treatment)
        self._record(np.flatnonzero(landed.kept))

    async def keep(self, places: list[int], rows: Floats, outcome: int = OK) -> None:
        """What has landed, here and for later; on a thread, for a disk may be slow."""
        prefix = "" if outcome == OK else self._treated
        try:
            good = self._landed.land(places, rows, outcome)
        except ProviderError:  # another model answers now: what is paid is kept all the same
            if self._store is not None:
                keys = keys_of(prefix + self._texts[place] for place in places)
                await asyncio.to_thread(self._store.put, keys, rows)
            raise
        if self._store is not None:
            keys = keys_of(prefix + self._texts[place] for place in good)
            await asyncio.to_thread(self._store.put, keys, self._landed.matrix[good])
        self._record(good)

    async def _find_store(self) -> VectorStore | None:
        """What is kept of this model; nothing where its weights cannot be told from others."""
        provider, model = self._route.provider, self._route.model
        try:
            identity = await provider.identity(model)
        except LLMError:  # the call itself says what is wrong
            return None
        space: dict[str, Any] = {"provider": provider.name, "model": model, "identity": identity}
        if self._options.dimensions:
            space["dimensions"] = self._options.dimensions
        return self._session.vectors(space)

    def _find_left(self, store: VectorStore, prefix: str, outcome: int) -> None:
        """Take what is kept of the texts that nothing has come of yet."""
        left = self._landed.pending
        found, rows = store.find(keys_of(prefix + self._texts[place] for place in left))
        if found.any():
            places = self._landed.land(np.asarray(left)[found].tolist(), rows[found], outcome)
            self._landed.kept[places] = True

    @property
    def _treated(self) -> str:
        """What stands before the key of a text that was too long, and was treated so."""
        return f"{self._options.too_long}\0"

    def _play(self) -> None:
        tape = self._session.tape
        if tape is None or not tape.plays:
            return
        for place, text in enumerate(self._texts):
            found = tape.find(self._request(text))
            vector = vector_in(found) if found else None
            if vector is None or self._options.dimensions not in (None, len(vector)):
                continue
            rows = np.asarray(vector, np.float32)[None, :]
            if is_usable(rows).all():
                self._landed.land([place], rows)
                self._landed.kept[place] = True

    def _record(self, places: Iterable[int]) -> None:
        tape = self._session.tape
        if tape is None or not tape.records:
            return
        matrix = self._landed.matrix
        tape.keep_all(
            (
                self._request(self._texts[place]),
                {"vector": packed(matrix[place].tolist())},
            )
            for place in map(int, places)
        )

    def _request(self, text: str) -> Request:
        return embedding_request(self._route.name, text, self._options.dimensions)
