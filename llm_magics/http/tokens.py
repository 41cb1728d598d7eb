"""
Tokens of an identity that replace an API key: fetched when needed, and again before they expire.

A `TokenSource` is shared by all requests of a provider. However many requests need a token at the
same time, it is fetched once. A service may reject a token before it expires, for example after a
change of rights; the source then fetches another one, once.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass, field

from llm_magics.errors import ProviderError
from llm_magics.secrets import Secret, forget_secret

# A token is fetched again this long before it expires, but not in the first half of its life.
_MARGIN_S = 300.0

# How long a token without an expiry is used. Identity libraries return tokens from their own
# cache that remain valid for some minutes.
_UNKNOWN_LIFETIME_S = 60.0

# How long to use a token that is still valid after an early refresh has failed.
_RETRY_REFRESH_S = 30.0

# A token whose lifetime is unknown is masked in texts for this time after it was replaced.
_MASKED_S = 3600.0

# A token that replaced a rejected one is not replaced again within this time, because the service
# then rejects the identity.
_REPLACEMENT_S = 60.0


@dataclass(frozen=True, slots=True)
class Token:
    """
    A token to be sent in place of a key.

    Attributes:
        value: the token.
        expires_at: the Unix time at which it expires; ``None`` if unknown.
    """

    value: Secret
    expires_at: float | None = None


@dataclass(slots=True)
class Renewals:
    """The number of requests of one call that were sent again with another token."""

    count: int = 0


# Set by a caller that counts them, in the context (task) that makes the call.
RENEWALS: ContextVar[Renewals | None] = ContextVar("RENEWALS", default=None)


# Returns a token. The argument is whether the last one was rejected, so that it must not be from
# a cache.
TokenFetcher = Callable[[bool], Awaitable[Token]]


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    """A fetched token, when to fetch the next one, and when a rejected one was replaced by it."""

    token: Token
    refresh_at: float
    replaced_at: float | None = None


class _AbandonedError(Exception):
    """The event loop on which a token was being fetched has ended."""


@dataclass(kw_only=True, eq=False)
class TokenSource:
    """
    The current token of an identity, shared by requests of any thread and event loop.

    Attributes:
        fetch: fetches a token.
        rejections: the statuses with which the service rejects a token.
        clock: the current Unix time.
    """

    fetch: TokenFetcher = field(repr=False)
    rejections: frozenset[int] = frozenset({401})
    clock: Callable[[], float] = field(default=time.time, repr=False)
    _entry: _Entry | None = field(default=None, repr=False)
    _fetching: Future[_Entry] | None = field(default=None, repr=False)
    _former: list[Token] = field(default_factory=list, repr=False)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    async def token(self) -> Token:
        """
        Return a valid token.

        Raises:
            ProviderError: no token could be fetched.
        """
        entry = self._entry
        if entry is not None and self.clock() < entry.refresh_at:
            return entry.token
        try:
            return (await self._refreshed(entry, is_rejected=False)).token
        except ProviderError:
            if entry is None or not self._is_valid(entry.token):
                raise
            # Only an early refresh has failed.
            with self._lock:
                if self._entry is entry:
                    refresh_at = self.clock() + _RETRY_REFRESH_S
                    self._entry = _Entry(entry.token, refresh_at, entry.replaced_at)
            return entry.token

    async def replacement(self, rejected: Token) -> Token | None:
        """
        Return another token than ``rejected``; ``None`` if the service would reject it too.

        Raises:
            ProviderError: no token could be fetched.
        """
        entry = self._entry
        if entry is None or entry.token is rejected:
            now = self.clock()
            replaced_at = entry.replaced_at if entry is not None else None
            if replaced_at is not None and now - replaced_at < _REPLACEMENT_S:
                return None
            entry = await self._refreshed(entry, is_rejected=True)
        return entry.token if entry.token.value != rejected.value else None

    def _is_valid(self, token: Token) -> bool:
        return token.expires_at is not None and self.clock() < token.expires_at

    async def _refreshed(self, old: _Entry | None, *, is_rejected: bool) -> _Entry:
        """Return the entry that replaces ``old``; all callers wait for the same one."""
        while True:
            with self._lock:
                if self._entry is not None and self._entry is not old:
                    return self._entry  # it was replaced in the meantime
                fetching = self._fetching
                if fetching is None:
                    fetching = self._fetching = Future()
                    # A separate task, because other requests may wait for the token when the
                    # request that started the task is cancelled.
                    task = asyncio.get_running_loop().create_task(
                        self._run(fetching, is_rejected=is_rejected)
                    )
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
            try:
                return await asyncio.shield(asyncio.wrap_future(fetching))
            except _AbandonedError:
                continue
            except ProviderError as error:  # each caller raises a separate error
                raise type(error)(str(error), hint=error.hint, **error.details()) from None

    async def _run(self, fetching: Future[_Entry], *, is_rejected: bool) -> None:
        """Fetch a token, and pass it to all callers that wait for ``fetching``."""
        fetching.set_running_or_notify_cancel()  # a caller that is cancelled does not cancel it
        try:
            token = await self.fetch(is_rejected)
        except BaseException as error:
            with self._lock:
                self._fetching = None
            if isinstance(error, Exception):
                fetching.set_exception(error)
                return
            fetching.set_exception(_AbandonedError())
            raise
        now = self.clock()
        entry = _Entry(token, _refresh_time(token, now), now if is_rejected else None)
        with self._lock:
            old, self._entry, self._fetching = self._entry, entry, None
        if old is not None:
            self._forget_expired(old.token)
        fetching.set_result(entry)

    def _forget_expired(self, replaced: Token) -> None:
        """Stop masking tokens that have expired, so that a long session does not collect them."""
        if replaced.expires_at is None:
            replaced = Token(replaced.value, self.clock() + _MASKED_S)
        known = [*self._former, replaced]
        self._former = [each for each in known if self._is_valid(each)]
        masked = {each.value for each in self._former}
        if self._entry is not None:
            masked.add(self._entry.token.value)
        for each in known:
            if each.value not in masked:
                forget_secret(each.value.reveal())


def _refresh_time(token: Token, now: float) -> float:
    if token.expires_at is None:
        return now + _UNKNOWN_LIFETIME_S
    lifetime_s = token.expires_at - now
    return token.expires_at - min(_MARGIN_S, lifetime_s / 2)
