"""
The shared settings, `config`: each value with its source.

A value set directly takes precedence over the environment, then the project's file, the user's
file and the default. Nothing is read, and no large module is imported, before a value is needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_magics.errors import ConfigurationError, abbreviate, nearest
from llm_magics.secrets import (
    Address,
    OpaqueValue,
    Secret,
    clean_value,
    is_secret_name,
    redact_address,
    register_address,
    strip_credentials,
)

if TYPE_CHECKING:
    from pandas import DataFrame

    from llm_magics.settings.schema import ServerSettings, Settings

ENVIRONMENT_PREFIX = "LLM_MAGICS_"

# Replaces a function among the settings that are sent to another process, which rejects it.
REMOTE_FUNCTION = "(a Python function)"

# A longer value of the setting token_provider may be a token, and is not shown.
LONGEST_IDENTITY = 24

# Settings of a provider that are addresses, which may contain a user, a password or a key.
_ADDRESSES = frozenset({"base_url", "proxy"})


class SourcedValue(NamedTuple):
    """A value and its source, in words."""

    value: Any
    source: str


class Config:
    """
    Settings as attributes: ``config.model``, ``config.temperature = 0.2``.

    Settings of a provider have a dotted key: ``config.set("providers.local.threads", 2)``.
    """

    if TYPE_CHECKING:  # set by __dict__, because __setattr__ is for settings
        _layers: list[dict[str, SourcedValue]] | None
        _files: list[tuple[Path, dict[str, Any]]]
        _defaults: dict[str, SourcedValue] | None
        _direct: dict[str, SourcedValue]
        _watchers: list[Callable[[], None]]

    def __init__(
        self, folder: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        """Read settings from ``folder`` (by default the current one) and ``environment``."""
        self.__dict__["_folder"] = folder
        self.__dict__["_environment"] = os.environ if environment is None else environment
        self.__dict__["_direct"] = {}
        self.__dict__["_watchers"] = []
        self.reload()

    def reload(self) -> None:
        """Read files and environment again. Values set in this session are preserved."""
        self.__dict__["_layers"] = None
        self.__dict__["_defaults"] = None
        self._notify()

    def watch(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` after every change, in the thread that made the change."""
        self._watchers.append(changed)

    def unwatch(self, changed: Callable[[], None]) -> None:
        """Stop calling ``changed``."""
        with suppress(ValueError):
            self._watchers.remove(changed)

    def _notify(self) -> None:
        for changed in self._watchers.copy():
            changed()

    def get(self, key: str) -> Any:
        """Return the value of ``key``."""
        return self._look_up(key).value

    def source(self, key: str) -> str:
        """Return the source of the value of ``key``, in words."""
        return self._look_up(key).source

    def set(self, key: str, value: Any) -> None:
        """
        Set ``key`` to a value for this session.

        Raises:
            ConfigurationError: the setting is unknown, or ``value`` is invalid.
        """
        checked = _validate(_nest(key, value), f"config.{key}")
        self._direct.update(_flatten(checked, "set in this session"))
        self._notify()

    def reset(self, key: str | None = None) -> None:
        """Remove the value that was `set` for ``key``, or all such values."""
        if key is None:
            self._direct.clear()
        else:
            self._look_up(key)
            self._direct.pop(key, None)
        self._notify()

    def for_provider(self, name: str, keys: Iterable[str]) -> dict[str, Any]:
        """
        Return the settings of the provider ``name``, by key.

        The environment variables are ``LLM_MAGICS_<NAME>_<KEY>``, for each of its ``keys``.
        """
        settings: dict[str, Any] = {}
        start = f"providers.{name}."
        files, direct = self._merged(self._read()), self._direct
        for found in (files, self._provider_environment(name, keys), direct):
            settings |= {
                key.removeprefix(start): _reveal(sourced.value)
                for key, sourced in found.items()
                if key.startswith(start)
            }
        return settings

    def servers(self) -> dict[str, tuple[ServerSettings, str]]:
        """Return the settings of each MCP server by name, with their source in words."""
        found = self._merged([*self._read(), self._direct])
        return {
            key.removeprefix("mcp."): (value, source)
            for key, (value, source) in found.items()
            if key.startswith("mcp.")
        }

    def set_here(self) -> dict[str, Any]:
        """
        Return the values that were `set` in this session, to set them in another process, without
        keys.

        Paths are absolute, because the other process may have another working directory. Addresses
        are without users, passwords and keys; see `credentials_here`.
        """
        return {
            key: _make_portable(value)
            for key, (value, _) in self._direct.items()
            if not isinstance(value, OpaqueValue | Secret) and not key.startswith("mcp.")
        }

    def credentials_here(self) -> dict[str, str]:
        """Return the addresses set in this session with credentials, which `set_here` removes."""
        return {
            key: str(value)
            for key, (value, _) in self._direct.items()
            if isinstance(value, Address) and strip_credentials(value) != value
        }

    def files(self) -> list[tuple[Path, dict[str, Any]]]:
        """Return the files that were read, with their contents at that time."""
        self._read()
        return list(self._files)

    def items(self) -> list[tuple[str, Any, str]]:
        """Return every setting as ``(key, value, source)``."""
        values = {**self._default_values(), **self._merged([*self._read(), self._direct])}
        values.pop("providers", None)
        values["mcp"] = self._look_up("mcp")
        return [(key, *values[key]) for key in sorted(values) if not key.startswith("mcp.")]

    def frame(self) -> DataFrame:
        """Return every setting with its value, its source and what it does."""
        from llm_magics._util.tables import WideFrame

        rows = [
            (key, redact_setting(value), source, describe_setting(key))
            for key, value, source in self.items()
        ]
        return WideFrame(rows, columns=["key", "value", "source", "description"]).set_index("key")

    def _look_up(self, key: str) -> SourcedValue:
        layers: list[dict[str, SourcedValue]] = [
            self._direct,
            *reversed(self._read()),
            self._default_values(),
        ]
        if key.startswith("providers.") and key not in self._direct:
            _, provider, name = (*key.split("."), "")[:3]
            layers.insert(0, self._provider_environment(provider, [name]))
        if key == "mcp" and (found := self.servers()):
            sources = sorted({source for _, source in found.values()})
            servers = {name: value for name, (value, _) in found.items()}
            return SourcedValue(servers, ", ".join(sources))
        for layer in layers:
            if key in layer:
                return layer[key]
        if key.startswith("providers."):
            return SourcedValue(None, "default")
        raise _unknown_setting(key, "Unknown setting")

    def _default_values(self) -> dict[str, SourcedValue]:
        if self._defaults is None:
            self.__dict__["_defaults"] = _defaults()
        assert self._defaults is not None
        return self._defaults

    def _read(self) -> list[dict[str, SourcedValue]]:
        if self._layers is None:
            from llm_magics.settings.files import find_settings_files

            folder = self.__dict__["_folder"] or Path.cwd()
            files = list(find_settings_files(folder))
            self.__dict__["_files"] = files
            self.__dict__["_layers"] = [
                _flatten(_validate(settings, str(path)), f"file {path}")
                for path, settings in files
            ] + [self._general_environment()]
        assert self._layers is not None
        return self._layers

    def _general_environment(self) -> dict[str, SourcedValue]:
        found: dict[str, SourcedValue] = {}
        for key in _keys():
            name = f"{ENVIRONMENT_PREFIX}{key.upper()}"
            value = self.__dict__["_environment"].get(name)
            if value and key not in _TABLES:
                found |= _flatten(
                    _validate({key: value}, f"environment {name}"), f"environment {name}"
                )
        self._reject_misspelled_variables()
        return found

    def _reject_misspelled_variables(self) -> None:
        """Raise for a variable that is nearly the name of a setting, which is not a provider's."""
        known = [f"{ENVIRONMENT_PREFIX}{key.upper()}" for key in _keys()]
        for name in self.__dict__["_environment"]:
            if name.startswith(ENVIRONMENT_PREFIX) and name not in known:
                if (
                    new := _RENAMED.get(name.removeprefix(ENVIRONMENT_PREFIX).lower())
                ) is not None:
                    msg = f"environment variable {name}: unknown setting."
                    hint = f"It was renamed to {ENVIRONMENT_PREFIX}{new.upper()}."
                    raise ConfigurationError(msg, hint=hint)
                meant = get_close_matches(name, known, n=1, cutoff=0.9)
                if meant:
                    msg = f"environment variable {name}: unknown setting."
                    raise ConfigurationError(msg, hint=f"Did you mean {meant[0]}?")

    def _provider_environment(self, provider: str, keys: Iterable[str]) -> dict[str, SourcedValue]:
        found = {}
        for key, name in provider_variables(provider, keys).items():
            if value := clean_value(self.__dict__["_environment"].get(name)):
                source = f"environment {name}"
                found[f"providers.{provider}.{key}"] = SourcedValue(
                    _wrap_secret(key, value), source
                )
        return found

    @staticmethod
    def _merged(layers: Iterable[dict[str, SourcedValue]]) -> dict[str, SourcedValue]:
        merged: dict[str, SourcedValue] = {}
        for layer in layers:
            merged |= layer
        return merged

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # looked up by Python or IPython, not by a user
            raise AttributeError(name)
        try:
            return self.get(name)
        except ConfigurationError as error:
            if name in _keys():  # the user must see the error in a file
                raise
            raise AttributeError(f"{error} {error.hint}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self.set(name, value)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *_keys()]

    def __repr__(self) -> str:
        rows = [(key, repr(redact_setting(value)), source) for key, value, source in self.items()]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        return "\n".join(
            f"{key:{widths[0]}}  {value:{widths[1]}}  {source}" for key, value, source in rows
        )


def provider_variables(provider: str, keys: Iterable[str]) -> dict[str, str]:
    """Return the environment variables for the settings of ``provider``, by setting."""
    prefix = f"{ENVIRONMENT_PREFIX}{provider}_".replace("-", "_")  # a shell cannot set a "-"
    return {key: f"{prefix}{key}".upper() for key in keys}


def redact_setting(value: Any) -> Any:
    """Return a setting for display: an address without the parts that may contain a key, a path as text."""
    if isinstance(value, Path):
        return str(value)
    if callable(value):  # the arguments of a function may contain a key
        return f"function {getattr(value, '__qualname__', type(value).__qualname__)}"
    return redact_address(value) if isinstance(value, str) and "://" in value else value


def _make_portable(value: Any) -> Any:
    if callable(value):  # a token_provider, which exists only in this process
        return REMOTE_FUNCTION
    if isinstance(value, Path):
        return value.expanduser().absolute()
    return strip_credentials(value) if isinstance(value, Address) else value


def describe_setting(key: str) -> str:
    """Return the description of a setting; empty for a setting of a provider."""
    field = _schema().model_fields.get(key)
    return field.description or "" if field else ""


def _schema() -> type[Settings]:
    from llm_magics.settings.schema import Settings

    return Settings


def _keys() -> list[str]:
    return list(_schema().model_fields)


def _defaults() -> dict[str, SourcedValue]:
    return {key: SourcedValue(value, "default") for key, value in _schema().model_validate({})}


def _validate(settings: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return ``settings`` converted to their types; an error names ``source``."""
    from pydantic import ValidationError

    try:
        checked = _schema().model_validate(settings)
    except ValidationError as error:
        # Of the alternatives of a union, the one with the deepest error is most likely the intended
        # one.
        found = sorted(error.errors(), key=lambda each: -len(each["loc"]))
        first = next((each for each in found if each["type"] == "extra_forbidden"), found[0])
        parts = [str(part) for part in first["loc"]]
        key = ".".join(part for part in parts if not part.startswith(("_", "list[")))
        if first["type"] == "extra_forbidden":
            raise _unknown_setting(key, f"{source}: unknown setting") from None
        msg = f"{source}: invalid value {abbreviate(first['input'])} for {key}."
        hint = _HINTS.get(parts[0]) or f"{first['msg']}."
        raise ConfigurationError(msg, hint=hint) from None
    return {key: getattr(checked, key) for key in checked.model_fields_set}


# Former names of settings, with the current ones.
_RENAMED = {
    "ask_above_usd": "confirm_above_usd",
    "longest_wait_s": "max_retry_delay_s",
    "retries_end_s": "retry_timeout_s",
}


def _unknown_setting(key: str, what: str) -> ConfigurationError:
    if key in _RENAMED:
        return ConfigurationError(f'{what} "{key}".', hint=f"It was renamed to {_RENAMED[key]}.")
    hint = _HINTS.get(key.partition(".")[0]) if "." in key else None
    return ConfigurationError(f'{what} "{key}".', hint=hint or nearest(key, _keys()))


# The form of settings that are tables, for hints.
_HINTS = {
    "aliases": "Example of an alias:  NAME: {model: ollama/llama3.2, temperature: 0}",
    "mcp": "Example of a server:  NAME: {command: [npx, -y, PACKAGE]}, or  NAME: {url: https://…}",
    "prices": "Example of a price:  MODEL: {input_usd: 1.25, output_usd: 10}, or 0.",
    "routes": (
        "Example of a route:  NAME: [MODEL, MODEL], or  NAME: {models: […], policy: cheapest}; "
        "policies: order, cheapest, fastest, round-robin."
    ),
}


# Settings whose entries have a dotted key each, so that those of several files are merged.
_TABLES = ("mcp", "providers")


def _nest(key: str, value: Any) -> dict[str, Any]:
    if key.startswith("mcp."):
        return {"mcp": {key.removeprefix("mcp."): value}}
    if not key.startswith("providers."):
        return {key: value}
    _, _, rest = key.partition(".")
    provider, _, name = rest.partition(".")
    if not name:
        msg = f'"{key}" is not a setting of a provider.'
        raise ConfigurationError(msg, hint="Use providers.NAME.SETTING.")
    return {"providers": {provider: {name: value}}}


def _flatten(settings: Mapping[str, Any], source: str) -> dict[str, SourcedValue]:
    flat: dict[str, SourcedValue] = {}
    for key, value in settings.items():
        if key == "mcp":
            flat |= {f"mcp.{name}": SourcedValue(own, source) for name, own in value.items()}
            continue
        if key != "providers":
            flat[key] = SourcedValue(value, source)
            continue
        for provider, own in value.items():
            for name, setting in own.items():
                flat[f"providers.{provider}.{name}"] = SourcedValue(
                    _wrap_secret(name, setting), source
                )
    return flat


def _wrap_secret(name: str, value: Any) -> Any:
    """Wrap a key among the settings, because settings are displayed, and saved in the notebook."""
    if isinstance(value, str) and name in _ADDRESSES:
        register_address(value if "://" in value else f"http://{value}")
        return Address(value)
    if name == "token_provider" and isinstance(value, str) and len(value) > LONGEST_IDENTITY:
        return Secret(value)  # a token in place of the name of an identity
    if value is None or isinstance(value, OpaqueValue | Secret) or not is_secret_name(name):
        return value
    return Secret(value) if isinstance(value, str) else OpaqueValue(value)


def _reveal(value: Any) -> Any:
    return value.reveal() if isinstance(value, OpaqueValue | Secret) else value


config = Config()


def cache_folder() -> Path:
    """Return the folder for files that can be downloaded or computed again."""
    folder: Path = config.cache_dir
    return folder.expanduser().absolute()  # so that it does not change with the working directory
