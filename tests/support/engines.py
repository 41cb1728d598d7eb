"""A server in place of an engine of the local provider."""

from __future__ import annotations

from llm_magics.providers.local.process import Engine
from llm_magics.secrets import Secret


class ServedEngine(Engine):
    """An engine whose server is somebody else's, at ``address``."""

    is_alive = True

    def __init__(self, address: str, key: Secret) -> None:
        self.addresses = [address]
        self.key = key

    def await_exit(self) -> None:
        """Do not wait: there is no process."""
