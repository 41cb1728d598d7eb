"""
A fake service in OpenAI's format that answers about the rows of a simulated table, and counts.

The model `ORACLE` answers with the labels; `PROXY` with the more probable label, and with log
probabilities of the calibrated score if it is asked for them. Both answer in the form that the
request asks for: as plain text (LOTUS), as the number of a class or a call of a tool (DocETL), or as
JSON that fits a schema, for one row or several (llm_magics). Other requests are refused.
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

ORACLE, PROXY = "gpt-4o", "gpt-4o-mini"

# In US dollars per million tokens: https://platform.openai.com/docs/pricing (November 2026).
PRICES = {
    ORACLE: {"input_usd": 2.5, "output_usd": 10.0},
    PROXY: {"input_usd": 0.15, "output_usd": 0.6},
}

_ROW = re.compile(r"row number (\d+)\b")

# What DocETL writes where the answer is the number of a class.
_CLASSES = "1 = True"

# A token, its probability, and the probabilities of its alternatives.
_Token = tuple[str, float, Mapping[str, float]]


class RefusedError(Exception):
    """The request has no answer."""


class Service:
    """Answers about the rows of one table, and counts the calls and tokens of each model."""

    def __init__(
        self, scores: Sequence[float], labels: Sequence[int], *, has_logprobs: bool = True
    ) -> None:
        """
        Answer about the rows of a table.

        Args:
            scores: the probability of yes of each row.
            labels: the label of each row, 0 or 1.
            has_logprobs: whether log probabilities are returned on request.
        """
        self._scores = scores
        self._labels = labels
        self._has_logprobs = has_logprobs
        self._lock = threading.Lock()
        self.log: Counter[str] = Counter()

    def answer(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """
        Return a chat completion in the form that the request asks for.

        Raises:
            RefusedError: the model or the form is another one, or the request is about no row.
        """
        text = "\n".join(str(each["content"]) for each in body["messages"])
        model = body["model"]
        if model not in PRICES:
            raise RefusedError(model)
        tokens = list(self._tokens(body, model, text))
        said = "".join(token for token, _, _ in tokens)
        message: dict[str, Any] = {"role": "assistant", "content": said}
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "message": message}
        if body.get("tools"):
            name = body["tools"][0]["function"]["name"]
            call = {"name": name, "arguments": said}
            message["content"] = None
            message["tool_calls"] = [{"id": "c", "type": "function", "function": call}]
            choice["finish_reason"] = "tool_calls"
        if body.get("logprobs") and self._has_logprobs:
            choice["logprobs"] = {
                "content": [_logprobs(*each) for each in tokens],
                "refusal": None,
            }
        # About four characters a token; the same for all, whatever a tool sends besides.
        usage = {
            "prompt_tokens": len(json.dumps(body["messages"])) // 4,
            "completion_tokens": max(1, len(said) // 4),
        }
        with self._lock:
            self.log[f"{model} calls"] += 1
            for name, count in usage.items():
                self.log[f"{model} {name}"] += count
        head = {"id": "c", "object": "chat.completion", "created": 0, "model": model}
        return {
            **head,
            "choices": [choice],
            "usage": usage | {"total_tokens": sum(usage.values())},
        }

    def _tokens(self, body: Mapping[str, Any], model: str, text: str) -> list[_Token]:
        """Return the tokens of the answer."""
        properties = _properties(body)
        if "answers" in properties:
            rows = json.loads(text.partition("The rows:\n\n")[2])
            answers = [
                {"id": row["id"], "answer": self._score(model, row["text"]) >= 0.5} for row in rows
            ]
            return [(json.dumps({"answers": answers}), 1.0, {})]
        score = self._score(model, text)
        if not properties:
            return [_likelier(("1", "2") if _CLASSES in text else ("True", "False"), score)]
        if any(each.get("type") != "boolean" for each in properties.values()):
            raise RefusedError(str(properties))
        tokens: list[_Token] = []
        for name in properties:
            start = ", " if tokens else "{"
            tokens += [(f'{start}"{name}": ', 1.0, {}), _likelier(("true", "false"), score)]
        return [*tokens, ("}", 1.0, {})]

    def _score(self, model: str, text: str) -> float:
        """Return the probability of yes to the last row that ``text`` names."""
        rows = _ROW.findall(text)
        if not rows:
            raise RefusedError(text)
        values = self._labels if model == ORACLE else self._scores
        return float(values[int(rows[-1])])


def _properties(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of each field of the answer; none for a plain text."""
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema", {})
    if body.get("tools"):
        schema = body["tools"][0]["function"]["parameters"]
    return dict(schema.get("properties", {}))


def _likelier(names: tuple[str, str], score: float) -> _Token:
    """Return the more probable of the tokens for yes and no."""
    yes, no = names
    chances = {yes: score, no: 1 - score}
    best = yes if score >= 0.5 else no
    return best, chances[best], {name: chances[name] for name in names if name != best}


def _logprobs(token: str, chance: float, others: Mapping[str, float]) -> dict[str, Any]:
    """Return the entry of a token, with its alternatives."""
    top = [
        {"token": name, "logprob": math.log(np.clip(each, 1e-9, 1)), "bytes": list(name.encode())}
        for name, each in {token: chance, **others}.items()
    ]
    return {**top[0], "top_logprobs": top}


class _Server(ThreadingHTTPServer):
    # Clients open many connections at once; more than the default of 5 would wait for a second.
    request_queue_size = 256


def serve(service: Service) -> tuple[ThreadingHTTPServer, str]:
    """Start a server; return it and its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Without it, Nagle's algorithm delays each answer by up to 40 ms.
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                answer = service.answer(body)
            except RefusedError as error:
                refusal = {
                    "error": {"message": f"Cannot answer: {error}", "code": "invalid_value"}
                }
                self._send(json.dumps(refusal).encode(), 400)
                return
            if body.get("stream"):
                self._send(_stream(answer), kind="text/event-stream")
            else:
                self._send(json.dumps(answer).encode())

        def do_GET(self) -> None:
            self._send(json.dumps({"data": [{"id": name} for name in PRICES]}).encode())

        def _send(self, data: bytes, status: int = 200, kind: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    server = _Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}/v1"


def _stream(answer: Mapping[str, Any]) -> bytes:
    """Return a completion as a stream of two events."""
    (choice,) = answer["choices"]
    delta = {"index": 0, "delta": choice["message"], "finish_reason": choice["finish_reason"]}
    if "logprobs" in choice:
        delta["logprobs"] = choice["logprobs"]
    events = [{**answer, "choices": [delta], "usage": None}, {**answer, "choices": []}]
    lines = [
        f"data: {json.dumps({**each, 'object': 'chat.completion.chunk'})}\n\n" for each in events
    ]
    return "".join([*lines, "data: [DONE]\n\n"]).encode()
