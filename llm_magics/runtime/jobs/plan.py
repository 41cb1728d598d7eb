"""Which requests of a run are in which jobs, and which are still open."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import NamedTuple, overload

from llm_magics.errors import LLMError, ProviderError
from llm_magics.runtime.jobs.input_file import InputFile
from llm_magics.runtime.jobs.work import Work
from llm_magics.runtime.storage.job_journal import Found, JobRecord, Journal, RowState


@dataclass(slots=True)
class Followed:
    """
    A job of this run.

    Attributes:
        input: its input file and lock, if it is new.
        record: the job in the journal; before it is driven, its state in the plan.
        rows, numbers: its rows in this run, and their numbers in the work; of a new job, all.
    """

    id: str
    _: KW_ONLY
    input: InputFile | None = None
    record: JobRecord | None = None
    rows: array[int] = field(default_factory=lambda: array("q"))
    numbers: array[int] = field(default_factory=lambda: array("q"))
    was_ended: bool = False

    def __post_init__(self) -> None:
        self.was_ended = self.record is not None and self.record.state == "ended"


class Plan(NamedTuple):
    """
    What to do with the requests of a run.

    Attributes:
        free: the numbers of those that no job has.
        jobs: the jobs that have the others.
        submitted: the number of these others.
    """

    free: list[int]
    jobs: list[Followed]
    submitted: int


class RowProgress:
    """
    The requests of a run: those with an answer, those with an error, and the open ones.

    Attributes:
        errors: the reasons for missing answers, by number.
    """

    def __init__(self, missing: Sequence[int]) -> None:
        self._missing = missing
        self._done = bytearray(max(missing, default=-1) + 1)  # by number
        self.errors: dict[int, LLMError] = {}

    @property
    def pending(self) -> int:
        """The number of open requests."""
        return len(self._missing) - sum(self._done) - len(self.errors)

    def open_numbers(self) -> Iterator[int]:
        """Yield the numbers of open requests."""
        for number in self._missing:
            if not self._done[number] and number not in self.errors:
                yield int(number)

    def mark_done(self, number: int) -> None:
        """Record that a request has an answer."""
        self._done[number] = True

    def mark_read(self, numbers: array[int], errors: Mapping[int, LLMError]) -> None:
        """Record that the results of ``numbers``, except -1, were read."""
        for number in numbers:
            if number >= 0:
                self._done[number] = number not in errors


def make_plan(
    journal: Journal, work: Work, rows: RowProgress, is_free: Callable[[Found], bool]
) -> Plan:
    """Look up the open requests; ``is_free`` decides whether one in a job is submitted again."""
    free: list[int] = []
    jobs: dict[str, Followed] = {}
    submitted = 0
    for numbers in _slices(rows.open_numbers()):
        keys = [work.key(number) for number in numbers]
        found = journal.find(keys)
        for number, key in zip(numbers, keys, strict=True):
            place = found.get(key)
            if place is None or is_free(place):
                free.append(number)
                continue
            submitted += 1
            if place.job.id not in jobs:
                jobs[place.job.id] = Followed(place.job.id, record=place.job)
            jobs[place.job.id].rows.append(place.number)
            jobs[place.job.id].numbers.append(number)
    return Plan(free, list(jobs.values()), submitted)


def rows_to_read(journal: Journal, followed: Followed, rows: RowProgress) -> array[int]:
    """
    Return the number in the work of each row of the job to be read; -1 for other rows.

    What another kernel has read while this one waited is taken from the journal and the cache.
    """
    assert followed.record is not None
    if followed.input is not None:
        return followed.input.numbers
    numbers = array("q", [-1]) * followed.record.rows
    for row, number in zip(followed.rows, followed.numbers, strict=True):
        numbers[row] = number
    for row, state, error in journal.rows_of(followed.record):
        number, numbers[row] = numbers[row], -1
        if number < 0:
            continue
        if state is RowState.OPEN or (state is RowState.STORED and followed.was_ended):
            numbers[row] = number
        elif state is RowState.STORED:
            rows.mark_done(number)
        else:
            rows.errors[number] = ProviderError(
                f"The request failed ({error}). Another notebook has read the reason.",
                hint="Run the cell again to submit it again.",
                provider=followed.record.provider,
            )
    return numbers


class Keys(Sequence[bytes]):
    """The keys of requests, which are not held."""

    def __init__(self, work: Work, numbers: Sequence[int]) -> None:
        self._work = work
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self._work.key(number) for number in self._numbers[index]]
        return self._work.key(self._numbers[index])


def _slices(numbers: Iterable[int], size: int = 2000) -> Iterator[list[int]]:
    part: list[int] = []
    for number in numbers:
        part.append(number)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part
