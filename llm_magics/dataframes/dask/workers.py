"""
What a worker does with one partition, which is a pandas frame.

Vectors and answers are kept by what they are of, as everywhere: a worker that is lost loses what
it had under way, and whoever does its work anew finds the rest.

One limit for all workers of a cluster: so many requests at once, wherever they are made.

It is a `distributed.Semaphore`, whose places the scheduler takes back from a worker that is
lost. Without a cluster Dask's threads share a place in this process in its stead.

Credentials on their way to the workers of a cluster, outside the task graph.

A graph is pickled, shown and logged in many places. It carries only a name and a pad; the
values themselves, covered by the pad, wait in the scheduler's memory, and in this process for
the tasks that run here.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import threading
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import pandas as pd

from llm_magics.dataframes.answer_columns import ANSWER, columns_of, error_of
from llm_magics.dataframes.arrow import arrow_column
from llm_magics.dataframes.embed import OnError, embedded
from llm_magics.dataframes.prompt_run import Prompted, RowPrompts
from llm_magics.dataframes.search import nearest
from llm_magics.errors import ConfigurationError, LLMError
from llm_magics.runtime.policies.rate_limit import cluster_limit
from llm_magics.settings.config import config

if TYPE_CHECKING:
    from distributed import Semaphore

    from llm_magics.runtime.embedding import EmbedOptions


# Waiting for a place of the cluster's blocks a thread; more than these never wait at once.
_WAITING = 64

_lock = threading.Lock()
_here: dict[tuple[str, int], asyncio.Semaphore] = {}
_of_clusters: dict[tuple[str, str], Semaphore] = {}
_waiters: list[ThreadPoolExecutor] = []


class SharedLimit:
    """
    At most ``most`` requests at once for what is called ``name``.

    It is made where the work is planned, travels with it, and is kept where it is done.
    """

    def __init__(self, name: str, most: int) -> None:
        """Nothing is asked of a cluster yet."""
        self.name = name
        self.most = most

    @contextmanager
    def kept(self) -> Generator[None, None, None]:
        """All calls that are begun inside, in a thread of a worker's, keep it."""
        semaphore = _semaphore(f"llm_magics {self.name} {self.most}", self.most)
        place = _InProcess(self._in_this_process()) if semaphore is None else _InCluster(semaphore)
        token = cluster_limit.set(place)
        try:
            yield
        finally:
            cluster_limit.reset(token)

    def _in_this_process(self) -> asyncio.Semaphore:
        with _lock:
            return _here.setdefault((self.name, self.most), asyncio.Semaphore(self.most))


class _InProcess:
    def __init__(self, semaphore: asyncio.Semaphore) -> None:
        self._semaphore = semaphore

    async def take(self) -> None:
        await self._semaphore.acquire()

    async def give_back(self) -> None:
        self._semaphore.release()


class _InCluster:
    def __init__(self, semaphore: Semaphore) -> None:
        self._semaphore = semaphore

    async def take(self) -> None:
        waiting = _waiter().submit(self._semaphore.acquire)
        try:
            await asyncio.wrap_future(waiting)
        except asyncio.CancelledError:  # the place may come all the same
            waiting.add_done_callback(self._let_go)
            raise

    async def give_back(self) -> None:
        # Nobody waits for the scheduler's answer: a place that is not given back runs out.
        _waiter().submit(self._semaphore.release)

    def _let_go(self, waited: Future[Any]) -> None:
        if not waited.cancelled() and waited.exception() is None:
            _waiter().submit(self._semaphore.release)


def _semaphore(name: str, most: int) -> Semaphore | None:
    """
    The cluster's, or ``None`` where there is none.

    It is made in a task's own thread, for elsewhere it finds no worker, and once in a process,
    for it tells the scheduler now and then that its places are still needed.
    """
    try:
        from distributed import Semaphore, get_worker

        worker = str(get_worker().id)
    except (ImportError, ValueError):
        return None
    with _lock:
        known = _of_clusters.get((worker, name))
        if known is None:
            known = _of_clusters[worker, name] = Semaphore(max_leases=most, name=name)
        return known


def _waiter() -> ThreadPoolExecutor:
    with _lock:
        if not _waiters:
            _waiters.append(ThreadPoolExecutor(_WAITING, "llm_magics-places"))
        return _waiters[0]


