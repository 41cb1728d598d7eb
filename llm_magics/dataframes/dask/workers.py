"""
The tasks of a Dask worker on one partition (a pandas frame), their shared limit and credentials.

Vectors and answers are cached by content: if a worker is lost, only its requests in flight are
repeated. `SharedLimit` limits the concurrent requests of all workers with a
`distributed.Semaphore`; the scheduler reclaims the leases of a lost worker. Without a cluster,
Dask's threads share a semaphore of this process. `SealedValues` transfers credentials to the
workers outside the task graph, because the graph is pickled, displayed and logged. The graph has
only a name and a pad. The encrypted values are in the scheduler's memory, and in this process for
tasks that run here.
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
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import numpy as np
import pandas as pd

from llm_magics.dataframes.answer_columns import ANSWER, build_columns
from llm_magics.dataframes.arrow import arrow_column
from llm_magics.dataframes.embed import embed_rows
from llm_magics.dataframes.prompt_run import RowPromptRun
from llm_magics.dataframes.prompting import final_error
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.dataframes.rows import OnError
from llm_magics.dataframes.search import nearest
from llm_magics.errors import ConfigurationError, LLMError
from llm_magics.runtime.policies.rate_limit import cluster_limit
from llm_magics.settings.config import config

if TYPE_CHECKING:
    from distributed import Semaphore

    from llm_magics.runtime.embedding import EmbedOptions


# Acquiring a lease of the cluster's semaphore blocks a thread. This is the maximum number of them.
_MAX_BLOCKED_THREADS = 64

_Error = TypeVar("_Error", bound=BaseException)

_lock = threading.Lock()
_local_semaphores: dict[tuple[str, int], asyncio.Semaphore] = {}
_cluster_semaphores: dict[tuple[str, str], Semaphore] = {}
_lease_pools: list[ThreadPoolExecutor] = []


class SharedLimit:
    """
    A limit of ``most`` concurrent requests, shared under ``name`` by all workers.

    It is created by the client, pickled with the tasks, and enforced on the workers.
    """

    def __init__(self, name: str, most: int) -> None:
        """Set the limit; nothing is sent to a cluster yet."""
        self.name = name
        self.most = most

    @contextmanager
    def enforce(self) -> Generator[None, None, None]:
        """Apply the limit to all calls started inside the block, in the thread of a worker."""
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
        except asyncio.CancelledError:  # the lease may still be granted, and is then released
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
    Return the semaphore of the cluster, or ``None`` without a cluster.

    It is created in the thread of a task, because it needs the current worker. Each process has
    only one per worker and name, because each refreshes its leases at the scheduler periodically.
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

# The time that a worker waits for sealed values from the scheduler.
_READ_TIMEOUT_S = 10


class SealedValues:
    """JSON values by name that are not stored in the task graph."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        """Store ``values`` here, and encrypted on the scheduler of the current client, if any."""
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
        Return the values, in this process or on a worker.

        Raises:
            ConfigurationError: the values are not available on this worker.
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
    """Return the cluster variable called ``name``, or ``None`` without a cluster."""
    try:
        from distributed import Variable, get_client

        return Variable(name, client=get_client())
    except (ImportError, ValueError):
        return None


def _xor_with_pad(data: bytes, pad: str) -> bytes:
    """Encrypt or decrypt ``data`` with ``pad``; both are the same operation."""
    stream = hashlib.shake_256(pad.encode()).digest(len(data))
    return bytes(a ^ b for a, b in zip(data, stream, strict=True))


_THREADS = "providers.local.threads"

# Identifies this process, to distinguish the client from its workers.
_PROCESS_ID = uuid4().hex


@dataclass
class _WorkerState:
    """The settings that this process applies, its running partitions, and the names of settings."""

    settings: str = ""
    at_work: int = 0
    applied: set[str] = field(default_factory=set)


_worker = _WorkerState()
_settings_changed = threading.Condition()


@dataclass(frozen=True, kw_only=True)
class WorkerTask:
    """
    The values that all partitions share, sent to the workers.

    Attributes:
        settings: the settings of the client's session, without API keys: workers take keys from
            their own environment or keyring.
        limit: the limit of concurrent requests in the cluster.
        dtypes: the dtypes of the new columns, which must be the same in all partitions.
        credentials: addresses with passwords among the settings, and the headers of the call,
            which are not in the graph.
        home: the id of the client's process, whose settings tasks must not change.
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
        """Create a task from the session of this process, with ``headers`` for each request."""
        sealed = {"settings": config.credentials_here(), "headers": dict(headers or {})}
        return cls(
            settings=config.set_here(),
            limit=limit,
            dtypes=dtypes,
            credentials=SealedValues(sealed if any(sealed.values()) else {}),
        )

    def complete(self, prompt_spec: RowPrompts) -> RowPrompts:
        """Return ``prompt_spec`` with the headers, which are not stored in the graph."""
        headers = self.credentials.open().get("headers")
        if not headers:
            return prompt_spec
        return replace(
            prompt_spec, parameters={**prompt_spec.parameters, "extra_headers": headers}
        )

    @contextmanager
    def apply_settings(self) -> Iterator[None]:
        """
        Apply these settings inside the block, and block tasks with other settings.

        The threads of a worker share one session, so a task with other settings waits for the
        running tasks.
        """
        if self.home == _PROCESS_ID:
            yield
            return
        key = repr((sorted(self.settings.items()), self.credentials.name))
        with _settings_changed:
            _settings_changed.wait_for(lambda: _worker.settings == key or not _worker.at_work)
            if _worker.settings != key:  # no change while tasks with these settings are running
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
        """Apply the settings, and reset those that an earlier task applied."""
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
    Return the number of threads for a model on this worker, unless the setting exists.

    With the default, each of the workers of a machine would use all its cores.
    """
    if "threads" in config.for_provider("local", ["threads"]):
        return {}
    try:
        from distributed import get_worker

        return {_THREADS: get_worker().state.nthreads}
    except (ImportError, ValueError):  # this process is not a worker
        return {}


@dataclass(frozen=True, kw_only=True)
class EmbeddingSpec:
    """The embedding model and options; ``name`` is the name of the column of vectors."""

    model: str
    options: EmbedOptions
    on_error: OnError
    name: str


def embed_partition(
    column: pd.Series[Any], task: WorkerTask, how: EmbeddingSpec
) -> pd.Series[Any]:
    """Return the vectors of a partition's column."""
    with task.apply_settings(), with_limit(task):
        done = embed_rows(column, how.model, how.options, how.on_error, yes=True)
    if done.error is not None:
        raise picklable_error(done.error)
    if done.report.counts["failed"] or done.report.counts["no text"]:
        _warn(str(done.report))
    return arrow_column(done.vectors, column.index, how.name)


