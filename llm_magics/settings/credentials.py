"""
Projects whose settings may say where the user's own keys are sent.

What is trusted is a settings file with the places that it names: when these change — a pull, a
merge — it must be trusted anew.

Keys in the keyring of the user's system (extra ``keyring``).

Which providers have one there is noted in a file of the user's, without the keys: so a keyring,
which may be slow or ask for a password, is not opened in vain.
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

# The settings of a provider that decide where it is.
PLACES = ("base_url", "profile", "type")

# The settings that name a folder in which %llm cache clear deletes.
_FOLDERS = ("cache_dir", "vectors")


def project_file(config: Config) -> tuple[Path, dict[str, Any]] | None:
    """The project's settings file, and what it said when it was read: what is in force."""
    for path, settings in config.files():
        if is_project_file(f"file {path}"):
            return path, settings
    return None


def places(settings: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Where a settings file has which provider asked."""
    providers = settings.get("providers")
    told = providers.items() if isinstance(providers, dict) else ()
    found = {
        str(name): {key: str(own[key]) for key in PLACES if key in own}
        for name, own in told
        if isinstance(own, dict)
    }
    return {name: own for name, own in found.items() if own}


def folders(settings: Mapping[str, Any]) -> dict[str, str]:
    """Where a settings file has things stored, which can be cleared."""
    return {key: str(settings[key]) for key in _FOLDERS if settings.get(key) is not None}


def refuse_clearing(config: Config, key: str) -> None:
    """
    Refuse to delete anything in a folder that a project chose and the user has not confirmed.

    Raises:
        ConfigurationError: the setting ``key`` is from such a project's file.
    """
    source = config.source(key)
    if is_project_file(source) and not is_trusted(config):
        msg = f"Nothing was deleted: {key} is {config.get(key)}, as {source} has it, and you have not trusted that file."
        hint = (
            f"If the folder is right, run %llm trust, or set it yourself: %llm config {key} FOLDER"
        )
        raise ConfigurationError(msg, hint=hint)


def is_trusted(config: Config) -> bool:
    """Whether the user has said yes to the project's settings that are in force."""
    found = project_file(config)
    return found is not None and _known().get(str(found[0].resolve())) == _digest(found[1])


def trust(path: Path, settings: Mapping[str, Any]) -> None:
    """Say yes to a settings file with what it says now."""
    _write({**_known(), str(path.resolve()): _digest(settings)})


def distrust(path: Path) -> bool:
    """Take that back; whether it had been said."""
    known = _known()
    was_known = known.pop(str(path.resolve()), None) is not None
    if was_known:
        _write(known)
    return was_known


def stamp() -> tuple[int, int]:
    """Another one after each change of what is trusted."""
    try:
        status = _path().stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_ino)


def _digest(settings: Mapping[str, Any]) -> str:
    where: Any = places(settings)
    if folders(settings):
        where = [where, folders(settings)]
    told = json.dumps(where, sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def _path() -> Path:
    return user_config_path("llm_magics", appauthor=False) / "trusted.json"


def _known() -> dict[str, str]:
    try:
        told = json.loads(_path().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _write(known: Mapping[str, str]) -> None:
    atomic_write(_path(), json.dumps(known, indent=1, sort_keys=True))


_SERVICE = "llm_magics"


def store(provider: str, key: Secret) -> str:
    """Keep ``key`` there; why it could not be, or nothing where it is."""
    if find_spec("keyring") is None:
        return "The package keyring is not installed"
    import keyring
    from keyring.errors import KeyringError

    try:
        keyring.set_password(_SERVICE, provider, key.reveal())
    except (KeyringError, OSError, RuntimeError) as error:
        return f"This system's keyring cannot be used ({type(error).__name__})"
    _note({*_noted(), provider})
    return ""


def stored(provider: str) -> Secret | None:
    """The key of ``provider`` that is kept there, if one is."""
    if provider not in _noted() or find_spec("keyring") is None:
        return None
    import keyring
    from keyring.errors import KeyringError

    try:
        return Secret.of(keyring.get_password(_SERVICE, provider))
    except (KeyringError, OSError, RuntimeError):
        return None


def forget(provider: str) -> bool:
    """Take it out again; whether there was one."""
    if provider not in _noted():
        return False
    _note(_noted() - {provider})
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


def _noted() -> set[str]:
    try:
        told = json.loads(_keyring_path().read_text("utf-8"))
    except (OSError, ValueError):
        return set()
    return {str(each) for each in told} if isinstance(told, list) else set()


def _note(providers: set[str]) -> None:
    atomic_write(_keyring_path(), json.dumps(sorted(providers)))
