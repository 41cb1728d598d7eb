"""``%llm pick``: a view on the settings, which moves with them and moves them."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics._async.bridge import bridge
from llm_magics.notebook.picker import fields, rows
from llm_magics.notebook.picker import panel as panel_module
from llm_magics.notebook.picker.background import Health, ProviderListings
from llm_magics.notebook.picker.panel import Picker
from llm_magics.notebook.picker.rows import Row
from llm_magics.providers.base import ModelInfo
from llm_magics.runtime.session import Session, session
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


def names(panel: Picker, use: str | None = None) -> list[str]:
    """The models in the table; of one section, if it is named."""
    return [row["name"] for row in panel.table.rows if use is None or use in row["uses"]]


def row_of(panel: Picker, name: str) -> dict[str, Any]:
    """The row of a model."""
    found: dict[str, Any] = next(row for row in panel.table.rows if row["name"] == name)
    return found


def health_of(panel: Picker, name: str) -> dict[str, Any]:
    """What is displayed about a provider."""
    return next(each for each in panel.table.providers if each["name"] == name)


def use(panel: Picker, name: str, use: str = "chat") -> None:
    """Click on the row of a model."""
    panel.receive({"kind": "use", "use": use, "model": name})


def said(panel: Picker) -> str:
    """The text of the panel's message."""
    return str(panel.table.message.get("text", ""))


def test_models_are_listed_with_their_facts(panel: Picker) -> None:
    """Those of all providers, in the sections of their uses; the chosen ones are marked."""
    assert {"echo/echo", "local/smollm2-135m", f"ollama/{CHAT}"} <= set(names(panel, "chat"))
    embedders = names(panel, "embedding")
    assert {"local/minilm-l6-v2", f"ollama/{EMBED}", "echo/echo"} <= set(embedders)
    assert "local/smollm2-135m" not in embedders
    assert [each["name"] for each in panel.table.chosen.values()] == ["echo/echo", "echo/echo"]
    cells = row_of(panel, "local/smollm2-135m")["cells"]
    assert dict(zip(panel.table.columns, cells, strict=True)) == {
        "model": "local/smollm2-135m",
        "context": "8,192",
        "price": "free",
        "capabilities": "chat, completion",
        "size": "98 MB",
        "state": "not downloaded",
    }


def test_the_health_of_providers_is_in_words(panel: Picker) -> None:
    """With the reason and what to do; a provider without key or address is not set up."""
    assert health_of(panel, "ollama")["words"] == "ready"
    openai = health_of(panel, "openai")
    assert (openai["status"], openai["words"]) == ("missing", "not set up")
    assert "Run %llm key openai" in openai["detail"]


def test_services_that_are_not_set_up_share_one_button(panel: Picker) -> None:
    """It names them; none of them is asked."""
    more = health_of(panel, "more")
    assert more["words"] == "available with a key"
    assert {"azure", "xai"} <= set(more["detail"].split(", "))
    assert "xai" not in session.providers._created
    assert not {"azure", "xai"} & {each["name"] for each in panel.table.providers}


def test_a_provider_that_is_set_up_and_does_not_respond_is_not_ready(
    shell: InteractiveShell,
) -> None:
    """Its detail says what to do."""
    lm.config.set("providers.ollama.base_url", "http://127.0.0.1:9")
    panel = Picker(session, PATIENCE_S)
    ollama = health_of(panel, "ollama")
    panel.close()
    assert (ollama["status"], ollama["words"]) == ("unavailable", "not ready")
    assert "127.0.0.1:9" in ollama["detail"]


def test_providers_that_pull_are_marked(panel: Picker) -> None:
    """The panel offers to pull a model that they do not list."""
    assert health_of(panel, "ollama")["pulls"] is True
    assert health_of(panel, "openai")["pulls"] is False