_sealed_here: dict[str, Mapping[str, Any]] = {}

# How long a worker waits for the scheduler to have them.
_WAIT_S = 10


class Sealed:
    """Values by name, JSON in kind, that are nowhere in the graph."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        """Keep ``values`` here, and on the scheduler of the current client if there is one."""
        self.name = self._pad = ""
        if not values:
            return
        self.name, self._pad = f"llm_magics-{uuid4().hex}", secrets.token_hex(32)
        _sealed_here[self.name] = values
        variable = _variable(self.name)
        if variable is not None:
            variable.set(_covered(json.dumps(dict(values)).encode(), self._pad).hex())

    def open(self) -> Mapping[str, Any]:
        """
        Return the values, on a worker of whatever process.

        Raises:
            ConfigurationError: they did not travel to this worker.
        """
        if not self.name:
            return {}
        if self.name in _sealed_here:
            return _sealed_here[self.name]
        variable = _variable(self.name)
        try:
            if variable is not None:
                covered = bytes.fromhex(variable.get(timeout=_WAIT_S))
                opened = json.loads(_covered(covered, self._pad))
                _sealed_here[self.name] = opened
                return dict(opened)
        except (TimeoutError, ValueError):
            pass
        msg = "The credentials set in the notebook's session are not known on this worker."
        hint = (
            "Make the distributed.Client before the column is planned, "
            "or set them in the environment of the workers."
        )
        raise ConfigurationError(msg, hint=hint)

    def __repr__(self) -> str:
        return f"Sealed({'****' if self.name else ''})"


def _variable(name: str) -> Any:
    """Return the variable of the cluster's called ``name``; ``None`` where there is no cluster."""
    try:
        from distributed import Variable, get_client

        return Variable(name, client=get_client())
    except (ImportError, ValueError):
        return None


def _covered(data: bytes, pad: str) -> bytes:
    """Return ``data`` under ``pad``, or from under it: the same does both."""
    stream = hashlib.shake_256(pad.encode()).digest(len(data))
    return bytes(a ^ b for a, b in zip(data, stream, strict=True))


_THREADS = "providers.local.threads"

# Tells the process that planned from those that work for it.
_HERE = uuid4().hex


@dataclass
class _Worker:
    """By whose settings this process works, how many partitions at once, and what was set for them."""

    settings: str = ""
    at_work: int = 0
    settled: set[str] = field(default_factory=set)


_worker = _Worker()
_changed = threading.Condition()


@dataclass(frozen=True)
class Orders:
    """
    What all partitions have in common, as it is sent to the workers.

    Attributes:
        settings: those of the session that planned it, without its keys: workers take these
            from their own environment or keyring.
        limit: of requests at once, for the whole cluster.
        dtypes: of the columns that are made, for they must be the same in all partitions.
        credentials: the addresses among the settings with their passwords, and the headers of
            the call, which are not in the graph.
        home: the process that planned, whose session is nobody's to change.
    """

    settings: Mapping[str, Any]
    limit: SharedLimit | None
    dtypes: Mapping[str, Any]
    credentials: Sealed = field(default_factory=lambda: Sealed({}))
    home: str = _HERE

    @classmethod
    def of_session(
        cls,
        limit: SharedLimit | None,
        dtypes: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
    ) -> Orders:
        """Make the orders of the session here, with ``headers`` for each request."""
        sealed = {"settings": config.credentials_here(), "headers": dict(headers or {})}
        return cls(
            config.set_here(), limit, dtypes, Sealed(sealed if any(sealed.values()) else {})
        )

    def complete(self, given: RowPrompts) -> RowPrompts:
        """Return ``given`` with the headers that did not travel in the graph."""
        headers = self.credentials.open().get("headers")
        if not headers:
            return given
        return replace(given, parameters={**given.parameters, "extra_headers": headers})

    @contextmanager
    def settled(self) -> Iterator[None]:
        """
        Work by these settings, and let nobody work by others meanwhile.

        A worker's threads share one session: who wants other settings waits for those at work.
        """
        if self.home == _HERE:
            yield
            return
        key = repr((sorted(self.settings.items()), self.credentials.name))
        with _changed:
            _changed.wait_for(lambda: _worker.settings == key or not _worker.at_work)
            if _worker.settings != key:  # or who works by the same would see them change
                self._settle()
                _worker.settings = key
            _worker.at_work += 1
        try:
            yield
        finally:
            with _changed:
                _worker.at_work -= 1
                _changed.notify_all()

    def _settle(self) -> None:
        """Take on the settings, and no others that orders before had."""
        for key in _worker.settled - set(self.settings):
            config.reset(key)
            _worker.settled.discard(key)
        known = {**config.set_here(), **config.credentials_here()}
        credentials = self.credentials.open().get("settings", {})
        for key, value in {**_share_of_cores(), **self.settings, **credentials}.items():
            if key not in known or known[key] != value:
                config.set(key, value)
                _worker.settled.add(key)


