"""Progress in a kernel that somebody watches: the messages that a client reads."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from tests.support.chatter import Chatter
from tests.support.embedder import Embedder
from tests.support.kernels import Kernel
from tests.support.serving import serving

pytestmark = pytest.mark.kernel

ROWS = 12
SETUP = """
import pandas as pd, llm_magics as lm
lm.config.providers = {{"slow": {{"type": "openai", "base_url": "{url}", "api_key": "a-key-of-the-test"}}}}
lm.config.vectors = "off"
frame = pd.DataFrame({{"text": [f"text {{n}}" for n in range({rows})]}})
"""
EMBED = 'frame.llm.embed("text", model="slow/m", batch_size=1, concurrency=1);'
PROMPT = 'frame.llm.prompt("say {{ text }}", model="slow/m", concurrency=1);'


@pytest.mark.parametrize(("server", "cell"), [(Embedder(), EMBED), (Chatter(), PROMPT)], ids=["embed", "prompt"])  # fmt: skip
def test_a_bar_moves_and_goes(
    server: Embedder | Chatter, cell: str, watched_kernel: Kernel
) -> None:
    """One output, updated in order and a few times a second, empty in the end."""
    server.delay_s = 0.25
    with serving(server) as running:
        setup = watched_kernel.run(SETUP.format(url=running.url, rows=ROWS))
        assert setup.status == "ok", setup.error
        result = watched_kernel.run(cell)
    assert result.status == "ok", result.error
    bars = [
        message
        for message in result.messages
        if message["msg_type"] in ("display_data", "update_display_data")
    ]
    kinds = [message["msg_type"] for message in bars]
    assert kinds == ["display_data", *["update_display_data"] * (len(bars) - 1)]
    (display_id,) = {message["content"]["transient"]["display_id"] for message in bars}
    assert display_id
    *shown, last = bars
    assert last["content"]["data"] == {}
    assert len(shown) >= 3
    htmls = [message["content"]["data"]["text/html"] for message in shown]
    assert all("<progress" in each for each in htmls)
    values = [float(value) for each in htmls for value in re.findall(r'value="([\d.]+)"', each)]
    assert values == sorted(values)
    assert values[-1] == 1
    assert f"{ROWS}/{ROWS}" in shown[-1]["content"]["data"]["text/plain"].replace(",", "")
    # The last comes when the work has ended; the others have the bar's interval between them.
    moving = [
        each for each in shown if 'value="1.000"' not in each["content"]["data"]["text/html"]
    ]
    times = [message["header"]["date"].timestamp() for message in moving]
    assert all(after - before > 0.1 for before, after in pairwise(times))
    assert result.outputs[0]["data"] == {}
