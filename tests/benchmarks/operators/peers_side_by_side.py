"""
Filters side by side against one fake service that logs: calls, tokens, wall time and misses.

    python -m tests.benchmarks.operators.peers_side_by_side results.json \
        --lotus /path/to/python --docetl /path/to/python --trials 20

LOTUS 1.2.4 (Python below 3.13, NumPy below 2) and DocETL 0.3 run in environments of their own.
The service answers about the rows of simulated tables: the model ``gpt-4o`` with the label, and
``gpt-4o-mini`` with the more probable label and log probabilities of the calibrated score.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

import llm_magics as lm
from tests.benchmarks.operators.simulated import simulated_table

SCRIPT = Path(__file__).with_name("peer_runs.py")
ORACLE, PROXY = "gpt-4o", "gpt-4o-mini"
ROW = re.compile(r"row number (\d+)\b")
N, BASE_RATE, AUC = 1_000, 0.3, 0.95
TARGET, DELTA = 0.9, 0.1


class Service:
    """Answers about the rows of one table, and counts calls and tokens of each model."""

    def __init__(self) -> None:
        self.scores: Any = ()
        self.labels: Any = ()
        self.log: Counter[str] = Counter()
        self._lock = threading.Lock()

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return a chat completion in the form that the request asks for."""
        text = json.dumps(body["messages"])
        row = int(ROW.findall(text)[-1])
        model = body["model"]
        score = float(self.labels[row]) if model == ORACLE else float(self.scores[row])
        is_true = score >= 0.5
        message: dict[str, Any] = {"role": "assistant", "content": str(is_true)}
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "message": message}
        fields = _fields(body)
        if body.get("tools"):
            name = body["tools"][0]["function"]["name"]
            call = {"name": name, "arguments": json.dumps(dict.fromkeys(fields, is_true))}
            message["content"] = None
            message["tool_calls"] = [{"id": "c", "type": "function", "function": call}]
            choice["finish_reason"] = "tool_calls"
        elif fields:
            message["content"] = json.dumps(dict.fromkeys(fields, is_true))
        elif "1 = True" in text:
            message["content"] = "1" if is_true else "2"
        if body.get("logprobs"):
            names = ("1", "2") if "1 = True" in text else ("True", "False")
            choice["logprobs"] = {"content": [_logprobs(names, score)], "refusal": None}
        tokens = {"prompt_tokens": len(text) // 4, "completion_tokens": 2}
        with self._lock:
            self.log[f"{model} calls"] += 1
            self.log[f"{model} tokens"] += sum(tokens.values())
        usage = {**tokens, "total_tokens": sum(tokens.values())}
        head = {"id": "c", "object": "chat.completion", "created": 0, "model": model}
        return {**head, "choices": [choice], "usage": usage}


def _fields(body: dict[str, Any]) -> list[str]:
    """Return the names of the fields of the answer; none for a plain text."""
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema", {})
    if body.get("tools"):
        schema = body["tools"][0]["function"]["parameters"]
    return list(schema.get("properties", {}))


def _logprobs(names: tuple[str, str], score: float) -> dict[str, Any]:
    """Return the token of the more probable answer, with the alternatives."""
    chances = np.clip([score, 1 - score], 1e-9, 1)
    tokens = [
        {"token": name, "logprob": math.log(chance), "bytes": list(name.encode())}
        for name, chance in zip(names, chances, strict=True)
    ]
    best = max(tokens, key=lambda each: each["logprob"])
    return {**best, "top_logprobs": tokens}


def serve(service: Service) -> tuple[ThreadingHTTPServer, str]:
    """Start a server; return it and its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = service.answer(body)
            is_stream = bool(body.get("stream"))
            data = _stream(answer) if is_stream else json.dumps(answer).encode()
            self.send_response(200)
            kind = "text/event-stream" if is_stream else "application/json"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            data = json.dumps({"data": [{"id": ORACLE}, {"id": PROXY}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}/v1"


def _stream(answer: dict[str, Any]) -> bytes:
    """Return a completion as a stream of two events."""
    (choice,) = answer["choices"]
    delta = {"index": 0, "delta": choice["message"], "finish_reason": choice["finish_reason"]}
    if "logprobs" in choice:
        delta["logprobs"] = choice["logprobs"]
    events = [{**answer, "choices": [delta]}, {**answer, "choices": []}]
    lines = [
        f"data: {json.dumps({**each, 'object': 'chat.completion.chunk'})}\n\n" for each in events
    ]
    return "".join([*lines, "data: [DONE]\n\n"]).encode()


def ours(table: dict[str, Any], url: str) -> list[int]:
    """Return the rows that ``lm.filter`` keeps."""
    with tempfile.TemporaryDirectory() as cache:
        lm.config.providers = {"lab": {"type": "openai", "base_url": url, "api_key": "k"}}
        lm.config.cache_dir = cache
        kept = lm.filter(  # type: ignore[attr-defined]
            table["texts"],
            "The row says that it is urgent: {{ text }}",
            precision=table["target"],
            recall=table["target"],
            confidence=1 - table["delta"],
            oracle=f"lab/{ORACLE}",
            proxy=f"lab/{PROXY}",
            seed=table["seed"],
            yes=True,
        )
        return [int(row) for row in kept.index]


def peer(name: str, python: str) -> Callable[[dict[str, Any], str], list[int]]:
    """Return a function that runs a peer in its environment."""

    def run(table: dict[str, Any], url: str) -> list[int]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "table.json")
            path.write_text(json.dumps(table), encoding="utf-8")
            command = [python, str(SCRIPT), name, str(path), url]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr[-2000:])
            kept: list[int] = json.loads(done.stdout.strip().splitlines()[-1])
            return kept

    return run


def measure(run: Callable[[dict[str, Any], str], list[int]], seed: int) -> dict[str, Any]:
    """Run one trial against a new service."""
    service = Service()
    rng = np.random.default_rng([99, seed])
    service.scores, service.labels = simulated_table(N, BASE_RATE, AUC, rng)
    texts = [f"This is row number {row} of the table." for row in range(N)]
    table = {"texts": texts, "target": TARGET, "delta": DELTA, "seed": seed}
    server, url = serve(service)
    began = time.perf_counter()
    try:
        kept = np.array(run(table, url), int)
    finally:
        server.shutdown()
        server.server_close()
    found = int(service.labels[kept].sum())
    precision = found / len(kept) if len(kept) else 1.0
    recall = found / int(service.labels.sum())
    return {
        **service.log,
        "seconds": time.perf_counter() - began,
        "precision": precision,
        "recall": recall,
        "missed": min(precision, recall) < TARGET - 1e-9,
    }


def main() -> None:
    """Run the trials that are missing and print the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--lotus", help="the Python of LOTUS's environment")
    parser.add_argument("--docetl", help="the Python of DocETL's environment")
    parser.add_argument("--trials", type=int, default=20)
    args = parser.parse_args()
    runs: dict[str, Callable[[dict[str, Any], str], list[int]]] = {}
    runs |= {
        name: peer(name, python) for name in ("lotus", "docetl") if (python := vars(args)[name])
    }
    if hasattr(lm, "filter"):
        runs["llm_magics"] = ours
    results: dict[str, list[dict[str, Any]]] = {}
    if args.results.exists():
        results = json.loads(args.results.read_text("utf-8"))
    for name, run in runs.items():
        done = results.setdefault(name, [])
        for seed in range(len(done), args.trials):
            done.append(measure(run, seed))
            args.results.write_text(json.dumps(results, indent=1), encoding="utf-8")
        names = sorted({key for trial in done for key in trial})
        means = {
            key: round(float(np.mean([each.get(key, 0) for each in done])), 3) for key in names
        }
        print(name, json.dumps(means))


if __name__ == "__main__":
    main()