def test_rows_offer_what_can_be_done() -> None:
    """Pull, delete, or the use for embeddings where the service does not list capabilities."""
    info = ModelInfo("m", ("chat",), pulled=False)
    all_capabilities = ("embeddings", "pull", "delete")
    assert Row("x/m", info, "x").actions(all_capabilities) == ["pull"]
    assert Row("x/m", info, "x").actions(()) == []
    assert Row("x/m", ModelInfo("m", pulled=True), "x").actions(all_capabilities) == ["delete"]
    assert Row("x/m", ModelInfo("m"), "x").actions(all_capabilities) == ["embed"]
    assert Row("alias", ModelInfo("alias")).actions(all_capabilities) == []


def test_what_is_picked_is_asked(shell: InteractiveShell, panel: Picker) -> None:
    """The setting changes, as by the magic that is displayed."""
    use(panel, f"ollama/{CHAT}")
    assert lm.config.model == f"ollama/{CHAT}"
    assert lm.config.source("model") == "set in this session"
    assert f"%llm use ollama/{CHAT}" in panel.lines.lines
    shell.run_cell_magic("llm", "-o ans", "hi")
    assert shell.user_ns["ans"].model == f"ollama/{CHAT}"


def test_an_embedding_model_is_picked(shell: InteractiveShell, panel: Picker) -> None:
    """The chat model stays, and the line has the same effect."""
    use(panel, f"ollama/{EMBED}", "embedding")
    assert lm.config.embedding_model == f"ollama/{EMBED}"
    assert lm.config.model == "echo/echo"
    assert panel.table.chosen["embedding"]["name"] == f"ollama/{EMBED}"
    line = panel.lines.lines[1]
    lm.config.embedding_model = "echo/echo"
    shell.run_line_magic("llm", line.removeprefix("%llm "))
    assert lm.config.embedding_model == f"ollama/{EMBED}"


def test_all_move_together(shell: InteractiveShell, panel: Picker) -> None:
    """``%llm use``, Python, a setting and another panel."""
    other = Picker(session, PATIENCE_S)
    shell.run_line_magic("llm", "use echo/lorem")
    assert panel.table.chosen["chat"] == {"name": "echo/lorem", "label": "echo/lorem"}
    lm.config.model = "local/smollm2-135m"
    assert panel.table.chosen["chat"]["name"] == "local/smollm2-135m"
    use(other, "echo/echo")
    assert panel.table.chosen["chat"]["name"] == "echo/echo"
    shell.run_line_magic("llm", "config temperature 0.3")
    assert panel.fields["temperature"].value == "0.3"
    panel.fields["max_tokens"].value = "7"
    assert lm.config.max_tokens == 7
    assert other.fields["max_tokens"].value == "7"
    assert "%llm config max_tokens 7" in other.lines.lines
    lm.config.reset()
    assert panel.fields["temperature"].value == ""
    other.close()
    lm.config.model = "echo/lorem"
    assert other.table.chosen["chat"]["name"] != "echo/lorem"


@pytest.mark.parametrize("how", ["chat", "embedding", "other"])
def test_a_model_is_refused_for_what_it_cannot_do(panel: Picker, how: str) -> None:
    """The settings stay; the message goes with the next action."""
    panel._listings.models["echo"] = [ModelInfo("pictures", ("images",)), ModelInfo("echo")]
    panel.render()
    assert names(panel, "other") == ["echo/pictures"]
    use(panel, "echo/pictures", how)
    assert lm.config.model == lm.config.embedding_model == "echo/echo"
    assert panel.table.message["error"] is True
    assert "echo/pictures" in said(panel)
    use(panel, "echo/echo")
    assert panel.table.message == {}


