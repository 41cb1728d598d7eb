"""
Fakes of the secrets of Colab, Kaggle and Databricks.

They follow google/colab/userdata.py of googlecolab/colabtools (7 April 2026), the files
patches/kaggle_secrets.py and kaggle_web_client.py of Kaggle/docker-python (12 August 2026), and
for Databricks its reference of dbutils and the messages in issues of databrickslabs/overwatch.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class ColabError(Exception):
    """The class ``google.colab.errors.Error``."""


class NotebookAccessError(Exception):
    """Colab's error of this name, which is not a `ColabError`."""

    def __init__(self, key: str) -> None:
        super().__init__(f"Notebook does not have access to secret {key}")


class SecretNotFoundError(ColabError):
    """Colab's error of this name."""

    def __init__(self, key: str) -> None:
        super().__init__(f"Secret {key} does not exist.")


class TimeoutException(ColabError):  # noqa: N818 (Colab's name)
    """Colab's error of this name, after 10 s."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"Requesting secret {key} timed out. Secrets can only be fetched when running"
            " from the Colab UI."
        )


class FakeColab:
    """
    Colab's secrets; ``allowed`` are those that the notebook may read.

    The real request reads a socket that belongs to the kernel's main thread. The fake refuses any
    other thread, although its documentation does not.
    """

    def __init__(self, secrets: dict[str, str], allowed: set[str] | None = None) -> None:
        self.secrets = secrets
        self.allowed = set(secrets) if allowed is None else allowed
        self.has_page = True
        self.requested: list[str] = []

    def get(self, key: str) -> str:
        """Do what ``userdata.get`` does."""
        if not key or not isinstance(key, str):
            raise ValueError("Please enter a valid secret name")
        if re.search(r"\s", key):
            raise ValueError("Secret name cannot contain spaces or whitespace")
        assert threading.current_thread() is threading.main_thread()
        self.requested.append(key)
        if not self.has_page:
            raise TimeoutException(key)
        if key not in self.secrets:
            raise SecretNotFoundError(key)
        if key not in self.allowed:
            raise NotebookAccessError(key)
        return self.secrets[key]

    def install(self, monkeypatch: pytest.MonkeyPatch) -> FakeColab:
        """Make this process look like a kernel of Colab."""
        google, package = ModuleType("google"), ModuleType("google.colab")
        self.userdata = ModuleType("google.colab.userdata")
        for each in (NotebookAccessError, SecretNotFoundError, TimeoutException, self.get):
            setattr(self.userdata, each.__name__, each)
        package.userdata = self.userdata  # type: ignore[attr-defined]
        google.colab = package  # type: ignore[attr-defined]
        names = {"google": google, "google.colab": package, "google.colab.userdata": self.userdata}
        for name, module in names.items():
            monkeypatch.setitem(sys.modules, name, module)
        return self


class FakeKaggle:
    """Kaggle's secrets that are attached to the notebook; ``is_online`` is its Internet switch."""

    def __init__(self, secrets: dict[str, str]) -> None:
        self.secrets = secrets
        self.is_online = True
        self.requested: list[str] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> FakeKaggle:
        """Make this process look like a kernel of Kaggle, which contains Colab's packages."""
        kaggle = self

        class CredentialError(Exception):
            pass

        class BackendError(Exception):
            pass

        class ValidationError(Exception):
            pass

        class UserSecretsClient:
            def __init__(self) -> None:
                if os.getenv("KAGGLE_USER_SECRETS_TOKEN") is None:
                    raise CredentialError("A JWT Token is required to call Kaggle")

            def get_secret(self, label: str) -> str:
                if label is None or len(label) == 0:
                    raise ValidationError("Label must be non-empty.")
                kaggle.requested.append(label)
                if not kaggle.is_online:
                    raise ConnectionError("Connection error trying to communicate with service.")
                if label not in kaggle.secrets:
                    said = {
                        "wasSuccessful": "false",
                        "errors": [f"No user secrets exist for kernel id 1 and label {label}."],
                    }
                    raise BackendError(f"Unexpected response from the service. Response: {said}.")
                return kaggle.secrets[label]

        module = ModuleType("kaggle_secrets")
        module.UserSecretsClient = UserSecretsClient  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "kaggle_secrets", module)
        monkeypatch.setenv("KAGGLE_USER_SECRETS_TOKEN", "a-token-of-kaggle")
        return self


class FakeDatabricks:
    """Databricks' secrets, by scope and key."""

    def __init__(self, secrets: dict[tuple[str, str], str]) -> None:
        self.secrets = secrets
        self.requested: list[tuple[str, str]] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> FakeDatabricks:
        """Make this process look like a notebook of Databricks, with ``dbutils`` in it."""

        class IllegalArgumentException(Exception):  # noqa: N818 (Spark's name)
            pass

        def get(scope: str, key: str) -> str:
            self.requested.append((scope, key))
            if (scope, key) not in self.secrets:
                raise IllegalArgumentException(
                    f"Secret does not exist with scope: {scope} and key: {key}"
                )
            return self.secrets[scope, key]

        dbutils: Any = SimpleNamespace(secrets=SimpleNamespace(get=get))
        monkeypatch.setattr(sys.modules["__main__"], "dbutils", dbutils, raising=False)
        monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
        return self
