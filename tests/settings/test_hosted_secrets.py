"""Keys in the secrets of Colab, Kaggle and Databricks: found for the provider in use, and only there."""

from __future__ import annotations

import asyncio
import getpass
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import errors
from llm_magics._async.bridge import bridge
from llm_magics.host import current_host
from llm_magics.providers import gemini, openai
from llm_magics.runtime import provider_pool
from llm_magics.runtime.session import session
from llm_magics.secrets import scrub
from llm_magics.settings.config import config
from llm_magics.settings.hosted_secrets import HostedSecrets
from tests.support import fake_gemini
from tests.support.fake_openai import FakeOpenAI
from tests.support.hosted import FakeColab, FakeDatabricks, FakeKaggle
from tests.support.serving import Says, Server, chat_stream, serving

CANARY = "sk-" + "hosted" + "0123456789" * 3
NAME = "OPENAI_API_KEY"


@pytest.fixture(autouse=True)
def own_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret or provider of an earlier test counts."""
    monkeypatch.setattr(session.providers, "_hosted", HostedSecrets(bridge.call_in_caller))
    monkeypatch.setattr(session.providers, "_created", {})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A service on another machine, as far as the product knows, that requires the key."""
    monkeypatch.setattr(provider_pool, "is_local_address", lambda url: False)
    with serving(FakeOpenAI(key=CANARY)) as served:
        for place in ("own_address", "usual_address"):
            monkeypatch.setattr(openai.OpenAIProvider, place, served.url)
        monkeypatch.setenv("OPENAI_BASE_URL", served.url)
        yield served


