"""
The batch API of Together.

Facts of November 2026: 50,000 requests and 100 MB, chat completions only
(https://docs.together.ai/docs/inference/batch/overview); lines have no method or URL
(…/batch/tutorial); the upload is https://docs.together.ai/reference/upload-file; the list has one
page, and jobs have no metadata (together 2.36.0, types/batch_create_params.py). A job names its input
file, so our identifier is the name of that file. Not documented: how long results are stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from llm_magics.errors import ProviderError
from llm_magics.host import warn
from llm_magics.http import Form
from llm_magics.providers.batches import openai
from llm_magics.providers.batches.service import BatchLimits, Submission
from llm_magics.wire.openai_batches import Batch, encode_request, item_path, parse_batch


class Batches(openai.Batches):
    """The batch API of Together."""

    limits = BatchLimits(requests=50_000, bytes=100_000_000)
    paths = frozenset({"/chat/completions"})
    purpose = "batch-api"
    upload_path = "/files/upload"
    first_page: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def encode(self, custom_id: str, path: str, body: Mapping[str, Any]) -> bytes:
        return encode_request(custom_id, "", body)

    def _form(self, submission: Submission) -> Form:
        form = super()._form(submission)
        name = {"file_name": f"{submission.mark}.jsonl", "file_type": "jsonl"}
        return Form({**form.fields, **name}, form.files)

    def _job(self, submission: Submission) -> dict[str, Any]:
        return {
            "endpoint": f"{self.url_prefix}{submission.path}",
            "input_file_id": submission.input_id,
        }

    def _parse_created(self, said: Any) -> Batch:
        if said.get("warning"):
            warn(f"{self.provider.name}: {said['warning']}")
        return parse_batch(said["job"])

    async def _mark(self, batch: Batch) -> str | None:
        if not batch.input_id:
            return None
        try:
            said = await self._request("GET", item_path("files", batch.input_id))
        except ProviderError as error:
            if error.status != 404:
                raise
            return None  # the user has deleted it
        with self.provider._reading():
            return openai.as_mark(str(said.get("filename")).removesuffix(".jsonl"))
