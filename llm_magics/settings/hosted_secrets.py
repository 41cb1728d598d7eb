"""
API keys in the secrets of a hosted notebook: Colab, Kaggle and Databricks.

A secret has the name of the provider's environment variable. A lookup can show a dialog or take
seconds, so it is done once per name, and only for a provider in use.

Sources, read in November 2026: google/colab/userdata.py of googlecolab/colabtools,
patches/kaggle_secrets.py of Kaggle/docker-python, and the reference of dbutils by Databricks.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

from llm_magics.host import current_host, warn
from llm_magics.secrets import Secret, redact

Platform = Literal["Colab", "Kaggle", "Databricks"]

# How to add a secret, for hints.
_INSTRUCTIONS: dict[Platform, str] = {
    "Colab": "Add {name} under Secrets (the key on the left), allow this notebook to read it",
    "Kaggle": "Add {name} under Add-ons, Secrets, and attach it to this notebook",
    "Databricks": "Add {name} to the secret scope that the setting secret_scope names",
}

# A secret, or the reason why it cannot be read; an empty reason if there is none of that name.
_Result = Secret | str


class _PostponedError(Exception):
    """The lookup is not possible in this thread or at this time."""


def find_platform() -> Platform | None:
    """Return the platform that this process runs on; ``None`` elsewhere. Nothing is imported."""
    # Kaggle's image contains Colab's packages, and Colab's kernel imports its own.
    if os.environ.get("KAGGLE_USER_SECRETS_TOKEN"):
        return "Kaggle"
    if "google.colab" in sys.modules:
        return "Colab"
    if os.environ.get("DATABRICKS_RUNTIME_VERSION"):
        return "Databricks"
    return None


def describe_secret(variable: str) -> str:
    """Return the source of a key from the current platform, in words."""
    return f"{find_platform()} secret {variable}"


def instructions(variable: str) -> str:
    """Return how to add the secret ``variable`` on this platform; empty elsewhere."""
    platform = find_platform()
    return _INSTRUCTIONS[platform].format(name=variable) if platform and variable else ""


@dataclass(frozen=True, slots=True)
class _Lookup:
    platform: Platform
    variable: str
    scope: str | None


class HostedSecrets:
    """The secrets of the platform that were looked up, for one session."""

    def __init__(self, call: Callable[[Callable[[], _Result]], _Result]) -> None:
        """Create it; ``call`` calls a function in the thread of the cell."""
        self._call = call
        self._results: dict[_Lookup, _Result] = {}

    def known(self, variable: str, scope: str | None = None) -> Secret | None:
        """Return the secret ``variable`` if it was found before; no lookup."""
        lookup = _lookup_of(variable, scope)
        found = self._results.get(lookup) if lookup else None
        return found if isinstance(found, Secret) else None

    def look_up(self, variable: str, scope: str | None = None) -> bool:
        """
        Look up the secret ``variable``, unless that was done before; return whether it was found.

        A secret that exists but cannot be read causes a warning with the reason. A lookup that is
        not possible now, such as in a user's thread in Colab, is done the next time.
        """
        lookup = _lookup_of(variable, scope)
        if lookup is None or lookup in self._results:
            return False
        try:
            found = self._call(lambda: _read(lookup))
        except (_PostponedError, RuntimeError):  # RuntimeError: the cell's thread is not available
            return False
        self._results[lookup] = found
        if isinstance(found, str) and found:
            warn(f"{describe_secret(variable)} was not read: {found}")
        return isinstance(found, Secret)

    def forget(self, variables: Collection[str]) -> None:
        """Look up ``variables`` again the next time."""
        for lookup in [each for each in self._results if each.variable in variables]:
            del self._results[lookup]


def _lookup_of(variable: str, scope: str | None) -> _Lookup | None:
    platform = find_platform()
    if platform is None or not variable or (platform == "Databricks" and not scope):
        return None
    return _Lookup(platform, variable, scope)


def _read(lookup: _Lookup) -> _Result:
    if lookup.platform == "Colab":
        return _read_colab(lookup.variable)
    try:
        if lookup.platform == "Kaggle":
            return _read_kaggle(lookup.variable)
        return _read_databricks(lookup.variable, lookup.scope)
    except Exception as error:  # the platforms' exceptions have no common base class
        text = str(error)
        is_missing = any(phrase in text for phrase in _MISSING)
        return "" if is_missing else _reason(error)


# In the messages about a secret that does not exist, of Kaggle and Databricks.
_MISSING = ("No user secrets exist", "Secret does not exist")


def _reason(error: Exception) -> str:
    lines = redact(str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _read_colab(variable: str) -> _Result:
    """
    Read a secret through Colab's page, which may ask the user for permission.

    The reply arrives on a socket that only the thread of the cell may read.
    """
    if threading.current_thread() is not threading.main_thread():
        raise _PostponedError
    if current_host().is_unattended():  # no page replies, and the call would take 10 s
        raise _PostponedError
    from google.colab import userdata

    try:
        return _wrap(userdata.get(variable))
    except userdata.SecretNotFoundError:
        return ""
    except userdata.NotebookAccessError:
        return "this notebook has no access to it. Allow it under Secrets, then run %llm key."
    except Exception as error:  # a timeout, or an error of the page
        return _reason(error)


def _read_kaggle(variable: str) -> _Result:
    from kaggle_secrets import UserSecretsClient

    return _wrap(UserSecretsClient().get_secret(variable))


def _read_databricks(variable: str, scope: str | None) -> _Result:
    return _wrap(_find_dbutils().secrets.get(scope=scope, key=variable))


def _find_dbutils() -> Any:
    """Return the object that Databricks defines in each notebook."""
    in_notebook = getattr(sys.modules.get("__main__"), "dbutils", None)
    if in_notebook is not None:
        return in_notebook
    from databricks.sdk.runtime import dbutils  # in a job that runs a Python file

    return dbutils


def _wrap(value: object) -> _Result:
    """Return the value of a secret; a blank one counts as missing."""
    return Secret.of(value if isinstance(value, str) else None) or ""
