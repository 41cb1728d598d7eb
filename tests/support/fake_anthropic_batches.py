"""
Anthropic's Message Batches without models, as they are documented.

Fields of a batch are checked when it is created, those of its messages when they are processed.
Sources (November 2026): https://platform.claude.com/docs/en/build-with-claude/batch-processing,
https://platform.claude.com/docs/en/api/messages/batches, and anthropic 2.14.0. The words of the
refusals of a batch are not documented; those for wrong fields follow the service's other refusals.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.batch_answers import text_of, tokens_in
from tests.support.batch_fakes import Answer, BatchFake, Fate, Job, Request
from tests.support.fake_anthropic import MODELS, FakeAnthropic, refusal
from tests.support.serving import Asked, Says, as_json

PATH = "/v1/messages/batches"


def invalid(message: str) -> Says:
    """A refusal of an invalid request."""
    return refusal("invalid_request_error", message, 400)


def missing() -> Says:
    """What the service says of a batch that it does not have."""
    return refusal("not_found_error", "Not Found", 404)


def moment(seconds: float) -> str:
    """A time as the service writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


class FakeAnthropicBatches(BatchFake):
    """
    Call it with a request.

    Attributes:
        most_requests, most_bytes: the caps of a batch.
        results_host: the host in ``results_url``; by default the one that was asked.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.most_requests, self.most_bytes = 100_000, 256_000_000
        self.results_host = ""
        self._messages = FakeAnthropic()

    def reset(self) -> None:
        super().reset()
        self.fate = Fate(wait_s=0.0, retention_s=29 * 86_400.0)

    def process(self, asked: Asked) -> Says:
        bearer = asked.headers.get("authorization", "").removeprefix("Bearer ")
        account = self.keys.get(asked.headers.get("x-api-key", bearer))
        if account is None:
            return refusal("authentication_error", "invalid x-api-key", 401)
        if "anthropic-version" not in asked.headers:
            return invalid("anthropic-version: header is required")
        parts = urlsplit(asked.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if parts.path == PATH:
            if asked.method == "POST":
                return self.create(asked, account)
            return self.list(asked, account, query)
        found = re.fullmatch(rf"{PATH}/([^/]+)(?:/(cancel|results))?", parts.path)
        job = self.jobs.get(found[1]) if found else None
        if found is None or job is None or job.account != account or job.deleted:
            return missing()
        return self.act(asked, job, found[2])

    def act(  # noqa: PLR0911 (one case each)
        self, asked: Asked, job: Job, action: str | None
    ) -> Says:
        """Answer a request about one batch."""
        now = self.clock()
        if (asked.method, action) == ("GET", None):
            return as_json(self.shown(job, asked))
        if (asked.method, action) == ("POST", "cancel"):
            if asked.body not in (b"", b"{}"):
                return invalid("Extra inputs are not permitted")
            if job.phase(now) == "ended":
                return invalid(f"Batch {job.id} cannot be canceled because it has ended.")
            job.cancel(now)
            return as_json(self.shown(job, asked))
        if (asked.method, action) == ("GET", "results"):
            if job.phase(now) != "ended":
                return invalid(f"Batch {job.id} has no available results.")
            return self.file(job) if job.has_results(now) else missing()
        if (asked.method, action) == ("DELETE", None):
            if job.phase(now) != "ended":
                return invalid(f"Batch {job.id} cannot be deleted while it is processing.")
            job.deleted = True
            return as_json({"id": job.id, "type": "message_batch_deleted"})
        return refusal("invalid_request_error", "Method Not Allowed", 405)

    def create(self, asked: Asked, account: str) -> Says:
        """A batch of the requests, if all its fields are right."""
        if len(asked.body) > self.most_bytes:
            return refusal("request_too_large", "Request exceeds the maximum size", 413)
        if not asked.headers.get("content-type", "").startswith("application/json"):
            return invalid("Content-Type must be application/json")
        try:
            body = asked.json()
        except ValueError:
            return invalid("The request body is not valid JSON")
        if (wrong := next(self.complaints(body), None)) is not None:
            return invalid(wrong)
        requests = [
            Request(each["custom_id"], "/v1/messages", each["params"]) for each in body["requests"]
        ]
        job = self.add_job(self.new_id("msgbatch_"), account, requests)
        return as_json(self.shown(job, asked))

    def complaints(self, body: Any) -> Iterator[str]:
        """What is wrong with the fields of a batch."""
        if not isinstance(body, dict):
            yield "Input should be an object"
            return
        for name in sorted(set(body) - {"requests"}):
            yield f"{name}: Extra inputs are not permitted"
        requests = body.get("requests")
        if not isinstance(requests, list):
            yield (
                "requests: Field required"
                if requests is None
                else "requests: Input should be a valid list"
            )
            return
        if not 1 <= len(requests) <= self.most_requests:
            bound = f"at least 1 item after validation, not {len(requests)}"
            if requests:
                bound = f"at most {self.most_requests} items after validation, not {len(requests)}"
            yield f"requests: List should have {bound}"
        for number, each in enumerate(requests):
            yield from self.complaints_of(f"requests.{number}", each)
        counts = Counter(each["custom_id"] for each in requests)
        for name, count in counts.items():
            if count > 1:
                yield f"requests: custom_id values must be unique; found a duplicate: {name}"

    def complaints_of(self, place: str, each: Any) -> Iterator[str]:
        """What is wrong with the fields of one request, but for its message."""
        if not isinstance(each, dict):
            yield f"{place}: Input should be an object"
            return
        for name in sorted(set(each) - {"custom_id", "params"}):
            yield f"{place}.{name}: Extra inputs are not permitted"
        custom_id = each.get("custom_id")
        if not isinstance(custom_id, str):
            yield f"{place}.custom_id: Field required"
        elif re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", custom_id) is None:
            yield f"{place}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'"
        if not isinstance(each.get("params"), dict):
            yield f"{place}.params: Field required"

    def list(self, asked: Asked, account: str, query: dict[str, str]) -> Says:
        """A page of the list; it begins with the latest batches."""
        unknown = sorted(set(query) - {"limit", "after_id", "before_id"})
        if asked.method != "GET" or unknown:
            return invalid(f"{', '.join(unknown) or asked.method}: not permitted")
        limit = query.get("limit", "20")
        if not limit.isdigit() or not 1 <= int(limit) <= 1000:
            return invalid("limit: Input should be between 1 and 1000")
        jobs = self.listed(account)
        ids = [job.id for job in jobs]
        start, end = 0, len(jobs)
        for name in ("after_id", "before_id"):
            if name in query and query[name] not in ids:
                return invalid(f"{name}: not found")
        if "after_id" in query:
            start = ids.index(query["after_id"]) + 1
        if "before_id" in query:
            end = ids.index(query["before_id"])
            start = max(0, end - int(limit))
        page = jobs[start : min(end, start + int(limit))]
        more = start > 0 if "before_id" in query else start + len(page) < len(jobs)
        return as_json(
            {
                "data": [self.shown(job, asked) for job in page],
                "has_more": more,
                "first_id": page[0].id if page else None,
                "last_id": page[-1].id if page else None,
            }
        )

    def shown(self, job: Job, asked: Asked) -> dict[str, Any]:
        """A batch as the service describes it; counts are those of the end, or of processing."""
        now = self.clock()
        ended, archived = job.phase(now) == "ended", False
        counts = Counter({"processing": len(job.requests)})
        if ended:
            archived = not job.has_results(now)
            counts = Counter(kind for _, kind, _ in self.outcomes(job))
        names = ("processing", "succeeded", "errored", "canceled", "expired")
        host = self.results_host or f"http://{asked.headers['host']}"
        cancelled, archived_at = job.cancelled_at, job.ended_at + job.fate.retention_s
        return {
            "id": job.id,
            "type": "message_batch",
            "processing_status": "ended"
            if ended
            else ("canceling" if cancelled is not None else "in_progress"),
            "request_counts": {name: counts[name] for name in names},
            "created_at": moment(job.created_at),
            "expires_at": moment(job.expires_at),
            "ended_at": moment(job.ended_at) if ended else None,
            "cancel_initiated_at": None if cancelled is None else moment(cancelled),
            "archived_at": moment(archived_at) if archived else None,
            "results_url": f"{host}{PATH}/{job.id}/results" if ended and not archived else None,
        }

    def outcomes(self, job: Job) -> Iterator[tuple[Request, str, dict[str, Any]]]:
        """Each request of an ended batch with the type and the body of its result."""
        for request, answer in self.results(job):
            if answer is None:
                yield request, "canceled" if job.outcome == "cancelled" else "expired", {}
            else:
                yield request, "succeeded" if answer.status == 200 else "errored", answer.body

    def file(self, job: Job) -> Says:
        """The results as JSON lines."""
        names = {"succeeded": "message", "errored": "error"}
        lines = []
        for request, kind, body in self.outcomes(job):
            result = {"type": kind, **({names[kind]: body} if kind in names else {})}
            line = {"custom_id": request.custom_id, "result": result}
            lines.append(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        return Says([b"".join(lines)], 200, "application/x-jsonl")

    def usual_answer(self, request: Request) -> Answer:
        body = request.body
        if (wrong := self.wrong(body)) is not None:
            kind, message = wrong
            error = {"type": "error", "error": {"type": kind, "message": message}}
            return Answer({**error, "request_id": "req_1"}, 404 if kind.startswith("not") else 400)
        schema = body.get("output_config", {}).get("format", {}).get("schema")
        text = text_of(body, schema)
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        sent, written = tokens_in(body["messages"]), tokens_in(text)
        usage = {"input_tokens": sent, "cache_read_input_tokens": 0, "output_tokens": written}
        message = {
            "id": f"msg_{digest[:24]}",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {**usage, "service_tier": "batch"},
        }
        return Answer(message)

    def wrong(self, body: dict[str, Any]) -> tuple[str, str] | None:
        """The type and the words of the error of one message."""
        kind = "invalid_request_error"
        if "stream" in body:
            return kind, "stream: Streaming is not supported for batches"
        if body.get("max_tokens") == 0:
            return kind, "max_tokens: Input should be greater than or equal to 1"
        for name in ("model", "messages"):
            if name not in body:
                return kind, f"{name}: Field required"
        if body["model"] not in MODELS:
            return "not_found_error", f"model: {body['model']}"
        wrong = self._messages.wrong(body, "2023-06-01")
        return None if wrong is None else (kind, wrong)
