"""
The bearer tokens of servers with an address: from the environment, or from the system's keyring.

A token in the keyring belongs to the origin of an address, not to the name of a server, so that a
project cannot send it elsewhere.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from llm_magics.errors import ConfigurationError
from llm_magics.secrets import Secret, environment_value
from llm_magics.settings import credentials
from llm_magics.settings.schema import ServerSettings


def token_variable(name: str) -> str:
    """Return the environment variable with the token of a server that sets no ``token_env``."""
    return f"LLM_MAGICS_MCP_{name}_TOKEN".replace("-", "_").upper()


def find_token(name: str, settings: ServerSettings) -> Secret | None:
    """
    Return the token of a server; ``None`` if there is none.

    Raises:
        ConfigurationError: the variable in the settings is not set.
    """
    if settings.url is None:
        return None
    if settings.token_env is not None and settings.token_env not in os.environ:
        msg = f"The MCP server {name} needs a token in {settings.token_env}, which is not set."
        raise ConfigurationError(msg, hint="Set it before the kernel starts.")
    value = environment_value(settings.token_env or token_variable(name))
    return Secret(value) if value else credentials.load_key(keyring_name(settings.url))


def keyring_name(url: str) -> str:
    """Return the name in the keyring of the token for the origin of ``url``."""
    address = urlsplit(url)
    default = 443 if address.scheme == "https" else 80
    return f"mcp {address.scheme}://{address.hostname}:{address.port or default}"
