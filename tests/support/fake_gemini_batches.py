"""
The batch API of the Gemini API and its files, without models, as they are documented.

Sources (November 2026): https://ai.google.dev/gemini-api/docs/batch-api, https://ai.google.dev/api/
batch-api and /files, google-genai 3.6.1, and answers of the service in public issues
(flachesis/gemini-rust#13). A cancelled operation has an error in place of a response, so that it
has no results.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.batch_answers import text_of, tokens_in
from tests.support.batch_fakes import Answer, BatchFake, Fate, Job, Request
from tests.support.fake_gemini import (
    MODELS,
    FakeGemini,
    camel,
    documented,
    framed,
    invalid,
    joined,
    refusal,
    unknown_names,
    wrong_key,
)
from tests.support.serving import Asked, Says, as_json

_STATES = {"waiting": "PENDING", "running": "RUNNING", "cancelling": "RUNNING"}
_OUTCOMES = {"completed": "SUCCEEDED", "failed": "FAILED", "expired": "EXPIRED", "cancelled": "CANCELLED"}  # fmt: skip
# The live methods of those for jobs, and the messages that create them.
_METHODS = {
    "batchGenerateContent": ("generateContent", "create"),
    "asyncBatchEmbedContent": ("embedContent", "create embeddings"),
}
_PACKAGE = "type.googleapis.com/google.ai.generativelanguage.v1main"


@dataclass
class File:
    """An uploaded file; ``expected`` is the size that was announced."""

    name: str
    account: str
    about: dict[str, Any]
    created_at: float
    expected: int
    content: bytes = b""
    is_final: bool = False


def no_file(name: str) -> Says:
    """What the service says of a file that it does not have."""
    return refusal(
        "PERMISSION_DENIED",
        f"You do not have permission to access the File {name} or it may not exist.",
        403,
    )


def moment(seconds: float) -> str:
    """A time as the service writes it, with nanoseconds."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
    return text.replace("+00:00", "218Z")


def line_of(line: bytes, path: str, kind: str) -> Request:
    """The request in a line of a file."""
    value = json.loads(line)
    body = documented(value["request"], "request" if kind == "create" else "embedding")
    return Request(str(value["key"]), path, body)


def wrong_batch(batch: dict[str, Any]) -> str | None:
    """What is wrong with the name or the source of a job."""
    place = "* BatchGenerateContentRequest.batch"
    source = batch.get("inputConfig", {})
    if not batch.get("displayName"):
        return f"{place}.display_name: required\n"
    if len(source) != 1:
        return f"{place}.input_config.source: required oneof field 'source' must have one initialized field\n"
    if "requests" in source and not source["requests"].get("requests"):
        return f"{place}.input_config.requests: requests is empty\n"
    return None


