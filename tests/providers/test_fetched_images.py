"""Images that a service gives by address, fetched from a real server over https."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

import llm_magics as lm
from llm_magics import errors
from llm_magics._async.sync import Operation, run_sync
from llm_magics.providers.openai import OpenAIConfig, OpenAIProvider
from llm_magics.runtime.media_calls import image_call
from llm_magics.runtime.session import session
from tests.support.fake_media import PNG, FakeMedia
from tests.support.serving import Says, serving
from tests.support.tls import create_authority

KEY = "a-key-of-the-test"
PICTURE = Says([PNG], content_type="image/png")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """An authority of the module's own, and the context of a server that it vouches for."""
    return create_authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls(made: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's context; its authority is trusted."""
    authority, context = made
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    return context


def fetched(address: str, **settings: Any) -> list[bytes]:
    """What comes of an image that the service has put at ``address``."""

    async def use(url: str) -> list[bytes]:
        config = OpenAIConfig(**{"base_url": url, "api_key": KEY, "connect_s": 60, **settings})
        async with OpenAIProvider(config) as provider:
            return await provider.generate_image(address, "by-address")

    with serving(FakeMedia()) as service:
        return asyncio.run(use(service.url))


def test_an_image_is_fetched_without_the_key(tls: ssl.SSLContext) -> None:
    """Its whole address is asked, with its signature, and nothing of the service's goes along."""
    with serving(PICTURE, tls) as storage:
        assert fetched(f"{storage.url}/a/b.png?sig=x%2Fy&se=1#part") == [PNG]
        (asked,) = storage.asked
    assert (asked.method, asked.path, asked.body) == ("GET", "/a/b.png?sig=x%2Fy&se=1", b"")
    assert "authorization" not in asked.headers
    assert KEY not in str(asked)


def test_an_address_without_https_is_not_asked(tls: ssl.SSLContext) -> None:
    """Neither over http, nor by a scheme of another kind."""
    with serving(PICTURE) as storage:
        for address in (f"{storage.url}/a.png", "file:///etc/passwd", "ftp://localhost/a.png"):
            with pytest.raises(errors.ProviderError) as caught:
                fetched(address)
            assert not caught.value.retryable
        assert storage.asked == []


def test_an_authority_that_is_not_trusted(
    tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is read from a server that nobody vouches for, and nothing is paid again."""
    monkeypatch.delenv("SSL_CERT_FILE")
    with serving(PICTURE, tls) as storage:
        with pytest.raises(errors.ProviderError) as caught:
            fetched(f"{storage.url}/a.png")
        assert storage.asked == []
    assert not caught.value.retryable


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_redirect_is_not_followed(tls: ssl.SSLContext, status: int, scheme: str) -> None:
    """Neither to http nor to https, and so to no private address either."""
    with serving(PICTURE, tls if scheme == "https" else None) as private:
        there = {"location": f"{private.url}/secret"}
        with serving(Says([], status, headers=there), tls) as storage:
            with pytest.raises(errors.ProviderError) as caught:
                fetched(f"{storage.url}/a.png")
            assert len(storage.asked) == 1
        assert private.asked == []
    assert str(status) in str(caught.value)
    assert not caught.value.retryable


@pytest.mark.parametrize("status", [403, 404, 500])
def test_an_image_that_is_gone(tls: ssl.SSLContext, status: int) -> None:
    """Asked for once; the error has the status, and is not retried: that would pay again."""
    with serving(Says([b"<Error/>"], status, "application/xml"), tls) as storage:
        with pytest.raises(errors.ProviderError) as caught:
            fetched(f"{storage.url}/a.png")
        assert len(storage.asked) == 1
    assert str(status) in str(caught.value)
    assert not caught.value.retryable


def test_an_image_that_is_too_large(tls: ssl.SSLContext) -> None:
    """No more than the setting allows is read."""
    with serving(Says([PNG, bytes(2_000_000)], content_type="image/png"), tls) as storage:
        with pytest.raises(errors.ProviderError) as caught:
            fetched(f"{storage.url}/a.png", max_response_mb=1)
        assert caught.value.code == "response_too_large"
        assert not caught.value.retryable
        assert fetched(f"{storage.url}/a.png", max_response_mb=3) == [PNG + bytes(2_000_000)]


def test_a_web_page_is_no_image(tls: ssl.SSLContext) -> None:
    """A page that asks to sign in, with status 200."""
    page = Says([b"<!doctype html><title>Sign in</title>"], content_type="text/html")
    with serving(page, tls) as storage, pytest.raises(errors.ProviderError) as caught:
        fetched(f"{storage.url}/a.png")
    assert "text/html" in str(caught.value)
    assert not caught.value.retryable


def test_it_is_paid_for_once(tls: ssl.SSLContext) -> None:
    """Whatever the fetching comes to, one image was asked for, and is not asked for again."""
    with serving(Says([], 500), tls) as storage, serving(FakeMedia()) as service:
        lm.config.providers = {"openai": {"base_url": service.url, "api_key": KEY}}
        call = image_call(session, f"{storage.url}/a.png", "openai/by-address", {})
        with pytest.raises(errors.ProviderError):
            run_sync(Operation(call, lambda: call.result))
        assert [len(storage.asked), len(service.asked)] == [1, 1]
