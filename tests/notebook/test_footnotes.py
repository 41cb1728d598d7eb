"""Sources below an answer: what is shown, what is a link, and that nothing of them runs."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

import llm_magics as lm
from llm_magics import errors
from llm_magics.citations import Citation, Search
from llm_magics.notebook.display.footer import format_footer
from llm_magics.notebook.display.footnotes import footnotes_bundle
from llm_magics.runtime.response import Response
from llm_magics.runtime.search_fees import search_cost_usd
from llm_magics.runtime.session import session
from tests.support import fake_anthropic
from tests.support.fake_searchers import ANSWER, PAGES, SearchingClaude, SearchingGemini
from tests.support.lab import lab, needs_browser
from tests.support.screens import each_look, take
from tests.support.servers import servers
from tests.support.serving import Asked, Says, Server, serving

MODEL = f"anthropic/{fake_anthropic.CHAT}"
PRICE = {"input_usd": 1.0, "output_usd": 5.0}


@pytest.fixture
def claude() -> Any:
    """Anthropic with web search, as the model of the session."""
    with serving(SearchingClaude()) as server:
        use(server)
        yield server


def use(server: Server) -> None:
    """Ask the service at this address."""
    lm.config.providers = {"anthropic": {"base_url": server.url, "api_key": "a-key-of-the-test"}}
    lm.config.model = MODEL


class Elements(HTMLParser):
    """The elements of HTML with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def bundle(*citations: Citation, text: str = "", **more: Any) -> dict[str, str]:
    """The footnotes of an answer with these citations."""
    found = footnotes_bundle(Response(text, sources=citations, **more))
    assert found is not None
    return found


def test_sources_are_folded_and_linked() -> None:
    """One entry per source with its number, title, host and quotations; the plain text too."""
    url = "https://a.example/x?y=1&z=2"
    found = bundle(
        Citation(number=1, title="A & B", url=url, cited_text="one"),
        Citation(number=2, url="https://b.example/"),
        Citation(number=1, title="A & B", url=url, cited_text="two"),
    )
    assert found["text/plain"] == f"[1] A & B {url}\n[2] b.example https://b.example/"
    elements = Elements(found["text/html"]).found
    assert elements[0][0] == "details"
    assert "open" not in elements[0][1]
    links = [attributes for tag, attributes in elements if tag == "a"]
    assert links[0] == {"href": url, "target": "_blank", "rel": "noopener noreferrer"}
    assert "2 sources" in found["text/html"]
    assert "A &amp; B</a> (a.example)" in found["text/html"]
    assert found["text/html"].count("“") == 2


HOSTILE = [
    "javascript:alert(1)", "data:text/html,<script>x</script>", "https://google.com@evil.example/",
    '"><script>alert(1)</script>', "https://a.example/\u202egnp.exe", "file:///etc/passwd",
]  # fmt: skip


@pytest.mark.parametrize("url", HOSTILE)
def test_a_hostile_source_is_text(url: str) -> None:
    """Its address and its title are shown as text, and nothing is fetched by itself."""
    title = '<img src=x onerror=alert(1)>\u202e$$\\def\\x{}$$<a href="https://x.example">'
    found = bundle(Citation(number=1, title=title, url=url, cited_text=f"<script>{title}"))
    elements = Elements(found["text/html"]).found
    assert {tag for tag, _ in elements} <= {"details", "summary", "div"}
    assert {name for _, attributes in elements for name in attributes} <= {"class", "style"}
    assert "\u202e" not in str(found)
    assert "no link" in found["text/html"]


def test_a_key_in_a_source_is_masked() -> None:
    """A page may contain it, or the service may repeat it."""
    key = "sk-ant-api03-" + "a" * 90
    found = bundle(Citation(number=1, title=key, url=f"https://a.example/{key}", cited_text=key))
    assert key not in str(found)


def test_long_texts_are_shortened() -> None:
    """And of many quotations of a source, the first are shown."""
    quotes = [
        Citation(number=1, title="t" * 999, url="https://a.example/", cited_text=f"{n}" * 999)
        for n in range(9)
    ]
    html = bundle(*quotes)["text/html"]
    assert len(html) < 4000
    assert html.count("“") == 5


