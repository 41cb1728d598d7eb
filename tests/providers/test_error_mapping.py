"""Every status, in each service's own shape: the right class, and all that the service told."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magics import ChatMessage, ModelParameters, ModelResponse, errors
from llm_magics.providers import create_provider
from llm_magics.providers.error_bodies import parse_error
from llm_magics.providers.openai_errors import map_openai_error
from tests.support.examples import examples
from tests.support.serving import Asked, Says, as_json, serving

HI = [ChatMessage("user", "hi")]
KEY = "a-key-of-the-test"

E = errors
# What each status means, and whether asking again may help.
MEANS: dict[int, tuple[type[errors.ProviderError], bool]] = {
    400: (E.ProviderError, False),
    401: (E.AuthenticationError, False),
    402: (E.RateLimitError, False),
    403: (E.AuthenticationError, False),
    404: (E.ModelNotFoundError, False),
    408: (E.ProviderError, True),
    413: (E.ContextLengthError, False),
    422: (E.ProviderError, False),
    429: (E.RateLimitError, True),
    500: (E.ProviderError, True),
    502: (E.ProviderError, True),
    503: (E.ProviderError, True),
    504: (E.ProviderError, True),
    529: (E.RateLimitError, True),
}

# Anthropic's names, https://docs.anthropic.com/en/api/errors.
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
# Google's, https://cloud.google.com/apis/design/errors.
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def body_of(provider: str, status: int) -> dict[str, Any]:
    """A refusal as the service writes it."""
    words = "something is not as it should be"
    if provider == "anthropic":
        kind = TYPES.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": words}}
    if provider == "gemini":
        kind = STATUSES.get(status, "UNKNOWN")
        return {"error": {"code": status, "message": words, "status": kind}}
    if provider == "ollama":
        return {"error": words}
    if provider == "lmstudio":
        return {"error": words}
    if provider == "huggingface" and status in (401, 402):
        return {"error": words}
    return {"error": {"message": words, "type": "some_error", "param": None, "code": None}}


def refused(provider: str, says: Says, **settings: Any) -> errors.ProviderError:
    """The error that a chat with such a server ends in."""

    def answers(asked: Asked) -> Says:
        return says if asked.method == "POST" else as_json({"error": "no list"}, 500)

    async def use(url: str) -> None:
        made = create_provider(provider, base_url=url, api_key=KEY, **settings)
        try:
            await made.generate_chat(HI, "some-model", ModelParameters())
        finally:
            await made.close()

    with serving(answers) as server, pytest.raises(errors.ProviderError) as caught:
        asyncio.run(use(server.url))
    return caught.value


REMOTE = ["anthropic", "gemini", "huggingface", "lmstudio", "ollama", "openai"]


@pytest.mark.parametrize("status", sorted(MEANS))
@pytest.mark.parametrize("provider", REMOTE)
def test_every_status_has_its_class(provider: str, status: int) -> None:
    """With provider, model, status, request id, wait, and a hint where there is something to do."""
    id_header = "request-id" if provider == "anthropic" else "x-request-id"
    headers = {id_header: "req_42", "retry-after": "7"}
    says = as_json(body_of(provider, status), status)
    error = refused(provider, Says(says.pieces, status, "application/json", headers=headers))
    made, retryable = MEANS[status]
    if provider == "ollama" and status in (402, 413, 503, 529):  # a queue, or no status of its own
        made, retryable = type(error), status >= 500
    assert type(error) is made
    assert error.retryable is retryable
    assert (error.provider, error.model, error.status) == (provider, "some-model", status)
    assert "something is not as it should be" in str(error)
    assert error.retry_after == 7
    assert error.body == body_of(provider, status)
    if provider != "ollama":
        assert error.request_id == "req_42"
    if made is not errors.ProviderError:
        assert error.hint


@pytest.mark.parametrize("provider", REMOTE)
def test_a_gateways_page(provider: str) -> None:
    """HTML and plain text of whatever stands between are read, and never end in a traceback."""
    page = Says([b"<html><h1>502 Bad Gateway</h1></html>"], 502, "text/html")
    error = refused(provider, page)
    assert "502 Bad Gateway" in str(error)
    assert "<h1>" not in str(error)
    assert error.retryable
    assert refused(provider, Says([b""], 503, "text/plain")).retryable
    assert refused(provider, Says([b"\xff\xfe"], 400, "text/plain")).status == 400


@pytest.mark.parametrize(
    ("body", "message", "code", "kind", "status"),
    [
        ({"error": {"message": "no", "code": 400, "type": "bad"}}, "no", 400, "bad", 400),
        ({"error": {"message": "no", "code": "x", "type": None}}, "no", "x", None, None),
        ({"error": "text"}, "text", None, None, None),
        ({"detail": "x"}, "x", None, None, None),
        ({"detail": [{"msg": "a"}]}, '[{"msg": "a"}]', None, None, None),
        ({"error": ["a"]}, "['a']", None, None, None),
        ({"error": "busy", "error_type": "overloaded"}, "busy", None, "overloaded", None),
        ({"status": 429, "error": "INSUFFICIENT QUOTA", "message": "m"}, "INSUFFICIENT QUOTA: m", None, None, 429),
        ({"object": "error", "message": {"detail": ["d"]}, "type": "invalid"}, '{"detail": ["d"]}', None, "invalid", None),
        ({"message": "tool use failed", "status_code": 400}, "tool use failed", None, None, 400),
        ("<html>bad gateway</html>", "<html>bad gateway</html>", None, None, None),
    ],
)  # fmt: skip
def test_errors_of_every_shape_are_read(
    body: Any, message: str, code: Any, kind: str | None, status: int | None
) -> None:
    """OpenAI, LM Studio, FastAPI, Hugging Face, TGI, Scaleway, Mistral, Groq, and a proxy."""
    details = parse_error(body)
    assert (details.message, details.code, details.kind, details.status) == (
        message,
        code,
        kind,
        status,
    )


@settings(max_examples=examples(40))
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(
            st.sampled_from(["error", "message", "code", "type", "status", "detail", "x"]), inner
        ),
    ),
    st.none() | st.integers(100, 999),
)  # fmt: skip
def test_no_body_breaks_the_reading(body: Any, status: int | None) -> None:
    """Whatever a server sends, there is an error to raise."""
    assert isinstance(map_openai_error(body, status, "openai", "m", {}), errors.ProviderError)


@pytest.mark.parametrize(
    ("status", "message", "made"),
    [
        (400, "This model's maximum context length is 8192 tokens.", E.ContextLengthError),
        (400, "prompt is too long: 210000 tokens > 200000 maximum", E.ContextLengthError),
        (400, "The requested model 'a/b' is not supported by any provider you have enabled.", E.ModelNotFoundError),
        (400, "The requested model 'gpt-x' does not exist.", E.ModelNotFoundError),
        (500, "This model's maximum context length is 8192 tokens.", E.ProviderError),
        (400, "Invalid value in prompt 'error 429 rate limit'", E.ProviderError),
    ],
)  # fmt: skip
def test_words_count_where_there_is_no_code(
    status: int, message: str, made: type[errors.ProviderError]
) -> None:
    """Only with a status that blames the caller: an error may repeat any prompt."""
    error = map_openai_error({"error": {"message": message}}, status, "openai", "m", {})
    assert type(error) is made


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({}, None),
    ],
)
def test_how_long_the_service_wants_to_be_left_alone(
    headers: dict[str, str], expected: float | None
) -> None:
    """Seconds, milliseconds, a date; and x-should-retry has the last word."""
    body = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}
    assert map_openai_error(body, 429, "openai", "m", headers).retry_after == expected
    never = map_openai_error(body, 429, "openai", "m", {**headers, "x-should-retry": "false"})
    assert not never.retryable


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ('"all-minilm" does not support chat', E.UnsupportedError),
        ("registry.ollama.ai/library/m:latest does not support tools", E.UnsupportedError),
        ("this model does not support embeddings", E.UnsupportedError),
        ("Your prompt “it does not support chat” is odd", E.ProviderError),
    ],
)
def test_a_model_without_a_capability(words: str, expected: type[E.ProviderError]) -> None:
    """Ollama says so in words alone, through OpenAI's and Anthropic's formats too."""
    for kind in ("invalid_request_error", "api_error"):
        error = map_openai_error({"error": {"message": words, "type": kind}}, 400, "openai", "m")
        assert type(error) is expected
        assert error.retryable is False


@pytest.mark.parametrize("provider", ["anthropic", "gemini", "huggingface", "lmstudio", "openai"])
def test_an_error_inside_a_stream_has_its_class(provider: str) -> None:
    """Status 200 promises nothing; a Retry-After that came with it means nothing."""
    if provider == "anthropic":
        inside = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    else:
        inside = {"error": {"message": "Overloaded", "type": "overloaded", "code": 429}}
    event = f"event: error\ndata: {json.dumps(inside)}\n\n".encode()
    error = refused(provider, Says([event], headers={"retry-after": "9"}))
    assert type(error) is errors.RateLimitError
    assert error.retryable
    assert error.retry_after is None
    assert "Overloaded" in str(error)


@pytest.mark.parametrize("provider", REMOTE)
def test_what_came_before_the_break_is_kept(provider: str) -> None:
    """A stream that ends without its finish marker is interrupted, with what came."""
    if provider == "ollama":
        begun = b'{"message": {"role": "assistant", "content": "half"}, "done": false}\n'
        says = Says([begun], content_type="application/x-ndjson")
    elif provider == "anthropic":
        delta = {"type": "text_delta", "text": "half"}
        event = {"type": "content_block_delta", "index": 0, "delta": delta}
        says = Says([f"data: {json.dumps(event)}\n\n".encode()])
    elif provider == "gemini":
        said = {"candidates": [{"content": {"parts": [{"text": "half"}]}}]}
        says = Says([f"data: {json.dumps(said)}\n\n".encode()])
    else:
        delta = {"choices": [{"index": 0, "delta": {"content": "half"}}]}
        says = Says([f"data: {json.dumps(delta)}\n\n".encode()])
    error = refused(provider, says)
    assert isinstance(error, errors.StreamInterrupted)
    assert isinstance(error.partial, ModelResponse)
    assert error.partial.text == "half"
    assert error.retryable
