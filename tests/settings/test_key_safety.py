"""Keys stay in their wrapper, and go where they belong: whatever a file, a server or a slip does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_magics as lm
from llm_magics import ChatMessage, ModelParameters, errors
from llm_magics.providers import create_provider
from llm_magics.runtime.session import Session
from llm_magics.secrets import forget_secret, may_contain_keys, register_secret, scrub_json
from llm_magics.settings.config import Config
from tests.support.fake_openai import FakeOpenAI
from tests.support.serving import Asked, Says, as_json, chat_stream, serving

HI = [ChatMessage("user", "hi")]
CANARY = "canary-5d1f0c77e2"


def own_session(folder: Path, project: str, user: str = "") -> Session:
    """A session in ``folder``, by a project's file and the user's."""
    (folder / "llm_magics.yaml").write_text(project)
    if user:
        home = Path(os.environ["XDG_CONFIG_HOME"]) / "llm_magics"
        home.mkdir(parents=True, exist_ok=True)
        (home / "llm_magics.yaml").write_text(user)
    return Session(Config(folder, {}))


@pytest.mark.parametrize(
    "provider", ["openai", "anthropic", "gemini", "ollama", "lmstudio", "huggingface"]
)
def test_a_key_that_ends_in_a_newline_works(provider: str) -> None:
    """So do ``$(cat key)`` and files end; one with a break inside is refused, and not shown."""
    with serving(as_json({})) as server:
        made = create_provider(provider, base_url=server.url, api_key=f" {CANARY}\n")
        asyncio.run(made.health_check())
        asyncio.run(made.close())
        sent = server.asked[0].headers
    bearer = sent.get("authorization", "").removeprefix("Bearer ")
    assert CANARY in (bearer, sent.get("x-api-key"), sent.get("x-goog-api-key"))
    with pytest.raises(errors.ConfigurationError) as caught:
        create_provider(provider, base_url="http://x", api_key=f"{CANARY}\nX-Other: 1")
    assert CANARY not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    "settings",
    [
        {"api_key": 123456789012345678},
        {"api_key": [CANARY]},
        {"extra_headers": f"Authorization: Bearer {CANARY}"},
        {"extra_headers": {"X-Key": [CANARY]}},
    ],
)
def test_a_key_of_the_wrong_kind_is_not_shown(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Neither in the error nor in the table of settings."""
    with pytest.raises(errors.ConfigurationError) as caught:
        create_provider("openai", base_url="http://x", **settings)
    lm.config.providers = {"openai": settings}
    shown = f"{caught.value} {caught.value.hint} {lm.config!r} {lm.config.frame().to_string()}"
    assert CANARY not in shown
    assert "123456789012345678" not in shown


def test_headers_are_not_shown_either() -> None:
    """They may hold a key: not in reprs, not in the table of settings."""
    headers = {"X-Gateway-Key": CANARY}
    made = create_provider("openai", base_url="http://x", extra_headers=headers)
    assert CANARY not in repr(made.config)
    assert CANARY not in repr(made._transport)  # type: ignore[attr-defined]
    lm.config.set("providers.openai.extra_headers", headers)
    assert CANARY not in repr(lm.config)
    with serving(Says(chat_stream("hi"))) as server:
        lm.config.set("providers.openai.base_url", server.url)
        assert lm.ask("hi", model="openai/m").text == "hi"
        assert server.asked[0].headers["x-gateway-key"] == CANARY


def test_a_password_in_an_address_is_not_shown() -> None:
    """``http://user:password@host`` is said without it."""
    made = create_provider("openai", base_url=f"http://bob:{CANARY}@127.0.0.1:9/v1", api_key="k")
    with pytest.raises(errors.ConnectionError) as caught:
        asyncio.run(made.list_models())
    assert CANARY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini"])
def test_an_error_looked_into_holds_no_key(provider: str) -> None:
    """Not in its cause, nor in the request that httpx keeps with it."""
    made = create_provider(provider, base_url="http://127.0.0.1:9", api_key=CANARY)
    with pytest.raises(errors.ConnectionError) as caught:
        asyncio.run(made.list_models())
    error: BaseException | None = caught.value
    while error is not None:
        request = getattr(error, "_request", None)
        assert CANARY not in repr(vars(error))
        assert request is None or CANARY not in str(request.headers.raw)
        error = error.__cause__ or error.__context__


PROJECTS = {
    "address": ("openai", "providers: {openai: {base_url: 'http://evil.example'}}"),
    "profile": ("mine", "providers: {mine: {profile: vllm}}"),
}


@pytest.mark.parametrize(
    ("project", "user"),
    [
        (PROJECTS["address"], f"providers: {{openai: {{extra_headers: {{X-Key: {CANARY}}}}}}}"),
        (PROJECTS["address"], f"providers: {{openai: {{api_key: {CANARY}}}}}"),
        (PROJECTS["profile"], f"providers: {{mine: {{type: openai, profile: openrouter, api_key: {CANARY}}}}}"),
    ],
    ids=["headers to its address", "key to its address", "key to its profile"],
)  # fmt: skip
def test_nothing_secret_goes_where_a_project_says(
    tmp_path: Path, project: tuple[str, str], user: str
) -> None:
    """Until the user has said yes, by setting the address himself."""
    name, text = project
    session = own_session(tmp_path, text, user)
    with pytest.raises(errors.ConfigurationError, match="API key") as caught:
        session.provider(name)
    assert CANARY not in str(caught.value)
    session.config.set(f"providers.{name}.base_url", "http://trusted.example")
    assert session.provider(name)


