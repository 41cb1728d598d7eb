"""``%llm pick``: a view on the settings, which moves with them and moves them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics._async.bridge import bridge
from llm_magics.notebook.picker import widgets
from llm_magics.notebook.picker.background import Health
from llm_magics.notebook.picker.panel import Picker
from llm_magics.notebook.picker.widgets import Row
from llm_magics.providers.base import ModelInfo
from llm_magics.runtime.session import session
from llm_magics.runtime.storage.run_log import Totals
from tests.conftest import eventually
from tests.support.fake_ollama import CHAT, EMBED, FakeOllama
from tests.support.html_reader import Reader
from tests.support.kernels import Kernel
from tests.support.serving import Asked, Says, serving

PATIENCE_S = 5.0


@pytest.fixture
def ollama(shell: InteractiveShell) -> Iterator[FakeOllama]:
    """An Ollama server with a few models."""
    fake = FakeOllama()
    with serving(fake) as server:
        lm.config.set("providers.ollama.base_url", server.url)
        yield fake
        bridge.run(session.providers.close())


@pytest.fixture
def panel(ollama: FakeOllama) -> Iterator[Picker]:
    """A panel that all providers have answered."""
    made = Picker(session, PATIENCE_S)
    yield made
    made.close()


def names(panel: Picker) -> list[str]:
    """The models in the list."""
    return [value for _, value in panel.list.options]


def test_models_are_listed_with_what_is_known_of_them(panel: Picker) -> None:
    """Of all providers; the one that is asked is marked."""
    assert {"echo/echo", "local/smollm2-135m", f"ollama/{CHAT}"} <= set(names(panel))
    assert panel.list.value == "echo/echo"
    line = next(label for label, name in panel.list.options if name == "local/smollm2-135m")
    assert line.split("\N{NO-BREAK SPACE}")[0] == "local/smollm2-135m"
    for part in ("98", "MB", "8,192", "free", "chat,"):
        assert part in line.split("\N{NO-BREAK SPACE}")
    assert names(panel)[-1] in ("local/minilm-l6-v2", f"ollama/{EMBED}")  # those that cannot chat


def test_a_provider_is_looked_at_alone(panel: Picker) -> None:
    """Its models, and how it is, in words and colour."""
    panel.providers.value = "ollama"
    assert all(name.startswith("ollama/") for name in names(panel))
    assert "ollama</b> is ready" in panel.health.value
    assert "color: var(--jp-success-color1" in panel.health.value
    panel.providers.value = "openai"
    assert "openai</b> is not ready" in panel.health.value
    assert "OPENAI_API_KEY" in panel.health.value
    assert "color: var(--jp-error-color1" in panel.health.value


def test_the_filter_looks_at_the_whole_line(panel: Picker) -> None:
    """Words in any order, of names, capabilities and states."""
    panel.filter.value = "vision ollama"
    assert names(panel) == ["ollama/seeing:1b"]
    panel.filter.value = "LOCAL"
    assert "local/smollm2-135m" in names(panel)
    panel.filter.value = ""
    assert len(names(panel)) > 5


def test_what_is_picked_is_asked(shell: InteractiveShell, panel: Picker) -> None:
    """The setting changes, as by the magic that is shown."""
    panel.list.value = f"ollama/{CHAT}"
    assert lm.config.model == f"ollama/{CHAT}"
    assert lm.config.source("model") == "set in this session"
    assert f"%llm use ollama/{CHAT}" in panel.line.value
    shell.run_cell_magic("llm", "-o ans", "hi")
    assert shell.user_ns["ans"].model == f"ollama/{CHAT}"


def test_all_move_together(shell: InteractiveShell, panel: Picker) -> None:
    """``%llm use``, Python, a setting and another panel."""
    other = Picker(session, PATIENCE_S)
    shell.run_line_magic("llm", "use echo/lorem")
    assert panel.list.value == other.list.value == "echo/lorem"
    lm.config.model = "local/smollm2-135m"
    assert panel.list.value == other.list.value == "local/smollm2-135m"
    other.list.value = "echo/echo"
    assert panel.list.value == "echo/echo"
    shell.run_line_magic("llm", "config temperature 0.3")
    assert panel.fields["temperature"].children[1].value == "0.3"
    panel.fields["max_tokens"].children[1].value = "7"
    assert lm.config.max_tokens == 7
    assert other.fields["max_tokens"].children[1].value == "7"
    assert "%llm config max_tokens 7" in other.line.value
    lm.config.reset()
    assert panel.fields["temperature"].children[1].value == ""
    other.close()
    lm.config.model = "echo/lorem"
    assert other.list.value != "echo/lorem"


def test_what_cannot_chat_is_refused(panel: Picker) -> None:
    """The setting stays, the list goes back to it, and the reason is told."""
    panel.list.value = "local/minilm-l6-v2"
    assert lm.config.model == "echo/echo"
    assert panel.list.value == "echo/echo"
    assert "local/minilm-l6-v2" in panel.said.value
    assert "embedding_model" in panel.said.value
    panel.list.value = "echo/lorem"
    assert "chat" not in panel.said.value


@pytest.mark.parametrize(
    ("key", "text"), [("temperature", "hot"), ("temperature", "-1"), ("max_tokens", "0"), ("top_p", "7")]
)  # fmt: skip
def test_an_impossible_parameter_is_refused(panel: Picker, key: str, text: str) -> None:
    """The setting and the field stay as they were."""
    panel.fields[key].children[1].value = text
    assert lm.config.get(key) is None
    assert panel.fields[key].children[1].value == ""
    assert f"for {key}" in panel.said.value


def test_an_emptied_field_leaves_it_to_the_model(panel: Picker) -> None:
    """Nothing is set any more."""
    field = panel.fields["temperature"].children[1]
    field.value = "0.5"
    assert lm.config.temperature == 0.5
    field.value = ""
    assert lm.config.temperature is None


def test_a_model_is_pulled_with_progress(panel: Picker, ollama: FakeOllama) -> None:
    """One that nobody lists, by what is typed; afterwards it is in the list."""
    seen: set[float] = set()
    panel.bar.observe(lambda change: seen.add(change["new"]), "value")
    panel.providers.value = "ollama"
    panel.filter.value = "new:1b"
    assert panel.pull.description == "pull ollama/new:1b"
    panel.pull.click()
    assert eventually(lambda: "ollama/new:1b is ready." in panel.said.value, 10)
    assert "new:1b" in ollama.models
    assert any(0 < fraction < 1 for fraction in seen)
    assert eventually(lambda: "ollama/new:1b" in names(panel), 10)
    assert panel.stop.layout.display == "none"


def test_a_pull_that_fails_says_why(panel: Picker) -> None:
    """In the panel; nothing else happens."""
    panel.filter.value = "ollama/unknown:none"
    panel.pull.click()
    assert eventually(lambda: "file does not exist" in panel.said.value, 10)


def test_a_pull_can_be_stopped(panel: Picker, ollama: FakeOllama) -> None:
    """The connection closes, and the panel says so."""

    def hanging(asked: Asked) -> Says:
        if asked.path == "/api/pull":
            return Says(
                [b'{"status":"pulling"}\n'], content_type="application/x-ndjson", hang=True
            )
        return ollama(asked)

    with serving(hanging) as server:
        lm.config.set("providers.ollama.base_url", server.url)
        panel.filter.value = "ollama/large:70b"
        panel.pull.click()
        assert eventually(lambda: "pulling" in panel.progress.value, 10)
        assert panel.stop.layout.display is None
        assert panel.pull.disabled
        panel.stop.click()
        assert eventually(lambda: "Stopped." in panel.said.value, 10)
        assert server.hung_up.wait(5)


def test_deleting_takes_two_clicks(panel: Picker, ollama: FakeOllama) -> None:
    """And the second is forgotten when something else is touched."""
    panel.list.value = f"ollama/{CHAT}"
    panel.delete.click()
    assert panel.delete.description == f"really delete ollama/{CHAT}?"
    assert CHAT in ollama.models
    panel.filter.value = "ollama"
    assert panel.delete.description == "delete"
    panel.delete.click()
    panel.delete.click()
    assert eventually(lambda: "Deleted " in panel.said.value, 10)
    assert CHAT not in ollama.models
    assert eventually(lambda: f"ollama/{CHAT}" not in names(panel), 10)


def test_the_session_is_counted(shell: InteractiveShell, panel: Picker) -> None:
    """Calls, tokens and dollars, after each cell."""
    assert "0 calls" in panel.totals.value
    shell.run_cell_magic("llm", "", "one two three")
    panel.after_cell()
    assert "1 call ·" in panel.totals.value
    assert "$0.00" in panel.totals.value
    shell.run_line_magic("llm", "budget 2")
    assert "$2.00 of the budget left" in panel.totals.value


def test_short_names_are_picked_like_models(shell: InteractiveShell) -> None:
    """Aliases and routes."""
    lm.config.aliases = {"dry": {"model": "echo/lorem", "temperature": 0}}
    lm.config.routes = {"fast": ["echo/echo", "local/smollm2-135m"]}
    panel = Picker(session, PATIENCE_S)
    panel.providers.value = "aliases"
    assert names(panel) == ["dry", "fast"]
    panel.list.value = "dry"
    assert lm.config.model == "dry"
    panel.close()


def test_a_terminal_gets_the_table(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the model that is asked marked, and first."""
    shell.run_line_magic("llm", "pick")
    told = capsys.readouterr().out.splitlines()
    assert told[0].split() == list(widgets.COLUMNS)
    assert told[1].startswith("→  echo/echo")
    assert any("local/minilm-l6-v2" in line for line in told)


