"""Answers as they come, and servers that are free once nobody reads any more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import llm_magics as lm
from llm_magics import ChatMessage
from tests.conftest import eventually
from tests.support.live import Target, answer_of, can_see_slots, is_busy, slots, stream_of

pytestmark = pytest.mark.live

# Its answer goes on for long; it is never read to its end.
LONG = "Count from 1 to 1000, with a comma after each number: 1, 2, 3, 4, 5, 6, 7, 8,"
MOST = 1500


def free_after(target: Target) -> int:
    """Wait until ``target`` computes nothing, and return the longest of its conversations."""
    assert eventually(lambda: not is_busy(target), 60)
    return max((int(slot.get("n_prompt_tokens", 0)) for slot in slots(target)), default=0)


def test_pieces_come_while_the_answer_is_written(target: Target) -> None:
    """The first is there before the last, and the answer so far can be read at any time."""
    with lm.stream("Name the days of the week.", f"live/{target.chat}", **{**target.parameters, "max_tokens": 24}) as stream:  # fmt: skip
        texts = []
        for chunk in stream:
            texts.append(chunk.text)
            assert stream.response.text == "".join(texts)
    timing = stream.response.timing
    assert len([text for text in texts if text]) > 2
    assert timing.ttft_s is not None
    assert timing.e2e_s is not None
    assert timing.ttft_s < timing.e2e_s


@pytest.mark.parametrize("how", ["closed", "cancelled"])
def test_a_server_is_free_once_a_stream_is_left(target: Target, how: str) -> None:
    """It stops long before the answer's end, and the next request is answered."""
    asked: dict[str, Any] = {**target.parameters, "max_tokens": MOST}

    async def use() -> None:
        async with target.create() as provider:
            stream = await stream_of(
                provider, [ChatMessage("user", LONG)], target.chat, target.short(**asked)
            )
            begun = asyncio.Event()

            async def read() -> None:
                async for chunk in stream:
                    if chunk.text:
                        begun.set()
                        if how == "closed":
                            break
                await stream.aclose()

            reading = asyncio.ensure_future(read())
            await begun.wait()
            if how == "cancelled":
                if can_see_slots(target):
                    assert await asyncio.to_thread(is_busy, target)
                reading.cancel()
            await asyncio.wait([reading])
            if can_see_slots(target):
                assert await asyncio.to_thread(free_after, target) < MOST // 2
            again = await answer_of(
                provider, [ChatMessage("user", "Hi")], target.chat, target.short()
            )
            assert again.text

    asyncio.run(use())


def test_an_answer_is_stopped_before_its_first_token(target: Target) -> None:
    """While the server still reads the prompt."""

    async def use() -> None:
        async with target.create() as provider:
            prompt = [ChatMessage("user", "river and sea and wind " * 60 + LONG)]
            asking = asyncio.ensure_future(
                answer_of(provider, prompt, target.chat, target.short(max_tokens=200))
            )
            await asyncio.sleep(0.1)
            asking.cancel()
            await asyncio.wait([asking])
            assert asking.cancelled()
            if can_see_slots(target):
                await asyncio.to_thread(free_after, target)
            again = await answer_of(
                provider, [ChatMessage("user", "Hi")], target.chat, target.short()
            )
            assert again.text

    asyncio.run(use())
