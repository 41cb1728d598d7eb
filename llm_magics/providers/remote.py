"""What providers that are reached over a network have in common: an address, a key, patience."""

from __future__ import annotations

from pydantic import ConfigDict, Field, field_validator

from llm_magics.providers.base import ProviderConfig
from llm_magics.secrets import Secret
from llm_magics.transport import Timeouts


class RemoteConfig(ProviderConfig):
    """
    Attributes:
        base_url: the service's address.
        api_key: the key it wants, if it wants one.
        connect_s, idle_s: seconds to wait for a connection, and for the next byte.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, validate_default=True
    )

    base_url: str
    api_key: Secret | None = None
    connect_s: float = Field(5.0, gt=0)
    idle_s: float = Field(300.0, gt=0)

    @field_validator("api_key", mode="before")
    @classmethod
    def _wrapped(cls, value: object) -> object:
        return Secret.of(value) if isinstance(value, str) else value

    @property
    def timeouts(self) -> Timeouts:
        """How long to wait."""
        return Timeouts(self.connect_s, self.idle_s)
