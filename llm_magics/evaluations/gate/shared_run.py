"""
One run of gates for several processes, such as the workers of pytest-xdist.

The first process runs the gates and writes the result to a file; the others wait for it, so that
nothing is paid for twice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

from pydantic import TypeAdapter

from llm_magics._util.filesystem import atomic_write, locked
from llm_magics.errors import LLMError, UsageError
from llm_magics.evaluations.gate.results import RunResult

_RESULT = TypeAdapter(RunResult)


def run_once(path: Path, run: Callable[[], RunResult]) -> RunResult:
    """
    Return the result in the file ``path``; if there is none, that of ``run``, which is written.

    Raises:
        LLMError: the run failed, in this process or in the one that ran it.
    """
    with locked(path, timeout_s=math.inf):
        if path.is_file():
            return _read(path)
        try:
            result = run()
        except LLMError as error:
            _write(path, {"error": str(error), "hint": error.hint})
            raise
        _write(path, {"result": _RESULT.dump_python(result, mode="json")})
        return result


def _write(path: Path, values: dict[str, object]) -> None:
    atomic_write(path, json.dumps(values), is_private=True)


def _read(path: Path) -> RunResult:
    values = json.loads(path.read_text("utf-8"))
    if "result" not in values:
        raise UsageError(values["error"], hint=values["hint"])
    return _RESULT.validate_python(values["result"])