@pytest.mark.parametrize(
    "content",
    [{}, {"kind": "use"}, {"kind": "use", "use": "chat", "model": "ollama/none"}, {"kind": "pull"},
     {"kind": "use", "use": "system", "model": "echo/lorem"}, {"kind": ["x"], "model": {}}],
)  # fmt: skip
def test_an_unexpected_message_changes_nothing(panel: Picker, content: dict[str, Any]) -> None:
    """As from a table that is older than the rows."""
    before = {key: value for key, value, *_ in lm.config.items()}
    panel.receive(content)
    assert {key: value for key, value, *_ in lm.config.items()} == before
    assert panel.table.task == {}


@pytest.mark.parametrize(
    ("key", "text"), [("temperature", "hot"), ("temperature", "-1"), ("max_tokens", "0"), ("top_p", "7")]
)  # fmt: skip
def test_an_impossible_parameter_is_refused(panel: Picker, key: str, text: str) -> None:
    """The setting and the field stay as they were."""
    panel.fields[key].value = text
    assert lm.config.get(key) is None
    assert panel.fields[key].value == ""
    assert f"for {key}" in said(panel)


def test_an_emptied_field_leaves_it_to_the_model(panel: Picker) -> None:
    """Nothing is set any more."""
    field = panel.fields["temperature"]
    field.value = "0.5"
    assert lm.config.temperature == 0.5
    field.value = ""
    assert lm.config.temperature is None


@pytest.mark.parametrize("act", ["setting", "search", "provider", "another use"])
def test_a_message_goes_with_its_cause(panel: Picker, act: str) -> None:
    """With the next action in the panel, and with a setting that is changed elsewhere."""
    panel.fields["top_p"].value = "7"
    assert "top_p" in said(panel)
    if act == "setting":
        lm.config.top_p = 0.5
    elif act == "search":
        panel.table.query = "x"
    elif act == "provider":
        panel.table.provider = "echo"
    else:
        use(panel, "echo/lorem")
    assert panel.table.message == {}


def test_a_model_is_pulled_with_progress(panel: Picker, ollama: FakeOllama) -> None:
    """One that its service does not list; afterwards it is in the table."""
    seen: set[float | None] = set()
    panel.table.observe(lambda change: seen.add(change["new"].get("fraction")), "task")
    panel.receive({"kind": "pull", "model": "ollama/new:1b"})
    assert eventually(lambda: said(panel) == "ollama/new:1b is ready.", 10)
    assert "new:1b" in ollama.models
    assert any(0 < fraction < 1 for fraction in seen if fraction is not None)
    assert eventually(lambda: "ollama/new:1b" in names(panel), 10)
    assert panel.table.task == {}
    panel.after_cell()
    assert panel.table.message == {}


def test_a_pull_that_fails_says_why(panel: Picker) -> None:
    """In the panel, also after the next cell; nothing else happens."""
    panel.receive({"kind": "pull", "model": "ollama/unknown:none"})
    assert eventually(lambda: "file does not exist" in said(panel), 10)
    panel.after_cell()
    assert panel.table.message["error"] is True


def test_a_pull_can_be_cancelled(panel: Picker, ollama: FakeOllama) -> None:
    """The connection closes, and a message appears; until then nothing else is pulled."""

    def hanging(asked: Asked) -> Says:
        if asked.path == "/api/pull":
            return Says(
                [b'{"status":"pulling"}\n'], content_type="application/x-ndjson", hang=True
            )
        return ollama(asked)

    with serving(hanging) as server:
        lm.config.set("providers.ollama.base_url", server.url)
        panel.receive({"kind": "pull", "model": "ollama/large:70b"})
        assert eventually(lambda: "pulling" in panel.table.task.get("text", ""), 10)
        panel.receive({"kind": "pull", "model": "ollama/other:1b"})
        assert said(panel).startswith("Pulling ollama/large:70b is not finished.")
        panel.receive({"kind": "cancel"})
        assert eventually(lambda: said(panel) == "Pulling ollama/large:70b: cancelled.", 10)
        assert server.hung_up.wait(30)


