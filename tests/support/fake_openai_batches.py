"""
The batch APIs of OpenAI, Azure, Groq and Together, each as strict as its documents say.

Written from the documents and not from the data of the providers, so that a mistake there is found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from tests.support.batch_fakes import Job
from tests.support.batch_files import FilesFake, StoredFile
from tests.support.serving import Asked, Says, as_json

_OPENAI_ENDPOINTS = ("/v1/responses", "/v1/chat/completions", "/v1/embeddings")


@dataclass(frozen=True, slots=True, kw_only=True)
class Documented:
    """
    What the documents of a service say of its batch jobs.

    Attributes:
        prefix: the path of its address.
        endpoints: what can be asked in a job.
        upload_path, form_fields: where and how a file is uploaded.
        max_bytes: the largest size of a file.
        has_urls: whether each line names a method and a URL.
        job_fields: the fields of a new job, with whether they are required.
        page: how the list is paged: ``after``, ``cursor`` or not at all.
        key_header: the header with the key.
        has_text_times: whether times are text, and states capitalised.
        processing_s: how long an uploaded file cannot be used yet.
    """

    prefix: str
    endpoints: tuple[str, ...] = ("/v1/chat/completions",)
    upload_path: str = "/files"
    form_fields: Mapping[str, str | None] = field(default_factory=lambda: {"purpose": "batch"})
    max_bytes: int = 200_000_000
    has_urls: bool = True
    job_fields: Mapping[str, bool] = field(
        default_factory=lambda: {
            "input_file_id": True,
            "endpoint": True,
            "completion_window": True,
            "metadata": False,
            "output_expires_after": False,
        }
    )
    page: str = "after"
    key_header: tuple[str, str] = ("authorization", "Bearer ")
    has_text_times: bool = False
    processing_s: float = 0.0


SERVICES = {
    "openai": Documented(prefix="/v1", endpoints=_OPENAI_ENDPOINTS),
    "azure": Documented(
        prefix="/openai/v1",
        endpoints=_OPENAI_ENDPOINTS[:2],
        key_header=("api-key", ""),
        has_text_times=True,
    ),
    "groq": Documented(
        prefix="/openai/v1",
        max_bytes=100_000_000,
        job_fields={
            "input_file_id": True,
            "endpoint": True,
            "completion_window": True,
            "metadata": False,
        },
        page="cursor",
    ),
    "together": Documented(
        prefix="/v1",
        upload_path="/files/upload",
        form_fields={"purpose": "batch-api", "file_name": None, "file_type": "jsonl"},
        max_bytes=100_000_000,
        has_urls=False,
        job_fields={
            "input_file_id": True,
            "endpoint": True,
            "completion_window": False,
            "model_id": False,
            "priority": False,
        },
        page="",
        has_text_times=True,
    ),
}

_STATUSES = {
    "waiting": "validating",
    "running": "in_progress",
    "cancelling": "cancelling",
}
_UNPROCESSED = {
    "expired": (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
    "cancelled": ("batch_cancelled", "The batch was cancelled before this request was executed."),
}
_MESSAGES = {
    "token_limit_exceeded": "Enqueued token limit reached for this model. Try again when other batches have completed."
}


class FakeBatches(FilesFake):
    """
    The batch API of ``name``: openai, azure, groq or together.

    Attributes:
        page_size: the number of jobs on a page of a list that is paged by a cursor.
        max_requests, max_inputs: the caps of a file.
    """

    page_size = 20
    max_requests = 50_000
    max_inputs = 50_000

    def __init__(self, name: str = "openai", **options: Any) -> None:
        super().__init__(**options)
        self.name = name
        self.documented = documented = SERVICES[name]
        self.prefix, self.upload_path = documented.prefix, documented.upload_path
        self.form_fields, self.max_bytes = documented.form_fields, documented.max_bytes
        self.key_header = documented.key_header
        self.processing_s = documented.processing_s

    def route_jobs(self, asked: Asked, account: str, path: str, query: dict[str, str]) -> Says:
        match path.split("/")[1:], asked.method:
            case ["batches"], "POST":
                return self.create(asked, account)
            case ["batches"], "GET":
                return self.list_jobs(account, query)
            case ["batches", job_id], "GET":
                return as_json(self.describe(self.job(job_id, account)))
            case ["batches", job_id, "cancel"], "POST":
                job = self.job(job_id, account)
                if job.phase(self.clock()) == "ended":
                    status = self.describe(job)["status"]
                    raise self.refused(None, f"Cannot cancel a batch with status '{status}'.", 409)
                job.cancel(self.clock())
                return as_json(self.describe(job))
        raise self.refused(None, f"Invalid URL ({asked.method} {path})", 404)

    def describe_file(self, file: StoredFile) -> dict[str, Any]:
        described = super().describe_file(file)
        if self.clock() < file.created_at + self.processing_s:
            described["status"] = "pending"
        return described

    def job(self, job_id: str, account: str) -> Job:
        """A job of the account."""
        job = self.jobs.get(job_id)
        if job is None or job.account != account:
            raise self.refused(None, f"No batch found with id '{job_id}'.", 404)
        return job

    def create(self, asked: Asked, account: str) -> Says:
        """Accept a job, or refuse it."""
        body = asked.json()
        self.check_job(body)
        file = self.files.get(body["input_file_id"])
        if file is None or file.account != account:
            raise self.refused(None, f"No such File object: {body['input_file_id']}", 404)
        if self.describe_file(file)["status"] != "processed":
            raise self.refused(None, "The input file is not processed yet.")
        requests, errors = self.read_lines(
            file,
            endpoint=body["endpoint"],
            has_urls=self.documented.has_urls,
            max_requests=self.max_requests,
            max_inputs=self.max_inputs,
            one_model=True,
        )
        job = self.add_job(self.new_id("batch_"), account, requests, **body, errors=errors)
        if errors:
            job.fate = replace(job.fate, invalid=errors[0]["code"])
        elif job.fate.invalid:
            message = _MESSAGES.get(job.fate.invalid, "The file is not valid.")
            job.facts["errors"] = [{"code": job.fate.invalid, "message": message, "line": None}]
        described = self.describe(job)
        if self.name == "together":
            return as_json({"job": described, "warning": ""}, 201)
        return as_json(described)

    def check_job(self, body: Any) -> None:
        """Refuse what is wrong with the body of a new job."""
        fields = self.documented.job_fields
        if not isinstance(body, dict):
            raise self.refused(None, "The body must be an object.")
        for name in body.keys() - fields.keys():
            raise self.refused("unknown_parameter", f"Unknown parameter: '{name}'.")
        for name in fields:
            if fields[name] and name not in body:
                raise self.refused(
                    "missing_required_parameter", f"Missing required parameter: '{name}'."
                )
        if body["endpoint"] not in self.documented.endpoints:
            raise self.refused("invalid_value", f"Invalid value: '{body['endpoint']}'.")
        if body.get("completion_window", "24h") != "24h":
            raise self.refused(
                "invalid_value", "Invalid value for 'completion_window': use '24h'."
            )
        metadata = body.get("metadata") or {}
        is_valid = isinstance(metadata, dict) and len(metadata) <= 16
        for name, value in metadata.items() if is_valid else ():
            is_valid = (
                is_valid and len(name) <= 64 and isinstance(value, str) and len(value) <= 512
            )
        if not is_valid:
            raise self.refused("invalid_value", "Invalid 'metadata'.")

    def list_jobs(self, account: str, query: dict[str, str]) -> Says:
        """One page of the jobs of an account."""
        known = {"after": {"after", "limit"}, "cursor": {"cursor"}, "": set()}
        if unknown := query.keys() - known[self.documented.page]:
            raise self.refused(None, f"Unknown query parameter: {min(unknown)}")
        jobs = self.listed(account)
        if self.documented.page == "cursor":
            jobs = jobs[::-1]  # the order is not documented, so it is the less convenient one
        after = query.get("after") or query.get("cursor", "").removeprefix("cursor_")
        places = [place for place, job in enumerate(jobs) if job.id == after]
        if after and not places:
            raise self.refused(None, f"No batch found with id '{after}'.", 404)
        rest = jobs[places[0] + 1 :] if places else jobs
        if not self.documented.page:
            return as_json([self.describe(job) for job in rest])
        limit = int(query.get("limit", self.page_size))
        if not 1 <= limit <= 100:
            raise self.refused("integer_above_max_value", "Invalid 'limit': use 1 to 100.")
        limit = min(limit, self.page_size) if self.documented.page == "cursor" else limit
        page = rest[:limit]
        answer: dict[str, Any] = {"object": "list", "data": [self.describe(job) for job in page]}
        has_more = len(rest) > limit
        if self.documented.page == "cursor":
            answer["paging"] = {"next_cursor": f"cursor_{page[-1].id}"} if has_more else {}
        else:
            ids = [job.id for job in page] or [None]
            answer |= {"first_id": ids[0], "last_id": ids[-1], "has_more": has_more}
        return as_json(answer)

    def describe(self, job: Job) -> dict[str, Any]:
        """A job as the service describes it now."""
        if self.name == "together":
            return self.describe_together(job)
        now, phase = self.clock(), job.phase(self.clock())
        ended = phase == "ended"
        status = job.outcome if ended else _STATUSES[phase]
        statuses = self.statuses(job)
        good = statuses.count(200)
        total = len(job.requests) if phase != "waiting" and not job.fate.invalid else 0
        errors = job.facts["errors"] if ended and job.fate.invalid else []
        listed = errors if self.name == "groq" else {"object": "list", "data": errors}
        outputs, errored = self.file_ids(job) if ended else (None, None)
        return {
            "id": job.id,
            "object": "batch",
            "endpoint": job.facts["endpoint"],
            "errors": listed if errors else None,
            "input_file_id": job.facts["input_file_id"],
            "completion_window": "24h",
            "status": status.title().replace("_", "")
            if self.documented.has_text_times
            else status,
            "output_file_id": outputs,
            "error_file_id": errored,
            "created_at": self.time(job.created_at),
            "in_progress_at": self.time(job.started_at) if now >= job.started_at else None,
            "expires_at": self.time(job.expires_at),
            "completed_at": self.time(job.ended_at) if status == "completed" else None,
            "failed_at": self.time(job.ended_at) if status == "failed" else None,
            "expired_at": self.time(job.ended_at) if status == "expired" else None,
            "cancelling_at": self.time(job.cancelled_at) if job.cancelled_at else None,
            "cancelled_at": self.time(job.ended_at) if status == "cancelled" else None,
            "request_counts": {"total": total, "completed": good, "failed": len(statuses) - good},
            "metadata": job.facts.get("metadata"),
        }

    def describe_together(self, job: Job) -> dict[str, Any]:
        """A job as Together describes it: without counts, metadata or a state of cancelling."""
        phase = job.phase(self.clock())
        ended = phase == "ended"
        status = job.outcome if ended else {"waiting": "validating"}.get(phase, "in_progress")
        outputs, errored = self.file_ids(job) if ended else (None, None)
        errors = job.facts["errors"] if ended and job.fate.invalid else []
        done = len(self.statuses(job)) / (len(job.requests) or 1)
        described = {
            "id": job.id,
            "user_id": job.account,
            "input_file_id": job.facts["input_file_id"],
            "file_size_bytes": 1,
            "status": status.upper(),
            "job_deadline": self.time(job.expires_at),
            "created_at": self.time(job.created_at),
            "endpoint": job.facts["endpoint"],
            "progress": 100.0 * done,
            "model_id": job.requests[0].body["model"] if job.requests else "",
            "output_file_id": outputs,
            "error_file_id": errored,
            "error": errors[0]["message"] if errors else None,
            "completed_at": self.time(job.ended_at) if ended else None,
        }
        return {name: value for name, value in described.items() if value is not None}

    def time(self, seconds: float) -> int | str:
        """A time as the service writes it."""
        if not self.documented.has_text_times:
            return int(seconds)
        return datetime.fromtimestamp(seconds, UTC).isoformat()

    def file_ids(self, job: Job) -> tuple[str | None, str | None]:
        """The ids of the files with outputs and with errors; ``None`` for an empty one."""
        if job.fate.invalid:
            return None, None
        statuses = self.statuses(job)
        has_errors = statuses.count(200) < (
            len(statuses) if self.name == "together" else len(job.requests)
        )
        outputs = f"file-outputs-{job.id}" if 200 in statuses else None
        # Azure's file of errors is there, with zero bytes, when there are none.
        return outputs, f"file-errors-{job.id}" if has_errors or self.name == "azure" else None

    def result_lines(self, job: Job) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        lines: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
        for number, (request, answer) in enumerate(self.results(job)):
            line: dict[str, Any] = {"id": f"batch_req_{number}", "custom_id": request.custom_id}
            if answer is None:
                if self.name == "together":
                    continue  # what it says of them is not documented
                code, message = _UNPROCESSED[job.outcome]
                error = {"code": code, "message": message}
                lines[1].append({**line, "response": None, "error": error})
            elif self.name == "together" and answer.status != 200:
                del line["id"]
                lines[1].append({**line, "error": answer.body["error"]})
            else:
                response = {
                    "status_code": answer.status,
                    "request_id": f"req_{number}",
                    "body": answer.body,
                }
                is_error = answer.status != 200
                lines[is_error].append({**line, "response": response, "error": None})
        return lines
