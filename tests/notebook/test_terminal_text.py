"""What a service sent, written to a terminal: no escape sequence, and no name that hides anything."""

from __future__ import annotations

import ast
import io
import re
import shlex
import sys
import warnings
from collections.abc import Callable

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from IPython.core.completer import provisionalcompleter
from IPython.core.inputtransformer2 import TransformerManager
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import host
from llm_magics._util.tables import SafeFrame, WideFrame
from llm_magics._util.text import display_name, escape_controls, escape_invisible, quote_word
from llm_magics.errors import ModelNotFoundError, ProviderError, UnsupportedError, nearest
from llm_magics.host import Progress, terminal_progress
from llm_magics.notebook.display.answer import TextDisplay
from llm_magics.notebook.display.output import print_safe
from llm_magics.notebook.parsers import parse_setting_value, split_words, strip_comment
from llm_magics.notebook.picker.fields import magic_lines
from llm_magics.runtime.models import require_chat
from llm_magics.runtime.response import Response
from llm_magics.secrets import Secret
from llm_magics.settings.config import config
from tests.support.fake_ollama import CHAT, FakeOllama
from tests.support.serving import serving

ATTACKS = {
    "clipboard": "\x1b]52;c;Y3VybCBldmls\x07",
    "title": "\x1b]0;title\x07",
    "other title": "\x1b]2;title\x1b\\",
    "colours": "\x1b[8;31mhidden\x1b[0m",
    "C1 CSI": "\x9b2J",
    "C1 OSC": "\x9d52;c;AAAA\x9c",
    "bell": "\x07",
    "backspaces": "safe\x08\x08\x08\x08evil",
    "overwriting": "evil\rsafe",
    "delete": "\x7f",
    "override": "\u202egpj.exe",
    "isolate": "\u2066a\u2069",
    "zero-width": "gpt\u200b-5",
    "joiner": "gpt\u200d-5",
    "mark": "\ufeffgpt",
}
HIDDEN = set("\x07\x08\x0d\x1b\x7f\x9b\x9c\x9d\u202e\u2066\u2069\u200b\u200d\ufeff")
attacks = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
NASTY_NAMES = [
    "a\nimport os; os.system('x')",
    "a\r!rm -rf .",
    "a\u2028b",
    "a\u2029b",
    "a\x0bb\x0cc\x1dd\x85e",
    "a'b",
    'a"b',
    '"""',
    "'''",
    "a\\",
    "a\\' #b",
    "a # b",
    "#a",
    "{1/0}",
    "$HOME",
    "a?",
    "a;",
    "!ls",
    "a b",
    "",
    "\u202eevil",
    "a" * 5_000,
]


def lines_for(model: str, system: str | None = None) -> list[str]:
    """Return the lines of the picker for these settings."""
    config.model = model
    config.set("system", system)
    return magic_lines(config)


def commands_in(lines: list[str]) -> list[str]:
    """Return what a cell of these lines hands to ``%llm``; any other code fails."""
    found = []
    for statement in ast.parse(TransformerManager().transform_cell("\n".join(lines))).body:
        assert isinstance(statement, ast.Expr)
        assert isinstance(statement.value, ast.Call)
        magic, line = (ast.literal_eval(each) for each in statement.value.args)
        assert ast.unparse(statement.value.func) == "get_ipython().run_line_magic"
        assert magic == "llm"
        found.append(line)
    return found


def check_lines(model: str, system: str | None) -> None:
    """Check that the copied lines say the same, or are comments."""
    lines = lines_for(model, system)
    assert all(len(line.splitlines()) == 1 and line.isprintable() for line in lines)
    commands = commands_in(lines)
    assert len(commands) == sum(not line.startswith("#") for line in lines)
    for command in commands:
        what, _, rest = command.partition(" ")
        rest = strip_comment(rest).strip()
        if what == "use":
            assert split_words(rest) == [model]
        else:
            assert rest.partition(" ")[0] == "system"
            assert parse_setting_value(rest.partition(" ")[2].strip()) == system


@pytest.mark.parametrize("name", NASTY_NAMES)
def test_copied_lines_hold_a_name_or_are_a_comment(name: str) -> None:
    """Whatever a service calls its model, a copied line runs nothing but the magic."""
    check_lines(f"ollama/{name}", name or None)