def test_a_model_is_deleted(panel: Picker, ollama: FakeOllama) -> None:
    """And is not in the table any more."""
    assert row_of(panel, f"ollama/{CHAT}")["actions"] == ["delete"]
    panel.receive({"kind": "delete", "model": f"ollama/{CHAT}"})
    assert eventually(lambda: said(panel) == f"Deleted ollama/{CHAT}.", 10)
    assert CHAT not in ollama.models
    assert eventually(lambda: f"ollama/{CHAT}" not in names(panel), 10)


def test_providers_are_asked_again(panel: Picker, ollama: FakeOllama) -> None:
    """With a button: the models that a service has now."""
    ollama.models["late:1b"] = ["completion"]
    session.listings.forget("ollama")
    panel.table.provider = "ollama"
    panel.receive({"kind": "refresh"})
    assert eventually(lambda: "ollama/late:1b" in names(panel), 10)


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
    assert [row["name"] for row in panel.table.rows if row["provider"] == "aliases"] == [
        "dry",
        "fast",
    ]
    assert panel.table.providers[0]["name"] == "aliases"
    use(panel, "dry")
    assert lm.config.model == "dry"
    panel.close()


def test_a_terminal_gets_the_table(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the model that is asked marked, and first."""
    shell.run_line_magic("llm", "pick")
    told = capsys.readouterr().out.splitlines()
    assert told[0].split() == ["used", "for", *rows.COLUMNS]
    assert told[1].startswith("chat, embedding  echo/echo")
    assert any("local/minilm-l6-v2" in line for line in told)


def test_unattended_it_is_a_plain_table(kernel: Kernel) -> None:
    """No widget: what is saved shows itself anywhere."""
    done = kernel.run("%llm pick")
    (output,) = done.outputs
    assert set(output["data"]) == {"text/plain", "text/html"}
    assert ">local/smollm2-135m</td>" in output["data"]["text/html"]


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


def shape(text: str) -> list[tuple[str, list[str]]]:
    """The tags and attributes of HTML."""
    reader = Reader()
    reader.feed(text)
    return [(tag, sorted(attributes)) for tag, attributes in reader.tags]


@given(hostile_names, hostile)
def test_what_services_send_is_escaped(name: str, detail: str) -> None:
    """Names of models and words of health are text, whatever they contain."""
    row = Row(f"x/{name}", ModelInfo(name, (detail,)), "x")
    chosen = {"chat": row.name}
    html = rows.format_html([row], chosen)
    assert shape(html) == shape(rows.format_html([Row("x/x", ModelInfo("x"))], {}))
    (sent,) = rows.table_rows([row], {})
    shown = Health("ok", detail).as_displayed()
    for text in (html, *sent["cells"], *shown.values()):
        assert not {"\x1b", "\u202e"} & set(text)
    assert all("\n" not in cell for cell in sent["cells"])


def test_half_a_character_does_not_break_the_panel(panel: Picker) -> None:
    """In a name or a parameter: messages to the browser cannot contain lone surrogates."""
    lm.config.aliases = {"a\ud800": "echo/echo"}
    lm.config.model = "echo/\udc80"
    lm.config.set("system", "\ud800")
    sent = [panel.table.rows, panel.table.chosen, panel.lines.lines, panel.saved_table()]
    sent += [panel.fields["system"].value, panel.table.providers]
    assert json.dumps(sent, ensure_ascii=False).encode()


@given(st.lists(st.tuples(hostile_names, hostile), max_size=5))
def test_a_table_has_a_line_a_model(models: list[tuple[str, str]]) -> None:
    """However many there are, and whatever they are called."""
    made = [Row(f"x/{name}", ModelInfo(name, (what,))) for name, what in models]
    assert rows.format_html(made, {}).count("<tr>") == len(made) + 1
    assert len(rows.table_rows(made, {})) == len(made)


def test_long_lists_are_cut_in_what_is_saved() -> None:
    """The chosen ones are in it all the same."""
    made = [Row(f"x/{number}", ModelInfo(str(number))) for number in range(500)]
    lines = rows.format_text(made, {"chat": "x/499", "embedding": "x/498"}).splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [
        ["embedding", "x/498"],
        ["chat", "x/499"],
    ]
    assert lines[-1] == "and 460 more"


def test_totals_are_of_the_session() -> None:
    """Also calls whose cost is unknown."""
    text = fields.totals_html(Totals(1, 2000, 0.5, 1), 3.0)
    assert text == (
        "this session: 1 call · 2,000 tokens · $0.50 · 1 of unknown cost · $3.00 of the budget left"
    )


def test_a_name_with_a_line_break_is_shown_escaped_and_not_picked(
    shell: InteractiveShell, ollama: FakeOllama
) -> None:
    """It puts no line of code on the copied line, and stays on its line of the table."""
    evil = "evil\nimport os; os.system('x')  # \x1b]0;t\x07"
    ollama.models |= {evil: ["completion"], "it's # mine": ["completion"]}
    panel = Picker(session, PATIENCE_S)
    label = row_of(panel, f"ollama/{evil}")["cells"][0]
    assert label.startswith("ollama/evil\\u000aimport")
    use(panel, f"ollama/{evil}")
    assert lm.config.model == "echo/echo"
    assert "control characters" in said(panel)
    use(panel, "ollama/it's # mine")
    assert lm.config.model == "ollama/it's # mine"
    assert "%llm use 'ollama/it'\"'\"'s # mine'" in panel.lines.lines
    lm.config.model = f"ollama/{evil}"
    table = panel.saved_table()
    line = panel.lines.lines[0]
    label = panel.table.chosen["chat"]["label"]
    written = f"{line}{label}{table['text/plain']}{table['text/html']}"
    assert "evil\\u000aimport" in line
    assert "%llm use " not in line
    assert not re.search(r"\n *import|[\x07\x1b]", written)
    panel.close()


def test_a_cell_that_runs_again_closes_its_panel(
    shell: InteractiveShell, ollama: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its widgets, its callback after cells, and its requests, which can take long."""
    lm.config.render = "live"
    monkeypatch.setattr(panel_module, "_panels", {})
    after_cells = shell.events.callbacks["post_run_cell"]
    before = len(after_cells)
    shell.run_line_magic("llm", "pick")
    (first,) = panel_module._panels.values()
    asking: list[asyncio.Task[Any]] = []

    async def ask_for_long() -> None:
        asking.append(asyncio.create_task(asyncio.sleep(100)))
        first._listings._running.add(asking[0])

    bridge.run(ask_for_long())
    shell.run_line_magic("llm", "pick")
    (second,) = panel_module._panels.values()
    assert second is not first
    assert first.box.comm is None
    assert second.box.comm is not None
    assert len(after_cells) == before + 1
    assert asking[0].cancelled()
    panel_module._remove_panel(shell, next(iter(panel_module._panels)))
    assert len(after_cells) == before


def test_a_request_that_has_not_begun_is_cancelled_with_the_panel() -> None:
    """The event loop was busy with something else; afterwards no provider is asked."""
    asked: list[str] = []

    async def of(names: list[str]) -> list[Any]:
        asked.extend(names)
        return [[] for _ in names]

    known = SimpleNamespace(listed_names=lambda: ["echo"], unlisted_names=list)
    fake = SimpleNamespace(
        providers=known, listings=SimpleNamespace(of=of), provider=session.provider
    )
    listings = ProviderListings(cast("Session", fake), lambda: None)
    is_busy, may_go_on = threading.Event(), threading.Event()

    async def occupy() -> None:
        is_busy.set()
        may_go_on.wait(10)

    bridge.start(occupy())
    assert is_busy.wait(10)
    listings.request(["echo"])
    closing = threading.Thread(target=listings.close)
    closing.start()
    closing.join(0.05)  # it waits for the loop
    may_go_on.set()
    closing.join(10)
    assert asked == []