def test_many_sources_are_counted() -> None:
    """A page of thousands of links would be slow to open; the first are shown."""
    found = bundle(*(Citation(number=n, url=f"https://a.example/{n}") for n in range(1, 500)))
    assert "499 sources" in found["text/html"]
    assert found["text/html"].count("<a ") == 100
    assert "The first 100 are shown." in found["text/html"]
    assert found["text/plain"].count("\n") == 99
    pages = [Citation(number=1, document=0, unit="page", source_start=n) for n in range(1, 500)]
    assert bundle(*pages)["text/plain"].endswith(", 19, 20 …")


def test_documents_and_passages() -> None:
    """Pages of a document, and without a quotation the passage of the answer."""
    found = bundle(
        Citation(number=1, title="report.pdf", document=0, unit="page", source_start=2, source_end=4),
        Citation(number=2, document=1, start=0, end=15),
        text="A long passage and the rest.",
    )  # fmt: skip
    assert found["text/plain"] == "[1] report.pdf, page 2–4\n[2] document 2"
    assert "“A long passage “" not in found["text/html"]
    assert "“A long passage ”" in found["text/html"].replace("passage”", "passage ”")
    assert "<a" not in found["text/html"]


def test_search_suggestions_are_always_shown() -> None:
    """The terms of Google require it; they are links, and not its HTML."""
    search = Search(query="rain <b>", url="https://www.google.com/search?q=rain")
    found = bundle(searches=(search,))
    assert found["text/plain"] == "Google Search: rain <b>"
    assert "<details" not in found["text/html"]
    assert "rain &lt;b&gt;</a>" in found["text/html"]
    assert footnotes_bundle(Response("x", searches=(Search(query="x"),))) is None


