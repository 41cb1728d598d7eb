"""Create providers from the user's settings and keys."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from llm_magics._async.bridge import bridge
from llm_magics._util.text import display_name, quote_word
from llm_magics.errors import ConfigurationError, nearest
from llm_magics.http.connections import is_local_address
from llm_magics.providers import (
    built_in_providers,
    create_provider,
    get_available_providers,
    is_service,
    provider_type,
    service_names,
)
from llm_magics.providers.base import BaseModelProvider
from llm_magics.providers.identity import describe_identity, identity_variables
from llm_magics.providers.services import AddressPart, find_service, services
from llm_magics.secrets import OpaqueKey, Secret, environment_value, strip_whitespace
from llm_magics.settings import credentials
from llm_magics.settings.config import Config, cache_folder, provider_variables
from llm_magics.settings.files import is_project_file
from llm_magics.settings.hosted_secrets import HostedSecrets, describe_secret, find_platform


@dataclass(frozen=True, slots=True, kw_only=True)
class _Created:
    """
    A provider, and the state from which it was created.

    Attributes:
        state: its settings and the environment variables of its service.
        changes: the number of changes of the settings until then.
        environment: the environment variables that may set any of its settings.
        files: the version of the files of trust and keys; ``None`` if it depends on neither.
        key_source: where its key was found, in words; empty without a key.
    """

    provider: BaseModelProvider
    state: OpaqueKey
    changes: int
    environment: Mapping[str, str | None] = field(repr=False)
    files: object
    key_source: str

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


# The source of a key, in words.
_KEYRING = "keyring"


class ProviderPool:
    """All providers; each is created on first use, and again when its settings change."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._created: dict[str, _Created] = {}
        self._changes = 0
        self._hosted = HostedSecrets(bridge.call_in_caller)
        config.watch(self._count_change)

    def _count_change(self) -> None:
        self._changes += 1

    def get(self, name: str, *, in_use: bool = False) -> BaseModelProvider:
        """
        Return the provider called ``name``; it is created again when its settings change.

        Args:
            in_use: the user named this provider, or a model of it. Only then may its key be looked
                up in the secrets of a hosted notebook, which can show a dialog.
        """
        known = self._current(name)
        if in_use and _lacks_key(known.provider):
            variables, scope = _secret_names(known.provider.key_variable), self.config.secret_scope
            if any(self._hosted.look_up(each, scope) for each in variables):
                known = self._created[name] = self._refresh(name, known)
        return known.provider

    def _current(self, name: str) -> _Created:
        known = self._created.get(name)
        if known is None or not known.is_current(self._changes):
            known = self._created[name] = self._refresh(name, known)
        return known

    def key_source(self, name: str) -> str:
        """Return where the key of ``name`` was found, in words; empty if it has none."""
        return self._current(name).key_source

    def look_up_again(self, name: str) -> str:
        """
        Look up the key of ``name`` in the secrets of a hosted notebook again; return its source.

        The source is empty without such a secret, or if the key is from elsewhere.
        """
        if find_platform() is None:
            return ""
        with suppress(ConfigurationError):  # another setting is missing
            variables = _secret_names(self.get(name).key_variable)
            self._hosted.forget(variables)
            self._count_change()
            self.get(name, in_use=True)
            if (source := self.key_source(name)) in map(describe_secret, variables):
                return source
        return ""

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
        identity = kind.config_type.token_provider_of(name, settings)
        own = (
            *kind.environment,
            *kind.config_type.named_variables(name, settings),
            *identity_variables(identity),
        )
        takes_key = "api_key" in kind.config_type.model_fields and not identity
        needs_key = takes_key and not settings.get("api_key")
        is_of_project = bool(self._set_by_project(name)[1])
        files = credentials.files_version() if needs_key or is_of_project else None
        stored = self._stored_key(name, kind, settings) if needs_key else None
        if stored is not None:
            settings["api_key"] = stored[0]
        stored_source = stored[1] if stored else ""
        environment = {each: os.environ.get(each) for each in own}
        state = OpaqueKey((settings, environment, files if is_of_project else None))
        if known is not None and known.state == state:
            provider = known.provider
        else:
            self._check_address_of_project(name, kind, settings, stored_source)
            provider = self._create(name, settings)
        variables = provider_variables(name, keys).values()
        return _Created(
            provider=provider,
            state=state,
            changes=changes,
            environment={each: os.environ.get(each) for each in (*own, *variables)},
            files=files,
            key_source=stored_source or self._source_of_set_key(name, kind, settings),
        )

    def _setting_names(self, name: str, kind: type[BaseModelProvider]) -> list[str]:
        return kind.config_type.setting_names(name, self._service_settings(name))

    def _service_settings(self, name: str) -> dict[str, Any]:
        """Return the settings that select the service of the provider called ``name``."""
        return {key: self.config.get(f"providers.{name}.{key}") for key in ("profile", "type")}

    def takes_key(self, name: str) -> bool:
        """Return whether the provider called ``name`` can have a key."""
        return "api_key" in provider_type(self._type_of(name)).config_type.model_fields

    def identity(self, name: str) -> Any:
        """Return the identity that the provider called ``name`` signs in by; ``None`` if none."""
        kind = provider_type(self._type_of(name))
        settings = self.config.for_provider(name, ["type", *self._setting_names(name, kind)])
        return kind.config_type.token_provider_of(name, settings)

    def known_names(self) -> list[str]:
        """Return the names of providers that are known without searching the installed packages."""
        return sorted({*built_in_providers(), *service_names(), *self._configured_names()})

    def listed_names(self) -> list[str]:
        """Return all providers except the services that the user has not set up or named."""
        used = self._used_names()
        return [name for name in self.names() if not is_service(name) or self._is_used(name, used)]

    def unlisted_names(self) -> list[str]:
        """Return the services that the user has not set up or named, which are never contacted."""
        return sorted({*service_names()} - {*self.listed_names()})

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
        keys = ["api_key", "token_provider", *(part.name for part in service.parts)]
        settings = self.config.for_provider(name, keys)
        in_environment = environment_value(service.key_variable) and not service.shares_key
        is_set = settings.get("api_key") or settings.get("token_provider")
        has_key = is_set or in_environment or credentials.has_key(name)
        return bool(has_key) and not service.missing_parts(settings)

    def names(self) -> list[str]:
        """Return the names of all providers, including those that settings define by a ``type``."""
        return sorted({*get_available_providers(), *self._configured_names()})

    def _configured_names(self) -> set[str]:
        parts = [key.split(".") for key, _, _ in self.config.items()]
        return {part[1] for part in parts if part[0] == "providers" and part[2] == "type"}

    def _type_of(self, name: str) -> str:
        return str(self.config.get(f"providers.{name}.type") or name)

    def _is_default(self, name: str) -> bool:
        """Return whether ``name`` is a provider's usual instance, whose class knows its key."""
        return self._type_of(name) == name and not is_service(name)

    def _check_address_of_project(
        self,
        name: str,
        kind: type[BaseModelProvider],
        settings: dict[str, Any],
        stored_source: str,
    ) -> None:
        """
        Raise `ConfigurationError` if an untrusted project would receive the user's own key, or
        decides that a token of the user's identity is sent.
        """
        where, source = self._set_by_project(name)
        if not source or credentials.is_trusted(self.config):
            return
        is_header = where == credentials.HOST_HEADER
        value = self._host_of_project(name)[0] if is_header else settings[where]
        if identity := kind.config_type.token_provider_of(name, settings):
            what = f"a token of your identity ({display_name(describe_identity(identity))})"
        elif where == credentials.IDENTITY_SETTING:  # it sets none
            return
        elif secret_source := self._secret_source(name, kind, settings, source, stored_source):
            what = f"your API key ({secret_source})"
        else:
            return
        shown = display_name(str(value))
        msg = f"{source} sets the address of {name} to {shown}, and {what} would be sent there."
        if where == credentials.IDENTITY_SETTING:
            msg = f"{source} sets {where} of {name}, and {what} would be sent to its address."
        hint = "If you trust it, run %llm trust"
        word = None if is_header else quote_word(str(value))
        hint += f", or %llm config providers.{name}.{where} {word}" if word else "."
        raise ConfigurationError(msg, hint=hint, provider=name)

    def _set_by_project(self, name: str) -> tuple[str, str]:
        """Return the setting of a project that sends a key or a token, and its file."""
        if not credentials.project_configures(self.config, name):
            return "", ""
        if source := self._host_of_project(name)[1]:
            return credentials.HOST_HEADER, source
        where, source = self._address_of_project(name)
        if source:
            return where, source
        source = self.config.source(f"providers.{name}.{credentials.IDENTITY_SETTING}")
        return (credentials.IDENTITY_SETTING, source) if is_project_file(source) else ("", "")

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

    def _host_of_project(self, name: str) -> tuple[str, str]:
        """Return the header ``Host`` that a project sets for ``name``, and its file."""
        source = self.config.source(f"providers.{name}.extra_headers")
        headers = self.config.for_provider(name, ["extra_headers"]).get("extra_headers")
        host = credentials.find_host_header(headers) if is_project_file(source) else ""
        return (host, source) if host else ("", "")

    def _address_parts(self, name: str) -> list[str]:
        """Return the settings of ``name`` that are parts of the address of its service."""
        service = find_service(name, self._service_settings(name))
        return [part.name for part in service.parts] if service else []

    def _secret_source(
        self,
        name: str,
        kind: type[BaseModelProvider],
        settings: dict[str, Any],
        project: str,
        stored_source: str,
    ) -> str:
        """Return the source of the user's key that would be sent; empty without such a key."""
        if stored_source == _KEYRING:
            return stored_source
        for key in ("extra_headers",) if stored_source else ("api_key", "extra_headers"):
            source = self.config.source(f"providers.{name}.{key}")
            if settings.get(key) and source != project:
                return source
        if settings.get("api_key") and not stored_source:  # the project's own key
            return ""
        if self._is_default(name):
            return stored_source or kind.own_key_source()
        variable = kind.config_type.named_key_variable(name, settings)
        # A known service's key may always be sent to the service's own address.
        is_of_project = any(
            is_project_file(self.config.source(f"providers.{name}.{key}"))
            for key in ("base_url", *self._address_parts(name))
        )
        if not is_of_project and not self._host_of_project(name)[0]:
            return ""
        return stored_source or (variable if environment_value(variable) else "")

    def _create(self, name: str, settings: dict[str, Any]) -> BaseModelProvider:
        try:
            return create_provider(name, settings)
        except ConfigurationError as error:
            source = self.config.source(f"providers.{name}.{error.code}")
            prefix = "" if source == "default" else f"{source}: "
            raise ConfigurationError(
                f"{prefix}{error}", hint=error.hint, provider=name, code=error.code
            ) from None

    def _stored_key(
        self, name: str, kind: type[BaseModelProvider], settings: dict[str, Any]
    ) -> tuple[Secret, str] | None:
        """
        Return the key in the system keyring or a hosted notebook's secrets, and its source.

        The user entered the one in the keyring for this provider, so it takes precedence. Both are
        only used if settings and environment have none.
        """
        if self._source_of_set_key(name, kind, settings):
            return None
        if (key := credentials.load_key(name)) is not None:
            return key, _KEYRING
        for variable in _secret_names(self._key_variable(name, kind, settings)):
            found = self._hosted.known(variable, self.config.secret_scope)
            if found is not None:
                return found, describe_secret(variable)
        return None

    def _source_of_set_key(
        self, name: str, kind: type[BaseModelProvider], settings: dict[str, Any]
    ) -> str:
        """Return the source of the key in settings or environment; empty without one."""
        if settings.get("api_key"):
            return self.config.source(f"providers.{name}.api_key")
        if self._is_default(name) and (source := kind.own_key_source()):
            return source
        variable = kind.config_type.named_key_variable(name, settings)
        return variable if environment_value(variable) else ""

    def _key_variable(
        self, name: str, kind: type[BaseModelProvider], settings: dict[str, Any]
    ) -> str:
        if self._is_default(name):
            return kind.key_variable
        return kind.config_type.named_key_variable(name, settings)

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


def _secret_names(variable: str) -> tuple[str, ...]:
    """
    Return the names that the secret with a key may have: all variables of its service.

    Colab itself stores Gemini's key as GOOGLE_API_KEY.
    """
    of_services = (service.key_variables for service in services().values())
    return next((names for names in of_services if variable in names), (variable,))


def _lacks_key(provider: BaseModelProvider) -> bool:
    """Whether ``provider`` is another machine's service that takes a key, and has none."""
    if getattr(provider.config, "api_key", "") is not None or not provider.key_variable:
        return False
    return bool(provider.address) and not is_local_address(provider.address)
