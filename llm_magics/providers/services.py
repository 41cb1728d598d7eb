"""
The services that are providers by name, from the data file ``services.toml``.

The file is read when a service is first used, and once. `llm_magics.providers.profiles` has what is
needed for requests; this module has what is needed before: names, variables and parts of addresses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal
from urllib.parse import urlsplit

from llm_magics.errors import ConfigurationError
from llm_magics.providers import built_in_providers
from llm_magics.secrets import environment_value

PartKind = Literal["label", "account", "host"]

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_PART_PATTERNS: dict[PartKind, tuple[re.Pattern[str], str]] = {
    "label": (re.compile(_LABEL), "Use letters, digits and hyphens."),
    "account": (
        re.compile(rf"{_LABEL}(?:[._]{_LABEL})*"),
        "Use letters, digits, hyphens, underscores and dots.",
    ),
    "host": (
        re.compile(rf"{_LABEL}(?:\.{_LABEL})+(?::[0-9]{{1,5}})?"),
        "Use a host name, as in https://NAME.example.com; for any other address set base_url.",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressPart:
    """
    A part of a service's address that differs between accounts, such as the region.

    Attributes:
        name: its name in the address, and as a setting.
        variables: the environment variables with its value; the first that is set applies.
        kind: what it may consist of: ``label``, one name; ``account``, several names with dots or
            underscores between them; ``host``, a host name, which may have ``https://`` before it.
        default: its value if it is not set otherwise; empty if it is required.
        meaning: what it is, in a few words.
        addresses: the addresses of the service that differ from its usual one, by value.
    """

    name: str
    variables: tuple[str, ...] = ()
    kind: PartKind = "label"
    default: str = ""
    meaning: str = ""
    addresses: Mapping[str, str] = field(default_factory=dict)

    def value(self, provider: str, settings: Mapping[str, Any]) -> str:
        """
        Return the value in ``settings`` or in the environment.

        Raises:
            ConfigurationError: there is none, or it could change the rest of the address.
        """
        source, given = self._find(provider, settings)
        if not given:
            msg = f"{provider} needs its {self.meaning or self.name}."
            setting = f"providers.{provider}.{self.name}"
            hint = f"Run %llm config {setting} VALUE{self._variables_hint}."
            raise ConfigurationError(msg, hint=hint, provider=provider, code=self.name)
        pattern, rule = _PART_PATTERNS[self.kind]
        value = given.lower()
        if self.kind == "host":
            value = value.removeprefix("https://").rstrip("/")
        if not pattern.fullmatch(value):
            msg = f"Invalid value {given[:80]!r} for {source}."
            raise ConfigurationError(msg, hint=rule, provider=provider, code=self.name)
        return value.replace("_", "-")  # as in the addresses of Snowflake's accounts

    @property
    def _variables_hint(self) -> str:
        variables = " or ".join(self.variables)
        return f", or set the environment variable {variables}" if variables else ""

    def is_set(self, settings: Mapping[str, Any]) -> bool:
        """Return whether it has a value."""
        return bool(self._find("", settings)[1])

    def _find(self, provider: str, settings: Mapping[str, Any]) -> tuple[str, str]:
        """Return the source of the value in words, and the value."""
        own = settings.get(self.name)
        if own not in (None, ""):
            return f"providers.{provider}.{self.name}", str(own).strip()
        for variable in self.variables:
            if value := environment_value(variable):
                return variable, value
        return self.name, self.default


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """
    What must be known about a service before it is used.

    Attributes:
        name: the name of its provider.
        address: its address up to ``/v1``, with the names of parts in braces.
        hosts: the host names by which it is recognised; ``*`` stands for one or more labels.
            Empty if it is a server of the user's own.
        type: the provider whose API it speaks.
        key_variables: the environment variables with its key; the first that is set applies.
        shares_key: whether such a variable is often set for other purposes, so that it does not
            mean that the user wants to use this service.
        token_provider: the identity that signs in to it by default; empty if it takes keys.
        parts: the parts of the address.
        profile: the other facts, for `llm_magics.providers.profiles`.
    """

    name: str
    address: str
    hosts: tuple[str, ...]
    type: str
    key_variables: tuple[str, ...]
    shares_key: bool
    token_provider: str
    parts: tuple[AddressPart, ...]
    profile: Mapping[str, Any]

    @property
    def variables(self) -> tuple[str, ...]:
        """All environment variables on which its address and key depend."""
        return (*self.key_variables, *(name for part in self.parts for name in part.variables))

    @property
    def key_variable(self) -> str:
        """The environment variable with its key: the first that is set, or the usual one."""
        found = (name for name in self.key_variables if environment_value(name))
        return next(found, next(iter(self.key_variables), ""))

    def base_url(self, provider: str, settings: Mapping[str, Any]) -> str:
        """
        Return its address with the parts filled in.

        Raises:
            ConfigurationError: a part is missing or invalid.
        """
        parts = {part.name: part.value(provider, settings) for part in self.parts}
        special = (part.addresses.get(parts[part.name]) for part in self.parts)
        return next(filter(None, special), self.address).format(**parts)

    def missing_parts(self, settings: Mapping[str, Any]) -> list[AddressPart]:
        """Return the parts of the address without a value."""
        return [part for part in self.parts if not part.is_set(settings)]


def read_file() -> dict[str, dict[str, Any]]:
    """Return the facts in the data file by service."""
    import tomllib

    return tomllib.loads(files(__package__).joinpath("services.toml").read_text("utf-8"))


@cache
def services() -> dict[str, Service]:
    """Return all services by name."""
    return {name: _build(name, facts) for name, facts in read_file().items()}


# The fields of the file that only describe a service, for readers and for the documentation.
_DESCRIPTIVE = ("title", "documentation", "checked", "sources", "unchecked", "notes")


def _build(name: str, facts: dict[str, Any]) -> Service:
    described = {key: facts.pop(key) for key in _DESCRIPTIVE if key in facts}
    parts = facts.pop("parts", {})
    address = facts.pop("address", "")
    host = re.sub(r"\{\w+\}", "*", address).partition("://")[2].partition("/")[0]
    usual = [] if host.startswith("127.0.0.1") else [host]
    return Service(
        name=name,
        address=address,
        hosts=tuple(facts.pop("hosts", usual)),
        type=facts.pop("type", "openai"),
        key_variables=tuple(facts.pop("key_variables", ())),
        shares_key=facts.pop("shares_key", False),
        token_provider=facts.pop("token_provider", ""),
        parts=tuple(
            AddressPart(name=part, **{**own, "variables": tuple(own.get("variables", ()))})
            for part, own in parts.items()
        ),
        profile={**facts, "description": described},
    )


def find_service(name: str, settings: Mapping[str, Any]) -> Service | None:
    """Return the service of a provider: by its profile, its type or its name; ``None`` if none."""
    modules = built_in_providers()
    chosen = [each for each in (settings.get("type"), name) if each not in modules]
    if profile := settings.get("profile"):
        chosen.insert(0, profile)
    found = (services().get(str(each)) for each in chosen if each)
    return next(filter(None, found), None)


@cache
def _host_patterns() -> list[tuple[re.Pattern[str], Service]]:
    labels = r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*"
    return [
        (re.compile(re.escape(host).replace(r"\*", labels)), service)
        for service in services().values()
        for host in service.hosts
    ]


def find_service_at(base_url: str, type_name: str = "openai") -> Service | None:
    """Return the service of this type at ``base_url``, by its host; ``None`` if it is unknown."""
    try:
        host = urlsplit(base_url).hostname or ""
    except ValueError:
        return None
    for pattern, service in _host_patterns():
        if service.type == type_name and pattern.fullmatch(host):
            return service
    return None
