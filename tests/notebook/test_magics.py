"""The magics in a shell: lines read, values kept, mistakes named. No model but echo's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import IPython
import numpy as np
import pandas as pd
import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

import llm_magics
from llm_magics import ChatMessage
from llm_magics.errors import Interrupted, LLMError, ParseError, UsageError
from llm_magics.notebook import completion as prompts
from llm_magics.notebook import parsers
from llm_magics.notebook.commands import COMMANDS, registry
from llm_magics.providers.base import ModelInfo
from llm_magics.runtime.prompts.prompt import Turn
from llm_magics.runtime.session import session
from llm_magics.settings.config import config
from llm_magics.types import StreamChunk
from tests.support.serving import as_json, serving


def completed(shell: InteractiveShell, line: str) -> set[str]:
    """What Tab offers at the end of ``line``."""
    with pytest.MonkeyPatch.context() as patch, provisionalcompleter():
        patch.setattr(shell.Completer, "use_jedi", False)
        completions = shell.Completer.completions(line, len(line))
        return {completion.text for completion in completions if completion.type != "magic"}


def test_the_answer_is_printed_and_kept(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a terminal it is printed; the variable and _llm hold it."""
    shell.user_ns["who"] = "world"
    shell.run_cell_magic("llm", "-o ans", "hello {{ who }}\n")
    assert capsys.readouterr().out == "hello world\n"
    assert shell.user_ns["ans"].text == "hello world"
    assert shell.user_ns["_llm"] is shell.user_ns["ans"]


def test_every_flag_reaches_the_model(shell: InteractiveShell) -> None:
    """System, parameters, and -p over the notebook's variables."""
    shell.user_ns["x"] = "notebook"
    line = (
        "echo/lorem -o a -s 'be {{ x }}' -p x=flag --seed 3 --max-tokens 4 --stop zz --top-p 0.5"
    )
    shell.run_cell_magic("llm", line, "hi {{ x }}")
    answer = shell.user_ns["a"]
    assert [message.content for message in answer.messages] == ["be flag", "hi flag"]
    assert (answer.model, answer.usage.output_tokens) == ("echo/lorem", 4)


@pytest.mark.parametrize(
    ("form", "cell", "printed"),
    [
        ("text", "*a*", "*a*\n"),
        ("json", "x ```\n[1, 2]\n```", None),
        ("df", "| a |\n|---|\n| 1 |", None),
        ("code", "x\n```python\ny = 1\n```", None),
    ],
)
def test_an_answer_can_be_shown_as_what_it_holds(
    shell: InteractiveShell,
    capsys: pytest.CaptureFixture[str],
    form: str,
    cell: str,
    printed: str | None,
) -> None:
    """Text as it is; code, JSON and tables taken out of it."""
    shell.run_cell_magic("llm", f"-f {form}", cell)
    out = capsys.readouterr().out
    assert out == printed if printed else out


def test_an_answer_without_what_was_asked_is_kept_all_the_same(shell: InteractiveShell) -> None:
    """The error says that there is no JSON; the answer is not lost."""
    with pytest.raises(ParseError):
        shell.run_cell_magic("llm", "-f json -o ans", "no json")
    assert shell.user_ns["ans"].text == "no json"


