"""``lm.ask`` and its kin: the magics' powers, in Python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llm_magics.bridge import bridge
from llm_magics.engine.chat import ChatCall
from llm_magics.engine.exchange import Exchange
from llm_magics.engine.prompt import Prompt
from llm_magics.engine.response import Response
from llm_magics.engine.session import session
from llm_magics.errors import Interrupted
from llm_magics.types import StreamChunk

if TYPE_CHECKING:
    from pandas import DataFrame


def ask(  # noqa: PLR0913 (what can be asked)
    prompt: str,
    *,
    model: str | None = None,
    system: str | None = None,
    variables: Mapping[str, Any] | None = None,
    images: Sequence[Any] = (),
    schema: Any = None,
    tools: Sequence[Any] = (),
    **parameters: Any,
) -> Response:
    """
    The answer to ``prompt``.

    Args:
        prompt: what to ask.
        model: ``provider/name``; the setting ``model`` if not given.
        system: the system message; the setting ``system`` if not given.
        variables: what ``{{ names }}`` in the prompt stand for; braces are left alone without.
        images: pictures that go with it: bytes, paths, addresses, figures, PIL images.
        schema: what the answer must look like: a pydantic class, a JSON schema, or fields in
            short (``"name, age int, tags list[str]"``). It is checked; ``.data`` is the value.
        tools: functions that the model may call; its wishes are in ``.tool_calls``.
        parameters: ``temperature``, ``max_tokens``, ``top_p``, ``seed``, ``stop``,
            ``reasoning``, ``tool_choice``, ``extra_headers``; any other goes to the service
            as it is.

    Raises:
        LLMError: of the fitting kind; see `llm_magics.errors`.
        Interrupted: with what had come in ``partial``.
    """
    asked = Prompt(prompt, model, system, parameters, variables, images, schema, tools)
    call = ChatCall(session, asked)
    try:
        with Exchange(call) as exchange:
            exchange.finish()
    except KeyboardInterrupt:
        msg = "Stopped; what had come is in the exception's .partial."
        raise Interrupted(msg, partial=call.response()) from None
    answer = call.response()
    if schema is not None and not answer.tool_calls:
        answer.check()
    return answer


def stream(  # noqa: PLR0913 (as for ask)
    prompt: str,
    *,
    model: str | None = None,
    system: str | None = None,
    variables: Mapping[str, Any] | None = None,
    images: Sequence[Any] = (),
    schema: Any = None,
    tools: Sequence[Any] = (),
    **parameters: Any,
) -> Iterator[StreamChunk]:
    """The answer to ``prompt`` as it comes; arguments and errors as for `ask`."""
    asked = Prompt(prompt, model, system, parameters, variables, images, schema, tools)
    call = ChatCall(session, asked)
    with Exchange(call) as exchange:
        yield from exchange


def runs() -> DataFrame:
    """
    The calls of this session, one row each, oldest first.

    Columns: ``time`` (UTC), ``provider``, ``model``, ``kind``, ``ttft_s``, ``itl_ms``,
    ``e2e_s``, ``load_s``, ``input_tokens``, ``output_tokens``, ``tokens_per_s``, ``cost_usd``,
    ``cached``, ``retries``, ``fallback_from``, ``finish_reason``, ``error``. Their definitions: `llm_magics.policies.metrics`.
    """
    return session.runs.frame()


def models(pattern: str = "") -> DataFrame:
    """
    The models of all providers, one row each.

    Columns: ``model``, ``abilities``, ``context`` (tokens), ``size_mb`` on disk, ``input_usd``
    and ``output_usd`` (US dollars for a million tokens), ``pulled``, ``loaded``; empty where
    neither the service nor the table of known models tells.

    Args:
        pattern: keep those of the provider of that name, or whose full name contains it, or
            matches it with ``*`` and ``?``.
    """
    from llm_magics.engine.catalogue import catalogue

    return bridge.run(catalogue(session, pattern))
