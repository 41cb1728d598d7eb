"""A function of the user in place of a key: what it may return, and where its tokens go."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import threading
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

import llm_magics as lm
from llm_magics import ChatMessage, ModelParameters, ModelResponse, errors
from llm_magics.providers import create_provider
from llm_magics.providers.openai import OpenAIConfig
from llm_magics.runtime.models import provider_table
from llm_magics.runtime.session import session
from llm_magics.secrets import Secret
from tests.support.fake_openai import FakeOpenAI, refusal
from tests.support.serving import Asked, Says, Server, serving

HI = [ChatMessage("user", "hi")]
CANARY = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.canary-5d1f0c77e2"


class AccessToken(NamedTuple):
    """As azure-core's."""

    token: str
    expires_on: int


class SignedIn:
    """A service that accepts ``valid`` tokens only, and a function that returns one by one."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)
        self.valid = {tokens[-1]} if tokens else set()
        self.calls = 0
        self.fake = FakeOpenAI()

    def __call__(self) -> str:
        self.calls += 1
        return self.tokens[min(self.calls, len(self.tokens)) - 1]

    def answer(self, asked: Asked) -> Says:
        scheme, _, token = asked.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or token not in self.valid or "api-key" in asked.headers:
            return refusal("invalid_api_key", f"Incorrect API key provided: {token}.", 401)
        asked.headers["authorization"] = f"Bearer {self.fake.key}"
        return self.fake(asked)


def chat(server: Server, token_provider: Any, **settings: Any) -> ModelResponse:
    """One answer by a provider that signs in with ``token_provider``."""

    async def ask() -> Any:
        made = create_provider("openai", base_url=server.url, token_provider=token_provider, **settings)  # fmt: skip
        try:
            return await made.generate_chat(HI, "gpt-test", ModelParameters(max_tokens=3))
        finally:
            await made.close()

    answer = asyncio.run(ask())
    assert isinstance(answer, ModelResponse)
    return answer


async def in_an_hour() -> tuple[str, float]:
    """A token and its expiry."""
    return CANARY, time.time() + 3600


class AsyncObject:
    """An object with an async ``__call__``, as of azure.identity.aio."""

    async def __call__(self) -> str:
        return CANARY


@pytest.mark.parametrize(
    "function",
    [
        lambda: CANARY,
        lambda: f" {CANARY}\n",
        lambda: (CANARY, time.time() + 3600),
        lambda: AccessToken(CANARY, int(time.time()) + 3600),
        lambda: SimpleNamespace(token=CANARY, expires_on=int(time.time()) + 3600),
        lambda: SimpleNamespace(token=CANARY, expiry=datetime.now(UTC).replace(tzinfo=None) + timedelta(hours=1)),
        lambda: Secret(CANARY),
        in_an_hour,
        functools.partial(in_an_hour),
        lambda: in_an_hour(),  # noqa: PLW0108
        AsyncObject(),
    ],
    ids=["text", "a line", "tuple", "AccessToken", "AccessTokenInfo", "google", "Secret", "async", "partial", "lambda of async", "async object"],
)  # fmt: skip
def test_what_a_function_may_return(function: Callable[[], Any]) -> None:
    """The token is sent as ``Authorization: Bearer``."""
    service = SignedIn(CANARY)
    with serving(service.answer) as server:
        assert chat(server, function).text
        assert server.asked[0].headers["authorization"].startswith("Bearer ")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "NoneType"),
        (b"bytes-of-a-token-5d1f", "bytes"),
        ("", "empty"),
        ("\n", "empty"),
        ("canary-5d1f\nX-Other: 1", "line breaks"),
        ("canary-5d1f canary", "spaces"),
        ("Bearer canary-5d1f", "Bearer"),
        ("canary-5d1fé", "special"),
        (17, "int"),
        ({"token": "canary-5d1f"}, "dict"),
        (("canary-5d1f",), "tuple"),
        (("canary-5d1f", "2030-01-01"), "expiry is of the type str"),
        (("canary-5d1f", True), "expiry is of the type bool"),
        ("canary-5d1f" * 10_000, "a text of 110,000 characters"),
        (("canary-5d1f", 3600), "not a Unix time in seconds"),
        (("canary-5d1f", 1.8e12), "not a Unix time in seconds"),
        (("canary-5d1f", float("nan")), "not a Unix time in seconds"),
        (("canary-5d1f", 1.7e9), "expired at 2023-11-14"),
        (("canary-5d1f", datetime(2024, 5, 1, 12, tzinfo=UTC)), "expired at 2024-05-01 12:00 UTC"),
    ],
)
def test_what_is_not_a_token(value: object, said: str) -> None:
    """It is an error before anything is sent, and the value is not shown."""
    with serving(SignedIn().answer) as server:
        with pytest.raises(errors.AuthenticationError, match=said) as caught:
            chat(server, lambda: value)
        assert server.asked == []
    assert "canary" not in f"{caught.value} {caught.value.hint}"
    assert "function" in str(caught.value)


def test_a_function_that_fails_is_shown_without_its_token() -> None:
    """The message and the chain of errors do not contain it."""

    def broken() -> str:
        msg = f"401 for Bearer {CANARY} from https://login.example/token"
        raise ValueError(msg)

    with serving(SignedIn().answer) as server, pytest.raises(errors.AuthenticationError) as caught:
        chat(server, broken)
    assert "ValueError: 401 for Bearer ****" in str(caught.value)
    assert "login.example" in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value))
    assert CANARY not in shown


class _WithoutTextError(Exception):
    def __str__(self) -> str:
        msg = CANARY
        raise ValueError(msg)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (_WithoutTextError, r"failed \(_WithoutTextError\)"),
        (lambda: ValueError("x" * 100_000), r"failed \(ValueError: …\)"),
        (lambda: ValueError("no " * 10_000 + CANARY), "failed .ValueError: no no no"),
    ],
)
def test_a_message_that_cannot_be_shown_is_left_out(
    error: Callable[[], Exception], said: str
) -> None:
    """A long one is cut before it is searched for tokens, which takes long in a long word."""

    def broken() -> str:
        raise error()

    began = time.process_time()
    with (
        serving(SignedIn().answer) as server,
        pytest.raises(errors.AuthenticationError, match=said),
    ):
        chat(server, broken)
    assert time.process_time() - began < 2


def test_a_broken_connection_of_a_function_may_pass() -> None:
    """The call is retried by the usual policy, and may succeed."""
    service = SignedIn(CANARY)
    errors_left = [ConnectionResetError("reset by peer")]

    def unreliable() -> str:
        if errors_left:
            raise errors_left.pop()
        return CANARY

    with serving(service.answer) as server:
        with pytest.raises(errors.ConnectionError, match="ConnectionResetError: reset by peer"):
            chat(server, unreliable)
        assert chat(server, unreliable).text


@pytest.mark.parametrize(
    "error", [StopIteration(), SystemExit(2), KeyboardInterrupt(), TimeoutError("slow")]
)
def test_any_exception_of_a_function_is_an_error(error: BaseException) -> None:
    """No exception of a function ends the event loop, or makes a request wait forever."""

    def broken() -> str:
        raise error

    with serving(SignedIn().answer) as server, pytest.raises(errors.AuthenticationError) as caught:
        chat(server, broken)
    assert type(error).__name__ in str(caught.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("os.system", "Available: aws, entra, vertex. A function can only be set from Python."),
        ("my_module:token", "A function can only be set from Python."),
        ("Entra", "Did you mean entra?"),
        (17, "Use a name"),
        (["entra"], "Use a name"),
        (lambda scope: scope, "without arguments"),
    ],
)
def test_what_is_no_identity(value: object, said: str) -> None:
    """A text is never imported or run."""
    with pytest.raises(errors.ConfigurationError) as caught:
        create_provider("openai", token_provider=value)
    assert said in str(caught.value.hint)


def test_a_token_in_place_of_a_name_is_not_shown() -> None:
    """The settings and the error of the provider do not show it."""
    lm.config.set("providers.openai.token_provider", CANARY)
    with pytest.raises(errors.ConfigurationError, match="token_provider") as caught:
        session.provider("openai")
    assert "may be a token" in str(caught.value.hint)
    shown = f"{caught.value} {caught.value.hint} {lm.config!r} {lm.config.frame().to_string()}"
    assert CANARY not in shown
    with pytest.raises(errors.ConfigurationError) as direct:
        create_provider("openai", token_provider=f"{CANARY}-2")
    assert CANARY not in f"{direct.value} {direct.value.hint}"


def test_a_long_message_is_shortened_to_what_helps() -> None:
    """That of DefaultAzureCredential has a line for each credential that it tried."""
    lines = ["DefaultAzureCredential failed.", "EnvironmentCredential: unavailable.", "AzureCliCredential: AADSTS700082: The refresh token has expired due to inactivity. Trace 1"]  # fmt: skip

    def broken() -> str:
        raise ValueError("\n".join(lines))

    with serving(SignedIn().answer) as server, pytest.raises(errors.AuthenticationError) as caught:
        chat(server, broken)
    assert str(caught.value).endswith(
        "(ValueError: DefaultAzureCredential failed. "
        "AADSTS700082: The refresh token has expired due to inactivity)."
    )


def test_a_rejected_token_is_replaced_once() -> None:
    """The same request is sent again, before any byte of an answer was handed out."""
    service = SignedIn("token-of-yesterday-1", CANARY)
    with serving(service.answer) as server:
        assert chat(server, service).text
        assert len(server.asked) == 2
        assert server.asked[0].body == server.asked[1].body
    assert service.calls == 2


def test_a_replaced_token_counts_as_a_retry() -> None:
    """Of the call whose request was sent again; its answer is paid for once."""
    service = SignedIn("token-of-yesterday-1", CANARY)
    lm.config.prices = {"openai/gpt-test": {"input_usd": 1, "output_usd": 1}}
    lm.config.retries = 0
    with serving(service.answer) as server:
        lm.config.set("providers.openai.base_url", server.url)
        lm.config.set("providers.openai.token_provider", service)
        first = lm.ask("hi", model="openai/gpt-test")
        second = lm.ask("hi again", model="openai/gpt-test")
    assert (first.retries, second.retries) == (1, 0)
    assert lm.runs().retries.tolist() == [1, 0]
    assert first.cost_usd == pytest.approx(second.cost_usd)
    service = SignedIn("token-of-yesterday-1", CANARY)
    with serving(service.answer) as server:
        lm.config.set("providers.openai.base_url", server.url)
        lm.config.set("providers.openai.token_provider", service)
        lm.embed(["a", "b"], model="openai/text-embedding-test")
        assert len(server.asked) == 2
    assert sorted(lm.runs().retries.tolist()) == [0, 1, 1]


def test_many_rejections_cause_one_refresh() -> None:
    """Fifty requests with an old token: each is sent again once, with the same new token."""
    service = SignedIn("token-of-yesterday-1", CANARY)

    async def ask() -> None:
        made = create_provider("openai", base_url=server.url, token_provider=service)
        waiting = [made.generate_embeddings([f"text {n}"], "text-embedding-test") for n in range(50)]  # fmt: skip
        vectors = await asyncio.gather(*waiting)
        assert len({json.dumps(each) for each in vectors}) == 50
        await made.close()

    with serving(service.answer) as server:
        asyncio.run(ask())
        assert service.calls == 2
        assert len(server.asked) <= 100


def test_a_rejected_identity_is_an_error_that_names_it() -> None:
    """After one refresh. Later requests do not refresh it again within a minute."""
    service = SignedIn("token-of-yesterday-1", "token-of-yesterday-2", "token-of-yesterday-3")
    service.valid = set()

    async def ask() -> None:
        made = create_provider("openai", base_url=server.url, token_provider=service)
        for _ in range(3):
            with pytest.raises(errors.AuthenticationError) as caught:
                await made.list_models()
            assert "openai rejected the token of token_provider (function SignedIn)" in str(caught.value)  # fmt: skip
            assert "token-of-yesterday" not in f"{caught.value} {caught.value.body}"
            assert "Check what the function returns" in str(caught.value.hint)
        await made.close()

    with serving(service.answer) as server:
        asyncio.run(ask())
        assert [asked.path for asked in server.asked] == ["/models"] * 4
    assert service.calls == 2


def test_every_kind_of_request_signs_in() -> None:
    """Chat, completion, embeddings, list, health and media."""
    service = SignedIn(CANARY)

    async def ask() -> list[dict[str, Any]]:
        made = create_provider("openai", base_url=server.url, token_provider=service)
        await made.generate_chat(HI, "gpt-test", ModelParameters(max_tokens=2))
        await made.generate_completion("a", "gpt-test", ModelParameters(max_tokens=2))
        await made.generate_embeddings(["a"], "text-embedding-test")
        health = await made.health_check()
        await made.close()
        return [health]

    with serving(service.answer) as server:
        (health,) = asyncio.run(ask())
        assert health["status"] == "ok"
        assert {asked.path for asked in server.asked} == {
            "/chat/completions",
            "/completions",
            "/embeddings",
            "/models",
        }


def test_a_slow_function_does_not_block_the_event_loop() -> None:
    """It runs in a thread; other work continues."""
    ticks: list[float] = []
    threads: list[threading.Thread] = []

    def slow() -> str:
        threads.append(threading.current_thread())
        time.sleep(0.1)
        return CANARY

    async def ask() -> None:
        made = create_provider("openai", base_url=server.url, token_provider=slow)
        asking = asyncio.create_task(made.list_models())
        while not asking.done():
            ticks.append(time.monotonic())
            await asyncio.sleep(0.005)
        await asking
        await made.close()

    with serving(SignedIn(CANARY).answer) as server:
        asyncio.run(ask())
    assert len(ticks) > 5
    assert threads[0].daemon
    assert threads[0] is not threading.main_thread()


def test_a_key_and_an_identity_are_refused_together() -> None:
    """The error names both settings, and shows neither."""
    with pytest.raises(errors.ConfigurationError, match=r"api_key.*token_provider") as caught:
        create_provider("openai", base_url="http://x", api_key=CANARY, token_provider="entra")
    assert CANARY not in f"{caught.value} {caught.value.hint}"


def test_a_user_in_the_address_is_refused_together_with_an_identity() -> None:
    """Both would be sent in the same header."""
    with pytest.raises(errors.ConfigurationError, match="base_url") as caught:
        create_provider("openai", base_url=f"http://bob:{CANARY}@x", token_provider="entra")
    assert CANARY not in f"{caught.value} {caught.value.hint}"


def test_a_key_in_the_environment_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The identity was set on purpose; the key is then not sent anywhere."""
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-of-the-test")
    config = OpenAIConfig(token_provider=lambda: CANARY)
    assert config.api_key is None
    assert OpenAIConfig(**config.to_dict()) == config
    monkeypatch.setenv("LAB_API_KEY", "a-key-of-the-test")
    made = create_provider("lab", type="openai", base_url="http://x", token_provider="entra")
    assert made.config.api_key is None  # type: ignore[attr-defined]


