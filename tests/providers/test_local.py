"""The embedded engine: real answers, and a server that misbehaves in its place."""

from __future__ import annotations

import asyncio
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import llm_magics as lm
from llm_magics import ChatMessage, ModelParameters, ModelResponse, errors
from llm_magics.http import Transport
from llm_magics.parameters import Tool
from llm_magics.providers import create_provider
from llm_magics.providers.local import LocalConfig, LocalProvider
from llm_magics.providers.local.client import EngineClient
from llm_magics.providers.local.process import Engine, EngineSpec, default_threads
from llm_magics.secrets import Secret
from tests.conftest import engines_of, eventually
from tests.support.engines import ServedEngine
from tests.support.nested import plain_environment
from tests.support.serving import Says, as_json, chat_event, chat_stream, serving

pytestmark = pytest.mark.weights

HI = [ChatMessage("user", "hi")]


@pytest.fixture(scope="module")
def local() -> Iterator[LocalProvider]:
    """One real provider for the tests that leave it as it was."""
    provider = create_provider("local")
    assert isinstance(provider, LocalProvider)
    yield provider
    asyncio.run(provider.close())


def weights_of(local: LocalProvider, model: str) -> Path:
    """The file of a starter model, which is downloaded if no other test has done so."""

    async def pull() -> None:
        async for _ in local.pull_model(model):
            pass

    asyncio.run(pull())
    return local.config.weights_dir / f"{model}.gguf"


def answered_by(url: str, monkeypatch: pytest.MonkeyPatch, **settings: float) -> LocalProvider:
    """A local provider whose engine is the server at ``url``."""
    provider = LocalProvider()
    engine = ServedEngine(url, Secret("a-loopback-key"))
    client = EngineClient(engine, url, "m", max_tokens=provider.config.max_tokens, **settings)

    async def clients_of(model: str, capability: str) -> list[EngineClient]:
        return [client]

    monkeypatch.setattr(provider, "_clients_of", clients_of)
    return provider


async def text_of(answer: Any) -> str:
    """The text of a stream."""
    assert isinstance(answer, AsyncGenerator)
    return "".join([chunk.text async for chunk in answer])


def test_minilm_gives_the_similarities_of_its_model_card(local: LocalProvider) -> None:
    """Within 0.01 of the published 0.695, 0.943 and 0.257; 384 numbers of unit length."""
    texts = [
        "That is a happy person",
        "That is a happy dog",
        "That is a very happy person",
        "Today is a sunny day",
    ]
    vectors = np.array(asyncio.run(local.generate_embeddings(texts, "minilm-l6-v2")))
    assert vectors.shape == (4, 384)
    assert vectors[0] @ vectors[1:].T == pytest.approx([0.695, 0.943, 0.257], abs=0.01)


def test_vectors_of_several_servers_come_in_the_order_of_the_texts() -> None:
    """Two servers share five texts; each vector is the one that its text has alone."""
    provider = LocalProvider(LocalConfig(threads=2))
    texts = ["cat", "a dog in the garden", "rain", "markets fell on Monday", "music"]

    async def use() -> None:
        together = await provider.generate_embeddings(texts, "minilm-l6-v2")
        (clients,) = provider._clients.values()
        assert len({client.config.base_url for client in clients}) == 2
        for text, vector in zip(texts, together, strict=True):
            (alone,) = await provider.generate_embeddings([text], "minilm-l6-v2")
            assert vector == pytest.approx(alone, abs=1e-5)
        await provider.close()

    asyncio.run(use())


def test_the_same_seed_gives_the_same_answer(local: LocalProvider) -> None:
    """Whatever was asked in between."""

    async def ask(prompt: str) -> str:
        parameters = ModelParameters(max_tokens=20, seed=5, temperature=0.9)
        answer = await local.generate_chat(
            [ChatMessage("user", prompt)], "smollm2-135m", parameters
        )
        assert isinstance(answer, ModelResponse)
        return answer.text

    async def use() -> tuple[str, str]:
        first = await ask("Tell me about foxes.")
        await ask("Tell me about foxes. And crows.")
        return first, await ask("Tell me about foxes.")

    first, second = asyncio.run(use())
    assert first == second


