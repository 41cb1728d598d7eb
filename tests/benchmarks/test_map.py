"""Maps of many points in a real JupyterLab: how soon they are drawn, and a selection is there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.conftest import Record
from tests.support.lab import Lab, lab, needs_browser
from tests.support.scatter import hover, lasso, wait_until_drawn

pytestmark = needs_browser

# A fifth of the points is far to the left of the others.
FRAME = """
import numpy as np, pandas as pd, llm_magics as lm
draw = np.random.default_rng(0)
count = {count}
vectors = draw.standard_normal((count, 8)).astype(np.float32)
vectors[: count // 5, 0] -= 20
df = pd.DataFrame({{"text": [f"text number {{n}}" for n in range(count)], "rating": draw.integers(1, 6, count)}})
df["vector"] = list(vectors)
m = df.llm.map("vector", color="rating")
def note(rows={{}}):
    chosen = m.selection
    open("told.json", "w").write(f"[{{len(chosen)}}, {{int(chosen.index.max())}}]")
m.on_select(note)
"""

# The size of a message that has the points.
_LARGE = 500_000


@dataclass
class Traffic:
    """What the page received from the kernel: the time and the content of large messages."""

    large: list[tuple[float, int]] = field(default_factory=list)
    has_texts: bool = False

    def take(self, payload: Any) -> None:
        data = payload if isinstance(payload, bytes) else payload.encode()
        self.has_texts = self.has_texts or b"text number 4321" in data
        if len(data) > _LARGE:
            self.large.append((time.perf_counter(), len(data)))


@contextmanager
def mapping(folder: Path, count: int) -> Iterator[tuple[Lab, Traffic]]:
    """A notebook with a map of ``count`` points that is not displayed yet."""
    traffic = Traffic()
    with lab(folder, [FRAME.format(count=count), "m"]) as page:
        page.page.on("websocket", lambda socket: socket.on("framereceived", traffic.take))
        page.page.evaluate(RECONNECT)
        page.command("notebook:run-cell-and-select-next")
        page.wait()
        yield page, traffic


# The page listens to sockets that are opened from now on.
RECONNECT = """
    window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.reconnect().then(() => 1)
"""


def draw(page: Lab, traffic: Traffic) -> float:
    """Display the map; return the seconds from the arrival of its data until it is visible."""
    page.command("notebook:run-cell")
    wait_until_drawn(page)
    return time.perf_counter() - traffic.large[-1][0]


@pytest.mark.parametrize("count", [100_000, 1_000_000])
def test_a_map_is_drawn_and_selected_from(tmp_path: Path, count: int, record: Record) -> None:
    """Of 100,000 points: in less than 3 s; a selection of 20,000 is a frame in less than 1 s."""
    with mapping(tmp_path, count) as (page, traffic):
        drawn_s = draw(page, traffic)
        page.wait()
        ended = lasso(page, 0.0, 0.5)
        told = tmp_path / "told.json"
        while not told.exists() or not told.read_text().endswith("]"):
            assert time.perf_counter() - ended < 60, "nothing was selected"
            time.sleep(0.005)
        selected_s = time.perf_counter() - ended
        selected, last = json.loads(told.read_text())
        assert 0.98 * count / 5 < selected <= last + 1 <= count / 5
        sent_mb = sum(size for _, size in traffic.large) / 1e6
        assert not traffic.has_texts
        hover(page, "text number")
    is_bounded = count == 100_000
    name = f"map of {count:,} points in JupyterLab, software rendering"
    record(f"{name}: drawn after its data", f"{drawn_s:.1f} s", "3 s" if is_bounded else "")
    record(
        f"  a lasso of {selected:,} to its frame",
        f"{selected_s:.2f} s",
        "1 s" if is_bounded else "",
    )
    record("  sent to the page", f"{sent_mb:.1f} MB", "")
    if is_bounded:
        assert drawn_s < 3
        assert selected_s < 1
