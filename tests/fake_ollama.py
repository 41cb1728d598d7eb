"""
An Ollama server without models: it follows the recorded traffic of a real 0.24 server.

It checks what it is sent as the real one does, and answers in the same shapes; its text is
made up from the prompt and the seed.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

from tests.serving import Asked, Says, as_json

CHAT, EMBED = "smollm2:135m", "all-minilm:latest"
CAPABILITIES = {CHAT: ["completion", "tools"], EMBED: ["embedding"], "seeing:1b": ["completion", "vision"]}  # fmt: skip


class FakeOllama:
    """Call it with a request; ``models`` are those it has, ``loaded`` those in memory."""

    def __init__(self) -> None:
        self.models = dict(CAPABILITIES)
        self.loaded: set[str] = set()

    def __call__(self, asked: Asked) -> Says:
        route = self.routes.get((asked.method, asked.path))
        if route is None:
            return Says([b"404 page not found"], 404, "text/plain")
        return route(self, asked.json() if asked.body else {})

    def version(self, body: dict[str, Any]) -> Says:
        return as_json({"version": "0.24.0"})

    def tags(self, body: dict[str, Any]) -> Says:
        models = [{"name": name, "model": name, "size": 98363587, "digest": name * 2, "details": {}} for name in self.models]  # fmt: skip
        return as_json({"models": models})

    def ps(self, body: dict[str, Any]) -> Says:
        return as_json({"models": [{"name": name, "model": name} for name in self.loaded]})

    def show(self, body: dict[str, Any]) -> Says:
        found = self._found(body)
        if isinstance(found, Says):
            return found
        return as_json({"capabilities": self.models[found], "model_info": {}, "details": {}})

    def chat(self, body: dict[str, Any]) -> Says:
        found = self._found(body)
        if isinstance(found, Says):
            return found
        if "completion" not in self.models[found]:
            return as_json({"error": f'"{body["model"]}" does not support chat'}, 400)
        if body.get("think") and "thinking" not in self.models[found]:
            return as_json({"error": f'"{body["model"]}" does not support thinking'}, 400)
        if body.get("format") not in (None, "json") and not isinstance(body["format"], dict):
            return as_json({"error": "invalid JSON schema in format"}, 500)
        if not body["messages"]:
            unload = body.get("keep_alive") == 0
            (self.loaded.discard if unload else self.loaded.add)(found)
            return as_json({"done": True, "done_reason": "unload" if unload else "load", "message": {"role": "assistant", "content": ""}})  # fmt: skip
        self.loaded.add(found)
        prompt = body["messages"][-1]["content"]
        return self._words(body, prompt, lambda text: {"message": {"role": "assistant", "content": text}})  # fmt: skip

    def generate(self, body: dict[str, Any]) -> Says:
        found = self._found(body)
        if isinstance(found, Says):
            return found
        assert body["raw"] is True
        return self._words(body, body["prompt"], lambda text: {"response": text})

    def embed(self, body: dict[str, Any]) -> Says:
        found = self._found(body)
        if isinstance(found, Says):
            return found
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        if not all(isinstance(text, str) for text in texts):
            return as_json({"error": "invalid input type"}, 400)
        return as_json({"model": found, "embeddings": [_unit(text) for text in texts], "prompt_eval_count": 3 * len(texts)})  # fmt: skip

    def pull(self, body: dict[str, Any]) -> Says:
        if body["model"] == "unknown:none":
            return _lines({"status": "pulling manifest"}, {"error": "pull model manifest: file does not exist"})  # fmt: skip
        self.models[body["model"]] = ["completion"]
        layer = {"status": "pulling b179c9523d0e", "digest": "sha256:b1", "total": 98}
        return _lines({"status": "pulling manifest"}, layer, {**layer, "completed": 40}, {**layer, "completed": 40}, {**layer, "completed": 98}, {"status": "verifying sha256 digest"}, {"status": "success"})  # fmt: skip

    def delete(self, body: dict[str, Any]) -> Says:
        found = self._found(body)
        if isinstance(found, Says):
            return found
        del self.models[found]
        return Says([], 200, "text/plain")

    def _found(self, body: dict[str, Any]) -> str | Says:
        name = body.get("model") or ""
        if not name:
            return as_json({"error": "model is required"}, 400)
        full = name if ":" in name else f"{name}:latest"
        return (
            full if full in self.models else as_json({"error": f"model '{name}' not found"}, 404)
        )

    def _words(
        self, body: dict[str, Any], prompt: str, piece: Callable[[str], dict[str, Any]]
    ) -> Says:
        assert body["stream"] is True
        options = body.get("options", {})
        draw = random.Random(f"{options.get('seed')} {prompt}")
        words = [
            f" word{draw.randrange(100)}"
            for _ in range(min(options.get("num_predict") or 30, 300))
        ]
        longest = options.get("num_predict")
        last = {
            **piece(""),
            "done": True,
            "done_reason": "length" if longest and longest < 300 else "stop",
            "total_duration": 900_000_000,
            "load_duration": 20_000_000,
            "prompt_eval_count": 12,
            "prompt_eval_duration": 100_000_000,
            "eval_count": len(words),
            "eval_duration": 500_000_000,
        }
        says = _lines(*({**piece(word), "done": False} for word in words), last)
        # A long answer takes its time, so that a test can leave in the middle of it.
        return replace(says, gap_s=0.01) if len(words) > 100 else says

    routes: ClassVar[dict[tuple[str, str], Any]] = {
        ("GET", "/api/version"): version,
        ("GET", "/api/tags"): tags,
        ("GET", "/api/ps"): ps,
        ("POST", "/api/show"): show,
        ("POST", "/api/chat"): chat,
        ("POST", "/api/generate"): generate,
        ("POST", "/api/embed"): embed,
        ("POST", "/api/pull"): pull,
        ("DELETE", "/api/delete"): delete,
    }


def _lines(*objects: dict[str, Any]) -> Says:
    return Says(
        [json.dumps(each).encode() + b"\n" for each in objects], 200, "application/x-ndjson"
    )


def _unit(text: str) -> list[float]:
    draw = random.Random(text)
    vector = [draw.gauss(0, 1) for _ in range(16)]
    norm = math.sqrt(sum(x * x for x in vector))
    return [x / norm for x in vector]
