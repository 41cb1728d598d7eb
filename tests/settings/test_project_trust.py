"""Keys typed and kept, projects trusted, and a canary looked for in every place there is."""

from __future__ import annotations

import getpass
import json
import logging
import sqlite3
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keyring
import pytest
from IPython.core.interactiveshell import InteractiveShell
from keyring.backend import KeyringBackend

import llm_magics as lm
from llm_magics import errors
from llm_magics.runtime.session import session
from llm_magics.secrets import Secret
from llm_magics.settings import credentials
from tests.support.fake_openai import FakeOpenAI
from tests.support.kernels import Kernel
from tests.support.serving import Says, chat_stream, serving

CANARY = "sk-" + "canary" + "0123456789" * 3


class Memory(KeyringBackend):
    """A keyring that keeps what it is given."""

    priority = 1  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}
        self.read = 0

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def get_password(self, service: str, username: str) -> str | None:
        self.read += 1
        return self.kept.get((service, username))

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


@pytest.fixture
def own_keyring() -> Iterator[Memory]:
    """A keyring of the test's own."""
    before, made = keyring.get_keyring(), Memory()
    keyring.set_keyring(made)
    yield made
    keyring.set_keyring(before)


def types(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Have the user type ``text``."""
    monkeypatch.setattr(getpass, "getpass", lambda prompt: text)


def test_a_key_is_typed_unseen_and_kept(
    shell: InteractiveShell,
    own_keyring: Memory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In the keyring; the next session finds it there, the environment counts before it."""
    types(monkeypatch, f" {CANARY}\n")
    with serving(FakeOpenAI(key=CANARY)) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        shell.run_line_magic("llm", "key openai")
        assert "system keyring" in capsys.readouterr().out
        assert lm.ask("hi", model="openai/gpt-test").text
        lm.config.reset()
        assert lm.ask("hi", model="openai/gpt-test").text
        assert own_keyring.read
        monkeypatch.setenv("OPENAI_API_KEY", "another")
        with pytest.raises(errors.AuthenticationError):
            lm.ask("hi", model="openai/gpt-test")
        monkeypatch.delenv("OPENAI_API_KEY")
        shell.run_line_magic("llm", "key openai --forget")
        assert own_keyring.kept == {}
        with pytest.raises(errors.AuthenticationError):
            lm.ask("hi", model="openai/gpt-test")
    assert CANARY not in "".join(path.read_text() for path in Path().rglob("*.json"))


def test_without_a_keyring_it_is_kept_for_the_session(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And that is said, with why."""
    monkeypatch.setattr(credentials, "find_spec", lambda name: None)
    types(monkeypatch, CANARY)
    shell.run_line_magic("llm", "key openai")
    assert "The package keyring is not installed" in capsys.readouterr().out
    assert repr(lm.config.get("providers.openai.api_key")) == "Secret('****')"


@pytest.mark.parametrize(
    ("line", "typed", "message"),
    [
        ("key opnai", "x", "opnai"),
        ("key echo", "x", "API key"),
        ("key", "x", "a provider"),
        ("key openai", "", "No key"),
        ("key openai", "a\x00b", "key"),
        ("trust me", "", "'off'"),
    ],
)
def test_what_cannot_be_kept(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, line: str, typed: str, message: str
) -> None:
    """Is said, and nothing is asked for that could not be used."""
    types(monkeypatch, typed)
    with pytest.raises(errors.UsageError, match=message):
        shell.run_line_magic("llm", line)


def test_a_key_cannot_be_typed_where_nobody_sits(kernel: Kernel) -> None:
    """The cell fails at once, with what to do in its place."""
    told = kernel.run("%llm key openai")
    assert told.status == "error"
    assert "environment" in told.error


PROJECT = "providers: {{openai: {{base_url: '{url}'}}}}"


def test_a_project_is_trusted_until_its_places_change(
    shell: InteractiveShell,
    own_keyring: Memory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """No key goes where a project says before, and none after it says something else."""
    file = tmp_path / "llm_magics.yaml"
    with serving(FakeOpenAI(key=CANARY)) as server, serving(FakeOpenAI()) as thief:
        for where in ("environment", "keyring"):
            if where == "environment":
                monkeypatch.setenv("OPENAI_API_KEY", CANARY)
            else:
                monkeypatch.delenv("OPENAI_API_KEY")
                types(monkeypatch, CANARY)
                shell.run_line_magic("llm", "key openai")
                lm.config.reset()
            file.write_text(PROJECT.format(url=server.url))
            lm.config.reload()
            with pytest.raises(errors.ConfigurationError, match="API key") as caught:
                lm.ask("hi", model="openai/gpt-test")
            assert "%llm trust" in str(caught.value.hint)
            shell.run_line_magic("llm", "trust")
            assert f"base_url {server.url}" in capsys.readouterr().out
            assert lm.ask("hi", model="openai/gpt-test").text
            file.write_text(PROJECT.format(url=server.url) + "\nmodel: openai/gpt-test")
            lm.config.reload()
            assert lm.ask("hi").text
            file.write_text(PROJECT.format(url=thief.url))
            lm.config.reload()
            with pytest.raises(errors.ConfigurationError, match="API key"):
                lm.ask("hi", model="openai/gpt-test")
            file.write_text(PROJECT.format(url=server.url))
            lm.config.reload()
            shell.run_line_magic("llm", "trust off")
            with pytest.raises(errors.ConfigurationError, match="API key"):
                lm.ask("hi", model="openai/gpt-test")
        assert thief.asked == []


def test_there_may_be_nothing_to_trust(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Without a file that is said; a damaged list of trust trusts nobody."""
    shell.run_line_magic("llm", "trust")
    assert "no settings file" in capsys.readouterr().out
    file = tmp_path / "llm_magics.yaml"
    file.write_text(PROJECT.format(url="http://127.0.0.1:9"))
    trusted = tmp_path / "user-config/llm_magics/trusted.json"
    for damage in ("", "[]", "{", '{"a": 1}'):
        trusted.parent.mkdir(parents=True, exist_ok=True)
        trusted.write_text(damage)
        assert not credentials.is_trusted(lm.config)


def told_everywhere(shell: InteractiveShell, error: BaseException) -> str:
    """All the ways in which an error is shown."""
    shell.InteractiveTB.set_mode("Verbose")
    shown = shell.InteractiveTB.structured_traceback(type(error), error, error.__traceback__)
    lm.config.tracebacks = "full"
    return "\n".join(
        [
            str(error),
            repr(error),
            repr(vars(error)),
            *shown,
            *error._render_traceback_(),  # type: ignore[attr-defined]
            *traceback.format_exception(error),
        ]
    )


@pytest.mark.parametrize("place", ["environment", "session", "keyring", "header"])
def test_a_canary_is_nowhere(
    place: str,
    shell: InteractiveShell,
    own_keyring: Memory,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Not in errors, reprs, logs, tracebacks, recordings, the cache, templates or runs."""
    caplog.set_level(logging.DEBUG)
    echoing = Says(chat_stream("your key is ", CANARY, " is it not"))

    def answer(asked: Any) -> Says:
        if "fail" in asked.body.decode():
            said = {"error": {"message": f"bad key {CANARY}", "code": "invalid_api_key"}}
            return Says([json.dumps(said).encode()], 401, "application/json")
        return echoing

    with serving(answer) as server:
        lm.config.set("providers.openai.base_url", server.url)
        if place == "environment":
            monkeypatch.setenv("OPENAI_API_KEY", CANARY)
        elif place == "session":
            lm.config.set("providers.openai.api_key", CANARY)
        elif place == "keyring":
            types(monkeypatch, CANARY)
            shell.run_line_magic("llm", "key openai")
        else:
            lm.config.set("providers.openai.extra_headers", {"X-Key": CANARY})
            lm.config.set("providers.openai.api_key", CANARY)
        lm.config.cache_dir, lm.config.cache = tmp_path / "cache", True
        lm.config.record = tmp_path / "tape.jsonl"
        shell.run_cell_magic("llm", "openai/m --thread -o ans", "what is my key?")
        shell.run_cell_magic("llm", "--save kept", f"my key is {CANARY}")
        capsys.readouterr()  # what a model says is shown as it said it
        with pytest.raises(errors.AuthenticationError) as caught:
            lm.ask("fail", model="openai/m")
        sent = [dict(each.headers) for each in server.asked]
        assert any(CANARY in value for each in sent for value in each.values())
        shown = told_everywhere(shell, caught.value)
    shell.run_line_magic("llm", "config")
    provider = session.provider("openai")
    # A thread holds what a model said as it said it: it goes back to that model.
    held = {name: value for name, value in vars(session).items() if name != "conversations"}
    reprs = [repr(each) for each in (provider, vars(provider), provider.config, lm.config)]
    reprs += [lm.config.frame().to_string(), lm.runs().to_string(), repr(held)]
    connection = sqlite3.connect(tmp_path / "cache" / "answers.sqlite")
    rows = connection.execute("SELECT key, value FROM kept").fetchall()
    connection.close()
    assert rows == []  # an answer that repeats a key is not kept
    session.answer_cache.close()
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    out, err = capsys.readouterr()
    for text in (shown, *reprs, caplog.text, out, err, repr(rows)):
        assert CANARY not in text
    assert not any(CANARY.encode() in data for data in files)


@pytest.mark.kernel
def test_a_notebook_that_ran_holds_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in its outputs nor in its metadata, also where cells failed with full tracebacks."""
    import nbformat
    from nbclient import NotebookClient

    said = {
        "error": {"message": "Incorrect API key provided: " + CANARY, "code": "invalid_api_key"}
    }
    with serving(Says([json.dumps(said).encode()], 401, "application/json")) as server:
        monkeypatch.setenv("OPENAI_API_KEY", CANARY)
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("LLM_MAGICS_TRACEBACKS", "full")
        sources = [
            "%load_ext llm_magics\n%xmode Verbose",
            "%%llm openai/m\nhi",
            "import llm_magics as lm; lm.ask('hi', model='openai/m')",
            "%llm config",
            "lm.config",
            "%llm health",
            "lm.runs()",
        ]
        notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, sources)))
        client = NotebookClient(
            notebook,
            allow_errors=True,
            kernel_name="python3",
            resources={"metadata": {"path": str(tmp_path)}},
        )
        client.execute()
        assert server.asked
    text = nbformat.writes(notebook)
    assert "AuthenticationError" in text
    assert CANARY not in text


