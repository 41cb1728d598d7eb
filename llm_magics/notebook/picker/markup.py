"""The pieces of HTML in the panel. Whatever a service said goes into them escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence

from llm_magics._util.terminal import escaped, visible
from llm_magics._util.text import dollars
from llm_magics.notebook import inert
from llm_magics.notebook.picker.offers import Health
from llm_magics.runtime.storage.run_log import Totals

STYLE = """<style>
.llm-pick select { font-family: var(--jp-code-font-family, monospace); font-size: 12px; }
.llm-pick .llm-line { user-select: all; padding: 2px 6px; white-space: pre;
  background: var(--jp-layout-color2, #8882); border-radius: 3px; }
.llm-pick small { opacity: .75; }
</style>"""

# In sight where the panel is not; and what JupyterLab says of a panel without a kernel is not.
TABLE_STYLE = """<style>
.jp-OutputArea:has(.llm-pick) .llm-pick-table { display: none; }
.jp-OutputArea:has(.llm-pick-table) .jp-OutputArea-output.jupyter-widgets:not(:has(*)) { display: none; }
</style>"""

# A colour for those who see it, and always the words beside it.
_COLOURS = {
    "ok": "var(--jp-success-color1, #388e3c)",
    "unavailable": "var(--jp-error-color1, #d32f2f)",
}
_WORDS = {"ok": "ready", "unavailable": "not ready", "asking": "asking"}

# The page's own clipboard: the kernel may run elsewhere. The line can be selected by hand too.
_COPY = (
    "navigator.clipboard.writeText(this.dataset.line)"
    ".then(() => {this.textContent = 'copied'; setTimeout(() => {this.textContent = 'copy'}, 1500)})"
)


def health(name: str, told: Health) -> str:
    """How a provider is, in words and colour."""
    colour = _COLOURS.get(told.status, "gray")
    words = _WORDS.get(told.status, told.status)
    detail = f": {told.detail}" if told.detail and told.status != "asking" else ""
    return (
        f'<span style="color: {colour}">●</span> '
        f"<b>{_safe(name)}</b> is {_safe(words)}{_safe(detail)}"
    )


def asked(model: str) -> str:
    """Which model is asked now."""
    return f"asking <b>{_name(model)}</b>"


def totals(told: Totals, left_usd: float | None) -> str:
    """What the session has taken."""
    parts = [f"{told.calls:,} call{'' if told.calls == 1 else 's'}", f"{told.tokens:,} tokens"]
    parts.append(dollars(told.cost_usd))
    if told.unpriced:
        parts.append(f"{told.unpriced:,} of unknown cost")
    if left_usd is not None:
        parts.append(f"{dollars(left_usd)} of the budget left")
    return f"<small>this session: {_safe(' · '.join(parts))}</small>"


def copied_line(lines: Sequence[str]) -> str:
    """The lines that do the same, and a button that copies them."""
    text = html.escape(inert.plain("\n".join(lines)), quote=True)
    return (
        f'<div style="display: flex; gap: 6px; align-items: start">'
        f'<code class="llm-line">{text}</code>'
        f'<button class="jupyter-button llm-copy" data-line="{text}" onclick="{html.escape(_COPY)}"'
        ' style="width: 5em" title="copy to the clipboard">copy</button></div>'
    )


def said(text: str, *, is_wrong: bool) -> str:
    """What happened last."""
    colour = _COLOURS["unavailable" if is_wrong else "ok"] if text else "inherit"
    return f'<span style="color: {colour}">{_safe(text)}</span>'


def _safe(text: str) -> str:
    # Last, for what this adds is no TeX: only text that had a backslash before needs marking.
    return escaped(inert.escaped(text))


def _name(text: str) -> str:
    return visible(inert.escaped(text))
