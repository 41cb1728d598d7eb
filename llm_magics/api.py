"""
``lm.ask``, ``lm.stream``, ``lm.runs`` and ``lm.models``, and their asynchronous forms.

The synchronous functions block until the result is available. The asynchronous forms, with the
prefix ``a``, do not block the event loop. Both share their implementation as an `Operation`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from llm_magics._async.sync import (
    CoroutineCall,
    Operation,
    SyncRunner,
    iterate_async,
    run_async,
    run_sync,
)
from llm_magics.errors import Interrupted, ParseError
from llm_magics.host import Cell, current_host
from llm_magics.runtime.chat import ChatCall
from llm_magics.runtime.prompts.prompt import Prompt
from llm_magics.runtime.response import Response
from llm_magics.runtime.session import session
from llm_magics.runtime.structured import StructuredCall
from llm_magics.types import StreamChunk

if TYPE_CHECKING:
    from pandas import DataFrame


class _PartialAnswer:
    def __init__(self, call: ChatCall) -> None:
        self._call = call
        self._seen: list[StreamChunk] = []
        self._has_ended = False

    @property
    def response(self) -> Response:
        """The answer, or the part of it in the chunks iterated so far."""
        return self._call.response(None if self._has_ended else self._seen)

    @property
    def data(self) -> Any:
        """The JSON value received so far; ``None`` if there is none yet."""
        try:
            return self.response.json(partial=True)
        except ParseError:
            return None


class Stream(_PartialAnswer):
    """
    An iterator over the chunks of an answer (`StreamChunk`).

    ``response`` is the answer so far, and ``data`` the JSON value so far. Call `close` to stop the
    model early, or use the stream as a context manager.
    """

    def __init__(self, call: ChatCall) -> None:
        super().__init__(call)
        self._chunks = self._iterate(call)
        self._cell: Cell | None = None  # the cell that has read the last chunk

    @staticmethod
    def _iterate(call: ChatCall) -> Generator[StreamChunk, None, None]:
        with SyncRunner(call) as runner:
            yield from runner

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StreamChunk:
        host = current_host()
        if self._cell is not host.current_cell:
            self._cell = host.current_cell
            host.watch_stream(self)
        try:
            chunk = next(self._chunks)
        except StopIteration:
            self._has_ended = True
            raise
        self._seen.append(chunk)
        return chunk

    def close(self) -> None:
        """Stop the model, and wait until it has stopped."""
        self._chunks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncStream(_PartialAnswer):
    """An asynchronous iterator over the chunks of an answer; see `Stream`."""

    def __init__(self, call: ChatCall) -> None:
        super().__init__(call)
        self._chunks: AsyncGenerator[StreamChunk, None] = iterate_async(call)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamChunk:
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            self._has_ended = True
            raise
        self._seen.append(chunk)
        return chunk

    async def aclose(self) -> None:
        """Stop the model, and wait until it has stopped."""
        await self._chunks.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def ask(  # noqa: PLR0913 (the options of a prompt)
    prompt: str = "",
    model: str | None = None,
    *,
    system: str | None = None,
    variables: Mapping[str, Any] | None = None,
    images: Sequence[Any] = (),
    attachments: Sequence[Any] = (),
    schema: Any = None,
    tools: Sequence[Any] = (),
    mcp: Sequence[str] = (),
    template: str | None = None,
    thread: str | None = None,
    fresh: bool = False,
    **parameters: Any,
) -> Response:
    """
    Send ``prompt`` to a model and return the answer.

    Args:
        prompt: the text of the prompt.
        model: ``provider/name``, an alias or a route; by default the setting ``model``.
        system: the system message; by default the setting ``system``.
        variables: values for ``{{ name }}`` in the prompt. Without it, braces are not
            interpreted.
        images: images to send: bytes, paths, URLs, figures or PIL images.
        attachments: documents, audio and images to send: paths, bytes, or URLs. A model that does
            not accept documents gets their text.
        schema: the structure of the answer: a pydantic class, a JSON schema, or short field
            definitions (``"name, age int, tags list[str]"``). The answer is validated; if it
            does not match, the model gets the error and tries again (setting
            ``schema_retries``). ``.data`` is the value.
        tools: functions that the model may call. The calls it requests are in ``.tool_calls``.
        mcp: names of MCP servers whose tools the model may call (``%llm mcp``). Tools that the
            settings allow are run; for others you are asked, or the call fails if the session
            is not interactive.
        template: name of the prompt file ``prompts/NAME.md``; ``prompt`` is its
            ``{{ input }}``. ``NAME@REVISION`` is its version in git, such as ``brief@HEAD~3``.
        thread: name of the conversation to continue.
        fresh: send the request even if the answer is cached.
        parameters: ``temperature``, ``max_tokens``, ``top_p``, ``seed``, ``stop``,
            ``reasoning``, ``tool_choice``, ``logprobs``, ``choices``, ``search`` (whether the model
            may search the web; see ``.citations``), ``tier`` (``flex`` is cheaper and slower),
            ``extra_headers``. Other parameters are
            passed to the service unchanged.

    Raises:
        LLMError: the call failed; see `llm_magics.errors` for its subclasses.
        Interrupted: the call was interrupted; ``partial`` has the answer so far.
    """
    request = Prompt(
        text=prompt,
        model=model,
        system=system,
        parameters=parameters,
        variables=variables,
        images=images,
        attachments=attachments,
        schema=schema,
        tools=tools,
        template=template,
        thread=thread,
        is_fresh=fresh,
    )
    return _run_steps(request, mcp) if mcp else ask_prompt(request)


async def aask(  # noqa: PLR0913 (as for ask)
    prompt: str = "",
    model: str | None = None,
    *,
    system: str | None = None,
    variables: Mapping[str, Any] | None = None,
    images: Sequence[Any] = (),
    attachments: Sequence[Any] = (),
    schema: Any = None,
    tools: Sequence[Any] = (),
    mcp: Sequence[str] = (),
    template: str | None = None,
    thread: str | None = None,
    fresh: bool = False,
    **parameters: Any,
) -> Response:
    """
    Send ``prompt`` to a model and return the answer.

    Args:
        prompt: the text of the prompt.
        model: ``provider/name``, an alias or a route; by default the setting ``model``.
        system: the system message; by default the setting ``system``.
        variables: values for ``{{ name }}`` in the prompt. Without it, braces are not
            interpreted.
        images: images to send: bytes, paths, URLs, figures or PIL images.
        attachments: documents, audio and images to send: paths, bytes, or URLs. A model that does
            not accept documents gets their text.
        schema: the structure of the answer: a pydantic class, a JSON schema, or short field
            definitions (``"name, age int, tags list[str]"``). The answer is validated; if it
            does not match, the model gets the error and tries again (setting
            ``schema_retries``). ``.data`` is the value.
        tools: functions that the model may call. The calls it requests are in ``.tool_calls``.
        mcp: names of MCP servers whose tools the model may call (``%llm mcp``). Tools that the
            settings allow are run; for others you are asked, or the call fails if the session
            is not interactive.
        template: name of the prompt file ``prompts/NAME.md``; ``prompt`` is its
            ``{{ input }}``. ``NAME@REVISION`` is its version in git, such as ``brief@HEAD~3``.
        thread: name of the conversation to continue.
        fresh: send the request even if the answer is cached.
        parameters: ``temperature``, ``max_tokens``, ``top_p``, ``seed``, ``stop``,
            ``reasoning``, ``tool_choice``, ``logprobs``, ``choices``, ``search`` (whether the model
            may search the web; see ``.citations``), ``tier`` (``flex`` is cheaper and slower),
            ``extra_headers``. Other parameters are
            passed to the service unchanged.

    Raises:
        LLMError: the call failed; see `llm_magics.errors` for its subclasses.
        Interrupted: the call was interrupted; ``partial`` has the answer so far.
    """
    request = Prompt(
        text=prompt,
        model=model,
        system=system,
        parameters=parameters,
        variables=variables,
        images=images,
        attachments=attachments,
        schema=schema,
        tools=tools,
        template=template,
        thread=thread,
        is_fresh=fresh,
    )
    if mcp:
        return await _arun_steps(request, mcp)
    return await run_async(_ask_operation(request))


def _run_steps(request: Prompt, servers: Sequence[str]) -> Response:
    """Answer with the tools of MCP servers, by one operation after the other."""
    from llm_magics.mcp.rounds import answer_with_servers

    steps = answer_with_servers(request, servers)
    try:
        operation = next(steps)
        while True:
            operation = steps.send(run_sync(operation))
    except StopIteration as end:
        answer: Response = end.value
        return answer


async def _arun_steps(request: Prompt, servers: Sequence[str]) -> Response:
    """Answer as `_run_steps` does, without blocking the caller's event loop."""
    from llm_magics.mcp.rounds import answer_with_servers

    steps = answer_with_servers(request, servers)
    try:
        operation = next(steps)
        while True:
            operation = steps.send(await run_async(operation))
    except StopIteration as end:
        answer: Response = end.value
        return answer