def colab(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Colab with the key among its secrets."""
    return FakeColab({NAME: CANARY}).install(monkeypatch)


def kaggle(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Kaggle with the key among its secrets."""
    return FakeKaggle({NAME: CANARY}).install(monkeypatch)


def databricks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Databricks with the key among its secrets, and its scope in the settings."""
    config.secret_scope = "team"
    return FakeDatabricks({("team", NAME): CANARY}).install(monkeypatch)


PLATFORMS = pytest.mark.parametrize("install", [colab, kaggle, databricks])


@PLATFORMS
def test_a_secret_is_the_key_of_the_provider_in_use(
    install: Callable[[pytest.MonkeyPatch], Any], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read once per session, and its place is in the report of health."""
    platform = install(monkeypatch)
    assert lm.ask("hi", model="openai/gpt-test").text
    assert lm.ask("hi", model="openai/gpt-test").text
    assert len(platform.requested) == 1
    assert server.asked[-1].headers["authorization"] == f"Bearer {CANARY}"
    place = f"{install.__name__.capitalize()} secret {NAME}"
    assert session.providers.key_source("openai") == place
    from llm_magics.runtime.doctor import check_health, diagnose

    (found,) = bridge.run(diagnose(session, ["openai"]))
    assert found.detail.endswith(f"; key: {place}")
    assert bridge.run(check_health(session, ["openai"])).detail[0].endswith(f"; key: {place}")
    shown = f"{session.provider('openai')!r} {vars(session.providers)} {scrub(CANARY)}"
    assert CANARY not in shown


@PLATFORMS
def test_lists_of_all_providers_look_nothing_up(
    install: Callable[[pytest.MonkeyPatch], Any],
    server: Server,
    shell: InteractiveShell,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither the tables of providers and models, nor the picker's health, nor a bare name."""
    monkeypatch.setattr(session.providers, "names", lambda: ["echo", "openai"])
    platform = install(monkeypatch)
    shell.run_line_magic("llm", "providers")
    lm.models()
    shell.run_line_magic("llm", "health")
    with pytest.raises(errors.ModelNotFoundError):
        lm.ask("hi", model="no-such-model")
    assert lm.ask("hi", model="echo/echo").text
    assert platform.requested == []


@PLATFORMS
def test_a_missing_secret_is_looked_up_once(
    install: Callable[[pytest.MonkeyPatch], Any],
    server: Server,
    shell: InteractiveShell,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The error says where to add it; ``%llm key`` looks again, and asks for nothing then."""
    platform = install(monkeypatch)
    secrets = dict(platform.secrets)
    platform.secrets.clear()
    for _ in range(2):
        with pytest.raises(errors.AuthenticationError) as caught:
            lm.ask("hi", model="openai/gpt-test")
    assert len(platform.requested) == 1
    assert f"Add {NAME} " in str(caught.value.hint)
    assert "%llm key openai" in str(caught.value.hint)
    platform.secrets.update(secrets)
    if isinstance(platform, FakeColab):
        platform.allowed = {NAME}
    shell.run_line_magic("llm", "key openai")
    assert f"secret {NAME} for openai" in capsys.readouterr().out
    assert lm.ask("hi", model="openai/gpt-test").text
    assert len(platform.requested) == 2


@PLATFORMS
def test_what_the_user_set_counts_first(
    install: Callable[[pytest.MonkeyPatch], Any], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key of this session, of the environment and of the keyring; no secret is read then."""
    platform = install(monkeypatch)
    config.set("providers.openai.api_key", CANARY)
    assert lm.ask("hi", model="openai/gpt-test").text
    assert session.providers.key_source("openai") == "set in this session"
    config.reset("providers.openai.api_key")
    monkeypatch.setenv(NAME, CANARY)
    assert lm.ask("hi", model="openai/gpt-test").text
    assert session.providers.key_source("openai") == NAME
    assert platform.requested == []


def test_colab_is_asked_in_the_thread_of_the_cell(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams, DataFrames and async calls too; a thread of the user's is not the cell's."""
    platform = colab(monkeypatch)
    seen: list[BaseException | str] = []

    def in_a_thread() -> None:
        try:
            seen.append(lm.ask("hi", model="openai/gpt-test").text)
        except errors.AuthenticationError as error:
            seen.append(error)

    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join()
    assert isinstance(seen[0], errors.AuthenticationError)
    assert platform.requested == []
    assert "".join(chunk.text for chunk in lm.stream("hi", model="openai/gpt-test"))
    assert platform.requested == [NAME]
    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join()
    assert isinstance(seen[1], str)


def test_colab_is_asked_by_await_in_the_thread_of_the_cell(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's own loop makes the request while it waits for the answer."""
    platform = colab(monkeypatch)

    async def cell() -> str:
        return (await lm.aask("hi", model="openai/gpt-test")).text

    assert asyncio.run(cell())
    assert platform.requested == [NAME]


def test_an_interrupt_during_the_dialog_ends_the_call(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next call asks again."""
    platform = colab(monkeypatch)
    get = platform.userdata.get

    def interrupted(key: str) -> str:
        raise KeyboardInterrupt

    platform.userdata.get = interrupted
    with pytest.raises(KeyboardInterrupt):
        lm.ask("hi", model="openai/gpt-test")
    platform.userdata.get = get
    assert lm.ask("hi", model="openai/gpt-test").text


def test_an_unattended_run_in_colab_asks_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no page can reply, the request would only wait for its timeout."""
    platform = colab(monkeypatch)
    monkeypatch.setattr(type(current_host()), "is_unattended", lambda host: True)
    with pytest.raises(errors.AuthenticationError):
        lm.ask("hi", model="openai/gpt-test")
    assert platform.requested == []


def test_a_secret_without_access_is_a_warning(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to do; so is a page that does not reply, once per session."""
    platform = colab(monkeypatch)
    platform.allowed = set()
    with (
        pytest.warns(UserWarning, match=f"Colab secret {NAME} was not read: this notebook has no"),
        pytest.raises(errors.AuthenticationError),
    ):
        lm.ask("hi", model="openai/gpt-test")
    platform.has_page = False
    session.providers._hosted.forget(NAME)
    with (
        pytest.warns(UserWarning, match="TimeoutException: Requesting secret"),
        pytest.raises(errors.AuthenticationError),
    ):
        lm.ask("hi", model="openai/gpt-test")
    with pytest.raises(errors.AuthenticationError):
        lm.ask("hi", model="openai/gpt-test")
    assert len(platform.requested) == 2


def test_kaggle_without_internet_is_a_warning(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kaggle's secrets need the Internet switch of the notebook."""
    kaggle(monkeypatch).is_online = False
    with (
        pytest.warns(UserWarning, match=f"Kaggle secret {NAME} was not read: ConnectionError"),
        pytest.raises(errors.AuthenticationError),
    ):
        lm.ask("hi", model="openai/gpt-test")


def test_the_list_of_a_named_provider_looks_its_key_up(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To name a provider is to use it."""
    platform = colab(monkeypatch)
    assert len(lm.models("openai")) == 2
    assert platform.requested == [NAME]


def test_each_service_has_its_own_secret(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of OpenAI in the environment is not that of another service with the same API."""
    platform = FakeColab({"GROQ_API_KEY": CANARY}).install(monkeypatch)
    monkeypatch.setenv(NAME, "a-key-of-openai")
    config.set("providers.groq.base_url", server.url)
    assert lm.ask("hi", model="groq/gpt-test").text
    assert platform.requested == ["GROQ_API_KEY"]
    assert session.providers.key_source("groq") == "Colab secret GROQ_API_KEY"


@pytest.mark.parametrize("name", ["GEMINI_API_KEY", "GOOGLE_API_KEY"])
def test_a_secret_may_have_each_name_of_its_service(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Colab's own dialog stores the key of Gemini as GOOGLE_API_KEY."""
    monkeypatch.setattr(provider_pool, "is_local_address", lambda url: False)
    platform = FakeColab({name: CANARY}).install(monkeypatch)
    with serving(fake_gemini.FakeGemini(key=CANARY)) as served:
        monkeypatch.setattr(gemini.GeminiProvider, "usual_address", served.url)
        monkeypatch.setattr(gemini.GeminiProvider, "own_address", served.url)
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", served.url)
        assert lm.ask("hi", model=f"gemini/{fake_gemini.CHAT}").text
    assert session.providers.key_source("gemini") == f"Colab secret {name}"
    assert (
        platform.requested
        == ["GEMINI_API_KEY", "GOOGLE_API_KEY"][: 1 + (name != "GEMINI_API_KEY")]
    )


def test_databricks_needs_a_scope(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the setting nothing is read; a local variable ``dbutils`` is not Databricks."""
    platform = databricks(monkeypatch)
    config.reset("secret_scope")
    with pytest.raises(errors.AuthenticationError) as caught:
        lm.ask("hi", model="openai/gpt-test")
    assert "secret_scope" in str(caught.value.hint)
    config.secret_scope = "team"
    monkeypatch.delenv("DATABRICKS_RUNTIME_VERSION")
    with pytest.raises(errors.AuthenticationError) as caught:
        lm.ask("hi", model="openai/gpt-test")
    assert "secret_scope" not in str(caught.value.hint)
    assert platform.requested == []


def test_a_server_on_this_machine_needs_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its key would be looked up in vain, each time with a request to the page."""
    platform = colab(monkeypatch)
    with serving(Says(chat_stream("hi"))) as served:
        config.set("providers.lab.type", "openai")
        config.set("providers.lab.base_url", served.url)
        assert lm.ask("hi", model="lab/gpt-test").text
    assert platform.requested == []


@PLATFORMS
def test_a_project_must_be_trusted_to_receive_a_secret(
    install: Callable[[pytest.MonkeyPatch], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As any other key of the user."""
    monkeypatch.setattr(provider_pool, "is_local_address", lambda url: False)
    install(monkeypatch)
    with serving(FakeOpenAI()) as thief:
        (tmp_path / "llm_magics.yaml").write_text(
            f"providers: {{openai: {{base_url: '{thief.url}'}}}}"
        )
        with pytest.raises(errors.ConfigurationError, match=f"secret {NAME}") as caught:
            lm.ask("hi", model="openai/gpt-test")
        assert "%llm trust" in str(caught.value.hint)
        assert thief.asked == []


def test_a_blank_secret_counts_as_missing(
    server: Server, shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``%llm key`` then asks for the key, and what is typed is used."""
    colab(monkeypatch).secrets[NAME] = " \n"
    with pytest.raises(errors.AuthenticationError):
        lm.ask("hi", model="openai/gpt-test")
    monkeypatch.setattr(getpass, "getpass", lambda prompt: CANARY)
    shell.run_line_magic("llm", "key openai")
    assert lm.ask("hi", model="openai/gpt-test").text


def test_work_without_a_waiting_thread_gets_no_function_called() -> None:
    """It is refused at once, instead of blocking the loop."""
    seen: list[BaseException] = []

    async def work() -> None:
        try:
            bridge.call_in_caller(lambda: None)
        except RuntimeError as error:
            seen.append(error)

    started = time.monotonic()
    bridge.start(work())
    while not seen:
        time.sleep(0.001)
        assert time.monotonic() - started < 3
