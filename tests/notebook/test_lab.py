"""The extension in a real JupyterLab, in headless Chromium."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest

from llm_magics.host import TRANSIENT_KEY
from tests.support.lab import lab, needs_browser
from tests.support.nested import nbval
from tests.support.payloads import KNOWN, fuzzed

pytestmark = [pytest.mark.browser, needs_browser]

STORY = "%%llm -o ans --temperature 0 --max-tokens 150\nExplain why the sky is blue."


def lasting(outputs: list[Any]) -> list[Any]:
    """The outputs without those that only interactive notebooks have."""
    return [each for each in outputs if TRANSIENT_KEY not in each.get("metadata", {})]


def assert_passes_nbval(path: Path, cells: int) -> None:
    """Run unattended, every cell leaves the outputs that were saved, but for marked ones."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.outputs = lasting(cell.outputs)
    nbformat.write(notebook, path)
    said = nbval(path, "--nbval")
    assert f"{cells} passed" in said, said[-3000:]


def test_an_answer_streams_and_the_saved_notebook_passes_nbval(tmp_path: Path) -> None:
    """It grows while one watches; saved and run unattended, its outputs are the same."""
    cells = ["%load_ext llm_magics", STORY, "%%llm echo/echo\n**bold** <b>not</b>"]
    with lab(tmp_path, cells) as page:
        page.command("notebook:run-all-cells")
        answer = page.outputs(1).locator("p").first
        answer.wait_for(timeout=60_000)
        lengths = set()
        while not page.page.evaluate("window.ended"):
            lengths.add(len(page.outputs(1).inner_text()))
            page.page.wait_for_timeout(50)
        assert len(lengths) >= 4
        assert page.outputs(2).locator("strong").inner_text() == "bold"
        assert page.outputs(2).locator("b").count() == 0
        notebook = page.saved()
    assert [len(lasting(cell.outputs)) for cell in notebook.cells] == [0, 1, 1]
    marked = [len(cell.outputs) - len(lasting(cell.outputs)) for cell in notebook.cells]
    assert marked in ([0, 1, 1], [0, 2, 1])  # a footer, and the hint once it is found
    assert_passes_nbval(page.path, 3)


def test_fetching_shows_a_bar_and_leaves_no_trace(tmp_path: Path) -> None:
    """On first use: bytes, speed and ETA move in the cell; the answer takes the bar's place."""
    cells = [
        "%load_ext llm_magics",
        "%%llm --max-tokens 5 --temperature 0\nhi",
        "import llm_magics as lm\nlm.embed(['a']).shape",
    ]
    with lab(tmp_path, cells, LLM_MAGICS_CACHE_DIR=str(tmp_path / "cache")) as page:
        page.command("notebook:run-all-cells")
        bar = page.outputs(1).locator("progress")
        bar.wait_for(timeout=60_000)
        told = set()
        while bar.count():
            told.add(page.outputs(1).inner_text())
            page.page.wait_for_timeout(50)
        assert any("downloading smollm2-135m" in text and "MB/s" in text for text in told), told
        page.wait()
        assert page.outputs(2).locator("progress").count() == 0
        notebook = page.saved()
    assert_passes_nbval(page.path, 3)
    assert "<progress" not in str(notebook.cells)
    assert [out.output_type for out in notebook.cells[2].outputs][-1] == "execute_result"


def test_nothing_a_model_writes_runs_or_fetches(tmp_path: Path) -> None:
    """Script, handlers, images and links to script, in a trusted cell: all stay text."""
    hostile = (
        "%%llm echo/echo\n"
        "<script>window.hacked = 1</script> <img src=x onerror='window.hacked = 2'>\n\n"
        "![x](https://evil.example/a.png) [x](javascript:window.hacked=3) [ok](https://ok.example)\n\n"
        "$\\href{javascript:window.hacked=4}{x}$ <svg onload='window.hacked = 5'>"
    )
    with lab(tmp_path, ["%load_ext llm_magics", hostile]) as page:
        page.run_all()
        page.page.wait_for_timeout(1500)
        area = page.outputs(1)
        for link in area.locator("a").all():
            assert (link.get_attribute("href") or "").startswith("https://")
        assert area.locator("script, img, svg[onload], iframe").count() == 0
        assert page.page.evaluate("window.hacked") is None
        assert "<script>" in area.inner_text()
        assert not [url for url in page.requests if "evil" in url]


def test_stopping_keeps_what_came(tmp_path: Path) -> None:
    """The stop button: the partial answer stays on screen above a two-line message."""
    cells = [
        "%load_ext llm_magics",
        STORY.replace("150", "3000").replace("0 --", "1 --seed 2 --"),
        "ans",
    ]
    with lab(tmp_path, cells) as page:
        page.command("notebook:run-all-cells")
        page.outputs(1).locator("p").first.wait_for(timeout=60_000)
        page.page.wait_for_timeout(500)
        page.page.evaluate("window.jupyterapp.commands.execute('notebook:interrupt-kernel') && 1")
        page.outputs(1).get_by_text("The partial answer is in ans.").first.wait_for(timeout=30_000)
        assert len(page.outputs(1).locator("p").first.inner_text()) > 10


def test_formulas_are_typeset_and_prices_are_not(tmp_path: Path) -> None:
    """In either pair of delimiters; and the saved notebook is the one that runs by itself."""
    cell = "%%llm echo/echo\nIt is $x_1^2$, \\(y_2\\), from $5 to $6.\n\n$$\n\\frac{a}{b}\n$$"
    with lab(tmp_path, ["%load_ext llm_magics", cell]) as page:
        page.run_all()
        page.outputs(1).locator("mjx-container").nth(2).wait_for(timeout=20_000)
        assert page.outputs(1).locator("mjx-container").count() == 3
        assert "from $5 to $6." in page.outputs(1).inner_text()
        page.saved()
    assert_passes_nbval(page.path, 2)