@given(st.text(min_size=1), st.text(min_size=1))
@example("\\'", "\\' #")
@example("'\\' #'", '"\\" # "')
def test_copied_lines_are_read_as_they_are_meant(model: str, system: str) -> None:
    """Any name and any system message."""
    check_lines(f"a/{model}", system if system.strip() else None)


@given(st.text())
@example("\\")
@example("a\\'b")
@example('\\"#')
def test_a_word_is_one_word_or_nothing(text: str) -> None:
    """And it is what the line is split into."""
    spelled = quote_word(text)
    if spelled is None:
        assert escape_invisible(text) != text
    else:
        assert shlex.split(spelled) == [text]
        assert strip_comment(f"{spelled} # more") == spelled


@given(st.text())
def test_names_and_prose_hide_nothing(text: str) -> None:
    """A name is printable and short, prose keeps its line breaks and tabs."""
    assert display_name(text).isprintable()
    assert len(display_name(text)) <= 200
    prose = escape_controls(text)
    assert not HIDDEN.difference("\u200d").intersection(prose)
    assert prose.count("\n") == text.count("\n")
    assert prose.count("\t") == text.count("\t")


def test_prose_keeps_emoji_and_joiners_of_scripts() -> None:
    """A family, a flag of tags, a heart, Persian."""
    text = "👩‍👩‍👧 \U0001f3f4\U000e0067\U000e0062\U000e007f ❤️ می‌خواهم"
    assert escape_controls(text) == text


@attacks
def test_messages_name_models_safely(attack: str) -> None:
    """Hints that list names, and errors about a model."""
    assert not HIDDEN.intersection(nearest(attack, [attack, f"{attack}2"]))
    assert not HIDDEN.intersection(nearest("", [attack]))
    model = f"{attack}\n%llm use evil"
    error = ModelNotFoundError(f'No model "{model}".', hint=f"Not {model}", model=model)
    for text in (str(error), error.hint, "".join(error._render_traceback_())):
        assert text is not None
        assert not HIDDEN.intersection(text)
        assert "\n" not in text
    with pytest.raises(UnsupportedError) as refused:
        require_chat(model, ["embeddings"])
    assert "\n" not in f"{refused.value} {refused.value.hint}"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@attacks
