"""The panel of ``%llm pick`` with hundreds of models in a real JupyterLab: scrolling and search."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.conftest import Record
from tests.support.lab import Lab, lab, needs_browser

pytestmark = needs_browser

MODELS = 400
ADD_MODELS = """
from llm_magics.notebook.picker import panel
from llm_magics.providers.base import ModelInfo

(picker,) = panel._panels.values()
picker._listings.models["openai"] = [
    ModelInfo(f"family-{n % 7}/model-{n}", ("chat", "tools"), 128_000, input_usd=1.5, output_usd=6.0)
    for n in range(MODELS)
]
picker.render()
"""

# The milliseconds between the frames that the page draws, until ``window.ended`` is set.
COUNT_FRAMES = """() => {
    window.frames_ms = [];
    window.scrolled = false;
    let last = performance.now();
    const next = (now) => {
        window.frames_ms.push(now - last);
        last = now;
        if (!window.scrolled) requestAnimationFrame(next);
    };
    requestAnimationFrame(next);
}"""

SEARCH = """() => ["m", "mo", "mod", "model-39", ""].map((text) => {
    const input = document.querySelector(".llm-search input");
    const start = performance.now();
    input.value = text;
    input.dispatchEvent(new Event("input"));
    document.body.offsetHeight;  // lays the page out
    return performance.now() - start;
})"""


def test_hundreds_of_models_scroll_smoothly(tmp_path: Path, record: Record) -> None:
    """By the wheel, from end to end: nearly every frame is drawn in time; a search is fast."""
    cells = ["%load_ext llm_magics", "%llm pick", ADD_MODELS.replace("MODELS", str(MODELS))]
    with lab(tmp_path, cells) as page:
        page.run_all()
        page.page.get_by_role("row", name=f"model-{MODELS - 1}").wait_for(state="attached")
        frames = scroll(page)
        searches: list[float] = page.page.evaluate(SEARCH)
    late = sum(frame > 50 for frame in frames) / len(frames)
    record("median frame while 400 models scroll", f"{median(frames):.0f} ms", "below 25 ms")
    record("frames later than 50 ms", f"{late:.1%}", "below 5 %")
    record("slowest search in 400 models", f"{max(searches):.0f} ms", "below 200 ms")
    assert median(frames) < 25
    assert late < 0.05
    assert max(searches) < 200


def scroll(page: Lab) -> list[float]:
    """Scroll the table from its start to its end, and return the milliseconds of each frame."""
    scroller: Any = page.page.locator(".llm-scroller")
    box = scroller.bounding_box()
    page.page.mouse.move(box["x"] + 200, box["y"] + 150)
    page.page.evaluate(COUNT_FRAMES)
    for _ in range(100):
        page.page.mouse.wheel(0, 100)
        page.page.wait_for_timeout(16)
    frames: list[float] = page.page.evaluate("(window.scrolled = true, window.frames_ms)")
    assert scroller.evaluate("(each) => each.scrollTop") > 5000
    return frames[1:]
