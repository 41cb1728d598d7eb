"""Calls for images and transcriptions, with the usual retries, limits and log."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Generic, TypeVar

from llm_magics.attachments import Transcript
from llm_magics.host import Progress
from llm_magics.providers.base import BaseModelProvider
from llm_magics.runtime.attempts import Attempt, Attempts, attempts
from llm_magics.runtime.response import Response
from llm_magics.runtime.routing import Candidate, Route, find_candidates, log_call, route_to
from llm_magics.runtime.session import Session
from llm_magics.types import Timing

_T = TypeVar("_T")


class MediaCall(Generic[_T]):
    """A call for images or a transcription; afterwards ``result`` contains its result."""

    def __init__(
        self,
        session: Session,
        *,
        kind: str,
        model: str,
        work: Callable[[BaseModelProvider, str], Awaitable[_T]],
    ) -> None:
        self._session = session
        self._kind = kind
        self._model = model
        self._work = work
        self._route: Route | None = None
        self._attempts: Attempts | None = None
        self._elapsed_s: float | None = None
        self.result: _T

    async def events(self) -> AsyncGenerator[Progress, None]:
        """Send the request and yield its progress."""
        found = await find_candidates(self._session, self._model)
        # With only one name, an invalid name ends the call before it is logged.
        only = await route_to(self._session, found[0]) if len(found) == 1 else None
        self._route = only

        async def resolve(candidate: Candidate) -> Route:
            return only or await route_to(self._session, candidate)

        # No estimate: they are billed per image or minute, and no price list here has such prices.
        self._attempts = attempts(self._session, found, resolve)
        with log_call(self._session, self._kind, lambda: self._route, self.response):
            async for attempt in self._attempts:
                self._route = attempt.route
                async with attempt, aclosing(self._sent(attempt)) as events:
                    async for event in events:
                        yield event

    async def _sent(self, attempt: Attempt) -> AsyncGenerator[Progress, None]:
        async with aclosing(attempt.ready()) as steps:
            async for progress in steps:
                yield progress
        yield Progress(f"waiting for {attempt.route.name}")
        began = time.perf_counter()
        self.result = await self._work(attempt.route.provider, attempt.route.model)
        self._elapsed_s = time.perf_counter() - began

    def response(self) -> Response:
        """Return the measurements of the call, as a response without text."""
        run, route = self._attempts, self._route
        timing = Timing(e2e_s=self._elapsed_s, load_s=route.load_s if route else 0.0)
        return Response(
            "",
            route.name if route else "",
            "stop",
            timing=timing,
            retries=run.retries if run else 0,
            fallback_from=tuple(run.failed) if run else (),
        )


def image_call(
    session: Session, prompt: str, model: str, options: dict[str, Any]
) -> MediaCall[list[bytes]]:
    """Return the call that generates images of ``prompt``, with ``options`` of the service."""
    return MediaCall(
        session,
        kind="image",
        model=model,
        work=lambda provider, name: provider.generate_image(prompt, name, **options),
    )


def transcription_call(
    session: Session, audio: bytes, model: str, options: dict[str, Any]
) -> MediaCall[Transcript]:
    """Return the call that transcribes ``audio``, with ``options`` of the service."""
    return MediaCall(
        session,
        kind="transcription",
        model=model,
        work=lambda provider, name: provider.transcribe(audio, name, **options),
    )
