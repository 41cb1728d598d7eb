"""The contract that every provider keeps, and how providers are found."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import ChatMessage, ModelParameters, ModelResponse, StreamChunk
from llm_magics.errors import (
    ConfigurationError,
    ModelNotFoundError,
    ProviderError,
    UnsupportedError,
)
from llm_magics.host import Progress
from llm_magics.providers import (
    BaseModelProvider,
    built_in_providers,
    create_provider,
    get_available_providers,
    model_lists,
    provider_type,
)
from llm_magics.providers.base import CAPABILITIES
from llm_magics.secrets import Secret
from tests.support import (
    fake_anthropic,
    fake_gemini,
    fake_huggingface,
    fake_lmstudio,
    fake_ollama,
    fake_openai,
)
from tests.support.prepared_python import run_prepared
from tests.support.serving import Asked, Says, Server, as_json, serving
from tests.support.small_provider import SmallProvider

CHAT_MODELS = {
    "anthropic": fake_anthropic.CHAT,
    "echo": "lorem",
    "gemini": fake_gemini.CHAT,
    "huggingface": fake_huggingface.CHAT,
    "lmstudio": fake_lmstudio.CHAT,
    "local": "smollm2-135m",
    "markov": "sea",
    "ollama": fake_ollama.CHAT,
    "openai": "gpt-test",
}
EMBEDDING_MODELS = {
    "echo": "echo",
    "gemini": fake_gemini.EMBED,
    "huggingface": fake_huggingface.EMBED,
    "lmstudio": fake_lmstudio.EMBED,
    "local": "minilm-l6-v2",
    "ollama": fake_ollama.EMBED,
    "openai": "text-embedding-test",
}
CONTINUE_TEXT = {"echo", "lmstudio", "local", "markov", "ollama", "openai"}
MARKOV = metadata.EntryPoint(
    "markov", "tests.support.markov:MarkovProvider", "llm_magics.providers"
)
FAKES = {
    "anthropic": fake_anthropic.FakeAnthropic,
    "gemini": fake_gemini.FakeGemini,
    "huggingface": fake_huggingface.FakeHuggingFace,
    "lmstudio": fake_lmstudio.FakeLMStudio,
    "ollama": fake_ollama.FakeOllama,
    "openai": fake_openai.FakeOpenAI,
}
MESSAGES = [ChatMessage("user", "Write a sentence about the sea.")]
SHORT = ModelParameters(max_tokens=8, temperature=0, seed=1)
KEY = "a-key-of-the-test"
REQUEST_ID = "request-1"
# Without a bound they write on for a while.
SLOW = {"local"}


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Server | None]:
    """The server of a remote provider, following its recorded or documented traffic."""
    name = request.node.callspec.params["provider"]
    if name not in FAKES:
        yield None
        return
    fake = FAKES[name]()
    header = "request-id" if name == "anthropic" else "x-request-id"
    with serving(lambda asked: with_header(fake(asked), header, REQUEST_ID)) as running:
        yield running


def with_header(answer: Says, name: str, value: str) -> Says:
    """An answer with a header in addition to its own."""
    return replace(answer, headers={**answer.headers, name: value})


def register(monkeypatch: pytest.MonkeyPatch, *entries: metadata.EntryPoint) -> None:
    """Let these be the entry points of installed packages."""
    found = {entry.name: entry for entry in entries}
    monkeypatch.setattr("llm_magics.providers._read_registered", lambda installed: found)


@pytest.fixture(params=sorted(CHAT_MODELS))
def provider(
    request: pytest.FixtureRequest, server: Server | None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[BaseModelProvider]:
    """Each of the providers, and the example in CONTRIBUTING.md, closed afterwards."""
    register(monkeypatch, MARKOV)
    if server is not None:
        yield create_provider(request.param, base_url=server.url, api_key=KEY)
        return
    made = create_provider(request.param)
    yield made
    asyncio.run(made.close())


async def chunks_of(answer: object) -> list[StreamChunk]:
    """All chunks of a streamed answer."""
    assert isinstance(answer, AsyncGenerator)
    return [chunk async for chunk in answer]


def test_it_can_be_used_and_says_so(provider: BaseModelProvider) -> None:
    """Initialize is true, health is ok in words, and the models are listed bare."""

    async def use() -> None:
        assert await provider.initialize() is True
        health = await provider.health_check()
        assert health["status"] == "ok"
        assert health["detail"]
        models = await provider.list_models()
        assert CHAT_MODELS[provider.name] in models
        assert EMBEDDING_MODELS.get(provider.name, models[0]) in models
        assert [info.name for info in await provider.describe_models()] == models

    asyncio.run(use())


def test_a_stream_adds_up_to_the_whole_answer(provider: BaseModelProvider) -> None:
    """Asked both ways with the same seed, the text, usage and finish are the same."""

    async def use() -> None:
        model = CHAT_MODELS[provider.name]
        whole = await provider.generate_chat(MESSAGES, model, SHORT)
        assert isinstance(whole, ModelResponse)
        answer = await provider.generate_chat(MESSAGES, model, SHORT.with_stream())
        chunks = await chunks_of(answer)
        streamed = ModelResponse.of(chunks)
        assert whole.text == streamed.text != ""
        assert whole.finish_reason == streamed.finish_reason == "length"
        assert whole.usage == streamed.usage
        assert whole.usage is not None
        assert whole.usage.output_tokens == 8
        stamps = [chunk.elapsed_s or 0 for chunk in chunks]
        assert stamps == sorted(stamps)
        assert stamps[-1] > 0

    asyncio.run(use())


def test_an_answer_has_the_identifier_of_its_request(provider: BaseModelProvider) -> None:
    """That of the service, whole and streamed, also of raw text; and so does an error."""
    sent = REQUEST_ID if provider.name in FAKES else None

    async def use() -> None:
        model = CHAT_MODELS[provider.name]
        for parameters in (SHORT, SHORT.with_stream()):
            answers = [await provider.generate_chat(MESSAGES, model, parameters)]
            if provider.name in CONTINUE_TEXT:
                answers.append(await provider.generate_completion("Once", model, parameters))
            for answer in answers:
                if not isinstance(answer, ModelResponse):
                    answer = ModelResponse.of(await chunks_of(answer))
                assert answer.request_id == sent
        with pytest.raises(ModelNotFoundError) as caught:
            await provider.generate_chat(MESSAGES, "no-such-model", SHORT)
        assert caught.value.request_id == sent

    asyncio.run(use())


def test_a_completion_goes_on_where_the_text_ends(provider: BaseModelProvider) -> None:
    """Raw text in, its continuation out, whole and streamed."""

    async def use() -> None:
        model = CHAT_MODELS[provider.name]
        if provider.name not in CONTINUE_TEXT:
            with pytest.raises(UnsupportedError, match=provider.name) as caught:
                await provider.generate_completion("Once", model, SHORT)
            assert "local" in str(caught.value.hint)
            return
        whole = await provider.generate_completion("Once upon a time", model, SHORT)
        assert isinstance(whole, ModelResponse)
        assert whole.text
        streamed = await provider.generate_completion(
            "Once upon a time", model, SHORT.with_stream()
        )
        assert ModelResponse.of(await chunks_of(streamed)).text == whole.text

    asyncio.run(use())


def test_its_own_prefix_may_stand_before_a_model(provider: BaseModelProvider) -> None:
    """``local/x`` and ``x`` are the same to the provider local."""
    model = f"{provider.name}/{CHAT_MODELS[provider.name]}"
    answer = asyncio.run(provider.generate_chat(MESSAGES, model, SHORT))
    assert isinstance(answer, ModelResponse)
    assert answer.model == CHAT_MODELS[provider.name]


def test_embeddings_are_unit_vectors_in_order(provider: BaseModelProvider) -> None:
    """One vector a text, the same text the same vector, and nothing for nothing."""

    async def use() -> None:
        if provider.name not in EMBEDDING_MODELS:
            with pytest.raises(UnsupportedError, match=provider.name) as caught:
                await provider.generate_embeddings(["cat"], "x")
            assert "local" in str(caught.value.hint)
            return
        model = EMBEDDING_MODELS[provider.name]
        a, b, again = await provider.generate_embeddings(["cat", "dog", "cat"], model)
        assert a == pytest.approx(again, abs=1e-6)
        assert a != b
        assert sum(x * x for x in a) == pytest.approx(1, abs=1e-4)
        assert await provider.generate_embeddings([], model) == []

    asyncio.run(use())


def test_an_unknown_model_is_named_with_its_nearest(provider: BaseModelProvider) -> None:
    """One letter off, and the hint has the right one."""
    model = CHAT_MODELS[provider.name]

    async def use() -> None:
        with pytest.raises(ModelNotFoundError) as caught:
            await provider.generate_chat(MESSAGES, model[:-1], SHORT)
        assert caught.value.provider == provider.name
        assert model in str(caught.value.hint)

    asyncio.run(use())


@pytest.mark.parametrize("how", ["closed", "cancelled"])
def test_a_stream_can_be_left(
    provider: BaseModelProvider, server: Server | None, how: str
) -> None:
    """Left after its first token, it ends, the server sees it, and the provider goes on."""

    async def use() -> None:
        long = ModelParameters(max_tokens=500, stream=True)
        model = CHAT_MODELS[provider.name]
        answer = await provider.generate_chat(MESSAGES, model, long)
        assert isinstance(answer, AsyncGenerator)
        begun = asyncio.Event()

        async def read() -> None:
            async for chunk in answer:
                if chunk.text:
                    begun.set()
                    if how == "closed":
                        break
            await answer.aclose()

        reading = asyncio.ensure_future(read())
        await begun.wait()
        if how == "cancelled":
            reading.cancel()
        await asyncio.wait([reading])
        if server is not None:
            assert await asyncio.to_thread(server.hung_up.wait, 5)
        assert isinstance(await provider.generate_chat(MESSAGES, model, SHORT), ModelResponse)

    asyncio.run(use())


def test_what_it_cannot_do_it_says(provider: BaseModelProvider) -> None:
    """Pictures and sound raise an error that names the provider, and one that can."""
    if provider.name == "openai":
        pytest.skip("it can: see test_openai_media")
    for attempt in (provider.generate_image("a cat", "x"), provider.transcribe(b"", "x")):
        with pytest.raises(UnsupportedError, match=provider.name) as caught:
            asyncio.run(attempt)
        assert "openai" in str(caught.value.hint)


def test_messages_may_be_plain_mappings(provider: BaseModelProvider) -> None:
    """``{"role": …, "content": …}`` is a message too."""
    plain = [{"role": "user", "content": "Write a sentence about the sea."}]
    model = CHAT_MODELS[provider.name]
    one = asyncio.run(provider.generate_chat(plain, model, SHORT))
    other = asyncio.run(provider.generate_chat(MESSAGES, model, SHORT))
    assert isinstance(one, ModelResponse)
    assert isinstance(other, ModelResponse)
    assert one.text == other.text


def test_the_quick_start_runs(
    provider: BaseModelProvider, server: Server | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A config as an object, a mapping or nothing; parameters as an object, a mapping or nothing."""
    made, name, model = type(provider), provider.name, CHAT_MODELS[provider.name]
    settings = {} if server is None else {"base_url": server.url, "api_key": KEY}
    config = made.config_type(**settings)
    told = config.to_dict()
    assert made.config_type(**told) == config
    assert KEY not in f"{told} {told!r} {config!r}"
    assert name in get_available_providers()
    assert made(None).config == made().config == made({}).config

    async def use() -> None:
        for ready in (made(config), made(told), made(settings), create_provider(name, config), create_provider(name, told)):  # fmt: skip
            assert ready.config == config
            async with ready as each:
                assert await each.initialize() is True
                assert model in await each.list_models()
        async with made(told) as each:
            plain = [{"role": "user", "content": "Write a sentence about the sea."}]
            short = {"max_tokens": 8, "temperature": 0, "seed": 1}
            whole = await each.generate_chat(MESSAGES, model, SHORT)
            assert isinstance(whole, ModelResponse)
            same = await each.generate_chat(plain, model, short)
            assert isinstance(same, ModelResponse)
            assert same.text == whole.text
            named = await each.generate_chat(messages=plain, model=model, parameters=short)
            assert isinstance(named, ModelResponse)
            assert named.text == whole.text
            streamed = await each.generate_chat(plain, model, {**short, "stream": True})
            assert ModelResponse.of(await chunks_of(streamed)).text == whole.text
            if name not in SLOW:
                for nothing in ((), (None,)):
                    answer = await each.generate_chat(plain, model, *nothing)
                    assert isinstance(answer, ModelResponse)
            if name in CONTINUE_TEXT:
                went_on = await each.generate_completion("Once upon", model, short)
                assert isinstance(went_on, ModelResponse)
                pieces = await each.generate_completion(
                    prompt="Once upon", model=model, parameters={**short, "stream": True}
                )
                assert ModelResponse.of(await chunks_of(pieces)).text == went_on.text
            with pytest.raises(ConfigurationError, match="parameter: temperatur"):
                await each.generate_chat(plain, model, {"temperatur": 1})
            with pytest.raises(ConfigurationError, match="for max_tokens"):
                await each.generate_chat(plain, model, {"max_tokens": "8"})
            with pytest.raises(ConfigurationError, match="message"):
                await each.generate_chat([{"user": "hi"}], model)

    asyncio.run(use())


