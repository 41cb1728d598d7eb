"""
The standard input and output of a server's process, with bounds on what it sends.

A server gets only the environment variables that a program needs, and those in its settings: no API
keys. It runs in a process group, which ends with the connection. When the kernel ends for any
reason, the server's standard input closes, which tells it to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections import deque
from types import TracebackType

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp.types import jsonrpc_message_adapter

from llm_magics._util.text import one_line, reason_of
from llm_magics.errors import ConfigurationError, ToolServerError
from llm_magics.secrets import is_secret_name, register_secret

Streams = tuple[
    MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]
]

# What a program needs to find its files, and nothing that is a key.
_INHERITED = (
    ("APPDATA", "COMSPEC", "HOMEDRIVE", "HOMEPATH", "LOCALAPPDATA", "PATH", "PATHEXT", "PROGRAMDATA",
     "PROGRAMFILES", "SYSTEMDRIVE", "SYSTEMROOT", "TEMP", "TMP", "USERNAME", "USERPROFILE")
    if sys.platform == "win32"
    else ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "USER")
)  # fmt: skip

# The bounds on what a server sends: one line, and everything between two requests to it.
MAX_LINE_BYTES = 16_000_000
MAX_BYTES = 64_000_000
MAX_MESSAGES = 10_000

# The time to end after its standard input closed, and after SIGTERM, in seconds.
_ENDING_S = 1.0

# The last lines of the standard error, for error messages.
_STDERR_LINES = 3


def server_environment(extra: dict[str, str | None]) -> dict[str, str]:
    """Return the environment of a server: the usual variables, and those in ``extra``."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    for name, value in extra.items():
        if value is None and name not in os.environ:
            msg = f"The environment variable {name}, which an MCP server needs, is not set."
            raise ConfigurationError(msg, hint="Set it before the kernel starts.")
        if value is None and is_secret_name(name):  # the server may repeat it in a result
            register_secret(os.environ[name])
    return inherited | {
        name: os.environ[name] if value is None else value for name, value in extra.items()
    }


class ProcessTransport:
    """
    A running server, as a context manager for the streams of its messages.

    Attributes:
        problem: why the server was ended, in words; empty as long as it works.
        status: 0, because a process does not answer by HTTP.
    """

    status = 0

    def __init__(self, name: str, command: tuple[str, ...], environment: dict[str, str]) -> None:
        self._name = name
        self._command = command
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        self._bytes = self._messages = 0
        self.problem = ""

    async def __aenter__(self) -> Streams:
        program = shutil.which(self._command[0], path=self._environment.get("PATH"))
        if program is None:
            msg = f"The MCP server {self._name} could not be started: the program {self._command[0]} was not found."
            raise ToolServerError(msg, hint="Install it, or correct the command: %llm mcp add")
        try:
            self._process = await asyncio.create_subprocess_exec(
                program,
                *self._command[1:],
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._environment,
                limit=MAX_LINE_BYTES,
                start_new_session=True,
            )
        except (OSError, ValueError, NotImplementedError) as error:
            msg = f"The MCP server {self._name} could not be started: {reason_of(error)}."
            raise ToolServerError(msg, hint="Correct its command: %llm mcp add") from None
        incoming, received = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        sent, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
        self._streams = (incoming, received, sent, outgoing)
        self._tasks = [
            asyncio.create_task(work)
            for work in (self._read(incoming), self._write(outgoing), self._read_errors())
        ]
        return received, sent

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._end()
        finally:
            self.kill()
            await self._has_ended()  # so that the process is reaped
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            # A process that inherited the pipes may keep them open; asyncio has no public method.
            pipes = getattr(self._process, "_transport", None)
            if pipes is not None:
                pipes.close()
            for stream in self._streams:
                stream.close()

    async def _end(self) -> None:
        """Close the standard input, wait, and end the process group with SIGTERM."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        process.stdin.close()
        if not await self._has_ended():
            self._signal(signal.SIGTERM)
            await self._has_ended()

    async def _has_ended(self) -> bool:
        assert self._process is not None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), _ENDING_S)
        return self._process.returncode is not None

    def kill(self) -> None:
        """End the server and the processes it started, at once."""
        self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))

    def _signal(self, number: int) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if sys.platform == "win32":
                self._process.kill()
            else:
                os.killpg(self._process.pid, number)  # its children too, also after its own end

    @property
    def is_running(self) -> bool:
        """Whether the process runs and nothing is wrong with it."""
        return self._process is not None and self._process.returncode is None and not self.problem

    def describe_end(self) -> str:
        """Return in words how the server ended, with the end of its standard error."""
        code = self._process.returncode if self._process else None
        why = self.problem or ("ended" if code is None else f"ended with exit code {code}")
        last = one_line(" ".join(self._stderr))[-300:]
        return f"{why}: {last}" if last else why

    async def wait_for_end(self) -> None:
        """Wait until the process has ended and its standard error is read, for `describe_end`."""
        with contextlib.suppress(TimeoutError):
            assert self._process is not None
            await asyncio.wait_for(self._process.wait(), _ENDING_S)

    async def _read(self, incoming: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        """Pass the messages of the server on, until it ends or exceeds a bound."""
        assert self._process is not None
        assert self._process.stdout is not None
        async with incoming:
            while not self.problem:
                try:
                    line = await self._process.stdout.readline()
                except ValueError:  # asyncio's error for a line above the limit
                    self._stop(f"sent more than {MAX_LINE_BYTES:,} bytes without a line end")
                    return
                if not line:
                    return
                self._count(line)
                try:
                    message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                except ValueError:  # some servers write their log to the standard output
                    continue
                try:
                    await incoming.send(SessionMessage(message))
                except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                    return

    def _count(self, line: bytes) -> None:
        self._bytes += len(line)
        self._messages += 1
        if self._bytes > MAX_BYTES or self._messages > MAX_MESSAGES:
            self._stop(
                f"sent {self._messages:,} messages ({self._bytes:,} bytes) to one request and was ended"
            )

    def _stop(self, problem: str) -> None:
        self.problem = problem
        self.kill()

    async def _write(self, outgoing: MemoryObjectReceiveStream[SessionMessage]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, anyio.ClosedResourceError):
            async for sent in outgoing:
                if hasattr(sent.message, "method"):  # not a response, which a flood could provoke
                    self._bytes = self._messages = 0
                text = sent.message.model_dump_json(by_alias=True, exclude_unset=True)
                self._process.stdin.write(f"{text}\n".encode())
                await self._process.stdin.drain()

    async def _read_errors(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        while data := await self._process.stderr.read(65536):
            lines = data[-2000:].decode("utf-8", "replace").splitlines()
            self._stderr.extend(line for line in lines if line.strip())
