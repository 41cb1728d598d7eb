"""Ollama: every recorded refusal, what is sent, pulls, and servers that misbehave."""

from __future__ import annotations

import asyncio
import json
import os
import warnings
from collections.abc import AsyncGenerator, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import ChatMessage, ModelParameters, ModelResponse, errors
from llm_magics.attachments import Image
from llm_magics.host import Progress
from llm_magics.providers.ollama import OllamaConfig, OllamaProvider
from llm_magics.types import StreamChunk
from tests.support.fake_ollama import CHAT, EMBED, FakeOllama
from tests.support.recorded import needs_recordings, records
from tests.support.serving import Asked, Says, Server, as_json, serving
from tests.support.wire_answers import PNG

HI = [ChatMessage("user", "hi")]


@pytest.fixture
def server() -> Iterator[Server]:
    """The fake server."""
    with serving(FakeOllama()) as running:
        yield running


def asked_once(url: str, do: Any, **settings: Any) -> Any:
    """What ``do`` gives, called with a provider at ``url``."""

    async def use() -> Any:
        async with OllamaProvider(OllamaConfig(base_url=url, **settings)) as provider:
            return await do(provider)

    return asyncio.run(use())


async def chatted(provider: OllamaProvider, **parameters: Any) -> ModelResponse:
    """A whole answer of the chat model."""
    answer = await provider.generate_chat(HI, CHAT, ModelParameters(**parameters))
    assert isinstance(answer, ModelResponse)
    return answer


def recorded(name: str, server: str = "ollama_server") -> Says:
    """An answer of the real server."""
    (record,) = [each for each in records(server) if each["name"] == name]
    content_type = record["headers"].get("content-type", "application/json")
    return Says([record["body"].encode()], record["status"], content_type)


