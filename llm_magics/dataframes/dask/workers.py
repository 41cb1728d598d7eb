"""
The work of a Dask worker on one partition (a pandas frame), its shared limit and credentials.

Vectors and answers are cached by their content, as everywhere: if a worker is lost, only its
requests in flight are repeated. `SharedLimit` bounds the requests of all workers of a cluster by a
`distributed.Semaphore`, whose leases the scheduler takes back from a lost worker; without a cluster
Dask's threads share a semaphore of this process. `SealedValues` brings credentials to the workers
outside the task graph, which is pickled, displayed and logged in many ways: the graph carries only
a name and a pad, and the encrypted values stay in the scheduler's memory, and in this process for
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

from llm_magics.dataframes.arrow import arrow_column
from llm_magics.dataframes.embed import embed_rows
from llm_magics.dataframes.prompt_run import RowPromptRun, RowPrompts
from llm_magics.dataframes.prompting import ANSWER, build_columns, final_error
from llm_magics.dataframes.rows import OnError
from llm_magics.dataframes.search import nearest
from llm_magics.errors import ConfigurationError, LLMError
from llm_magics.runtime.policies.rate_limit import cluster_limit
from llm_magics.settings.config import config

if TYPE_CHECKING:
    from distributed import Semaphore

    from llm_magics.runtime.embedding import EmbedOptions


# Acquiring a lease of the cluster's semaphore blocks a thread; at most this many block at once.
_MAX_BLOCKED_THREADS = 64

_lock = threading.Lock()
_local_semaphores: dict[tuple[str, int], asyncio.Semaphore] = {}
_cluster_semaphores: dict[tuple[str, str], Semaphore] = {}
_lease_pools: list[ThreadPoolExecutor] = []


class SharedLimit:
    """
    At most ``most`` requests at once for what is called ``name``.

    It is created where the work is planned, travels with it, and is enforced where it is done.
    """

    def __init__(self, name: str, most: int) -> None:
        """Set the limit; nothing is sent to a cluster yet."""
        self.name = name
        self.most = most

    @contextmanager
    def enforce(self) -> Generator[None, None, None]:
        """All calls that are begun inside, in a thread of a worker's, keep it."""
        semaphore = _cluster_semaphore(f"llm_magics {self.name} {self.most}", self.most)
        slots = (
            _LocalSlots(self._in_this_process()) if semaphore is None else _ClusterSlots(semaphore)
        )
        token = cluster_limit.set(slots)
        try:
            yield
        finally:
            cluster_limit.reset(token)

    def _in_this_process(self) -> asyncio.Semaphore:
        with _lock:
            return _local_semaphores.setdefault(
                (self.name, self.most), asyncio.Semaphore(self.most)
            )


class _LocalSlots:
    def __init__(self, semaphore: asyncio.Semaphore) -> None:
        self._semaphore = semaphore

    async def take(self) -> None:
        await self._semaphore.acquire()

    async def give_back(self) -> None:
        self._semaphore.release()


class _ClusterSlots:
    def __init__(self, semaphore: Semaphore) -> None:
        self._semaphore = semaphore

    async def take(self) -> None:
        waiting = _lease_pool().submit(self._semaphore.acquire)
        try:
            await asyncio.wrap_future(waiting)
        except asyncio.CancelledError:  # the lease may be granted all the same
            waiting.add_done_callback(self._let_go)
            raise

    async def give_back(self) -> None:
        # The scheduler's answer is not awaited: a lease that is not released times out.
        _lease_pool().submit(self._semaphore.release)

    def _let_go(self, waited: Future[Any]) -> None:
        if not waited.cancelled() and waited.exception() is None:
            _lease_pool().submit(self._semaphore.release)


def _cluster_semaphore(name: str, most: int) -> Semaphore | None:
    """
    The cluster's, or ``None`` where there is none.

    It is created in a task's own thread, for elsewhere it finds no worker, and once in a process,
    for it tells the scheduler now and then that its places are still needed.
    """
    try:
        from distributed import Semaphore, get_worker

        worker = str(get_worker().id)
    except (ImportError, ValueError):
        return None
    with _lock:
        known = _cluster_semaphores.get((worker, name))
        if known is None:
            known = _cluster_semaphores[worker, name] = Semaphore(max_leases=most, name=name)
        return known


