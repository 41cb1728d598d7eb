"""``lm.ask`` and ``lm.aask``: one implementation, in scripts, threads, loops and kernels."""

from __future__ import annotations

import ast
import asyncio
import gc
import inspect
import threading
from typing import Any

import numpy as np
import pytest

import llm_magics as lm
from llm_magics import errors
from llm_magics._async.bridge import bridge
from llm_magics.runtime.session import session
from tests.conftest import eventually
from tests.support.kernels import Kernel
from tests.support.servers import servers
from tests.support.serving import Says, chat_stream

PAIRS = ["ask", "stream", "embed", "runs", "models", "bench", "compare"]


@pytest.mark.parametrize("name", PAIRS)
def test_both_forms_are_alike(name: str) -> None:
    """The same arguments, help and result; one of them is to be awaited."""
    plain, other = getattr(lm, name), getattr(lm, f"a{name}")
    assert plain.__doc__ == other.__doc__
    signature = inspect.signature(plain)
    assert signature.parameters == inspect.signature(other).parameters
    assert inspect.iscoroutinefunction(other) is (name != "stream")


@pytest.mark.parametrize("name", [*PAIRS, *(f"a{name}" for name in PAIRS)])
def test_signature_and_help_are_in_the_source(name: str) -> None:
    """Editors read them there, and run nothing."""
    function = getattr(lm, name)
    source = ast.parse(inspect.getsource(function)).body[0]
    assert isinstance(source, ast.FunctionDef | ast.AsyncFunctionDef)
    assert source.name == function.__name__ == name
    assert ast.get_docstring(source) == inspect.getdoc(function)
    assert source.returns is not None
    arguments = source.args
    named = [*arguments.args, *arguments.kwonlyargs, *filter(None, [arguments.kwarg])]
    assert [each.arg for each in named] == list(inspect.signature(function).parameters)


async def everything() -> tuple[Any, ...]:
    """One call of each."""
    answer = await lm.aask("a b c", model="echo/echo")
    pieces = [chunk.text async for chunk in lm.astream("a b c", model="echo/echo")]
    vectors = await lm.aembed(["x", None], model="echo/echo")
    models = await lm.amodels("echo")
    return answer.text, "".join(pieces), vectors.shape, len(models), len(await lm.aruns())


def test_in_a_loop_of_ones_own() -> None:
    """The same answers as without one."""
    told = asyncio.run(everything())
    shape = lm.embed(["x", None], model="echo/echo").shape
    assert told == ("a b c", "a b c", shape, len(lm.models("echo")), 3)


def test_in_a_thread_and_beside_a_loop_that_runs() -> None:
    """Waiting for an answer in a loop works too; it only holds that loop up."""

    async def waits() -> str:
        return lm.ask("a", model="echo/echo").text

    assert asyncio.run(waits()) == "a"
    told: list[Any] = []
    thread = threading.Thread(target=lambda: told.append(asyncio.run(everything())[0]))
    thread.start()
    thread.join(30)
    assert told == ["a b c"]


def test_on_the_bridges_own_loop() -> None:
    """A provider or a tool that asks a model itself awaits it there."""
    assert bridge.run(everything())[0] == "a b c"


def test_the_loop_goes_on_meanwhile() -> None:
    """Calls that are awaited together are under way together."""
    with servers(one=Says(chat_stream("a", "b"), delay_s=0.1)) as running:

        async def many() -> list[Any]:
            return await asyncio.gather(*(lm.aask(str(n), model="one/m") for n in range(20)))

        assert {answer.text for answer in asyncio.run(many())} == {"ab"}
        assert running["one"].most_at_once > 1


@pytest.mark.parametrize("how", ["cancel", "timeout", "break", "close"])
def test_leaving_early_stops_the_model(how: str) -> None:
    """The server sees the connection close, and the call is in the log as interrupted."""
    with servers(one=Says(chat_stream("a", "b")[:2], hang=True)) as running:

        async def leave() -> None:
            if how == "cancel":
                task = asyncio.create_task(lm.aask("hi", model="one/m"))
                assert await asyncio.to_thread(eventually, lambda: bool(running["one"].asked), 10)
                await asyncio.sleep(0.05)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            elif how == "timeout":
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(lm.aask("hi", model="one/m"), 0.15)
            else:
                stream = lm.astream("hi", model="one/m")
                async for chunk in stream:
                    if chunk.text:
                        break
                await stream.aclose()
                assert stream.response.text == "a"

        asyncio.run(leave())
        assert running["one"].hung_up.wait(30)
    assert lm.runs().finish_reason.tolist() == ["interrupted"]


def test_an_error_is_raised_where_it_is_awaited() -> None:
    """With its class, and what had come."""

    async def fail() -> None:
        with pytest.raises(errors.ModelNotFoundError):
            await lm.aask("hi", model="echo/nobody")
        with pytest.raises(errors.UsageError):
            await lm.aask("hi", model="echo/echo", temprature=1)

    asyncio.run(fail())


def test_in_a_kernel(kernel: Kernel) -> None:
    """With ``await`` at the top of a cell, and without."""
    kernel.run("import llm_magics as lm; lm.config.model = 'echo/echo'")
    assert "a b" in kernel.run("print((await lm.aask('a b')).text)").text
    told = kernel.run("async for c in lm.astream('a b'): print(c.text, end='|')").text
    assert told.replace("|", "") == "a b"
    assert "(1, " in kernel.run("print((await lm.aembed(['x'], model='echo/echo')).shape)").text


def test_nothing_is_left_of_many_calls() -> None:
    """Neither tasks nor threads."""

    async def many() -> int:
        await asyncio.gather(*(lm.aask(str(n), model="echo/echo") for n in range(50)))
        return len(asyncio.all_tasks())

    asyncio.run(many())
    threads = threading.active_count()
    assert asyncio.run(many()) == 1
    assert threading.active_count() <= threads

    async def left() -> int:
        return len(asyncio.all_tasks())

    assert eventually(lambda: bridge.run(left()) == 1, 30)


def test_a_stream_is_a_value_too() -> None:
    """``response`` is the answer so far, in a ``with`` block it ends with the block."""
    with lm.stream("a b c", model="echo/echo") as stream:
        assert next(stream).text
        assert stream.response.text
        assert stream.response.finish_reason is None
    assert len(lm.runs()) == 1
    assert np.isnan(lm.embed([None], model="echo/echo")).all()


def test_a_stream_that_nobody_holds_is_stopped() -> None:
    """Also where its loop has ended: the server sees the connection close, the place is free."""
    with servers(one=Says(chat_stream("a", "b")[:2], hang=True)) as running:
        lm.config.set("providers.one.concurrency", 1)
        loop = asyncio.new_event_loop()
        stream = lm.astream("hi", model="one/m")
        loop.run_until_complete(anext(stream))
        loop.close()
        del stream
        gc.collect()
        assert running["one"].hung_up.wait(30)
        gate = session.limiter(session.provider("one")).semaphore
        assert eventually(lambda: gate.running == 0, 30)