def test_the_environment_says_where_and_with_what_key(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OLLAMA_HOST and OLLAMA_API_KEY; the key goes in a header, and is not shown."""
    monkeypatch.setenv("OLLAMA_HOST", server.url.removeprefix("http://"))
    monkeypatch.setenv("OLLAMA_API_KEY", "canary-93b1c6d2")
    config = OllamaConfig()
    assert config.base_url == server.url
    assert "canary" not in repr(config)
    asyncio.run(OllamaProvider(config).version())
    assert server.asked[-1].headers["authorization"] == "Bearer canary-93b1c6d2"


def test_a_projects_file_cannot_send_the_key_elsewhere(
    monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    """Not before the user has said yes, by setting the address himself."""
    monkeypatch.setenv("OLLAMA_API_KEY", "canary-93b1c6d2")
    Path("llm_magics.yaml").write_text(
        f"providers: {{ollama: {{base_url: '{server.url}'}}}}", encoding="utf-8"
    )
    with pytest.raises(errors.ConfigurationError, match=r"API key \(OLLAMA_API_KEY\)") as caught:
        lm.ask("hi", model=f"ollama/{CHAT}")
    assert "If you trust it" in str(caught.value.hint)
    assert server.asked == []
    lm.config.set("providers.ollama.base_url", server.url)
    assert lm.ask("hi", model=f"ollama/{CHAT}").text


@pytest.mark.parametrize("own", ["environment", "user file", "session"])
def test_no_key_of_the_users_follows_a_projects_address(
    monkeypatch: pytest.MonkeyPatch, server: Server, own: str
) -> None:
    """Wherever the key was set; but a key that the project brings itself goes there."""
    key = "canary-93b1c6d2"
    project = Path("llm_magics.yaml")
    project.write_text(f"providers: {{ollama: {{base_url: '{server.url}'}}}}", encoding="utf-8")
    if own == "environment":
        monkeypatch.setenv("LLM_MAGICS_OLLAMA_API_KEY", key)
    elif own == "user file":
        folder = Path(os.environ["XDG_CONFIG_HOME"]) / "llm_magics"
        folder.mkdir(parents=True)
        (folder / "llm_magics.yaml").write_text(f"providers: {{ollama: {{api_key: {key}}}}}")
    else:
        lm.config.set("providers.ollama.api_key", key)
    with pytest.raises(errors.ConfigurationError, match="API key"):
        lm.ask("hi", model=f"ollama/{CHAT}")
    assert server.asked == []
    lm.config.reset()
    lm.config.reload()
    monkeypatch.delenv("LLM_MAGICS_OLLAMA_API_KEY", raising=False)
    project.write_text(
        f"providers: {{ollama: {{base_url: '{server.url}', api_key: own-key-1}}}}",
        encoding="utf-8",
    )
    assert lm.ask("hi", model=f"ollama/{CHAT}").text


def test_a_call_through_the_whole_road(server: Server) -> None:
    """The service's counts and times are in the row, its load apart; a key means that it bills."""
    lm.config.set("providers.ollama.base_url", server.url)
    answer = lm.ask("hi", model=f"ollama/{CHAT}", max_tokens=5, keep_alive="1m")
    assert answer.usage.output_tokens == 5
    assert answer.timing.itl_ms == pytest.approx(125)
    assert answer.timing.load_s == pytest.approx(0.02)
    assert server.asked[-1].json()["keep_alive"] == "1m"
    assert (lm.runs().cost_usd == 0).all()
    lm.config.set("providers.ollama.api_key", "a-key-of-a-cloud")
    lm.ask("hi", model=f"ollama/{CHAT}", max_tokens=5)
    assert lm.runs().cost_usd.isna().tolist() == [False, True]


def test_models_with_what_is_known_of_them(server: Server) -> None:
    """Capabilities from each model's page where the list has none, asked once."""

    async def use(provider: OllamaProvider) -> None:
        await provider.load_model(CHAT)
        infos = {info.name: info for info in await provider.describe_models()}
        assert infos[CHAT].capabilities == ("chat", "completion", "tools")
        assert infos[EMBED].capabilities == ("embeddings",)
        assert (infos[CHAT].loaded, infos[EMBED].loaded) == (True, False)
        await provider.unload_model(CHAT)
        await provider.describe_models()
        assert not any(info.loaded for info in await provider.describe_models())

    asked_once(server.url, use)
    assert [asked.path for asked in server.asked].count("/api/show") == 3


def test_a_pull_tells_how_far_it_is(server: Server) -> None:
    """Layers added up by digest, repeated lines or not; at the end all of it."""

    async def use(provider: OllamaProvider) -> list[Progress]:
        told = [progress async for progress in provider.pull_model("ollama/new:1b")]
        assert "new:1b" in await provider.list_models()
        await provider.delete_model("new:1b")
        assert "new:1b" not in await provider.list_models()
        return told

    told = asked_once(server.url, use)
    assert [progress.done for progress in told if progress.total] == [0, 40, 40, 98, 98, 98]
    assert told[-1].fraction == 1


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        (Says([b'{"status":"pulling manifest"}\n{"error":"pull model manifest: file does not exist"}\n']), errors.ModelNotFoundError),
        (Says([b'{"status":"pulling manifest"}\n']), errors.ConnectionError),
        (as_json({"error": "invalid model name"}, 400), errors.ProviderError),
    ],
    ids=["error in a line", "cut off", "refused"],
)  # fmt: skip
def test_a_pull_that_fails(says: Says, expected: type[Exception]) -> None:
    """An error line is an error, and so is an end without success."""

    async def use(provider: OllamaProvider) -> None:
        async for _ in provider.pull_model("x"):
            pass

    def answers(asked: Asked) -> Says:
        return says if asked.path == "/api/pull" else as_json({"models": [], "version": "1"})

    with serving(answers) as running, pytest.raises(expected):
        asked_once(running.url, use)


REFUSALS = {
    "chat missing model": (errors.ModelNotFoundError, False),
    "embed missing": (errors.ModelNotFoundError, False),
    "chat tools unsupported": (errors.UnsupportedError, False),
    "chat think unsupported": (errors.UnsupportedError, False),
    "chat embed model": (errors.UnsupportedError, False),
    "chat bad format": (errors.ProviderError, False),
    "chat bad schema": (errors.ProviderError, False),
    "chat bad option": (errors.ProviderError, False),
    "chat bad image": (errors.ProviderError, False),
    "chat context overflow, no truncate": (errors.ContextLengthError, False),
    "chat server busy": (errors.RateLimitError, True),
    "generate runner killed whole": (errors.ProviderError, True),
    "wrong method": (errors.ProviderError, False),
}


