"""
The registry of providers, by name.

A built-in provider's module is imported when the provider is first created. Other packages register
providers under the entry-point group ``llm_magics.providers``, as
``name = "package.module:ProviderClass"``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_magics.errors import ConfigurationError, nearest
from llm_magics.secrets import strip_whitespace

if TYPE_CHECKING:
    from llm_magics.providers.base import BaseModelProvider
    from llm_magics.providers.configs import ProviderConfig

__all__ = [
    "BaseModelProvider",
    "create_provider",
    "get_available_providers",
    "provider_type",
]

_BUILT_IN = {
    "echo": "llm_magics.providers.echo:EchoProvider",
    "anthropic": "llm_magics.providers.anthropic:AnthropicProvider",
    "gemini": "llm_magics.providers.gemini:GeminiProvider",
    "huggingface": "llm_magics.providers.huggingface:HuggingFaceProvider",
    "huggingface-local": "llm_magics.providers.huggingface.local:HuggingFaceLocalProvider",
    "lmstudio": "llm_magics.providers.lmstudio:LMStudioProvider",
    "local": "llm_magics.providers.local:LocalProvider",
    "ollama": "llm_magics.providers.ollama:OllamaProvider",
    "openai": "llm_magics.providers.openai:OpenAIProvider",
}

_GROUP = "llm_magics.providers"


def built_in_providers() -> list[str]:
    """Return the names of the providers in this package, sorted."""
    return sorted(_BUILT_IN)


def service_names() -> list[str]:
    """Return the names of services in the data file, which one of these providers serves, sorted."""
    from llm_magics.providers.services import services

    return sorted(services().keys() - _BUILT_IN.keys())


def is_service(name: str) -> bool:
    """Return whether ``name`` is a service in the data file. The file is read if necessary."""
    if name in _BUILT_IN:
        return False
    from llm_magics.providers.services import services

    return name in services()


def get_available_providers() -> list[str]:
    """Return the names that `create_provider` accepts, sorted."""
    return sorted({*_BUILT_IN, *service_names(), *_registered()})


def create_provider(
    name: str, config: ProviderConfig | Mapping[str, Any] | None = None, **settings: Any
) -> BaseModelProvider:
    """
    Create the provider called ``name``. It is not initialised yet.

    Args:
        name: one of `get_available_providers`; or any name, if ``type`` is one of them.
        config: a config object of the provider, or its settings by name.
        settings: single settings, which override those of ``config``.

    Raises:
        ConfigurationError: the provider or a setting does not exist, or a value is invalid.
    """
    # Importing this module must not import pydantic, which these modules need.
    from llm_magics.providers.configs import build_config, check_setting_names

    if config is not None:
        stored = config if isinstance(config, Mapping) else config.to_dict()
        settings = {**stored, **settings}
    if isinstance(key := settings.get("api_key"), str) and not strip_whitespace(key):
        del settings["api_key"]  # a blank key counts as unset
    type_name = settings.get("type") or name
    kind = provider_type(type_name)
    named = {key: value for key, value in settings.items() if key != "type"}
    if type_name == name and not is_service(name):
        return kind(build_config(name, kind.config_type, named))
    # Unknown settings are reported before a missing address.
    check_setting_names(name, kind.config_type, named, type_name)
    variable = kind.config_type.named_key_variable(name, settings)
    named = kind.config_type.for_named_instance(name, settings)
    named.pop("type", None)
    provider = kind(build_config(name, kind.config_type, named))
    provider.name, provider.key_variable = name, variable
    return provider


def provider_type(name: str) -> type[BaseModelProvider]:
    """Return the class of the provider called ``name``."""
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        found: type[BaseModelProvider] = getattr(import_module(module), attribute)
        return found
    if is_service(name):
        from llm_magics.providers.services import services

        return provider_type(services()[name].type)
    registered = _registered().get(name)
    if registered is None:
        msg = f'No provider is named "{name}".'
        raise ConfigurationError(msg, hint=nearest(name, get_available_providers()))
    return _load(registered)


def _load(entry: EntryPoint) -> type[BaseModelProvider]:
    try:
        loaded: type[BaseModelProvider] = entry.load()
    except Exception as error:
        package = entry.dist.name if entry.dist else "its package"
        msg = f'Could not import the provider "{entry.name}" ({type(error).__name__}: {error}).'
        raise ConfigurationError(msg, hint=f"Fix or uninstall {package}.") from error
    return loaded


def _registered() -> dict[str, EntryPoint]:
    """Return the entry points of the installed packages, by name."""
    return _read_registered(tuple((path, _changed_at(path)) for path in sys.path))


def _changed_at(path: str) -> int:
    try:
        return Path(path or ".").stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=1)
def _read_registered(installed: tuple[tuple[str, int], ...]) -> dict[str, EntryPoint]:
    # It takes 15 ms with 300 packages, and lists of models need it for each of their lines.
    return {entry.name: entry for entry in entry_points(group=_GROUP)}


def __getattr__(name: str) -> Any:
    # BaseModelProvider needs pydantic, which `import llm_magics` must not import.
    if name == "BaseModelProvider":
        from llm_magics.providers.base import BaseModelProvider

        return BaseModelProvider
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
