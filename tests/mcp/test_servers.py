"""
The tools of a server that is written with the official package, called by a model.

The server is a real process, which needs about a second to import the package. Where it does not
matter how a server is written, `SIMPLE` is one that needs no package.
"""

from __future__ import annotations

import asyncio
import base64
import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import errors
from llm_magics._async.bridge import bridge
from llm_magics.host import current_host
from llm_magics.mcp import approvals
from llm_magics.mcp.servers import servers
from tests.support.mcp_server import PIXEL
from tests.support.servers import servers as model_servers
from tests.support.serving import Says, chat_event, chat_stream

ALL = ["stock", "photo", "environment", "fail", "long"]

# A server with the tool "say", without a behaviour that is wrong.
SIMPLE = "correct"


def wanting(name: str, arguments: str) -> Says:
    """An answer that wants one call, in the format of chat completions."""
    function = {"name": name, "arguments": arguments}
    told = [{"index": 0, "id": "call_0", "type": "function", "function": function}]
    choice = {"index": 0, "delta": {"tool_calls": told}, "finish_reason": None}
    return Says(
        [chat_event(choices=[choice]), chat_event(finish_reason="tool_calls"), b"data: [DONE]\n\n"]
    )


def in_turn(*answers: Says) -> Any:
    """One answer after the other."""
    left = list(answers)
    return lambda asked: left.pop(0)


def test_a_model_gets_what_a_server_returns(
    add_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text, structured content, pictures and errors; arguments are checked, results bounded."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-" + "canary" * 6)
    add_server(allow=ALL)

    def ask(prompt: str) -> str:
        return lm.ask(prompt, model="echo/echo", mcp=["shop"]).text

    assert '"pieces": 5' in ask('shop__stock("whale")')
    assert ask('shop__photo("whale")').strip() == "Photo of whale:"
    assert "fail" in ask("shop__fail()")
    assert "3 is not of type 'string'" in ask("shop__stock(3)")
    variables = ask("shop__environment()").split()
    assert "PATH" in variables
    assert not [name for name in variables if "KEY" in name or "LLM_MAGICS" in name]
    lm.config.tool_result_max_chars = 100
    assert ask("shop__long(1000)").startswith("x" * 100 + "\n[… 900 more")
    running = servers.running("shop")
    assert running is not None
    assert running.revision == "2026-07-28"


def test_a_service_gets_names_that_it_accepts_and_pictures(add_server: Any) -> None:
    """The call comes back with the name that was sent; the picture goes with the result."""
    add_server(allow=ALL)
    answers = in_turn(wanting("shop__photo", '{"product": "cup"}'), Says(chat_stream("A cup.")))
    with model_servers(one=answers) as running:
        assert lm.ask("Show it.", model="one/m", mcp="shop").text == "A cup."
        first, second = (asked.json() for asked in running["one"].asked)
    assert [tool["function"]["name"] for tool in first["tools"]] == [
        "shop__stock",
        "shop__photo",
        "shop__environment",
        "shop__fail",
        "shop__long",
    ]
    assert "Photo of cup:" in str(second["messages"])
    assert base64.b64encode(PIXEL).decode() in str(second["messages"])