@needs_recordings
@pytest.mark.parametrize("server", ["ollama_server", "ollama_server_0.30"])
@pytest.mark.parametrize("name", REFUSALS)
def test_every_recorded_refusal_has_its_class(name: str, server: str) -> None:
    """By the server's words where they tell more than its status; retried only where it helps."""
    expected, retryable = REFUSALS[name]

    def answers(asked: Asked) -> Says:
        return recorded(name, server) if asked.path == "/api/chat" else as_json({"models": []})

    with serving(answers) as running, pytest.raises(expected) as caught:
        asked_once(running.url, chatted)
    assert type(caught.value) is expected
    assert caught.value.retryable is retryable
    assert "registry.ollama.ai" not in str(caught.value)
    assert "{" not in str(caught.value)  # the words, not the JSON around them
    if expected is errors.ContextLengthError:
        assert "-p num_ctx=8192" in str(caught.value.hint)
        assert ("6010" in str(caught.value)) == (server == "ollama_server_0.30")


@needs_recordings
def test_a_model_process_that_is_killed_keeps_what_came() -> None:
    """Status 200, words, then an error line: StreamInterrupted, with the words."""
    lost = pytest.raises(errors.StreamInterrupted, match="unexpected EOF")
    with serving(recorded("chat runner killed")) as running, lost as caught:
        asked_once(running.url, chatted)
    assert caught.value.partial.text


VERSIONS = pytest.mark.parametrize("version", ["0.24.0", "0.30.0"])
LONG_TALK = [ChatMessage("user", "one two " * 900), ChatMessage("assistant", "ok " * 400), ChatMessage("user", "go on")]  # fmt: skip


@VERSIONS
@pytest.mark.parametrize("prompt", ["chat", "conversation", "completion"])
def test_a_prompt_longer_than_the_context_is_refused(version: str, prompt: str) -> None:
    """With how to raise it; the same prompt is read by a larger context, or cut on request."""

    async def use(provider: OllamaProvider) -> None:
        async def ask(**extra: Any) -> ModelResponse:
            parameters = ModelParameters(extra_body=extra, max_tokens=2)
            if prompt == "completion":
                answer = await provider.generate_completion("word " * 2100, CHAT, parameters)
            else:
                talk = (
                    LONG_TALK if prompt == "conversation" else [ChatMessage("user", "x " * 2100)]
                )
                answer = await provider.generate_chat(talk, CHAT, parameters)
            assert isinstance(answer, ModelResponse)
            return answer

        with pytest.raises(errors.ContextLengthError) as caught:
            await ask()
        assert caught.value.retryable is False
        assert "num_ctx=" in str(caught.value.hint)
        assert "truncate=True" in str(caught.value.hint)
        if version == "0.30.0":
            assert "2048" in str(caught.value)
        assert (await ask(num_ctx=8192)).text
        assert (await ask(options={"num_ctx": 8192})).text
        assert (await ask(truncate=True)).text

    with serving(FakeOllama(version)) as running:
        asked_once(running.url, use)
        sent = [asked.json() for asked in running.asked if asked.body]
    assert [(body.get("truncate"), body.get("shift")) for body in sent] == [
        *[(False, False)] * 3,
        (True, None),
    ]
    assert [body["options"].get("num_ctx") for body in sent] == [None, 8192, 8192, None]


@VERSIONS
@pytest.mark.parametrize("prompts", ["ask", "cell", "column", "compare"])
def test_a_long_prompt_is_refused_everywhere(
    version: str, prompts: str, shell: InteractiveShell
) -> None:
    """In a cell, a column and a comparison too; ``-p truncate=true`` has it cut."""
    long, model = "word " * 2100, f"ollama/{CHAT}"
    with serving(FakeOllama(version)) as running:
        lm.config.set("providers.ollama.base_url", running.url)
        if prompts == "ask":
            with pytest.raises(errors.ContextLengthError):
                lm.ask(long, model=model)
            assert lm.ask(long, model=model, truncate=True).text
        elif prompts == "cell":
            shell.run_cell_magic("llm", f"{model} -p truncate=true --max-tokens 2", long)
            with pytest.raises(errors.ContextLengthError):
                shell.run_cell_magic("llm", model, long)
            shell.run_cell_magic("llm", f"{model} -p num_ctx=4096 --max-tokens 2", long)
        elif prompts == "column":
            frame = pd.DataFrame({"text": ["short", long]})
            done = frame.llm.prompt("{{ text }}", into="said", model=model)
            assert done.llm.report.counts["failed"] == 1
            assert done.said.isna().tolist() == [False, True]
        else:
            table = lm.compare([long], [model])
            assert "ContextLengthError" in str(table.error.iloc[0])


