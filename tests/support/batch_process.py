"""A fake service in a process that outlives its clients, for tests that kill them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal

from tests.support.batch_fakes import BatchFake
from tests.support.serving import serving

# An operation on the fake. It is a function of a module, so that it can be sent to the process.
Operation = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class FakeProcess:
    """
    A fake that runs in another process.

    Attributes:
        url: its address.
    """

    url: str
    _pipe: Connection

    def do(self, operation: Operation, *args: Any) -> Any:
        """Return ``operation(fake, *args)``, which runs in the process: ``BatchFake.billed`` …"""
        self._pipe.send((operation, args))
        value, error = self._pipe.recv()
        if error is not None:
            raise error
        return value

    def advance(self, seconds: float) -> None:
        """Advance its clock."""
        self.do(_advance, seconds)


@contextmanager
def serving_apart(
    create: Callable[[], BatchFake], *, start_method: Literal["spawn", "fork"] = "spawn"
) -> Iterator[FakeProcess]:
    """
    Serve the fake that ``create``, a function of a module, makes in a new process.

    A fork starts without importing anything, but shares memory with this process.
    """
    context = multiprocessing.get_context(start_method)
    pipe, other = context.Pipe()
    # A fork inherits this end too, and must close it: only then does it see that it was closed here.
    inherited = pipe if start_method == "fork" else None
    process = context.Process(target=_run, args=(create, other, inherited), daemon=True)
    process.start()
    other.close()
    try:
        yield FakeProcess(pipe.recv(), pipe)
    finally:
        pipe.close()  # ends the process
        process.join(10)
        if process.is_alive():
            process.kill()
            process.join()


def _run(create: Callable[[], BatchFake], pipe: Connection, inherited: Connection | None) -> None:
    if inherited is not None:
        inherited.close()
    fake = create()
    with serving(fake) as server:
        pipe.send(server.url)
        while True:
            try:
                operation, args = pipe.recv()
            except EOFError:
                return
            try:
                with fake.lock:
                    answer = operation(fake, *args), None
            except Exception as error:  # raised again on the other side
                answer = None, error
            server.asked.clear()  # the fake has them too
            pipe.send(answer)


def _advance(fake: BatchFake, seconds: float) -> None:
    fake.clock.advance(seconds)
