"""Coroutines of the notebook's own, with and without the setting ``loop: nested``."""

from __future__ import annotations

import time

import pytest

from tests.support.kernels import Kernel

pytestmark = pytest.mark.kernel

# An async tool that works on the kernel's loop alone: it waits for something that is done there.
TOOL = """
import asyncio
import llm_magics as lm
from llm_magics.notebook import frontend
from llm_magics.tools import Toolbox
from llm_magics.types import ToolCall

loop_of_the_kernel = asyncio.get_running_loop()
async def where() -> str:
    "Say on which loop it runs."
    await asyncio.sleep(0)
    return "kernel" if asyncio.get_running_loop() is loop_of_the_kernel else "own"
def call(): return Toolbox([where], frontend.run_coroutine).call(ToolCall("c", "where", ""))
async def forty_two():
    await asyncio.sleep(0)
    return 42
"""


def test_asyncio_is_left_alone_unasked(kernel: Kernel) -> None:
    """An async tool gets a loop of its own; ``asyncio.run`` is refused by Python, as ever."""
    kernel.run(TOOL)
    assert kernel.value("call()") == "own"
    refused = kernel.run("asyncio.run(forty_two())")
    assert "cannot be called from a running event loop" in refused.error
    assert kernel.value("'nest_asyncio2._' in str(asyncio.run)") is False


@pytest.mark.parametrize(
    "ask", ["%llm config loop nested", "open('llm_magics.yaml','w').write('loop: nested'); lm.config.reload()"]
)  # fmt: skip
def test_nested_by_request(kernel: Kernel, ask: str) -> None:
    """By the magic or by a file: ``asyncio.run`` works, tools run on the kernel's loop, and so do answers."""
    kernel.run(TOOL)
    asked = kernel.run(ask)
    assert asked.status == "ok", asked.error
    assert kernel.value("asyncio.run(forty_two())") == 42
    assert kernel.value("call()") == "kernel"
    assert kernel.value("lm.ask('hi', model='echo/echo').text") == "hi"
    assert kernel.value("asyncio.run(lm.aask('ho', model='echo/echo')).text") == "ho"
    assert kernel.run("await lm.aask('he', model='echo/echo')").status == "ok"


def test_an_interrupt_stops_what_is_nested(kernel: Kernel) -> None:
    """Nothing goes on on the kernel's loop behind an idle kernel."""
    kernel.run(TOOL)
    kernel.run("%llm config loop nested")
    kernel.run(
        "ticks = []\n"
        "async def tick() -> str:\n"
        "    'Tick.'\n"
        "    while True:\n"
        "        ticks.append(1); print('tick', flush=True); await asyncio.sleep(0.02)"
    )
    pressed: list[float] = []

    def press(_: object) -> None:
        if not pressed:
            pressed.append(time.monotonic())
            kernel.interrupt()

    done = kernel.run(
        "Toolbox([tick], frontend.run_coroutine).call(ToolCall('c', 'tick', ''))", on_output=press
    )
    assert done.status == "error"
    before = kernel.value("len(ticks)")
    kernel.run("await asyncio.sleep(0.3)")
    assert kernel.value("len(ticks)") == before