def _lease_pool() -> ThreadPoolExecutor:
    with _lock:
        if not _lease_pools:
            _lease_pools.append(ThreadPoolExecutor(_MAX_BLOCKED_THREADS, "llm_magics-places"))
        return _lease_pools[0]


_sealed_in_process: dict[str, Mapping[str, Any]] = {}

# How long a worker polls the scheduler for them.
_READ_TIMEOUT_S = 10


class SealedValues:
    """Values by name, JSON in kind, that are nowhere in the graph."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        """Keep ``values`` here, and on the scheduler of the current client if there is one."""
        self.name = self._pad = ""
        if not values:
            return
        self.name, self._pad = f"llm_magics-{uuid4().hex}", secrets.token_hex(32)
        _sealed_in_process[self.name] = values
        variable = _variable(self.name)
        if variable is not None:
            variable.set(_xor_with_pad(json.dumps(dict(values)).encode(), self._pad).hex())

    def open(self) -> Mapping[str, Any]:
        """
        Return the values, on a worker of whatever process.

        Raises:
            ConfigurationError: they did not travel to this worker.
        """
        if not self.name:
            return {}
        if self.name in _sealed_in_process:
            return _sealed_in_process[self.name]
        variable = _variable(self.name)
        try:
            if variable is not None:
                covered = bytes.fromhex(variable.get(timeout=_READ_TIMEOUT_S))
                opened = json.loads(_xor_with_pad(covered, self._pad))
                _sealed_in_process[self.name] = opened
                return dict(opened)
        except (TimeoutError, ValueError):
            pass
        msg = "The credentials of the notebook's session are not available on this worker."
        hint = (
            "Create the distributed.Client before the column is planned, "
            "or set them in the environment of the workers."
        )
        raise ConfigurationError(msg, hint=hint)

    def __repr__(self) -> str:
        return f"SealedValues({'****' if self.name else ''})"


def _variable(name: str) -> Any:
    """Return the variable of the cluster's called ``name``; ``None`` where there is no cluster."""
    try:
        from distributed import Variable, get_client

        return Variable(name, client=get_client())
    except (ImportError, ValueError):
        return None


def _xor_with_pad(data: bytes, pad: str) -> bytes:
    """Return ``data`` under ``pad``, or from under it: the same does both."""
    stream = hashlib.shake_256(pad.encode()).digest(len(data))
    return bytes(a ^ b for a, b in zip(data, stream, strict=True))


_THREADS = "providers.local.threads"

# Tells the process that planned from those that work for it.
_PROCESS_ID = uuid4().hex


@dataclass
class _WorkerState:
    """By whose settings this process works, how many partitions at once, and what was set for them."""

    settings: str = ""
    at_work: int = 0
    applied: set[str] = field(default_factory=set)


_worker = _WorkerState()
_settings_changed = threading.Condition()


