"""Addresses and keys as environments hold them: proxies, credentials, white space, paths."""

from __future__ import annotations

import asyncio
import base64
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_magics as lm
from llm_magics import ChatMessage, ModelParameters, errors
from llm_magics.http import Timeouts, Transport, connections
from llm_magics.http.connections import find_proxy, is_loopback, split_credentials
from llm_magics.providers import create_provider
from llm_magics.providers.ollama.dialect import parse_host
from llm_magics.runtime.session import session
from llm_magics.secrets import Secret
from llm_magics.settings import credentials as keys
from tests.support.serving import Asked, Says, as_json, chat_stream, serving

KEY = "a-key-of-the-test"
VARIABLES = {
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "gemini": "GEMINI_API_KEY",
    "ollama": "OLLAMA_API_KEY",
    "lmstudio": "LM_API_TOKEN",
    "huggingface": "HF_TOKEN",
}


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the proxies and keys that a test sets."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in (
        *VARIABLES.values(),
        "GOOGLE_API_KEY",
        "HUGGING_FACE_HUB_TOKEN",
        "OLLAMA_HOST",
        "OPENAI_BASE_URL",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.2", "127.255.255.254", "127.1", "::1", "[::1]", "::ffff:127.0.0.1", "localhost",
     "LOCALHOST.", "api.localhost", "0.0.0.0", "::", "ip6-localhost"],
)  # fmt: skip
def test_this_machine_is_not_reached_through_a_proxy(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of 127.0.0.0/8, ::1, and localhost with the names below it."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://proxy.test:3128")
    assert is_loopback(host)
    shown = f"[{host}]" if ":" in host and "[" not in host else host
    assert find_proxy(f"http://{shown}:8080/v1") is None
    assert find_proxy(f"https://{shown}/v1") is None


@pytest.mark.parametrize(
    "host", ["127.0.0.1.test", "128.0.0.1", "10.0.0.1", "localhost.test", "mylocalhost", "::2", "", "a.b"]
)  # fmt: skip
def test_other_machines_are_not_taken_for_this_one(host: str) -> None:
    """However much they look like it."""
    assert not is_loopback(host)


@given(st.integers(0, 2**24 - 1))
def test_the_whole_network_of_the_loopback_is_this_machine(number: int) -> None:
    """127.0.0.0/8."""
    assert is_loopback(".".join(map(str, (127, *number.to_bytes(3, "big")))))


EXCLUDED = [
    ("localhost,[::1]", False),
    ("localhost, [::1] ,api.service.test", True),
    ("service.test", True),
    (".service.test", True),
    ("*.service.test", True),
    ("SERVICE.TEST.", True),
    ("api.service.test:443", True),
    ("api.service.test:8443", False),
    ("https://api.service.test", True),
    ("*", True),
    ("a, *", True),
    ("a b api.service.test", True),
    ("a;api.service.test", True),
    ("ervice.test", False),
    ("vice.test,,, ,", False),
    ("10.0.0.0/8,[fe80::]/10,::/0,[::1]:80,:::,[,]", False),
    ("", False),
]


