"""The settings of providers over HTTP: address, key or identity, timeouts and limits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, field_validator, model_validator

from llm_magics.errors import ConfigurationError
from llm_magics.http import BodyLimits, Timeouts
from llm_magics.providers.configs import ProviderConfig
from llm_magics.providers.identity import (
    TokenFunction,
    check_only_credential,
    parse_token_provider,
)
from llm_magics.providers.services import Service, find_service, find_service_at
from llm_magics.secrets import (
    Address,
    KeyHeaders,
    Secret,
    environment_value,
    register_address,
    register_headers,
    strip_whitespace,
)


class RemoteConfig(ProviderConfig):
    """
    Attributes:
        base_url: the service's address.
        api_key: the API key, if the service needs one.
        token_provider: an identity in place of a key: ``entra``, ``vertex``, ``aws``, or a function
            that returns a token.
        connect_s: seconds to wait for a connection; by default 2 for a server on this machine
            and 10 for any other.
        idle_s: seconds to wait for the next byte.
        total_s: seconds to wait for the whole answer; no limit by default.
        max_line_mb: maximum size of one line of a stream, in MB.
        max_response_mb: maximum size of a response after decompression, in MB.
        extra_headers: headers to send with every request.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, validate_default=True
    )
    # The form of the address, for the error if it is missing.
    address_form: ClassVar[str] = ""

    base_url: str
    api_key: Secret | None = None
    token_provider: str | Callable[[], Any] | None = None
    connect_s: float | None = Field(None, gt=0)
    idle_s: float = Field(300.0, gt=0)
    total_s: float | None = Field(None, gt=0)
    max_line_mb: float = Field(16.0, gt=0)
    max_response_mb: float = Field(512.0, gt=0)
    extra_headers: dict[str, str] = Field(default_factory=dict, repr=False)

    @field_validator("api_key", mode="before")
    @classmethod
    def _wrapped(cls, value: object) -> object:
        key = value.reveal() if isinstance(value, Secret) else value
        if not isinstance(key, str):
            return value
        if not strip_whitespace(key).isprintable():
            msg = "It contains characters that API keys do not have."
            raise ValueError(msg)
        return Secret.of(key)

    @field_validator("token_provider", mode="before")
    @classmethod
    def _identity(cls, value: object) -> str | TokenFunction | None:
        return parse_token_provider(value)

    @model_validator(mode="after")
    def _one_credential(self) -> Self:
        """Refuse a key and an identity; a key from the environment is ignored with an identity."""
        if self.token_provider is not None:
            check_only_credential(self.api_key, self.model_fields_set, self.base_url)
            object.__setattr__(self, "api_key", None)
        return self

    @field_validator("base_url", mode="before")
    @classmethod
    def _stripped(cls, value: object) -> object:
        return strip_whitespace(value) if isinstance(value, str) else value

    @field_validator("base_url", mode="after")
    @classmethod
    def _is_address(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            is_one = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            is_one = False
        if not is_one or not value.isprintable() or " " in value:
            msg = "Use an address that starts with http:// or https://."
            raise ValueError(msg)
        return value

    def model_post_init(self, context: Any, /) -> None:
        """Wrap values that may contain a key, so that ``repr`` and errors do not show it."""
        register_address(self.base_url)
        register_headers(self.extra_headers)
        self.__dict__["base_url"] = Address(self.base_url)
        self.__dict__["extra_headers"] = KeyHeaders(self.extra_headers)

    def model_dump(self, **how: Any) -> dict[str, Any]:
        """Return the settings by name; values that may contain a key stay wrapped."""
        dumped = super().model_dump(**how)
        for name, kind in (("base_url", Address), ("extra_headers", KeyHeaders)):
            if name in dumped:
                dumped[name] = kind(dumped[name])
        return dumped

    @classmethod
    def for_named_instance(cls, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        service = find_service(name, settings)
        base_url = settings.get("base_url") or (service and service.base_url(name, settings))
        if not base_url:
            msg = f"Provider {name} has no base_url."
            hint = f"Set providers.{name}.base_url to its address{cls.address_form}."
            raise ConfigurationError(msg, hint=hint, provider=name, code="base_url")
        key = environment_value(cls.named_key_variable(name, settings)) or None
        own = {each: value for each, value in settings.items() if each in cls.model_fields}
        identity = cls.token_provider_of(name, settings)
        own = {**own, "token_provider": identity, "base_url": base_url}
        return own if identity else {"api_key": key, **own}

    @classmethod
    def named_key_variable(cls, name: str, settings: Mapping[str, Any]) -> str:
        # A service's variable applies only to its own address; a compatible server has its own
        # variable.
        service = _service_in_use(name, settings)
        if service is not None and service.key_variables:
            return service.key_variable
        return f"{re.sub(r'[^A-Za-z0-9]', '_', name).upper()}_API_KEY"

    @classmethod
    def token_provider_of(cls, name: str, settings: Mapping[str, Any]) -> Any:
        if settings.get("token_provider") or settings.get("api_key"):
            return settings.get("token_provider")
        # A token is sent to another address only if the user has set the identity.
        service = _service_in_use(name, settings)
        return service.token_provider or None if service is not None else None

    @classmethod
    def setting_names(cls, name: str, settings: Mapping[str, Any]) -> list[str]:
        service = find_service(name, settings)
        parts = service.parts if service else ()
        return [*cls.model_fields, *(part.name for part in parts)]

    @classmethod
    def named_variables(cls, name: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
        service = find_service(name, settings)
        variables = service.variables if service else ()
        return tuple(dict.fromkeys((cls.named_key_variable(name, settings), *variables)))

    @property
    def timeouts(self) -> Timeouts:
        """The timeouts of its requests."""
        return Timeouts(self.connect_s, self.idle_s, self.total_s)

    @property
    def limits(self) -> BodyLimits:
        """The maximum sizes of a response."""
        return BodyLimits(int(self.max_line_mb * 1e6), int(self.max_response_mb * 1e6))


def _service_in_use(name: str, settings: Mapping[str, Any]) -> Service | None:
    """Return the service at the address of a provider; without one, that of its name or type."""
    address = settings.get("base_url")
    return find_service_at(address) if address else find_service(name, settings)
