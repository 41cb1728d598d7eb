"""``python -m llm_magics doctor``: what works, as a table and an exit code."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm_magics.__main__ import main
from llm_magics.runtime.doctor import diagnose, format_table
from llm_magics.runtime.session import Session
from llm_magics.settings.config import Config
from tests.support.fake_openai import FakeOpenAI
from tests.support.nested import plain_environment
from tests.support.serving import Asked, Says, as_json, serving

KEY = "a-key-of-the-test"


def doctor(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, run as a user would; for what is inside of it, call ``main``."""
    return subprocess.run(
        [sys.executable, "-m", "llm_magics", "doctor", *arguments],
        cwd=folder,
        env={**plain_environment(), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_works_is_told(tmp_path: Path) -> None:
    """Health, list, one tiny chat and embedding; exit code 0."""
    with serving(FakeOpenAI()) as server:
        done = doctor(
            "echo", "openai", folder=tmp_path, OPENAI_API_KEY=KEY, OPENAI_BASE_URL=server.url
        )
    assert done.returncode == 0, done.stderr
    heading, echo, openai = done.stdout.splitlines()
    assert heading.split() == ["provider", "health", "models", "chat", "embedding", "detail"]
    assert echo.split() == ["echo", "ok", "2", "ok", "ok", "echo;", "echo"]
    assert openai.split()[:5] == ["openai", "ok", "2", "ok", "ok"]
    assert "gpt-test; text-embedding-test" in openai
    assert KEY not in done.stdout


def test_what_fails_is_told_and_the_exit_code_is_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong key: said, with what to do."""
    with serving(FakeOpenAI(key="another")) as server:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert main(["doctor", "openai"]) == 1
    told = capsys.readouterr().out
    assert "Incorrect API key" in told
    assert KEY not in told


def test_a_mistyped_provider(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, and the nearest name."""
    assert main(["doctor", "olama"]) == 1
    assert "Did you mean ollama?" in capsys.readouterr().err


def test_a_mistake_in_the_settings(tmp_path: Path) -> None:
    """Two lines, and no traceback."""
    (tmp_path / "llm_magics.yaml").write_text("modle: x")
    done = doctor("echo", folder=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "model" in done.stderr


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session whose settings are empty."""
    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_BASE_URL", "_TOKEN", "_HOST")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    return Session(Config(tmp_path, {}))


def test_what_nobody_set_up_has_not_failed(own: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key and no server is no failure, unless one asks for it by name."""
    names = ["anthropic", "gemini", "huggingface", "openai"]
    every = own.providers.names()
    assert set(names) < set(every)
    # Models in this process and its engine need neither, and take seconds to load.
    found = [each for each in every if each not in ("local", "huggingface-local")]
    monkeypatch.setattr(own.providers, "names", lambda: found)
    for each in asyncio.run(diagnose(own)):
        if each.provider in names:
            assert (each.health, each.has_failed) == ("not set up", False)
            assert "KEY" in each.detail or "TOKEN" in each.detail
    (asked_for,) = asyncio.run(diagnose(own, ["openai"]))
    assert asked_for.has_failed


def test_each_part_fails_by_itself(own: Session) -> None:
    """A chat that does not work says nothing of embeddings."""

    def answers(asked: Asked) -> Says:
        if asked.path == "/chat/completions":
            return as_json({"error": {"message": "out of order"}}, 500)
        return FakeOpenAI(key=KEY)(asked)

    with serving(answers) as server:
        own.config.set("providers.openai.base_url", server.url)
        own.config.set("providers.openai.api_key", KEY)
        (found,) = asyncio.run(diagnose(own, ["openai"]))
    assert (found.health, found.models, found.chat, found.embedding) == ("ok", "2", "failed", "ok")
    assert "gpt-test: openai/gpt-test: out of order." in found.detail
    assert "out of order" in format_table([found])


def test_a_provider_that_cannot_be_made(own: Session) -> None:
    """A wrong setting is that provider's failure, and the others are tried all the same."""
    own.config.set("providers.echo.dimensions", "many")
    echo, local = asyncio.run(diagnose(own, ["echo", "huggingface-local"]))
    assert echo.has_failed
    assert "many" in echo.detail
    assert local.provider == "huggingface-local"