def test_a_slip_in_truncate_is_refused_here(server: Server) -> None:
    """The server would answer with words about Go."""

    async def use(provider: OllamaProvider) -> None:
        await chatted(provider, extra_body={"truncate": "never"})

    with pytest.raises(errors.UsageError, match=r"truncate.*never"):
        asked_once(server.url, use)


@pytest.mark.parametrize("version", ["0.11.4", "0.24.0"])
def test_an_old_server_cannot_refuse(version: str) -> None:
    """It cuts, and answers with nothing: a warning is all there is."""
    last = {
        "message": {"content": ""},
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": 9,
    }

    def answers(asked: Asked) -> Says:
        if asked.path == "/api/version":
            return as_json({"version": version})
        return Says([json.dumps(last).encode() + b"\n"], content_type="application/x-ndjson")

    with serving(answers) as running, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with suppress(errors.ProviderError):  # an empty answer is none
            asked_once(running.url, chatted)
    assert any("raise num_ctx" in str(each.message) for each in told) == (version == "0.11.4")


@VERSIONS
@pytest.mark.parametrize("too_long", ["error", "truncate", "chunk-mean"])
def test_a_text_that_is_too_long_to_embed(version: str, too_long: str) -> None:
    """Refused, cut by the server in one request, or embedded in parts; never cut in silence."""
    long, model = "word " * 700, f"ollama/{EMBED}"
    frame = pd.DataFrame({"text": ["cat", long, "dog"]})
    with serving(FakeOllama(version)) as running:
        lm.config.set("providers.ollama.base_url", running.url)
        told = (
            pytest.warns(UserWarning, match="1 failed") if too_long == "error" else nullcontext()
        )
        with told:
            done = frame.llm.embed("text", model=model, too_long=too_long)
        outcome = {"error": "failed", "truncate": "truncated", "chunk-mean": "averaged"}[too_long]
        assert done.llm.report.counts[outcome] == 1
        assert done.vector.isna().tolist() == [False, too_long == "error", False]
        bodies = [each.json() for each in running.asked if each.path == "/api/embed"]
        if too_long == "error":
            with pytest.raises(errors.ContextLengthError) as caught:
                lm.embed([long], model=model, too_long="error")
            assert 'too_long="truncate"' in str(caught.value.hint)
        elif too_long == "truncate":
            cut = lm.embed(["word " * 256], model=model)
            np.testing.assert_allclose(done.vector.iloc[1], cut[0], atol=1e-6)
    cuts = [len(body["input"]) for body in bodies if body["truncate"] is not False]
    assert cuts == ([1] if too_long == "truncate" else [])


def test_a_missing_model_names_the_nearest(server: Server) -> None:
    """And how to fetch it."""

    async def use(provider: OllamaProvider) -> None:
        await provider.generate_chat(HI, "smolm2:135m", ModelParameters())

    with pytest.raises(errors.ModelNotFoundError) as caught:
        asked_once(server.url, use)
    assert (
        caught.value.hint == f"Did you mean {CHAT}? Download it with: %llm pull ollama/smolm2:135m"
    )


def test_a_picture_goes_only_to_who_can_see(server: Server) -> None:
    """The server would leave it out in silence."""
    look = [ChatMessage("user", "what is it", images=(Image(PNG),))]

    async def use(provider: OllamaProvider) -> None:
        await provider.generate_chat(look, "seeing:1b", ModelParameters())
        with pytest.raises(errors.UnsupportedError, match="images"):
            await provider.generate_chat(look, CHAT, ModelParameters())

    asked_once(server.url, use)
    (sent,) = [asked for asked in server.asked if asked.path == "/api/chat"]
    assert sent.json()["messages"][0]["images"] == [Image(PNG).base64]


