"""A provider's answer with a time on every piece."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator

from llm_magics.engine.road import Route
from llm_magics.parameters import ModelParameters
from llm_magics.types import ChatMessage, ModelResponse, StreamChunk


async def stamped(
    route: Route, messages: tuple[ChatMessage, ...], parameters: ModelParameters
) -> AsyncGenerator[StreamChunk, None]:
    """The provider's chunks, each with a time: its own stamp, or that of its arrival here."""
    sent = time.perf_counter()
    answer = await route.provider.generate_chat(messages, route.model, parameters)
    if isinstance(answer, ModelResponse):
        yield _whole(answer)._replace(elapsed_s=time.perf_counter() - sent)
        return
    try:
        async for chunk in answer:
            if chunk.elapsed_s is None:
                chunk = chunk._replace(elapsed_s=time.perf_counter() - sent)
            yield chunk
    finally:
        await answer.aclose()


def _whole(answer: ModelResponse) -> StreamChunk:
    """A whole answer, from a provider that cannot stream, as the only chunk of a stream."""
    return StreamChunk(
        answer.text,
        answer.reasoning,
        finish_reason=answer.finish_reason or "stop",
        usage=answer.usage,
        timings=answer.timings,
        raw=answer.raw,
        tool_calls=answer.tool_calls,
        reasoning_blocks=answer.reasoning_blocks,
    )
