"""What Binder will do with this repository, without Docker."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.packaging.environments import ROOT, checkout, interpreters, made, ran
from tests.support.serving import free_port

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
    """It installs, warms the weights, and opens the first notebook, which fetches nothing more."""
    wanted = (BINDER / "runtime.txt").read_text("utf-8").strip().removeprefix("python-")
    python = interpreters().get(wanted, Path(sys.executable))
    folder = checkout(tmp_path)
    own = {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "JUPYTER_DATA_DIR": str(tmp_path / "jupyter"),
        "JUPYTER_CONFIG_DIR": str(tmp_path / "jupyter-config"),
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
    assert first_page(environment, folder, own) == "/lab/tree/notebooks/01-first-steps.ipynb"


def first_page(environment: Path, folder: Path, own: dict[str, str]) -> str:
    """Where JupyterLab leads who comes to its address, started as Binder starts it."""
    port = free_port()
    options = ["--allow-root", "--no-browser", f"--port={port}", "--IdentityProvider.token="]
    lab = subprocess.Popen(
        [environment / "bin" / "jupyter", "lab", *options],
        cwd=folder,
        env=os.environ | own,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(300):
            with contextlib.suppress(httpx.TransportError):
                answer = httpx.get(f"http://127.0.0.1:{port}/", trust_env=False)
                return str(answer.headers["location"]).partition("?")[0]
            time.sleep(0.1)
        return "nobody answers"
    finally:
        lab.terminate()
        lab.wait()
