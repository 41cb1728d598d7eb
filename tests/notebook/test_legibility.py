"""Outputs in a real JupyterLab can be read: light and dark, wide and narrow, trusted or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.lab import Lab, lab, needs_browser
from tests.support.screens import each_look, take
from tests.support.servers import servers
from tests.support.serving import Says, chat_event

pytestmark = [pytest.mark.browser, needs_browser]

ANSWER = """Here is a **summary** of it
with a line break.

- [x] read the data
- [ ] fit the model

| product | sales | note |
|---|---|---|
| tea | 1,200 | good |
| coffee | 87.5 | to watch |

```python
def f(x: int) -> str:
    return f"{x + 1}"  # one more
```

The area is $\\pi r^2$ and

$$\\int_0^1 x\\,dx = \\tfrac12$$

> a quote that costs $5
"""

# The texts of outputs with less contrast to their background than JupyterLab's own texts: its
# comments have 4.15 in the dark theme.
FAINT = r"""() => {
    const channel = (value) => value <= 10.31475 ? value / 3294.6 : ((value / 255 + 0.055) / 1.055) ** 2.4
    const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b)
    const parse = (colour) => { const [r, g, b, a = 1] = colour.match(/[\d.]+/g).map(Number); return [r, g, b, a] }
    const over = (top, below) => [0, 1, 2].map((n) => top[n] * top[3] + below[n] * (1 - top[3]))
    const background = (element) => {
        if (!element) return [255, 255, 255]
        const own = parse(getComputedStyle(element).backgroundColor)
        return own[3] === 1 ? own : over(own, background(element.parentElement))
    }
    const notebook = document.querySelector(".jp-NotebookPanel:not(.lm-mod-hidden)")
    const faint = []
    for (const element of notebook.querySelectorAll(".jp-OutputArea-output *")) {
        const text = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data).join("").trim()
        if (!text || element.closest("mjx-assistive-mml, .jp-RenderedText")) continue
        const behind = background(element)
        const shown = over(parse(getComputedStyle(element).color), behind)
        const [high, low] = [luminance(shown), luminance(behind)].sort((a, b) => b - a)
        const contrast = (high + 0.05) / (low + 0.05)
        if (contrast < 4.1) faint.push(`${contrast.toFixed(2)} ${text.slice(0, 40)}`)
    }
    return faint
}"""

# Whether the notebook has to be scrolled sideways; a table or code may have its own scroll bar.
IS_TOO_WIDE = """() => {
    const panel = document.querySelector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-WindowedPanel-outer")
    return panel.scrollWidth > panel.clientWidth + 1
}"""


def look(page: Lab, name: str) -> None:
    """Take a picture in each look, and check that all texts can be read."""
    for which in each_look(page, height=2600):
        take(page, f"{name}-{which}")
        assert page.page.evaluate(FAINT) == [], which
        assert page.page.evaluate(IS_TOO_WIDE) is False, which


def test_answers_tables_and_thoughts_can_be_read(tmp_path: Path) -> None:
    """Each text has enough contrast, and nothing is wider than the notebook."""
    thinking = [{"index": 0, "delta": {"reasoning_content": "Let me think."}}]
    pieces = [
        chat_event(choices=thinking),
        chat_event(ANSWER),
        chat_event(finish_reason="stop"),
        b"data: [DONE]\n\n",
    ]
    with servers(one=Says(pieces)) as running:
        settings = (
            f"{{'one': {{'type': 'openai', 'base_url': '{running['one'].url}', 'api_key': 'k'}}}}"
        )
        cells = [
            f"%load_ext llm_magics\nimport llm_magics as lm, pandas as pd\nlm.config.providers = {settings}",
            "%%llm one/gpt-5\nTell me about it.",
            "%%llm one/gpt-5 echo/echo echo/lorem one/none/of/these\nCompare them.",
            "%%llm echo/echo echo/echo --seed 1\nsimilar answers of some words",
            "lm.runs()",
            "df = pd.DataFrame({'text': ['a', 'b']})\ndf.llm.embed('text', model='echo/echo')",
            "df.llm.prompt('Say {{ text }}', model='echo/echo')",
        ]
        with lab(tmp_path, cells) as page:
            page.run_all()
            notebook = page.saved()
            look(page, "answers-trusted")
            page.open_untrusted(notebook)
            look(page, "answers-untrusted")