@pytest.mark.parametrize(("no_proxy", "is_excluded"), EXCLUDED)
def test_no_proxy_is_read_in_every_form(
    no_proxy: str, is_excluded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts, domains, ports, networks; what is none of these does no harm."""
    monkeypatch.setenv("HTTPS_PROXY", "proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    proxy = find_proxy("https://api.service.test/v1")
    assert proxy == (None if is_excluded else "http://proxy.test:3128")


@pytest.mark.parametrize(
    ("no_proxy", "host", "is_excluded"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:443", "10.1.2.3", True),
        ("10.1.2", "10.1.2.3", False),
        ("[2001:db8::1]", "[2001:db8::1]", True),
        ("2001:db8::/32", "[2001:db8::1]", True),
        ("2001:DB8:0::1", "[2001:db8::1]", True),
        ("[2001:db8::1]:443", "[2001:db8::1]", True),
        ("2001:db8::2", "[2001:db8::1]", False),
    ],
)
def test_no_proxy_names_addresses_and_networks(
    no_proxy: str, host: str, is_excluded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of both families, with brackets and without."""
    monkeypatch.setenv("ALL_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (find_proxy(f"https://{host}/v1") is None) is is_excluded


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40))
def test_no_proxy_may_hold_anything(text: str) -> None:
    """It is read without an error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            connections, "getproxies", lambda: {"https": "http://proxy.test:3128", "no": text}
        )
        find_proxy("https://api.service.test/v1")
        find_proxy("https://[2001:db8::1]:99/v1")


def test_each_scheme_has_its_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """``ALL_PROXY`` is for those without one of their own; a blank variable names none."""
    monkeypatch.setenv("HTTP_PROXY", "http://one.test")
    monkeypatch.setenv("ALL_PROXY", "socks5://all.test\n")
    monkeypatch.setenv("HTTPS_PROXY", " ")
    assert find_proxy("http://a.test") == "http://one.test"
    assert find_proxy("https://a.test") == "socks5://all.test"


@pytest.mark.parametrize("no_proxy", ["localhost,[::1]", "[::1]", "[", "::1]", "http://[::1]"])
def test_a_client_is_made_whatever_no_proxy_holds(
    no_proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For services over https; httpx alone raises on some of these."""
    monkeypatch.setenv("NO_PROXY", no_proxy)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")

    async def make() -> None:
        transport = Transport("https://api.service.test/v1")
        transport._client()
        await transport.close()

    asyncio.run(make())


def test_requests_go_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the whole address, its query too, as a proxy wants it."""
    with serving(as_json({"data": []})) as server:
        monkeypatch.setenv("HTTP_PROXY", server.url)

        async def send() -> None:
            transport = Transport("http://api.service.test/v1", query={"api-version": "1"})
            await transport.send("GET", "/models?limit=2")
            await transport.close()

        asyncio.run(send())
    (asked,) = server.asked
    assert asked.path == "http://api.service.test/v1/models?limit=2&api-version=1"
    assert asked.headers["host"] == "api.service.test"


def test_the_time_to_connect_depends_on_where(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds on this machine, ten elsewhere, unless it is set."""

    async def connect_s(url: str, **settings: Any) -> float | None:
        transport = Transport(url, timeouts=Timeouts(**settings))
        found = transport._client().timeout.connect
        await transport.close()
        return found

    assert asyncio.run(connect_s("http://127.0.0.2:11434")) == 2
    assert asyncio.run(connect_s("http://localhost:11434")) == 2
    assert asyncio.run(connect_s("https://api.service.test/v1")) == 10
    assert asyncio.run(connect_s("http://gpu-box:11434")) == 10
    assert asyncio.run(connect_s("http://gpu-box:11434", connect=0.5)) == 0.5
    assert create_provider("openai", connect_s=3).config.timeouts.connect == 3  # type: ignore[attr-defined]


def asks(provider: str, url: str, **settings: Any) -> None:
    """Have a provider ask its server something."""

    async def ask() -> None:
        made = create_provider(provider, base_url=url, **settings)
        try:
            await made.generate_chat([ChatMessage("user", "hi")], "m", ModelParameters())
        except errors.ProviderError:
            pass
        finally:
            await made.close()

    asyncio.run(ask())


def sent_key(asked: Asked) -> str:
    """The key in a request."""
    names = ("authorization", "x-api-key", "x-goog-api-key")
    sent = next((asked.headers[name] for name in names if name in asked.headers), "")
    return sent.removeprefix("Bearer ")


SPACES = ["{}\n", " {} ", "{}\r\n", "\t{}", "\ufeff{}", "{}\u00a0", "\n\n{}\n\n"]


