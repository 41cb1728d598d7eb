"""A model fetched or deleted behind one's back, with its progress."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

from llm_magics._async.bridge import bridge
from llm_magics._util.terminal import shown_name
from llm_magics.progress import Progress
from llm_magics.runtime.models import PullCall, delete_model
from llm_magics.runtime.session import Session
from llm_magics.secrets import redact


class Work:
    """
    One piece of work at a time, ``is_going_on`` or not.

    ``changed`` is called on the bridge's thread when it moves on; ``progress`` is how far it
    is, ``said`` how the last one ended, and ``failed`` whether it did not do its work.
    """

    def __init__(self, session: Session, changed: Callable[[], None]) -> None:
        self._session = session
        self._changed = changed
        self._task: asyncio.Task[None] | None = None
        self.is_going_on = False
        self.progress: Progress | None = None
        self.said = ""
        self.failed = False

    def pull(self, model: str) -> None:
        """Fetch ``model``."""
        self._begin(self._pulled(model), f"{shown_name(model)} is here.")

    def delete(self, model: str) -> None:
        """Delete the weights of ``model``."""
        self._begin(delete_model(self._session, model), f"{shown_name(model)} is deleted.")

    def stop(self) -> None:
        """End it."""
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
            self.said = "Stopped."
        except Exception as error:  # whatever it is, it is told of in the panel
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
