"""``%llm image``, ``transcribe`` and ``explain``, and tables without rows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import errors
from llm_magics._util.tables import SafeFrame, WideFrame, display_when_empty
from tests.support.fake_media import WAV, FakeMedia
from tests.support.kernels import Kernel
from tests.support.serving import Server, serving

KEY = "a-key-of-the-test"


@pytest.fixture
def server() -> Iterator[Server]:
    """A server with OpenAI's pictures and transcripts."""
    with serving(FakeMedia()) as running:
        lm.config.set("providers.openai.base_url", running.url)
        lm.config.set("providers.openai.api_key", KEY)
        yield running


def test_a_picture_is_shown_and_kept(shell: InteractiveShell, server: Server) -> None:
    """The bytes of its file, in the variable; names of the notebook are filled in."""
    shell.user_ns["what"] = "whale"
    shell.run_line_magic("llm", "image 'a {{ what }} in a teacup' -o img --size 256x256")
    asked = server.asked[-1].json()
    assert asked["prompt"] == "a whale in a teacup"
    assert asked["size"] == "256x256"
    assert isinstance(shell.user_ns["img"], bytes)
    row = lm.runs().iloc[-1]
    assert (row.kind, row.model, row.finish_reason) == ("image", "gpt-image-2", "stop")
    assert row.e2e_s > 0
    assert row.isna()["cost_usd"]


def test_what_is_said_is_written_down(shell: InteractiveShell, server: Server) -> None:
    """The text of a recording, as the result or in a variable."""
    Path("talk.wav").write_bytes(WAV)
    said = shell.run_line_magic("llm", "transcribe talk.wav")
    assert isinstance(said, str)
    assert said
    shell.run_line_magic("llm", "transcribe talk.wav -o text")
    assert shell.user_ns["text"] == said
    assert lm.runs().kind.tolist() == ["transcription"] * 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("image", "description"),
        ("transcribe", "file"),
        ("transcribe missing.mp3", "Could not read"),
        ("image x --model echo/echo", "does not make images"),
        ("image x --sise 3", "no flag --sise"),
        ("explain", "No cell has failed"),
    ],
)
def test_what_cannot_be_done(
    shell: InteractiveShell, line: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is said before anything is sent."""
    monkeypatch.delattr(sys, "last_value", raising=False)
    with pytest.raises(errors.LLMError, match=message):
        shell.run_line_magic("llm", line)


def test_a_budget_is_kept_for_pictures_too(shell: InteractiveShell, server: Server) -> None:
    """Their price is not known, so none is made within one."""
    lm.config.budget = 1
    with pytest.raises(errors.BudgetError):
        shell.run_line_magic("llm", "image x")
    assert server.asked == []


def test_an_error_is_explained(kernel: Kernel) -> None:
    """Its message, the cells it went through with the failing lines marked, and no values."""
    kernel.run("%llm config model echo/echo")
    kernel.run("def half(x):\n    y = 2\n    return x / (y - 2)")
    kernel.run("secret = 'value-of-a-variable'\nhalf(secret and 1)")
    told = kernel.run("%llm explain").text
    assert "ZeroDivisionError: division by zero" in told
    assert ">     return x / (y - 2)" in told
    assert "> half(secret and 1)" in told
    assert told.count("Explain this error") == 2  # shown, and echoed
    assert "site-packages" not in told


def test_what_is_sent_holds_no_key(kernel: Kernel) -> None:
    """Also where the error or the cell has one."""
    key = "sk-" + "explained" * 4
    kernel.run("%llm config model echo/echo")
    kernel.run(f"key = '{key}'\nraise ValueError(key)")
    told = kernel.run("%llm explain").text
    assert "ValueError" in told
    assert key not in told


@pytest.mark.parametrize("frame", [SafeFrame, WideFrame])
def test_an_empty_table_says_what_would_fill_it(frame: type[SafeFrame]) -> None:
    """In place of the headers; one with rows, and one that is derived, is an ordinary table."""
    empty = display_when_empty(frame([], columns=["call"]), "No calls yet.")
    assert repr(empty) == "No calls yet."
    assert empty._repr_html_() is None
    full = display_when_empty(frame({"call": [1]}), "No calls yet.")
    assert "call" in repr(full)
    assert "<td>1</td>" in str(full._repr_html_())
    assert "No calls yet" not in repr(full[full.call > 1])


@pytest.mark.parametrize("line", ["runs", "threads", "templates", "cost", "audit empty.ipynb"])
def test_commands_explain_their_empty_tables(line: str, shell: InteractiveShell) -> None:
    """A sentence, not the headers of pandas."""
    Path("empty.ipynb").write_text('{"cells": []}', encoding="utf-8")
    shown = repr(shell.run_line_magic("llm", line))
    assert "DataFrame" not in shown
    assert "Columns" not in shown
    assert shown.endswith((".", "NAME"))


def test_the_settings_of_a_provider_are_shown(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a table; of one without settings a line says so."""
    lm.config.providers = {"lab": {"type": "openai", "base_url": "http://u:p@127.0.0.1:9/v1"}}
    table = shell.run_line_magic("llm", "config providers.lab")
    assert table.index.tolist() == ["providers.lab.base_url", "providers.lab.type"]
    assert "u:p" not in table.to_string()
    assert len(shell.run_line_magic("llm", "config providers")) == 2
    assert shell.run_line_magic("llm", "config providers.azure") is None
    assert "providers.azure" in capsys.readouterr().out


def test_settings_with_a_path_are_displayed_as_texts(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not as an object of Python."""
    shell.run_line_magic("llm", "config evaluations off")
    assert capsys.readouterr().out.startswith("evaluations = 'off'  (set in this session)")
    assert lm.config.frame().loc["evaluations", "value"] == "off"
