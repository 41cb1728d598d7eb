"""
LM Studio without models, by its documentation: its own interface, and its OpenAI-like side.

``version`` 1 knows ``/api/v1``, 0 only the older ``/api/v0``, and -1 neither.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.support.fake_openai import FakeOpenAI
from tests.support.serving import Asked, Says, as_json

CHAT, EMBED = "smollm2-135m-instruct", "text-embedding-minilm"


class FakeLMStudio(FakeOpenAI):
    """Call it with a request; ``loaded`` are the models in memory."""

    models = (CHAT, EMBED)

    def __init__(self, version: int = 1, key: str = "a-key-of-the-test") -> None:
        super().__init__(key=key)
        self.version = version
        self.loaded: dict[str, list[str]] = {CHAT: [CHAT, f"{CHAT}:2"]}
        self.polls = 0

    def __call__(self, asked: Asked) -> Says:
        if asked.headers.get("authorization") != f"Bearer {self.key}":
            return as_json({"error": "Invalid API token"}, 401)
        own = asked.path.startswith(f"/api/v{self.version}/")
        if asked.path.startswith("/api/v") and not own:
            return as_json({"error": f"Unexpected endpoint or method. ({asked.path})"}, 200)
        if own and self.version == 1:
            return self.newer(asked)
        if asked.path == "/api/v0/models":
            return self.older()
        asked = replace(asked, path=asked.path.removeprefix("/v1").removeprefix("/api/v0"))
        if asked.path not in ("/models", "/chat/completions", "/completions", "/embeddings"):
            return as_json({"error": f"Unexpected endpoint or method. ({asked.path})"}, 200)
        return super().__call__(asked)

    def missing(self, body: dict[str, Any]) -> Says:
        """LM Studio's errors are often a text alone."""
        return as_json({"error": f"Model \"{body['model']}\" not found. Please specify a valid model."}, 404)  # fmt: skip

    def newer(self, asked: Asked) -> Says:  # noqa: PLR0911 (a table of addresses)
        path = asked.path.removeprefix("/api/v1")
        if path == "/models":
            return as_json({"models": [self.described(CHAT), self.described(EMBED)]})
        if path == "/models/load":
            name = asked.json()["model"]
            self.loaded[name] = [name]
            return as_json(
                {"type": "llm", "instance_id": name, "load_time_seconds": 0.5, "status": "loaded"}
            )
        if path == "/models/unload":
            instance = asked.json()["instance_id"]
            for instances in self.loaded.values():
                if instance in instances:
                    instances.remove(instance)
                    return as_json({"instance_id": instance})
            return as_json({"error": {"type": "model_not_found", "message": "no such instance"}}, 404)  # fmt: skip
        if path == "/models/download":
            return self.download(asked.json()["model"])
        if path == "/models/download/status/job_1":
            self.polls += 1
            done = self.polls * 500
            status = "completed" if done >= 1000 else "downloading"
            return as_json({"job_id": "job_1", "status": status, "total_size_bytes": 1000, "downloaded_bytes": done})  # fmt: skip
        return as_json({"error": "Unexpected endpoint"}, 404)

    def download(self, name: str) -> Says:
        if name == CHAT:
            return as_json({"status": "already_downloaded"})
        if name == "broken":
            return as_json({"job_id": "job_2", "status": "failed"})
        if name != "new/model":
            return as_json({"error": {"type": "model_not_found", "message": "not in the catalogue"}}, 404)  # fmt: skip
        return as_json({"job_id": "job_1", "status": "downloading", "total_size_bytes": 1000, "downloaded_bytes": 0})  # fmt: skip

    def described(self, name: str) -> dict[str, Any]:
        instances = [
            {"id": each, "config": {"context_length": 4096}} for each in self.loaded.get(name, [])
        ]
        told = {"key": name, "type": "embedding" if name == EMBED else "llm", "size_bytes": 1000}
        told |= {"loaded_instances": instances, "max_context_length": 8192, "format": "gguf"}
        if name == CHAT:
            told["capabilities"] = {"vision": False, "trained_for_tool_use": True}
        return told

    def older(self) -> Says:
        data = [
            {"id": CHAT, "type": "vlm", "state": "loaded", "max_context_length": 8192, "loaded_context_length": 2048, "capabilities": ["tool_use"]},
            {"id": EMBED, "type": "embeddings", "state": "not-loaded", "max_context_length": 512},
        ]  # fmt: skip
        return as_json({"object": "list", "data": data})

    def usage(self, words: int) -> dict[str, Any]:
        if self.version == 0:
            stats = {"tokens_per_second": 50.0, "time_to_first_token": 0.1, "generation_time": 0.2}
            return {**super().usage(words), "stats": stats}
        return super().usage(words)

    def counted(self, data: list[Any]) -> int:
        return 0  # whatever was sent