def ask_prompt(request: Prompt) -> Response:
    """Send a prompt, and return the answer."""
    return run_sync(_ask_operation(request))


def _ask_operation(request: Prompt) -> Operation[Response]:
    call = StructuredCall(session, request)

    def result() -> Response:
        answer = call.response()
        answer.check()
        return answer

    def interrupted() -> Interrupted:
        msg = "Stopped; the partial answer is in the exception's .partial."
        return Interrupted(msg, partial=call.response())

    return Operation(call, result, interrupted)


def stream(  # noqa: PLR0913 (as for ask)
    prompt: str = "",
    model: str | None = None,
    *,
    system: str | None = None,
    variables: Mapping[str, Any] | None = None,
    images: Sequence[Any] = (),
    attachments: Sequence[Any] = (),
    schema: Any = None,
    tools: Sequence[Any] = (),
    template: str | None = None,
    thread: str | None = None,
    fresh: bool = False,
    **parameters: Any,
) -> Stream:
    """
    Stream the answer to ``prompt``; arguments and errors as for `ask`.

    Iterate over the result to get the chunks. Its ``response`` is the answer so far, and its
    ``data`` the partial JSON value in it.
    """
    request = Prompt(
        text=prompt,
        model=model,
        system=system,
        parameters=parameters,
        variables=variables,
        images=images,
        attachments=attachments,
        schema=schema,
        tools=tools,
        template=template,
        thread=thread,
        is_fresh=fresh,
    )
    return Stream(ChatCall(session, request))


