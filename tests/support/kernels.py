"""A real Jupyter kernel, driven over its real protocol."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from jupyter_client.manager import KernelManager

from llm_magics.host import TRANSIENT_KEY


@dataclass
class Result:
    """What one cell did: its outputs as a notebook would keep them, and how it ended."""

    status: str
    outputs: list[dict[str, Any]] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def lasting(self) -> list[dict[str, Any]]:
        """The outputs without those that only interactive notebooks have."""
        return [each for each in self.outputs if TRANSIENT_KEY not in each.get("metadata", {})]

    @property
    def text(self) -> str:
        """All plain text that it shows, one output after the other."""
        return "\n".join(
            str(output.get("text") or output.get("data", {}).get("text/plain", ""))
            for output in self.outputs
            if output["kind"] != "error"
        ).strip()

    @property
    def shown(self) -> str:
        """All that it shows, as HTML where there is any."""
        return "\n".join(
            output["data"].get("text/html", "") for output in self.outputs if "data" in output
        )

    @property
    def error(self) -> str:
        """The lines shown of the error that ended it."""
        return "\n".join(
            line
            for output in self.outputs
            if output["kind"] == "error"
            for line in output["lines"]
        )

    @property
    def wire_bytes(self) -> int:
        """The bytes of all its messages' contents."""
        return sum(len(str(message["content"])) for message in self.messages)


class Kernel:
    """One kernel; ``watched`` says whether it may ask questions, as in JupyterLab."""

    def __init__(self, folder: Path, *, watched: bool = False, **environment: str) -> None:
        self._folder = folder
        self._watched = watched
        self._environment = {**os.environ, **environment}

    def __enter__(self) -> Self:
        self.manager = KernelManager(kernel_name="python3", transport="ipc")
        self.manager.ip = str(self._folder / "kernel")
        self.manager.start_kernel(cwd=str(self._folder), env=self._environment)
        self._client = self.manager.blocking_client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=60)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()

    @property
    def pid(self) -> int:
        """The process of the kernel."""
        pid: int = self.manager.provisioner.pid
        return pid

    def run(
        self,
        code: str,
        *,
        timeout: float = 120,
        on_output: Callable[[Result], None] | None = None,
    ) -> Result:
        """Run one cell to its end; ``on_output`` is told after each message."""
        sent = self._client.execute(code, allow_stdin=self._watched)
        result = Result("ok")
        deadline = time.monotonic() + timeout
        while True:
            message = self._client.get_iopub_msg(timeout=max(0.1, deadline - time.monotonic()))
            if message["parent_header"].get("msg_id") != sent:
                continue
            if _take(result, message) == "idle":
                return result
            if on_output is not None and result.messages:
                on_output(result)

    def interrupt(self) -> None:
        """Press the stop button."""
        self.manager.interrupt_kernel()

    def value(self, expression: str) -> Any:
        """The value of an expression, by way of its repr."""
        import ast

        for _ in range(3):  # ipykernel 6.17 can lose what is printed right after an interrupt
            result = self.run(f"print(repr({expression}))")
            assert result.status == "ok", result.error
            if result.text:
                break
        return ast.literal_eval(result.text)


def _take(result: Result, message: dict[str, Any]) -> str:
    kind, content = message["msg_type"], message["content"]
    if kind == "status":
        return str(content["execution_state"])
    if kind == "execute_input":
        return ""
    result.messages.append(message)
    display_id = content.get("transient", {}).get("display_id")
    if kind == "stream":
        result.outputs.append({"kind": content["name"], "text": content["text"]})
    elif kind == "error":
        result.status = "error"
        result.outputs.append({"kind": "error", "lines": content["traceback"]})
    elif kind == "update_display_data":
        for output in result.outputs:
            if output.get("id") == display_id:
                output |= {"data": content["data"], "metadata": content["metadata"]}
    elif kind in ("display_data", "execute_result"):
        parts = {"data": content["data"], "metadata": content["metadata"]}
        result.outputs.append({"kind": kind, "id": display_id, **parts})
    return ""
