"""What Binder will do with this repository, without Docker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.environments import ROOT, checkout, interpreters, made, ran

BINDER = ROOT / "binder"


def test_binder_is_told_what_to_build(tmp_path: Path) -> None:
    """repo2docker finds the requirements, the version of Python, and the script to run after."""
    pytest.importorskip("repo2docker")
    command = [
        sys.executable,
        "-m",
        "repo2docker",
        "--no-build",
        "--debug",
        str(checkout(tmp_path)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    told = done.stdout + done.stderr
    version = (BINDER / "runtime.txt").read_text("utf-8").strip().removeprefix("python-")
    assert "binder/requirements.txt" in told
    assert "./binder/postBuild" in told
    assert f"python={version}" in told


def test_the_steps_of_binder(tmp_path: Path) -> None:
    """Its requirements install; its script warms the weights; the first notebook fetches nothing."""
    wanted = (BINDER / "runtime.txt").read_text("utf-8").strip().removeprefix("python-")
    python = interpreters().get(wanted, Path(sys.executable))
    folder = checkout(tmp_path)
    own = {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "JUPYTER_DATA_DIR": str(tmp_path / "jupyter"),
    }
    # JupyterLab is in the image that Binder begins with; requirements are read from the root.
    environment = tmp_path / "env"
    made(environment, "jupyterlab", "-r", folder / "binder" / "requirements.txt", python=python)
    path = f"{environment / 'bin'}:/usr/bin:/bin"
    ran(["bash", "binder/postBuild"], folder, PATH=path, **own)
    weights = {file.name for file in (tmp_path / "cache").rglob("*.gguf")}
    assert weights == {"smollm2-135m.gguf", "minilm-l6-v2.gguf"}
    command = [environment / "bin" / "jupyter", "execute", "notebooks/01-first-steps.ipynb"]
    ran(command, folder, PATH=path, PIP_NO_INDEX="1", **own)
