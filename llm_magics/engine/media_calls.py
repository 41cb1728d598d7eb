"""Pictures made and recordings written down, as calls in the log like any other."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Generic, TypeVar

from llm_magics.engine.response import Response
from llm_magics.engine.road import Route, find_route, logged
from llm_magics.engine.session import Session
from llm_magics.media import Transcript
from llm_magics.providers.base import BaseModelProvider
from llm_magics.types import Progress, Timing

_T = TypeVar("_T")


class MediaCall(Generic[_T]):
    """One piece of such work; afterwards ``result`` is what came of it."""

    def __init__(
        self,
        session: Session,
        kind: str,
        model: str,
        work: Callable[[BaseModelProvider, str], Awaitable[_T]],
    ) -> None:
        self._session = session
        self._kind = kind
        self._model = model
        self._work = work
        self._route: Route | None = None
        self._elapsed_s: float | None = None
        self.result: _T

    async def events(self) -> AsyncGenerator[Progress, None]:
        """Walk it."""
        self._route = route = await find_route(self._session, self._model)
        with logged(self._session, self._kind, lambda: route, self.response):
            yield Progress(f"waiting for {route.name}")
            began = time.perf_counter()
            # Their prices are by the picture and the minute, which no list here has.
            with self._session.budget.held(route.name, None):
                self.result = await self._work(route.provider, route.model)
            self._elapsed_s = time.perf_counter() - began

    def response(self) -> Response:
        """The measurements of the call, as a response without text."""
        name = self._route.name if self._route else ""
        return Response("", name, "stop", timing=Timing(e2e_s=self._elapsed_s))


def image_call(
    session: Session, prompt: str, model: str, options: dict[str, Any]
) -> MediaCall[list[bytes]]:
    """Pictures of ``prompt``; ``options`` as the service has them."""
    return MediaCall(
        session,
        "image",
        model,
        lambda provider, name: provider.generate_image(prompt, name, **options),
    )


def transcription_call(
    session: Session, audio: bytes, model: str, options: dict[str, Any]
) -> MediaCall[Transcript]:
    """What is said in ``audio``; ``options`` as the service has them."""
    return MediaCall(
        session,
        "transcription",
        model,
        lambda provider, name: provider.transcribe(audio, name, **options),
    )
