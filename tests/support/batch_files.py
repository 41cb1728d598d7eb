"""A service that takes the requests of batch jobs from uploaded files, as OpenAI's and Mistral's."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.batch_answers import openai_answer
from tests.support.batch_fakes import Answer, BatchFake, FormPart, Job, Request, read_form
from tests.support.serving import Asked, Says, as_json

CHAT, EMBEDDING = "chat-model", "embedding-model"

# The parameters that the models accept; an unknown one is an error.
CHAT_PARAMETERS = frozenset(
    ["frequency_penalty", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens", "messages",
     "model", "n", "parallel_tool_calls", "presence_penalty", "random_seed", "reasoning_effort",
     "response_format", "seed", "stop", "stream", "stream_options", "temperature", "tool_choice",
     "tools", "top_logprobs", "top_p", "user"]
)  # fmt: skip
EMBEDDING_PARAMETERS = frozenset({"dimensions", "encoding_format", "input", "model"})
RESPONSE_PARAMETERS = frozenset(
    ["include", "input", "instructions", "max_output_tokens", "model", "parallel_tool_calls",
     "reasoning", "store", "stream", "temperature", "text", "tool_choice", "tools", "top_p"]
)  # fmt: skip
LIVE = {
    "/chat/completions": (CHAT, CHAT_PARAMETERS),
    "/responses": (CHAT, RESPONSE_PARAMETERS),
    "/embeddings": (EMBEDDING, EMBEDDING_PARAMETERS),
}


@dataclass(slots=True, kw_only=True)
class StoredFile:
    """An uploaded file."""

    id: str
    account: str
    name: str
    purpose: str
    data: bytes
    created_at: float


class RefusedError(Exception):
    """What the service refuses, as its answer."""

    def __init__(self, says: Says) -> None:
        super().__init__()
        self.says = says


class FilesFake(BatchFake):
    """
    A service with files for batch jobs.

    Attributes:
        prefix: what is before the paths, as in the service's address.
        upload_path: where files are uploaded.
        form_fields: the fields of an upload, with their only value or ``None`` for any.
        optional_fields: further fields that an upload may have.
        max_bytes: the largest size of a file.
        key_header: the header with the key, and what is before it.
    """

    prefix = "/v1"
    upload_path = "/files"
    form_fields: Mapping[str, str | None] = {"purpose": "batch"}
    optional_fields: frozenset[str] = frozenset()
    max_bytes = 200_000_000
    key_header = ("authorization", "Bearer ")

    def reset(self) -> None:
        super().reset()
        with self.lock:
            self.files: dict[str, StoredFile] = {}

    def process(self, asked: Asked) -> Says:
        header, scheme = self.key_header
        account = self.keys.get(asked.headers.get(header, "").removeprefix(scheme))
        parts = urlsplit(asked.path)
        try:
            if account is None:
                raise self.refused("invalid_api_key", "Incorrect API key provided.", 401)
            if not parts.path.startswith(self.prefix):
                raise self.refused(None, f"Invalid URL ({asked.method} {parts.path})", 404)
            query = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
            path = parts.path.removeprefix(self.prefix)
            return self.route(asked, account, path, {name: values[-1] for name, values in query.items()})  # fmt: skip
        except RefusedError as refusal:
            return refusal.says

    def route(  # noqa: PLR0911 (one case each)
        self, asked: Asked, account: str, path: str, query: dict[str, str]
    ) -> Says:
        """Answer a request with a valid key."""
        if asked.method == "POST" and path in LIVE:
            answer = self.answer(Request("", path, asked.json()))
            return as_json(answer.body, answer.status)
        if asked.method == "GET" and path == "/models":
            return as_json({"object": "list", "data": [{"id": CHAT}, {"id": EMBEDDING}]})
        if asked.method == "POST" and path == self.upload_path:
            return as_json(self.describe_file(self.upload(asked, account)))
        match path.split("/")[1:], asked.method:
            case ["files", file_id], "GET":
                return as_json(self.describe_file(self.file(file_id, account)))
            case ["files", file_id], "DELETE":
                del self.files[self.file(file_id, account).id]
                return as_json({"id": file_id, "object": "file", "deleted": True})
            case ["files", file_id, "content"], "GET":
                return self.content(file_id, account)
        return self.route_jobs(asked, account, path, query)

    @abstractmethod
    def route_jobs(self, asked: Asked, account: str, path: str, query: dict[str, str]) -> Says:
        """Answer a request about jobs."""

    def refused(self, code: str | None, message: str, status: int = 400) -> RefusedError:
        """An error in OpenAI's form, to be raised."""
        error = {"code": code, "message": message, "param": None, "type": "invalid_request_error"}
        return RefusedError(as_json({"error": error}, status))

    def upload(self, asked: Asked, account: str) -> StoredFile:
        """Store an uploaded file."""
        try:
            form = read_form(asked)
        except ValueError:
            raise self.refused(
                None, "The Content-Type must be multipart/form-data.", 415
            ) from None
        file = form.pop("file", FormPart(b""))
        if not file.file_name or not file.file_name.endswith(".jsonl"):
            raise self.refused(None, "Invalid file format. Must be .jsonl.")
        if wrong := (form.keys() - self.optional_fields) ^ self.form_fields.keys():
            raise self.refused(None, f"Invalid fields: {sorted(wrong)}")
        for name, value in self.form_fields.items():
            if value is not None and form[name].data.decode() != value:
                raise self.refused(
                    None,
                    f"'{form[name].data.decode()}' is an invalid value of {name}: use '{value}'",
                )
        if not file.data:
            raise self.refused(None, "File is empty.")
        if len(file.data) > self.max_bytes:
            raise self.refused(None, "File is too large.", 413)
        stored = StoredFile(
            id=self.new_id("file-"),
            account=account,
            name=file.file_name or "",
            purpose=form["purpose"].data.decode(),
            data=file.data,
            created_at=self.clock(),
        )
        self.files[stored.id] = stored
        return stored

    def describe_file(self, file: StoredFile) -> dict[str, Any]:
        return {
            "id": file.id,
            "object": "file",
            "bytes": len(file.data),
            "created_at": int(file.created_at),
            "filename": file.name,
            "purpose": file.purpose,
            "status": "processed",
        }

    def file(self, file_id: str, account: str) -> StoredFile:
        """A file of the account: an uploaded one, or one with results, here without its content."""
        file = self.files.get(file_id)
        if file is None and (job := self.job_with(file_id, account)):
            return StoredFile(
                id=file_id,
                account=account,
                name=f"{file_id}.jsonl",
                purpose="batch_output",
                data=b"",
                created_at=job.ended_at,
            )
        if file is None or file.account != account:
            raise self.refused(None, f"No such File object: {file_id}", 404)
        return file

    def content(self, file_id: str, account: str) -> Says:
        """The content of a file: an uploaded one, or the results of a job."""
        if file_id in self.files:
            return Says([self.file(file_id, account).data], 200, "application/octet-stream")
        job = self.job_with(file_id, account)
        if job is None:
            raise self.refused(None, f"No such File object: {file_id}", 404)
        lines = self.result_lines(job)[file_id.startswith("file-errors-")]
        return Says(_blocks(lines), 200, "application/octet-stream")

    def job_with(self, file_id: str, account: str) -> Job | None:
        """The job whose results are in a file, if they are not deleted."""
        job = self.jobs.get(file_id.removeprefix("file-").partition("-")[2])
        if job is None or job.account != account or not job.has_results(self.clock()):
            return None
        return job

    @abstractmethod
    def result_lines(self, job: Job) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The lines of the file with outputs, and of that with errors."""

    def usual_answer(self, request: Request) -> Answer:
        model, known = LIVE[request.path]
        body = request.body
        if body.get("model") != model:
            return _error(
                "model_not_found", f"The model `{body.get('model')}` does not exist.", 404
            )
        if unknown := sorted(body.keys() - known):
            return _error("unknown_parameter", f"Unknown parameter: '{unknown[0]}'.", 400)
        return openai_answer(request)

    def read_lines(self, file: StoredFile, **rules: Any) -> tuple[list[Request], list[dict[str, Any]]]:  # fmt: skip
        """
        The requests in a file, and what is wrong with its lines.

        Args:
            rules: ``endpoint``, ``has_urls``, ``max_requests``, ``max_inputs``, ``one_model``.
        """
        requests: list[Request] = []
        errors: list[dict[str, Any]] = []
        known: set[str] = set()
        models: set[Any] = set()
        lines = file.data.removesuffix(b"\n").split(b"\n")
        path = rules["endpoint"].removeprefix("/v1")
        for number, line in enumerate(lines, 1):
            try:
                value = json.loads(line)
                code, message = _wrong_line(value, known, rules)
            except ValueError:
                code, message = "invalid_json_line", "This line is not parseable as valid JSON."
            if code:
                errors.append({"code": code, "message": message, "line": number, "param": None})
                continue
            known.add(value["custom_id"])
            models.add(value["body"].get("model"))
            requests.append(Request(value["custom_id"], path, value["body"]))
        if len(models) > 1 and rules["one_model"]:
            errors.append({"code": "mismatched_model", "message": "The requests are for several models.", "line": None, "param": "body.model"})  # fmt: skip
        inputs = sum(len(each.body.get("input", ())) for each in requests if path == "/embeddings")
        if len(lines) > rules["max_requests"] or inputs > rules.get("max_inputs", inputs):
            errors.append({"code": "too_many_tasks", "message": "The file has too many requests.", "line": None, "param": None})  # fmt: skip
        return requests, errors


def _error(code: str, message: str, status: int) -> Answer:
    error = {"code": code, "message": message, "param": None, "type": "invalid_request_error"}
    return Answer({"error": error}, status)


def _wrong_line(  # noqa: PLR0911 (one case each)
    value: Any, known: set[str], rules: Mapping[str, Any]
) -> tuple[str, str]:
    """The code and the message of what is wrong with a line; empty if it is valid."""
    fields = {"custom_id", "method", "url", "body"} if rules["has_urls"] else {"custom_id", "body"}
    if not isinstance(value, dict) or value.keys() != fields:
        return "invalid_request", f"A line must have the fields {sorted(fields)}."
    custom_id, body = value["custom_id"], value["body"]
    if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= 64:
        return "invalid_custom_id", "The custom_id must be a string of 1 to 64 characters."
    if custom_id in known:
        return "duplicate_custom_id", f"The custom_id {custom_id!r} is a duplicate."
    if value.get("method", "POST") != "POST":
        return (
            "invalid_method",
            f"Invalid value: '{value['method']}'. Supported values are: 'POST'.",
        )
    if value.get("url", rules["endpoint"]) != rules["endpoint"]:
        return "url_mismatch", "The URL does not match the endpoint of the batch."
    if not isinstance(body, dict) or not body:
        return "invalid_request", "The body must be an object."
    if body.get("stream") or "stream_options" in body:
        return "invalid_request", "Streaming is not supported in a batch."
    return "", ""


def _blocks(lines: Iterable[dict[str, Any]], count: int = 200) -> list[bytes]:
    """JSON lines in blocks of about ``count``."""
    encoded = [json.dumps(line).encode() + b"\n" for line in lines]
    return [b"".join(encoded[start : start + count]) for start in range(0, len(encoded), count)]
