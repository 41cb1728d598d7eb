"""Create providers from the user's settings and keys, and cache the lists of their models."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llm_magics.errors import ConfigurationError, ConnectionError, nearest
from llm_magics.providers import (
    built_in_providers,
    create_provider,
    get_available_providers,
    is_service,
    provider_type,
    service_names,
)
from llm_magics.providers.base import BaseModelProvider, ModelInfo
from llm_magics.providers.services import AddressPart, find_service, services
from llm_magics.secrets import OpaqueKey, Secret, environment_value, strip_whitespace
from llm_magics.settings import credentials
from llm_magics.settings.config import Config, cache_folder, provider_variables
from llm_magics.settings.files import is_project_file


@dataclass(frozen=True, slots=True, kw_only=True)
class _Created:
    """
    A provider, and the state from which it was created.

    Attributes:
        state: its settings and the environment variables of its service.
        changes: the number of changes of the settings until then.
        environment: the environment variables that may set any of its settings.
        files: the version of the files of trust and keys; ``None`` if it depends on neither.
    """

    provider: BaseModelProvider
    state: OpaqueKey
    changes: int
    environment: Mapping[str, str | None] = field(repr=False)
    files: object

    def is_current(self, changes: int) -> bool:
        """Return whether nothing has changed since; ``changes`` is the current number."""
        return (
            self.changes == changes
            and all(os.environ.get(name) == value for name, value in self.environment.items())
            and (self.files is None or self.files == credentials.files_version())
        )


# Settings of a provider whose default is taken from a setting for all providers.
_SHARED_DEFAULTS: dict[str, Callable[[Config], Any]] = {
    "max_line_mb": lambda config: config.max_line_mb,
    "max_response_mb": lambda config: config.max_response_mb,
    "weights_dir": lambda config: cache_folder() / "weights",
}


class ProviderPool:
    """All providers; each is created on first use, and again when its settings change."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._created: dict[str, _Created] = {}
        self._changes = 0
        config.watch(self._count_change)

    def _count_change(self) -> None:
        self._changes += 1

    def get(self, name: str) -> BaseModelProvider:
        """Return the provider called ``name``; it is created again when its settings change."""
        known = self._created.get(name)
        if known is None or not known.is_current(self._changes):
            known = self._created[name] = self._refresh(name, known)
        return known.provider

    def _refresh(self, name: str, known: _Created | None) -> _Created:
        """Return a provider with the current settings: ``known``, if these have not changed."""
        changes = self._changes
        self._check_names()
        kind = provider_type(self._type_of(name))
        keys = ["type", *self._setting_names(name, kind)]
        settings = self.config.for_provider(name, keys)
        if isinstance(key := settings.get("api_key"), str) and not strip_whitespace(key):
            del settings["api_key"]  # a blank key counts as unset
        for setting, default in _SHARED_DEFAULTS.items():
            if setting in kind.config_type.model_fields:
                settings.setdefault(setting, default(self.config))
        own = (*kind.environment, *kind.config_type.named_variables(name, settings))
        needs_key = "api_key" in kind.config_type.model_fields and not settings.get("api_key")
        is_of_project = bool(self._address_of_project(name)[1])
        files = credentials.files_version() if needs_key or is_of_project else None
        if needs_key:
            settings |= self._key_of_the_keyring(name, kind, settings)
        environment = {each: os.environ.get(each) for each in own}
        state = OpaqueKey((settings, environment, files if is_of_project else None))
        if known is not None and known.state == state:
            provider = known.provider
        else:
            self._check_address_of_project(name, kind, settings)
            provider = self._create(name, settings)
        variables = provider_variables(name, keys).values()
        return _Created(
            provider=provider,
            state=state,
            changes=changes,
            environment={each: os.environ.get(each) for each in (*own, *variables)},
            files=files,
        )

    def _setting_names(self, name: str, kind: type[BaseModelProvider]) -> list[str]:
        return kind.config_type.setting_names(name, self._service_settings(name))

    def _service_settings(self, name: str) -> dict[str, Any]:
        """Return the settings that select the service of the provider called ``name``."""
        return {key: self.config.get(f"providers.{name}.{key}") for key in ("profile", "type")}

    def takes_key(self, name: str) -> bool:
        """Return whether the provider called ``name`` can have a key."""
        return "api_key" in provider_type(self._type_of(name)).config_type.model_fields

    def known_names(self) -> list[str]:
        """Return the names of providers that are known without searching the installed packages."""
        return sorted({*built_in_providers(), *service_names(), *self._configured_names()})

    def listed_names(self) -> list[str]:
        """Return all providers except the services that the user has not set up or named."""
        used = self._used_names()
        return [name for name in self.names() if not is_service(name) or self._is_used(name, used)]

    def _used_names(self) -> set[str]:
        """Return the providers that the settings or calls in this session name."""
        config = self.config
        models = {config.model, config.embedding_model, config.image_model}
        models.add(config.transcription_model)
        for alias in config.aliases.values():
            models.add(alias if isinstance(alias, str) else alias.model)
        for route in config.routes.values():
            models.update(route if isinstance(route, list) else route.models)
        named = [key.split(".")[1] for key, *_ in config.items() if key.startswith("providers.")]
        return {*named, *self._created, *(str(model).partition("/")[0] for model in models)}

    def missing_parts(self, name: str) -> list[AddressPart]:
        """Return the parts of the address of the service called ``name`` that are not set."""
        service = services()[name]
        settings = self.config.for_provider(name, [part.name for part in service.parts])
        return service.missing_parts(settings)

    def _is_used(self, name: str, used: Collection[str]) -> bool:
        """Return whether the service called ``name`` is set up, or one of ``used``."""
        service = services()[name]
        if name in used:
            return True
        settings = self.config.for_provider(name, ["api_key", *(p.name for p in service.parts)])
        in_environment = environment_value(service.key_variable) and not service.shares_key
        has_key = settings.get("api_key") or in_environment or credentials.has_key(name)
        return bool(has_key) and not service.missing_parts(settings)

    def names(self) -> list[str]:
        """Return the names of all providers, including those that settings define by a ``type``."""
        return sorted({*get_available_providers(), *self._configured_names()})

    def _configured_names(self) -> set[str]:
        parts = [key.split(".") for key, _, _ in self.config.items()]
        return {part[1] for part in parts if part[0] == "providers" and part[2] == "type"}

    def _type_of(self, name: str) -> str:
        return str(self.config.get(f"providers.{name}.type") or name)

    def _check_address_of_project(
        self, name: str, kind: type[BaseModelProvider], settings: dict[str, Any]
    ) -> None:
        """Raise `ConfigurationError` if an untrusted project would receive the user's own key."""
        where, source = self._address_of_project(name)
        if not source or credentials.is_trusted(self.config):
            return
        secret_source = self._secret_source(name, kind, settings, source)
        if not secret_source:
            return
        value = settings[where]
        msg = f"{source} sets the address of {name} to {value}, and your API key ({secret_source}) would be sent there."
        hint = f"If you trust it, run %llm trust, or %llm config providers.{name}.{where} {value}"
        raise ConfigurationError(msg, hint=hint, provider=name)

    def _address_of_project(self, name: str) -> tuple[str, str]:
        """Return the setting of a project that sets the address of ``name``, and its file."""
        others = {*credentials.ADDRESS_PARTS} - {*self._address_parts(name)}
        for key in credentials.LOCATION_SETTINGS:
            source = "default" if key in others else self.config.source(f"providers.{name}.{key}")
            if is_project_file(source):
                return key, source
            if key == "base_url" and source != "default":
                break  # the user has set the address, so the project's do not apply
        return "", ""

    def _address_parts(self, name: str) -> list[str]:
        """Return the settings of ``name`` that are parts of the address of its service."""
        service = find_service(name, self._service_settings(name))
        return [part.name for part in service.parts] if service else []

    def _secret_source(
        self, name: str, kind: type[BaseModelProvider], settings: dict[str, Any], project: str
    ) -> str:
        """Return the source of the user's key that would be sent; empty without such a key."""
        if isinstance(settings.get("api_key"), Secret):  # only the keyring's are still wrapped
            return "keyring"
        for key in ("api_key", "extra_headers"):
            source = self.config.source(f"providers.{name}.{key}")
            if settings.get(key) and source != project:
                return source
        if settings.get("api_key"):  # the project's own key
            return ""
        if self._type_of(name) == name:
            return kind.own_key_source()
        variable = kind.config_type.named_key_variable(name, settings)
        # A known service's key may always be sent to the service's own address.
        parts = self._address_parts(name)
        is_own_place = not any(
            is_project_file(self.config.source(f"providers.{name}.{key}"))
            for key in ("base_url", *parts)
        )
        return variable if environment_value(variable) and not is_own_place else ""

    def _create(self, name: str, settings: dict[str, Any]) -> BaseModelProvider:
        try:
            return create_provider(name, settings)
        except ConfigurationError as error:
            source = self.config.source(f"providers.{name}.{error.code}")
            prefix = "" if source == "default" else f"{source}: "
            raise ConfigurationError(
                f"{prefix}{error}", hint=error.hint, provider=name, code=error.code
            ) from None

    def _key_of_the_keyring(
        self, name: str, kind: type[BaseModelProvider], settings: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the key in the system keyring, if settings and environment have none."""
        if environment_value(kind.config_type.named_key_variable(name, settings)):
            return {}
        if self._type_of(name) == name and kind.own_key_source():
            return {}
        key = credentials.load_key(name)
        return {"api_key": key} if key else {}

    def _check_names(self) -> None:
        named = {
            key.split(".")[1]: source
            for key, _, source in self.config.items()
            if key.startswith("providers.")
        }
        # Finding the providers of other packages requires a search of all installed packages. This
        # runs for every call, so the search is only done for unknown names.
        unknown = set(named) - {*built_in_providers()} - self._configured_names()
        unknown -= {*service_names()} if unknown else set()
        available = self.names() if unknown else []
        for name in sorted(unknown):
            if name not in available:
                source = named[name]
                msg = f'{source}: no provider is named "{name}".'
                hint = f"{nearest(name, available)} For a compatible server set providers.{name}.type."
                raise ConfigurationError(msg, hint=hint)

    async def close(self) -> None:
        """Close all providers."""
        closing = (each.provider.close() for each in self._created.values())
        await asyncio.gather(*closing, return_exceptions=True)


ModelList = list[ModelInfo]

# The maximum time to wait for a list, if there is an older one, and if there is none.
_REFRESH_TIMEOUT_S = 1.0
_FIRST_TIMEOUT_S = 8.0


class ModelListCache:
    """The models of each provider, by name. Use it only on the bridge's loop."""

    def __init__(self, provider: Callable[[str], BaseModelProvider]) -> None:
        """Create the cache for the providers that ``provider`` returns by name."""
        self._provider = provider
        self._known: dict[str, tuple[BaseModelProvider, float, ModelList]] = {}
        self._asking: dict[BaseModelProvider, asyncio.Task[ModelList]] = {}

    async def of(
        self, names: Sequence[str], max_age_s: float = 2.0
    ) -> list[ModelList | BaseException]:
        """
        Return the models of each provider in ``names``, or its error; all are requested
        concurrently.

        A list older than ``max_age_s`` is requested again. A slow provider does not delay the
        caller for
        long: its previous list is returned, and the new one the next time.
        """
        return list(
            await asyncio.gather(
                *(self._one(name, max_age_s) for name in names), return_exceptions=True
            )
        )

    async def _one(self, name: str, max_age_s: float) -> ModelList:
        provider = self._provider(name)
        known = self._known.get(name)
        last = known[2] if known and known[0] is provider else None
        if known and last is not None and time.monotonic() - known[1] <= max_age_s:
            return last
        asking = self._asking.get(provider)
        if asking is None:
            asking = self._asking[provider] = asyncio.create_task(self._ask(name, provider))
            asking.add_done_callback(lambda done: self._ended(provider, done))
        timeout_s = _FIRST_TIMEOUT_S if last is None else _REFRESH_TIMEOUT_S
        await asyncio.wait([asking], timeout=timeout_s)
        if asking.done():
            return asking.result()
        if last is not None:
            return last
        msg = f"{name} did not list its models within {timeout_s:.0f} s."
        raise ConnectionError(msg, hint="Try again in a moment.", provider=name)

    def _ended(self, provider: BaseModelProvider, asking: asyncio.Task[ModelList]) -> None:
        self._asking.pop(provider, None)
        if not asking.cancelled():
            asking.exception()  # mark it as retrieved: no caller waits for it

    async def _ask(self, name: str, provider: BaseModelProvider) -> ModelList:
        models = await provider.describe_models()
        self._known[name] = (provider, time.monotonic(), models)
        return models

    def models(self) -> dict[str, ModelInfo]:
        """Return all models in the cache by their full names."""
        known = self._known.copy()
        return {
            f"{name}/{info.name}": info
            for name, (_, _, models) in known.items()
            for info in models
        }

    def forget(self, name: str) -> None:
        """Remove the list of ``name`` from the cache, because its models have changed."""
        self._known.pop(name, None)

    async def close(self) -> None:
        """Cancel all requests."""
        for asking in list(self._asking.values()):
            asking.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
