"""
llama.cpp in a child process: a crash in native code must not take the user's kernel along.

The child serves one model on a loopback port, behind a random key. It is told what to load
over its standard input, and that pipe is its lifeline: when the kernel ends in whatever way,
the pipe closes and the child ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from llm_magics.errors import WeightsError
from llm_magics.secrets import Secret
from llm_magics.transport import Timeouts, Transport

_CHILD = Path(__file__).with_name("child.py")


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What an engine loads. ``context`` is in tokens; 0 takes the model's own."""

    path: Path
    embeddings: bool
    context: int
    threads: int


def default_threads() -> int:
    """All cores but one: llama.cpp spins while it waits, and the notebook wants to live."""
    return max(1, (os.cpu_count() or 1) - 1)


def engine_transport(address: str, key: Secret, timeouts: Timeouts | None = None) -> Transport:
    """The way to an engine. Its server drops a pooled connection after a stream: use none."""
    return Transport(address, {"Connection": "close"}, key, timeouts or Timeouts())


class Engine:
    """A running engine and the way to talk to it."""

    def __init__(self, spec: EngineSpec) -> None:
        """Start it and wait until the model is loaded; blocks, so call it on a thread."""
        self.spec = spec
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the engine)
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,  # Interrupt goes to the kernel's whole process group
        )
        self._finalizer = weakref.finalize(self, _stop, self._process, self._log)
        key = Secret(secrets.token_urlsafe(32))
        try:
            address = self._load(key)
        except BaseException:
            self.stop()
            raise
        self.transport = engine_transport(address, key)

    def _load(self, key: Secret) -> str:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        spec = self.spec
        order = {
            "path": str(spec.path),
            "embeddings": spec.embeddings,
            "context": spec.context,
            "threads": spec.threads,
            "key": key.reveal(),
        }
        try:
            stdin.write(json.dumps(order).encode() + b"\n")
            stdin.flush()
            answer = json.loads(stdout.readline() or b"{}")
        except OSError:
            answer = {}
        if "address" not in answer:
            raise self._failed_to_load(answer.get("error"))
        return str(answer["address"])

    def _failed_to_load(self, said: str | None) -> WeightsError:
        self._process.wait()
        why = _reason(self._log) or said or f"it ended with {self.exit_reason()}"
        msg = f"llama.cpp could not load {self.spec.path.name}: {why}"
        hint = "Check that the file is a complete GGUF and fits in memory."
        return WeightsError(msg, hint=hint, provider="local")

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def exit_reason(self) -> str:
        """How the process ended, in words."""
        code = self._process.poll()
        if code is None:
            return "it still runs"
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def wait_briefly(self) -> None:
        """Give a process that is just dying the time to be seen dead."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)

    def stop(self) -> None:
        """End it at once; nothing is lost with it."""
        self._finalizer()


def _stop(process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, log):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what was not read goes with the process
                pipe.close()


def _reason(log: IO[bytes]) -> str:
    """The line of llama.cpp's log that says why it failed."""
    log.seek(0)
    lines = log.read().decode("utf-8", "replace").splitlines()
    telling = [line for line in lines if "error" in line.lower() or "failed" in line.lower()]
    return telling[0].split(": ", 1)[-1].strip()[:200] if telling else ""


class EnginePool:
    """The engines that run, one a model; a dead one is replaced when next asked for."""

    def __init__(self) -> None:
        self._engines: dict[EngineSpec, Engine] = {}
        self._lock = threading.Lock()

    def running(self, spec: EngineSpec) -> Engine | None:
        """The engine for ``spec``, if it runs."""
        engine = self._engines.get(spec)
        return engine if engine is not None and engine.is_alive else None

    def start(self, spec: EngineSpec) -> Engine:
        """The engine for ``spec``, started if it does not run; blocks while it loads."""
        with self._lock:
            engine = self.running(spec)
            if engine is None:
                engine = self._engines[spec] = Engine(spec)
            return engine

    def stop(self, path: Path) -> None:
        """Stop what serves the file ``path``."""
        for spec in [spec for spec in self._engines if spec.path == path]:
            self._engines.pop(spec).stop()

    def stop_all(self) -> None:
        """Stop every engine."""
        while self._engines:
            self._engines.popitem()[1].stop()
