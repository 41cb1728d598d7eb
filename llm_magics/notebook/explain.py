"""The last error as a prompt: its traceback, and the source that it went through."""

from __future__ import annotations

import html
import linecache
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from llm_magics.errors import UsageError
from llm_magics.notebook import markdown
from llm_magics.notebook.frontend import display_mode
from llm_magics.secrets import redact

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_INSTRUCTION = (
    "Explain this error of a Python notebook in plain words: what happened, why, and how to mend "
    "it. Show the corrected lines."
)

# More of a cell, or of a traceback, than this does not help.
_MAX_LINES = 80
_MAX_TRACEBACK = 6000


def build_prompt() -> str:
    """
    What is sent to have the last error explained; no value of any variable is in it.

    Raises:
        UsageError: nothing has failed yet.
    """
    error = getattr(sys, "last_value", None)
    if error is None:
        msg = "There is no error to explain: nothing has failed in this session."
        raise UsageError(msg, hint="Run the cell that fails, then %llm explain.")
    frames = [each for each in traceback.extract_tb(error.__traceback__) if _is_user_frame(each)]
    text = "".join([*traceback.format_list(frames), *traceback.format_exception_only(error)])
    parts = [_INSTRUCTION, f"```\n{text[-_MAX_TRACEBACK:].strip()}\n```", *_sources(frames)]
    return redact("\n\n".join(parts))


def _is_user_frame(frame: traceback.FrameSummary) -> bool:
    """Whether a frame is of a cell or of a file beside the notebook, and not of a library."""
    if _is_cell(frame.filename):
        return True
    path = Path(frame.filename)
    is_installed = "site-packages" in path.parts
    return path.is_relative_to(Path.cwd()) and not is_installed


def _is_cell(filename: str) -> bool:
    return "ipykernel_" in filename or filename.startswith("<ipython-input")


def _sources(frames: Iterable[traceback.FrameSummary]) -> list[str]:
    """Each source once, with the lines that it failed at marked."""
    at: dict[str, set[int]] = {}
    for frame in frames:
        at.setdefault(frame.filename, set()).add(frame.lineno or 0)
    found = []
    for filename, marked in at.items():
        lines = linecache.getlines(filename)
        first = max(0, min(marked) - _MAX_LINES // 2) if len(lines) > _MAX_LINES else 0
        excerpt = [
            f"{'>' if number in marked else ' '} {line.rstrip()}"
            for number, line in enumerate(lines[first : first + _MAX_LINES], first + 1)
        ]
        name = "The cell" if _is_cell(filename) else f"The file {Path(filename).name}"
        if excerpt:
            text = "\n".join(excerpt)
            found.append(f"{name}, failing at >:\n\n```python\n{text}\n```")
    return found


def show_prompt(shell: InteractiveShell, prompt: str) -> None:
    """What is sent, folded where that can be."""
    text = markdown.to_plain_text(prompt)
    if display_mode(shell) == "text":
        sys.stdout.write(f"{text}\n\n")
        return
    words = "this is sent to have the error explained"
    shell.display_pub.publish(
        data={
            "text/plain": text,
            "text/html": (
                f'<details class="mathjax_ignore"><summary><em>{words}</em></summary>'
                f'<pre style="white-space: pre-wrap">{html.escape(text)}</pre></details>'
            ),
        },
        metadata={},
    )
