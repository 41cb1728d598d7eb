"""Look up vectors in a recording and in the vector store, and store new ones in both."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_magics.errors import LLMError, ProviderError
from llm_magics.runtime.embedding.results import (
    AVERAGED,
    OK,
    TRUNCATED,
    EmbeddingResults,
    EmbedOptions,
    is_usable,
)
from llm_magics.runtime.routing import Route
from llm_magics.runtime.session import Session
from llm_magics.runtime.storage.serialization import (
    Request,
    embedding_request,
    encode_vector,
    read_vector,
)
from llm_magics.runtime.storage.vector_store import VectorStore, hash_texts

if TYPE_CHECKING:
    from llm_magics.runtime.embedding.results import Floats


class VectorCache:
    """The vectors of ``texts`` by the model of ``route``, in a recording and the vector store."""

    def __init__(
        self,
        *,
        session: Session,
        route: Route,
        texts: Sequence[str],
        options: EmbedOptions,
        results: EmbeddingResults,
    ) -> None:
        self._session = session
        self._route = route
        self._texts = texts
        self._options = options
        self._results = results
        self._store: VectorStore | None = None
        # What the vectors depend on in addition to the text.
        self.space: dict[str, Any] = {}

    @property
    def is_stored(self) -> bool:
        """Whether new vectors are stored; known after `find`."""
        return self._store is not None

    @property
    def treatment(self) -> int:
        """The outcome of a text that is too long."""
        return TRUNCATED if self._options.too_long == "truncate" else AVERAGED

    async def find(self) -> None:
        """Look up the texts in the recording, then in the vector store."""
        results = self._results
        self._replay()
        if not results.pending:
            return
        self._store = await self._find_store()
        if self._store is None:
            return
        if not results.is_cached.any():
            results.store_cached(*self._store.find(hash_texts(self._texts)))
        else:  # some are from a recording
            self._find_pending(self._store, "", OK)
        self._find_pending(self._store, self._long_text_prefix, self.treatment)
        self._record(np.flatnonzero(results.is_cached))

    def find_new(self) -> None:
        """Look up the texts without an outcome in the vector store once more."""
        if self._store is not None:
            self._find_pending(self._store, "", OK)

    async def store(
        self, positions: list[int], rows: Floats, outcome: int = OK, *, is_synced: bool = False
    ) -> bool:
        """
        Store new vectors in the results, the store and the recording, in a thread.

        Return whether they are in the store; with ``is_synced`` they are on the disk then.
        """
        prefix = "" if outcome == OK else self._long_text_prefix
        try:
            good = self._results.store(positions, rows, outcome)
        except ProviderError:  # the model changed; still store the paid vectors
            if self._store is not None:
                keys = hash_texts(prefix + self._texts[position] for position in positions)
                await asyncio.to_thread(self._store.put, keys, rows)
            raise
        is_stored = self._store is not None
        if self._store is not None:
            keys = hash_texts(prefix + self._texts[position] for position in good)
            put = partial(self._store.put, is_synced=is_synced)
            is_stored = await asyncio.to_thread(put, keys, self._results.matrix[good])
        self._record(good)
        return is_stored

    async def _find_store(self) -> VectorStore | None:
        """Open the store for this model; ``None`` if the model's weights cannot be identified."""
        provider, model = self._route.provider, self._route.model
        try:
            identity = await provider.identity(model)
        except LLMError:  # the call itself will report the error
            return None
        self.space = {"provider": provider.name, "model": model, "identity": identity}
        if self._options.dimensions:
            self.space["dimensions"] = self._options.dimensions
        return self._session.vectors(self.space)

    def _find_pending(self, store: VectorStore, prefix: str, outcome: int) -> None:
        """Look up the texts without an outcome."""
        pending = self._results.pending
        found, rows = store.find(
            hash_texts(prefix + self._texts[position] for position in pending)
        )
        if found.any():
            positions = self._results.store(
                np.asarray(pending)[found].tolist(), rows[found], outcome
            )
            self._results.is_cached[positions] = True

    @property
    def _long_text_prefix(self) -> str:
        """The prefix in the keys of texts that were too long, for this way to shorten them."""
        return f"{self._options.too_long}\0"

    def _replay(self) -> None:
        recording = self._session.recording
        if recording is None or not recording.plays:
            return
        for position, text in enumerate(self._texts):
            found = recording.find(self._request(text))
            vector = read_vector(found) if found else None
            if vector is None or self._options.dimensions not in (None, len(vector)):
                continue
            rows = np.asarray(vector, np.float32)[None, :]
            if is_usable(rows).all():
                self._results.store([position], rows)
                self._results.is_cached[position] = True

    def _record(self, positions: Iterable[int]) -> None:
        recording = self._session.recording
        if recording is None or not recording.records:
            return
        matrix = self._results.matrix
        recording.keep_all(
            (
                self._request(self._texts[position]),
                {"vector": encode_vector(matrix[position].tolist())},
            )
            for position in map(int, positions)
        )

    def _request(self, text: str) -> Request:
        return embedding_request(self._route.name, text, self._options.dimensions)