def _share_of_cores() -> dict[str, int]:
    """
    The threads that a model on this worker computes with, where nobody said how many.

    All cores, as in a notebook, would be claimed by each of the workers of one machine.
    """
    if "threads" in config.for_provider("local", ["threads"]):
        return {}
    try:
        from distributed import get_worker

        return {_THREADS: get_worker().state.nthreads}
    except (ImportError, ValueError):  # no worker of a cluster
        return {}


@dataclass(frozen=True)
class Embedding:
    """Who embeds, and how; ``name`` is that of the column of vectors."""

    model: str
    options: EmbedOptions
    on_error: OnError
    name: str


def embed_partition(column: pd.Series[Any], orders: Orders, how: Embedding) -> pd.Series[Any]:
    """The vectors of a partition's column."""
    with orders.settled(), _limited(orders):
        done = embedded(column, how.model, how.options, how.on_error, yes=True)
    if done.error is not None:
        raise _portable(done.error)
    if done.report.counts["failed"] or done.report.counts["no text"]:
        _warn(str(done.report))
    return arrow_column(done.vectors, column.index, how.name)


def ask_partition(view: pd.DataFrame, orders: Orders, given: RowPrompts) -> pd.DataFrame:
    """The answers to what is asked of a partition's rows."""
    with orders.settled(), _limited(orders):
        prompted = Prompted(view, orders.complete(given))
        ended_by = prompted.ask()
    columns = columns_of(prompted)
    if dict(orders.dtypes) == {ANSWER: "string"}:
        columns = columns.astype(dict(orders.dtypes))
    _warn_of_objects(columns, orders.dtypes)
    error = error_of(prompted, ended_by, None, "the cache")
    if error is not None:
        raise _portable(error)
    if prompted.has_failed:
        _warn(str(prompted.report()))
    return columns


def nearest_in_partition(
    frame: pd.DataFrame, on: str, query: np.ndarray[Any, Any], k: int
) -> pd.DataFrame:
    """The rows of a partition that are most like ``query``."""
    frame = frame[frame[on].notna()]
    if frame.empty:
        return frame.assign(cosine=np.empty(0, np.float32))
    found = nearest(frame[on].reset_index(drop=True), query, k=k)
    return frame.iloc[found.index].assign(cosine=found.to_numpy(np.float32))


def _warn_of_objects(columns: pd.DataFrame, dtypes: Mapping[str, Any]) -> None:
    """Say which columns differ from what was planned: to convert them would lose digits."""
    odd = [name for name, dtype in dtypes.items() if columns[name].dtype != dtype]
    if odd:
        told = f"The dtype {dtypes[odd[0]]} cannot hold all values of the column {odd[0]}"
        _warn(f"{told}: this partition has Python objects there", "")


def _limited(orders: Orders) -> AbstractContextManager[None]:
    return orders.limit.kept() if orders.limit is not None else nullcontext()


def _portable(error: BaseException) -> BaseException:
    """An error that can travel: what a service sent along stays behind."""
    if isinstance(error, LLMError):
        hint = error.hint
        told = LLMError(f"{type(error).__name__}: {error}")
        told.hint = hint
        return told
    return error


def _warn(told: str, then: str = "; rows without a result are missing") -> None:
    """In the notebook too, where the work was ordered by a cluster's client."""
    try:
        from distributed.worker import warn
    except ImportError:
        from llm_magics.user_code import warn
    warn(f"{told}{then}")
