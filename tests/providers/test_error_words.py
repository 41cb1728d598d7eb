"""Errors in the words of each service: prompts too long, requests too large, overload."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_magics import ChatMessage, ModelParameters, errors
from llm_magics.providers import create_provider
from llm_magics.providers.error_bodies import parse_error
from llm_magics.providers.openai_errors import map_openai_error
from tests.support.serving import Asked, Says, as_json, serving

HI = [ChatMessage("user", "hi")]

BAD = "invalid_request_error"
UPSTREAM = {"type": "error", "error": {"type": BAD, "message": "prompt is too long: 213456 tokens > 200000 maximum"}}  # fmt: skip

# Name, status and body of refusals as the services send them. Sources: the services' docs and
# sources (vLLM, llama.cpp, TGI, TEI, SGLang, LM Studio) and public reports of users.
TOO_LONG: list[tuple[str, int, Any]] = [
    ("lmstudio keep", 400, {"error": "Trying to keep the first 9000 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens, which is not enough. Try to load the model with a larger context length, or provide a shorter input"}),
    ("lmstudio keep, object", 400, {"error": {"message": "Trying to keep the first 9000 tokens when context overflows. However, the model is loaded with context length of only 4096 tokens"}}),
    ("lmstudio full", 500, {"error": "Context size has been exceeded."}),
    ("lmstudio n_keep", 400, {"error": "The number of tokens to keep from the initial prompt is greater than the context length. Try to load the model with a larger context length, or provide a shorter input"}),
    ("lmstudio truncate", 500, {"error": {"message": "Cannot truncate prompt with n_keep (4112) >= n_ctx (4096)"}}),
    ("llama.cpp code", 400, {"error": {"code": 400, "message": "request (4410 tokens) exceeds the available context size (2048 tokens), try increasing it", "type": "exceed_context_size_error", "n_prompt_tokens": 4410, "n_ctx": 2048}}),
    ("llama.cpp older", 400, {"error": {"code": 400, "message": "the request exceeds the available context size. try increasing the context size or enable context shift", "type": BAD}}),
    ("llama.cpp in the middle", 500, {"error": {"code": 500, "message": "Context size has been exceeded.", "type": "server_error"}}),
    ("llama.cpp embeddings", 500, {"error": {"code": 500, "message": "input (600 tokens) is too large to process. increase the physical batch size (current batch size: 512)", "type": "server_error"}}),
    ("vllm", 400, {"object": "error", "message": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4000 in the messages, 1000 in the completion). Please reduce the length of the messages or completion.", "type": "BadRequestError", "param": None, "code": 400}),
    ("vllm newer", 400, {"error": {"message": "This model's maximum context length is 4096 tokens. However, you requested 100 output tokens and your prompt contains at least 4090 input tokens", "type": "BadRequestError", "param": None, "code": 400}}),
    ("vllm decoder prompt", 400, {"error": {"message": "The decoder prompt (length 5000) is longer than the maximum model length of 4096. Make sure that `max_model_len` is no smaller than the number of text tokens.", "type": "BadRequestError", "code": 400}}),
    ("vllm max_tokens", 400, {"object": "error", "message": "'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum context length is 4096 tokens and your request has 4000 input tokens (5000 > 4096 - 4000).", "type": "BadRequestError", "code": 400}),
    ("sglang", 400, {"object": "error", "message": "The input (9000 tokens) is longer than the model's context length (8192 tokens).", "type": "BadRequestError", "code": 400}),
    ("tgi", 422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens and 500 `max_new_tokens`", "error_type": "validation"}),
    ("tgi inputs", 422, {"error": "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000", "error_type": "validation"}),
    ("tei", 413, {"error": "Input validation error: `inputs` must have less than 512 tokens. Given: 600", "error_type": "Validation"}),
    ("openai", 400, {"error": {"message": "This model's maximum context length is 128000 tokens. However, your messages resulted in 130518 tokens.", "type": BAD, "param": "messages", "code": "context_length_exceeded"}}),
    ("openai embeddings", 400, {"error": {"message": "This model's maximum context length is 8192 tokens, however you requested 9000 tokens (9000 in your prompt; 0 for the completion). Please reduce your prompt; or completion length.", "type": BAD, "param": None, "code": None}}),
    ("openai embeddings, newer", 400, {"error": {"message": "Invalid 'input': maximum context length is 8192 tokens.", "type": BAD, "param": None, "code": None}}),
    ("openai embeddings, batch", 400, {"error": {"message": "Requested 301000 tokens, max 300000 tokens per request", "type": "max_tokens_per_request", "param": None, "code": "max_tokens_per_request"}}),
    ("openai responses", 400, {"error": {"message": "Your input exceeds the context window of this model. Please adjust your input and try again.", "type": BAD, "param": "input", "code": "context_length_exceeded"}}),
    ("azure", 400, {"error": {"message": "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 301213 tokens. Please reduce the length of the messages."}}),
    ("deepseek", 400, {"error": {"message": "This model's maximum context length is 65536 tokens. However, you requested 70000 tokens (66000 in the messages, 4000 in the completion).", "type": BAD, "param": None, "code": BAD}}),
    ("openrouter", 400, {"error": {"message": "This endpoint's maximum context length is 131072 tokens. However, you requested about 148000 tokens (130000 of text input, 18000 in the output). Please reduce the length of either one, or use the \"middle-out\" transform to compress your prompt automatically.", "code": 400}}),
    ("openrouter, behind it", 400, {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": json.dumps(UPSTREAM), "provider_name": "Anthropic"}}}),
    ("openrouter, text behind it", 400, {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": "Input is too long for requested model", "provider_name": "Amazon Bedrock"}}}),
    ("groq", 400, {"error": {"message": "Please reduce the length of the messages or completion.", "type": BAD, "param": "messages", "code": "context_length_exceeded"}}),
    ("groq, without code", 400, {"error": {"message": "Please reduce the length of the messages or completion.", "type": BAD}}),
    ("groq body", 413, {"error": {"message": "Request Entity Too Large", "type": BAD, "code": "request_too_large"}}),
    ("cerebras", 400, {"message": "Please reduce the length of the messages or completion. Current length is 9000 while limit is 8192", "type": BAD, "param": "messages", "code": "context_length_exceeded"}),
    ("together", 422, {"error": {"message": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: 8000 `inputs` tokens and 500 `max_new_tokens`", "type": BAD, "param": None, "code": None}}),
    ("together, newer", 400, {"error": {"message": "The input (516368 tokens) is longer than the model's context length (262144 tokens).", "type": BAD}}),
    ("fireworks", 400, {"error": {"object": "error", "type": BAD, "message": "The prompt is too long: 131073, model maximum context length: 131072"}}),
    ("mistral", 400, {"object": "error", "message": "Prompt contains 140000 tokens and 0 draft tokens, too large for model with 128000 maximum context length", "type": "invalid_request_prompt", "code": "3051"}),
    ("mistral embeddings", 400, {"object": "error", "message": "Input id 0 has 9000 tokens, exceeding max 8192 tokens.", "type": BAD}),
    ("xai", 400, {"code": "Client specified an invalid argument", "error": "This model's maximum prompt length is 131072 but the request contains 150000 tokens."}),
    ("gemini", 400, [{"error": {"code": 400, "message": "The input token count (1100000) exceeds the maximum number of tokens allowed (1048576).", "status": "INVALID_ARGUMENT"}}]),
    ("vertex", 400, [{"error": {"code": 400, "message": "Unable to submit request because the input token count is 33000 but the model supports up to 32768. Reduce the input token count and try again.", "status": "INVALID_ARGUMENT"}}]),
    ("anthropic behind a gateway", 400, UPSTREAM),
    ("anthropic with max_tokens", 400, {"type": "error", "error": {"type": BAD, "message": "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease input length or `max_tokens` and try again"}}),
    ("bedrock", 400, {"message": "Input is too long for requested model."}),
    ("cohere", 400, {"message": "too many tokens: size limit exceeded by 12345 tokens. Try using shorter or fewer inputs."}),
    ("voyage", 400, {"detail": "Request to model 'voyage-3' failed. The max allowed tokens per submitted batch is 120000. Your batch has 130000 tokens after truncation."}),
    ("moonshot", 400, {"error": {"message": "Invalid request: Your request exceeded model token limit: 8192", "type": BAD}}),
    ("minimax", 400, {"error": {"message": "invalid params, context window exceeds limit (2013)", "type": "bad_request_error"}}),
    ("dashscope", 400, {"error": {"message": "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 129024]", "type": BAD}}),
    ("cloudflare", 413, {"success": False, "errors": [{"message": "AiError: The estimated number of input and maximum output tokens (9000) exceeded this model context window limit (8000).", "code": 5021}], "messages": [], "result": {}}),
    ("github", 413, {"error": {"code": "tokens_limit_reached", "message": "Request body too large for gpt-4o model. Max size: 8000 tokens.", "details": "…"}}),
    ("copilot", 400, {"error": {"message": "prompt token count of 140000 exceeds the limit of 128000", "code": "model_max_prompt_tokens_exceeded"}}),
    ("ollama 0.30", 400, {"error": json.dumps({"error": {"code": 400, "message": "request (4410 tokens) exceeds the available context size (2048 tokens), try increasing it", "type": "exceed_context_size_error", "n_prompt_tokens": 4410, "n_ctx": 2048}})}),
    ("litellm's proxy", 400, {"error": {"message": "litellm.BadRequestError: AnthropicException - " + json.dumps(UPSTREAM), "type": None, "param": None, "code": "400"}}),
    ("fastapi", 400, {"detail": "This model's maximum context length is 2048 tokens. However, you requested 3000 tokens."}),
]  # fmt: skip

# The prompt, or a model's own words, come back in the message; the limits of an account.
NOT_TOO_LONG: list[tuple[str, int, Any]] = [
    ("quoted", 400, {"error": {"message": "Invalid value in messages[0]: 'the prompt is too long: 9 tokens > 8 maximum'", "type": BAD}}),
    ("double quotes", 400, {"error": {"message": 'Cannot read "This model\'s maximum context length is 8 tokens" as a tool', "type": BAD}}),
    ("backticks", 422, {"error": {"message": "Unknown name `context window exceeded, too many tokens`", "type": BAD}}),
    ("validation", 422, {"detail": [{"type": "string_type", "loc": ["body", "messages", 0, "content"], "msg": "Input should be a valid string", "input": {"x": "prompt is too long, maximum context length"}}]}),
    ("mistral's validation", 422, {"object": "error", "message": {"detail": [{"type": "missing", "loc": ["body", "model"], "msg": "Field required", "input": {"messages": "too many tokens, context window"}}]}, "type": BAD}),
    ("key", 401, {"error": {"message": "Incorrect key; the context window is for members", "type": BAD}}),
    ("throttled", 429, {"message": "Too many tokens, please wait before trying again."}),
    ("throttled, in a stream", 400, {"message": "Too many tokens, please wait before trying again."}),
    ("rate", 429, {"error": {"message": "Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Used 28000, Requested 4000. Please try again in 4s.", "code": "rate_limit_exceeded"}}),
    ("longest answer", 400, {"type": "error", "error": {"type": BAD, "message": "max_tokens: 64000 > 32000, which is the maximum allowed number of output tokens for claude-3-5-sonnet-20241022"}}),
    ("picture", 400, {"error": {"type": BAD, "message": "messages.1.content.0.image.source.base64: image exceeds 5 MB maximum: 6291456 bytes > 5242880 bytes"}}),
    ("parameter", 400, {"error": {"message": "Unsupported parameter: context. Remove it and try again.", "type": BAD}}),
    ("server", 500, {"error": {"message": "This model's maximum context length is 8192 tokens.", "type": "server_error"}}),
]  # fmt: skip

TPM = "on tokens per min (TPM): Limit 30000, Requested 40000."
TOO_LARGE: list[tuple[str, int, Any]] = [
    ("openai", 429, {"error": {"message": f"Request too large for gpt-4o in organization org-x {TPM} The input or output tokens must be reduced in order to run successfully.", "type": "tokens", "param": None, "code": "rate_limit_exceeded"}}),
    ("openai, longer name", 429, {"error": {"message": f"Request too large for gpt-4.1-2025-04-14 (for limit gpt-4.1) in organization org-x {TPM}", "type": "tokens", "code": "rate_limit_exceeded"}}),
    ("groq", 413, {"error": {"message": "Request too large for model `llama-3.1-8b-instant` in organization `org_x` service tier `on_demand` on tokens per minute (TPM): Limit 6000, Requested 7000, please reduce your message size and try again. Need more tokens? Upgrade to Dev Tier today", "type": "tokens", "code": "rate_limit_exceeded"}}),
    ("reached, and more than all of it", 429, {"error": {"message": "Rate limit reached for m in organization o on tokens per min (TPM): Limit 10,000, Used 0, Requested 12,000. Please try again in 1s.", "type": "tokens", "code": "rate_limit_exceeded"}}),
    ("anthropic's long context", 429, {"type": "error", "error": {"type": "rate_limit_error", "message": "Extra usage is required for long context requests."}}),
]  # fmt: skip


def cases(table: list[tuple[str, int, Any]]) -> list[Any]:
    """Parameters of a test, named by their service."""
    return [pytest.param(status, body, id=name) for name, status, body in table]


@pytest.mark.parametrize(("status", "body"), cases(TOO_LONG))
def test_a_prompt_too_long_is_recognised_in_every_services_words(status: int, body: Any) -> None:
    """Whole and in the middle of a stream, where there is no status; never retried."""
    for known in (status, None):
        error = map_openai_error(body, known, "openai", "m", {})
        assert type(error) is errors.ContextLengthError, (known, parse_error(body))
        assert not error.retryable
        assert error.hint


@pytest.mark.parametrize(("status", "body"), cases(NOT_TOO_LONG))
def test_what_a_message_quotes_does_not_count(status: int, body: Any) -> None:
    """A prompt that speaks of context windows, and limits that are others, are not mistaken."""
    for known in (status, None):
        error = map_openai_error(body, known, "openai", "m", {})
        if known is None and status in (401, 500):
            continue  # their status says what they are
        assert not isinstance(error, errors.ContextLengthError)


@pytest.mark.parametrize(("status", "body"), cases(TOO_LARGE))
def test_a_request_too_large_for_a_tier_is_not_retried(status: int, body: Any) -> None:
    """It is a rate limit, and no waiting helps; the hint says what does."""
    for known in (status, None):
        error = map_openai_error(body, known, "openai", "m", {"retry-after": "1"})
        assert type(error) is errors.RateLimitError
        assert not error.retryable
        assert "does not help" in (error.hint or "")


def test_a_reached_limit_is_retried() -> None:
    """One that fits in the limit, and comes too early."""
    message = "Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 29937, Requested 385."
    error = map_openai_error(
        {"error": {"message": message, "code": "rate_limit_exceeded"}}, 429, "o", "m", {}
    )
    assert type(error) is errors.RateLimitError
    assert error.retryable


OVERLOADED = ["server_is_overloaded", "overloaded_error", "slow_down", "engine_overloaded_error"]


def in_stream(provider: str, body: Any, **settings: Any) -> errors.ProviderError:
    """The error of a chat whose stream begins with ``body`` as its only event."""
    event = f"data: {json.dumps(body)}\n\n".encode()

    def answers(asked: Asked) -> Says:
        return Says([event]) if asked.method == "POST" else as_json({"error": "no list"}, 500)

    async def use(url: str) -> None:
        made = create_provider(provider, base_url=url, api_key="a-key-of-the-test", **settings)
        try:
            await made.generate_chat(HI, "some-model", ModelParameters(stream=False))
        finally:
            await made.close()

    with serving(answers) as server, pytest.raises(errors.ProviderError) as caught:
        asyncio.run(use(server.url))
    return caught.value


@pytest.mark.parametrize("code", OVERLOADED)
def test_overload_inside_a_stream_is_retryable(code: str) -> None:
    """As 529 is, in chats, in Responses and in Messages, by code or by type."""
    failed = {"id": "r", "status": "failed", "error": {"code": code, "message": "Busy."}}
    told = [
        in_stream("openai", {"error": {"message": "Busy.", "type": code}}),
        in_stream("openai", {"error": {"message": "Busy.", "type": "x", "code": code}}),
        in_stream("lmstudio", {"error": {"message": "Busy.", "code": code}}),
        in_stream("huggingface", {"error": {"message": "Busy.", "code": code}}),
        in_stream("anthropic", {"type": "error", "error": {"type": code, "message": "Busy."}}),
        in_stream("openai", {"type": "response.failed", "response": failed}, api="responses"),
        in_stream("openai", {"type": "error", "code": code, "message": "Busy."}, api="responses"),
        in_stream("openai", {"type": "error", "error": {"code": code, "message": "Busy."}}, api="responses"),
    ]  # fmt: skip
    for error in told:
        assert type(error) is errors.RateLimitError
        assert error.retryable
        assert error.status == 529


KEPT = "Trying to keep the first 9000 tokens when context the overflows."
GEMINI = {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}


def test_a_context_that_overflows_in_a_stream_is_recognised() -> None:
    """LM Studio and llama.cpp say it after status 200."""
    for said in (
        {"error": KEPT},
        {"error": {"message": "Context size has been exceeded.", "code": 500}},
    ):
        for provider in ("lmstudio", "openai"):
            error = in_stream(provider, said)
            assert type(error) is errors.ContextLengthError
            assert not error.retryable
    assert "lms load" in (in_stream("lmstudio", {"error": KEPT}).hint or "")


@pytest.mark.parametrize("settings", [{}, {"api": "responses"}])
def test_an_error_in_a_list_reads_like_others(settings: dict[str, Any]) -> None:
    """Google's, in a stream, and whole after status 200 or 503."""
    body = [{"error": GEMINI}]
    whole = map_openai_error(body, 503, "openai", "m", {})
    streamed = in_stream("openai", body, **settings)
    for error in (whole, streamed):
        assert "The model is overloaded" in str(error)
        assert error.status == 503
        assert error.retryable
        assert error.code == 503


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([{"error": {"message": "no"}}], "no"),
        ({"error": '{"error": {"message": "no", "type": "x"}}'}, "no"),
        ({"error": {"message": '{"error": {"message": "no"}}'}}, "no"),
        ('{"error": {"message": "no"}}', "no"),
        ({"error": {"message": {"message": "no"}}}, "no"),
        ({"errors": [{"message": "no", "code": 7}]}, "no"),
        ({"error": {"error": {"message": "no"}}}, "no"),
        ({"message": "no"}, "no"),
        ({"detail": {"error": {"message": "no"}}}, "no"),
        ({"detail": [{"loc": ["body", "x"], "msg": "no", "input": "secret"}]}, "body.x: no"),
        ({"error": True, "message": "no"}, "no"),
        ({"error": {"message": "Provider returned error", "metadata": {"raw": '{"message": "no"}'}}}, "Provider returned error: no"),
    ],
)  # fmt: skip
def test_nested_errors_are_unwrapped(body: Any, message: str) -> None:
    """JSON text in an error, an error in an error, lists: the innermost words are the message."""
    assert parse_error(body).message == message


