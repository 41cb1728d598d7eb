"""The provenance of answers: written to output metadata, and read back by ``%llm audit``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from llm_magics._async.bridge import bridge
from llm_magics._util.text import escape_controls, reason_of
from llm_magics.errors import LLMError, UsageError

if TYPE_CHECKING:
    from pandas import DataFrame


# The key in an output's metadata. Its value is a dict, or a list of them for several answers.
PROVENANCE_KEY = "llm_magics"


class Call(Protocol):
    """One request to one model."""

    async def provenance(self) -> dict[str, Any]:
        """Return the provenance of the answer."""


def get_provenance(call: Call) -> dict[str, Any]:
    """Return the provenance of the answer, or an empty dict if it cannot be determined."""
    try:
        return bridge.run(call.provenance())
    except LLMError:
        return {}


_COLUMNS = [
    "cell",
    "model",
    "digest",
    "source",
    "finish_reason",
    "input_tokens",
    "output_tokens",
    "parameters",
    "request",
    "prompt",
]


def audit(path: Path) -> DataFrame:
    """
    Return one row per answer in the notebook at ``path``, in order.

    Columns: ``cell`` (the execution count), ``model``, ``digest`` of its weights if known,
    ``source`` (``live`` or ``cached``), ``finish_reason``, tokens, ``parameters``, ``request`` (the
    digest of the request, which is its key in a recording), and ``prompt`` (the beginning of the
    cell).

    Raises:
        UsageError: the file is not a notebook.
    """
    import pandas as pd

    from llm_magics._util.tables import SafeFrame, display_when_empty

    rows = [
        {"cell": cell, "prompt": prompt, **answer}
        for cell, prompt, answer in _iterate_answers(_read_notebook(path))
    ]
    frame = SafeFrame(rows, columns=_COLUMNS)
    numbers = dict.fromkeys(("cell", "input_tokens", "output_tokens"), "Int64")
    frame = frame.assign(
        **{name: pd.to_numeric(frame[name], errors="coerce") for name in numbers}
    ).astype(numbers)
    hint = f"{path} has no saved answers. Run its %%llm cells and save it, then try again."
    return display_when_empty(SafeFrame(frame), escape_controls(hint))


def _read_notebook(path: Path) -> Mapping[str, Any]:
    try:
        notebook = json.loads(path.expanduser().read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        msg = f"Could not read {path} as a notebook: {reason_of(error)[:100]}."
        raise UsageError(msg, hint="Use: %llm audit NOTEBOOK.ipynb") from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        msg = f"{path} is not a notebook: it has no cells."
        raise UsageError(msg, hint="Use: %llm audit NOTEBOOK.ipynb")
    return notebook


def _iterate_answers(notebook: Mapping[str, Any]) -> Iterator[tuple[Any, str, dict[str, Any]]]:
    """Yield the answers in the outputs of a notebook, whose metadata may be malformed."""
    for cell in notebook["cells"]:
        if not isinstance(cell, dict) or not isinstance(cell.get("outputs"), list):
            continue
        source = cell.get("source")
        text = "".join(map(str, source)) if isinstance(source, list) else str(source or "")
        for output in cell["outputs"]:
            metadata = output.get("metadata") if isinstance(output, dict) else None
            answers = metadata.get(PROVENANCE_KEY) if isinstance(metadata, dict) else None
            # A list if several models answered the cell.
            for each in answers if isinstance(answers, list) else [answers]:
                if isinstance(each, dict) and each:
                    known = {name: each[name] for name in _COLUMNS[1:-1] if name in each}
                    yield cell.get("execution_count"), text[:200], known
