"""Users' programs are typed: ``mypy --strict`` accepts them, and infers the types they assert."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]


def mypy(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run mypy as a user would, with a cache beside the package's."""
    command = [sys.executable, "-m", "mypy", "--config-file", str(FOLDER / "mypy.ini")]
    cache = ["--cache-dir", str(ROOT / ".mypy_cache" / "programs")]
    return subprocess.run(
        [*command, *cache, *arguments],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_public_interface_is_typed(tmp_path: Path) -> None:
    """
    Asking, streaming, embedding, the accessors, errors, and a provider of another package.

    Wrong arguments are found, which what is typed as ``Any`` would accept. Both are seen in one run
    of mypy, which takes most of its time to start.
    """
    program = tmp_path / "wrong.py"
    program.write_text(
        "import llm_magics as lm\n"
        "lm.ask(3)\n"
        "lm.ask('hi', fresh='yes')\n"
        "lm.embed(['a'], too_long='cut')\n"
        "lm.nearest(['a'], 'a', kk=1)\n"
        "lm.ModelParameters(temperature='hot')\n"
        "lm.no_such_name\n",
        "utf-8",
    )
    checked = mypy(str(FOLDER / "programs"), str(program))
    *lines, summary = checked.stdout.splitlines()
    lines = [line for line in lines if ": note: " not in line]
    assert summary.startswith("Found 6 errors in 1 file"), checked.stdout + checked.stderr
    assert {int(line.removeprefix(str(program)).split(":")[1]) for line in lines} == {
        2, 3, 4, 5, 6, 7,
    }  # fmt: skip