def test_the_header_of_azure_is_that_of_its_tokens() -> None:
    """Azure has ``api-key`` for keys, and ``Authorization`` for tokens."""
    service = SignedIn(CANARY)
    with serving(service.answer) as server:
        assert chat(server, service, profile="azure").text


def test_an_identity_counts_as_set_up() -> None:
    """The table of providers shows the identity instead of the variable of a key."""
    lm.config.set("providers.openai.token_provider", functools.partial(print, CANARY))
    lm.config.set("providers.anthropic.token_provider", "entra")
    table = provider_table(session).set_index("provider")
    assert table.set_up[["openai", "anthropic"]].all()
    assert table.key["openai"] == "token_provider (function partial)"
    assert table.key["anthropic"] == "token_provider entra"
    assert CANARY not in repr(lm.config) + lm.config.frame().to_string()


def test_a_change_of_the_function_is_seen() -> None:
    """The next call signs in with the new one."""
    first, second = SignedIn("token-of-the-first"), SignedIn("token-of-the-second")
    second.valid = first.valid = {"token-of-the-first", "token-of-the-second"}
    with serving(first.answer) as server:
        lm.config.set("providers.openai.base_url", server.url)
        for each in (first, second):
            lm.config.set("providers.openai.token_provider", each)
            assert lm.ask("hi", model="openai/gpt-test", max_tokens=2).text
    assert (first.calls, second.calls) == (1, 1)