TEXTS = st.sampled_from([body for _, _, body in TOO_LONG])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine
@given(TEXTS, st.integers(0, 4), st.booleans())
def test_wrapping_an_error_does_not_hide_it(body: Any, levels: int, in_list: bool) -> None:
    """However many gateways put it into their own as JSON text."""
    for level in range(levels):
        text = json.dumps(body)
        body = {"error": text} if level % 2 else {"error": {"message": text, "code": 400}}
    error = map_openai_error(
        [body] if in_list and isinstance(body, dict) else body, 400, "o", "m", {}
    )
    assert type(error) is errors.ContextLengthError


@pytest.mark.parametrize("provider", ["lmstudio", "openai", "huggingface"])
@pytest.mark.parametrize("status", [200, 400])
def test_embeddings_read_errors_in_the_same_way(provider: str, status: int) -> None:
    """A list, with the status of an error or of an answer, and LM Studio's words."""
    for body in ([{"error": {"code": 400, "message": KEPT}}], {"error": KEPT}):

        async def use(url: str) -> None:
            made = create_provider(provider, base_url=url, api_key="a-key-of-the-test")
            try:
                await made.generate_embeddings(["long"], "some-model")
            finally:
                await made.close()

        says = as_json(body, status)
        with serving(says) as server, pytest.raises(errors.ContextLengthError) as caught:
            asyncio.run(use(server.url))
        assert not caught.value.retryable