@pytest.mark.parametrize("form", SPACES)
@pytest.mark.parametrize("provider", VARIABLES)
def test_white_space_around_a_key_is_not_part_of_it(
    provider: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the environment, as a setting, and as a `Secret`."""
    key = form.format(KEY)
    with serving(Says(chat_stream("hi"))) as server:
        monkeypatch.setenv(VARIABLES[provider], key)
        asks(provider, server.url)
        monkeypatch.delenv(VARIABLES[provider])
        asks(provider, server.url, api_key=key)
        asks(provider, server.url, api_key=Secret(key))
    assert [sent_key(asked) for asked in server.asked] == [KEY] * 3


@pytest.mark.parametrize("blank", ["", " ", "\n", "\ufeff\r\n"])
@pytest.mark.parametrize("provider", VARIABLES)
def test_a_blank_key_is_no_key(
    provider: str, blank: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing is sent, and it does not say that one is there; an explicit blank hides no other."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv(VARIABLES[provider], blank)
    made = create_provider(provider)
    assert made.config.api_key is None  # type: ignore[attr-defined]
    assert made.own_key_source() == ""
    assert create_provider(provider, api_key=blank).config.api_key is None  # type: ignore[attr-defined]
    monkeypatch.setenv(VARIABLES[provider], KEY)
    assert create_provider(provider, api_key=blank).config.api_key == Secret(KEY)  # type: ignore[attr-defined]


@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini"])
def test_a_blank_key_is_asked_for_as_a_missing_one(
    provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is sent."""
    monkeypatch.setenv(VARIABLES[provider], " \n")
    with pytest.raises(errors.AuthenticationError, match="API key"):
        asyncio.run(create_provider(provider).list_models())


def test_the_key_of_a_namesake_is_stripped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As is one in a settings file or from the keyring; a blank one lets the next source count."""
    monkeypatch.setenv("LAB_API_KEY", f"{KEY}\n")
    monkeypatch.setattr(keys, "load_key", lambda name: Secret.of("from-the-keyring\n"))
    with serving(Says(chat_stream("hi"))) as server:
        lab = {"type": "openai", "base_url": server.url}
        for given in ({}, {"api_key": " "}, {"api_key": "a-key-of-the-file\n"}):
            lm.config.providers = {"lab": {**lab, **given}}
            lm.ask("hi", model="lab/m")
        monkeypatch.setenv("LAB_API_KEY", "\n")
        lm.config.providers = {"lab": {**lab, "api_key": ""}}
        lm.ask("hi", model="lab/m")
    sent = [sent_key(asked) for asked in server.asked]
    assert sent == [KEY, KEY, "a-key-of-the-file", "from-the-keyring"]
    assert session.providers.get("lab").is_set_up


def test_a_key_with_a_line_break_within_is_refused() -> None:
    """With words that do not show it."""
    with pytest.raises(errors.ConfigurationError) as caught:
        create_provider("openai", api_key="one-half-of-it\nother-half")
    assert "half" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("url", "clean", "credentials"),
    [
        ("http://host:1/v1", "http://host:1/v1", None),
        ("http://ada:l%40ce@host/v1?a=b", "http://host/v1?a=b", ("ada", "l@ce")),
        ("https://ada@host", "https://host", ("ada", "")),
        ("https://:token@[::1]:8", "https://[::1]:8", ("", "token")),
        ("https://a:b:c@host", "https://host", ("a", "b:c")),
        ("https://@host", "https://host", None),
    ],
)
def test_credentials_are_taken_out_of_an_address(
    url: str, clean: str, credentials: tuple[str, str] | None
) -> None:
    """Decoded, and the rest as it was."""
    assert split_credentials(url) == (clean, credentials)


def with_credentials(url: str) -> str:
    """The address with a user's name and password in it."""
    return url.replace("http://", "http://ada:p%40ssword@")


BASIC = f"Basic {base64.b64encode(b'ada:p@ssword').decode()}"


@pytest.mark.parametrize("provider", VARIABLES)
def test_a_name_and_password_in_an_address_are_sent(provider: str) -> None:
    """As basic authentication, beside a key that has a header of its own, before one that has not."""
    with serving(Says(chat_stream("hi"))) as server:
        asks(provider, with_credentials(server.url))
        asks(provider, with_credentials(server.url), api_key=KEY)
    assert [asked.headers["authorization"] for asked in server.asked] == [BASIC, BASIC]
    assert "@" not in server.asked[0].headers["host"]
    if (own := {"anthropic": "x-api-key", "gemini": "x-goog-api-key"}.get(provider)) is not None:
        assert server.asked[1].headers[own] == KEY


def test_a_name_and_password_in_ollama_host_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """In every form of the variable."""
    with serving(as_json({"models": []})) as server:
        host = server.url.removeprefix("http://")
        for value in (f"ada:p%40ssword@{host}", f"http://ada:p%40ssword@{host}/\n"):
            monkeypatch.setenv("OLLAMA_HOST", value)
            assert asyncio.run(create_provider("ollama").list_models()) == []
    assert [asked.headers["authorization"] for asked in server.asked] == [BASIC] * 2


def test_credentials_of_an_address_are_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    """Neither in httpx's log, at any level, nor in errors, reprs or health."""
    caplog.set_level(logging.DEBUG)

    async def use(url: str) -> list[str]:
        made: Any = create_provider(
            "openai", base_url=f"{with_credentials(url)}/v1?token=query-secret", api_key=KEY
        )
        shown = [repr(made._transport), str(await made.health_check())]
        for call in (made.list_models(), made.generate_chat([ChatMessage("user", "hi")], "m", ModelParameters())):  # fmt: skip
            with pytest.raises(errors.ProviderError) as caught:
                await call
            shown.append(f"{caught.value!r} {caught.value} {caught.value.hint}")
        await made.close()
        return shown

    with serving(lambda asked: Says([], drop=True)) as server:
        shown = asyncio.run(use(server.url))
    with serving(Says([b"no list"])) as server:
        shown += asyncio.run(use(server.url))
    assert server.asked[0].path == "/v1/models?token=query-secret"
    assert any(record.name == "httpx" for record in caplog.records)
    text = caplog.text + "".join(shown)
    for secret in ("p%40ssword", "p@ssword", "query-secret", BASIC.split()[1], KEY):
        assert secret not in text


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("http://localhost:11434/v1", "http://localhost:11434"),
        ("http://localhost:11434/v1/", "http://localhost:11434"),
        ("localhost/api", "http://localhost:11434"),
        ("https://box.test/ollama/api/chat", "https://box.test:443/ollama"),
        ("https://box.test/api/api", "https://box.test:443/api"),
        ("https://box.test/apis", "https://box.test:443/apis"),
        ("https://box.test/v1/chat/completions", "https://box.test:443"),
        ("https://ada:pw@box.test/v1?a=b", "https://ada:pw@box.test:443?a=b"),
    ],
)
def test_an_ollama_address_may_end_as_another_client_wants_it(given: str, address: str) -> None:
    """The interface's own path is left out."""
    assert parse_host(given) == address


