"""
The picture of the README: the cells of the first notebook, run in JupyterLab.

Run ``python -m tests.support.picture`` after a change to these cells or to the display of answers.
"""

from __future__ import annotations

import shutil
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageChops

from tests.support.lab import Lab, lab

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
TARGET = NOTEBOOKS / "pictures" / "first-steps.gif"

CELLS = [
    """%load_ext llm_magics
import pandas as pd
pd.set_option("display.max_colwidth", None)
reviews = pd.read_csv("data/reviews.csv")
review = reviews.text[51]
print(review)""",
    """%%llm --temperature 0 --max-tokens 60
Explain in one sentence what this customer likes: {{ review }}""",
    "%embed reviews.text --into vector",
    'reviews.llm.nearest("customer service never answers", k=3)[["text", "rating"]]',
    'reviews.llm.plot("vector", clusters=6).figure()',
]

WIDTH, HEIGHT, MARGIN, SIDEBAR = 930, 570, 10, 40  # pixels
SCROLL_STEPS = 4
COLOURS = 128
# Seconds
FRAME, LONGEST, PAUSE, LAST = 0.15, 0.6, 2.0, 5.0
SETTLE = 0.3

Frame = tuple[Image.Image, float]

# JupyterLab removes cells that are out of sight from the page.
PREPARE = """
    (() => {
        const notebook = window.jupyterapp.shell.currentWidget.content;
        notebook.notebookConfig = {...notebook.notebookConfig, windowingMode: "none"};
        window.jupyterapp.commands.execute("application:toggle-left-area");
    })()
"""

SELECT = "number => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = number }"


def main() -> None:
    """Record the run and write the picture."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "first-steps"
        shutil.copytree(NOTEBOOKS / "data", folder / "data")
        with lab(folder, CELLS) as page:
            frames = recorded(page)
    save(frames)


def recorded(page: Lab) -> list[Frame]:
    """Return what the page displays while its cells run, and how many seconds to show each."""
    page.page.set_viewport_size({"width": WIDTH + 2 * SIDEBAR, "height": 3 * HEIGHT})
    page.page.evaluate(PREPARE)
    page.page.wait_for_timeout(1500)
    frames = [(screenshot(page), PAUSE)]
    for number in range(len(CELLS)):
        page.page.evaluate(SELECT, number)
        page.command("notebook:run-cell")
        while not page.page.evaluate("window.ended"):
            if not page.outputs(number).locator("progress").count():  # a model is loading
                add(frames, screenshot(page))
        page.page.wait_for_timeout(SETTLE * 1000)
        add(frames, screenshot(page))
        frames[-1] = (frames[-1][0], PAUSE)
    box = page.page.locator(".jp-CodeCell").nth(len(CELLS) - 1).bounding_box()
    end = int(box["y"] - position(page)["y"]) - MARGIN
    frames += [
        (screenshot(page, round(end * step / SCROLL_STEPS)), FRAME)
        for step in range(1, SCROLL_STEPS + 1)
    ]
    frames[-1] = (frames[-1][0], LAST)
    return frames


def position(page: Lab) -> dict[str, float]:
    """Return where the notebook is on the page, in pixels."""
    box: dict[str, float] = page.page.locator(".jp-WindowedPanel-outer").first.bounding_box()
    return box


def screenshot(page: Lab, top: int = 0) -> Image.Image:
    """Return the part of the notebook from ``top`` on, without the rest of JupyterLab."""
    box = position(page)
    clip = {"x": box["x"], "y": box["y"] + top, "width": WIDTH, "height": HEIGHT}
    taken: bytes = page.page.screenshot(clip=clip)
    return Image.open(BytesIO(taken)).convert("RGB")


def add(frames: list[Frame], image: Image.Image) -> None:
    """Append a frame, or show the last one for longer if nothing changed."""
    last, seconds = frames[-1]
    if ImageChops.difference(last, image).getbbox() is None:
        frames[-1] = (last, min(seconds + FRAME, LONGEST))
    else:
        frames.append((image, FRAME))


def save(frames: list[Frame]) -> None:
    """Write the frames as a GIF with one palette."""
    both = Image.new("RGB", (WIDTH, HEIGHT * 2))
    both.paste(frames[-1][0], (0, 0))
    both.paste(frames[-SCROLL_STEPS - 2][0], (0, HEIGHT))
    palette = Image.new("P", (1, 1))
    palette.putpalette(palette_of(both))
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image, _ in frames]
    images[0].save(
        TARGET,
        save_all=True,
        append_images=images[1:],
        duration=[round(seconds * 1000) for _, seconds in frames],
        loop=0,
        optimize=True,
    )


def palette_of(image: Image.Image) -> list[int]:
    """The most common colours, as they are, and those that are closest to all others."""
    common = sorted(image.getcolors(image.width * image.height), reverse=True)[: COLOURS // 2]
    others = image.quantize(COLOURS - len(common), Image.Quantize.MAXCOVERAGE)
    return [part for _, colour in common for part in colour] + list(others.getpalette())


if __name__ == "__main__":
    main()
