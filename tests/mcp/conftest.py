"""Real servers: one written with the official package, one that misbehaves on request."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import llm_magics as lm
from llm_magics._async.bridge import bridge
from llm_magics.mcp.servers import servers

SUPPORT = Path(__file__).parents[1] / "support"

AddServer = Callable[..., Path]


@pytest.fixture
def add_server(tmp_path: Path) -> Iterator[AddServer]:
    """A function that adds a server to the settings and returns the file of its process id."""

    def add(name: str = "shop", behaviour: str | None = None, **settings: Any) -> Path:
        pid_file = tmp_path / f"{name}.pid"
        script = "mcp_server.py" if behaviour is None else "hostile_mcp_server.py"
        command = [sys.executable, str(SUPPORT / script), str(pid_file), behaviour or ""]
        known = {each: own for each, (own, _) in lm.config.servers().items()}
        lm.config.set("mcp", {**known, name: {"command": command, **settings}})
        return pid_file

    yield add
    bridge.run(servers.close())
    servers.failures.clear()
