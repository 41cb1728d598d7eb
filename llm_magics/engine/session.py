"""What one notebook shares: its settings, its providers and its log."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from llm_magics.bridge import bridge
from llm_magics.engine.metrics import RunLog
from llm_magics.errors import ConfigurationError, nearest
from llm_magics.providers import create_provider, get_available_providers, provider_type
from llm_magics.providers.base import BaseModelProvider
from llm_magics.settings.config import Config, config
from llm_magics.settings.files import is_project_file


class Session:
    """The shared state behind the magics, the accessor and ``lm.…``."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.runs = RunLog()
        self._providers: dict[str, tuple[dict[str, Any], BaseModelProvider]] = {}
        bridge.at_exit(self.close)

    def provider(self, name: str) -> BaseModelProvider:
        """The provider called ``name``, set up by the settings; made anew when those change."""
        self._refuse_unknown_settings()
        made = provider_type(self._type_of(name))
        settings = self.config.for_provider(name, made.config_type.model_fields)
        known = self._providers.get(name)
        if known is None or known[0] != settings:
            self._keep_key_from_strangers(name, made, settings)
            known = self._providers[name] = (settings, self._created(name, settings))
        return known[1]

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
        source = self.config.source(f"providers.{name}.base_url")
        if not is_project_file(source):
            return
        key_source = self._key_source(name, made, settings)
        if not key_source or key_source == source:  # no key, or the project's own
            return
        url = settings["base_url"]
        msg = f"{source} sends {name} to {url}, where your key would go too ({key_source})."
        hint = f"If you trust it: %llm config providers.{name}.base_url {url}"
        raise ConfigurationError(msg, hint=hint, provider=name)

    def _key_source(
        self, name: str, made: type[BaseModelProvider], settings: dict[str, Any]
    ) -> str:
        """Where the key that would be sent comes from; nothing where there is none."""
        if "api_key" in settings:
            return self.config.source(f"providers.{name}.api_key")
        if self._type_of(name) == name:
            return made.own_key_source()
        variable = made.config_type.namesake_key_variable(name, settings)
        return variable if os.environ.get(variable) else ""

    def _created(self, name: str, settings: dict[str, Any]) -> BaseModelProvider:
        try:
            return create_provider(name, settings)
        except ConfigurationError as error:
            source = self.config.source(f"providers.{name}.{error.code}")
            raise ConfigurationError(f"{source}: {error}", hint=error.hint) from None

    async def listings(self) -> dict[str, list[str]]:
        """The models of every provider that can be asked, by provider."""
        names = self.provider_names()
        found = await asyncio.gather(
            *(self.provider(name).list_models() for name in names), return_exceptions=True
        )
        return {
            name: models
            for name, models in zip(names, found, strict=True)
            if not isinstance(models, BaseException)
        }

    async def close(self) -> None:
        """Close every provider."""
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
