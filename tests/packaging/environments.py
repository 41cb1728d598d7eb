"""Fresh virtual environments, as a stranger's machine would have them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from tests.support.nested import plain_environment

ROOT = Path(__file__).parents[2]


def uv(*arguments: str | Path) -> None:
    """Run uv; a failure is shown as it was told. No index, no test."""
    program = shutil.which(
        "uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if program is None:
        pytest.skip("uv is not installed")
    environment = _without_environment() | {"UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"}
    command = [program, *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False
    )
    is_offline = "error sending request" in done.stderr or "dns error" in done.stderr
    if done.returncode and is_offline and "CI" not in os.environ:
        pytest.skip(f"the package index cannot be reached: {done.stderr[:200]}")
    assert done.returncode == 0, done.stderr


def _without_environment() -> dict[str, str]:
    """The variables of this process, but for those of the environment that it runs in."""
    kept = plain_environment()
    kept.pop("VIRTUAL_ENV", None)
    return kept


def made(folder: Path, *requirements: str | Path, python: str | Path = sys.executable) -> Path:
    """The interpreter of a new environment in ``folder`` with ``requirements`` in it."""
    uv("venv", "--python", python, folder)
    interpreter = folder / "bin" / "python"
    if requirements:
        beside = [word for place in find_links() for word in ("--find-links", place)]
        uv("pip", "install", "--python", interpreter, *beside, *requirements)
    return interpreter


@cache
def find_links() -> list[str]:
    """The folders that pip is set to look for packages in, of which uv does not know."""
    asked = [sys.executable, "-m", "pip", "config", "list"]
    told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    return sorted(
        {each for each in re.findall(r"find-links='([^']+)'", told) if Path(each).is_dir()}
    )


def torch_without_gpu() -> str:
    """
    The requirement of a build of Torch for the processor alone, where one lies on this machine.

    That of the index brings a GPU's libraries along, of some gigabytes.
    """
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    for place in find_links():
        for wheel in sorted(Path(place).glob(f"torch-*+cpu-{tag}-*.whl")):
            return f"torch=={wheel.name.split('-')[1]}"
    pytest.skip("there is no build of Torch without a GPU's libraries")


def said(interpreter: Path, code: str, folder: Path, **environment: str) -> str:
    """What ``code`` prints, run in ``folder``, where nothing of this checkout is to be found."""
    return ran([interpreter, "-W", "error::SyntaxWarning", "-c", code], folder, **environment)


def ran(command: Sequence[str | Path], folder: Path, **environment: str) -> str:
    """What a command prints; it must not fail."""
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        cwd=folder,
        env={**_without_environment(), **environment},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def checkout(folder: Path, *parts: str) -> Path:
    """A copy of what is under version control, as it is now, or of these ``parts`` of it."""
    target = folder / "checkout"
    listed = subprocess.run(
        ["git", "ls-files", "-z", *parts], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)
    return target


def packages(interpreter: Path, folder: Path) -> set[str]:
    """The names of what is installed there."""
    listed = "from importlib.metadata import distributions as d; print(*{x.name for x in d()})"
    return set(said(interpreter, listed, folder).split())


@cache
def interpreters() -> dict[str, Path]:
    """Those that this machine has, by version, from the oldest that is supported."""
    found: dict[str, Path] = {}
    roots = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    places = [Path(sys.executable), *roots.glob("3.*/bin/python")]
    named = (shutil.which(f"python3.{minor}") for minor in range(11, 20))
    for place in [*places, *map(Path, filter(None, named))]:
        asked = [str(place), "-c", "import sys, venv; print(*sys.version_info[:2], sep='.')"]
        try:
            done = subprocess.run(asked, capture_output=True, text=True, check=False)
        except OSError:  # it is there, and cannot be run
            continue
        if done.returncode == 0 and tuple(map(int, done.stdout.split("."))) >= (3, 11):
            found.setdefault(done.stdout.strip(), place)
    return dict(sorted(found.items()))
