"""Prompts in files: found, read, refused, saved, asked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import errors
from llm_magics._util.filesystem import display_path
from llm_magics.runtime.prompts import prompt_files
from llm_magics.runtime.prompts.prompt_files import PromptFile
from tests.support.examples import examples
from tests.support.servers import servers
from tests.support.serving import Says, chat_stream

SUMMARY = """---
description: sums up
system: You are brief, {{ who }}.
model: one/m
parameters: {temperature: 0, max_tokens: 7}
defaults: {n: 3, who: Bob}
---
In {{ n }} sentences:

{{ input }}
"""


def write(text: str, name: str = "summary", folder: str = "prompts") -> Path:
    """A template in the project."""
    path = Path(folder) / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def sent(**given: Any) -> tuple[list[str], dict[str, Any]]:
    """The messages and the body that a server gets when the template is asked."""
    with servers(one=Says(chat_stream("yes"))) as running:
        lm.ask(template="summary", **given)
        body = running["one"].asked[-1].json()
    return [message["content"] for message in body["messages"]], body


def test_what_the_file_says_is_asked() -> None:
    """Its system, model and parameters, its defaults, and the prompt in its place."""
    write(SUMMARY)
    messages, body = sent(prompt="A text.")
    assert messages == ["You are brief, Bob.", "In 3 sentences:\n\nA text."]
    assert (body["temperature"], body["max_tokens"]) == (0, 7)


def test_what_the_call_says_counts_more() -> None:
    """Variables over defaults, parameters over parameters, its own system and model."""
    write(SUMMARY)
    messages, body = sent(prompt="x", variables={"n": 9}, temperature=1, system="Be kind.")
    assert messages == ["Be kind.", "In 9 sentences:\n\nx"]
    assert (body["temperature"], body["max_tokens"]) == (1, 7)
    assert lm.ask("x", template="summary", model="echo/echo").model == "echo/echo"


def test_a_template_that_names_no_input_is_followed_by_it() -> None:
    """So nothing that was written is lost."""
    write("Translate to French.")
    lm.config.model = "one/m"
    assert sent(prompt="Good day.")[0] == ["Translate to French.\n\nGood day."]
    assert sent()[0] == ["Translate to French."]


def test_the_projects_own_count_before_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nearest folder first, the user's last."""
    write("far", "a", "prompts")
    write("only far", "b", "prompts")
    write("users", "a", str(tmp_path / "user-config/llm_magics/prompts"))
    write("the user's", "c", str(tmp_path / "user-config/llm_magics/prompts"))
    write("near", "a", "deep/prompts")
    monkeypatch.chdir(tmp_path / "deep")
    assert [prompt_files.load(name).text for name in "abc"] == ["near", "only far", "the user's"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("---\nsystm: x\n---\nhi", '"systm".*'),
        ("---\nsystem: [1]\n---\nhi", "value for system"),
        ("---\n- a\n---\nhi", "got list"),
        ("---\na: b: c\n---\nhi", "YAML"),
        ("---\nschema: 'age nonsense'\n---\nhi", "nonsense"),
        ("---\ndefaults: 3\n---\nhi", "defaults: 3"),
        ("---\nparameters: {base_url: x}\n---\nhi", "setting of a provider"),
        ("---\nparameters: {token_provider: aws}\n---\nhi", "setting of a provider"),
        ("---\nparameters: {extra_headers: {host: x}}\n---\nhi", "cannot contain Host"),
        ("---\nparameters: {temperature: hot}\n---\nhi", "temperature"),
        ("hi {{ nobody }}", "nobody"),
        ("hi {% if %}", "Line 1"),
        ("{{ ().__class__.__mro__ }}", "unsafe|__class__"),
        ("---\nsystem: !!python/object/apply:os.getcwd []\n---\nhi", "YAML"),
        ("", "empty"),
    ],
)
def test_a_wrong_file_is_said_to_be_one(text: str, message: str) -> None:
    """With its name where it is the head, and what is wrong; none of it runs anything."""
    write(text)
    with pytest.raises(errors.LLMError, match=re.compile(message, re.DOTALL)):
        lm.ask(template="summary", model="echo/echo", variables={})


def test_a_mistyped_name_is_told_the_nearest() -> None:
    """And where templates are kept."""
    write(SUMMARY)
    with pytest.raises(errors.TemplateError, match='"sumary"') as caught:
        lm.ask("x", template="sumary")
    assert "Did you mean summary?" in str(caught.value.hint)
    for name in ("../summary", "/etc/passwd", ""):
        with pytest.raises(errors.TemplateError, match="No template"):
            lm.ask("x", template=name)


texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\x85\u2028\u2029"), max_size=80)


@given(
    text=texts.filter(lambda text: text.strip("\n") == text and not text.startswith("---")),
    system=texts.filter(bool),
    defaults=st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), texts, max_size=3),
)
@settings(deadline=None, max_examples=examples(60))
def test_what_is_saved_is_read_again(text: str, system: str, defaults: dict[str, str]) -> None:
    """Whatever stands in it: colons, quotes, dashes, any script."""
    kept = PromptFile(text=text, description="what: for", system=system, model="echo/echo", parameters={"stop": ["a", "---"]}, schema="a int", defaults=defaults)  # fmt: skip
    assert prompt_files.read(prompt_files.save("any", kept, overwrite=True)) == kept


