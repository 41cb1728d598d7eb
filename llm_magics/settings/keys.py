"""
Keys in the keyring of the user's system (extra ``keyring``).

Which providers have one there is noted in a file of the user's, without the keys: so a keyring,
which may be slow or ask for a password, is not opened in vain.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

from platformdirs import user_config_path

from llm_magics.secrets import Secret
from llm_magics.writing import write_whole

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


def _path() -> Path:
    return user_config_path("llm_magics", appauthor=False) / "keyring.json"


def _noted() -> set[str]:
    try:
        told = json.loads(_path().read_text("utf-8"))
    except (OSError, ValueError):
        return set()
    return {str(each) for each in told} if isinstance(told, list) else set()


def _note(providers: set[str]) -> None:
    write_whole(_path(), json.dumps(sorted(providers)))