def test_stop_sequences_and_usage(local: LocalProvider) -> None:
    """The answer ends before the stop, and the engine's own times come with it."""
    answer = asyncio.run(
        local.generate_chat(
            [ChatMessage("user", "Count: one, two, three, four")],
            "smollm2-135m",
            ModelParameters(max_tokens=30, temperature=0, stop=[","]),
        )
    )
    assert isinstance(answer, ModelResponse)
    assert "," not in answer.text
    assert answer.timings is not None
    assert answer.timings.generation_s


def test_a_prompt_longer_than_the_context(local: LocalProvider) -> None:
    """A ContextLengthError that says how long, and what to do; for texts to embed too."""
    with pytest.raises(errors.ContextLengthError, match="8192") as caught:
        asyncio.run(
            local.generate_chat(
                [ChatMessage("user", "hi " * 9000)], "smollm2-135m", ModelParameters()
            )
        )
    assert "Shorten" in str(caught.value.hint)
    with pytest.raises(errors.ContextLengthError):
        asyncio.run(local.generate_embeddings(["x " * 3000], "minilm-l6-v2"))


def test_each_model_does_what_it_is_made_for(local: LocalProvider) -> None:
    """The other's work is refused, naming who can do it."""
    with pytest.raises(errors.UnsupportedError) as caught:
        asyncio.run(local.generate_embeddings(["x"], "smollm2-135m"))
    assert "local/minilm-l6-v2" in str(caught.value.hint)
    with pytest.raises(errors.UnsupportedError):
        asyncio.run(local.generate_chat(HI, "minilm-l6-v2", ModelParameters()))


def test_any_gguf_works_by_its_path(local: LocalProvider) -> None:
    """A path in place of a name; one that is no GGUF is refused before any engine starts."""
    path = weights_of(local, "smollm2-135m")
    answer = asyncio.run(local.generate_chat(HI, str(path), ModelParameters(max_tokens=2)))
    assert isinstance(answer, ModelResponse)
    assert answer.text
    Path("broken.gguf").write_bytes(b"<html>")
    with pytest.raises(errors.WeightsError, match="not a GGUF"):
        asyncio.run(local.generate_chat(HI, "./broken.gguf", ModelParameters()))
    with pytest.raises(errors.ModelNotFoundError, match="does not exist"):
        asyncio.run(local.generate_chat(HI, "./missing.gguf", ModelParameters()))


