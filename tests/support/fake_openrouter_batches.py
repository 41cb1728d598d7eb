"""
OpenRouter's batch API, as strict as its documents say.

Sources (November 2026): https://openrouter.ai/docs/batch-quickstart, /guides/features/batch-api and
/api/api-reference/batch, and openrouter 1.3.84. The documents do not tell whether an expired job has
results; here it has those of the requests that were done.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.batch_answers import openai_answer
from tests.support.batch_fakes import Answer, BatchFake, Fate, Job, Request
from tests.support.serving import Asked, Says, as_json

CHAT = "openai/gpt-6-luna"
MODELS = (CHAT, "openai/text-embedding-3-small")
_ENDPOINTS = ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/embeddings")
_FIELDS = ("endpoint", "model", "completion_window", "provider", "callback_url", "requests")
_STATES = {"waiting": "validating", "running": "in_progress", "cancelling": "cancelling"}
_LISTED = {"validating", "in_progress", "completed", "failed", "expired", "cancelled"}


def refused(message: str, status: int = 400) -> Says:
    """A refusal, whose code is the status."""
    return as_json({"error": {"code": status, "message": message}}, status)


class FakeOpenRouterBatches(BatchFake):
    """
    Call it with a request.

    Attributes:
        most_requests, most_bytes: the caps of a job.
        has_pages: whether there is an address for pages of results.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.most_requests, self.most_bytes, self.has_pages = 5_000, 200_000_000, True

    def reset(self) -> None:
        super().reset()
        self.fate = Fate(retention_s=30 * 86_400.0)

    def process(self, asked: Asked) -> Says:
        account = self.keys.get(asked.headers.get("authorization", "").removeprefix("Bearer "))
        if account is None:
            return refused("No auth credentials found", 401)
        parts = urlsplit(asked.path)
        query = parse_qs(parts.query, keep_blank_values=True)
        match parts.path.split("/")[1:], asked.method:
            case ["api", "v1", "batches"], "POST":
                return self.create(asked, account)
            case ["api", "v1", "batches"], "GET":
                return self.list(account, query)
            case ["api", "v1", "batches", job_id], "GET" | "DELETE":
                return self.one(asked.method, account, job_id)
            case ["api", "v1", "batches", job_id, "results"], "GET" if self.has_pages:
                return self.page(account, job_id, query)
        return refused("Not Found", 404)

    def create(self, asked: Asked, account: str) -> Says:
        """A job of the requests in the body, which must come last."""
        if len(asked.body) > self.most_bytes:
            return refused("The batch is larger than 200 MB.", 413)
        try:
            body = asked.json()
        except ValueError:
            return refused("Invalid JSON")
        if (wrong := next(self.complaints(body), None)) is not None:
            return refused(wrong)
        path = body["endpoint"].removeprefix("/v1")
        requests = [
            Request(each["custom_id"], path, {"model": body["model"], **each["body"]})
            for each in body["requests"]
        ]
        facts = {"endpoint": body["endpoint"], "model": body["model"]}
        job = self.add_job(self.new_id("batch-1790584823-"), account, requests, **facts)
        return as_json(self.described(job, has_results=False), 202)

    def complaints(self, body: Any) -> Iterator[str]:
        """What is wrong with the creation of a job."""
        if not isinstance(body, dict) or body.keys() - set(_FIELDS):
            yield f"Unknown fields: {sorted(set(body) - set(_FIELDS))}"
            return
        before = {*list(body)[: list(body).index("requests")]} if "requests" in body else set()
        if not {"endpoint", "model"} <= before:
            yield "'endpoint' and 'model' must appear before 'requests'"
        if body.get("endpoint") not in _ENDPOINTS:
            yield "Invalid endpoint"
        if body.get("model") not in MODELS:
            yield f"Model '{body.get('model')}' does not have a :batch endpoint."
        if body.get("completion_window", "24h") != "24h":
            yield "Invalid completion_window"
        yield from self.complaints_of_requests(body.get("requests"), body.get("model"))

    def complaints_of_requests(self, requests: Any, model: str) -> Iterator[str]:
        """What is wrong with the requests."""
        if not isinstance(requests, list) or not 1 <= len(requests) <= self.most_requests:
            yield f"'requests' must have 1 to {self.most_requests} items"
            return
        for each in requests:
            custom_id, body = (each.get(name) for name in ("custom_id", "body"))
            if len(each) != 2 or not isinstance(custom_id, str) or not isinstance(body, dict):
                yield "An item must have custom_id and body."
                return
            if body.get("model", model) != model:
                yield "The model of an item must match that of the batch."
            if body.get("stream") or "stream_options" in body:
                yield "Streaming is not supported."
        counts = Counter(each["custom_id"] for each in requests)
        if max(counts.values()) > 1:
            yield "custom_id must be unique within the batch."

    def one(self, method: str, account: str, job_id: str) -> Says:
        """Show or delete a job."""
        job = self.known(account, job_id)
        if job is None:
            return refused("Batch not found", 404)
        has_ended = job.phase(self.clock()) == "ended"
        if method == "GET":
            return as_json(self.described(job, has_results=has_ended))
        if not has_ended:
            return refused("Only batches in a terminal status can be deleted.", 409)
        job.deleted = True
        said = {"id": job.id, "object": "batch", "deletion": {"openrouter": "deleted"}}
        return as_json(said)

    def known(self, account: str, job_id: str) -> Job | None:
        """A job of the workspace."""
        job = self.jobs.get(job_id)
        return None if job is None or job.account != account or job.deleted else job

    def list(self, account: str, query: dict[str, list[str]]) -> Says:
        """A page of the list; it begins with the latest jobs."""
        if query.keys() - {"limit", "after", "status", "created_after", "created_before"}:
            return refused(f"Unknown parameters: {sorted(query)}")
        limit = query.get("limit", ["20"])[-1]
        if not limit.isdigit() or not 1 <= int(limit) <= 100:
            return refused("limit must be from 1 to 100")
        if set(query.get("status", ())) - _LISTED:
            return refused("Invalid status")
        jobs = [self.described(job, has_results=False) for job in self.listed(account)]
        if "status" in query:
            jobs = [job for job in jobs if job["status"] in query["status"]]
        ids = [job["id"] for job in jobs]
        after = query.get("after", [""])[-1]
        if after and after not in ids:
            return refused("Invalid cursor")
        start = ids.index(after) + 1 if after else 0
        page = jobs[start : start + int(limit)]
        said = {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": start + len(page) < len(jobs),
        }
        return as_json(said)

    def page(self, account: str, job_id: str, query: dict[str, list[str]]) -> Says:
        """A page of the results of a job that has ended."""
        job = self.known(account, job_id)
        limit = query.get("limit", ["100"])[-1]
        if job is None or not job.has_results(self.clock()):
            return refused("Batch results not found", 404)
        if query.keys() - {"limit", "cursor"} or not 1 <= int(limit) <= 1000:
            return refused("limit must be from 1 to 1000")
        try:
            start = int(base64.b64decode(query.get("cursor", ["MA=="])[-1]))
        except ValueError:
            return refused("Invalid cursor")
        rows = self.rows(job)
        end = start + int(limit)
        more = end < len(rows)
        cursor = base64.b64encode(str(end).encode()).decode() if more else None
        said = {"object": "list", "data": rows[start:end], "has_more": more, "next_cursor": cursor}
        return as_json(said)

    def described(self, job: Job, *, has_results: bool) -> dict[str, Any]:
        """A job as the service describes it."""
        now = self.clock()
        phase = job.phase(now)
        ended = phase == "ended"
        done = job.done(now)
        failed = sum(self.answer(each).status != 200 for each in done)
        rows = self.rows(job) if has_results and job.has_results(now) else None
        return {
            "id": job.id,
            "object": "batch",
            "endpoint": job.facts["endpoint"],
            "model": job.facts["model"],
            "provider": None if phase == "waiting" else "OpenAI",
            "completion_window": "24h",
            "status": job.outcome if ended else _STATES[phase],
            "created_at": int(job.created_at),
            "expires_at": int(job.expires_at),
            "finalized_at": int(job.ended_at) if ended else None,
            "request_counts": {
                "total": len(job.requests),
                "completed": len(done) - failed,
                "failed": failed,
            },
            "usage": None,
            "results": rows or None,
            "error": {"message": job.fate.invalid} if ended and job.outcome == "failed" else None,
        }

    def rows(self, job: Job) -> list[dict[str, Any]]:
        """The results of the requests that were done."""
        rows = []
        for request, answer in self.results(job):
            if answer is None:
                continue
            response, error = None, None
            if answer.status == 200:
                response = {"status_code": 200, "request_id": "request_1", "body": answer.body}
            else:
                error = {"type": "server_error", "param": None, **answer.body.get("error", {})}
            rows.append(
                {
                    "id": f"batch_req_{len(rows)}",
                    "custom_id": request.custom_id,
                    "response": response,
                    "error": error,
                }
            )
        return rows

    def usual_answer(self, request: Request) -> Answer:
        if "image_url" in json.dumps(request.body):
            return Answer({"error": {"message": "The Batch API is text-only."}}, 400)
        return openai_answer(request)