class FakeGeminiBatches(BatchFake):
    """
    Call it with a request.

    Attributes:
        files: the uploaded files, by name.
        most_bytes: the largest body of a request.
        upload_host: the host of uploads; by default the one that was asked.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.most_bytes = 20 << 20
        self.upload_host = ""
        self._models = FakeGemini()

    def reset(self) -> None:
        super().reset()
        self.fate = Fate(expires_s=48 * 3600.0, retention_s=42 * 86_400.0)
        self.files: dict[str, File] = {}

    def process(self, asked: Asked) -> Says:
        given = asked.headers.get("x-goog-api-key")
        account = self.keys.get(given or "")
        if given is None and "upload_id=" in asked.path:
            account = ""  # the address of an upload is its credential
        elif given is None:
            return refusal("PERMISSION_DENIED", "Method doesn't allow unregistered callers.", 403)
        if account is None:
            return wrong_key()
        parts = urlsplit(asked.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        assert "key" not in query, "the key is in the address"
        for pattern, act in (
            (r"/v1beta/models/([^/:]+:(?:batchGenerate|asyncBatchEmbed)Content)", self.create),
            (r"/v1beta/(batches)", self.list),
            (r"/v1beta/(batches/[^/:]+(?::cancel)?)", self.one),
            (r"/upload/v1beta/(files)", self.upload),
            (r"/v1beta/(files/[^/:]+)", self.file),
            (r"(?:/download)?/v1beta/(files/[^/:]+):download", self.download),
        ):
            if found := re.fullmatch(pattern, unquote(parts.path)):
                return act(asked, account, query, found[1])
        return refusal("NOT_FOUND", "Requested entity was not found.", 404)

    def create(self, asked: Asked, account: str, query: dict[str, str], model: str) -> Says:
        """A job of inline requests, or of the requests in a file."""
        model, _, method = model.partition(":")
        live, kind = _METHODS[method]
        if (refused := self.refused(asked, query, model, live, kind)) is not None:
            return refused
        batch = documented(asked.json(), kind)["batch"]
        source = batch["inputConfig"]
        facts = {"name": batch["displayName"], "model": model, "file": source.get("fileName", "")}
        fate, requests = self.fate, []
        path = f"/models/{model}:{live}"
        if facts["file"]:
            file = self.known_file(facts["file"], account)
            if file is None:
                return no_file(facts["file"])
            try:
                requests = [line_of(line, path, kind) for line in file.content.splitlines()]
            except (ValueError, KeyError, TypeError) as error:
                self.change_fate(invalid=f"Failed to parse the input file: {error}")
        else:
            for each in source["requests"]["requests"]:
                key = each.get("metadata", {}).get("key", "")
                requests.append(Request(key, path, each["request"]))
        job = self.add_job(self.new_id("batches/"), account, requests, **facts)
        self.fate = fate
        return as_json(self.operation(job, is_listed=False))

    def refused(
        self, asked: Asked, query: dict[str, str], model: str, live: str, kind: str
    ) -> Says | None:
        """What is wrong with the creation of a job, if anything."""
        if live not in MODELS.get(model, ((), False))[0]:
            message = f"models/{model} is not found for API version v1beta, or is not supported for jobs of {live}."
            return refusal("NOT_FOUND", message, 404)
        if len(asked.body) > self.most_bytes:
            return invalid(f"Request payload size exceeds the limit: {self.most_bytes} bytes.")
        try:
            body = documented(asked.json(), kind)
        except ValueError:
            return invalid("Invalid JSON payload received.")
        if query or asked.method != "POST":
            return invalid(f"Invalid request: {asked.method} {sorted(query)}")
        wrong = next(unknown_names(body, kind), None) or wrong_batch(body.get("batch", {}))
        return None if wrong is None else invalid(wrong)

    def list(self, asked: Asked, account: str, query: dict[str, str], _: str) -> Says:
        """A page of the list, without results."""
        size = query.get("pageSize", "50")
        if asked.method != "GET" or set(query) - {"pageSize", "pageToken"} or not size.isdigit():
            return invalid(f"Invalid request: {sorted(query)}")
        try:
            start = int(base64.b64decode(query.get("pageToken", "MA==")))
        except ValueError:
            return invalid("Invalid page token.")
        jobs = self.listed(account)
        end = start + int(size)
        said: dict[str, Any] = {
            "operations": [self.operation(job, is_listed=True) for job in jobs[start:end]]
        }
        if end < len(jobs):
            said["nextPageToken"] = base64.b64encode(str(end).encode()).decode()
        return as_json(said if said["operations"] else {})

    def one(self, asked: Asked, account: str, _: dict[str, str], name: str) -> Says:
        """Show, cancel or delete a job."""
        name, _, action = name.partition(":")
        job = self.jobs.get(name)
        if job is None or job.account != account or job.deleted:
            return refusal("NOT_FOUND", "Requested entity was not found.", 404)
        if (asked.method, action) == ("GET", ""):
            return as_json(self.operation(job, is_listed=False))
        if (asked.method, action) == ("POST", "cancel"):
            if job.phase(self.clock()) == "ended":
                message = f"Batch {name} is in a final state and cannot be cancelled."
                return refusal("FAILED_PRECONDITION", message, 400)
            job.cancel(self.clock())
            return as_json({})
        if (asked.method, action) == ("DELETE", ""):
            job.deleted = True
            return as_json({})
        return refusal("UNIMPLEMENTED", "Method not allowed.", 405)

    def operation(self, job: Job, *, is_listed: bool) -> dict[str, Any]:
        """A job as a long-running operation."""
        now = self.clock()
        phase = job.phase(now)
        state = _OUTCOMES[job.outcome] if phase == "ended" else _STATES[phase]
        rows = self.rows(job) if phase == "ended" else []
        total, done = len(job.requests), len(job.done(now))
        failed = sum("error" in each for each in rows)
        counts = {
            "requestCount": total,
            "successfulRequestCount": (len(rows) - failed) if phase == "ended" else done,
            "failedRequestCount": failed,
            "pendingRequestCount": 0 if phase == "ended" else total - done,
        }
        metadata: dict[str, Any] = {
            "@type": f"{_PACKAGE}.GenerateContentBatch",
            "name": job.id,
            "model": f"models/{job.facts['model']}",
            "displayName": job.facts["name"],
            "createTime": moment(job.created_at),
            "updateTime": moment(now),
            "batchStats": {name: str(count) for name, count in counts.items() if count},
            "state": f"BATCH_STATE_{state}",
        }
        if job.facts["file"]:
            metadata["inputConfig"] = {"fileName": job.facts["file"]}
        operation: dict[str, Any] = {"name": job.id, "metadata": metadata}
        if phase != "ended":
            return operation
        operation["done"] = True
        metadata["endTime"] = moment(job.ended_at)
        if job.outcome != "completed":
            message = job.fate.invalid or f"The batch was {job.outcome}."
            code = {"failed": 9, "expired": 4, "cancelled": 1}[job.outcome]
            operation["error"] = {"code": code, "message": message}
        elif rows:
            output: dict[str, Any] = {}
            if job.facts["file"]:
                output["responsesFile"] = f"files/{job.id.replace('/', '-')}"
            elif not is_listed and job.has_results(now):
                inlined = [
                    {**each, "metadata": {"key": key}}
                    for key, each in ((each.pop("key"), each) for each in rows)
                ]
                output["inlinedResponses"] = {"inlinedResponses": inlined}
            metadata["output"] = output
            operation["response"] = {"@type": f"{_PACKAGE}.GenerateContentBatchOutput", **output}
        return operation

    def rows(self, job: Job) -> list[dict[str, Any]]:
        """The results of an ended job, in the order of its requests."""
        done = job.done(self.clock()) if job.outcome == "completed" else []
        return [self.row(each) for each in done]

    def row(self, request: Request) -> dict[str, Any]:
        """One result."""
        answer = self.answer(request)
        return {"response" if answer.status == 200 else "error": answer.body, "key": request.custom_id}  # fmt: skip

    def known_file(self, name: str, account: str) -> File | None:
        """A file that is uploaded completely, for 48 hours."""
        file = self.files.get(name)
        if file is None or file.account != account or not file.is_final:
            return None
        return file if self.clock() < file.created_at + 48 * 3600 else None

    def upload(  # noqa: PLR0911 (one case each)
        self, asked: Asked, account: str, query: dict[str, str], _: str
    ) -> Says:
        """Start an upload, or take a part of it."""
        header, command = asked.headers.get, asked.headers.get("x-goog-upload-command")
        if "upload_id" not in query:
            sizes = header("x-goog-upload-header-content-length", "")
            if (header("x-goog-upload-protocol"), command) != ("resumable", "start") or not sizes:
                return invalid("Invalid upload request.")
            if int(sizes) > 2_000_000_000:
                return invalid("File is too large.")
            about = {camel(name): each for name, each in asked.json()["file"].items()}
            unknown = set(about) - {"name", "displayName", "mimeType", "sizeBytes"}
            if unknown or not header("x-goog-upload-header-content-type"):
                return invalid(f"Unknown name: {sorted(unknown)}")
            name = self.new_id("files/")
            self.files[name] = File(name, account, about, self.clock(), int(sizes))
            host = self.upload_host or f"http://{asked.headers['host']}"
            url = f"{host}/upload/v1beta/files?upload_id={name.partition('/')[2]}&upload_protocol=resumable"
            headers = {"X-Goog-Upload-URL": url, "X-Goog-Upload-Status": "active"}
            return Says([b""], 200, "text/plain", headers=headers)
        file = self.files[f"files/{query['upload_id']}"]
        if file.is_final or header("x-goog-upload-offset") != str(len(file.content)):
            return invalid("Invalid upload offset.")
        file.content += asked.body
        file.is_final = command == "upload, finalize"
        if file.is_final and len(file.content) != file.expected:
            return invalid("The upload has another size than announced.")
        says = as_json({"file": self.about(file)} if file.is_final else {})
        says.headers["X-Goog-Upload-Status"] = "final" if file.is_final else "active"
        return says

    def about(self, file: File) -> dict[str, Any]:
        """A file as the service describes it."""
        facts = {
            "name": file.name,
            "sizeBytes": str(file.expected),
            "createTime": moment(file.created_at),
            "expirationTime": moment(file.created_at + 48 * 3600),
            "state": "ACTIVE",
            "source": "UPLOADED",
        }
        return {**file.about, **facts}

    def file(self, asked: Asked, account: str, _: dict[str, str], name: str) -> Says:
        """Show or delete a file."""
        file = self.known_file(name, account)
        if file is None:
            return no_file(name)
        if asked.method == "DELETE":
            del self.files[name]
            return as_json({})
        return as_json(self.about(file))

    def download(self, _: Asked, account: str, query: dict[str, str], name: str) -> Says:
        """The results of a job as a file of lines."""
        jobs = (job for job in self.jobs.values() if name == f"files/{job.id.replace('/', '-')}")
        job = next(jobs, None)
        if query != {"alt": "media"}:
            return invalid("alt=media is required.")
        if job is None or job.account != account or not job.has_results(self.clock()):
            return no_file(name)
        lines = [json.dumps(each, ensure_ascii=False).encode() + b"\n" for each in self.rows(job)]
        return Says([b"".join(lines)], 200, "application/octet-stream")

    def usual_answer(self, request: Request) -> Answer:
        model, _, live = request.path.removeprefix("/models/").partition(":")
        body = request.body
        if live == "embedContent":
            return self.vector(body, model)
        if (wrong := self.wrong(body, model)) is not None:
            return Answer({"code": 3, "message": wrong}, 400)
        content = {"content": body["contents"][-1]["parts"]}
        schema = body.get("generationConfig", {}).get("responseJsonSchema")
        text = text_of({"messages": [content]}, schema)
        chunks = framed([[{"text": text}]], "STOP", model, tokens=tokens_in(text), thoughts=0)
        return Answer(joined(chunks))

    def vector(self, body: dict[str, Any], model: str) -> Answer:
        """The vector of one text, as a live call has it."""
        says = self._models.vectors({"requests": [body]}, model)
        said = json.loads(says.pieces[0])
        if says.status != 200:
            return Answer({"code": 3, "message": said["error"]["message"]}, 400)
        return Answer({"embedding": said["embeddings"][0], "usageMetadata": said["usageMetadata"]})

    def wrong(self, body: dict[str, Any], model: str) -> str | None:
        """What is wrong with one request."""
        return self._models.wrong(documented(body, "request"), model)
