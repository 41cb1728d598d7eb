"""
Record what a real service sends: a proxy on this machine that keeps each answer, and no key.

    python -m tests.support.record https://api.example.com traffic.jsonl

prints the address to ask in the service's place, until interrupted. One JSON object a line, as
`tests.support.recorded` reads them: ``arrivals_ms_bytes`` says when each piece came, in ms from the
request, and how long it was.
"""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

from llm_magics.secrets import is_secret_name, scrub

# Of the answer's headers those that matter to a client; of the request's none is kept.
KEPT = {"content-type", "content-length", "retry-after", "request-id", "x-request-id"}
_NOT_PASSED_ON = {"host", "connection", "accept-encoding", "content-length", "transfer-encoding"}
_KINDS = {"text/event-stream": "sse", "application/x-ndjson": "ndjson", "application/json": "json"}


def recorder(service: str, file: Path) -> ThreadingHTTPServer:
    """A proxy for ``service`` on a free loopback port that appends what it sees to ``file``."""
    if urlsplit(service).password or urlsplit(service).query:
        msg = "Give the address without a key in it; the client sends its own."
        raise ValueError(msg)
    client = httpx.Client(base_url=service, timeout=600, follow_redirects=False)

    class Recorder(BaseHTTPRequestHandler):
        """One request passed on, and its answer passed back and kept."""

        def _pass_on(self) -> None:
            if "content-length" not in self.headers and self.command == "POST":
                self.send_error(411)  # a body in chunks is not passed on
                return
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            sent = {k: v for k, v in self.headers.items() if k.lower() not in _NOT_PASSED_ON}
            # As it is: packed pieces would have other boundaries than the service's own.
            sent["accept-encoding"] = "identity"
            began, pieces, arrivals = time.perf_counter(), [], []
            with client.stream(self.command, self.path, content=body, headers=sent) as answer:
                self.send_response(answer.status_code)
                for name in KEPT - {"content-length"}:
                    if name in answer.headers:
                        self.send_header(name, answer.headers[name])
                self.send_header("connection", "close")
                self.end_headers()
                for piece in answer.iter_raw():
                    passed_ms = round((time.perf_counter() - began) * 1000, 2)
                    arrivals.append([passed_ms, len(piece)])
                    pieces.append(piece)
                    self.wfile.write(piece)
                    self.wfile.flush()
            kept = {name: answer.headers[name] for name in KEPT if name in answer.headers}
            kind = _KINDS.get(kept.get("content-type", "").partition(";")[0], "text")
            line = {
                "source": f"recorded {time.strftime('%Y-%m-%d')}",
                "method": self.command,
                "host": urlsplit(service).netloc,
                "endpoint": self.path.partition("?")[0],  # some services take a key behind it
                "status": answer.status_code,
                "headers": dict(sorted(kept.items())),
                "kind": kind,
                "request": _decoded(body),
                "body": b"".join(pieces).decode("utf-8", "replace"),
                "arrivals_ms_bytes": arrivals,
            }
            told = json.dumps(line, ensure_ascii=False)
            for secret in _secrets(self.path, sent, line["request"]):
                told = told.replace(json.dumps(secret, ensure_ascii=False)[1:-1], "****")
            with file.open("a", encoding="utf-8") as out:
                out.write(scrub(told) + "\n")

        do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = _pass_on  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Nothing: what was asked is in the file."""

    return ThreadingHTTPServer(("127.0.0.1", 0), Recorder)


def _secrets(path: str, headers: dict[str, str], request: Any) -> list[str]:
    """The keys of a request, which its service may repeat."""
    found = {value for _, value in parse_qsl(urlsplit(path).query)}
    named = headers | (request if isinstance(request, dict) else {})
    for name, value in named.items():
        if name.lower() in ("authorization", "cookie") or is_secret_name(name):
            found |= set(str(value).split()[-1:])  # behind the scheme
    return sorted((secret for secret in found if len(secret) >= 8), key=len, reverse=True)


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return body.decode("utf-8", "replace")


if __name__ == "__main__":
    server = recorder(sys.argv[1], Path(sys.argv[2]))
    print(f"Ask http://127.0.0.1:{server.server_port} in place of {sys.argv[1]}.", flush=True)
    server.serve_forever()
