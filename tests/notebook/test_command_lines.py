"""Lines of the magics as people type them: questions, comments, names of providers, values."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

from llm_magics._util.tables import WideFrame
from llm_magics.errors import Interrupted, LLMError, ModelNotFoundError, UsageError
from llm_magics.notebook.parsers import split_words, strip_comment, unescape
from llm_magics.providers.model_catalog import find_providers
from llm_magics.runtime import models
from llm_magics.runtime.response import Response
from llm_magics.runtime.session import session
from tests.conftest import HISTORY_IN_MEMORY, end_shell
from tests.support.prepared_python import run_prepared


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    """A shell with the extension loaded, which asks echo."""
    shell = InteractiveShell(config=HISTORY_IN_MEMORY)
    shell.run_line_magic("load_ext", "llm_magics")
    shell.run_line_magic("llm", "use echo/echo")
    yield shell
    shell.run_line_magic("unload_ext", "llm_magics")
    end_shell(shell)


def run(shell: InteractiveShell, cell: str) -> Any:
    """The result of a cell; an error in it is raised."""
    result = shell.run_cell(cell, store_history=True)
    result.raise_error()
    return result.result


@pytest.mark.parametrize(
    "cell",
    [
        "%llm ask Why is the sky blue?",
        "%llm ask   Why is the sky blue?  ",
        "if True:\n    %llm ask Why is the sky blue?",
        "answer = %llm ask Why is the sky blue?",
        "answers['x'] = %llm ask Why is the sky blue?",
        "%llm ask Why is \\\n  the sky \\\n blue?\nanswers['y'] = 1",
    ],
)
def test_a_question_is_asked(
    cell: str, shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not taken for a question about a Python object, wherever the line stands."""
    shell.user_ns["answers"] = {}
    capsys.readouterr()
    run(shell, cell)
    assert capsys.readouterr().out == "Why is the sky blue?\n"