def test_a_name_depends_on_the_variables_of_its_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a change of AWS_PROFILE, the old profile's token is not used."""
    pool = session.providers
    lm.config.set("providers.openai.token_provider", "aws")
    first = pool.get("openai")
    assert pool.get("openai") is first
    monkeypatch.setenv("AWS_PROFILE", "another")
    assert pool.get("openai") is not first


def test_answers_by_key_and_by_identity_are_the_same(tmp_path: Path) -> None:
    """One entry of the cache, one line of a recording."""
    service = SignedIn(CANARY)
    service.valid = {CANARY, "a-key-of-the-test"}
    lm.config.cache = True
    with serving(service.answer) as server:
        lm.config.set("providers.openai.base_url", server.url)
        lm.config.set("providers.openai.api_key", "a-key-of-the-test")
        by_key = lm.ask("hi", model="openai/gpt-test")
        lm.config.reset("providers.openai.api_key")
        lm.config.set("providers.openai.token_provider", service)
        by_identity = lm.ask("hi", model="openai/gpt-test")
        assert len(server.asked) == 1
    assert by_identity.cached
    assert by_identity.text == by_key.text


def test_a_token_is_written_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not into files, logs, outputs, the table of calls, or a repr."""
    caplog.set_level(logging.DEBUG)
    service = SignedIn(CANARY)
    recording = tmp_path / "answers.jsonl"
    lm.config.cache = True
    lm.config.cache_dir = tmp_path / "cache"
    lm.config.record = recording
    with serving(service.answer) as server:
        lm.config.set("providers.openai.base_url", server.url)
        lm.config.set("providers.openai.token_provider", service)
        answer = lm.ask("hi", model="openai/gpt-test", max_tokens=2)
        provider = session.provider("openai")
        assert server.asked[0].path == "/chat/completions"
    shown = (
        f"{answer!r} {lm.runs().to_string()} {lm.config!r} {provider.config!r} {vars(provider)!r}"
    )
    shown += caplog.text + capsys.readouterr().out
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert recording.stat().st_size
    assert CANARY not in shown
    assert not any(CANARY.encode() in each for each in written)


def test_a_function_is_not_pickled() -> None:
    """Its code may contain a key."""
    import pickle

    made = create_provider("openai", token_provider=lambda: CANARY)
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        pickle.dumps(made.config)