def test_unattended_it_is_a_plain_table(kernel: Kernel) -> None:
    """No widget: what is saved shows itself anywhere."""
    done = kernel.run("%llm pick")
    (output,) = done.outputs
    assert set(output["data"]) == {"text/plain", "text/html"}
    assert "<td>local/smollm2-135m</td>" in output["data"]["text/html"]


def test_a_watched_panel_is_saved_with_its_table(watched_kernel: Kernel) -> None:
    """The widget for who sits there, and the very table that is left unattended."""
    done = watched_kernel.run("%llm pick")
    widget, table = [output for output in done.outputs if output["kind"] == "display_data"]
    assert set(widget["data"]) == {"application/vnd.jupyter.widget-view+json"}
    assert set(table["data"]) == {"text/plain", "text/html"}
    assert "local/smollm2-135m" in table["data"]["text/plain"]


def test_a_cell_that_runs_again_has_one_panel(watched_kernel: Kernel) -> None:
    """The old one is taken away, and does not listen any more."""
    watched_kernel.run("%llm pick")
    watched_kernel.run("import llm_magics as lm")
    before = watched_kernel.value("len(lm.config._watchers)")
    watched_kernel.run("%llm pick")
    assert watched_kernel.value("len(lm.config._watchers)") == before


def test_the_repr_names_the_model(panel: Picker) -> None:
    """And no address."""
    assert repr(panel).startswith("Picker(model='echo/echo', ready=")