def astream(  # noqa: PLR0913 (as for ask)
    prompt: str = "",
    model: str | None = None,
    *,
    system: str | None = None,
    variables: Mapping[str, Any] | None = None,
    images: Sequence[Any] = (),
    attachments: Sequence[Any] = (),
    schema: Any = None,
    tools: Sequence[Any] = (),
    template: str | None = None,
    thread: str | None = None,
    fresh: bool = False,
    **parameters: Any,
) -> AsyncStream:
    """
    Stream the answer to ``prompt``; arguments and errors as for `ask`.

    Iterate over the result to get the chunks. Its ``response`` is the answer so far, and its
    ``data`` the partial JSON value in it.
    """
    request = Prompt(
        text=prompt,
        model=model,
        system=system,
        parameters=parameters,
        variables=variables,
        images=images,
        attachments=attachments,
        schema=schema,
        tools=tools,
        template=template,
        thread=thread,
        is_fresh=fresh,
    )
    return AsyncStream(ChatCall(session, request))


def runs() -> DataFrame:
    """
    Return the calls of this session, one row each, oldest first.

    Columns: ``time`` (UTC), ``provider``, ``model``, ``kind``, ``ttft_s``, ``itl_ms``,
    ``e2e_s``, ``load_s``, ``input_tokens``, ``output_tokens``, ``reasoning_tokens``,
    ``tokens_per_s``, ``cost_usd``, ``reasoning_usd``, ``cached``, ``retries``,
    ``fallback_from``, ``finish_reason``, ``error``, ``cell`` (the number of the cell run). `llm_magics.runtime.storage.run_log` defines them.
    """
    return session.runs.frame()


async def aruns() -> DataFrame:
    """
    Return the calls of this session, one row each, oldest first.

    Columns: ``time`` (UTC), ``provider``, ``model``, ``kind``, ``ttft_s``, ``itl_ms``,
    ``e2e_s``, ``load_s``, ``input_tokens``, ``output_tokens``, ``reasoning_tokens``,
    ``tokens_per_s``, ``cost_usd``, ``reasoning_usd``, ``cached``, ``retries``,
    ``fallback_from``, ``finish_reason``, ``error``, ``cell`` (the number of the cell run). `llm_magics.runtime.storage.run_log` defines them.
    """
    return session.runs.frame()


def models(pattern: str = "") -> DataFrame:
    """
    Return the models of all providers, one row each.

    Columns: ``provider``, ``model`` (its full name), ``capabilities``, ``context`` (tokens),
    ``size_mb`` on disk, ``input_usd`` and ``output_usd`` (US dollars per million tokens),
    ``pulled``, ``loaded``. Unknown values are missing.

    Args:
        pattern: the name of a provider, a part of the model's full name, or a pattern with
            ``*`` and ``?``.
    """
    return run_sync(_models_operation(pattern))


async def amodels(pattern: str = "") -> DataFrame:
    """
    Return the models of all providers, one row each.

    Columns: ``provider``, ``model`` (its full name), ``capabilities``, ``context`` (tokens),
    ``size_mb`` on disk, ``input_usd`` and ``output_usd`` (US dollars per million tokens),
    ``pulled``, ``loaded``. Unknown values are missing.

    Args:
        pattern: the name of a provider, a part of the model's full name, or a pattern with
            ``*`` and ``?``.
    """
    return await run_async(_models_operation(pattern))


def _models_operation(pattern: str) -> Operation[DataFrame]:
    from llm_magics.runtime.models import model_table

    call = CoroutineCall(lambda: model_table(session, pattern))
    return Operation(call, call.result)