@dataclass(frozen=True, kw_only=True)
class WorkerTask:
    """
    What all partitions have in common, as it is sent to the workers.

    Attributes:
        settings: those of the session that planned it, without its keys: workers take these
            from their own environment or keyring.
        limit: of concurrent requests in the cluster.
        dtypes: of the new columns, which must be the same in all partitions.
        credentials: the addresses among the settings with their passwords, and the headers of
            the call, which are not in the graph.
        home: the process that planned, whose session is nobody's to change.
    """

    settings: Mapping[str, Any]
    limit: SharedLimit | None
    dtypes: Mapping[str, Any]
    credentials: SealedValues = field(default_factory=lambda: SealedValues({}))
    home: str = _PROCESS_ID

    @classmethod
    def of_session(
        cls,
        limit: SharedLimit | None,
        dtypes: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
    ) -> WorkerTask:
        """Make the task of the session here, with ``headers`` for each request."""
        sealed = {"settings": config.credentials_here(), "headers": dict(headers or {})}
        return cls(
            settings=config.set_here(),
            limit=limit,
            dtypes=dtypes,
            credentials=SealedValues(sealed if any(sealed.values()) else {}),
        )

    def complete(self, prompt_spec: RowPrompts) -> RowPrompts:
        """Return ``prompt_spec`` with the headers that did not travel in the graph."""
        headers = self.credentials.open().get("headers")
        if not headers:
            return prompt_spec
        return replace(
            prompt_spec, parameters={**prompt_spec.parameters, "extra_headers": headers}
        )

    @contextmanager
    def apply_settings(self) -> Iterator[None]:
        """
        Work by these settings, and let nobody work by others meanwhile.

        A worker's threads share one session: a task with other settings starts after those running.
        """
        if self.home == _PROCESS_ID:
            yield
            return
        key = repr((sorted(self.settings.items()), self.credentials.name))
        with _settings_changed:
            _settings_changed.wait_for(lambda: _worker.settings == key or not _worker.at_work)
            if _worker.settings != key:  # or who works by the same would see them change
                self._take_settings()
                _worker.settings = key
            _worker.at_work += 1
        try:
            yield
        finally:
            with _settings_changed:
                _worker.at_work -= 1
                _settings_changed.notify_all()

    def _take_settings(self) -> None:
        """Take on the settings, and no others that an earlier task had."""
        for key in _worker.applied - set(self.settings):
            config.reset(key)
            _worker.applied.discard(key)
        known = {**config.set_here(), **config.credentials_here()}
        credentials = self.credentials.open().get("settings", {})
        for key, value in {**_threads_per_worker(), **self.settings, **credentials}.items():
            if key not in known or known[key] != value:
                config.set(key, value)
                _worker.applied.add(key)


def _threads_per_worker() -> dict[str, int]:
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


@dataclass(frozen=True, kw_only=True)
class EmbeddingSpec:
    """Who embeds, and how; ``name`` is that of the column of vectors."""

    model: str
    options: EmbedOptions
    on_error: OnError
    name: str


def embed_partition(
    column: pd.Series[Any], task: WorkerTask, how: EmbeddingSpec
) -> pd.Series[Any]:
    """The vectors of a partition's column."""
    with task.apply_settings(), _with_limit(task):
        done = embed_rows(column, how.model, how.options, how.on_error, yes=True)
    if done.error is not None:
        raise _picklable_error(done.error)
    if done.report.counts["failed"] or done.report.counts["no text"]:
        _warn(str(done.report))
    return arrow_column(done.vectors, column.index, how.name)


def ask_partition(view: pd.DataFrame, task: WorkerTask, prompt_spec: RowPrompts) -> pd.DataFrame:
    """Send the prompts of a partition's rows; return the columns of their answers."""
    with task.apply_settings(), _with_limit(task):
        run = RowPromptRun(view, task.complete(prompt_spec))
        ended_by = run.ask()
    columns = build_columns(run)
    if dict(task.dtypes) == {ANSWER: "string"}:
        columns = columns.astype(dict(task.dtypes))
    _warn_of_objects(columns, task.dtypes)
    error = final_error(run, ended_by, None, "the cache")
    if error is not None:
        raise _picklable_error(error)
    if run.has_failed:
        _warn(str(run.report()))
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
        message = f"The dtype {dtypes[odd[0]]} cannot hold all values of the column {odd[0]}"
        _warn(f"{message}: this partition has Python objects there", "")


def _with_limit(task: WorkerTask) -> AbstractContextManager[None]:
    return task.limit.enforce() if task.limit is not None else nullcontext()


def _picklable_error(error: BaseException) -> BaseException:
    """An error that can travel: what a service sent along stays behind."""
    if isinstance(error, LLMError):
        hint = error.hint
        copy = LLMError(f"{type(error).__name__}: {error}")
        copy.hint = hint
        return copy
    return error


def _warn(message: str, then: str = "; rows without a result are missing") -> None:
    """In the notebook too, where the work was ordered by a cluster's client."""
    try:
        from distributed.worker import warn
    except ImportError:
        from llm_magics.host import warn
    warn(f"{message}{then}")