def test_a_dry_run_sends_nothing(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """It shows whom it would ask, and what."""
    shell.run_cell_magic("llm", "--dry-run -s sys", "hi {{ 1 + 1 }}")
    assert capsys.readouterr().out == (
        "Dry run: nothing was sent to echo/echo.\n[system] sys\n[user] hi 2\n\n"
        "inserted:\n  an expression: int, 1 character\n\n"
        "about 11 input tokens, at most 1,000 output tokens: free\n"
    )
    assert llm_magics.runs().empty


def test_several_models_are_compared(shell: InteractiveShell) -> None:
    """A frame with an answer a row, kept by -o with all its columns."""
    shown = shell.run_cell_magic("llm", "echo/echo echo/lorem -o cmp --max-tokens 2", "a b c")
    assert shown.model.tolist() == ["echo", "lorem"]
    assert shell.user_ns["cmp"].output_tokens.tolist() == [2, 2]
    with pytest.raises(UsageError, match="dry-run"):
        shell.run_cell_magic("llm", "echo/echo echo/lorem --dry-run", "a")


@pytest.mark.parametrize(
    ("line", "cell", "message", "hint"),
    [
        ("--temprature 1", "x", "no flag --temprature", "Did you mean --temperature?"),
        ("--temperature hot", "x", "invalid float value", "%%llm?"),
        ("--format yaml", "x", "invalid choice", "%%llm?"),
        ("-p topic", "x", "not KEY=VALUE", "-p topic=whales"),
        ("-o a-b", "x", "variable name", "-o answer"),
        ("'unclosed", "x", "no closing quotation", "quotes"),
        ("", "\n \n", "The cell is empty", "%%llm"),
        ("echo/ecco", "x", 'no model "ecco"', "Did you mean echo?"),
        ("ecco/echo", "x", '"ecco"', "Did you mean echo?"),
        ("", "{{ nope }}", "variable nope", "Define nope"),
    ],
)
def test_mistakes_in_a_cell_are_named(
    shell: InteractiveShell, line: str, cell: str, message: str, hint: str
) -> None:
    """Each says what is wrong and what would be right, in at most four lines."""
    with pytest.raises(LLMError) as caught:
        shell.run_cell_magic("llm", line, cell)
    assert message in str(caught.value)
    assert hint in str(caught.value.hint)
    assert 2 <= len(caught.value._render_traceback_()) <= 4


def test_an_empty_cell_is_our_mistake_to_name(shell: InteractiveShell) -> None:
    """IPython's own UsageError would be taken for success by nbval."""
    for cell in ("%%llm", "%%llm echo/echo", "%%embed"):
        result = shell.run_cell(cell, silent=True)
        assert type(result.error_in_exec) is UsageError
        assert result.error_before_exec is None


def test_a_column_is_embedded_into_its_frame(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """By attribute or by brackets, with quotes and spaces in the name."""
    frame = shell.user_ns["df"] = pd.DataFrame({"text": ["a", None], "my text": ["c", "d"]})
    shell.run_line_magic("embed", "df.text --into v")
    shell.run_line_magic("embed", 'df["my text"] --into "my vector"')
    assert frame["v"].isna().tolist() == [False, True]
    assert np.stack(frame["my vector"]).shape == (2, 64)
    assert "1 ok · 1 missing · 64 dimensions · echo/echo → v" in capsys.readouterr().out


def test_vectors_are_the_result_or_kept(shell: InteractiveShell) -> None:
    """A Series for a column, an array for a list; -o puts them into a variable."""
    shell.user_ns["df"] = pd.DataFrame({"text": ["a", "b"]})
    assert isinstance(shell.run_line_magic("embed", "df.text"), pd.Series)
    assert shell.run_line_magic("embed", '["a", "b"]').shape == (2, 64)
    assert shell.run_line_magic("embed", '["a", "b"] -o v') is None
    assert shell.user_ns["v"].shape == (2, 64)


def test_lines_are_embedded_into_a_frame(shell: InteractiveShell) -> None:
    """One text a line, blank ones left out."""
    frame = shell.run_cell_magic("embed", "", "one\n\n two \n")
    assert frame.text.tolist() == ["one", "two"]
    shell.run_cell_magic("embed", "-o kept", "one")
    assert len(shell.user_ns["kept"]) == 1


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("", "%embed", "%embed df.text"),
        ("dff.text", "'dff' is not defined", "Did you mean df?"),
        ("df.txt", "AttributeError", "own cell"),
        ("df.text --inot v", "no flag --inot", "Did you mean --into?"),
        ("df.text.head() --into v", "--into needs a column", "-o"),
        ("df.head().text --into v", "--into needs a column", "-o"),
        ('["a"] --into v', "--into needs a column", "-o"),
        ("df.text -o 1x", "variable name", "-o answer"),
        ("df text --into v", "expression", "%embed df.text"),
        ("5", "got int", "list of texts"),
    ],
)
def test_mistakes_of_embed_are_named(
    shell: InteractiveShell, line: str, message: str, hint: str
) -> None:
    """Names, flags, expressions, and places that vectors cannot go to."""
    shell.user_ns["df"] = pd.DataFrame({"text": ["a"]})
    with pytest.raises(UsageError) as caught:
        shell.run_line_magic("embed", line)
    assert message in str(caught.value)
    assert hint in str(caught.value.hint)