def test_a_gguf_that_llama_cpp_refuses(local: LocalProvider) -> None:
    """The right magic and nothing behind it: llama.cpp's own reason, and no engine left."""
    Path("hollow.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    before = set(engines_of(os.getpid()))  # those of earlier tests may be ending
    with pytest.raises(errors.WeightsError, match=r"hollow\.gguf"):
        asyncio.run(local.generate_chat(HI, "./hollow.gguf", ModelParameters()))
    assert set(engines_of(os.getpid())) <= before


def test_the_engine_answers_only_to_its_key(local: LocalProvider) -> None:
    """Another program on this machine cannot use it; the key is nowhere to be seen."""
    engine = asyncio.run(local._engine("smollm2-135m", "chat"))
    key = engine.key

    async def knock() -> int:
        stranger = Transport(engine.addresses[0])
        return (await stranger.send("POST", "/v1/chat/completions", {})).status

    assert asyncio.run(knock()) == 401
    assert key.reveal() not in repr(
        EngineClient(engine, *engine.addresses, "m", max_tokens=1).config
    )
    (process,) = [p for p in engines_of(os.getpid()) if p.pid == engine._process.pid]
    assert key.reveal() not in " ".join(process.cmdline())
    assert key.reveal() not in str(process.environ())


def test_closing_stops_the_engines() -> None:
    """After close no process is left; used again, the provider starts another."""
    provider = create_provider("local")

    async def use() -> None:
        await provider.generate_chat(HI, "smollm2-135m", ModelParameters(max_tokens=1))
        engine = await provider._engine("smollm2-135m", "chat")
        assert engine._process.pid in {each.pid for each in engines_of(os.getpid())}
        await provider.close()
        assert engine._process.pid not in {each.pid for each in engines_of(os.getpid())}
        await provider.generate_chat(HI, "smollm2-135m", ModelParameters(max_tokens=1))
        await provider.close()

    asyncio.run(use())


def test_a_forgotten_engine_is_stopped(local: LocalProvider) -> None:
    """Nobody has to remember to close: an engine nobody holds ends."""
    path = weights_of(local, "minilm-l6-v2")
    engine = Engine(EngineSpec(path=path, stamp=(0, 0), embeddings=True, context=0, threads=1))
    process = engine._process
    del engine
    assert eventually(lambda: process.poll() is not None, within_s=30)


def test_one_core_is_left_to_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """But one thread is the least."""
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert default_threads() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert default_threads() == 1


def test_a_stream_is_asked_for_as_llama_cpp_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The body, the key in its header, and no reuse of the prompt cache where a seed is given."""
    with serving(Says(chat_stream("Hel", "lo"))) as server:
        provider = answered_by(server.url, monkeypatch)
        parameters = ModelParameters(seed=1, stream=True)

        async def use() -> str:
            return await text_of(await provider.generate_chat(HI, "smollm2-135m", parameters))

        assert asyncio.run(use()) == "Hello"
    (asked,) = server.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == "Bearer a-loopback-key"
    assert asked.json()["cache_prompt"] is False
    assert asked.json()["stream_options"] == {"include_usage": True}


def test_leaving_a_stream_closes_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server sees it, and can stop its work."""
    with serving(Says(chat_stream("a", "b")[:3], hang=True)) as server:
        provider = answered_by(server.url, monkeypatch)

        async def use() -> None:
            answer = await provider.generate_chat(HI, "m", ModelParameters(stream=True))
            assert isinstance(answer, AsyncGenerator)
            async for chunk in answer:
                if chunk.text == "b":
                    break
            await answer.aclose()

        asyncio.run(use())
        assert server.hung_up.wait(30)


@pytest.mark.parametrize("cut", [True, False])
def test_a_stream_that_breaks_off_keeps_what_came(
    monkeypatch: pytest.MonkeyPatch, *, cut: bool
) -> None:
    """Whether the connection breaks or just ends without the finish marker."""
    with serving(Says(chat_stream("Hel", "lo")[:3], cut=cut)) as server:
        provider = answered_by(server.url, monkeypatch)
        with pytest.raises(errors.StreamInterrupted) as caught:
            asyncio.run(provider.generate_chat(HI, "m", ModelParameters()))
    assert caught.value.partial.text == "Hello"
    assert caught.value.retryable


def test_a_stream_that_breaks_before_a_word_is_a_connection_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is nothing partial about nothing."""
    with serving(Says(chat_stream()[:1], cut=True)) as server:
        provider = answered_by(server.url, monkeypatch)
        with pytest.raises(errors.ConnectionError):
            asyncio.run(provider.generate_chat(HI, "m", ModelParameters()))


def test_a_break_after_the_last_word_is_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some servers drop the connection once they have said all."""
    with serving(Says(chat_stream("all"), cut=True)) as server:
        provider = answered_by(server.url, monkeypatch)
        answer = asyncio.run(provider.generate_chat(HI, "m", ModelParameters()))
    assert isinstance(answer, ModelResponse)
    assert answer.text == "all"


def test_silence_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that stops in mid-answer and keeps the line open is given up."""
    with serving(Says([chat_event("a")], hang=True)) as server:
        provider = answered_by(server.url, monkeypatch, idle_s=0.2)
        with pytest.raises(errors.StreamInterrupted, match="idle timeout"):
            asyncio.run(provider.generate_chat(HI, "m", ModelParameters()))


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        (as_json({"error": {"message": "m", "code": 401, "type": "authentication_error"}}, 401), errors.AuthenticationError),
        (as_json({"error": {"message": "m", "type": "exceed_context_size_error"}}, 400), errors.ContextLengthError),
        (as_json({"error": {"message": "no such model", "code": "model_not_found"}}, 400), errors.ModelNotFoundError),
        (as_json({"error": "slow down"}, 429), errors.RateLimitError),
        (as_json({"error": {"message": "m", "type": "not_supported_error"}}, 501), errors.UnsupportedError),
        (Says([b"<html>bad gateway</html>"], 502, "text/html"), errors.ProviderError),
        (Says([b'data: {"error": {"message": "overloaded", "code": 503}}\n\n']), errors.ProviderError),
    ],
)  # fmt: skip
def test_each_error_has_its_class(
    monkeypatch: pytest.MonkeyPatch, says: Says, expected: type[errors.ProviderError]
) -> None:
    """By what the service says of itself first, by its status second; the body is kept."""
    with serving(says) as server:
        provider = answered_by(server.url, monkeypatch)
        with pytest.raises(expected) as caught:
            asyncio.run(provider.generate_chat(HI, "m", ModelParameters()))
    assert type(caught.value) is expected
    assert caught.value.body
    assert caught.value.provider == "local"
    assert caught.value.retryable == (says.status in (200, 429, 502))


def test_nobody_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection says where nobody answered."""
    provider = answered_by("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(errors.ConnectionError, match=r"http://127\.0\.0\.1:9"):
        asyncio.run(provider.generate_chat(HI, "m", ModelParameters()))


def test_a_proxy_does_not_see_what_stays_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is reached directly, whatever proxy the environment names."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with serving(Says(chat_stream("ok"))) as server:
        provider = answered_by(server.url, monkeypatch)
        answer = asyncio.run(provider.generate_chat(HI, "m", ModelParameters()))
    assert isinstance(answer, ModelResponse)


def test_cancelling_a_start_stops_the_engine(
    local: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last who waits for a load takes it along; another load does not wait for it."""
    real = Engine._load
    is_loading, may_load = threading.Event(), threading.Event()

    def slow(self: Engine) -> list[str]:
        if not self.spec.embeddings:
            is_loading.set()
            may_load.wait(30)
        return real(self)

    monkeypatch.setattr(Engine, "_load", slow)

    async def use() -> None:
        provider = LocalProvider()
        before = set(engines_of(os.getpid()))  # those of earlier tests may be ending

        def started() -> set[psutil.Process]:
            return set(engines_of(os.getpid())) - before

        asking = [asyncio.create_task(provider._engine("smollm2-135m", "chat")) for _ in range(2)]
        assert await asyncio.to_thread(is_loading.wait, 30)
        assert len(started()) == 1
        await provider.generate_embeddings(["meanwhile"], "minilm-l6-v2")
        assert not asking[0].done()
        for task in asking:
            task.cancel()
        may_load.set()
        await asyncio.gather(*asking, return_exceptions=True)
        await provider.close()
        assert eventually(lambda: not started(), within_s=30)

    asyncio.run(use())


def test_a_name_keeps_its_meaning_when_the_folder_changes(
    local: LocalProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path is resolved when it is used, so that another file is another model."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "m.gguf").symlink_to(weights_of(local, "smollm2-135m"))
    (tmp_path / "b" / "m.gguf").write_bytes(b"garbage")
    monkeypatch.chdir(tmp_path / "a")
    asyncio.run(local.generate_chat(HI, "./m.gguf", ModelParameters(max_tokens=1)))
    monkeypatch.chdir(tmp_path / "b")
    with pytest.raises(errors.WeightsError, match="not a GGUF"):
        asyncio.run(local.generate_chat(HI, "./m.gguf", ModelParameters(max_tokens=1)))


def test_a_prompt_without_a_bound_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small model may not find an end; the bound is a setting."""
    with serving(Says(chat_stream("x"))) as server:
        provider = answered_by(server.url, monkeypatch)
        asyncio.run(provider.generate_chat(HI, "m", ModelParameters()))
        asyncio.run(provider.generate_chat(HI, "m", ModelParameters(max_tokens=7)))
    assert [asked.json()["max_tokens"] for asked in server.asked] == [1024, 7]


def test_the_engines_log_does_not_grow_with_its_work(local: LocalProvider) -> None:
    """It would fill the disk in the course of a million rows."""

    async def use() -> int:
        engine = await local._engine("minilm-l6-v2", "embeddings")
        before = os.fstat(engine._log.fileno()).st_size
        await local.generate_embeddings([f"text {n}" for n in range(50)], "minilm-l6-v2")
        return os.fstat(engine._log.fileno()).st_size - before

    assert asyncio.run(use()) < 1000


def test_weights_that_cannot_be_stored(tmp_path: Path) -> None:
    """A folder that cannot be made: said shortly, with what to do."""
    (tmp_path / "file").write_text("")
    provider = LocalProvider(LocalConfig(weights_dir=tmp_path / "file" / "weights"))
    with pytest.raises(errors.WeightsError):
        asyncio.run(provider.generate_embeddings(["a"], "minilm-l6-v2"))


def test_a_model_whose_template_knows_no_tools_says_so(local: LocalProvider) -> None:
    """llama.cpp drops them in silence, which would look like a model that wants none."""
    tool = Tool("weather", "The weather in a city.")

    async def ask(choice: str | None) -> object:
        parameters = ModelParameters(tools=(tool,), tool_choice=choice, max_tokens=3)
        return await local.generate_chat(HI, "smollm2-135m", parameters)

    for choice in (None, "required"):
        with pytest.raises(errors.UnsupportedError, match="tools") as caught:
            asyncio.run(ask(choice))
        assert "schema" in str(caught.value.hint)
    asyncio.run(ask("none"))


def test_an_answer_is_bound_to_a_schema_of_any_root(local: LocalProvider) -> None:
    """The engine's grammar needs no object around a list; what it cannot read is told in words."""

    def asked(schema: Any) -> str:
        parameters = ModelParameters(schema=schema, max_tokens=40, temperature=0)
        answer = asyncio.run(local.generate_chat(HI, "smollm2-135m", parameters))
        assert isinstance(answer, ModelResponse)
        return answer.text

    assert isinstance(json.loads(asked({"type": "array", "items": {"type": "integer"}})), list)
    assert json.loads(asked({"enum": ["a", "b"]})) in ("a", "b")
    assert asked({"type": "object", "properties": {"a": {"$ref": "https://elsewhere.example"}}})


def test_the_engine_finds_llama_where_the_notebook_does(tmp_path: Path) -> None:
    """IPython adds the environment that is activated to its own path; the engine must know of it."""
    spec = find_spec("xllamacpp")
    assert spec is not None
    where = Path(str(spec.origin)).parents[1]
    script = (
        "import sys\n"
        f"sys.path.append({str(where)!r})\n"
        "import llm_magics as lm\n"
        "print(lm.ask('Say hello.', model='local/smollm2-135m', max_tokens=3).usage.output_tokens)\n"
    )
    bare = Path(sys.base_prefix) / "bin" / "python3"  # with -S: without any packages
    environment = plain_environment() | {"PYTHONPATH": str(Path(lm.__file__).parents[1])}
    command = [str(bare), "-S", "-c", script]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.stdout.strip() == "3", done.stderr