def test_a_prompt_may_speak_of_the_magic(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """The body of a cell magic is sent as it is."""
    capsys.readouterr()
    run(shell, "\n%%llm echo/echo\nWhat does this do:\n%llm ask Why?")
    assert capsys.readouterr().out == "What does this do:\n%llm ask Why?\n"


@pytest.mark.parametrize("cell", ['s = """\n%llm ask what?\n"""', "# %llm ask what?"])
def test_a_question_in_a_text_or_a_comment_stays_there(
    cell: str, shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only a line on which a statement begins is a line of the magic."""
    capsys.readouterr()
    run(shell, cell)
    assert not capsys.readouterr().out
    assert shell.user_ns.get("s", "\n%llm ask what?\n") == "\n%llm ask what?\n"


def test_a_subcommand_with_a_question_mark_shows_its_help(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a question mark does everywhere in IPython."""
    run(shell, "%llm pull?")
    assert "%llm pull MODEL" in capsys.readouterr().out


def test_an_answer_can_be_assigned(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is shown once and is the value of the line."""
    capsys.readouterr()
    run(shell, "%llm ask hi")
    assert capsys.readouterr().out == "hi\n"
    run(shell, "a = %llm ask hi there")
    assert isinstance(shell.user_ns["a"], Response)
    assert str(shell.user_ns["a"]) == "hi there"


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("echo/echo  # a note", "echo/echo"),
        ("echo/echo #note", "echo/echo"),
        ("# don't", ""),
        ("-s 'be # nice'  # quoted", "-s 'be # nice'"),
        ('-s "a \\" # b"', '-s "a \\" # b"'),
        ("issue#3 C#", "issue#3 C#"),
    ],
)
def test_a_comment_ends_the_line(line: str, left: str) -> None:
    """As in Python: at the start of a word, and not in quotes."""
    assert strip_comment(line) == left


@given(st.text(alphabet="ab '\"#\\ ", max_size=12))
def test_without_a_comment_a_line_stays_as_it_is(line: str) -> None:
    """What is left begins the line, and leaving out comments twice changes nothing."""
    left = strip_comment(line)
    assert line.startswith(left)
    assert strip_comment(left) == left


def test_comments_are_allowed_on_every_line_but_prose(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """A prompt on the line keeps its #."""
    run(shell, "%%llm echo/echo  # it's a note\nhi")
    run(shell, "%llm use echo/lorem  # from now on")
    run(shell, "%llm use echo/echo")
    run(shell, "%embed ['a', 'b'] --model echo/echo -o v  # two")
    capsys.readouterr()
    run(shell, "%llm ask What is # in Python")
    assert capsys.readouterr().out == "What is # in Python\n"


def test_stop_takes_a_newline(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """Written as in Python; two backslashes are one."""
    assert unescape(r"\n") == "\n"
    assert unescape(r"a\\n\t") == "a\\n\t"
    capsys.readouterr()
    run(shell, '%%llm echo/echo --stop "\\n"\nfirst\nsecond')
    assert capsys.readouterr().out == "first\n"
    run(shell, r'%llm config stop "\n"')
    assert session.config.stop == ("\n",)
    session.config.reset("stop")
    assert split_words(r'--stop "\n"') == ["--stop", r"\n"]


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        ("gpt-4o", "openai/gpt-4o; it needs OPENAI_API_KEY"),
        ("gpt-99-mini", "openai/gpt-99-mini; it needs OPENAI_API_KEY"),
        ("gemini-3.8-flash", "gemini/gemini-3.8-flash; it needs GEMINI_API_KEY"),
        ("gemini-9-flash", "gemini/gemini-9-flash; it needs GEMINI_API_KEY"),
        ("claude-sonnet-4-5", "anthropic/claude-sonnet-4-5; it needs ANTHROPIC_API_KEY"),
    ],
)
def test_a_bare_cloud_model_says_what_to_write(
    model: str, hint: str, shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the key that is missing."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ModelNotFoundError) as caught:
        run(shell, f"%%llm {model}\nhi")
    assert hint in str(caught.value.hint)


def test_a_name_of_no_family_belongs_to_no_cloud() -> None:
    """Names of local models are not sent anywhere."""
    assert find_providers("llama3.2") == find_providers("text") == find_providers("") == []


def test_health_of_named_providers(shell: InteractiveShell) -> None:
    """One row each; a name that is mistyped is an error."""
    frame = run(shell, "%llm health echo local")
    assert frame["provider"].tolist() == ["echo", "local"]
    with pytest.raises(UsageError, match="nosuch"):
        run(shell, "%llm health nosuch")


def test_hints_are_shown_whole() -> None:
    """Where pandas would cut them."""
    long = "Start it with: ollama serve. " * 20
    frame = WideFrame([("ollama", "unavailable", long)], columns=["a", "b", "c"])
    assert long.strip() in repr(frame).replace("  ", " ") or long in repr(frame)
    assert "unavailable" in repr(frame)
    assert "..." not in str(frame._repr_html_())
    assert type(frame[["a"]]) is WideFrame


def test_wide_frames_can_be_what_imports_pandas() -> None:
    """The accessors are imported with pandas, and must not need what imports it."""
    code = "import llm_magics, llm_magics._util.tables, pandas; print(pandas.DataFrame().llm)"
    run_prepared(code, strict=True)


def test_models_of_a_provider_without_any(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such a provider exists; the way to a model is said."""
    provider = session.provider("echo")

    async def none() -> list[Any]:
        return []

    monkeypatch.setattr(provider, "describe_models", none)
    session.listings.forget("echo")
    frame = run(shell, "%llm models echo")
    assert frame.empty
    assert "echo has no models. Pull one with: %llm pull echo/NAME" in capsys.readouterr().out
    session.listings.forget("echo")


def test_an_interrupted_pull_says_how_to_go_on(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a line, and not as a traceback."""
    import asyncio

    began = threading.Event()

    async def events(self: Any) -> Any:
        began.set()
        await asyncio.sleep(60)
        yield

    monkeypatch.setattr(models.PullCall, "events", events)

    def interrupt() -> None:
        began.wait()
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(Interrupted, match="download") as caught:
        shell.run_line_magic("llm", "pull local/smollm2-135m")
    assert "%llm pull local/smollm2-135m" in str(caught.value.hint)


def test_an_interrupted_command_ends_in_a_line(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of any subcommand."""

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(
        __import__("llm_magics.notebook.commands", fromlist=["x"]).COMMANDS, "health", interrupted
    )
    with pytest.raises(Interrupted, match="%llm health"):
        shell.run_line_magic("llm", "health")


def test_a_column_with_spaces_is_read_from_the_row() -> None:
    """Also beside others; a missing one is missing."""
    frame = pd.DataFrame({"ticket text": ["a", None, "c"], "n": [1, 2, 3]})
    frame.llm.prompt('{{ row["ticket text"] }}', model="echo/echo", into="x")
    assert frame["x"].tolist()[::2] == ["a", "c"]
    assert frame["x"].isna().tolist() == [False, True, False]
    frame.llm.prompt('{{ row["ticket text"] }}{{ n }}', model="echo/echo", into="y")
    assert frame["y"].tolist() == ["a1", "2", "c3"]
    frame.llm.prompt("{{ row.n }}", model="echo/echo", into="z")
    assert frame["z"].tolist() == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("prompt", "hint"),
    [
        ("{{ ticket text }}", '{{ row["ticket text"] }}'),
        ('{{ row["tickt text"] }}', "ticket text"),
        ("{{ ticket text | upper }}", '{{ row["ticket text"] }}'),
    ],
)
def test_a_wrong_name_of_a_column_with_spaces_says_how_to_write_it(prompt: str, hint: str) -> None:
    """Before anything is sent."""
    frame = pd.DataFrame({"ticket text": ["a"], "n": [1]})
    with pytest.raises(LLMError) as caught:
        frame.llm.prompt(prompt, model="echo/echo")
    assert hint in str(caught.value.hint)


def test_a_column_called_row_is_a_column() -> None:
    """As every other name of a column."""
    frame = pd.DataFrame({"row": ["a", "b"]})
    frame.llm.prompt("{{ row }}", model="echo/echo", into="x")
    assert frame["x"].tolist() == ["a", "b"]
