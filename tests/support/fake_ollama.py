"""
An Ollama server without models: it follows the recorded traffic of real 0.24 and 0.30 servers.

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

from tests.support.serving import Asked, Says, as_json

CHAT, EMBED = "smollm2:135m", "all-minilm:latest"
CAPABILITIES = {CHAT: ["completion", "tools"], EMBED: ["embedding"], "seeing:1b": ["completion", "vision"]}  # fmt: skip

TOO_LONG = "the input length exceeds the context length"


class FakeOllama:
    """
    Call it with a request.

    Attributes:
        models: those it has.
        loaded: those in memory.
        version: the release that it behaves as.
        context: how many words a chat model reads, where the request does not say.
        embed_context: how many words of a text are embedded.
    """

    def __init__(self, version: str = "0.24.0") -> None:
        self.models = dict(CAPABILITIES)
        self.loaded: set[str] = set()
        self.version = version
        self.context, self.embed_context = 2048, 256
        self._contexts: dict[str, int] = {}
        self._read: dict[str, str] = {}

    @property
    def release(self) -> tuple[int, ...]:
        """The version as numbers."""
        return tuple(map(int, self.version.split(".")))

    def __call__(self, asked: Asked) -> Says:
        route = self.routes.get((asked.method, asked.path))
        if route is None:
            return Says([b"404 page not found"], 404, "text/plain")
        return route(self, asked.json() if asked.body else {})

    def say_version(self, body: dict[str, Any]) -> Says:
        return as_json({"version": self.version})

    def tags(self, body: dict[str, Any]) -> Says:
        models = [{"name": name, "model": name, "size": 98363587, "digest": name * 2, "details": {}} for name in self.models]  # fmt: skip
        if self.release >= (0, 30):
            for model in models:
                able = self.models[model["name"]]
                embeds = able == ["embedding"]  # which the list has wrong
                model["details"] = {"family": "bert" if embeds else "llama", "context_length": 512 if embeds else 8192}  # fmt: skip
                model["capabilities"] = ["completion"] if embeds else able
        return as_json({"models": models})

    def ps(self, body: dict[str, Any]) -> Says:
        models = [{"name": name, "model": name, "context_length": self._contexts.get(name, self.context)} for name in self.loaded]  # fmt: skip
        return as_json({"models": models})

    def show(self, body: dict[str, Any]) -> Says:
        found = self._found(body)
        if isinstance(found, Says):
            return found
        return as_json({"capabilities": self.models[found], "model_info": {}, "details": {}})

    def chat(self, body: dict[str, Any]) -> Says:  # noqa: PLR0911 (a refusal each)
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
        texts = [message["content"] for message in body["messages"]]
        kept = self._fitting(body, found, texts)
        if isinstance(kept, Says):
            return kept
        return self._words(body, found, texts[-1], kept, lambda text: {"message": {"role": "assistant", "content": text}})  # fmt: skip

    def generate(self, body: dict[str, Any]) -> Says:
        found = self._found(body)
        if isinstance(found, Says):
            return found
        assert body["raw"] is True
        kept = self._fitting(body, found, [body["prompt"]])
        if isinstance(kept, Says):
            return kept
        return self._words(body, found, body["prompt"], kept, lambda text: {"response": text})

    def embed(self, body: dict[str, Any]) -> Says:
        found = self._found(body)
        if isinstance(found, Says):
            return found
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        if not all(isinstance(text, str) for text in texts):
            return as_json({"error": "invalid input type"}, 400)
        if self.release >= (0, 30) and self.models[found] != ["embedding"]:
            return as_json({"error": "This server does not support embeddings. Start it with `--embeddings`"}, 501)  # fmt: skip
        texts = [" ".join(words) for text in texts if (words := text.split())]
        cut = [" ".join(text.split()[: self.embed_context]) for text in texts]
        if cut != texts and body.get("truncate") is False:
            return as_json({"error": TOO_LONG}, 400)
        texts = cut
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

    def _fitting(self, body: dict[str, Any], model: str, texts: list[str]) -> str | Says:
        """What the model reads of a prompt: all of it, unless it may be cut."""
        for name in ("truncate", "shift"):
            if not isinstance(body.get(name, False), bool):
                return as_json({"error": f"json: cannot unmarshal string into Go struct field ChatRequest.{name} of type bool"}, 400)  # fmt: skip
        self._contexts[model] = context = body.get("options", {}).get("num_ctx", self.context)
        words = " ".join(texts).split()
        refuses = body.get("truncate") is False and self.release >= (0, 12, 6)
        if len(words) <= context or not refuses:
            return " ".join(words[-context:])
        if self.release < (0, 30):
            return as_json({"error": TOO_LONG}, 400)
        told = {"code": 400, "message": f"request ({len(words)} tokens) exceeds the available context size ({context} tokens), try increasing it", "type": "exceed_context_size_error", "n_prompt_tokens": len(words), "n_ctx": context}  # fmt: skip
        return as_json({"error": json.dumps({"error": told})}, 400)

    def _words(
        self,
        body: dict[str, Any],
        model: str,
        prompt: str,
        kept: str,
        piece: Callable[[str], dict[str, Any]],
    ) -> Says:
        assert body["stream"] is True
        is_cached = self.release >= (0, 30) and self._read.get(model) == kept
        self._read[model] = kept
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
            "prompt_eval_count": 1 if is_cached else len(kept.split()) + 11,
            "prompt_eval_duration": 100_000_000,
            "eval_count": len(words),
            "eval_duration": 500_000_000,
        }
        says = _lines(*({**piece(word), "done": False} for word in words), last)
        # A long answer takes its time, so that a test can leave in the middle of it.
        return replace(says, gap_s=0.002) if len(words) > 100 else says

    routes: ClassVar[dict[tuple[str, str], Any]] = {
        ("GET", "/api/version"): say_version,
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
