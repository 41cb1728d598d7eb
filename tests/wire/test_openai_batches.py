"""The formats of batch jobs of OpenAI and Mistral: what is written is one line, what is read is safe."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magics.wire import mistral_jobs, openai_batches
from llm_magics.wire.decoders import DECODING_ERRORS
from llm_magics.wire.openai_batches import encode_request, parse_batch, parse_page, parse_result

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
FIELDS = st.sampled_from(
    ["id", "status", "request_counts", "total", "errors", "error", "data", "metadata", "created_at",
     "output_file_id", "custom_id", "response", "body", "status_code", "paging", "has_more",
     "total_requests", "output_file", "code", "message", "line"]
)  # fmt: skip
ALMOST = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=5),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON, max_size=5), st.booleans())
def test_a_request_is_one_line_with_the_body_of_the_live_request(
    body: dict[str, Any], has_url: bool
) -> None:
    """Without what asks for a stream; line ends in it are escaped."""
    live = {**body, "stream": True, "stream_options": {"include_usage": True}}
    line = encode_request("mark-1", "/v1/chat/completions" if has_url else "", live)
    assert b"\n" not in line
    assert b"\r" not in line
    value = json.loads(line)
    body.pop("stream", None)
    body.pop("stream_options", None)
    assert value.pop("body") == json.loads(json.dumps(body))
    target = {"method": "POST", "url": "/v1/chat/completions"} if has_url else {}
    assert value == {"custom_id": "mark-1", **target}


@given(ALMOST)
def test_whatever_a_service_sends_is_read_or_is_a_decoding_error(said: Any) -> None:
    """Never another exception: the caller maps these to an error of the provider."""
    for parse in (
        parse_batch,
        parse_page,
        parse_result,
        mistral_jobs.parse_job,
        mistral_jobs.parse_page,
    ):
        with suppress(*DECODING_ERRORS):
            parse(said)


@given(st.dictionaries(FIELDS, ALMOST, max_size=8), st.text(min_size=1), st.text())
def test_a_job_has_valid_fields_whatever_else_it_has(
    said: dict[str, Any], job_id: str, status: str
) -> None:
    """Counts are not negative, files have names, and metadata can be asked by key."""
    with suppress(*DECODING_ERRORS):
        batch = parse_batch({**said, "id": job_id, "status": status})
        assert batch.id == job_id
        assert min(batch.completed, batch.failed) >= 0
        assert batch.total is None or batch.total > 0
        assert all(batch.files)
        batch.metadata.get("a")
        assert all(isinstance(text, str) for error in batch.errors for text in error)


def test_times_and_states_are_read_as_each_service_writes_them() -> None:
    """Seconds or text, lower case or not."""
    moment = datetime(2024, 7, 19, 17, 13, 57, tzinfo=UTC)
    openai_said = {"id": "b", "status": "in_progress", "created_at": int(moment.timestamp())}
    azure = {"id": "b", "status": "InProgress", "created_at": "2024-07-19T17:13:57.0000001+00:00"}
    together = {"id": "b", "status": "IN_PROGRESS", "created_at": "2024-07-19T17:13:57Z"}
    for said in (openai_said, azure, together):
        batch = parse_batch(said)
        assert (batch.status, batch.created) == ("in_progress", moment)


@pytest.mark.parametrize(
    ("said", "errors"),
    [
        ({"errors": {"object": "list", "data": [{"code": "empty_file", "message": "It is empty.", "line": None}]}}, (("empty_file", "It is empty."),)),
        ({"errors": [{"code": "invalid_method", "message": "GET", "line": 4}]}, (("invalid_method", "line 4: GET"),)),
        ({"error": "The model is not available."}, (("", "The model is not available."),)),
        ({"errors": None, "error": ""}, ()),
        ({"errors": {"data": None}}, ()),
    ],
)  # fmt: skip
def test_the_errors_of_a_job_are_read_in_all_forms(said: Any, errors: Any) -> None:
    """OpenAI's object, Groq's list and Together's text."""
    assert parse_batch({"id": "b", "status": "failed", **said}).errors == errors


def test_a_line_of_results_is_a_response_or_an_error() -> None:
    """With the status of the response, and the code of an error in place of one."""
    good = {"custom_id": "a", "response": {"status_code": 200, "request_id": "r", "body": {"x": 1}}, "error": None}  # fmt: skip
    found = parse_result(good)
    assert (found.status, found.body, found.request_id, found.code) == (200, {"x": 1}, "r", "")
    late = {"custom_id": "a", "response": None, "error": {"code": "batch_expired", "message": "late"}}  # fmt: skip
    found = parse_result(late)
    assert (found.status, found.code) == (0, "batch_expired")
    assert found.body == {"error": {"code": "batch_expired", "message": "late"}}
    assert parse_result({"custom_id": "a", "response": {"body": {"x": 1}}}).status == 200
    assert parse_result({"custom_id": "a", "error": "no"}).body == {"error": {"message": "no"}}
    for wrong in ({"custom_id": 1, "error": "no"}, {"custom_id": "a"}, {"error": "no"}):
        with pytest.raises(DECODING_ERRORS):
            parse_result(wrong)


def test_identifiers_cannot_change_a_path() -> None:
    """A service's identifier is one part of the path."""
    assert openai_batches.item_path("files", "a/../b?c", "content") == "/files/a%2F..%2Fb%3Fc/content"  # fmt: skip
    assert mistral_jobs.job_path("a/b#c") == "/batch/jobs/a%2Fb%23c"
