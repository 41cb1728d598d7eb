"""`PlainHTTP` for httpx: with its requests, answers and errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from typing import cast

import h11

from llm_magics import plain_http
from llm_magics.plain_http import PlainHTTP
from llm_magics.transport.library import http


class PlainTransport(http.AsyncBaseTransport):
    """For httpx, `PlainHTTP`: with its requests, answers and errors."""

    def __init__(self) -> None:
        self._http = PlainHTTP()

    async def handle_async_request(self, request: http.Request) -> http.Response:
        if request.url.scheme != "http":
            msg = f"{request.url.scheme}:// does not go in plain text"
            raise http.UnsupportedProtocol(msg)
        waits = request.extensions["timeout"]
        trace = request.extensions["trace"]
        url = request.url
        asked = plain_http.Request(
            request.method.encode(),
            url.raw_path,
            request.headers.raw,
            cast("http.AsyncByteStream", request.stream),
            (url.raw_host, url.port or 80),
        )
        with _in_words_of_httpx():
            answer = await self._http.send(
                asked,
                plain_http.Waits(waits["connect"], waits["read"], waits["write"]),
                lambda event: trace(event, {}),
            )
        extensions = {"reason_phrase": answer.reason, "http_version": b"HTTP/1.1", "socket": answer.socket}  # fmt: skip
        return http.Response(
            answer.status,
            headers=list(answer.headers),
            stream=_Body(answer.body),
            extensions=extensions,
        )

    async def aclose(self) -> None:
        self._http.close()


class _Body(http.AsyncByteStream):
    def __init__(self, parts: plain_http.Body) -> None:
        self._parts = parts

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        with _in_words_of_httpx():
            async for part in self._parts:
                yield part

    async def aclose(self) -> None:
        await self._parts.aclose()


@contextmanager
def _in_words_of_httpx() -> Generator[None, None, None]:
    try:
        yield
    except plain_http.UnreachableError as error:
        is_slow = isinstance(error.__cause__, TimeoutError)
        raise (http.ConnectTimeout if is_slow else http.ConnectError)(str(error)) from error
    except plain_http.ProtocolError as error:
        raise http.RemoteProtocolError(str(error)) from error
    except h11.LocalProtocolError as error:
        raise http.LocalProtocolError(str(error)) from error
    except TimeoutError as error:
        raise http.ReadTimeout(str(error)) from error
    except OSError as error:
        raise http.ReadError(str(error)) from error