def test_the_progress_line_stays_a_line(attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only its own carriage return and clearing are written."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    show = terminal_progress()
    show(Progress(f"pulling {attack}\nmore", 1, 2, "bytes"))
    show(None)
    written = stream.getvalue().replace("\r\x1b[K", "")
    assert "pulling" in written
    assert not HIDDEN.union("\n").intersection(written)


@attacks
def test_what_is_said_and_warned_of_is_escaped(
    attack: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """By commands, and by warnings."""
    print_safe(f"one {attack}\n\ttwo")
    told = capsys.readouterr().out
    assert not HIDDEN.intersection(told)
    assert told.endswith("\n\ttwo\n")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        host.warn(f"one {attack}")
    assert not HIDDEN.intersection(str(caught[0].message))


FRAMES: list[Callable[[dict[str, list[str]]], pd.DataFrame]] = [SafeFrame, WideFrame]


@attacks
@pytest.mark.parametrize("kind", FRAMES)
def test_frames_of_services_are_shown_escaped(
    kind: Callable[[dict[str, list[str]]], pd.DataFrame], attack: str
) -> None:
    """Text and HTML; the cells, and what is made of the frame, hold the text as it is."""
    frame = kind({"model": [attack, "b"]})
    for each in (frame, frame[frame.model != "b"], frame.set_index("model")):
        assert not HIDDEN.intersection(repr(each) + str(each) + each._repr_html_())
    assert frame.model.tolist() == [attack, "b"]


@attacks
def test_any_frame_is_safe_in_a_terminal(shell: InteractiveShell, attack: str) -> None:
    """Answers in the user's own pandas and polars frames, as IPython writes them."""
    polars = pytest.importorskip("polars")
    shell.run_line_magic("llm", "models echo")
    for value in (
        pd.DataFrame({"answer": [attack]}),
        pd.Series([attack]),
        polars.DataFrame({"answer": [attack]}),
        lm.runs(),
    ):
        data, _ = shell.display_formatter.format(value)
        assert not HIDDEN.intersection(data["text/plain"])
        assert len(data["text/plain"].splitlines()) > 1 or value.empty


@attacks
def test_a_response_is_safe_to_look_at(attack: str) -> None:
    """Its repr is escaped; its text is the answer itself."""
    response = Response(attack, model=attack)
    assert not HIDDEN.intersection(repr(response))
    assert str(response) == response.text == attack


def test_an_answer_as_text_is_without_controls(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """``-f text`` writes to the terminal itself."""
    shell.run_cell_magic("llm", "-f text -o ans", "".join(ATTACKS.values()))
    assert not set("\x07\x08\x0d\x1b\x7f\x9b\x9c\x9d").intersection(capsys.readouterr().out)
    assert ATTACKS["clipboard"] in shell.user_ns["ans"].text


def offered(shell: InteractiveShell, line: str) -> list[str]:
    """Return what is offered to end ``line``."""
    with provisionalcompleter():
        shell.Completer.use_jedi = False
        found = shell.Completer.completions(line, len(line))
        return [each.text for each in found if each.type == "model"]


def test_a_listed_model_with_a_line_break_stays_data(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the table, in a refusal, and in completions."""
    evil = "evil\nimport os\x1b]0;t\x07"
    fake = FakeOllama()
    fake.models["it's mine"] = ["completion"]
    fake.models[evil] = ["completion"]
    with serving(fake) as server:
        lm.config.set("providers.ollama.base_url", server.url)
        frame = shell.run_line_magic("llm", "models ollama")
        assert f"ollama/{evil}" in set(frame.model)
        assert not HIDDEN.intersection(repr(frame))
        with pytest.raises(ModelNotFoundError) as missing:
            lm.ask("hi", model="ollama/evil import os")
    assert "\n" not in f"{missing.value} {missing.value.hint}"
    assert offered(shell, "%llm use ollama/sm") == [f"ollama/{CHAT}"]
    assert offered(shell, "%llm use ollama/ev") == []
    assert offered(shell, "%llm use ollama/it") == ["'ollama/it'\"'\"'s mine'"]
    assert not HIDDEN.intersection(capsys.readouterr().out)


@attacks
def test_errors_of_services_are_shown_escaped(attack: str) -> None:
    """The message, the hint and the code: nothing in them turns, hides or overwrites anything."""
    error = ProviderError(f"It says {attack}.", hint=f"Try {attack}", code=attack)
    for shown in (str(error), error.hint, error.code, *error._render_traceback_()):
        assert not HIDDEN & set(str(shown))


@attacks
def test_tracebacks_of_any_error_are_safe_in_a_terminal(
    shell: InteractiveShell, attack: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of one that quotes an answer, say; the colours of the traceback stay."""
    shell.user_ns["answer"] = attack
    shell.run_line_magic("colors", "linux")
    shell.run_cell("raise ValueError(f'no number: {answer}')")
    told = capsys.readouterr()
    shown = told.out + told.err
    assert "no number" in shown
    without_colours = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert not HIDDEN & set(without_colours)


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_a_key_in_pieces_is_not_printed(size: int, capsys: pytest.CaptureFixture[str]) -> None:
    """However an answer is cut into pieces; all that only begins like a key is printed."""
    key = "kkzz-held-back-88kk"
    Secret(key)
    answer = f"It is {key}, not kkzz-held-off. k kk {key[:-1]}"
    with TextDisplay() as display:
        for start in range(0, len(answer), size):
            display.write(answer[start : start + size])
    assert capsys.readouterr().out == f"It is ****, not kkzz-held-off. k kk {key[:-1]}\n"


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('Answer as "Bob"', 'Answer as "Bob"'),
        ('"Answer in French"', "Answer in French"),
        ("'a' or 'b'", "'a' or 'b'"),
        ('"', '"'),
        ("''", ""),
        ("the dogs'", "the dogs'"),
    ],
)
def test_only_quotes_around_a_setting_are_removed(written: str, value: str) -> None:
    """Quotes inside the text, or on one side, are parts of it."""
    assert parse_setting_value(written) == value
