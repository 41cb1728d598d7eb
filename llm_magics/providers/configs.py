"""Making a provider's config out of what a user gives: an object, a mapping, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llm_magics.errors import ConfigurationError, nearest
from llm_magics.secrets import address_shown, is_secret_name, redact, scrub, stripped

if TYPE_CHECKING:
    from llm_magics.providers.base import ProviderConfig


class SettingsDict(dict[str, Any]):
    """The settings of a provider by name: a dict that does not show keys."""

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{name!r}: {_shown(name, self[name])}' for name in self)}}}"


def _shown(name: str, value: object) -> str:
    if is_secret_name(name) and value:
        return "****"
    return repr(address_shown(value)) if isinstance(value, str) else scrub(repr(value))


def config_of(name: str, config_type: type[ProviderConfig], config: object) -> ProviderConfig:
    """
    Return the config that ``config`` stands for.

    Raises:
        ConfigurationError: it is neither a config nor a mapping of settings, or one is wrong.
    """
    from llm_magics.providers.base import ProviderConfig

    if config is None:
        return checked(name, config_type, {})
    if isinstance(config, ProviderConfig):
        return config
    if isinstance(config, Mapping):
        return checked(name, config_type, config)
    msg = f"The provider {name} cannot be configured by {type(config).__name__}."
    hint = f"Give it {config_type.__name__}(…), or a dictionary of its settings."
    raise ConfigurationError(msg, hint=hint, provider=name)


def checked(
    name: str, config_type: type[ProviderConfig], settings: Mapping[str, Any]
) -> ProviderConfig:
    """
    Return the config with these ``settings``.

    Raises:
        ConfigurationError: one is unknown or impossible.
    """
    from pydantic import ValidationError

    if isinstance(key := settings.get("api_key"), str) and not stripped(key):
        settings = {each: settings[each] for each in settings if each != "api_key"}  # unset
    try:
        return config_type(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        refuse_unknown(name, config_type, settings)
        # What may be a key is not shown, whatever it looks like.
        given = "what it is" if is_secret_name(key) else redact(repr(first["input"]))
        msg = f"{name}: {key} cannot be {given}."
        hint = first["msg"].removeprefix("Value error, ").rstrip(".") + "."
        raise ConfigurationError(msg, hint=hint, provider=name, code=key) from None


def refuse_unknown(
    name: str, config_type: type[ProviderConfig], settings: Mapping[str, Any]
) -> None:
    """
    Refuse settings that a provider does not have.

    Raises:
        ConfigurationError: there is one.
    """
    for key in settings:
        if key not in config_type.model_fields:
            msg = f'The provider {name} has no setting "{key}".'
            hint = nearest(str(key), config_type.model_fields)
            raise ConfigurationError(msg, hint=hint, provider=name, code=str(key))