def test_subcommands(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """Use, config, pull, delete, models, health, runs, cost, ask: each does what it says."""
    run = shell.run_line_magic
    run("llm", "use echo/lorem")
    assert llm_magics.config.model == "echo/lorem"
    run("llm", "config temperature 0.5")
    run("llm", "config stop [a, b]")
    assert (llm_magics.config.temperature, llm_magics.config.stop) == (0.5, ("a", "b"))
    assert run("llm", "config").loc["model", "source"] == "set in this session"
    run("llm", "config model")
    run("llm", "delete echo/echo")
    assert run("llm", "models echo").model.tolist() == ["echo/lorem"]
    run("llm", "pull echo/echo")
    assert run("llm", "models echo").model.tolist() == ["echo/echo", "echo/lorem"]
    assert set(run("llm", "health").provider) >= {"echo", "local"}
    run("llm", "use echo/echo")
    llm_magics.config.reset("stop")
    run("llm", "ask what's up, {{ 'doc' }}?")
    assert shell.user_ns["_llm"].text == "what's up, doc?"
    assert len(run("llm", "runs")) == 1
    cost = run("llm", "cost")
    assert cost.loc[("echo", "echo"), "calls"] == 1
    assert cost.loc[("echo", "echo"), "cost_usd"] == 0
    run("llm", "")
    printed = capsys.readouterr().out
    assert all(f"%llm {name}" in printed for name in COMMANDS)


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("modles", 'no subcommand "modles"', "Did you mean models?"),
        ("use", "takes a model", "%llm use"),
        ("use a b", "takes a model", "%llm use"),
        ("use echo/ecco", 'no model "ecco"', "Did you mean echo?"),
        ("config modle x", '"modle"', "Did you mean model?"),
        ("config temperature hot", "'hot' for temperature", "number"),
        ("ask", "empty", "%llm ask"),
        ("delete echo/ecco", 'no model "ecco"', "echo"),
    ],
)
def test_mistakes_in_a_subcommand_are_named(
    shell: InteractiveShell, line: str, message: str, hint: str
) -> None:
    """With the nearest right one."""
    with pytest.raises(LLMError) as caught:
        shell.run_line_magic("llm", line)
    assert message in str(caught.value)
    assert hint in str(caught.value.hint)


