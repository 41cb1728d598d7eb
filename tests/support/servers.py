"""Fake services as configured providers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import llm_magics as lm
from llm_magics.runtime.policies.retry import CircuitBreakers
from llm_magics.runtime.session import session
from tests.support.fake_openai import refusal
from tests.support.serving import Asked, Says, Server, chat_stream, serving


@contextmanager
def servers(**answers: Callable[[Asked], Says] | Says) -> Iterator[dict[str, Server]]:
    """Servers of OpenAI's format under these names, set up in the settings."""
    with ExitStack() as stack:
        running = {name: stack.enter_context(serving(each)) for name, each in answers.items()}
        lm.config.providers = {
            name: {"type": "openai", "base_url": server.url, "api_key": "a-key-of-the-test"}
            for name, server in running.items()
        }
        session.circuit_breakers = CircuitBreakers()
        yield running


GOOD = Says(chat_stream("hi"))


BUSY = Says(refusal("rate_limit_exceeded", "Slow down.", 429).pieces, 429, "application/json", headers={"retry-after": "0"})  # fmt: skip


WRONG_KEY = refusal("invalid_api_key", "Incorrect API key provided.", 401)


def once(first: Says, then: Says) -> Callable[[Asked], Says]:
    """A server that says one thing, and from then on another."""
    said: list[Says] = [first]
    return lambda asked: said.pop() if said else then