@pytest.mark.parametrize("empty", ['""', "null", "[]"])
def test_an_empty_key_of_the_projects_is_none(
    empty: str, own_keyring: Memory, tmp_path: Path
) -> None:
    """It does not make the user's own the project's."""
    credentials.store_key("openai", Secret(CANARY))
    with serving(FakeOpenAI()) as thief:
        (tmp_path / "llm_magics.yaml").write_text(
            f"providers: {{openai: {{base_url: '{thief.url}', api_key: {empty}}}}}"
        )
        with pytest.raises(errors.ConfigurationError):
            lm.ask("hi", model="openai/gpt-test")
        assert thief.asked == []


def test_what_is_trusted_is_what_is_in_force(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file that was good, is bad when read, and is good again, was bad when it was read."""
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    file = tmp_path / "llm_magics.yaml"
    with serving(FakeOpenAI(key=CANARY)) as server, serving(FakeOpenAI()) as thief:
        file.write_text(PROJECT.format(url=server.url))
        shell.run_line_magic("llm", "trust")
        file.write_text(PROJECT.format(url=thief.url))
        lm.config.reload()
        for url in (thief.url, server.url):
            file.write_text(PROJECT.format(url=url))
            with pytest.raises(errors.ConfigurationError, match="API key"):
                lm.ask("hi", model="openai/gpt-test")
        shell.run_line_magic("llm", "trust")
        assert lm.ask("hi", model="openai/gpt-test").text
        assert thief.asked == []


@pytest.mark.parametrize("kind", ["json", "toml"])
def test_other_kinds_of_files_are_trusted_alike(
    kind: str, shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """pyproject.toml and JSON; and a folder reached by another name is the same folder."""
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    with serving(FakeOpenAI(key=CANARY)) as server:
        project = tmp_path / "project"
        project.mkdir()
        if kind == "json":
            settings = {"providers": {"openai": {"base_url": server.url}}}
            (project / "llm_magics.json").write_text(json.dumps(settings))
        else:
            text = f'[tool.llm_magics.providers.openai]\nbase_url = "{server.url}"'
            (project / "pyproject.toml").write_text(text)
        (tmp_path / "link").symlink_to(project)
        monkeypatch.chdir(project)
        lm.config.reload()
        with pytest.raises(errors.ConfigurationError, match="API key"):
            lm.ask("hi", model="openai/gpt-test")
        shell.run_line_magic("llm", "trust")
        monkeypatch.chdir(tmp_path / "link")
        lm.config.reload()
        assert lm.ask("hi", model="openai/gpt-test").text


def test_a_server_with_a_profile_has_the_key_of_its_own_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``lab: {profile: vllm}`` reads LAB_API_KEY, as any other server of one's own."""
    monkeypatch.setenv("LAB_API_KEY", CANARY)
    with serving(FakeOpenAI(key=CANARY)) as server:
        lm.config.providers = {
            "lab": {"type": "openai", "base_url": server.url, "profile": "vllm"}
        }
        assert lm.ask("hi", model="lab/gpt-test").text


IDENTITIES = [
    # The user's identity, at the address of a project.
    ("providers: {openai: {base_url: 'http://evil.example'}}", "aws"),
    # An identity and an address of a project.
    ("providers: {openai: {base_url: 'http://evil.example', token_provider: aws}}", None),
    # An identity of a project, at the service's own address.
    ("providers: {openai: {token_provider: aws}}", None),
    # A part of the address of a service with an identity by default.
    ("providers: {vertex: {project: evil}}", None),
]


@pytest.mark.parametrize(("project", "identity"), IDENTITIES)
def test_no_token_goes_where_a_project_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, project: str, identity: str | None
) -> None:
    """The trust of a project covers identities too, until the file names another one."""
    file = tmp_path / "llm_magics.yaml"
    file.write_text(project)
    lm.config.reload()
    name = "vertex" if "vertex" in project else "openai"
    if identity:
        lm.config.set("providers.openai.token_provider", identity)
    with pytest.raises(errors.ConfigurationError, match="identity") as caught:
        session.provider(name)
    assert str(file) in str(caught.value)
    assert "%llm trust" in str(caught.value.hint)
    credentials.trust(file, lm.config.files()[0][1])
    assert session.provider(name).config.token_provider in ("aws", "vertex")  # type: ignore[attr-defined]
    file.write_text(project.replace("aws", "entra").replace("evil", "worse"))
    lm.config.reload()
    if "token_provider" in project or "evil" in project:
        with pytest.raises(errors.ConfigurationError, match="identity"):
            session.provider(name)


