"""
A JupyterLab server and the browser's folder, shared by the tests of a process.

The start of a server and an empty cache of the browser take most of the time of a test. A test has
what could influence another one to itself: the browser's process, its kernels, with its
environment, and its workspace and settings of JupyterLab.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

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
        browser: the profile of the browser, with its cache of the server's scripts.
        settings: JupyterLab's settings and workspaces.
    """

    url: str
    browser: Path
    settings: Path

    @classmethod
    def start(cls, root: Path) -> LabServer:
        """Start a server, which ends with this process."""
        own = Path(tempfile.mkdtemp(prefix="lab-"))
        port = free_port()
        options = [f"--port={port}", "--no-browser", "--allow-root", "--ServerApp.port_retries=0"]
        options += ["--IdentityProvider.token=", "--ServerApp.password="]
        options += ["--ServerApp.disable_check_xsrf=True"]
        options += ["--LabApp.expose_app_in_browser=True", f"--ServerApp.root_dir={root}"]
        options += [f"--ServerApp.session_manager_class={__name__}.{SessionsOfTests.__name__}"]
        settings = own / "settings"
        environment = {
            **os.environ,
            "JUPYTER_CONFIG_DIR": str(settings),
            "JUPYTERLAB_SETTINGS_DIR": str(settings / "user"),
            "JUPYTERLAB_WORKSPACES_DIR": str(settings / "workspaces"),
        }
        with (own / "lab.log").open("wb") as log:
            server = subprocess.Popen(
                [sys.executable, "-m", "jupyter", "lab", *options],
                env=environment,
                cwd=_CHECKOUT,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        atexit.register(_end, server, own)
        started = cls(f"http://127.0.0.1:{port}", own / "browser", settings)
        started._wait_for()
        return started

    def _wait_for(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                with urlopen(f"{self.url}/api/status"):
                    return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def prepare(self, folder: Path, environment: dict[str, str]) -> None:
        """Forget what the last test set, and give the kernels of ``folder`` their environment."""
        for name in ("user", "workspaces"):
            shutil.rmtree(self.settings / name, ignore_errors=True)
        own = json.dumps({**os.environ, **environment})
        (folder / _ENVIRONMENT).write_text(own, encoding="utf-8")

    def end_kernels(self) -> None:
        """End all kernels."""
        with urlopen(f"{self.url}/api/kernels") as found:
            kernels = json.load(found)
        for kernel in kernels:
            end = Request(f"{self.url}/api/kernels/{kernel['id']}", method="DELETE")
            urlopen(end).close()


@cache
def lab_server(root: Path) -> LabServer:
    """Return the server for the folders in ``root``, which is started at the first call."""
    return LabServer.start(root)


def _end(server: subprocess.Popen[bytes], folder: Path) -> None:
    server.terminate()
    server.wait(30)
    shutil.rmtree(folder, ignore_errors=True)
