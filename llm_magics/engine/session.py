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
        made = provider_type(name)
        settings = self.config.for_provider(name, made.config_type.model_fields)
        known = self._providers.get(name)
        if known is None or known[0] != settings:
            self._keep_key_from_strangers(name, made, settings)
            known = self._providers[name] = (settings, self._created(name, settings))
        return known[1]

    def _keep_key_from_strangers(
        self, name: str, made: type[BaseModelProvider], settings: dict[str, Any]
    ) -> None:
        """A project's file may say where to ask, but not have the user's own key sent there."""
        source = self.config.source(f"providers.{name}.base_url")
        if not is_project_file(source):
            return
        if "api_key" in settings:
            key_source = self.config.source(f"providers.{name}.api_key")
        else:
            key_source = os.environ.get(made.key_variable, "") and made.key_variable
        if not key_source or key_source == source:  # no key, or the project's own
            return
        url = settings["base_url"]
        msg = f"{source} sends {name} to {url}, where your key would go too ({key_source})."
        hint = f"If you trust it: %llm config providers.{name}.base_url {url}"
        raise ConfigurationError(msg, hint=hint, provider=name)

    def _created(self, name: str, settings: dict[str, Any]) -> BaseModelProvider:
        try:
            return create_provider(name, settings)
        except ConfigurationError as error:
            source = self.config.source(f"providers.{name}.{error.code}")
            raise ConfigurationError(f"{source}: {error}", hint=error.hint) from None

    async def listings(self) -> dict[str, list[str]]:
        """The models of every provider that can be asked, by provider."""
        names = get_available_providers()
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
        available = get_available_providers() if named else []
        for name, source in named.items():
            if name not in available:
                msg = f'{source}: there is no provider "{name}".'
                raise ConfigurationError(msg, hint=nearest(name, available))


session = Session(config)
