"""The recorder that contributors use: what a client sees is what the service said, and is kept."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import llm_magics as lm
from tests.support.record import recorder
from tests.support.recorded import events
from tests.support.serving import Asked, Says, as_json, chat_stream, serving

KEY = "sk-a-key-of-the-test"


@contextmanager
def recording(service: str, file: Path) -> Iterator[str]:
    """The address of a recorder for ``service``."""
    server = recorder(service, file)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def lines_of(file: Path) -> list[dict[str, Any]]:
    """What was recorded."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def ask_through(url: str) -> lm.Response:
    """An answer of a service of OpenAI's format at ``url``."""
    lm.config.providers = {"lab": {"type": "openai", "base_url": url, "api_key": KEY}}
    return lm.ask("Hello?", model="lab/m")


def test_a_stream_is_passed_on_and_kept(tmp_path: Path) -> None:
    """Piece by piece with its times; the key goes to the service and into no file."""
    file = tmp_path / "traffic.jsonl"
    with serving(Says(chat_stream("Hel", "lo"), gap_s=0.02)) as service:
        with recording(service.url, file) as url:
            assert ask_through(url).text == "Hello"
        assert service.asked[0].headers["authorization"] == f"Bearer {KEY}"
    (line,) = lines_of(file)
    assert KEY not in file.read_text("utf-8")
    assert (line["endpoint"], line["status"], line["kind"]) == ("/chat/completions", 200, "sse")
    assert line["request"]["messages"] == [{"role": "user", "content": "Hello?"}]
    assert events(line["body"])[0]["choices"]
    times = [passed_ms for passed_ms, _ in line["arrivals_ms_bytes"]]
    assert times == sorted(times)
    assert times[-1] - times[0] >= 20
    assert sum(length for _, length in line["arrivals_ms_bytes"]) == len(line["body"].encode())


def test_a_refusal_is_kept_too(tmp_path: Path) -> None:
    """With its status and the headers that matter to a client."""
    file = tmp_path / "traffic.jsonl"
    refusal = as_json({"error": {"message": "No such model.", "code": "model_not_found"}}, 404)
    with (
        serving(refusal) as service,
        recording(service.url, file) as url,
        pytest.raises(lm.errors.ModelNotFoundError),
    ):
        ask_through(url)
    lines = lines_of(file)
    assert lines[0]["status"] == 404
    assert "content-type" in lines[0]["headers"]
    assert "authorization" not in json.dumps(lines)


def test_a_key_that_the_service_repeats_is_not_kept(tmp_path: Path) -> None:
    """Nor one in the query or in the body; one in the address is refused."""
    file = tmp_path / "traffic.jsonl"

    def repeat(asked: Asked) -> Says:
        said = f"Incorrect key {asked.headers.get('authorization')} in {asked.path}"
        return as_json({"error": {"message": said}}, 401)

    with serving(repeat) as service, recording(service.url, file) as url:
        httpx.post(
            f"{url}/v1/x?key=key-in-the-query",
            headers={"authorization": "Bearer plain-looking-word"},
            json={"api_key": "key-in-the-body"},
            trust_env=False,
        )
    text = file.read_text("utf-8")
    assert "Incorrect key Bearer ****" in lines_of(file)[0]["body"]
    for secret in ("plain-looking-word", "key-in-the-query", "key-in-the-body"):
        assert secret not in text
    with pytest.raises(ValueError, match="key"):
        recorder("https://me:secret-word@api.test", file)
