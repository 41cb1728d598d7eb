"""Tokens are fetched when needed, before they expire and once for each rejection."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from llm_magics import errors, secrets
from llm_magics.http import Token, TokenSource
from llm_magics.secrets import Secret, scrub


class Fetches:
    """Returns numbered tokens that live ``lifetime_s``, by a clock that the test sets."""

    def __init__(self, lifetime_s: float | None = 3600, *, same: bool = False) -> None:
        self.now = 1_800_000_000.0
        self.lifetime_s = lifetime_s
        self.same = same
        self.calls: list[bool] = []
        self.error: Exception | None = None
        self.source = TokenSource(fetch=self.fetch, clock=lambda: self.now)

    async def fetch(self, is_rejected: bool) -> Token:
        self.calls.append(is_rejected)
        number = 1 if self.same else len(self.calls)
        await asyncio.sleep(0.001)
        if self.error is not None:
            raise self.error
        expires_at = None if self.lifetime_s is None else self.now + self.lifetime_s
        return Token(Secret(f"token-of-the-test-{number}"), expires_at)

    async def value(self) -> str:
        return (await self.source.token()).value.reveal()


@pytest.mark.parametrize(
    ("lifetime_s", "kept_s", "again_s"),
    [(3600, 3299, 3301), (100, 49, 51), (None, 59, 61)],
    ids=["five minutes before", "half of a short life", "unknown"],
)
def test_a_token_is_fetched_again_before_it_expires(
    lifetime_s: float | None, kept_s: float, again_s: float
) -> None:
    """It is not fetched again before that."""
    fetches = Fetches(lifetime_s)

    async def ask() -> list[str]:
        values = [await fetches.value()]
        start = fetches.now
        for seconds in (kept_s, again_s):
            fetches.now = start + seconds
            values.append(await fetches.value())
        return [value[-1] for value in values]

    assert asyncio.run(ask()) == ["1", "1", "2"]


def test_a_failed_early_refresh_does_no_harm_until_the_token_expires() -> None:
    """The old token is used, and the next attempt follows half a minute later."""
    fetches = Fetches()

    async def ask() -> None:
        assert await fetches.value() == "token-of-the-test-1"
        fetches.error = errors.ConnectionError("The sign-in service is not reachable.")
        fetches.now += 3400
        for _ in range(3):
            assert await fetches.value() == "token-of-the-test-1"
        assert len(fetches.calls) == 2
        fetches.now += 31
        assert await fetches.value() == "token-of-the-test-1"
        assert len(fetches.calls) == 3
        fetches.now += 200
        with pytest.raises(errors.ConnectionError, match="not reachable"):
            await fetches.value()

    asyncio.run(ask())


def test_concurrent_requests_fetch_once() -> None:
    """At the start, and when the token of all of them is rejected."""
    fetches = Fetches()

    async def ask() -> None:
        tokens = await asyncio.gather(*(fetches.source.token() for _ in range(50)))
        assert len({id(token) for token in tokens}) == 1
        found = await asyncio.gather(*(fetches.source.replacement(each) for each in tokens))
        assert {each.value.reveal() for each in found if each} == {"token-of-the-test-2"}
        # A request that was sent before the replacement receives its rejection late.
        late = await fetches.source.replacement(tokens[0])
        assert late is found[0]
        assert fetches.calls == [False, True]

    asyncio.run(ask())


def test_a_replacement_that_is_rejected_too_is_not_replaced() -> None:
    """The service then rejects the identity; a minute later, another attempt is allowed."""
    fetches = Fetches()

    async def ask() -> None:
        first = await fetches.source.token()
        second = await fetches.source.replacement(first)
        assert second is not None
        assert await fetches.source.replacement(second) is None
        fetches.now += 61
        third = await fetches.source.replacement(second)
        assert third is not None
        assert len(fetches.calls) == 3

    asyncio.run(ask())


def test_the_same_token_again_is_no_replacement() -> None:
    """Sending it again would be rejected again."""
    fetches = Fetches(same=True)

    async def ask() -> None:
        token = await fetches.source.token()
        assert await fetches.source.replacement(token) is None

    asyncio.run(ask())


def test_each_caller_gets_a_separate_error() -> None:
    """An error that several tasks raise would collect the tracebacks of all of them."""
    fetches = Fetches()
    fetches.error = errors.AuthenticationError("Not signed in.", hint="Sign in.", code="no_token")

    async def ask() -> list[BaseException | Token]:
        waiting = (fetches.source.token() for _ in range(3))
        return await asyncio.gather(*waiting, return_exceptions=True)

    found = asyncio.run(ask())
    assert len({id(each) for each in found}) == 3
    for each in found:
        assert isinstance(each, errors.AuthenticationError)
        assert (str(each), each.hint, each.code) == ("Not signed in.", "Sign in.", "no_token")
    assert len(fetches.calls) == 1


def test_a_cancelled_request_does_not_cancel_the_fetch_of_others() -> None:
    """The request that started the fetch may be interrupted."""
    fetches = Fetches()

    async def ask() -> None:
        first = asyncio.create_task(fetches.source.token())
        second = asyncio.create_task(fetches.source.token())
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).value.reveal() == "token-of-the-test-1"
        with pytest.raises(asyncio.CancelledError):
            await first

    asyncio.run(ask())


def test_the_end_of_one_event_loop_does_not_end_the_wait_of_another() -> None:
    """The other event loop fetches the token itself."""
    started = threading.Event()
    calls: list[int] = []

    async def fetch(is_rejected: bool) -> Token:
        calls.append(1)
        if len(calls) == 1:
            started.set()
            await asyncio.sleep(60)
        return Token(Secret("token-of-the-second-loop"), time.time() + 3600)

    source = TokenSource(fetch=fetch)

    async def abandon() -> None:
        task = asyncio.create_task(source.token())
        await asyncio.to_thread(waits.wait, 5)
        task.cancel()

    async def wait() -> str:
        waits.set()
        return (await source.token()).value.reveal()

    waits = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(abandon()))
    thread.start()
    assert started.wait(30)
    assert asyncio.run(asyncio.wait_for(wait(), 5)) == "token-of-the-second-loop"
    thread.join()


def test_expired_tokens_are_forgotten() -> None:
    """Tokens that may still be valid are masked in texts; the number of the others is limited."""
    fetches = Fetches()

    async def ask(hours: int) -> None:
        for _ in range(hours):
            await fetches.value()
            fetches.now += 3550

    before = len(secrets._secrets)
    asyncio.run(ask(3))
    after_three = len(secrets._secrets) - before
    asyncio.run(ask(20))
    assert len(secrets._secrets) - before <= after_three
    last = f"token-of-the-test-{len(fetches.calls)}"
    assert last not in scrub(f"Bearer {last}")


def test_replaced_tokens_without_a_lifetime_are_forgotten() -> None:
    """After an hour; the current one is masked however old it is."""
    count, now = 0, 0.0

    async def fetch(is_rejected: bool) -> Token:
        nonlocal count
        count += 1
        return Token(Secret(f"token-without-lifetime-{max(1, count - 300)}"))

    source = TokenSource(fetch=fetch, clock=lambda: now)

    async def ask(minutes: int) -> None:
        nonlocal now
        for _ in range(minutes):
            await source.token()
            now += 61

    asyncio.run(ask(300))
    assert scrub("token-without-lifetime-1") != "token-without-lifetime-1"
    asyncio.run(ask(300))
    masked = [n for n in range(1, 301) if f"token-without-lifetime-{n}" in secrets._secrets]
    assert masked == list(range(masked[0], 301))
    assert 55 < len(masked) < 65


def test_a_source_shows_no_token() -> None:
    """The ``repr`` of a source and of a token have none."""
    fetches = Fetches()
    token = asyncio.run(fetches.source.token())
    assert "token-of-the-test" not in f"{fetches.source!r} {token!r} {token}"