@pytest.mark.parametrize("end", ["/v1", "/api", "/api/", "/v1/chat/completions"])
def test_ollama_is_found_behind_such_an_address(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the variable and as a setting."""
    with serving(as_json({"models": [{"name": "m"}]})) as server:
        monkeypatch.setenv("OLLAMA_HOST", f"{server.url}{end}")
        for made in (create_provider("ollama"), create_provider("ollama", base_url=f"{server.url}{end}")):  # fmt: skip
            assert asyncio.run(made.list_models()) == ["m"]
    assert {asked.path for asked in server.asked} == {"/api/tags"}


def test_a_variable_with_white_space_is_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every provider; a blank one counts as unset."""
    for name, provider in (("OPENAI", "openai"), ("ANTHROPIC", "anthropic"), ("LMSTUDIO", "lmstudio")):  # fmt: skip
        usual = create_provider(provider).config.base_url  # type: ignore[attr-defined]
        monkeypatch.setenv(f"{name}_BASE_URL", " https://box.test/base\n")
        assert create_provider(provider).config.base_url == "https://box.test/base"  # type: ignore[attr-defined]
        monkeypatch.setenv(f"{name}_BASE_URL", " \n")
        assert create_provider(provider).config.base_url == usual  # type: ignore[attr-defined]