def test_the_magics(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """--save keeps a cell and asks nobody, -t asks it, %llm templates lists; none is lost."""
    line = '--save brief -s "Be {{ how }}." --temperature 0 -p how=brief'
    shell.run_cell_magic("llm", line, "Tell of {{ topic }}: {{ input }}\n")
    assert "%%llm -t brief" in capsys.readouterr().out
    assert lm.runs().empty
    shell.run_cell_magic("llm", "-t brief -o ans -p topic=whales", "now\n")
    answer = shell.user_ns["ans"]
    assert answer.text == "Tell of whales: now"
    assert answer.messages[0].content == "Be brief."
    shell.user_ns["topic"] = "sharks"
    shell.run_cell_magic("llm", "-t brief -o ans", "\n")
    assert answer.text != shell.user_ns["ans"].text
    with pytest.raises(errors.TemplateError, match="already exists"):
        shell.run_cell_magic("llm", "--save brief", "Something else")
    assert "Tell of" in Path("prompts/brief.md").read_text(encoding="utf-8")
    shell.run_cell_magic("llm", "--save brief --yes", "Something else")
    write("---\nwrong: 1\n---\n", "broken")
    listed = shell.run_line_magic("llm", "templates")
    assert listed.name.tolist() == ["brief", "broken"]
    assert "wrong" in listed.description[1]
    with pytest.raises(errors.TemplateError, match="template name"):
        shell.run_cell_magic("llm", "--save ../up", "x")


HOSTILE = [
    "{{ get_ipython().system('touch PWNED') }}",
    "{% set sh = get_ipython() %}{{ sh.user_ns['secret'] }}",
    "{{ str.format('{0.__globals__[os].environ[CANARY]}', g) }}",
    "{{ '{0.__globals__[os].environ[CANARY]}'.format(g) }}",
    "{{ g() }}",
    "{{ os.environ.CANARY }}",
    "{{ environ }}",
    "{{ environ | string }}",
    "{{ lm.config }}",
    "{{ frame.to_csv('PWNED') }}",
    "{{ [1] | map('g') | list }}",
    "{{ frame.apply(g) }}",
    "{{ cycler.__init__.__globals__.os.environ.CANARY }}",
    "{{ frame.__class__.__init__.__globals__ }}",
    "{{ lipsum.__globals__['os'].environ.CANARY }}",
    "{{ self._TemplateReference__context.environment }}",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_file_of_somebody_elses_runs_nothing(
    text: str, shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It sees data alone: no shell, no function, no environment, no file is written."""
    import os

    canary = "canary-of-the-environment"
    monkeypatch.setenv("CANARY", canary)
    write(text, "hostile")
    shell.run_cell("import os, llm_magics as lm, pandas as pd\nfrom os import environ")
    shell.run_cell("def g(*a): open('PWNED', 'w').close()\nframe = pd.DataFrame({'a': [1]})")
    shell.user_ns["secret"] = canary
    answer = None
    try:
        shell.run_cell_magic("llm", "echo/echo -t hostile -o ans", "\n")
        answer = shell.user_ns["ans"].text
    except errors.LLMError as error:
        answer = str(error)
    assert canary not in answer
    assert not (tmp_path / "PWNED").exists()
    assert os.environ["CANARY"] == canary


def test_a_file_sees_the_notebooks_data(shell: InteractiveShell) -> None:
    """Tables, their filters, lists, loops and the methods of texts; the cell sees all it ever saw."""
    write("{{ df | table(1) }} {{ names[0].upper() }} {% for n in names %}{{ n }}{% endfor %} {{ df.shape[0] }}|{{ input }}", "data")  # fmt: skip
    shell.run_cell("import pandas as pd; df = pd.DataFrame({'a': [1, 2]}); names = ['x', 'y']")
    shell.run_cell("def shout(text): return text.upper()")
    shell.run_cell_magic("llm", "echo/echo -t data -o ans", "{{ shout('now') }}")
    assert shell.user_ns["ans"].text.endswith(" X xy 2|NOW")


@pytest.mark.parametrize(
    "head",
    ["description: 2024-13-45", "a: !!bool maybe", "a: !!int ''", "a: !!timestamp foo",
     f"description: {'9' * 5000}", "parameters: {1: 2}", "system: no end"],
)  # fmt: skip
def test_a_head_that_breaks_the_parser(head: str, shell: InteractiveShell) -> None:
    """Is an error in words, and hides no other template."""
    write(f"---\n{head}\n---\nhi" if "no end" not in head else f"---\n{head}\nhi", "odd")
    write("good", "good")
    with pytest.raises(errors.TemplateError, match=r"odd\.md"):
        prompt_files.load("odd")
    assert "good" in shell.run_line_magic("llm", "templates").name.tolist()


def test_a_head_that_would_fill_the_memory() -> None:
    """Nested aliases are shown in a line."""
    levels = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9))
    write(f"---\nx: &a0 [lol]\n{levels}\ndescription: *a8\n---\nhi", "bomb")
    with pytest.raises(errors.TemplateError) as caught:
        prompt_files.load("bomb")
    assert len(str(caught.value)) < 300


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    """Is an error in words: a name too long, a folder of that name, another's bytes."""
    (tmp_path / "prompts" / "folder.md").mkdir(parents=True)
    (tmp_path / "prompts" / "bytes.md").write_bytes(b"\xff\xfe")
    for name in ("x" * 300, "folder", "bytes"):
        with pytest.raises(errors.TemplateError):
            prompt_files.save(name, PromptFile(text="x"), overwrite=name == "folder")
    assert (tmp_path / "prompts" / "bytes.md").read_bytes() == b"\xff\xfe"


def test_paths_are_told_as_one_would_write_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the working folder, from home, else whole: an output is the same on every machine."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert display_path(Path("prompts/a.md")) == "prompts/a.md"
    assert display_path(tmp_path / "work" / "prompts" / "a.md") == "prompts/a.md"
    assert display_path(tmp_path / "home" / "b.md") == "~/b.md"
    assert display_path(tmp_path / "c.md") == (tmp_path / "c.md").as_posix()
