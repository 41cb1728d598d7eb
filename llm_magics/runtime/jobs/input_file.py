"""The requests of a job as lines in a file, split by the caps of the service."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from io import BufferedWriter
from pathlib import Path
from uuid import uuid4

from llm_magics._util.filesystem import FileLock
from llm_magics._util.text import reason_of
from llm_magics.errors import JobError, LLMError, ProviderError, UnsupportedError
from llm_magics.providers.batches.offline import LiveRequest
from llm_magics.providers.batches.service import BatchService
from llm_magics.runtime.jobs.work import Work
from llm_magics.runtime.storage.job_journal import Journal

# The event loop is given to others after this number of requests.
_STEP = 100

_LINES = "lines.jsonl"


class InputFile:
    """
    The requests of one job, in its folder, which is locked until the job is driven.

    Attributes:
        id: our identifier of the job.
        path: the path of its live requests.
        lines: the file, one request per line.
        numbers: the numbers of the requests, in the order of the lines.
        lock: the lock on the job; ``None`` after its driver has taken it.
    """

    def __init__(self, folder: Path, path: str) -> None:
        self.id = uuid4().hex[:20]
        self.path = path
        self.numbers = array("q")
        self.bytes = 0
        self._folder = folder / self.id
        self._folder.mkdir(parents=True, mode=0o700)
        self.lock = FileLock.try_acquire(self._folder)
        self.lines = self._folder / _LINES
        self.lines.touch(mode=0o600)  # prompts are private
        self._file: BufferedWriter | None = self.lines.open("wb")

    def add(self, number: int, line: bytes) -> None:
        """Append the line of a request."""
        assert self._file is not None
        self._file.write(line + b"\n")
        self.numbers.append(number)
        self.bytes += len(line) + 1

    def close(self) -> None:
        """Finish writing."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def release(self) -> None:
        """Delete the lines, which the service has, and end the lock."""
        self.close()
        with suppress(OSError):
            self.lines.unlink()
        if self.lock is not None:
            self.lock.release()
            self.lock = None

    def discard(self) -> None:
        """Delete the file of a job that was not claimed."""
        self.release()
        with suppress(OSError):
            self._folder.rmdir()


def delete_remains(folder: Path, journal: Journal) -> None:
    """Delete the requests of notebooks that were killed before a service had them: prompts are private."""
    for lines in folder.glob(f"*/{_LINES}"):
        with suppress(OSError):
            lock = FileLock.try_acquire(lines.parent)
            if lock is None:
                continue
            try:
                lines.unlink()
            finally:
                lock.release()
            if not journal.has_job(lines.parent.name):  # otherwise its driver needs the folder
                lines.parent.rmdir()


async def write_input_files(
    folder: Path,
    service: BatchService,
    work: Work,
    numbers: Sequence[int],
    files: list[InputFile],
) -> AsyncGenerator[tuple[int, LLMError | None], None]:
    """
    Write requests to new files, which are appended to ``files``.

    Yields:
        Now and then the number of written requests and ``None``; for a request that cannot be
        made, its number and the error.

    Raises:
        UnsupportedError: the service does not accept such requests in a job.
        JobError: the files cannot be written.
    """
    limits = service.limits
    largest = limits.requests if work.kind == "chat" else limits.inputs or limits.requests
    try:
        for done, number in enumerate(numbers):
            if done % _STEP == 0:
                yield done, None
                await asyncio.sleep(0)
            try:
                request = await work.request(number)
            except UnsupportedError:
                raise
            except LLMError as error:
                yield number, error
                continue
            _check_path(service, request)
            file = files[-1] if files else None
            is_full = file is not None and (
                len(file.numbers) >= largest or file.path != request.path
            )
            if file is None or is_full:
                file = _next_file(folder, request.path, files)
            line = _line(service, file, request)
            if len(line) + 1 > limits.bytes:
                msg = f"The request has {len(line):,} bytes, and {service.provider.name} accepts {limits.bytes:,} in a batch job."
                yield number, ProviderError(msg, hint="Send it without batch=True.")
                continue
            if file.bytes + len(line) + 1 > limits.bytes:
                file = _next_file(folder, request.path, files)
                line = _line(service, file, request)
            file.add(number, line)
    except OSError as error:
        msg = f"Could not write the requests of a batch job to {folder}: {reason_of(error)}."
        hint = (
            "Check the free space, the permissions and the locks of the folder, or set cache_dir."
        )
        raise JobError(msg, hint=hint) from error
    finally:
        for file in files:
            file.close()


def _line(service: BatchService, file: InputFile, request: LiveRequest) -> bytes:
    return service.encode(f"{file.id}-{len(file.numbers)}", request.path, request.body)


def _next_file(folder: Path, path: str, files: list[InputFile]) -> InputFile:
    if files:
        files[-1].close()
    files.append(InputFile(folder, path))
    return files[-1]


def _check_path(service: BatchService, request: LiveRequest) -> None:
    if service.paths and request.path not in service.paths:
        msg = f"{service.provider.name} does not accept {request.path} in batch jobs."
        hint = f"It accepts {', '.join(sorted(service.paths))}."
        raise UnsupportedError(msg, hint=hint, provider=service.provider.name)
