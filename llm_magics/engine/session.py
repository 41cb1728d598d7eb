"""What one notebook shares: its settings, its providers and its log."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from llm_magics.bridge import bridge
from llm_magics.engine.listings import Listings
from llm_magics.errors import ConfigurationError, nearest
from llm_magics.policies.budget import Budget
from llm_magics.policies.cache import Cache
from llm_magics.policies.cooldown import Cooldowns
from llm_magics.policies.limits import Limiter
from llm_magics.policies.metrics import RunLog
from llm_magics.policies.recordings import Tape
from llm_magics.policies.threads import Threads
from llm_magics.providers import (
    built_in_providers,
    create_provider,
    get_available_providers,
    provider_type,
)
from llm_magics.providers.base import BaseModelProvider
from llm_magics.secrets import Unseen
from llm_magics.settings import keys, trust
from llm_magics.settings.config import Config, config
from llm_magics.settings.files import is_project_file
from llm_magics.settings.folders import cache_folder

_T = TypeVar("_T")


class Session:
    """The shared state behind the magics, the accessor and ``lm.…``."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.runs = RunLog()
        self.cooldowns = Cooldowns()
        self.threads = Threads()
        self.listings = Listings()
        self._budget = Budget()
        self._cache: tuple[Any, Cache | None] = (None, None)
        self._limiters: dict[str, tuple[BaseModelProvider, Limiter]] = {}
        self._tape: tuple[Any, Tape | None] = ((None, None, False), None)
        self._turns: dict[str, int] = {}
        self._providers: dict[str, tuple[Unseen, BaseModelProvider]] = {}
        bridge.at_exit(self.close)

    def provider(self, name: str) -> BaseModelProvider:
        """The provider called ``name``, set up by the settings; made anew when those change."""
        self._refuse_unknown_settings()
        made = provider_type(self._type_of(name))
        settings = self.config.for_provider(name, made.config_type.model_fields)
        own = (*made.environment, made.config_type.namesake_key_variable(name, settings))
        if "api_key" in made.config_type.model_fields and not settings.get("api_key"):
            settings |= self._key_of_the_keyring(name, made, settings)
        of_environment = [os.environ.get(variable) for variable in own]
        told = Unseen((settings, of_environment, trust.stamp()))
        known = self._providers.get(name)
        if known is None or known[0] != told:
            self._keep_key_from_strangers(name, made, settings)
            known = self._providers[name] = (told, self._created(name, settings))
        return known[1]

    def limiter(self, provider: BaseModelProvider) -> Limiter:
        """What bounds the calls of ``provider``; begun anew where its settings change."""
        known = self._limiters.get(provider.name)
        if known is None or known[0] is not provider:
            own = provider.config
            limiter = Limiter(own.concurrency, own.requests_per_minute, own.tokens_per_minute)
            known = self._limiters[provider.name] = (provider, limiter)
        return known[1]

    @property
    def budget(self) -> Budget:
        """What may be spent, by the settings; counted anew when they change."""
        limit_usd = self.config.budget
        if limit_usd != self._budget.limit_usd:
            self._budget.allow(limit_usd)
        return self._budget

    @property
    def cache(self) -> Cache | None:
        """The cache of answers, where the settings ask for one."""
        return self.answer_cache if self.config.cache else None

    @property
    def answer_cache(self) -> Cache:
        """The cache of answers, asked for or not."""
        told = (cache_folder() / "answers.sqlite", self.config.cache_mb * 1_000_000)
        if self._cache[1] is None or self._cache[0] != told:
            self._cache = (told, Cache(*told))
        assert self._cache[1] is not None
        return self._cache[1]

    def _key_of_the_keyring(
        self, name: str, made: type[BaseModelProvider], settings: dict[str, Any]
    ) -> dict[str, Any]:
        """The key that the user's system keeps, where neither settings nor environment have one."""
        if os.environ.get(made.config_type.namesake_key_variable(name, settings)):
            return {}
        if self._type_of(name) == name and made.own_key_source():
            return {}
        key = keys.stored(name)
        return {"api_key": key} if key else {}

    @property
    def tape(self) -> Tape | None:
        """The recording in use, if there is one; read anew when the settings change."""
        config = self.config
        record, replay = config.record, config.replay
        live = (None, Path("off"))
        told = (None if record in live else record, None if replay in live else replay)
        if (*told, config.replay_strict) != self._tape[0]:
            self._keep_writing_in_the_project(told[0])
            path = told[0] or told[1]
            made = path and Tape(
                path.expanduser(),
                records=told[0] is not None,
                plays=told[1] is not None,
                strict=config.replay_strict,
            )
            if self._tape[1] is not None:
                self._tape[1].tidy()
            self._tape = ((*told, config.replay_strict), made or None)
        return self._tape[1]

    def _keep_writing_in_the_project(self, record: Path | None) -> None:
        """A project's file may have answers recorded beside it, and nowhere else."""
        source = self.config.source("record")
        if record is None or not is_project_file(source):
            return
        folder = Path(source.removeprefix("file ")).parent.resolve()
        if not (folder / record.expanduser()).resolve().is_relative_to(folder):
            msg = f"{source} would write a recording to {record}, outside of its own folder."
            raise ConfigurationError(msg, hint=f"If you want that: %llm record {record}")

    def turn(self, route: str) -> int:
        """Which round of ``route`` this is, from 0."""
        self._turns[route] = self._turns.get(route, -1) + 1
        return self._turns[route]

    def takes_key(self, name: str) -> bool:
        """Whether the provider called ``name`` can have a key."""
        return "api_key" in provider_type(self._type_of(name)).config_type.model_fields

    def known_providers(self) -> list[str]:
        """The providers that are known without looking through what is installed."""
        return sorted({*built_in_providers(), *self._namesakes()})

    def provider_names(self) -> list[str]:
        """All that can be asked: those there are, and those that the settings add by a type."""
        return sorted({*get_available_providers(), *self._namesakes()})

    def _namesakes(self) -> set[str]:
        parts = [key.split(".") for key, _, _ in self.config.items()]
        return {part[1] for part in parts if part[0] == "providers" and part[2] == "type"}

    def _type_of(self, name: str) -> str:
        return str(self.config.get(f"providers.{name}.type") or name)

    def _keep_key_from_strangers(
        self, name: str, made: type[BaseModelProvider], settings: dict[str, Any]
    ) -> None:
        """A project's file may say where to ask, but not have the user's own key sent there."""
        where, source = self._chosen_by_a_project(name)
        if not source or trust.is_trusted(Path(source.removeprefix("file "))):
            return
        secret_source = self._secret_source(name, made, settings, source)
        if not secret_source:
            return
        value = settings[where]
        msg = f"{source} sends {name} to {value}, where your key would go too ({secret_source})."
        hint = f"If you trust it: %llm trust, or %llm config providers.{name}.{where} {value}"
        raise ConfigurationError(msg, hint=hint, provider=name)

    def _chosen_by_a_project(self, name: str) -> tuple[str, str]:
        """The setting by which a project's file decides where ``name`` is, and that file."""
        for key in trust.PLACES:
            source = self.config.source(f"providers.{name}.{key}")
            if is_project_file(source):
                return key, source
            if key == "base_url" and source != "default":
                break  # said by the user, whatever else the project says
        return "", ""

    def _secret_source(
        self, name: str, made: type[BaseModelProvider], settings: dict[str, Any], project: str
    ) -> str:
        """Where a key of the user's that would be sent comes from; nothing where there is none."""
        for key in ("api_key", "extra_headers"):
            source = self.config.source(f"providers.{name}.{key}")
            if key in settings and source != project:
                return "keyring" if source == "default" else source
        if "api_key" in settings:  # the project's own
            return ""
        if self._type_of(name) == name:
            return made.own_key_source()
        variable = made.config_type.namesake_key_variable(name, settings)
        # A well-known service at its own address is where its key belongs.
        is_own_place = "base_url" not in settings
        return variable if os.environ.get(variable) and not is_own_place else ""

    def _created(self, name: str, settings: dict[str, Any]) -> BaseModelProvider:
        try:
            return create_provider(name, settings)
        except ConfigurationError as error:
            source = self.config.source(f"providers.{name}.{error.code}")
            place = "" if source == "default" else f"{source}: "
            raise ConfigurationError(
                f"{place}{error}", hint=error.hint, provider=name, code=error.code
            ) from None

    async def model_names(self) -> dict[str, list[str]]:
        """The models of every provider that can be asked, by provider."""
        names = self.provider_names()
        found = await self.ask_all(names, lambda provider: provider.list_models())
        return {
            name: models
            for name, models in zip(names, found, strict=True)
            if not isinstance(models, BaseException)
        }

    async def ask_all(
        self, names: Sequence[str], ask: Callable[[BaseModelProvider], Awaitable[_T]]
    ) -> list[_T | BaseException]:
        """What each provider answers, or its error: one that is set up wrongly harms no other."""

        async def one(name: str) -> _T:
            return await ask(self.provider(name))

        return await asyncio.gather(*map(one, names), return_exceptions=True)

    async def close(self) -> None:
        """Close every provider, the cache and the recording."""
        await self.listings.close()
        if self._cache[1] is not None:
            self._cache[1].close()
        if self._tape[1] is not None:
            self._tape[1].tidy()
        closing = (provider.close() for _, provider in self._providers.values())
        await asyncio.gather(*closing, return_exceptions=True)

    def _refuse_unknown_settings(self) -> None:
        named = {
            key.split(".")[1]: source
            for key, _, source in self.config.items()
            if key.startswith("providers.")
        }
        # Asking for the available ones looks through all installed packages: only if need be.
        available = self.provider_names() if named else []
        for name, source in named.items():
            if name not in available:
                msg = f'{source}: there is no provider "{name}".'
                hint = f"{nearest(name, available)} A look-alike wants providers.{name}.type."
                raise ConfigurationError(msg, hint=hint)


session = Session(config)