# The letters of the formulas in a cell's output: MathJax names each by its code point.
LETTERS = """(cell) => [...document.querySelectorAll(".jp-CodeCell")][cell]
    .querySelector(".jp-OutputArea").querySelectorAll("mjx-container mjx-c").values()
    .map((each) => [...each.classList].find((name) => name.startsWith("mjx-c"))).toArray()"""


def test_no_text_of_a_model_changes_a_formula_of_another_cell(tmp_path: Path) -> None:
    """Neither in an answer nor in a frame, a comparison or a picker: alpha stays alpha."""
    alpha = "from IPython.display import HTML\nHTML(r'<p>$\\alpha$ \\(\\alpha\\) $x$</p>')"
    attacks = [
        "\\\\(\\def\\alpha{\\beta}\\\\)", "\\(\\gdef\\alpha{\\beta}\\)", "$\\let\\alpha=\\beta$",
        "\\\\[\\newcommand{\\alpha}{\\beta}\\\\]", "$$\\renewcommand{\\alpha}{\\beta}$$",
        "\\begin{matrix}\\def\\alpha{\\beta}\\end{matrix}", "$\\DeclareMathOperator{\\alpha}{\\beta}$",
        "$a \\\\$ \\(\\def\\alpha{\\beta}\\)", "$\\text{$\\def\\alpha{\\beta}$}$", "$\\require{physics}$",
    ]  # fmt: skip
    (tmp_path / "texts.json").write_text(json.dumps(attacks))
    cells = [
        "%load_ext llm_magics\nimport json, pandas as pd, llm_magics as lm",
        "texts = json.load(open('texts.json')); part = '\\n\\n'.join(texts)",
        "%%llm echo/echo\n{{ part }}",
        "%%llm echo/echo echo/lorem\n{{ part }}",
        "pd.DataFrame({part: texts, 'price': 'costs $5 and $6', 'formula': '$y_1$'}).style",
        "pd.DataFrame({'text': texts, 'price': 'costs $5 and $6', 'formula': '$y_1$'})",
        "pd.DataFrame({'text': texts}).llm.prompt('{{ text }}', model='echo/echo')",
        "lm.compare(texts, models=['echo/echo'])[['prompt', 'text']]",
        "lm.runs()",
        alpha,
    ]
    with lab(tmp_path, cells) as page:
        page.page.evaluate(SHOW_ALL)
        page.run_all()
        page.outputs(len(cells) - 1).locator("mjx-container").nth(2).wait_for(timeout=20_000)
        page.page.wait_for_timeout(1000)
        letters = page.page.evaluate(LETTERS, len(cells) - 1)
        prices = page.outputs(5).inner_text()
        typeset = [page.outputs(n).locator("mjx-container").count() for n in range(len(cells))]
        for number in range(len(cells) - 1):
            assert not page.outputs(number).locator("pre:has-text('Error')").count()
    assert letters == ["mjx-c1D6FC", "mjx-c1D6FC", "mjx-c1D465"]
    assert "costs $5 and $6" in prices
    assert typeset[5] == len(attacks) + 1  # the harmless formulas alone, and $a \\\\$


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    """Seventy that are known and a thousand made from their parts: none runs or fetches."""
    texts = [*KNOWN, *fuzzed(1000)]
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    cells = ["%load_ext llm_magics\nimport json; texts = json.load(open('texts.json'))"]
    cells += [
        f"part = '\\n\\n'.join(f'mark{{n}} {{texts[n]}}' for n in range({start}, min({start} + 60, len(texts))))"
        for start in range(0, len(texts), 60)
    ]
    pairs = [cell for part in cells[1:] for cell in (part, "%%llm echo/echo\n{{ part }}")]
    with lab(tmp_path, [cells[0], *pairs]) as page:
        page.page.evaluate(SHOW_ALL)
        page.run_all()
        page.page.wait_for_timeout(3000)
        assert page.page.evaluate("window.hacked") is None
        assert not [url for url in page.requests if "evil" in url]
        told = page.page.evaluate(LOOK)
        notebook = page.saved()
    assert told["shown"] >= len(cells) - 1
    assert told["bad"] == []
    assert all(link.startswith(("http://", "https://", "mailto:", "#")) for link in told["links"])
    plain = "".join(str(out.get("data", {})) for cell in notebook.cells for out in cell.get("outputs", []))  # fmt: skip
    assert all(f"mark{number} " in plain for number in range(len(texts)))


# JupyterLab takes cells out of the page that are not in sight: here all are to be in it.
SHOW_ALL = """
    (() => {
        const notebook = window.jupyterapp.shell.currentWidget.content;
        notebook.notebookConfig = {...notebook.notebookConfig, windowingMode: "none"};
    })()
"""

# All elements in the outputs that could do something, and where the links lead.
LOOK = """() => {
    const areas = [...document.querySelectorAll(".jp-OutputArea-output")];
    const active = "script, img, iframe, object, embed, video, audio, link, style, base, meta, form, input, svg image";
    const bad = areas.flatMap((area) => [...area.querySelectorAll(active)]
        .filter((each) => !each.closest("mjx-container"))
        .map((each) => each.outerHTML));
    const handlers = areas.flatMap((area) => [...area.querySelectorAll("*")]
        .filter((each) => [...each.attributes].some((attribute) => attribute.name.startsWith("on")))
        .map((each) => each.outerHTML));
    const links = areas.flatMap((area) => [...area.querySelectorAll("a[href]")].map((a) => a.getAttribute("href")));
    return {bad: [...bad, ...handlers], links, shown: areas.length};
}"""