def test_an_option_that_does_not_exist_is_refused(server: Server) -> None:
    """The server would take it in silence."""

    async def use(provider: OllamaProvider) -> None:
        await chatted(provider, extra_body={"options": {"num_cxt": 8}})

    with pytest.raises(errors.UsageError) as caught:
        asked_once(server.url, use)
    assert "num_ctx" in str(caught.value.hint)


def test_settings_go_with_every_call(server: Server) -> None:
    """Context and how long a model stays; those of the call over them."""

    async def use() -> None:
        config = OllamaConfig(base_url=server.url, num_ctx=64, keep_alive="2m")
        async with OllamaProvider(config) as provider:
            await chatted(provider)
            await chatted(provider, extra_body={"options": {"num_ctx": 128}})
            await provider.generate_embeddings(["a"], EMBED)

    asyncio.run(use())
    asked_for = ("/api/chat", "/api/embed")
    sent = [asked.json() for asked in server.asked if asked.path in asked_for]
    assert [body.get("options", {}).get("num_ctx") for body in sent] == [64, 128, None]
    assert {body["keep_alive"] for body in sent} == {"2m"}


def test_fewer_vectors_than_texts_are_an_error() -> None:
    """The server leaves out what it finds empty: whose vector is whose?"""
    lost = pytest.raises(errors.ProviderError, match="1 vectors for 2")
    with serving(as_json({"embeddings": [[1.0]]})) as running, lost:
        asked_once(running.url, lambda p: p.generate_embeddings(["a", ""], EMBED))


def test_nobody_at_home() -> None:
    """The error says how to start it; health says so without raising."""

    async def use(provider: OllamaProvider) -> dict[str, Any]:
        with pytest.raises(errors.ConnectionError) as caught:
            await chatted(provider)
        assert "ollama serve" in str(caught.value.hint)
        assert await provider.initialize() is False
        return await provider.health_check()

    health = asked_once("127.0.0.1:9", use)
    assert health["status"] == "unavailable"
    assert "Could not connect to" in health["detail"]


def test_a_server_that_answers_whole_when_asked_to_stream() -> None:
    """Status 200 and JSON is an answer, or an error, but never lost."""
    whole = {
        "message": {"role": "assistant", "content": "all"},
        "done": True,
        "done_reason": "stop",
    }
    with serving(as_json(whole)) as running:
        assert asked_once(running.url, chatted).text == "all"
    with serving(as_json({"error": "no"})) as running, pytest.raises(errors.ProviderError):
        asked_once(running.url, chatted)
    with serving(Says([b"<html>"])) as running, pytest.raises(errors.ProviderError):
        asked_once(running.url, chatted)


@needs_recordings
def test_recorded_vectors_and_lists_are_read() -> None:
    """As the real server sends them: vectors, the list of models, what is loaded."""
    answers = {
        "/api/embed": recorded("embed list"),
        "/api/tags": recorded("tags"),
        "/api/ps": recorded("ps loaded"),
        "/api/show": recorded("show embed"),
        "/api/version": recorded("version"),
    }

    async def use(provider: OllamaProvider) -> None:
        vectors = await provider.generate_embeddings(["a", "b", "c"], EMBED)
        assert [len(vector) for vector in vectors] == [384] * 3
        assert CHAT in await provider.list_models()
        loaded = [info.name for info in await provider.describe_models() if info.loaded]
        assert loaded == [CHAT]
        assert (await provider.health_check())["version"] == "0.24.0"

    with serving(lambda asked: answers[asked.path]) as running:
        asked_once(running.url, use)


def test_what_the_fake_sends_is_what_the_real_one_sent() -> None:
    """The fake's answers have the fields of the recorded ones, and no others."""
    found = {record["name"]: record for record in records("ollama_server")}
    if not found:
        pytest.skip("the recorded traffic is not beside the checkout")
    fake = FakeOllama()
    for name in ("chat stream", "embed list", "version", "chat missing model", "delete missing"):
        record = found[name]
        body = {**(record["request"] or {}), "stream": True}
        if "model" in body and record["status"] == 200:
            body["model"] = {"all-minilm": "all-minilm"}.get(body["model"], CHAT)
        says = fake(Asked(record["method"], record["endpoint"], {}, json.dumps(body).encode()))
        real = json.loads(record["body"].splitlines()[-1])
        ours = json.loads(says.pieces[-1])
        assert says.status == record["status"]
        assert set(ours) <= set(real), name


