"""
A JupyterLab server and a browser profile, shared by the tests of a process.

Starting a server and filling the browser's cache take most of the time of a test. Each test still
has its own browser process, kernels with its own environment, workspaces and settings.
"""

from __future__ import annotations

import atexit
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from jupyter_server.services.sessions.sessionmanager import SessionManager

from tests.support.serving import free_port

if TYPE_CHECKING:
    from jupyter_server.services.kernels.kernelmanager import ModelName

_CHECKOUT = Path(__file__).parents[2]

# The environment of the kernels, in the folder of a test.
_ENVIRONMENT = "kernel-environment.json"


class SessionsOfTests(SessionManager):
    """Gives a kernel the environment of the test in whose folder its notebook is."""

    def get_kernel_env(self, path: str | None, name: ModelName | None = None) -> dict[str, str]:
        """Return the environment of a kernel."""
        own = super().get_kernel_env(path, name)
        folder = Path(self.kernel_manager.cwd_for_path(path))
        environment: dict[str, str] = json.loads((folder / _ENVIRONMENT).read_text("utf-8"))
        return {**environment, "JPY_SESSION_NAME": own["JPY_SESSION_NAME"]}


@dataclass(frozen=True, slots=True)
class LabServer:
    """
    A server whose root is the parent of the tests' folders.

    Attributes:
        url: its address.
        token: the token that requests need.
        browser: the profile of the browser, with its cache of the server's scripts.
        settings: JupyterLab's settings and workspaces.
    """

    url: str
    token: str
    browser: Path
    settings: Path

    @classmethod
    def start(cls, root: Path) -> LabServer:
        """Start a server, which ends with this process."""
        own = Path(tempfile.mkdtemp(prefix="lab-"))
        port, token = free_port(), secrets.token_hex()
        options = [f"--port={port}", "--no-browser", "--allow-root", "--ServerApp.port_retries=0"]
        options += ["--LabApp.expose_app_in_browser=True", f"--ServerApp.root_dir={root}"]
        options += [f"--ServerApp.session_manager_class={__name__}.{SessionsOfTests.__name__}"]
        settings = own / "settings"
        environment = {
            **os.environ,
            "JUPYTER_TOKEN": token,
            "JUPYTER_CONFIG_DIR": str(settings),
            "JUPYTERLAB_SETTINGS_DIR": str(settings / "user"),
            "JUPYTERLAB_WORKSPACES_DIR": str(settings / "workspaces"),
        }
        with (root / "lab.log").open("wb") as log:
            server = subprocess.Popen(
                [sys.executable, "-m", "jupyter", "lab", *options],
                env=environment,
                cwd=_CHECKOUT,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        atexit.register(_end, server, own)
        started = cls(f"http://127.0.0.1:{port}", token, own / "browser", settings)
        started._wait_until_ready()
        return started

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                self._request("GET", "status")
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def _request(self, method: str, path: str) -> httpx.Response:
        headers = {"Authorization": f"token {self.token}"}
        url = f"{self.url}/api/{path}"
        answer = httpx.request(method, url, headers=headers, trust_env=False, timeout=60)
        return answer.raise_for_status()

    @contextmanager
    def kernels(self, folder: Path, environment: dict[str, str]) -> Iterator[None]:
        """
        Give the kernels of ``folder`` their environment, and end all kernels afterwards.

        JupyterLab starts without the settings and workspaces of earlier tests.
        """
        for name in ("user", "workspaces"):
            shutil.rmtree(self.settings / name, ignore_errors=True)
        whole = json.dumps({**os.environ, **environment})
        (folder / _ENVIRONMENT).write_text(whole, encoding="utf-8")
        try:
            yield
        finally:
            for kernel in self._request("GET", "kernels").json():
                self._request("DELETE", f"kernels/{kernel['id']}")


@cache
def lab_server(root: Path) -> LabServer:
    """Return the server for the folders in ``root``, which is started at the first call."""
    return LabServer.start(root)


def _end(server: subprocess.Popen[bytes], folder: Path) -> None:
    server.terminate()
    server.wait(30)
    shutil.rmtree(folder, ignore_errors=True)
