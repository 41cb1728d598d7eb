"""Providers are created once, and again when what they were created from has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import llm_magics as lm
from llm_magics.runtime.session import session
from llm_magics.settings.config import Config


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The providers whose settings were read."""
    found: list[str] = []
    read = Config.for_provider

    def for_provider(self: Config, name: str, keys: Any) -> dict[str, Any]:
        found.append(name)
        return read(self, name, keys)

    monkeypatch.setattr(Config, "for_provider", for_provider)
    lm.config.set("providers.lab.type", "openai")
    lm.config.set("providers.lab.base_url", "http://127.0.0.1:9/v1")
    return found


def test_a_provider_is_found_without_reading_its_settings(reads: list[str]) -> None:
    """As long as nothing has changed."""
    first = session.provider("lab")
    assert reads == ["lab"]
    assert session.provider("lab") is first
    assert reads == ["lab"]


def test_another_setting_leaves_a_provider_as_it_is(reads: list[str]) -> None:
    """Its connections and its limits stay."""
    first = session.provider("lab")
    lm.config.temperature = 0.5
    assert session.provider("lab") is first


@pytest.mark.parametrize("name", ["LAB_API_KEY", "LLM_MAGICS_LAB_API_KEY", "OPENAI_ORG_ID"])
def test_an_environment_variable_makes_another_provider(
    reads: list[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Of the provider's own name, of its service, and of this package."""
    first = session.provider("lab")
    monkeypatch.setenv(name, "another")
    assert session.provider("lab") is not first


def test_its_own_setting_makes_another_provider(reads: list[str]) -> None:
    """And taking it back makes another one too."""
    first = session.provider("lab")
    lm.config.set("providers.lab.concurrency", 3)
    second = session.provider("lab")
    lm.config.reset("providers.lab.concurrency")
    assert len({id(each) for each in (first, second, session.provider("lab"))}) == 3


def test_another_cache_folder_moves_the_weights(tmp_path: Path) -> None:
    """A model that was downloaded into the old folder is not in the new one."""
    for folder in (tmp_path / "first", tmp_path / "second"):
        lm.config.cache_dir = folder
        assert session.provider("local").config.weights_dir == folder / "weights"
    lm.config.set("providers.local.weights_dir", tmp_path / "own")
    assert session.provider("local").config.weights_dir == tmp_path / "own"
