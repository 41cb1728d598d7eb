"""
Asking models that do not take every parameter.

Which model takes what changes with every release. A parameter that is refused is left out,
once, told of, and not sent to that model again.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, ClassVar

from llm_magics.errors import ProviderError
from llm_magics.providers.remote import RemoteConfig, RemoteProvider
from llm_magics.providers.streams import Decoder
from llm_magics.types import StreamChunk


class LeavingOutProvider(RemoteProvider):
    """A remote provider that learns what its models do not take."""

    # Left out without a word: what the user did not ask for, or what has a substitute.
    silently: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, config: RemoteConfig | None = None) -> None:
        super().__init__(config)
        self._not_taken: dict[str, set[str]] = {}

    @abstractmethod
    def _culprit(self, error: ProviderError, body: Mapping[str, Any]) -> str | None:
        """The parameter of ``body`` that the service says it does not take, if it does."""

    def _leave_out(self, body: dict[str, Any], name: str) -> None:
        """Take ``name`` out of ``body``, or put what replaces it in its place."""
        body.pop(name, None)

    async def _asked(
        self,
        path: str,
        body: dict[str, Any],
        model: str,
        decoder: Callable[[], Decoder],
        headers: Mapping[str, str],
    ) -> AsyncGenerator[StreamChunk, None]:
        """The answer to ``POST body``, as it comes."""
        for name in self._not_taken.get(model, ()):
            self._leave_out(body, name)
        left_out: set[str] = set()
        while True:
            chunks = self._chunks(path, body, model, decoder(), headers)
            has_begun = False
            try:
                async for chunk in chunks:
                    has_begun = True
                    yield chunk
                return
            except ProviderError as error:
                culprit = self._culprit(error, body)
                if has_begun or culprit is None or culprit in left_out:
                    raise
                left_out.add(culprit)
                self._learn(model, culprit)
                self._leave_out(body, culprit)
            finally:
                await chunks.aclose()

    def _learn(self, model: str, name: str) -> None:
        self._not_taken.setdefault(model, set()).add(name)
        if name not in self.silently:
            msg = f"{self.name}/{model} does not take {name}: it is left out from now on."
            warnings.warn(msg, stacklevel=2)
