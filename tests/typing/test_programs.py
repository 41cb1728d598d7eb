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


def test_the_public_interface_is_typed() -> None:
    """Asking, streaming, embedding, the accessors, errors, and a provider of another package."""
    checked = mypy(str(FOLDER / "programs"))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_wrong_arguments_are_found(tmp_path: Path) -> None:
    """What is typed as ``Any`` would accept them."""
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
    found = {int(line.split(":")[1]) for line in mypy(str(program)).stdout.splitlines()[:-1]}
    assert found == {2, 3, 4, 5, 6, 7}
