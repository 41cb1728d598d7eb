"""
Run llama.cpp in a child process, so that a crash in native code does not end the user's kernel.

The child serves one model on loopback ports, protected by a random key. It reads what to load from
its standard input. When the kernel ends for any reason, this pipe closes and the child ends too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import weakref
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from llm_magics.errors import WeightsError
from llm_magics.secrets import Secret

# llama.cpp's log level. With a higher level, each request would add to the log.
_ERRORS_ONLY = 1

_CHILD = Path(__file__).with_name("child.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """
    What an engine loads, and with how many servers and threads.

    ``context`` is in tokens; 0 means the model's own limit. ``stamp`` changes if the file is
    replaced. Each of the ``servers`` uses ``threads`` CPU cores.
    """

    path: Path
    stamp: tuple[int, int]
    embeddings: bool
    context: int
    threads: int
    servers: int = 1


def default_threads() -> int:
    """Return all cores but one: llama.cpp spins while idle, and the notebook needs a core."""
    return max(1, (os.cpu_count() or 1) - 1)


class Engine:
    """
    The child process of an engine.

    Attributes:
        spec: what it loads.
        key: the API key that the servers require.
        addresses: the addresses of its servers, after the model is loaded.
    """

    addresses: list[str]

    def __init__(self, spec: EngineSpec) -> None:
        """Start the process. Call `load` to load the model."""
        self.spec = spec
        self.key = Secret(secrets.token_urlsafe(32))
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the engine)
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,  # interrupts go to the kernel's process group
        )
        self._finalizer = weakref.finalize(self, _stop, self._process, self._log)

    def load(self) -> None:
        """Load the model; blocks until it is loaded, and raises `WeightsError` if that fails."""
        try:
            self.addresses = self._load()
        except BaseException:
            self.stop()
            raise

    def _load(self) -> list[str]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        spec = self.spec
        order = {
            "path": str(spec.path),
            "embeddings": spec.embeddings,
            "context": spec.context,
            "threads": spec.threads,
            "servers": spec.servers,
            "verbosity": _ERRORS_ONLY,
            "key": self.key.reveal(),
            "packages": _llama_folder(),
        }
        try:
            stdin.write(json.dumps(order).encode() + b"\n")
            stdin.flush()
            answer = _first_object(stdout)
        except (OSError, ValueError):  # the process ended or was stopped
            answer = {}
        if "addresses" not in answer:
            raise self._failed_to_load(answer.get("error"))
        return [str(address) for address in answer["addresses"]]

    def _failed_to_load(self, said: str | None) -> WeightsError:
        self._process.kill()
        self._process.wait()
        why = _log_reason(self._log) or said or f"the process ended with {self.exit_reason()}"
        msg = f"llama.cpp could not load {self.spec.path.name}: {why}"
        hint = "Check that the file is a complete GGUF and fits in memory."
        return WeightsError(msg, hint=hint, provider="local")

    @property
    def is_alive(self) -> bool:
        """Whether the process is still running."""
        return self._process.poll() is None

    def exit_reason(self) -> str:
        """Return how the process ended, in words."""
        code = self._process.poll()
        if code is None:
            return "still running"
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def await_exit(self) -> None:
        """Wait up to half a second for the process to end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)

    def stop(self) -> None:
        """Kill the process. It has no state to save."""
        self._finalizer()


def _llama_folder() -> str:
    """
    Return the folder from which the notebook would import llama.cpp.

    The folder may be missing from the child's path: IPython adds an activated environment to the
    kernel's path.
    """
    spec = find_spec("xllamacpp")
    return str(Path(spec.origin).parents[1]) if spec is not None and spec.origin else ""


def _stop(process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, log):
        if pipe is not None:
            with contextlib.suppress(OSError):  # unread data is lost with the process
                pipe.close()


def _first_object(lines: IO[bytes]) -> dict[str, Any]:
    """Return the first JSON object in ``lines``: a ``sitecustomize`` may print before it."""
    for line in lines:
        try:
            answer = json.loads(line)
        except ValueError:
            continue
        if isinstance(answer, dict):
            return answer
    return {}


def _log_reason(log: IO[bytes]) -> str:
    """Return the line of llama.cpp's log with the reason for the failure; empty if none."""
    if log.closed:
        return "stopped"
    log.seek(0)
    lines = log.read().decode("utf-8", "replace").splitlines()
    telling = [line for line in lines if "error" in line.lower() or "failed" in line.lower()]
    return telling[0].split(": ", 1)[-1].strip()[:200] if telling else ""


class _Starting:
    """An engine that is being loaded on a thread, and the number of callers that wait for it."""

    def __init__(self, spec: EngineSpec) -> None:
        self.engine = Engine(spec)
        self.waiting = 0
        self.loaded: Future[None] = Future()
        threading.Thread(target=self._load, daemon=True).start()

    def _load(self) -> None:
        try:
            self.engine.load()
        except BaseException as error:
            self.loaded.set_exception(error)
        else:
            self.loaded.set_result(None)


class EnginePool:
    """The running engines, by their specs; an engine that has ended is replaced on its next use."""

    def __init__(self) -> None:
        self._engines: dict[EngineSpec, Engine] = {}
        self._starting: dict[EngineSpec, _Starting] = {}
        self._lock = threading.Lock()

    def running(self, spec: EngineSpec) -> Engine | None:
        """Return the engine for ``spec`` if it is running; otherwise ``None``."""
        engine = self._engines.get(spec)
        return engine if engine is not None and engine.is_alive else None

    async def start(self, spec: EngineSpec) -> Engine:
        """
        Return the engine for ``spec``, and start it if it is not running.

        Concurrent callers share one start, which is cancelled when the last of them is cancelled.
        """
        with self._lock:
            engine = self.running(spec)
            if engine is not None:
                return engine
            starting = self._starting.get(spec)
            if starting is None:
                starting = self._starting[spec] = _Starting(spec)
            starting.waiting += 1
        try:
            await asyncio.shield(asyncio.wrap_future(starting.loaded))
        except asyncio.CancelledError:
            if starting.waiting == 1:
                starting.engine.stop()
            raise
        finally:
            self._settle(spec, starting)
        return starting.engine

    def _settle(self, spec: EngineSpec, starting: _Starting) -> None:
        with self._lock:
            starting.waiting -= 1
            if self._starting.get(spec) is starting and (
                starting.loaded.done() or not starting.waiting
            ):
                del self._starting[spec]
                if starting.engine.is_alive:
                    self._engines[spec] = starting.engine

    def stop(self, path: Path) -> None:
        """Stop the engines that serve or load the file ``path``."""
        with self._lock:
            engines = [
                self._engines.pop(spec) for spec in list(self._engines) if spec.path == path
            ]
            engines += [
                self._starting.pop(spec).engine
                for spec in list(self._starting)
                if spec.path == path
            ]
        for engine in engines:
            engine.stop()

    def stop_all(self) -> None:
        """Stop every engine."""
        for path in {spec.path for spec in (*self._engines, *self._starting)}:
            self.stop(path)
