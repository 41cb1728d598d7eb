"""Models fetched and deleted, providers asked for their health."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any

from llm_magics.engine.road import find_route
from llm_magics.engine.session import Session
from llm_magics.progress import Progress
from llm_magics.secrets import redact

if TYPE_CHECKING:
    from pandas import DataFrame


class PullCall:
    """A model on its way to this machine."""

    def __init__(self, session: Session, model: str) -> None:
        self._session = session
        self._model = model

    async def events(self) -> AsyncGenerator[Progress, None]:
        """Fetch it, yielding how far that has come."""
        route = await find_route(self._session, self._model)
        async for progress in route.provider.pull_model(route.model):
            yield progress
        self._session.listings.forget(route.provider.name)


async def delete_model(session: Session, model: str) -> None:
    """Delete the weights of ``model``."""
    route = await find_route(session, model)
    await route.provider.delete_model(route.model)
    session.listings.forget(route.provider.name)


async def health(session: Session, names: Sequence[str] | None = None) -> DataFrame:
    """Return one row a provider, of all or of ``names``: its status, and the reason in words."""
    from llm_magics._util.tables import WideFrame

    names = names or session.providers.names()
    found = await session.ask_all(names, lambda provider: provider.health_check())
    rows = [(name, *_status(result)) for name, result in zip(names, found, strict=True)]
    return WideFrame(rows, columns=["provider", "status", "detail"])


def _status(result: dict[str, Any] | BaseException) -> tuple[str, str]:
    if isinstance(result, BaseException):
        return "unavailable", redact(f"{type(result).__name__}: {result}")
    return redact(str(result.get("status", ""))), redact(str(result.get("detail", "")))
