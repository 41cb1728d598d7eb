"""
Settings of providers: their common fields, how a config is built and checked, and its digest.

The digest distinguishes services with different settings, without containing credentials.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llm_magics.errors import ConfigurationError, nearest
from llm_magics.secrets import is_secret_name, redact, redact_address, scrub, strip_whitespace


class SettingsDict(dict[str, Any]):
    """The settings of a provider by name: a dict whose ``repr`` does not contain keys."""

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{name!r}: {_display_value(name, self[name])}' for name in self)}}}"


def _display_value(name: str, value: object) -> str:
    if is_secret_name(name) and value:
        return "****"
    return repr(redact_address(value)) if isinstance(value, str) else scrub(repr(value))


class ProviderConfig(BaseModel):
    """
    Settings that all providers share; an unknown or invalid setting is an error.

    Attributes:
        concurrency: maximum number of concurrent requests; adapted automatically by default.
        requests_per_minute, tokens_per_minute: rate limits; unlimited by default.
    """

    # pydantic's errors would contain the input, which may be a key.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    concurrency: int | None = Field(default=None, ge=1)
    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0)

    def to_dict(self) -> dict[str, Any]:
        """
        Return its settings by name: ``type(config)(**config.to_dict())`` equals ``config``.

        A key stays wrapped in its `Secret`.
        """
        return SettingsDict({name: getattr(self, name) for name in type(self).model_fields})

    @classmethod
    def for_named_instance(cls, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """
        Return the settings of another provider of this type, called ``name`` in a settings file.

        The environment variables of the first one do not apply to it.
        """
        return dict(settings)

    @classmethod
    def token_provider_of(cls, name: str, settings: Mapping[str, Any]) -> Any:
        """Return the identity that a provider called ``name`` signs in with; ``None`` if none."""
        return settings.get("token_provider")

    @classmethod
    def named_key_variable(cls, name: str, settings: Mapping[str, Any]) -> str:
        """Return the environment variable that holds the key of a provider called ``name``."""
        return ""

    @classmethod
    def named_variables(cls, name: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Return all environment variables on which a provider called ``name`` depends."""
        variable = cls.named_key_variable(name, settings)
        return (variable,) if variable else ()

    @classmethod
    def setting_names(cls, name: str, settings: Mapping[str, Any]) -> list[str]:
        """Return the settings of a provider called ``name``: fields, and parts of its address."""
        return list(cls.model_fields)


def resolve_config(name: str, config_type: type[ProviderConfig], config: object) -> ProviderConfig:
    """
    Return ``config`` as a config object.

    Raises:
        ConfigurationError: ``config`` has another type, or a setting is unknown or invalid.
    """
    if config is None:
        return build_config(name, config_type, {})
    if isinstance(config, ProviderConfig):
        return config
    if isinstance(config, Mapping):
        return build_config(name, config_type, config)
    msg = f"Invalid configuration of the provider {name}: {type(config).__name__}."
    hint = f"Pass {config_type.__name__}(…) or a dict of its settings."
    raise ConfigurationError(msg, hint=hint, provider=name)


def build_config(
    name: str, config_type: type[ProviderConfig], settings: Mapping[str, Any]
) -> ProviderConfig:
    """
    Return the config with these ``settings``.

    Raises:
        ConfigurationError: a setting is unknown or has an invalid value.
    """
    if isinstance(key := settings.get("api_key"), str) and not strip_whitespace(key):
        settings = {each: settings[each] for each in settings if each != "api_key"}  # unset
    try:
        return config_type(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        check_setting_names(name, config_type, settings)
        if not key:  # the combination is invalid; the input may contain a key
            msg = f"{name}: {first['msg'].removeprefix('Value error, ')}"
            hint = "Remove one of them."
            raise ConfigurationError(
                msg, hint=hint, provider=name, code="token_provider"
            ) from None
        # A value that may be a key is not shown.
        value = "of this type" if is_secret_name(key) else redact(repr(first["input"]))
        msg = f"{name}: invalid value {value} for {key}."
        hint = first["msg"].removeprefix("Value error, ").rstrip(".") + "."
        raise ConfigurationError(msg, hint=hint, provider=name, code=key) from None


def check_setting_names(
    name: str,
    config_type: type[ProviderConfig],
    settings: Mapping[str, Any],
    type_name: str | None = None,
) -> None:
    """
    Check that a provider has all of these ``settings``, with ``type_name`` as its type.

    Raises:
        ConfigurationError: a setting is unknown.
    """
    known = config_type.setting_names(name, {**settings, "type": type_name})
    for key in settings:
        if key not in known:
            msg = f'Unknown setting of the provider {name}: "{key}".'
            hint = nearest(str(key), known)
            raise ConfigurationError(msg, hint=hint, provider=name, code=str(key))


_CREDENTIAL_NAME = re.compile(
    r"auth|key|token|secret|pass|pwd|cookie|session|credential|sign|jwt|bearer", re.IGNORECASE
)

# A sequence of letters and digits that is too long for a word or a date.
_CREDENTIAL_VALUE = re.compile(r"(?=[^\s]*\d)(?=[^\s]*[A-Za-z])[A-Za-z0-9+/=_]{20,}")


def settings_digest(settings: Mapping[str, Any]) -> str:
    """
    Return a digest of ``settings``, which does not depend on keys and passwords.

    Unset values are left out, so that a new setting in a later version does not change the digest.
    """
    public = json.dumps(_remove_credentials(settings), sort_keys=True, default=str)
    return blake2b(public.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def digest_former_identity(identity: str) -> str:
    """Convert an identity that earlier versions stored as JSON to a digest."""
    if not identity.startswith("{"):
        return identity
    try:
        settings, end = json.JSONDecoder().raw_decode(identity)
    except ValueError:
        return identity
    return settings_digest(settings) + identity[end:]


def remove_credential_headers(headers: Mapping[str, Any]) -> dict[str, str]:
    """Return the ``headers`` that cannot contain a key."""
    return {
        str(name): str(value)
        for name, value in headers.items()
        if not _may_be_credential(str(name), str(value))
    }


def _remove_credentials(settings: Mapping[str, Any]) -> dict[str, Any]:
    public = {
        name: value
        for name, value in settings.items()
        if value not in (None, "", {}, [])
        and not re.search(r"(?:^|_)(?:api_?key|token|secret|password)$", name)
    }
    if isinstance(public.get("base_url"), str):
        public["base_url"] = _public_address(public["base_url"])
    if isinstance(public.get("extra_headers"), Mapping):
        public["extra_headers"] = remove_credential_headers(public["extra_headers"])
        if not public["extra_headers"]:
            del public["extra_headers"]
    return public


def _public_address(address: str) -> str:
    """Return an address without its user, its password and the keys in its query."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return address.rpartition("@")[2]
    query = [
        (name, value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if not _may_be_credential(name, value)
    ]
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, urlencode(query), ""))


def _may_be_credential(name: str, value: str) -> bool:
    is_named = _CREDENTIAL_NAME.search(name) is not None
    return is_named or _CREDENTIAL_VALUE.search(value) is not None
