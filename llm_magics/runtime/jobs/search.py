"""
Finds out whether a service has a job whose creation was not answered.

Most services store our identifier with a job and list it. Anthropic does not: there a batch of the
same size that this journal does not know may be the job, until its results show whose it is.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

from llm_magics.errors import ResultsGoneError
from llm_magics.providers.batches.service import BatchService, JobStatus
from llm_magics.runtime.storage.job_journal import JobRecord, Journal

# The clocks of this machine and of the service may differ by this much.
_CLOCK_SKEW_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Sighting:
    """The job, if the service has it; otherwise the number of batches that may be it."""

    status: JobStatus | None = None
    unclear: int = 0

    def describe(self, provider: str) -> str:
        """Return why it is uncertain whether the job exists."""
        count = f"{self.unclear} unknown batch{'es' if self.unclear > 1 else ''} of this size"
        return f"{provider} has {count}, which may be this job."


class Search:
    """Looks for one job in the list of a service."""

    def __init__(self, service: BatchService, journal: Journal, record: JobRecord) -> None:
        self._service = service
        self._journal = journal
        self._record = record
        self._foreign: set[str] = set()  # ended batches that are not this job

    async def look(self) -> Sighting:
        """
        Read the list once.

        Raises:
            ProviderError: the list, or the results of a batch in it, could not be read.
        """
        record = self._record
        assert record.creating is not None
        since = datetime.fromtimestamp(record.creating - _CLOCK_SKEW_S, UTC)
        recent = [each async for each in self._service.recent(since)]
        if self._service.has_marks:
            mine = [each for each in recent if each.mark == record.id]
            return Sighting(mine[0] if mine else None)
        known = await asyncio.to_thread(self._journal.service_ids, record.account)
        unclear = 0
        for each in recent:
            if each.id in known | self._foreign or each.total not in (None, record.rows):
                continue
            if each.state != "ended":
                unclear += 1
            elif await self._is_mine(each):
                return Sighting(each)
            else:
                self._foreign.add(each.id)
        return Sighting(None, unclear)

    async def _is_mine(self, status: JobStatus) -> bool:
        """Return whether an ended batch has our identifier in its results."""
        results = self._service.results(status)
        try:
            async for result in results:
                return result.custom_id.startswith(f"{self._record.id}-")
        except ResultsGoneError:
            pass
        finally:
            await results.aclose()
        return False
