"""How many of our modules a cell passes before the request is sent, and generators a chunk."""

from __future__ import annotations

import gc
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from llm_magics._async.bridge import bridge
from llm_magics.runtime.session import session
from tests.support.servers import servers
from tests.support.serving import Says, chat_stream

MAX_MODULES = 35
MAX_GENERATORS = 6


class CallPath:
    """A profile hook that notes our modules until httpx is entered, and nested generators."""

    def __init__(self) -> None:
        self.modules: dict[str, None] = {}
        self.generators: list[str] = []
        self._is_sent = False

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event != "call":
            return
        module = str(frame.f_globals.get("__name__", ""))
        self._is_sent |= module.partition(".")[0] == "httpx"
        if not self._is_sent and module.startswith("llm_magics"):
            self.modules[module] = None
        nested = []
        caller: FrameType | None = frame
        while caller is not None:
            name = str(caller.f_globals.get("__name__", ""))
            is_generator = caller.f_code.co_flags & inspect.CO_ASYNC_GENERATOR
            if is_generator and name.startswith("llm_magics"):
                nested.append(f"{name}.{caller.f_code.co_qualname}")
            caller = caller.f_back
        if len(nested) > len(self.generators):
            self.generators = nested


@contextmanager
def profiled(hook: CallPath) -> Iterator[None]:
    """Call ``hook`` on this thread and on the bridge's."""

    async def set_hook(value: Any) -> None:
        sys.setprofile(value)

    bridge.run(set_hook(hook))
    sys.setprofile(hook)
    try:
        yield
    finally:
        sys.setprofile(None)
        bridge.run(set_hook(None))


def test_a_cell_passes_few_modules_and_a_chunk_few_generators(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the magic's call to the entry into httpx, when the same cell has run before."""
    monkeypatch.delitem(sys.modules, "opentelemetry", raising=False)  # another test's
    path = CallPath()
    bridge.run(session.providers.close())  # connections of other tests end on this loop too
    gc.collect()
    with servers(lab=lambda asked: Says(chat_stream("a", "b", "c"))):
        shell.run_cell_magic("llm", "lab/m", "hello")
        with profiled(path):
            shell.run_cell_magic("llm", "lab/m", "hello again")
    print("\n".join(path.modules), "\n".join(path.generators), sep="\n\n")
    assert 10 < len(path.modules) <= MAX_MODULES
    assert 2 < len(path.generators) <= MAX_GENERATORS
