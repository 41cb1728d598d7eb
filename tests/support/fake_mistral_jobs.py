"""Mistral's batch jobs, as strict as its documents say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from tests.support.batch_fakes import Job
from tests.support.batch_files import FilesFake, RefusedError, StoredFile
from tests.support.serving import Asked, Says, as_json

_ENDPOINTS = ("/v1/chat/completions", "/v1/embeddings")
_FIELDS = {"endpoint", "input_files", "requests", "model", "metadata", "timeout_hours", "agent_id"}
_STATUSES = {"waiting": "QUEUED", "running": "RUNNING", "cancelling": "CANCELLATION_REQUESTED"}
_OUTCOMES = {
    "completed": "SUCCESS",
    "failed": "FAILED",
    "expired": "TIMEOUT_EXCEEDED",
    "cancelled": "CANCELLED",
}
_LIST_QUERY = {
    "page",
    "page_size",
    "model",
    "agent_id",
    "metadata",
    "created_after",
    "created_by_me",
    "status",
    "order_by",
}


class FakeJobs(FilesFake):
    """
    Mistral's batch jobs.

    Attributes:
        max_pending: the number of requests that may be pending at one time.
        max_page: the largest page of the list.
    """

    max_bytes = 512_000_000
    max_pending = 1_000_000
    max_page = 100
    form_fields: Mapping[str, str | None] = {"purpose": "batch"}
    optional_fields = frozenset({"expiry", "visibility"})

    def refused(self, code: str | None, message: str, status: int = 400) -> RefusedError:
        error = {"object": "error", "message": message, "type": "invalid_request_error", "code": code}  # fmt: skip
        return RefusedError(as_json({**error, "raw_status_code": status}, status))

    def route_jobs(self, asked: Asked, account: str, path: str, query: dict[str, str]) -> Says:
        match path.split("/")[1:], asked.method:
            case ["batch", "jobs"], "POST":
                return self.create(asked, account)
            case ["batch", "jobs"], "GET":
                return self.list_jobs(account, query)
            case ["batch", "jobs", job_id], "GET":
                return as_json(self.describe(self.job(job_id, account)))
            case ["batch", "jobs", job_id, "cancel"], "POST":
                job = self.job(job_id, account)
                if job.phase(self.clock()) == "ended":
                    raise self.refused("3000", "The job has already ended.")
                job.cancel(self.clock())
                return as_json(self.describe(job))
        raise self.refused(None, "no Route matched with those values", 404)

    def describe_file(self, file: StoredFile) -> dict[str, Any]:
        described = super().describe_file(file)
        del described["status"]
        return {**described, "sample_type": "batch_request", "source": "upload"}

    def job(self, job_id: str, account: str) -> Job:
        """A job of the account."""
        job = self.jobs.get(job_id)
        if job is None or job.account != account:
            raise self.refused(None, "Job not found.", 404)
        return job

    def create(self, asked: Asked, account: str) -> Says:
        """Accept a job, or refuse it."""
        body = asked.json()
        if unknown := body.keys() - _FIELDS:
            raise self.refused(None, f"Extra inputs are not permitted: {sorted(unknown)}", 422)
        if body.get("endpoint") not in _ENDPOINTS or not body.get("model"):
            raise self.refused(None, "endpoint and model are required.", 422)
        if bool(body.get("input_files")) == bool(body.get("requests")):
            raise self.refused(None, "Exactly one of input_files and requests is required.", 422)
        metadata = body.get("metadata") or {}
        if not all(len(name) <= 32 and isinstance(value, str) for name, value in metadata.items()):
            raise self.refused(
                None, "metadata: keys have at most 32 characters, values are text.", 422
            )
        if not 1 <= body.get("timeout_hours", 24) <= 168:
            raise self.refused(None, "timeout_hours: at most 7 days.", 422)
        if len(body.get("input_files") or ()) != 1:
            raise self.refused(None, "This fake knows jobs of one file only.", 501)
        file = self.file(body["input_files"][0], account)
        requests, errors = self.read_lines(
            file,
            endpoint=body["endpoint"],
            has_urls=False,
            max_requests=self.max_pending,
            one_model=True,
        )
        pending = sum(
            len(job.requests) - len(job.done(self.clock()))
            for job in self.jobs.values()
            if job.account == account and job.phase(self.clock()) != "ended"
        )
        if pending + len(requests) > self.max_pending:
            # Which status it sends is not documented.
            raise self.refused("3010", "Too many pending requests in the workspace.", 429)
        job = self.add_job(self.new_id(""), account, requests, **body, errors=errors)
        fate = replace(job.fate, expires_s=body.get("timeout_hours", 24) * 3600.0)
        job.fate = replace(fate, invalid=errors[0]["code"]) if errors else fate
        if not errors and fate.invalid:
            job.facts["errors"] = [{"message": fate.invalid}]
        return as_json(self.describe(job))

    def list_jobs(self, account: str, query: dict[str, str]) -> Says:
        """One page of the jobs of an account."""
        if unknown := query.keys() - _LIST_QUERY:
            raise self.refused(None, f"Unknown query parameters: {sorted(unknown)}", 422)
        jobs = self.listed(account)
        if "created_after" in query:
            moment = datetime.fromisoformat(query["created_after"])
            assert moment.tzinfo is not None
            jobs = [job for job in jobs if int(job.created_at) > moment.timestamp()]
        if query.get("order_by", "-created") == "created":
            jobs = jobs[::-1]
        size = min(int(query.get("page_size", "100")), self.max_page)
        start = int(query.get("page", "0")) * size
        page = [self.describe(job) for job in jobs[start : start + size]]
        return as_json({"object": "list", "data": page, "total": len(jobs)})

    def describe(self, job: Job) -> dict[str, Any]:
        """A job as the service describes it now."""
        now, phase = self.clock(), job.phase(self.clock())
        ended = phase == "ended"
        statuses = self.statuses(job)
        good = statuses.count(200)
        errors = job.facts["errors"] if ended and job.fate.invalid else []
        has_files = ended and not job.fate.invalid
        return {
            "id": job.id,
            "object": "batch",
            "input_files": job.facts["input_files"],
            "endpoint": job.facts["endpoint"],
            "model": job.facts["model"],
            "agent_id": None,
            "metadata": job.facts.get("metadata") or {},
            "errors": [{"message": each["message"], "count": 1} for each in errors],
            "status": _OUTCOMES[job.outcome] if ended else _STATUSES[phase],
            "output_file": f"file-outputs-{job.id}" if has_files and good else None,
            "error_file": f"file-errors-{job.id}" if has_files and good < len(statuses) else None,
            "created_at": int(job.created_at),
            "started_at": int(job.started_at) if now >= job.started_at else None,
            "completed_at": int(job.ended_at) if ended else None,
            "total_requests": len(job.requests),
            "completed_requests": len(statuses),
            "succeeded_requests": good,
            "failed_requests": len(statuses) - good,
        }

    def result_lines(self, job: Job) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        lines: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
        for number, (request, answer) in enumerate(self.results(job)):
            if answer is None:
                continue  # what it says of requests that were not processed is not documented
            response = {"status_code": answer.status, "body": answer.body}
            line = {"id": f"batch-{number}", "custom_id": request.custom_id, "response": response}
            lines[answer.status != 200].append({**line, "error": None})
        return lines