def test_a_model_that_is_not_made_to_embed_is_warned_of(server: Server) -> None:
    """A chat model gives its hidden states, as the real server does."""
    warned = pytest.warns(UserWarning, match="not an embedding model")
    with warned:
        asked_once(server.url, lambda p: p.generate_embeddings(["a"], CHAT))


@pytest.mark.parametrize("how", ["asked for", "told by the server", "by chance", "newer"])
def test_a_prompt_that_fills_the_context_of_an_old_server(how: str) -> None:
    """An answer came, but of a prompt that was cut: the count meets the context exactly."""
    last = {"message": {"content": "hm"}, "done": True, "prompt_eval_count": 4096, "eval_count": 1}
    context = 8192 if how == "by chance" else 4096

    def answers(asked: Asked) -> Says:
        if asked.path == "/api/version":
            return as_json({"version": "0.12.6" if how == "newer" else "0.12.5"})
        if asked.path == "/api/ps":
            return as_json({"models": [{"name": CHAT, "context_length": context}]})
        return Says([json.dumps(last).encode() + b"\n"], content_type="application/x-ndjson")

    with serving(answers) as running:
        settings = {"num_ctx": 4096} if how == "asked for" else {}
        if how in ("by chance", "newer"):
            assert asked_once(running.url, chatted).text == "hm"
            return
        with pytest.warns(UserWarning, match="whole context"):
            asked_once(running.url, chatted, **settings)


@needs_recordings
@pytest.mark.parametrize("name", ["chat stream", "chat after unload", "chat whole"])
def test_times_are_those_of_the_recorded_arrivals(name: str) -> None:
    """No chunk is stamped before its bytes came, and the engine's load is told apart."""
    (record,) = [r for r in records("ollama_server") if r["name"] == name]
    body, pieces, times = record["body"].encode(), [], []
    for at_ms, size in record["arrivals_ms_bytes"]:
        pieces.append(body[:size])
        times.append(at_ms / 10_000)  # ten times as fast
        body = body[size:]
    assert not body
    kind = "application/x-ndjson" if record["kind"] == "ndjson" else "application/json"
    with serving(Says(pieces, content_type=kind, times_s=times)) as running:

        async def stamped(provider: OllamaProvider) -> list[StreamChunk]:
            answer = await provider.generate_chat(HI, CHAT, ModelParameters(stream=True))
            assert isinstance(answer, AsyncGenerator)
            return [chunk async for chunk in answer]

        chunks = asked_once(running.url, stamped)
    first = next(chunk for chunk in chunks if chunk.text)
    assert first.elapsed_s >= times[0] * 0.99
    assert chunks[-1].elapsed_s >= times[-1] * 0.99
    load_s = next(c.timings.load_s for c in chunks if c.timings is not None)
    if name == "chat after unload":
        assert load_s > 0.4


@needs_recordings
def test_what_the_server_leaves_out_is_survived() -> None:
    """Blank lines, no prompt count (it was cached), a call without an id, an unknown field."""
    lines = [
        {"message": {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}, {"function": {"index": 1, "name": "f", "arguments": {"x": 2}}}]}, "done": False, "new": 1},
        {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop", "eval_count": 2},
    ]  # fmt: skip
    stream = b"\n\r\n".join(json.dumps(line).encode() for line in lines)  # the last has no end
    with serving(Says([stream], content_type="application/x-ndjson")) as running:
        answer = asked_once(running.url, chatted)
    assert [call.arguments for call in answer.tool_calls] == [{"x": 1}, {"x": 2}]
    assert len({call.id for call in answer.tool_calls}) == 2
    assert answer.usage.input_tokens is None
    assert answer.usage.output_tokens == 2


