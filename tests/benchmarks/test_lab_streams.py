"""Long answers in a real JupyterLab: what they cost the page, and how fast they stop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.benchmarks.conftest import Record
from tests.benchmarks.test_display_bytes import tokens
from tests.support.lab import Lab, lab, needs_browser
from tests.support.serving import Says, Server, chat_stream, serving

pytestmark = needs_browser

TOKENS = 2000
TOKENS_PER_S = 200


@contextmanager
def asking(folder: Path, says: Says, *cells: str) -> Iterator[tuple[Lab, Server]]:
    """A notebook whose model is a server that ``says`` something."""
    with serving(says) as server:
        settings = f"model: lab/m\nproviders: {{lab: {{type: openai, base_url: '{server.url}'}}}}"
        (folder / "llm_magics.yaml").write_text(settings)
        with lab(folder, ["%load_ext llm_magics", *cells]) as page:
            yield page, server


def spoken(count: int, tokens_per_s: float) -> Says:
    """An answer with tables and code at the speed of a fast model."""
    pieces = chat_stream(*tokens(count))
    return Says(pieces, times_s=[number / tokens_per_s for number in range(len(pieces))])


# All nodes that are put into the page from now on, also those that are replaced later.
COUNT_NODES = """
    (() => {
        window.added = window.within = 0;
        const size = (node) => 1 + [...node.childNodes].reduce((sum, each) => sum + size(each), 0);
        window.nodes = new MutationObserver((changes) => {
            for (const change of changes)
                for (const node of change.addedNodes) { window.added += 1; window.within += size(node); }
        });
        window.nodes.observe(document.body, {childList: true, subtree: true});
    })()
"""


def test_a_fast_answer_leaves_the_page_at_rest(tmp_path: Path, record: Record) -> None:
    """2,000 tokens at 200 a second: the main thread is idle most of the time, the page stays small."""
    with asking(tmp_path, spoken(TOKENS, TOKENS_PER_S), "%%llm\ngo") as (page, _):
        protocol = page.page.context.new_cdp_session(page.page)
        protocol.send("Performance.enable")

        def figures() -> dict[str, float]:
            told = protocol.send("Performance.getMetrics")["metrics"]
            return {each["name"]: each["value"] for each in told}

        # The first answer, which is also slower than others, counts nodes.
        page.page.evaluate(COUNT_NODES)
        page.run_all()
        added = page.page.evaluate("(window.nodes.disconnect(), window.added)")
        within = page.page.evaluate("window.within")
        assert "A section" in page.outputs(1).inner_text()
        before = figures()
        page.command("notebook:run-all-cells")
        page.page.wait_for_timeout(1000 * TOKENS / TOKENS_PER_S)  # to wait for the end is work too
        after = figures()
        page.wait()
        busy = (after["TaskDuration"] - before["TaskDuration"]) / (after["Timestamp"] - before["Timestamp"])  # fmt: skip
    record("2,000 tokens at 200/s in JupyterLab: main thread busy", f"{busy:.1%}", "under 15 %")
    record("  DOM nodes added, counted at the top of each change", f"{added:,.0f}", "under 2,500")
    record("  the same with all that is in them", f"{within:,.0f}", "")
    assert added < 2500


@pytest.mark.parametrize("stalled", [False, True])
def test_the_stop_button_ends_the_cell_at_once(
    tmp_path: Path, stalled: bool, record: Record
) -> None:
    """Within 0.3 s; what came stays on screen and in the variable, and the server saw it end."""
    says = Says(chat_stream(*tokens(100))[:60], hang=True) if stalled else spoken(4000, 100)
    with asking(tmp_path, says, "%%llm -o ans --thread\ngo") as (page, server):
        page.command("notebook:run-all-cells")
        page.outputs(1).locator("p").first.wait_for(timeout=60_000)
        page.page.wait_for_timeout(1000)
        shown = page.outputs(1).inner_text()
        took_ms = page.page.evaluate(INTERRUPT)
        page.outputs(1).get_by_text("The partial answer is in ans.").first.wait_for(timeout=5_000)
        now = page.outputs(1).inner_text()
        assert shown.split()[:20] == now.split()[:20]
        assert server.hung_up.wait(2)
        page.page.wait_for_timeout(500)
        assert page.outputs(1).inner_text() == now  # nothing arrives later
        page.page.evaluate(TELL)
        reason, length, in_thread = json.loads((tmp_path / "told.json").read_text())
        assert (reason, in_thread) == ("interrupted", length)
        assert length > 100
    record(
        f"stop button to idle kernel{', stalled' if stalled else ''}",
        f"{took_ms:.0f} ms",
        "300 ms",
    )


# What the kernel has kept, written to a file.
TELL = """
    window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.requestExecute({code: `
import json
from llm_magics.runtime.session import session
told = [ans.finish_reason, len(ans.text), len(session.conversations.before("main", "", "")[-1].content)]
open("told.json", "w").write(json.dumps(told))
    `}).done.then(() => 1)
"""

# From the press to the kernel's being idle again, in milliseconds.
INTERRUPT = """
    new Promise((ended) => {
        const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
        const pressed = performance.now();
        const look = () => {
            if (kernel.status === "idle") ended(performance.now() - pressed);
            else setTimeout(look, 5);
        };
        kernel.interrupt();
        setTimeout(look, 5);
    })
"""


def test_ten_answers_leave_nothing_behind(tmp_path: Path) -> None:
    """One after the other: no thread and no socket more than after the first."""
    count = (
        "import gc, threading, psutil\ngc.collect()\n"
        "print(threading.active_count(), len(psutil.Process().net_connections()))"
    )
    answers = ["%%llm\ngo"] * 10
    with asking(tmp_path, spoken(100, 400), answers[0], count, *answers, count) as (page, server):
        page.run_all()
        before, after = page.outputs(2).inner_text(), page.outputs(13).inner_text()
        assert len(server.asked) == 11
    assert before == after
