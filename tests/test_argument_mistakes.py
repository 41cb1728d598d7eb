"""What people mistype and mistake: told of before anything is sent, with the next step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import errors
from llm_magics.settings.config import Config
from tests.support.servers import servers
from tests.support.serving import Says, chat_stream


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ({"modle": "echo/echo"}, "model"),
        ({"threads": "a"}, "thread"),
        ({"variabels": {}}, "variables"),
        ({"dry_run": True}, "--dry-run"),
        ({"params": {}}, "variables={…}"),
    ],
)
def test_a_slip_in_python_is_no_parameter(given: dict[str, Any], hint: str) -> None:
    """It is not sent along, and the default model is not asked in its place."""
    with pytest.raises(errors.UsageError) as caught:
        lm.ask("hi", **given)
    assert hint in str(caught.value.hint)
    assert lm.runs().empty


@pytest.mark.parametrize(
    ("line", "cell", "message", "hint"),
    [
        ("-p sentence=9", "in {{ sentences }}", "no {{ sentence }}", "Did you mean sentences?"),
        ("-p x=1", "hi", "no {{ x }}", "None are available"),
        ("-t kept -p input=pears", "apples", "text of the cell", "lines below"),
        ("--schema Persn", "who?", "Persn is not defined", "Did you mean Person?"),
        ("-t kept --save other", "apples", "no effect", "Save first"),
        ("--save other --thread", "apples", "no effect", "Save first"),
        ("Explain the sky", "hi", 'has a model "Explain"', "lines below"),
        ("-t missing.md", "x", '"missing"', "prompts/NAME.md"),
    ],
)
def test_a_slip_in_a_cell(
    shell: InteractiveShell, line: str, cell: str, message: str, hint: str
) -> None:
    """Is no prompt."""
    shell.run_cell_magic("llm", "--save kept", "about {{ input }}")
    shell.user_ns["Person"] = type("Person", (), {})
    with pytest.raises(errors.LLMError) as caught:
        shell.run_cell_magic("llm", line, cell)
    assert message in str(caught.value)
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("runs 3", "no arguments"),
        ("health x", '"x"'),
        ("threads clear a b", "thread"),
        ("models ecoh", '"ecoh"'),
        ("use", "takes a model."),
        ("replay 'no file.jsonl'", "No recording at no file.jsonl"),
        ("record /no/such/folder/a.jsonl", "Could not record"),
        ("record .", "is a folder"),
    ],
)
def test_a_slip_in_a_subcommand(shell: InteractiveShell, line: str, message: str) -> None:
    """Nothing is done that was not meant, and the setting stays as it was."""
    with pytest.raises(errors.LLMError, match=message):
        shell.run_line_magic("llm", line)
    assert (lm.config.record, lm.config.replay) == (None, None)


def test_what_is_recorded_can_be_asked(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a file the commands say how things stand."""
    shell.run_line_magic("llm", "record")
    assert "Recording is off" in capsys.readouterr().out
    shell.run_line_magic("llm", "record 'my tape.jsonl'")
    lm.ask("hi")
    shell.run_line_magic("llm", "record")
    assert "Answers are recorded in my tape.jsonl" in capsys.readouterr().out
    shell.run_line_magic("llm", "record off")
    shell.run_line_magic("llm", "replay 'my tape.jsonl' --strict")
    shell.run_line_magic("llm", "replay")
    assert "Answers are replayed from my tape.jsonl" in capsys.readouterr().out
    assert lm.ask("hi").cached


@pytest.mark.parametrize("damage", [b"\xff\xfe", b"[1]", b"[" * 100_000])
def test_a_recording_that_is_none(shell: InteractiveShell, damage: bytes) -> None:
    """Is refused when it is named, and answers stay live."""
    Path("odd.jsonl").write_bytes(damage)
    with pytest.raises(errors.ConfigurationError, match="odd"):
        shell.run_line_magic("llm", "replay odd.jsonl --strict")
    assert lm.ask("hi").text == "hi"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("routes: {fast: {models: [a/b], policy: cheapst}}", "routes.fast.policy", "cheapest"),
        ("prices: {lab/*: {input: 1}}", "prices", "input_usd"),
        ("prices: {lab/*: free}", "prices", "or 0"),
        ("providers: {my.lab: {type: openai}}", "providers", "match"),
        ("model: !!timestamp foo", "Could not read", "Fix or remove"),
        ("a: !!bool x", "Could not read", "Fix or remove"),
    ],
)
def test_a_slip_in_the_settings(tmp_path: Path, text: str, message: str, hint: str) -> None:
    """Names the file, the place in it and what would be right; nobody's insides."""
    (tmp_path / "llm_magics.yaml").write_text(text)
    with pytest.raises(errors.ConfigurationError, match=message) as caught:
        Config(tmp_path, {}).items()
    assert hint in str(caught.value.hint)
    assert "llm_magics.yaml" in str(caught.value)
    assert "_P" not in str(caught.value.hint)


def test_a_slip_in_the_environment(tmp_path: Path) -> None:
    """A variable that is nearly a setting's is named; a provider's own is none."""
    with pytest.raises(errors.ConfigurationError, match="LLM_MAGICS_MODLE") as caught:
        Config(tmp_path, {"LLM_MAGICS_MODLE": "x"}).items()
    assert "LLM_MAGICS_MODEL" in str(caught.value.hint)
    assert Config(tmp_path, {"LLM_MAGICS_OPENAI_API_KEY": "x"}).items()


def test_a_route_goes_past_who_has_no_key() -> None:
    """Nothing is wrong with a service that was not set up; where all fail, all are named."""
    lm.config.routes = {"fast": ["ollama/nobody", "openai/gpt-5-mini", "echo/echo"]}
    lm.config.set("providers.ollama.base_url", "http://127.0.0.1:9")
    answer = lm.ask("hi", model="fast")
    assert answer.model == "echo/echo"
    assert [each.split()[0] for each in answer.fallback_from] == ["ollama/nobody", "openai/gpt-5-mini"]  # fmt: skip
    lm.config.routes = {"fast": ["ollama/nobody", "openai/gpt-5-mini"]}
    with pytest.raises(errors.AuthenticationError) as caught:
        lm.ask("hi", model="fast")
    assert "Also failed: ollama/nobody (ConnectionError)" in str(caught.value.hint)
    with pytest.raises(errors.ModelNotFoundError) as missing:
        lm.ask("hi", model="fsat")
    assert "Did you mean fast?" in str(missing.value.hint)


def test_a_chunk_is_its_text() -> None:
    """Printed, it is what was said."""
    with servers(one=Says(chat_stream("a ", "b"))):
        assert "".join(map(str, lm.stream("hi", model="one/m"))) == "a b"


def test_a_dry_run_shows_all_that_would_go(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """The schema, the pictures, and who is asked where the first fails."""
    lm.config.routes = {"both": ["echo/echo", "echo/lorem"]}
    Path("a.png").write_bytes(bytes.fromhex("89504e470d0a1a0a"))
    shell.run_cell_magic("llm", "both --dry-run --schema 'age int' --image a.png", "who?")
    told = capsys.readouterr().out
    assert "on failure: echo/lorem" in told
    assert '[schema] {"type": "object"' in told
    assert "[image] Image(" in told