def use_display(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """Display answers as in a notebook that runs unattended (``static``), or in a terminal."""
    for module in ("footnotes", "answer", "output"):
        monkeypatch.setattr(f"llm_magics.notebook.display.{module}.display_mode", lambda _: mode)


def test_a_cell_that_searches(
    shell: InteractiveShell, claude: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer's plain text is the raw answer; its sources are a separate output."""
    use_display(monkeypatch, "static")
    with capture_output() as caught:
        shell.run_cell_magic("llm", "--search -o ans", "How is the weather?")
    answer, notes = (output.data for output in caught.outputs[:2])
    assert answer["text/plain"] == ANSWER
    assert notes["text/plain"].startswith(f"[1] {PAGES[0][0]} {PAGES[0][1]}\n[2]")
    response = shell.user_ns["ans"]
    assert response.citations.number.tolist() == [1, 2, 2]
    first = response.citations.iloc[0]
    assert response.text[first.start : first.end] == "It rains in Oslo."
    assert response.usage.searches == 2
    assert "2 searches" in format_footer(response)
    assert [tool["name"] for tool in claude.asked[0].json()["tools"]] == ["web_search"]


def test_compared_models_have_their_sources(
    shell: InteractiveShell, claude: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of each model, with its name."""
    use_display(monkeypatch, "static")
    monkeypatch.setattr("llm_magics.notebook.compare_cell.display_mode", lambda _: "static")
    other = MODEL.replace("sonnet", "haiku")
    with capture_output() as caught:
        shell.run_cell_magic("llm", f"{MODEL} {other} --search", "How is the weather?")
    plain = [output.data["text/plain"] for output in caught.outputs]
    notes = [text for text in plain if text.startswith("Sources of ")]
    assert [text.partition(":")[0] for text in notes] == [
        f"Sources of {MODEL}",
        f"Sources of {other}",
    ]


def test_a_terminal_prints_the_sources(
    shell: InteractiveShell, claude: Server, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """One line each, after the answer."""
    use_display(monkeypatch, "text")
    shell.run_cell_magic("llm", "--search", "How is the weather?")
    printed = capsys.readouterr().out
    assert f"{ANSWER}\n[1] {PAGES[0][0]} {PAGES[0][1]}\n" in printed


def test_the_fee_is_a_part_of_the_cost(claude: Server) -> None:
    """Of the answer, and of the estimate before it, which the budget checks."""
    tokens_usd = (100 * 1.0 + 20 * 5.0) / 1e6
    lm.config.prices = {MODEL: PRICE}
    assert lm.ask("hi", search=True).cost_usd is None  # the fee at this address is unknown
    assert lm.ask("hi").cost_usd == pytest.approx(tokens_usd)
    lm.config.prices = {MODEL: {**PRICE, "search_usd": 0.5}}
    assert lm.ask("hi", search=True).cost_usd == pytest.approx(tokens_usd + 2 * 0.5)
    lm.config.budget = 2.4  # the estimate counts five searches
    with pytest.raises(errors.BudgetError):
        lm.ask("hi", search=True)
    assert lm.ask("hi").text
    assert len(claude.asked) == 4


@pytest.mark.parametrize(
    ("price_list", "model", "searches", "expected"),
    [
        ("anthropic", "claude-sonnet-5-5", 3, 0.03),
        ("openai", "gpt-5.5", 2, 0.02),
        ("x-ai", "grok-4.5", 2, 0.01),
        ("google", "gemini-3.8-flash", 3, 0.042),
        ("google", "gemini-2.5-pro", 3, 0.035),  # per answer
        ("openrouter", "any", 1, None),
        ("openrouter", "any", 0, 0.0),
        ("anthropic", "claude-sonnet-5-5", None, 0.0),
    ],
)
def test_the_published_fees(
    price_list: str, model: str, searches: int | None, expected: float | None
) -> None:
    """Per search or per answer; a fee that is not published is unknown, not 0."""
    assert search_cost_usd(price_list, model, searches) == (expected and pytest.approx(expected))


def test_a_dry_run_names_the_searches(
    shell: InteractiveShell, claude: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a model without search is an error there too."""
    lm.config.prices = {MODEL: PRICE}
    shell.run_cell_magic("llm", "--search --dry-run", "hi")
    assert "[search] the model may search the web: about 5 searches" in capsys.readouterr().out
    with pytest.raises(errors.UnsupportedError, match="search"):
        shell.run_cell_magic("llm", "echo/echo --search --dry-run", "hi")
    assert not claude.asked


def test_search_is_a_part_of_cache_keys_and_recordings(claude: Server, tmp_path: Path) -> None:
    """An answer with search does not answer the prompt without it; replayed, it has its sources."""
    lm.config.cache = True
    first, cached = lm.ask("hi", search=True), lm.ask("hi", search=True)
    assert cached.cached
    assert cached.sources == first.sources
    assert cached.cost_usd == 0
    assert not lm.ask("hi").sources
    assert len(claude.asked) == 2
    lm.config.cache = False
    lm.config.record = tmp_path / "r.jsonl"
    lm.ask("hi", search=True)
    lm.config.record = None
    lm.config.replay, lm.config.replay_strict = tmp_path / "r.jsonl", True
    replayed = lm.ask("hi", search=True)
    assert replayed.citations.equals(first.citations)
    with pytest.raises(errors.ReplayMissError, match="search was true, now not set"):
        lm.ask("hi")


def test_a_conversation_keeps_the_results(claude: Server) -> None:
    """The next prompt in the thread sends the encrypted results back."""
    lm.ask("hi", search=True, thread="t")
    lm.ask("and?", search=True, thread="t")
    kinds = [block["type"] for block in claude.asked[1].json()["messages"][1]["content"]]
    assert kinds.count("web_search_tool_result") == 2


def test_streams_and_rows(claude: Server) -> None:
    """A stream has the citations at its end; each row of a column is asked with search."""
    stream = lm.stream("hi", search=True)
    assert "".join(chunk.text for chunk in stream) == ANSWER
    assert len(stream.response.citations) == 3
    answers = lm.prompt(["Oslo", "Rome"], "Weather in {{ text }}?", search=True, yes=True)
    assert answers.tolist() == [ANSWER, ANSWER]
    assert all(asked.json()["tools"] for asked in claude.asked)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("max_uses_exceeded", "reached its limit of web searches"),
        ("unavailable", r"failed \(unavailable\); the answer may not be from the web"),
    ],
)
def test_a_failed_search_is_a_warning(code: str, words: str) -> None:
    """Once for all rows of a column."""
    with serving(SearchingClaude(error=code)) as server:
        use(server)
        with pytest.warns(UserWarning, match=words):
            lm.ask("hi", search=True)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            lm.prompt(["a", "b", "c"], "{{ text }}", search=True, yes=True)
    assert sum("web search" in str(each.message).lower() for each in caught) == 1


def test_an_answer_without_a_search_is_a_warning(claude: Server) -> None:
    """The model decides, and a server may ignore the tool; without search there is none."""

    def ignore(asked: Asked) -> Says:
        body = {**asked.json(), "tools": []}
        return SearchingClaude()(replace(asked, body=json.dumps(body).encode()))

    with serving(ignore) as server:
        use(server)
        with pytest.warns(UserWarning, match=f"{MODEL} answered without a web search"):
            lm.ask("hi", search=True)
        lm.ask("hi")


def test_search_is_true_or_false(shell: InteractiveShell) -> None:
    """Other values and misspelled names are errors."""
    with pytest.raises(errors.ConfigurationError, match="'yes'"):
        lm.ask("hi", search="yes")
    with pytest.raises(errors.UsageError, match="serach"):
        lm.ask("hi", serach=True)
    with pytest.raises(errors.UnsupportedError, match="search") as caught:
        lm.ask("hi", search=True)
    assert "anthropic, gemini, openai, openrouter, perplexity, xai" in str(caught.value.hint)


def test_which_providers_search() -> None:
    """It is in the table of providers, for services too."""
    lm.config.providers = {"openai": {"base_url": "https://api.openai.com/v1"}}
    can = {
        name: "search" in session.provider(name).capabilities
        for name in (
            "anthropic",
            "gemini",
            "openai",
            "openrouter",
            "xai",
            "groq",
            "ollama",
            "echo",
        )
    }
    assert [name for name, searches in can.items() if searches] == ["anthropic", "gemini", "openai", "openrouter", "xai"]  # fmt: skip


@pytest.mark.browser
@needs_browser
def test_sources_in_jupyterlab(tmp_path: Path) -> None:
    """They open on a click, in both themes and widths and without trust; nothing is fetched."""
    hostile = {"type": "web_search_result_location", "cited_text": "<b>x</b>", "encrypted_index": "e", "title": "<img src=https://pixel.example/x.png>", "url": "javascript:alert(1)"}  # fmt: skip
    hostile_service = SearchingClaude(hostile=hostile)
    with servers(a=hostile_service, g=SearchingGemini()) as running:
        key = "a-key-of-the-test"
        providers = {
            "anthropic": {"base_url": running["a"].url, "api_key": key},
            "gemini": {"base_url": f"{running['g'].url}/v1beta", "api_key": key},
        }
        cells = [
            f"%load_ext llm_magics\nimport llm_magics as lm\nlm.config.providers = {providers}",
            f"%%llm {MODEL} --search -o ans\nHow is the weather?",
            "%%llm gemini/gemini-3.8-flash --search\nHow is the weather?",
            "ans.citations",
        ]
        with lab(tmp_path, cells) as page:
            page.run_all()
            page.outputs(3).locator("table").wait_for()
            summary = page.outputs(1).locator("summary")
            assert summary.inner_text() == "3 sources"
            assert not page.outputs(1).get_by_text("rain all day").is_visible()
            for look in each_look(page):
                take(page, f"footnotes-folded-{look}")
            summary.click()
            assert page.outputs(1).get_by_text("rain all day").is_visible()
            page.outputs(2).locator("summary").click()
            for look in each_look(page):
                take(page, f"footnotes-{look}")
            links = page.outputs(1).locator("details a")
            assert links.count() == 2
            assert links.first.get_attribute("href") == PAGES[0][1]
            assert "noopener" in (links.first.get_attribute("rel") or "")
            assert page.outputs(2).get_by_text("Google Search:").is_visible()
            notebook = page.saved()
            page.open_untrusted(nbformat.from_dict(notebook))
            untrusted = page.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) details").first
            untrusted.locator("summary").click()
            assert untrusted.get_by_text("rain all day").is_visible()
            assert untrusted.locator("a").count() == 2
            outside = [url for url in page.requests if not url.startswith(("http://127.0.0.1", "data:", "blob:"))]  # fmt: skip
    assert not outside