def ask_partition(view: pd.DataFrame, task: WorkerTask, prompt_spec: RowPrompts) -> pd.DataFrame:
    """Send the prompts of a partition's rows; return the columns of their answers."""
    with task.apply_settings(), with_limit(task):
        run = RowPromptRun(view, task.complete(prompt_spec))
        ended_by = run.ask()
    columns = build_columns(run)
    if dict(task.dtypes) == {ANSWER: "string"}:
        columns = columns.astype(dict(task.dtypes))
    _warn_of_objects(columns, task.dtypes)
    error = final_error(run, ended_by, None, "the cache")
    if error is not None:
        raise picklable_error(error)
    if run.has_failed:
        _warn(str(run.report()))
    return columns


def nearest_in_partition(
    frame: pd.DataFrame, on: str, query: np.ndarray[Any, Any], k: int
) -> pd.DataFrame:
    """Return the ``k`` rows of a partition nearest to ``query``, with their cosines."""
    frame = frame[frame[on].notna()]
    if frame.empty:
        return frame.assign(cosine=np.empty(0, np.float32))
    found = nearest(frame[on].reset_index(drop=True), query, k=k)
    return frame.iloc[found.index].assign(cosine=found.to_numpy(np.float32))


def _warn_of_objects(columns: pd.DataFrame, dtypes: Mapping[str, Any]) -> None:
    """Warn of columns without the planned dtype, which cannot hold their values exactly."""
    odd = [name for name, dtype in dtypes.items() if columns[name].dtype != dtype]
    if odd:
        message = f"The dtype {dtypes[odd[0]]} cannot hold all values of the column {odd[0]}"
        _warn(f"{message}: this partition has Python objects there", "")


def with_limit(task: WorkerTask) -> AbstractContextManager[None]:
    """Return the block in which the limit of ``task`` applies."""
    return task.limit.enforce() if task.limit is not None else nullcontext()


def picklable_error(error: _Error) -> _Error | LLMError:
    """Return an error that can be pickled, without the attributes of a provider's error."""
    if isinstance(error, LLMError):
        hint = error.hint
        copy = LLMError(f"{type(error).__name__}: {error}")
        copy.hint = hint
        return copy
    return error


def _warn(message: str, then: str = "; rows without a result are missing") -> None:
    """Issue a warning that a cluster's client also shows in the notebook."""
    try:
        from distributed.worker import warn
    except ImportError:
        from llm_magics.host import warn
    warn(f"{message}{then}")