def test_tab_completes_without_asking_anybody(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Subcommands, models, flags, their values and settings; nothing in the body of a cell."""
    monkeypatch.setattr("httpx.AsyncClient.__init__", None)
    assert completed(shell, "%llm mo") == {"models"}
    assert completed(shell, "%llm use echo/") == {"echo/echo", "echo/lorem"}
    assert completed(shell, "%llm config temp") == {"temperature"}
    assert "local/smollm2-135m" in completed(shell, "%%llm local/")
    assert completed(shell, "%%llm echo/echo --te") == {"--temperature", "--template"}
    assert completed(shell, "%%llm -f j") == {"json"}
    assert completed(shell, "%embed df.text --in") == {"--into"}
    assert completed(shell, "%embed df.text --model local/m") == {"local/minilm-l6-v2"}
    assert "--temperature" not in completed(shell, "%%llm\nsome --te")
    assert completed(shell, "%llm key open") == {"openai", "openrouter"}
    line = "%llm config providers.azure.token_provider "
    assert completed(shell, line) == {"aws", "entra", "none", "vertex"}
    assert completed(shell, "%llm cache o") == {"on", "off"}
    said = ChatMessage("user", "x")
    session.conversations.add(
        "talk", Turn(key="k", cell="c", run="r", asked=said, answered=said, model="m")
    )
    assert completed(shell, "%%llm --thread ta") == completed(shell, "%llm threads ta") == {"talk"}
    shell.run_cell_magic("llm", "--save kept", "x")
    assert completed(shell, "%%llm -t ") == {"kept"}


def test_tab_knows_the_models_that_were_listed(shell: InteractiveShell) -> None:
    """Those of a server too, once %llm models has shown them."""
    answer = as_json({"data": [{"id": "big-one"}, {"id": "small-one"}]})
    with serving(answer) as server:
        config.providers = {"lab": {"type": "openai", "base_url": server.url}}
        assert completed(shell, "%%llm lab/") == set()
        assert shell.run_line_magic("llm", "models lab").model.tolist() == ["lab/big-one", "lab/small-one"]  # fmt: skip
        assert completed(shell, "%%llm lab/") == {"lab/big-one", "lab/small-one"}


def matchers(shell: InteractiveShell) -> list[Any]:
    """The functions of this package that complete; IPython 7 has them in another list."""
    completer = shell.Completer
    return [
        each
        for each in (*completer.custom_matchers, *completer.magic_arg_matchers)
        if "llm_magics" in each.__module__
    ]


def test_loading_twice_and_unloading(shell: InteractiveShell) -> None:
    """Reloaded, there is one of everything; unloaded, there is nothing left."""
    shell.run_line_magic("reload_ext", "llm_magics")
    assert len(matchers(shell)) == 1
    shell.run_line_magic("unload_ext", "llm_magics")
    assert "llm" not in shell.magics_manager.magics["line"]
    assert "llm" not in shell.magics_manager.magics["cell"]
    assert not matchers(shell)
    shell.run_line_magic("load_ext", "llm_magics")


def test_a_response_is_shown_as_markdown(shell: InteractiveShell) -> None:
    """The last expression of a cell, if it is an answer, is rendered, and harmless."""
    answer = llm_magics.ask("**a** <script>", model="echo/echo")
    data, _ = shell.display_formatter.format(answer)
    assert "<strong>a</strong> &lt;script&gt;" in data["text/html"]


def test_errors_can_be_shown_in_full(shell: InteractiveShell) -> None:
    """By the setting ``tracebacks``; a broken settings file does not hide its own error."""
    error = LLMError("what", hint="do")
    assert error._render_traceback_() == ["LLMError: what", "→ do"]
    llm_magics.config.tracebacks = "full"
    assert any("LLMError" in line for line in error._render_traceback_())
    llm_magics.config.reset()
    llm_magics.config.reload()
    Path("llm_magics.yaml").write_text("modle: x", encoding="utf-8")
    assert error._render_traceback_() == ["LLMError: what", "→ do"]


def test_help_groups_commands_and_lists_the_flags_of_a_magic(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every subcommand stands once below a heading; a magic's help has each flag with its meaning."""
    shell.run_line_magic("llm", "help")
    overview = capsys.readouterr().out
    for heading, names in registry.names_by_group().items():
        part = overview.partition(f"\n{heading}\n")[2].partition("\n\n")[0]
        assert [line.split()[1] for line in part.splitlines()] == names
    for magic, parser in (("llm", parsers.llm_cell_parser()), ("embed", parsers.embed_parser())):
        shell.run_line_magic("llm", f"help {magic}")
        text = " ".join(capsys.readouterr().out.split())
        for action in parser._actions:
            assert action.help in text


def test_help_lists_every_flag(shell: InteractiveShell) -> None:
    """The docstrings of the magics, which ``%%llm?`` shows, name each with its meaning."""
    from llm_magics.notebook.magics import LLMMagics

    for method, parser in (
        (LLMMagics.llm_cell, parsers.llm_cell_parser()),
        (LLMMagics.embed_line, parsers.embed_parser("%embed")),
        (LLMMagics.embed_cell, parsers.embed_parser("%%embed")),
    ):
        text = " ".join((method.__doc__ or "").split())
        for action in parser._actions:
            if action.option_strings:
                assert all(flag in text for flag in action.option_strings), action
                assert " ".join(str(action.help).replace("%%", "%").split()) in text


@pytest.mark.parametrize(
    "source", ["df[df.n > 1].text", "df.iloc[:1].text", 'df.loc[:, ["text"]].text']
)
def test_vectors_are_not_put_into_a_copy(shell: InteractiveShell, source: str) -> None:
    """They would be lost with it, after they were paid for."""
    shell.user_ns["df"] = pd.DataFrame({"text": ["a", "b"], "n": [1, 2]})
    with pytest.raises(UsageError, match="--into"):
        shell.run_line_magic("embed", f"{source} --into v")
    assert llm_magics.runs().empty


@pytest.mark.parametrize(
    "source", ["df[df.n > -x].text", "['well -known', 'b']", 'df["a --into b"]']
)
def test_an_expression_may_hold_what_looks_like_a_flag(
    shell: InteractiveShell, source: str
) -> None:
    """Minus signs and dashes inside it are not flags."""
    shell.user_ns["df"] = pd.DataFrame({"text": ["a"], "n": [1], "a --into b": ["c"]})
    shell.user_ns["x"] = 1
    shell.run_line_magic("embed", f"{source} -o kept")
    assert len(shell.user_ns["kept"])


def test_a_function_sees_its_own_variables(shell: InteractiveShell) -> None:
    """A magic inside a function takes the names in sight there."""
    shell.user_ns["topic"] = "global"
    shell.run_cell(
        "def f(topic):\n    %llm ask about {{ topic }}\n"
        "    return _llm.text if False else get_ipython().user_ns['_llm'].text\n"
        "said = f('local')"
    )
    assert shell.user_ns["said"] == "about local"


def test_a_terminal_waits_for_the_cell(shell: InteractiveShell) -> None:
    """After the line of a cell magic more is to come."""
    assert shell.check_complete("%%llm -o a")[0] == "incomplete"


def test_a_setting_that_its_provider_refuses_does_not_stay(shell: InteractiveShell) -> None:
    """Neither for a provider that is not there nor for a setting that it does not have."""
    for key in (
        "providers.nope.threads 2",
        "providers.echo.dimension 3",
        "providers.echo.ttft_s x",
    ):
        with pytest.raises(LLMError):
            shell.run_line_magic("llm", f"config {key}")
    shell.run_cell_magic("llm", "", "still here")
    assert shell.user_ns["_llm"].text == "still here"
    shell.run_line_magic("llm", "config temperature 0.5")
    shell.run_line_magic("llm", "config temperature none")
    shell.run_line_magic("llm", "config system Answer in: French")
    assert llm_magics.config.temperature is None
    assert llm_magics.config.system == "Answer in: French"


def test_a_comparison_in_which_nobody_answers_is_a_failure(shell: InteractiveShell) -> None:
    """Or a notebook would pass that asked nobody."""
    with pytest.raises(LLMError, match="All 2 models failed"):
        shell.run_cell_magic("llm", "echo/a echo/b", "x")


def test_what_is_on_its_way_at_an_interrupt_is_shown_too(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Screen and variable hold the same, however unlucky the moment."""
    from llm_magics.notebook import prompt_cell

    class Unlucky(prompt_cell.SyncRunner):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[StreamChunk]:
            yield next(super().__iter__())
            time.sleep(0.3)  # meanwhile the other words come in
            raise KeyboardInterrupt

    monkeypatch.setattr(prompt_cell, "SyncRunner", Unlucky)
    with pytest.raises(Interrupted):
        shell.run_cell_magic("llm", "-o ans", "one two three")
    assert shell.user_ns["ans"].text == "one two three"
    assert capsys.readouterr().out == "one two three\n"


def completed_in(shell: InteractiveShell, cell: str) -> set[str]:
    """What Tab offers at the end of a cell of several lines."""
    with provisionalcompleter():
        shell.Completer.use_jedi = False
        return {each.text for each in shell.Completer.completions(cell, len(cell))}


@pytest.mark.parametrize(
    ("cell", "offered", "not_offered"),
    [
        ("%%llm\nabout {{ whal", {"whales"}, set()),
        ("%%llm -o a\nfirst\nabout {{", {"whales", "helper", "Person"}, {"exit", "_llm"}),
        ("%%llm\n{{ whales | ta", {"table"}, {"take"}),
        ("%%llm\n{{ whales }} and {{ hel", {"helper"}, set()),
        ("%llm ask what of {{ whal", {"whales"}, set()),
        ("%%llm -s 'be {{ whal", {"whales"}, set()),
        ("%%llm --tools hel", {"helper"}, {"whales"}),
        ("%%llm --tools helper,oth", {"other"}, set()),
        ("%%llm --schema Per", {"Person"}, set()),
        ("%%llm --image wh", {"whales"}, set()),
        ("%llm config foo", {"footer"}, set()),
        ("%llm config footer a", {"auto", "always"}, {"never"}),
        ("%llm config cache ", {"true", "false"}, set()),
        ("%llm config model echo/", {"echo/echo", "echo/lorem"}, set()),
        ("%%llm local/", {"local/smollm2-135m"}, {"local/minilm-l6-v2"}),
        ("%%llm --model local/", {"local/smollm2-135m"}, {"local/minilm-l6-v2"}),
        ("%llm use local/", {"local/smollm2-135m"}, {"local/minilm-l6-v2"}),
        ("%llm pull local/", {"local/smollm2-135m", "local/minilm-l6-v2"}, set()),
        ("%llm config model local/", {"local/smollm2-135m"}, {"local/minilm-l6-v2"}),
        ("%llm config embedding_model ", {"local/minilm-l6-v2"}, {"local/smollm2-135m"}),
        ("%embed texts --model ", {"local/minilm-l6-v2", "echo/echo"}, {"local/smollm2-135m"}),
        ("%%embed --model local/", {"local/minilm-l6-v2"}, {"local/smollm2-135m"}),
        ("%llm image x --m", {"--model"}, set()),
        ("%llm image x --model ec", {"echo/echo"}, set()),
    ],
)
def test_tab_within_a_cell(
    shell: InteractiveShell, cell: str, offered: set[str], not_offered: set[str]
) -> None:
    """The notebook's names within {{ }}, filters behind a bar, values of flags and settings."""
    if IPython.version_info < (8,) and "\n" in cell:
        pytest.skip("IPython 7 completes only the first line of a cell")
    shell.run_cell("whales = [1]\ndef helper(): ...\ndef other(): ...\nclass Person: ...")
    found = completed_in(shell, cell)
    assert offered <= found
    assert not found & not_offered


def test_tab_offers_models_by_their_capabilities(shell: InteractiveShell) -> None:
    """Of those that were listed before; one without known capabilities is always offered."""
    models = [ModelInfo("chatter", ("chat",)), ModelInfo("embedder", ("embeddings",))]
    provider = session.provider("openai")
    session.listings._known["openai"] = (provider, 0.0, [*models, ModelInfo("unknown")])
    try:
        chat = completed(shell, "%%llm openai/")
        embeddings = completed(shell, "%embed texts --model openai/")
    finally:
        session.listings.forget("openai")
    assert chat == {"openai/chatter", "openai/unknown"}
    assert embeddings == {"openai/embedder", "openai/unknown"}


@pytest.mark.parametrize(
    ("line", "word", "offered"),
    [
        ("%llm use local/sm", "sm", ["smollm2-135m"]),
        ("%llm use lo", "lo", ["local/smollm2-135m"]),
        ("%embed texts --model local/", "", ["minilm-l6-v2"]),
        ("%%llm -s 'be {{ wha", "wha", ["whales"]),
        ("x = local/sm", "sm", []),
    ],
)
def test_tab_in_ipython_7_completes_the_last_part(
    shell: InteractiveShell, line: str, word: str, offered: list[str]
) -> None:
    """It splits words at slashes, so only what follows the last one is replaced."""
    shell.user_ns["whales"] = 1
    assert prompts.complete_word(line, word) == offered


@pytest.mark.parametrize(
    "cell", ["x = '{{ whal", "%%llm\n{{ whales }} whal", "%%time\n{{ whal", "%%llm\n{{ whales.app"]
)
def test_elsewhere_python_completes(cell: str) -> None:
    """What is no prompt, no expression in one, or an attribute, is left to IPython."""
    lines = cell.splitlines()
    assert prompts._prompt_candidates(cell, len(lines) - 1, lines[-1]) is None
