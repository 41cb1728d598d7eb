"""Connections that are closed at the right moment."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from llm_magics.http import Timeouts, Transport, connections
from tests.support.tls import create_authority

HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"


@pytest.mark.parametrize(("server", "opened"), [("llama.cpp", 2), ("other", 1)])
def test_a_server_that_closes_silently_gets_a_new_connection(server: str, opened: int) -> None:
    """llama.cpp's server closes one after a stream without saying so; others keep theirs."""

    async def use() -> int:
        handlers: list[asyncio.Task[Any]] = []

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            handlers.append(task)
            while await reader.readline():
                length = 0
                while (line := await reader.readline()) not in (b"\r\n", b""):
                    name, _, value = line.decode().partition(":")
                    length = int(value) if name.lower() == "content-length" else length
                await reader.readexactly(length)
                writer.write(f"{HEAD}Server: {server}\r\n\r\n{{}}".encode())
                await writer.drain()
            writer.close()
            await writer.wait_closed()

        listening = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        transport = Transport(f"http://127.0.0.1:{port}", timeouts=Timeouts())
        try:
            for _ in range(2):
                async with transport.stream("POST", "/chat", {}) as stream:
                    assert (await stream.reply()).body == b"{}"
        finally:
            await transport.close()
            listening.close()
        async with asyncio.timeout(10):
            await asyncio.gather(*handlers)  # each ends with its connection
        return len(handlers)

    assert asyncio.run(use()) == opened


def test_attempts_to_other_addresses_end_with_the_first_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An address that drops packets is not waited for, and no attempt at it goes on."""
    ended: list[str] = []
    here, there = socket.socketpair()

    async def connect(address_info: Any) -> socket.socket:
        if address_info[4][0] == "192.0.2.1":
            try:
                await asyncio.sleep(1000)
            finally:
                ended.append("192.0.2.1")
        return here

    async def use() -> None:
        loop = asyncio.get_running_loop()

        async def find(*_: Any, **__: Any) -> list[Any]:
            return [(0, 0, 0, "", (host, 80)) for host in ("192.0.2.1", "192.0.2.2")]

        monkeypatch.setattr(loop, "getaddrinfo", find)
        assert await connections._connect("example.test", 80) is here
        await asyncio.sleep(0)
        assert ended == ["192.0.2.1"]

    monkeypatch.setattr(connections, "_connect_to", connect)
    monkeypatch.setattr(connections, "_NEXT_ADDRESS_S", 0.01)
    with here, there:
        asyncio.run(use())


def test_closing_ends_a_secure_connection_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server sees its end when the transport is closed."""
    authority, context = create_authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))

    async def use() -> bytes:
        ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"{HEAD}\r\n{{}}".encode())
            await writer.drain()
            ended.set_result(await reader.read())
            writer.close()

        listening = await asyncio.start_server(handle, "localhost", 0, ssl=context)
        port = listening.sockets[0].getsockname()[1]
        transport = Transport(f"https://localhost:{port}", timeouts=Timeouts())
        assert (await transport.send("GET", "/")).body == b"{}"
        assert not ended.done()
        await transport.close()
        async with asyncio.timeout(5):
            rest = await ended
        listening.close()
        return rest

    assert asyncio.run(use()) == b""
