"""The background work of the panel: listings, health checks, pulls and deletes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

from llm_magics._async.bridge import bridge
from llm_magics._util.text import display_name, escape_controls
from llm_magics.errors import LLMError
from llm_magics.host import Progress
from llm_magics.notebook.markdown import to_plain_text
from llm_magics.providers.base import ModelInfo
from llm_magics.runtime.models import PullCall, delete_model, with_price
from llm_magics.runtime.session import Session
from llm_magics.secrets import redact

# A listing older than this is requested again when it is displayed.
_LISTING_TTL_S = 10.0

# The timeout of a health check, which is only displayed.
_HEALTH_TIMEOUT_S = 10.0


class Health(NamedTuple):
    """The status of a provider (``ok``, ``unavailable`` or ``asking``) and its description."""

    status: str
    detail: str
    is_set_up: bool = True

    def as_displayed(self) -> dict[str, str]:
        """Return the status with its words and description, for the panel."""
        is_missing = self.status == "unavailable" and not self.is_set_up
        status = "missing" if is_missing else self.status
        words = _WORDS.get(status, status)
        texts = {"status": status, "words": words, "detail": self.detail}
        return {key: escape_controls(to_plain_text(text)) for key, text in texts.items()}


CHECKING = Health("asking", "")

_WORDS = {
    "ok": "ready",
    "unavailable": "not ready",
    "missing": "not set up",
    "asking": "connecting …",
}


class ProviderListings:
    """
    The models and the health of each provider, as far as they are known.

    ``changed`` is called in the bridge's thread after each update.
    """

    def __init__(self, session: Session, changed: Callable[[], None]) -> None:
        self._session = session
        self._changed = changed
        self._requested_at: dict[str, float] = {}
        self._running: set[asyncio.Task[Any]] = set()
        self._cancels: dict[str, Callable[[], None]] = {}
        self.names = session.providers.listed_names()
        self.unlisted = session.providers.unlisted_names()
        self.models: dict[str, list[ModelInfo]] = {}
        self.health: dict[str, Health] = {}

    def request(self, names: Sequence[str], *, is_forced: bool = False) -> None:
        """Request the listings that are missing or old; with ``is_forced``, all of them."""
        now = time.monotonic()
        for name in names:
            if is_forced or now - self._requested_at.get(name, float("-inf")) > _LISTING_TTL_S:
                self._requested_at[name] = now
                self._cancels[name] = bridge.start(self._update(name))

    def request_all(self, timeout_s: float) -> None:
        """Request all listings and wait at most ``timeout_s``; slower ones are added later."""
        bridge.run(self._request_all(timeout_s))

    async def _request_all(self, timeout_s: float) -> None:
        self._requested_at |= dict.fromkeys(self.names, time.monotonic())
        asking = [asyncio.create_task(self._update(name)) for name in self.names]
        await asyncio.wait(asking, timeout=timeout_s)

    def close(self) -> None:
        """Cancel all running requests, and wait until they have ended."""
        for cancel in self._cancels.values():
            cancel()
        bridge.run(self._close())

    async def _close(self) -> None:
        running = self._running.copy()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _update(self, name: str) -> None:
        """Update the models and health of a provider; the health is set when both are known."""
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        async with asyncio.TaskGroup() as group:
            health = group.create_task(self._how_is(name))
            (listed,) = await self._session.listings.of([name])
            if isinstance(listed, BaseException):
                self.models.setdefault(name, [])
            else:
                self.models[name] = [with_price(self._session, name, info) for info in listed]
        self.health[name] = health.result()
        self._changed()

    def capabilities(self, name: str) -> tuple[str, ...]:
        """Return what the provider can do, among it ``pull`` and ``delete``."""
        try:
            return tuple(self._session.provider(name).capabilities)
        except LLMError:  # its settings are invalid, which its health tells
            return ()

    async def _how_is(self, name: str) -> Health:
        try:
            async with asyncio.timeout(_HEALTH_TIMEOUT_S):
                report = await self._session.provider(name).health_check()
        except TimeoutError:
            return Health("unavailable", f"no response within {_HEALTH_TIMEOUT_S:.0f} s")
        except Exception as error:  # a provider of a plugin may raise any error
            return Health("unavailable", redact(f"{error} {getattr(error, 'hint', None) or ''}"))
        status, detail = str(report.get("status", "")), str(report.get("detail", ""))
        return Health(status, redact(detail), self._session.provider(name).is_set_up)


class BackgroundTask:
    """
    Runs one pull or delete at a time.

    Attributes:
        is_going_on: whether a task is running.
        name: what the task does, in words.
        progress: the progress of the task.
        said: the message about the end of the last task.
        failed: whether the last task has not succeeded.

    ``changed`` is called in the bridge's thread after each change.
    """

    def __init__(self, session: Session, changed: Callable[[], None]) -> None:
        self._session = session
        self._changed = changed
        self._task: asyncio.Task[None] | None = None
        self.is_going_on = False
        self.name = ""
        self.progress: Progress | None = None
        self.said = ""
        self.failed = False

    def pull(self, model: str) -> None:
        """Download ``model``."""
        self.name = f"Pulling {display_name(model)}"
        self._begin(self._pulled(model), f"{display_name(model)} is ready.")

    def delete(self, model: str) -> None:
        """Delete the weights of ``model``."""
        self.name = f"Deleting {display_name(model)}"
        self._begin(delete_model(self._session, model), f"Deleted {display_name(model)}.")

    def stop(self) -> None:
        """Stop the running task."""
        bridge.start(self._stopped())

    def _begin(self, work: Coroutine[Any, Any, None], ending: str) -> None:
        self.said, self.failed, self.is_going_on = "", True, True
        bridge.start(self._done(work, ending))

    async def _done(self, work: Coroutine[Any, Any, None], ending: str) -> None:
        self._task = asyncio.create_task(work)
        try:
            await self._task
            self.said, self.failed = ending, False
        except asyncio.CancelledError:
            self.said = f"{self.name}: cancelled."
        except Exception as error:  # the panel displays all errors
            self.said = redact(f"{error} {getattr(error, 'hint', None) or ''}".strip())
        finally:
            self.is_going_on, self.progress = False, None
            self._changed()

    async def _stopped(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _pulled(self, model: str) -> None:
        async with aclosing(PullCall(self._session, model).events()) as events:
            async for progress in events:
                self.progress = progress
                self._changed()