def test_a_tool_runs_only_with_permission(
    add_server: Any, shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unattended nothing runs; who is asked sees the whole call, and a refusal goes to the model."""
    add_server("shop", SIMPLE)
    with pytest.raises(errors.UsageError) as caught:
        lm.ask('shop__say("whale")', model="echo/echo", mcp=["shop"])
    assert 'shop.say:\n    text: "whale"' in str(caught.value)
    assert caught.value.hint == "Allow it: %llm mcp allow shop say"
    with pytest.raises(errors.UsageError, match=r"shop\.say") as caught:
        shell.run_cell_magic("llm", "echo/echo --mcp shop", 'shop__say("whale")')
    assert "--yes" in str(caught.value.hint)
    asked: list[str] = []

    def answer(question: str) -> str:
        asked.append(question)
        return "n" if len(asked) == 1 else "y"

    monkeypatch.setattr(current_host(), "ask", answer)
    refused = lm.ask('shop__say("whale")', model="echo/echo", mcp=["shop"])
    assert "did not allow" in refused.text
    assert approvals.allowed_digests("shop") == {}
    allowed = asyncio.run(lm.aask('shop__say("whale")', model="echo/echo", mcp=["shop"]))
    assert "said whale" in allowed.text
    assert asked[0] == 'The model wants to call shop.say:\n    text: "whale"\nRun it? [y/N/all] '
    assert list(approvals.allowed_digests("shop")) == ["say"]


def test_a_cell_shows_each_call(
    add_server: Any, shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the name of the server; functions of the notebook work next to it, --dry-run lists both."""
    add_server()
    shell.run_cell('def weather(city: str) -> str:\n    "The weather."\n    return "cold"')
    shell.run_cell_magic("llm", "echo/echo --mcp shop --tools weather --yes", 'shop__photo("cup")')
    assert 'shop.photo(product="cup") → Photo of cup: [1 picture]' in capsys.readouterr().out
    shell.run_cell_magic(
        "llm", "echo/echo --mcp shop --tools weather --dry-run", 'weather("Oslo")'
    )
    shown = capsys.readouterr().out
    assert "[tool] weather(city): The weather." in shown
    assert "[tool] shop.stock(product): Count the pieces" in shown
    with pytest.raises(errors.UsageError, match="--mcp"):
        shell.run_cell_magic("llm", "echo/echo echo/lorem --mcp shop", "hi")


def test_a_call_to_a_function_ends_the_rounds_of_python(add_server: Any) -> None:
    """It is in the answer, as without servers; no server is asked."""
    add_server("shop", SIMPLE, allow=["say"])

    def weather(city: str) -> str:
        """The weather."""
        raise AssertionError

    answer = lm.ask('weather("Oslo")', model="echo/echo", tools=[weather], mcp="shop")
    assert [call.name for call in answer.tool_calls] == ["weather"]


def test_a_replay_needs_no_server(add_server: Any, shell: InteractiveShell) -> None:
    """Permission and the settings of the server are not needed either: nothing runs."""
    pid_file = add_server("shop", SIMPLE, allow=["say"])
    cell = ("llm", "echo/echo --mcp shop -o ans", 'shop__say("whale")')
    lm.config.record = "answers.jsonl"
    shell.run_cell_magic(*cell)
    recorded = shell.user_ns["ans"].text
    lm.config.reset()
    bridge.run(servers.close())
    pid_file.unlink()
    lm.config.replay, lm.config.replay_strict = "answers.jsonl", True
    shell.run_cell_magic(*cell)
    assert shell.user_ns["ans"].text == recorded
    assert shell.user_ns["ans"].cached
    assert lm.ask(cell[2], model="echo/echo", mcp="shop").text == recorded
    assert not pid_file.exists()
    with pytest.raises(errors.ReplayMissError, match="server"):
        lm.ask("hi", model="echo/echo", mcp="other")


def test_a_server_ends_with_the_session(add_server: Any) -> None:
    """Also one that ends between two prompts is started again."""
    pid_file = add_server("shop", SIMPLE, allow=["say"])
    lm.ask("hi", model="echo/echo", mcp="shop")
    first = int(pid_file.read_text())
    psutil.Process(first).kill()
    lm.ask('shop__say("a")', model="echo/echo", mcp="shop")
    second = int(pid_file.read_text())
    assert first != second
    bridge.run(servers.close())
    assert not psutil.pid_exists(second)


def test_a_server_by_http_gets_its_token(
    add_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    """From the environment; without it the error says what the server answered."""
    import subprocess
    import sys

    script = Path(__file__).parents[1] / "support" / "mcp_server.py"
    token = "token-" + "0123456789" * 3
    command = [sys.executable, str(script), str(tmp_path / "pid"), "http", str(free_port), token]
    with subprocess.Popen(command) as process:
        try:
            lm.config.set(
                "mcp",
                {"web": {"url": f"http://127.0.0.1:{free_port}/mcp", "allow": ["stock"]}},
            )
            answer = ""
            for _ in range(200):
                try:
                    lm.ask("hi", model="echo/echo", mcp="web")
                except errors.ToolServerError as error:
                    answer = str(error)
                    if "HTTP 401" in answer:
                        break
                    time.sleep(0.1)
            assert "HTTP 401" in answer
            monkeypatch.setenv("LLM_MAGICS_MCP_WEB_TOKEN", token)
            assert "pieces" in lm.ask('web__stock("a")', model="echo/echo", mcp="web").text
            bridge.run(servers.close())
        finally:
            process.kill()


def test_a_token_is_not_sent_without_encryption(monkeypatch: pytest.MonkeyPatch) -> None:
    """To another computer; the request is not made."""
    monkeypatch.setenv("LLM_MAGICS_MCP_WEB_TOKEN", "t" * 30)
    lm.config.set("mcp", {"web": {"url": "http://example.invalid/mcp"}})
    with pytest.raises(errors.ConfigurationError, match="without encryption"):
        lm.ask("hi", model="echo/echo", mcp="web")


def test_without_the_package_the_error_has_the_line_that_installs_it(
    add_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is started."""
    pid_file = add_server()
    monkeypatch.setitem(__import__("sys").modules, "mcp.client", None)
    with pytest.raises(errors.ToolServerError, match="mcp") as caught:
        lm.ask("hi", model="echo/echo", mcp="shop")
    assert "jupyter-llm-magics[mcp]" in str(caught.value.hint)
    assert not pid_file.exists()


@pytest.fixture
def free_port() -> int:
    """A port on which nothing listens."""
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def test_a_server_does_not_outlive_a_killed_kernel(tmp_path: Path) -> None:
    """Its standard input closes when the kernel's process is killed."""
    import signal
    import subprocess
    import sys

    script = Path(__file__).parents[1] / "support" / "hostile_mcp_server.py"
    pid_file = tmp_path / "pid"
    code = (
        "import llm_magics as lm, os, signal\n"
        f"lm.config.set('mcp', {{'h': {{'command': [{sys.executable!r}, {str(script)!r}, {str(pid_file)!r}]}}}})\n"
        "lm.ask('hi', model='echo/echo', mcp='h')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ}, check=False)
    assert done.returncode == -signal.SIGKILL
    pid = int(pid_file.read_text())
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