hostile = st.text(alphabet=st.sampled_from(list("<>&\"'`=/ \n\x1b\u202eabc!-")), max_size=40)
hostile_names = hostile.filter(bool)  # a model without a name is refused where models are listed


@given(hostile_names, hostile)
def test_what_services_say_is_escaped(name: str, detail: str) -> None:
    """Names of models and words of health are text, whatever is in them."""
    row = Row(f"x/{name}", ModelInfo(name, (detail,)))
    told = [
        widgets.format_html([row], row.name),
        widgets.status_html(name, is_wrong=True),
        widgets.active_model_html(name),
        widgets.health_html(name, Health("ok", detail)),
        widgets.copyable_lines_html([f"%llm use x/{name}"]),
        widgets.totals_html(Totals(1, 2, 0.0, 1), 3.0),
    ]
    plain = [
        widgets.format_html([Row("x/x", ModelInfo("x"))], "x/x"),
        widgets.status_html("x", is_wrong=True),
        widgets.active_model_html("x"),
        widgets.health_html("x", Health("ok", "x")),
        widgets.copyable_lines_html(["%llm use x/x"]),
        widgets.totals_html(Totals(1, 2, 0.0, 1), 3.0),
    ]
    for text, harmless in zip(told, plain, strict=True):
        reader, expected = Reader(), Reader()
        reader.feed(text)
        expected.feed(harmless)
        shape = [(tag, sorted(attributes)) for tag, attributes in reader.tags]
        assert shape == [(tag, sorted(attributes)) for tag, attributes in expected.tags]
        assert "\x1b" not in text


@given(st.lists(st.tuples(hostile_names, hostile), max_size=5))
def test_a_table_has_a_line_a_model(models: list[tuple[str, str]]) -> None:
    """However many there are, and whatever they are called."""
    made = [Row(f"x/{name}", ModelInfo(name, (what,))) for name, what in models]
    assert widgets.format_html(made, "").count("<tr>") == len(made) + 1
    assert len(widgets.list_labels(made)) == len(made)
    assert widgets.filter_rows(made, "") == made


def test_long_lists_are_cut_in_what_is_saved() -> None:
    """The chosen one is in it all the same."""
    made = [Row(f"x/{number}", ModelInfo(str(number))) for number in range(500)]
    lines = widgets.format_text(made, "x/499").splitlines()
    assert lines[1].startswith("→  x/499")
    assert lines[-1] == "and 460 more"


def test_a_name_with_a_line_break_is_shown_escaped_and_not_picked(
    shell: InteractiveShell, ollama: FakeOllama
) -> None:
    """It puts no line of code on the copied line, and stays on its line of list and table."""
    evil = "evil\nimport os; os.system('x')  # \x1b]0;t\x07"
    ollama.models |= {evil: ["completion"], "it's # mine": ["completion"]}
    panel = Picker(session, PATIENCE_S)
    label = next(label for label, name in panel.list.options if name == f"ollama/{evil}")
    assert label.startswith("ollama/evil\\u000aimport")
    panel.list.value = f"ollama/{evil}"
    assert lm.config.model == "echo/echo"
    assert "control characters" in panel.said.value
    panel.list.value = "ollama/it's # mine"
    assert lm.config.model == "ollama/it's # mine"
    assert "%llm use 'ollama/it'\"'\"'s # mine'" in unescape(panel.line.value)
    lm.config.model = f"ollama/{evil}"
    table = panel.table()
    written = f"{panel.line.value}{panel.active_model.value}{panel.delete.description}{table['text/plain']}{table['text/html']}"
    assert "evil\\u000aimport" in panel.line.value
    assert "%llm use " not in panel.line.value
    assert not re.search(r"\n *import|[\x07\x1b]", written)
    panel.close()
