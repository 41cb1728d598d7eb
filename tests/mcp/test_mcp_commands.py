"""``%llm mcp``: the servers in the user's settings, and those of projects."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import errors
from llm_magics._async.bridge import bridge
from llm_magics.mcp import approvals
from llm_magics.mcp.results import read_result
from llm_magics.mcp.servers import servers
from llm_magics.mcp.tokens import find_token, keyring_name
from llm_magics.mcp.transport import server_environment
from llm_magics.notebook.completion import find_candidates
from llm_magics.settings import credentials

HOSTILE = Path(__file__).parents[1] / "support" / "hostile_mcp_server.py"


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    """The user's settings file, with settings and a comment."""
    path = tmp_path / "user-config" / "llm_magics" / "llm_magics.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("# mine\nmodel: echo/echo  # always\n")
    return path


def add_line(tmp_path: Path, flags: str = "") -> str:
    """The line that adds the hostile server, which behaves."""
    return f"mcp add h {flags} {sys.executable} {HOSTILE} {tmp_path / 'pid'}"


def test_a_server_is_added_allowed_and_removed(
    shell: InteractiveShell, tmp_path: Path, user_file: Path
) -> None:
    """In the user's settings, whose other lines stay as they are."""
    before = user_file.read_text(encoding="utf-8")
    shell.run_line_magic("llm", add_line(tmp_path, "--timeout 20 --env LANG=C"))
    assert user_file.read_text(encoding="utf-8").startswith(before)
    settings, source = lm.config.servers()["h"]
    assert (settings.timeout_s, settings.env) == (20, {"LANG": "C"})
    assert source == f"file {user_file}"
    tools = shell.run_line_magic("llm", "mcp test h")
    assert tools[["tool", "arguments", "allowed"]].values.tolist() == [["h.say", "text", False]]
    with pytest.raises(errors.UsageError, match="sai") as caught:
        shell.run_line_magic("llm", "mcp allow h sai")
    assert "say" in str(caught.value.hint)
    shell.run_line_magic("llm", "mcp allow h say")
    assert lm.ask('h__say("hi")', model="echo/echo", mcp="h").text == "said hi"
    (row,) = shell.run_line_magic("llm", "mcp").to_dict("records")
    assert (row["state"], row["revision"], row["tools"]) == ("running", "2025-11-25", "say")
    assert find_candidates("%llm", "mcp allow h ").names == ["say"]
    assert list(find_candidates("%%llm", "echo/echo --mcp ").names) == ["h"]
    shell.run_line_magic("llm", "mcp remove h")
    assert user_file.read_text(encoding="utf-8") == before
    assert approvals.allowed_digests("h") == {}
    assert servers.running("h") is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ad x y", 'no action "ad"'),
        ("add", "needs the name"),
        ("add x", "needs a command"),
        ("add x --enf A=b y", "no flag --enf"),
        ("add x --timeout soon y", "a number of seconds"),
        ("add 1/x y", "invalid value"),
        ("add x http://me:secret@host/mcp", "contains a key"),
        ("add x --env API_KEY=abcdefgh y", "may be a key"),
        ("add x y --key sk-" + "a1B2" * 10, "contains a key"),
        ("remove x", 'no MCP server "x"'),
        ("test x", 'No MCP server is named "x"'),
        ("stop a b", "takes one name"),
        ("allow x", "needs the names"),
    ],
)
def test_a_mistake_is_named(
    shell: InteractiveShell, line: str, message: str, user_file: Path
) -> None:
    """And the settings stay as they are."""
    before = user_file.read_text(encoding="utf-8")
    with pytest.raises(errors.LLMError, match=message):
        shell.run_line_magic("llm", f"mcp {line}")
    assert user_file.read_text(encoding="utf-8") == before


def test_a_json_file_is_changed_too(shell: InteractiveShell, tmp_path: Path) -> None:
    """A user may have one instead of YAML."""
    path = tmp_path / "user-config" / "llm_magics" / "llm_magics.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"model": "echo/echo"}')
    shell.run_line_magic("llm", "mcp add web https://example.invalid/mcp")
    expected = {"model": "echo/echo", "mcp": {"web": {"url": "https://example.invalid/mcp"}}}
    assert json.loads(path.read_text()) == expected


def test_a_server_of_a_project_needs_trust(
    shell: InteractiveShell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Until its command or its list of allowed tools changes; nothing is started before."""
    command = [sys.executable, str(HOSTILE), str(tmp_path / "pid")]
    entry: dict[str, Any] = {"command": command, "env": {"PATH": None}}
    path = Path("llm_magics.json")

    def ask() -> str:
        lm.config.reload()
        return lm.ask('h__say("hi")', model="echo/echo", mcp="h").text

    path.write_text(json.dumps({"mcp": {"h": entry}}), encoding="utf-8")
    with pytest.raises(errors.ConfigurationError, match="not trusted"):
        ask()
    assert not (tmp_path / "pid").exists()
    shell.run_line_magic("llm", "trust")
    shown = capsys.readouterr().out
    assert f"MCP server h: runs {sys.executable}" in shown
    assert "gets the environment variables PATH" in shown
    with pytest.raises(errors.UsageError, match="Confirmation"):
        ask()
    path.write_text(json.dumps({"mcp": {"h": {**entry, "allow": ["say"]}}}), encoding="utf-8")
    with pytest.raises(errors.ConfigurationError, match="not trusted"):
        ask()
    assert shell.run_line_magic("llm", "mcp")["state"].tolist() == ["not trusted"]
    shell.run_line_magic("llm", "trust")
    assert "runs without a question: say" in capsys.readouterr().out
    assert ask() == "said hi"
    bridge.run(servers.close())


def test_the_servers_of_the_user_and_a_project_are_merged(user_file: Path) -> None:
    """By name; each has its source."""
    user_file.write_text("mcp: {mine: {command: a}, both: {command: b}}", encoding="utf-8")
    Path("llm_magics.yaml").write_text("mcp: {both: {command: c}}", encoding="utf-8")
    lm.config.reload()
    found = lm.config.servers()
    assert {name: own.command for name, (own, _) in found.items()} == {
        "mine": ("a",),
        "both": ("c",),
    }
    assert "user-config" in found["mine"][1]
    assert "user-config" not in found["both"][1]


def test_a_token_in_the_keyring_belongs_to_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of the same name at another address does not get it."""
    stored = {keyring_name("https://one.invalid/mcp"): "the token"}
    monkeypatch.setattr(credentials, "load_key", stored.get)
    lm.config.set("mcp", {"web": {"url": "https://one.invalid/other"}})
    assert find_token("web", lm.config.servers()["web"][0]) == "the token"
    lm.config.set("mcp", {"web": {"url": "https://two.invalid/mcp"}})
    assert find_token("web", lm.config.servers()["web"][0]) is None


def test_no_value_of_its_environment_is_displayed() -> None:
    """It may be a key, also under a harmless name."""
    lm.config.set("mcp", {"h": {"command": "a", "env": {"PLACE": "canary-value"}}})
    assert "canary-value" not in repr(lm.config)
    assert "PLACE" in repr(lm.config)


def test_a_copied_key_is_masked_in_what_a_server_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the kernel's environment, and the server may repeat it in a result or an error."""
    monkeypatch.setenv("SHOP_API_KEY", "violet-harbour-918273")
    assert server_environment({"SHOP_API_KEY": None})["SHOP_API_KEY"] == "violet-harbour-918273"
    result = read_result([{"type": "text", "text": "my key is violet-harbour-918273"}])
    assert "violet" not in result.text