@pytest.mark.parametrize("name", built_in_providers())
def test_every_config_goes_round_as_a_mapping(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its key included, which stays wrapped; a wrong one is refused by its name."""
    made = provider_type(name)
    key = {"api_key": KEY} if "api_key" in made.config_type.model_fields else {}
    address = {"base_url": f"http://me:{KEY}@127.0.0.1:9/v1"} if "base_url" in made.config_type.model_fields else {}  # fmt: skip
    config = made.config_type(concurrency=3, **key, **address)
    told = config.to_dict()
    assert isinstance(told, dict)
    assert told["concurrency"] == 3
    assert KEY not in repr(told)
    if key:
        assert isinstance(told["api_key"], Secret)
    provider = made(told)
    assert provider.config == config
    assert create_provider(name, config).config == config
    with pytest.raises(ConfigurationError, match='"concurency"'):
        made({"concurency": 3})
    with pytest.raises(ConfigurationError, match="str"):
        made("http://localhost:1")  # type: ignore[arg-type]


def test_unknown_names_of_parameters_go_to_the_service() -> None:
    """As in the rest of the library; beside those of ``extra_body``."""
    made = ModelParameters.of({"top_k": 5, "extra_body": {"user": "me"}, "stop": "X", "tools": []})
    assert made.extra_body == {"top_k": 5, "user": "me"}
    assert (made.stop, made.tools) == (("X",), ())
    assert ModelParameters.of(made) is made
    assert ModelParameters.of(None) == ModelParameters()
    for wrong in ({"messages": []}, {1: 2}, [1], {"extra_body": 3, "x": 1}):
        with pytest.raises(ConfigurationError):
            ModelParameters.of(wrong)  # type: ignore[arg-type]


def test_a_small_provider_of_others_takes_all_forms() -> None:
    """A third party's methods see messages and parameters as they are documented."""

    async def use() -> None:
        async with SmallProvider({"concurrency": 2}) as small:
            assert small.config.to_dict()["concurrency"] == 2
            answer = await small.generate_chat([{"role": "user", "content": "hi"}], "small")
            assert isinstance(answer, ModelResponse)
            assert answer.text == "HI"
            answer = await small.generate_completion("hi", model="small", parameters={"seed": 1})
            assert isinstance(answer, ModelResponse)
            assert answer.text == "HI"

    asyncio.run(use())


def test_it_works_in_one_loop_after_another(provider: BaseModelProvider) -> None:
    """A provider is not tied to the loop it was first used in."""
    for _ in range(2):
        answer = asyncio.run(provider.generate_chat(MESSAGES, CHAT_MODELS[provider.name], SHORT))
        assert isinstance(answer, ModelResponse)


# Which method stands behind an capability, where one does.
METHODS = {
    "images": "generate_image",
    "transcription": "transcribe",
    "pull": "pull_model",
    "delete": "delete_model",
}


def own_methods(name: str) -> set[str]:
    """The capabilities for which a provider has a method of its own."""
    kind = provider_type(name)
    return {
        capability
        for capability, method in METHODS.items()
        if getattr(kind, method) is not getattr(BaseModelProvider, method)
    }


@pytest.mark.parametrize("name", built_in_providers())
def test_a_provider_tells_what_it_can(name: str) -> None:
    """Of the words there are for it, in their order; what it refuses it does not tell of."""
    told = provider_type(name).capabilities
    assert set(told) <= set(CAPABILITIES)
    assert list(told) == [each for each in CAPABILITIES if each in told]
    assert "chat" in told
    refused = {"delete"} if name == "lmstudio" else set()  # it has an answer of its own to that
    assert set(told) & set(METHODS) == own_methods(name) - refused
    if name in CHAT_MODELS:
        assert ("completion" in told) == (name in CONTINUE_TEXT)
        assert ("embeddings" in told) == (name in EMBEDDING_MODELS)


def test_providers_in_a_table(monkeypatch: pytest.MonkeyPatch, shell: InteractiveShell) -> None:
    """Which there are, how one comes to each, and what it can; nobody is asked."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    lm.config.providers = {"lab": {"type": "openai", "base_url": "http://127.0.0.1:9"}}
    table = shell.run_line_magic("llm", "providers").set_index("provider")
    assert table.index.tolist() == sorted([*get_available_providers(), "lab"])
    assert table.set_up[["anthropic", "echo", "lab", "openai"]].tolist() == [
        True,
        True,
        True,
        False,
    ]
    assert table.key["openai"] == "OPENAI_API_KEY"
    assert table.start["ollama"] == "ollama serve"
    assert (
        table.capabilities["anthropic"]
        == "chat, vision, tools, schema, reasoning, documents, search"
    )
    lm.config.providers = {"wrong": {"type": "openai"}}
    table = shell.run_line_magic("llm", "providers").set_index("provider")
    assert "Provider wrong has no base_url" in table.start["wrong"]
    assert table.set_up["echo"]


def test_echo_answers_with_the_prompt_on_its_own_clock() -> None:
    """Text, tokens and times depend on the prompt and the seed alone."""

    async def use() -> tuple[str, list[float | None]]:
        echo = create_provider("echo")
        messages = [ChatMessage("system", "x"), ChatMessage("user", "one two  three\n")]
        answer = await echo.generate_chat(messages, "echo", ModelParameters(stream=True))
        chunks = await chunks_of(answer)
        return "".join(chunk.text for chunk in chunks), [chunk.elapsed_s for chunk in chunks]

    first, second = asyncio.run(use()), asyncio.run(use())
    assert first == second
    assert first[0] == "one two  three\n"


def test_lorem_is_drawn_from_the_seed() -> None:
    """Another seed, another text; the same seed, the same text."""

    async def text(seed: int | None) -> str:
        echo = create_provider("echo")
        answer = await echo.generate_chat(MESSAGES, "lorem", ModelParameters(seed=seed))
        assert isinstance(answer, ModelResponse)
        return answer.text

    assert asyncio.run(text(1)) == asyncio.run(text(1)) != asyncio.run(text(2))


def test_echo_stops_where_it_is_told() -> None:
    """Before a stop sequence, and at the longest answer allowed."""

    async def answer(**parameters: object) -> ModelResponse:
        made = await create_provider("echo").generate_chat(
            [ChatMessage("user", "a b STOP c")],
            "echo",
            ModelParameters(**parameters),  # type: ignore[arg-type]
        )
        assert isinstance(made, ModelResponse)
        return made

    stopped = asyncio.run(answer(stop=["STOP"]))
    assert (stopped.text, stopped.finish_reason) == ("a b ", "stop")
    cut = asyncio.run(answer(max_tokens=1))
    assert (cut.text, cut.finish_reason) == ("a", "length")


def test_echo_forgets_and_pulls_models() -> None:
    """Delete and pull work as elsewhere, without anything on disk."""

    async def use() -> None:
        echo = create_provider("echo")
        await echo.delete_model("lorem")
        assert await echo.list_models() == ["echo"]
        with pytest.raises(ModelNotFoundError):
            await echo.delete_model("lorem")
        assert [each async for each in echo.pull_model("lorem")] == [
            Progress("downloading lorem", 1, 1, "model")
        ]
        assert await echo.list_models() == ["echo", "lorem"]

    asyncio.run(use())


def test_providers_are_known_by_name() -> None:
    """The built-in ones are listed; an unknown one is an error with the nearest name."""
    assert {"echo", "local"} <= set(get_available_providers())
    with pytest.raises(ConfigurationError) as caught:
        create_provider("ecoh")
    assert "echo" in str(caught.value.hint)


def test_settings_are_checked() -> None:
    """By object, by mapping or by keyword; an unknown or impossible one is an error."""
    echo = create_provider("echo", {"dimensions": 8}, ttft_s=0.5)
    assert (echo.config.dimensions, echo.config.ttft_s) == (8, 0.5)  # type: ignore[attr-defined]
    assert create_provider("echo", echo.config).config == echo.config
    with pytest.raises(ConfigurationError, match='"dimension"') as caught:
        create_provider("echo", dimension=8)
    assert caught.value.hint == "Did you mean dimensions?"
    with pytest.raises(ConfigurationError, match=r"many.*dimensions"):
        create_provider("echo", dimensions="many")


def test_a_third_party_registers_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class named by the entry-point group is created like a built-in one."""
    entry = metadata.EntryPoint("theirs", f"{__name__}:SmallProvider", "llm_magics.providers")
    broken = metadata.EntryPoint("broken", "no_such_module:X", "llm_magics.providers")
    register(monkeypatch, entry, broken)
    assert {"theirs", "broken"} <= set(get_available_providers())
    assert type(create_provider("theirs")).__name__ == "SmallProvider"
    with pytest.raises(ConfigurationError, match="broken"):
        create_provider("broken")


def test_a_package_that_was_just_installed_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after the providers were listed."""
    monkeypatch.syspath_prepend(tmp_path)
    assert "theirs" not in get_available_providers()
    about = tmp_path / "theirs-1.0.dist-info"
    about.mkdir()
    entry = f"[llm_magics.providers]\ntheirs = {__name__}:SmallProvider\n"
    (about / "entry_points.txt").write_text(entry, "utf-8")
    assert "theirs" in get_available_providers()


def test_one_file_and_one_line_make_a_provider(tmp_path: Path) -> None:
    """The example in CONTRIBUTING.md, beside the package as pip would put it, answers in a cell."""
    (tmp_path / "markov.py").write_bytes(
        (Path(__file__).parents[1] / "support" / "markov.py").read_bytes()
    )
    about = tmp_path / "markov-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: markov\nVersion: 1.0\n")
    entry = "[llm_magics.providers]\nmarkov = markov:MarkovProvider\n"
    (about / "entry_points.txt").write_text(entry)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from IPython.testing.globalipapp import start_ipython\n"
        "shell = start_ipython()\n"
        "shell.run_line_magic('load_ext', 'llm_magics')\n"
        "shell.run_cell_magic('llm', 'markov/sea --seed 1 --max-tokens 6 -o ans', 'Go on.')\n"
        "print('tokens', shell.user_ns['ans'].usage.output_tokens)\n"
        "print(shell.run_line_magic('llm', 'models markov').model.tolist())\n"
    )
    done = run_prepared(script, str(tmp_path))
    assert "tokens 6" in done.stdout
    assert "['markov/sea']" in done.stdout


@pytest.mark.parametrize("name", ["anthropic", "gemini"])
def test_a_list_without_an_end_is_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that always names another page is not asked for ever."""
    monkeypatch.setattr(model_lists, "_MAX_PAGES", 5)
    numbers = itertools.count()

    def answer(asked: Asked) -> Says:
        page = f"m{next(numbers)}"
        if name == "gemini":
            return as_json({"models": [], "nextPageToken": page})
        return as_json({"data": [{"id": page}], "has_more": True, "last_id": page})

    with serving(answer) as server:
        provider = create_provider(name, api_key=KEY, base_url=server.url)
        with pytest.raises(ProviderError, match="5 pages"):
            asyncio.run(provider.list_models())
        assert len(server.asked) == 5