def test_an_error_line_of_a_newer_server_bears_a_status() -> None:
    """From 0.30 on: its status says what kind of error it is."""
    line = b'{"error": "server busy", "status": 503}\n'
    with (
        serving(Says([line], content_type="application/x-ndjson")) as running,
        pytest.raises(errors.RateLimitError),
    ):
        asked_once(running.url, chatted)


def test_a_newer_servers_list_is_wrong_about_embedding() -> None:
    """Each model's own page counts, and is asked for once for each digest; a lost one is survived."""
    fake = FakeOllama("0.30.0")
    fake.models |= {f"m{number}:1b": ["completion"] for number in range(100)}
    lost = "m7:1b"

    def answers(asked: Asked) -> Says:
        if asked.path == "/api/show" and asked.json()["model"] == lost:
            return as_json({"error": "unreadable"}, 500)
        return fake(asked)

    async def use(provider: OllamaProvider) -> None:
        for _ in range(3):
            infos = {info.name: info for info in await provider.describe_models()}
        assert infos[EMBED].capabilities == ("embeddings",)
        assert infos[EMBED].context == 512
        assert infos[CHAT].capabilities == ("chat", "completion", "tools")
        assert infos[lost].capabilities == ("chat", "completion")
        await provider.generate_embeddings(["a"], EMBED)  # without a warning

    with serving(answers) as running:
        asked_once(running.url, use)
        pages = [asked.json()["model"] for asked in running.asked if asked.path == "/api/show"]
    assert pages.count(lost) == 3
    assert len(pages) == len(fake.models) + 2


@needs_recordings
def test_a_cached_prompts_count_is_not_its_length() -> None:
    """From 0.30 on: 1 for a prompt of 12 tokens, as the service counts; nothing warns of it."""
    with serving(recorded("chat whole", "ollama_server_0.30")) as running:
        answer = asked_once(running.url, chatted)
    assert answer.usage.input_tokens == 1


def test_models_are_loaded_and_unloaded(server: Server) -> None:
    """By an empty conversation, as the real server does."""

    async def use(provider: OllamaProvider) -> list[list[str]]:
        seen = []
        for do in (provider.load_model, provider.unload_model):
            await do(CHAT)
            seen.append([model["name"] for model in await provider.running_models()])
        return seen

    assert asked_once(server.url, use) == [[CHAT], []]


def test_thinking_by_level_or_not_at_all() -> None:
    """Left out, off, on, or how much: as it was asked for."""
    last = b'{"message": {"content": "hi"}, "done": true, "done_reason": "stop"}\n'

    async def use(provider: OllamaProvider) -> None:
        for reasoning in (None, False, True, "high"):
            await chatted(provider, reasoning=reasoning)

    with serving(Says([last], content_type="application/x-ndjson")) as running:
        asked_once(running.url, use)
        sent = [asked.json().get("think") for asked in running.asked if asked.body]
    assert sent == [None, False, True, "high"]


def test_a_picture_by_its_address_is_refused_here(server: Server) -> None:
    """Ollama takes bytes alone; an address would be an empty picture."""
    seen = ChatMessage("user", "look", images=(Image(url="https://a.example/x.png"),))

    async def use(provider: OllamaProvider) -> None:
        await provider.generate_chat([seen], "seeing:1b", ModelParameters())

    with pytest.raises(errors.ConfigurationError, match="image URLs"):
        asked_once(server.url, use)


def test_a_pull_may_end_without_a_line_end() -> None:
    """The last line counts all the same."""
    with serving(Says([b'{"status": "success"}'], content_type="application/x-ndjson")) as running:

        async def pulled(provider: OllamaProvider) -> int:
            return len([each async for each in provider.pull_model("m")])

        assert asked_once(running.url, pulled) == 1


@pytest.mark.parametrize("line", [b"[1]", b'{"digest": ["a"]}', b'{"digest": "a", "total": "x"}'])
def test_a_pull_that_cannot_be_read(line: bytes) -> None:
    """Is an error of the provider's."""
    with serving(Says([line + b"\n"], content_type="application/x-ndjson")) as running:

        async def pulled(provider: OllamaProvider) -> int:
            return len([each async for each in provider.pull_model("m")])

        with pytest.raises(errors.ProviderError):
            asked_once(running.url, pulled)
