"""The shared state of a notebook: its settings, its providers and its log."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from platformdirs import user_data_path

from llm_magics._async.bridge import bridge
from llm_magics.errors import ConfigurationError, LLMError
from llm_magics.host import warn
from llm_magics.providers.base import BaseModelProvider
from llm_magics.runtime.history.entries import Details
from llm_magics.runtime.history.retention import Limits
from llm_magics.runtime.history.writer import History
from llm_magics.runtime.model_list_cache import ModelListCache
from llm_magics.runtime.policies.budget import Budget
from llm_magics.runtime.policies.rate_limit import RateLimiter
from llm_magics.runtime.policies.retry import CircuitBreakers
from llm_magics.runtime.prompts.prompt import Conversations
from llm_magics.runtime.provider_pool import ProviderPool
from llm_magics.runtime.response import Response
from llm_magics.runtime.storage.answer_cache import Cache
from llm_magics.runtime.storage.job_journal import Journal
from llm_magics.runtime.storage.recordings import Recording
from llm_magics.runtime.storage.run_log import Run, RunLog
from llm_magics.settings.config import Config, cache_folder, config
from llm_magics.settings.credentials import is_trusted
from llm_magics.settings.files import is_project_file

if TYPE_CHECKING:
    from llm_magics.runtime.storage.vector_store import VectorStore

_T = TypeVar("_T")


class Session:
    """The shared state behind the magics, the accessor and ``lm.…``."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.runs = RunLog()
        self.circuit_breakers = CircuitBreakers()
        self.conversations = Conversations()
        self.listings = ModelListCache(self.provider)
        self._budget = Budget()
        self._cache: tuple[Any, Cache | None] = (None, None)
        self._history: tuple[Any, History | None] = (None, None)
        self._history_path: tuple[Any, Path | None] = (None, None)
        self._journal: Journal | None = None
        self._limiters: dict[str, tuple[BaseModelProvider, int, RateLimiter]] = {}
        self._recording: tuple[Any, Recording | None] = ((None, None, False), None)
        self._vectors: dict[str, VectorStore] = {}
        self._turns: dict[str, int] = {}
        self.checked_batches: set[str] = set()  # models that were tested for batch consistency
        self.providers = ProviderPool(config)
        bridge.at_exit(self.close)

    def provider(self, name: str, *, in_use: bool = False) -> BaseModelProvider:
        """Return the provider called ``name``, see `ProviderPool.get`."""
        return self.providers.get(name, in_use=in_use)

    def limiter(self, provider: BaseModelProvider) -> RateLimiter:
        """Return the rate limiter of ``provider``; a new one after its settings have changed."""
        known = self._limiters.get(provider.name)
        process = os.getpid()  # a forked process cannot release its parent's permits
        if known is None or known[:2] != (provider, process):
            own = provider.config
            limiter = RateLimiter(
                concurrency=own.concurrency,
                requests_per_minute=own.requests_per_minute,
                tokens_per_minute=own.tokens_per_minute,
            )
            known = self._limiters[provider.name] = (provider, process, limiter)
        return known[2]

    @property
    def budget(self) -> Budget:
        """The budget in the settings; its spent amount restarts when the settings change it."""
        limit_usd = self.config.budget
        if limit_usd != self._budget.limit_usd:
            self._budget.allow(limit_usd)
        return self._budget

    @property
    def cache(self) -> Cache | None:
        """The cache of answers, if the settings enable it."""
        return self.answer_cache if self.config.cache else None

    @property
    def answer_cache(self) -> Cache:
        """The cache of answers, whether or not the settings enable it."""
        key = (cache_folder() / "answers.sqlite", self.config.cache_mb * 1_000_000)
        if self._cache[1] is None or self._cache[0] != key:
            self._cache = (key, Cache(*key))
        assert self._cache[1] is not None
        return self._cache[1]

    def log(self, run: Run, response: Response, details: Details) -> None:
        """Add a call to the log of this session, and to the history."""
        self.runs.add(run)
        try:
            history = self.history
        except LLMError as error:  # of a setting; the answer must not be lost because of it
            warn(f"The call is not stored in the history: {error}")
            return
        if history is not None:
            history.add(run, response, details)

    @property
    def history(self) -> History | None:
        """The history of all sessions; ``None`` if the settings turn it off."""
        config = self.config
        path = self.history_path
        if path is None:
            return None
        key = (path, config.history_contents, config.history_mb, config.history_days)
        if self._history[0] != key:
            if self._history[1] is not None:
                self._history[1].close()
            limits = Limits(
                max_bytes=self._own_setting("history_mb") * 1_000_000,
                max_days=self._own_setting("history_days"),
            )
            history = History(path, limits, with_contents=config.history_contents)
            self._history = (key, history)
        return self._history[1]

    @property
    def history_path(self) -> Path | None:
        """The file of the history; ``None`` if the settings turn it off."""
        setting: str = self.config.history
        if setting == "off":
            return None
        key = (setting, self.config.source("history"))
        if self._history_path[0] == key:
            return self._history_path[1]
        if setting == "on":
            path = user_data_path("llm_magics", appauthor=False) / "history.sqlite"
        else:
            self._check_own_folder("history", Path(setting))
            path = Path(setting).expanduser()
        if not path.is_absolute():  # it depends on the current folder
            return path.absolute()
        self._history_path = (key, path)
        return path

    def _own_setting(self, key: str) -> Any:
        """Return a setting; the default in place of a value of a project that is not trusted."""
        # Otherwise opening a project could delete the user's history.
        if is_project_file(self.config.source(key)) and not is_trusted(self.config):
            from llm_magics.settings.schema import Settings

            return Settings.model_fields[key].default
        return self.config.get(key)

    @property
    def journal(self) -> Journal:
        """The journal of batch jobs, next to the cache of answers."""
        path = cache_folder() / "jobs.sqlite"
        if self._journal is None or self._journal.path != path:
            self._journal = Journal(path)
        return self._journal

    @property
    def vectors_folder(self) -> Path | None:
        """The folder of stored vectors; ``None`` if vectors are not stored."""
        folder = self.config.vectors
        if folder == Path("off"):
            return None
        return folder.expanduser().absolute() if folder else cache_folder() / "vectors"

    def vectors(self, space: dict[str, Any]) -> VectorStore | None:
        """Return the stored vectors of ``space``; ``None`` if vectors are not stored."""
        from llm_magics.runtime.storage.vector_store import VectorStore

        folder = self.vectors_folder
        if folder is None:
            return None
        key = json.dumps([str(folder), os.getpid(), space], sort_keys=True, default=str)
        if key not in self._vectors:
            self._vectors[key] = VectorStore(folder, space)
        return self._vectors[key]

    @property
    def recording(self) -> Recording | None:
        """The recording in use, if any; it is read again when the settings change."""
        config = self.config
        paths = (_absolute_path(config.record), _absolute_path(config.replay))
        if (*paths, config.replay_strict) != self._recording[0]:
            if config.record is not None and paths[0]:
                self._check_own_folder("record", config.record)
            path = config.record if paths[0] else config.replay if paths[1] else None
            recording = path and Recording(
                path=path,
                records=paths[0] is not None,
                plays=paths[1] is not None,
                strict=config.replay_strict,
            )
            if self._recording[1] is not None:
                self._recording[1].tidy()
            self._recording = ((*paths, config.replay_strict), recording or None)
        return self._recording[1]

    def _check_own_folder(self, key: str, path: Path) -> None:
        """Raise `ConfigurationError` if a project's file stores calls outside its own folder."""
        source = self.config.source(key)
        if not is_project_file(source):
            return
        folder = Path(source.removeprefix("file ")).parent.resolve()
        if not (folder / path.expanduser()).resolve().is_relative_to(folder):
            msg = f"{source} sets {key} to {path}, outside its own folder."
            raise ConfigurationError(msg, hint=f"To allow it, run: %llm config {key} {path}")

    def turn(self, route: str) -> int:
        """Return the number of the next round of ``route``, from 0."""
        self._turns[route] = self._turns.get(route, -1) + 1
        return self._turns[route]

    async def model_names(self) -> dict[str, list[str]]:
        """Return the models of every provider that responds, by provider."""
        names = self.providers.listed_names()
        found = await self.ask_all(names, lambda provider: provider.list_models())
        return {
            name: models
            for name, models in zip(names, found, strict=True)
            if not isinstance(models, BaseException)
        }

    async def ask_all(
        self, names: Sequence[str], ask: Callable[[BaseModelProvider], Awaitable[_T]]
    ) -> list[_T | BaseException]:
        """Return each provider's result of ``ask``, or its error, independent of the others."""

        async def one(name: str) -> _T:
            return await ask(self.provider(name))

        return await asyncio.gather(*map(one, names), return_exceptions=True)

    async def close(self) -> None:
        """Close every provider, the cache and the recording."""
        await self.listings.close()
        if self._cache[1] is not None:
            self._cache[1].close()
        if self._history[1] is not None:
            await asyncio.to_thread(self._history[1].close)
        if self._journal is not None:
            self._journal.close()
        if self._recording[1] is not None:
            self._recording[1].tidy()
        await self.providers.close()


def _absolute_path(path: Path | None) -> Path | None:
    """Return ``path`` as an absolute path; ``None`` if it is unset or ``off``."""
    return None if path in (None, Path("off")) else path.expanduser().absolute()


session = Session(config)
