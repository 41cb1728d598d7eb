"""The extension in a real kernel, with the real engine: cells, interrupts, deaths."""

from __future__ import annotations

import os
import signal
import threading
import time

import psutil
import pytest

from llm_magics.host import TRANSIENT_KEY
from tests.conftest import engines_of, eventually
from tests.support.kernels import Kernel, Result

pytestmark = pytest.mark.kernel

LONG = "%%llm -o ans --max-tokens 2000 --seed 1\nWrite a very long story about a fox and a crow."


def interrupt_when_streaming(kernel: Kernel) -> Result:
    """Run the long cell and interrupt it after the first words."""
    pressed: list[bool] = []

    def press(result: Result) -> None:
        if "<p>" in result.shown and not pressed:
            pressed.append(True)
            kernel.interrupt()

    return kernel.run(LONG, on_output=press)


def test_a_cell_answers_and_keeps_the_answer(kernel: Kernel) -> None:
    """%%llm fills in variables, shows the answer once, and keeps it under the name of -o."""
    kernel.run("topic = 'the sea'")
    result = kernel.run(
        "%%llm -o ans --temperature 0 --max-tokens 30\nWrite one sentence about {{ topic }}."
    )
    assert result.status == "ok", result.error
    assert [output["kind"] for output in result.outputs] == ["display_data"]
    assert result.outputs[0]["data"]["text/plain"] == kernel.value("ans.text").strip("\n")
    assert kernel.value("ans.messages[0].content") == "Write one sentence about the sea."
    assert kernel.value("ans.usage.output_tokens") > 3
    assert kernel.value("_llm is ans") is True


def test_tokens_come_as_they_are_made(watched_kernel: Kernel) -> None:
    """Where somebody watches, one output grows while the model answers."""
    watched_kernel.run("%%llm --max-tokens 1\nwarm up")
    result = watched_kernel.run("%%llm -o ans --max-tokens 80 --seed 1\nTell a story.")
    kinds = [message["msg_type"] for message in result.messages]
    assert kinds[0] == "display_data"
    assert kinds.count("update_display_data") >= 3
    assert len(result.lasting) == 1
    assert result.lasting[0]["data"]["text/plain"] == watched_kernel.value("ans.text").strip("\n")


def test_the_same_output_is_left_whether_watched_or_not(
    kernel: Kernel, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Without the footer, which is marked, what is saved does not depend on who looked on."""
    cell = "%%llm echo/lorem --seed 3\nsomething long"
    with Kernel(tmp_path_factory.mktemp("watched"), watched=True) as watched:
        watched.run("%load_ext llm_magics")
        live = watched.run(cell)
    static = kernel.run(cell)
    assert len(live.outputs) == len(live.lasting) + 1
    assert [out["data"] for out in live.lasting] == [out["data"] for out in static.outputs]


def test_interrupt_keeps_the_partial_answer(watched_kernel: Kernel) -> None:
    """The cell ends at once, with what had come on screen and in the variable."""
    result = interrupt_when_streaming(watched_kernel)
    assert result.status == "error"
    assert result.error.startswith("Interrupted: Stopped after")
    assert "ans" in result.error
    assert watched_kernel.value("ans.finish_reason") == "interrupted"
    partial = watched_kernel.value("ans.text")
    assert partial
    assert result.outputs[0]["data"]["text/plain"] == partial.strip("\n")
    footer = result.outputs[1]
    assert footer["metadata"] == {TRANSIENT_KEY: "footer"}
    assert footer["data"]["text/plain"].endswith("interrupted")
    watched_kernel.run("import llm_magics as lm")
    assert watched_kernel.value("lm.runs().finish_reason.tolist()") == ["interrupted"]


def test_interrupt_stops_the_engine(watched_kernel: Kernel) -> None:
    """After Interrupt the engine stands still: it burns no more processor time."""
    interrupt_when_streaming(watched_kernel)
    (engine,) = engines_of(watched_kernel.pid)

    def is_idle() -> bool:
        before = sum(engine.cpu_times()[:2])
        time.sleep(0.5)
        return sum(engine.cpu_times()[:2]) - before < 0.1

    assert eventually(is_idle, within_s=3)


def test_killed_kernel_leaves_no_engine(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Kill -9 the kernel, and its engine is gone within five seconds."""
    with Kernel(tmp_path_factory.mktemp("kernel")) as kernel:
        kernel.run("%load_ext llm_magics")
        kernel.run("%%llm --max-tokens 1\nhello")
        (engine,) = engines_of(kernel.pid)
        os.kill(kernel.pid, signal.SIGKILL)
        assert eventually(lambda: not engine.is_running() or _is_zombie(engine), within_s=5)


def test_killed_kernel_leaves_no_engine_even_if_forked(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A fork of the kernel that lives on, holding all its pipes, does not keep the engine."""
    with Kernel(tmp_path_factory.mktemp("kernel")) as kernel:
        kernel.run("%load_ext llm_magics")
        kernel.run("%%llm --max-tokens 1\nhello")
        kernel.run(
            "import os, time, warnings\nwarnings.simplefilter('ignore')\n"
            "if (forked := os.fork()) == 0:\n    time.sleep(30)\n    os._exit(0)"
        )
        forked = psutil.Process(kernel.value("forked"))
        (engine,) = engines_of(kernel.pid)
        os.kill(kernel.pid, signal.SIGKILL)
        assert eventually(lambda: not engine.is_running() or _is_zombie(engine), within_s=5)
        forked.kill()


def test_killed_engine_fails_the_cell_and_the_next_one_works(watched_kernel: Kernel) -> None:
    """Kill -9 the engine: StreamInterrupted, the partial answer kept, a new engine next time."""
    killed: list[int] = []

    def kill(result: Result) -> None:
        if "<p>" in result.shown and not killed:
            (engine,) = engines_of(watched_kernel.pid)
            killed.append(engine.pid)
            engine.kill()

    result = watched_kernel.run(LONG, on_output=kill)
    assert result.status == "error"
    assert result.error.startswith("StreamInterrupted:")
    assert "ended (signal 9)" in result.error
    assert len(result.error.splitlines()) <= 4
    assert watched_kernel.value("ans.text")
    again = watched_kernel.run("%%llm --max-tokens 5\nhello")
    assert again.status == "ok", again.error
    assert [engine.pid for engine in engines_of(watched_kernel.pid)] != killed


def test_interrupt_while_loading_ends_the_cell(kernel: Kernel) -> None:
    """Interrupt works while the model is being loaded, and the next cell works."""
    kernel.run("%%llm echo/echo\nhi")  # what is imported first is not what is interrupted
    threading.Timer(0.3, kernel.interrupt).start()
    result = kernel.run("%%llm --max-tokens 400\nTell a long story.")
    assert result.error.startswith("Interrupted:")
    assert kernel.run("%%llm --max-tokens 2\nhello").status == "ok"


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