def test_a_project_says_which_identity_it_uses(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The output of %llm trust names it, next to the address."""
    (tmp_path / "llm_magics.yaml").write_text(IDENTITIES[1][0])
    shell.run_line_magic("llm", "trust")
    assert "openai: base_url http://evil.example, token_provider aws" in capsys.readouterr().out


def test_a_function_is_not_used_at_the_address_of_a_project(tmp_path: Path) -> None:
    """Its name is in the error; the function is not called."""
    (tmp_path / "llm_magics.yaml").write_text(IDENTITIES[0][0])
    lm.config.reload()
    called: list[int] = []

    def own_token() -> str:
        called.append(1)
        return CANARY

    lm.config.set("providers.openai.token_provider", own_token)
    with pytest.raises(errors.ConfigurationError, match="own_token"):
        lm.ask("hi", model="openai/gpt-test")
    assert not called


def test_a_key_is_not_typed_for_an_identity(
    shell: InteractiveShell, own_keyring: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says how to sign in, and how to use a key instead; the key is not asked for."""
    types(monkeypatch, CANARY)
    shell.run_line_magic("llm", "config providers.openai.token_provider entra")
    with pytest.raises(errors.UsageError, match="token_provider entra") as caught:
        shell.run_line_magic("llm", "key openai")
    assert "az login" in str(caught.value.hint)
    assert "%llm config providers.openai.token_provider none" in str(caught.value.hint)
    assert not own_keyring.kept
    with pytest.raises(errors.UsageError, match="vertex") as vertex:
        shell.run_line_magic("llm", "key vertex")
    assert "gcloud" in str(vertex.value.hint)
    shell.run_line_magic("llm", "config providers.openai.token_provider none")
    shell.run_line_magic("llm", "key openai")
    assert own_keyring.kept


def test_a_key_in_the_keyring_gives_way_to_an_identity(
    shell: InteractiveShell, own_keyring: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keyring is not opened."""
    types(monkeypatch, CANARY)
    shell.run_line_magic("llm", "key openai")
    lm.config.reset()
    own_keyring.read = 0
    lm.config.set("providers.openai.token_provider", "entra")
    assert session.provider("openai").config.api_key is None  # type: ignore[attr-defined]
    assert not own_keyring.read


def test_a_rejected_identity_does_not_stay(shell: InteractiveShell) -> None:
    """A wrong name is an error at once, and is not used for later calls."""
    key = "providers.openai.token_provider"
    with pytest.raises(errors.ConfigurationError, match="token_provider") as caught:
        shell.run_line_magic("llm", f"config {key} entrra")
    assert "Did you mean entra?" in str(caught.value.hint)
    assert lm.config.get(key) is None


def test_a_project_may_set_no_identity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No token is sent then, and the user's key goes to the service's own address."""
    (tmp_path / "llm_magics.yaml").write_text("providers: {openai: {token_provider: null}}")
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    lm.config.reload()
    assert session.provider("openai").config.api_key  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "settings",
    ["extra_headers: {Host: evil.example}", "type: groq, extra_headers: {hOST: evil.example}"],
)
def test_a_host_in_the_headers_of_a_project_needs_trust(
    settings: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A server may forward the request to the host of this header, with the user's key."""
    project = tmp_path / "llm_magics.yaml"
    project.write_text(f"providers: {{groq: {{{settings}}}}}")
    monkeypatch.setenv("GROQ_API_KEY", CANARY)
    lm.config.reload()
    with pytest.raises(errors.ConfigurationError, match=r"evil\.example"):
        session.provider("groq")
    found = credentials.find_project_file(lm.config)
    assert found is not None
    credentials.trust(*found)
    assert session.provider("groq").config.api_key  # type: ignore[attr-defined]
    project.write_text(project.read_text().replace("evil", "other"))
    lm.config.reload()
    with pytest.raises(errors.ConfigurationError, match=r"other\.example"):
        session.provider("groq")


def test_an_address_of_a_project_is_shown_on_one_line(
    shell: InteractiveShell,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It cannot look like further lines of the message, or like another command."""
    address = "https://evil.example/\nIt is safe: run %llm trust"
    own = {"base_url": address, "token_provider": "aws\nx"}
    (tmp_path / "llm_magics.json").write_text(json.dumps({"providers": {"groq": own}}))
    monkeypatch.setenv("GROQ_API_KEY", CANARY)
    lm.config.reload()
    with pytest.raises(errors.ConfigurationError) as caught:
        session.provider("groq")
    assert "\n" not in str(caught.value)
    assert caught.value.hint == "If you trust it, run %llm trust."
    shell.run_line_magic("llm", "trust")
    assert "\nIt is safe" not in capsys.readouterr().out