def test_a_folder_that_looks_like_the_users_is_a_projects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``~/.config/llm_magics-evil`` begins like the user's own folder."""
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    folder = Path(os.environ["XDG_CONFIG_HOME"]) / "llm_magics-evil"
    folder.mkdir(parents=True)
    session = own_session(folder, PROJECTS["address"][1])
    with pytest.raises(errors.ConfigurationError, match="API key"):
        session.provider("openai")


def test_a_key_set_later_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """No restart: the environment may be mended in the notebook, and the hint says how."""
    with serving(FakeOpenAI(key=CANARY)) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        with pytest.raises(errors.AuthenticationError) as caught:
            lm.ask("hi", model="openai/gpt-test")
        assert "No key was sent" in str(caught.value.hint)
        assert "OPENAI_API_KEY" in str(caught.value.hint)
        monkeypatch.setenv("OPENAI_API_KEY", "wrong")
        with pytest.raises(errors.AuthenticationError, match="Incorrect") as caught:
            lm.ask("hi", model="openai/gpt-test")
        assert "Check the key" in str(caught.value.hint)
        monkeypatch.setenv("OPENAI_API_KEY", CANARY)
        assert lm.ask("hi", model="openai/gpt-test").text


@pytest.mark.parametrize("value", [f'"{CANARY}"', f" '{CANARY}'\n", f'" {CANARY} "'])
@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "GPU_LAB_API_KEY"])
def test_quotes_around_a_key_are_removed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """``docker run --env-file`` and ``set`` on Windows leave them in the variable."""
    monkeypatch.setenv(name, value)
    provider = name.removesuffix("_API_KEY").lower().replace("_", "-")
    with serving(FakeOpenAI(key=CANARY)) as server:
        lm.config.providers = {provider: {"type": "openai", "base_url": server.url}}
        assert lm.ask("hi", model=f"{provider}/gpt-test").text


def test_a_server_of_ones_own_has_a_variable_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``providers.gpu-lab`` reads GPU_LAB_API_KEY, and says so where it is missing."""
    with serving(FakeOpenAI(key=CANARY)) as server:
        settings: dict[str, Any] = {"type": "openai", "base_url": server.url}
        lm.config.providers = {"gpu-lab": settings}
        with pytest.raises(errors.AuthenticationError) as caught:
            lm.ask("hi", model="gpu-lab/gpt-test")
        assert "GPU_LAB_API_KEY" in str(caught.value.hint)
        monkeypatch.setenv("GPU_LAB_API_KEY", CANARY)
        assert lm.ask("hi", model="gpu-lab/gpt-test").text


def test_a_key_is_no_parameter_of_a_prompt() -> None:
    """It would go into the body, in plain text; nor is any other setting of a provider."""
    with serving(Says(chat_stream("hi"))) as server:
        lm.config.set("providers.openai.base_url", server.url)
        for name in ("api_key", "total_s", "base_url", "api"):
            with pytest.raises(errors.UsageError) as caught:
                lm.ask("hi", model="openai/m", **{name: CANARY})
            assert f"providers.NAME.{name}" in str(caught.value.hint)
            assert CANARY not in str(caught.value)
        assert server.asked == []
        assert lm.ask("hi", model="openai/m", top_k=3, min_tokens=1).text == "hi"
        assert server.asked[0].json()["top_k"] == 3


def test_one_that_is_set_up_wrongly_harms_no_other(tmp_path: Path) -> None:
    """Lists, health and bare names work with the rest."""
    project = "providers: {bad: {type: openai}, worse: {type: nonsense}}"
    session = own_session(tmp_path, project)

    def listed() -> dict[str, list[str]]:
        return asyncio.run(session.model_names())

    assert "echo" in listed()
    assert "bad" not in listed()


HOSTILE: list[Any] = [None, 5, "x", [], [1], {}, {"data": 3}, {"data": [None]}, {"data": [{"id": None}, {"id": 3}]},
                      {"models": [{"key": 1, "size_bytes": "4GB", "loaded_instances": 7}]}, {"models": [{"name": None}]}]  # fmt: skip


@pytest.mark.parametrize(
    "provider", ["openai", "anthropic", "gemini", "ollama", "lmstudio", "huggingface"]
)
def test_whatever_a_server_sends_the_error_is_of_the_tree(provider: str) -> None:
    """Lists, vectors, health: an answer of the wrong shape is a ProviderError, and never raw."""
    told: list[Any] = [None]

    def answers(asked: Asked) -> Says:
        return as_json(told[0])

    async def tried(url: str) -> None:
        made = create_provider(provider, base_url=url, api_key="a-key-of-the-test")
        await made.health_check()
        for attempt in (
            made.list_models(),
            made.describe_models(),
            made.generate_embeddings(["a"], "m"),
            made.generate_chat(HI, "m", ModelParameters()),
        ):
            with contextlib.suppress(errors.ProviderError):
                await attempt
        await made.close()

    with serving(answers) as server:
        for told[0] in HOSTILE:
            asyncio.run(tried(server.url))


KEY = 'correct"horse\\bättery'
LEAVES = st.sampled_from(
    [
        None,
        True,
        1.5,
        "",
        "plain words",
        f"before {KEY} after",
        quote(KEY),
        json.dumps({"key": KEY}),
        "sk-abcdefghijklmnopqrstuvwxyz",
        'correct"',
        "horse",
    ]
)
NAMES = st.sampled_from(["name", KEY])
VALUES = st.recursive(
    LEAVES, lambda each: st.lists(each, max_size=3) | st.dictionaries(NAMES, each, max_size=2)
)


@given(value=VALUES)
def test_a_key_is_noticed_wherever_it_is(value: object) -> None:
    """In any text of JSON that `scrub_json` would mask, and in the names of objects."""
    register_secret(KEY)
    try:
        assert may_contain_keys(value) == (scrub_json(value) != value)
    finally:
        forget_secret(KEY)
