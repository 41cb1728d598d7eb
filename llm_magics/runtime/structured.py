"""Answers that must match a schema: the model is asked to correct one that does not."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Any

from llm_magics.errors import EmptyAnswerError, LLMError, UnsupportedError
from llm_magics.host import Progress
from llm_magics.providers.thinking import is_thinking_refusal
from llm_magics.runtime.attempts import Batch
from llm_magics.runtime.chat import ChatCall
from llm_magics.runtime.parsing import is_thought_only
from llm_magics.runtime.prompts.prompt import Prompt, PromptParameters
from llm_magics.runtime.response import Response
from llm_magics.runtime.routing import Route
from llm_magics.runtime.session import Session
from llm_magics.types import ChatMessage, StreamChunk
from llm_magics.wire.finish_reasons import is_cut


class StructuredCall:
    """A prompt and its answer, like `ChatCall`, but the answer is checked before the call ends."""

    def __init__(
        self,
        session: Session,
        prompt: Prompt,
        batch: Batch | None = None,
        *,
        parameters: PromptParameters | None = None,
    ) -> None:
        """Render the prompt; ``batch`` and ``parameters`` are as for `ChatCall`."""
        self._left = session.config.schema_retries
        self._call = ChatCall(session, prompt, batch, parameters=parameters)
        # The current call as the user asked for it, if thinking is switched off to repair it.
        self._with_thinking: ChatCall | None = None
        self._is_given = False

    async def start_from(self, route: Route, chunks: Sequence[StreamChunk]) -> None:
        """Take ``chunks`` as the first answer, so that only its corrections are requested."""
        await self._call.adopt(route, chunks)
        self._is_given = True

    @property
    def schema(self) -> Any:
        """The schema that the answer must match, if any."""
        return self._call.schema

    def ask_once(self) -> None:
        """Accept an answer that does not match the schema, without a correction."""
        self._left = 0

    def events(self) -> AsyncGenerator[Progress | StreamChunk, None]:
        """Run the call, and repeat it while the answer does not match."""
        return self._call.events() if self.schema is None else self._checked()

    async def _events(self) -> AsyncGenerator[Progress | StreamChunk, None]:
        """Run the call; a model that always thinks is asked again as the user asked it."""
        if self._is_given:
            self._is_given = False
            return
        unchanged = self._with_thinking
        async with aclosing(self._call.events()) as events:
            try:
                async for event in events:
                    yield event
                return
            except UnsupportedError as error:
                if unchanged is None or not is_thinking_refusal(error):
                    raise
        self._call, self._with_thinking = unchanged, None
        async with aclosing(self._call.events()) as events:
            async for event in events:
                yield event

    async def _checked(self) -> AsyncGenerator[Progress | StreamChunk, None]:
        first = self._call
        while True:
            events = self._events()
            empty: EmptyAnswerError | None = None
            try:
                async for event in events:
                    yield event
            except EmptyAnswerError as error:
                is_thought = is_thought_only(self.response())
                if not self._left or (is_cut(self.response().finish_reason) and not is_thought):
                    raise
                empty = error
            finally:
                await events.aclose()
            response = self.response()
            misfit: LLMError | None = empty or response.misfit()
            if misfit is None:
                if self._call is not first:  # to answer the same prompt from the cache
                    await self._call.store_for(first)
                return
            if not self._left:
                return
            if is_cut(response.finish_reason) and not is_thought_only(response):
                return  # it would be truncated again
            self._left -= 1
            yield Progress(f"asking {response.model} again: {misfit}")
            if is_thought_only(response):  # the model may think until the limit again
                self._with_thinking = self._call.again((), is_repair=True)
                self._call = self._call.again((), is_repair=True, reasoning=False)
            else:
                self._with_thinking = None
                self._call = self._call.again(self._complaint(misfit), is_repair=True)

    @property
    def is_cut_unasked(self) -> bool:
        """Whether the last answer was cut off, although the user set no limit."""
        return self._call.is_cut_unasked

    @property
    def gaps(self) -> list[str]:
        """The pages of documents that the model did not get, in words."""
        return self._call.deliveries.gaps()

    def _complaint(self, misfit: LLMError) -> tuple[ChatMessage, ChatMessage]:
        """Return the answer that does not match, and a message about the error."""
        schema = json.dumps(self._call.json_schema, ensure_ascii=False)
        message = f"{misfit}\nAnswer again, with JSON alone that fits this schema: {schema}"
        answer = self.response()
        answer_message = ChatMessage(
            "assistant", answer.text, reasoning_blocks=answer.reasoning_blocks
        )
        return answer_message, ChatMessage("user", message)

    def tool_rounds(self, most: int) -> Iterator[Response]:
        """
        Yield each answer with tool calls; the caller runs them, goes on, and runs the call again.

        Raises:
            LLMError: an answer was cut during its tool calls, or the model still calls tools after
                ``most`` rounds.
        """
        for _ in range(most):
            response = self.response()
            if not response.tool_calls:
                return
            if is_cut(response.finish_reason):
                msg = (
                    f"{response.model} was cut off in the middle of its tool calls; none was run."
                )
                raise LLMError(msg, hint="Raise max_tokens.")
            yield response
        if self.response().tool_calls:
            msg = f"{self.response().model} still calls tools after {most} rounds."
            raise LLMError(
                msg, hint="Simplify the prompt, or raise the limit: %llm config tool_rounds 20"
            )

    def go_on(self, more: Sequence[ChatMessage]) -> None:
        """Continue the conversation after the prompt with ``more``: the results of tool calls."""
        self._call = self._call.again(more)

    async def provenance(self) -> dict[str, Any]:
        """Return the source of the last answer."""
        return await self._call.provenance()

    def response(self) -> Response:
        """Return the last answer, complete or partial."""
        return self._call.response()


def calls_message(response: Response) -> ChatMessage:
    """Return an answer with tool calls as a message, after which the results are sent."""
    return ChatMessage(
        "assistant",
        response.text,
        tool_calls=response.tool_calls,
        reasoning_blocks=response.reasoning_blocks,
    )
