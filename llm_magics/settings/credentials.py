"""
Trusted projects, which may use the user's keys, and the keys in the system's keyring.

A project's settings determine the addresses to which the user's keys are sent. The user trusts the
addresses and folders in a settings file; when these change, for example after a pull or a merge,
the user must trust it again.

Keys are stored in the keyring of the user's system (extra ``keyring``). A file lists the providers
with a key in it, without the keys. The keyring is only opened for these, because it may be slow or
ask for a password.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from platformdirs import user_config_path

from llm_magics._util.filesystem import atomic_write
from llm_magics.errors import ConfigurationError
from llm_magics.secrets import Secret
from llm_magics.settings.config import Config
from llm_magics.settings.files import is_project_file

# The settings that are parts of the addresses of services.
ADDRESS_PARTS = ("account", "endpoint", "host", "location", "project", "region")

# The settings of a provider that determine where its requests are sent.
LOCATION_SETTINGS = ("base_url", *ADDRESS_PARTS, "profile", "type")

# The setting with which a token of the user's identity is sent there.
IDENTITY_SETTING = "token_provider"

# A header with which a server may forward a request, and its key, to another host.
HOST_HEADER = "extra_headers.Host"

# The settings of folders whose contents %llm cache clear deletes.
_FOLDERS = ("cache_dir", "vectors")


def find_project_file(config: Config) -> tuple[Path, dict[str, Any]] | None:
    """Return the project's settings file and the settings that were read from it."""
    for path, settings in config.files():
        if is_project_file(f"file {path}"):
            return path, settings
    return None


def project_configures(config: Config, provider: str) -> bool:
    """Return whether a project's settings file has settings of ``provider``."""
    return any(
        provider in (settings.get("providers") or {})
        for path, settings in config.files()
        if is_project_file(f"file {path}")
    )


def provider_locations(settings: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the settings in a file that determine where keys and tokens are sent, by provider."""
    providers = settings.get("providers")
    items = providers.items() if isinstance(providers, dict) else ()
    found = {
        str(name): {
            **{key: str(own[key]) for key in (*LOCATION_SETTINGS, IDENTITY_SETTING) if key in own},
            **_host_header(own.get("extra_headers")),
        }
        for name, own in items
        if isinstance(own, dict)
    }
    return {name: own for name, own in found.items() if own}


def find_host_header(headers: object) -> str:
    """Return the header ``Host`` in ``headers``; empty if there is none."""
    items = headers.items() if isinstance(headers, Mapping) else ()
    return next((str(value) for name, value in items if str(name).lower().strip() == "host"), "")


def _host_header(headers: object) -> dict[str, str]:
    host = find_host_header(headers)
    return {HOST_HEADER: host} if host else {}


def storage_folders(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the folders in a settings file whose contents can be cleared."""
    return {key: str(settings[key]) for key in _FOLDERS if settings.get(key) is not None}


def server_entries(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the MCP servers in a settings file, which run programs and allow their tools."""
    servers = settings.get("mcp")
    return {str(name): own for name, own in servers.items()} if isinstance(servers, dict) else {}


def require_trusted_server(config: Config, name: str, source: str) -> None:
    """
    Check that an MCP server was not set by a project that the user does not trust.

    Raises:
        ConfigurationError: it is from the settings file of such a project.
    """
    if is_project_file(source) and not is_trusted(config):
        msg = f"The MCP server {name} is set by {source}, which you have not trusted."
        raise ConfigurationError(msg, hint="Read its command in the file, then run %llm trust")


def require_trusted_folder(config: Config, key: str) -> None:
    """
    Check that a folder to be cleared was not set by a project that the user does not trust.

    Raises:
        ConfigurationError: the setting ``key`` is from the settings file of such a project.
    """
    source = config.source(key)
    if is_project_file(source) and not is_trusted(config):
        msg = f"Nothing was deleted: {key} is {config.get(key)}, set by {source}, which you have not trusted."
        hint = f"If the folder is correct, run %llm trust, or set it yourself: %llm config {key} FOLDER"
        raise ConfigurationError(msg, hint=hint)


def is_trusted(config: Config) -> bool:
    """Return whether the user trusts the project's settings as they were read."""
    found = find_project_file(config)
    return found is not None and _load_trusted().get(str(found[0].resolve())) == _digest(found[1])


def trust(path: Path, settings: Mapping[str, Any]) -> None:
    """Trust a settings file with its current contents."""
    _save_trusted({**_load_trusted(), str(path.resolve()): _digest(settings)})


def distrust(path: Path) -> bool:
    """Stop trusting a settings file; return whether it was trusted."""
    known = _load_trusted()
    was_known = known.pop(str(path.resolve()), None) is not None
    if was_known:
        _save_trusted(known)
    return was_known


def files_version() -> tuple[tuple[int, int], ...]:
    """Return a value that changes when the list of trusted files or of stored keys changes."""
    return tuple(map(_version_of, (_trust_path(), _keyring_path())))


def _version_of(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_ino)


def _digest(settings: Mapping[str, Any]) -> str:
    where: Any = provider_locations(settings)
    if storage_folders(settings):
        where = [where, storage_folders(settings)]
    if server_entries(settings):
        where = [where, "mcp", server_entries(settings)]
    text = json.dumps(where, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _trust_path() -> Path:
    return user_config_path("llm_magics", appauthor=False) / "trusted.json"


def _load_trusted() -> dict[str, str]:
    try:
        trusted = json.loads(_trust_path().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return trusted if isinstance(trusted, dict) else {}


def _save_trusted(known: Mapping[str, str]) -> None:
    atomic_write(_trust_path(), json.dumps(known, indent=1, sort_keys=True))


_SERVICE = "llm_magics"


def store_key(provider: str, key: Secret) -> str:
    """Store ``key`` in the keyring; return an error message, which is empty on success."""
    if find_spec("keyring") is None:
        return "The package keyring is not installed"
    import keyring
    from keyring.errors import KeyringError

    try:
        keyring.set_password(_SERVICE, provider, key.reveal())
    except (KeyringError, OSError, RuntimeError) as error:
        return f"The system keyring is not usable ({type(error).__name__})"
    _save_providers({*_load_providers(), provider})
    return ""


def load_key(provider: str) -> Secret | None:
    """Return the key of ``provider`` in the keyring; ``None`` if there is none."""
    if provider not in _load_providers() or find_spec("keyring") is None:
        return None
    import keyring
    from keyring.errors import KeyringError

    try:
        return Secret.of(keyring.get_password(_SERVICE, provider))
    except (KeyringError, OSError, RuntimeError):
        return None


def has_key(provider: str) -> bool:
    """Return whether the keyring has a key of ``provider``; the keyring itself is not opened."""
    return provider in _load_providers()


def delete_key(provider: str) -> bool:
    """Delete the key of ``provider`` from the keyring; return whether there was one."""
    if provider not in _load_providers():
        return False
    _save_providers(_load_providers() - {provider})
    if find_spec("keyring") is not None:
        import keyring
        from keyring.errors import KeyringError

        try:
            keyring.delete_password(_SERVICE, provider)
        except (KeyringError, OSError, RuntimeError):
            return False
    return True


def _keyring_path() -> Path:
    return user_config_path("llm_magics", appauthor=False) / "keyring.json"


def _load_providers() -> set[str]:
    try:
        names = json.loads(_keyring_path().read_text("utf-8"))
    except (OSError, ValueError):
        return set()
    return {str(each) for each in names} if isinstance(names, list) else set()


def _save_providers(providers: set[str]) -> None:
    atomic_write(_keyring_path(), json.dumps(sorted(providers)))
