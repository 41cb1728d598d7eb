"""Functions of users on the event loop: their calls stop with the caller, and are counted."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import llm_magics as lm
from llm_magics._async.bridge import bridge
from llm_magics._async.functions import CallScope, call_function
from llm_magics.errors import LLMError
from llm_magics.runtime.storage.run_log import collect_runs
from tests.support.serving import Asked, Says, as_json, chat_stream, serving

ECHO = "echo/echo"
ROWS = [{"id": id_, "text": text} for id_, text in (("a", "one"), ("b", "two"), ("c", "three"))]


def use_lab(url: str) -> None:
    """Make the server at ``url`` the provider ``lab``."""
    lm.config.providers = {"lab": {"type": "openai", "base_url": f"{url}/v1", "api_key": "k"}}


def test_functions_of_both_kinds_are_called() -> None:
    """An ordinary one in another thread, which does not block the loop."""

    async def double(x: int) -> int:
        return 2 * x

    async def main() -> list[Any]:
        thread = await call_function(threading.current_thread)
        return [await call_function(double, 2), await call_function(lambda: double(3)), thread]

    *doubled, thread = asyncio.run(main())
    assert doubled == [4, 6]
    assert thread is not threading.current_thread()
    for error in (KeyError("x"), SystemExit(3)):

        def fail(error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)):
            asyncio.run(call_function(fail))
    with pytest.raises(RuntimeError, match="StopIteration"):
        asyncio.run(call_function(lambda: next(iter(()))))


def test_a_cancelled_function_stops_its_requests() -> None:
    """The service sees the connection close, and the function gets an error."""
    ended: list[BaseException] = []

    def task() -> None:
        try:
            lm.ask("x", model="lab/m")
        except BaseException as error:
            ended.append(error)
            raise

    async def main() -> None:
        loop, has_asked = asyncio.get_running_loop(), asyncio.Event()

        def says(_: Asked) -> Says:
            loop.call_soon_threadsafe(has_asked.set)
            return Says(hang=True)

        with serving(says) as server:
            use_lab(server.url)
            running = asyncio.create_task(call_function(task))
            await has_asked.wait()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

    asyncio.run(main())
    assert [type(error) for error in ended] == [asyncio.CancelledError]


def test_a_cancelled_scope_accepts_no_calls() -> None:
    """What it has is cancelled, and what comes later is refused."""

    class Call:
        cancelled = False

        def cancel(self) -> None:
            self.cancelled = True

    scope, call = CallScope(), Call()
    scope.add(call)
    scope.cancel()
    assert call.cancelled
    with pytest.raises(asyncio.CancelledError):
        scope.add(Call())


def test_calls_are_counted_for_the_block_that_makes_them() -> None:
    """Also by other threads and on the event loop; blocks may be nested."""

    async def ask_in_thread() -> None:
        await call_function(lm.ask, "x", model=ECHO)

    with collect_runs() as outer:
        lm.ask("x", model=ECHO)
        with collect_runs() as inner:
            bridge.run(ask_in_thread())
    lm.ask("x", model=ECHO)
    assert (len(outer), len(inner)) == (2, 1)


def test_a_failed_request_is_a_row(tmp_path: Any) -> None:
    """Of a service that refuses one item; the others are asked, and their tokens counted."""

    def says(asked: Asked) -> Says:
        if "two" in asked.json()["messages"][-1]["content"]:
            return Says([as_json({"error": {"message": "no"}})], 400, "application/json")
        return Says(chat_stream("yes"))

    with serving(says) as server:
        use_lab(server.url)
        with pytest.warns(UserWarning, match="1 of 3 answers failed and score 0"):
            runs = lm.evaluate("{{ text }}", ROWS, "lab/m", score=lambda answer: 1, concurrency=3)
    assert runs["error"].isna().tolist() == [True, False, True]
    assert runs["score_function"].tolist() == [1, 0, 1]
    assert runs.failures()["item"].tolist() == ["b"]
    assert runs.summary().loc["lab/m", "failed"] == 1


def test_scores_read_the_row_in_comparisons_too() -> None:
    """There it is the row of the measurement."""
    runs = lm.compare(["a", "b"], ECHO, score=lambda answer, row: row["prompt"] == answer)
    assert runs["score_function"].tolist() == [1, 1]
    with_expected = lm.compare(
        "a", ECHO, expected="b", score=lambda answer, expected, row: expected == row["expected"]
    )
    assert with_expected["score_function"].tolist() == [1]
    with pytest.raises(LLMError):
        lm.compare("a", ECHO, score=3)
