"""Hugging Face's router without models: the list as recorded, feature extraction as documented."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.support.fake_openai import FakeOpenAI, refusal, unit
from tests.support.serving import Asked, Says, as_json

CHAT, EMBED = "HuggingFaceTB/SmolLM2-135M-Instruct", "sentence-transformers/all-MiniLM-L6-v2"


class FakeHuggingFace(FakeOpenAI):
    """Call it with a request; ``tokens`` gives a vector for each token in place of one a text."""

    models = (CHAT, EMBED)

    def __init__(self, *, tokens: bool = False, key: str = "a-key-of-the-test") -> None:
        super().__init__(key=key)
        self.tokens = tokens

    def __call__(self, asked: Asked) -> Says:
        if asked.headers.get("authorization") != f"Bearer {self.key}":
            return as_json({"error": "Invalid username or password."}, 401)
        if asked.path == "/v1/models":
            return as_json({"object": "list", "data": [self.described(), {"id": EMBED}]})
        if asked.path.startswith("/hf-inference/models/"):
            return self.extracted(asked)
        return super().__call__(replace(asked, path=asked.path.removeprefix("/v1")))

    def missing(self, body: dict[str, Any]) -> Says:
        message = f"The requested model '{body['model']}' is not supported by any provider you have enabled."
        return refusal("model_not_supported", message, 400)

    def described(self) -> dict[str, Any]:
        serving = {"provider": "a", "status": "live", "context_length": 8192, "supports_tools": True, "supports_structured_output": False, "pricing": {"input": 0.2, "output": 0.4}}  # fmt: skip
        dear = {**serving, "provider": "b", "context_length": 16384, "pricing": {"input": 1, "output": 2}}  # fmt: skip
        gone = {**serving, "provider": "c", "status": "error", "context_length": 99999}
        return {
            "id": CHAT,
            "object": "model",
            "owned_by": "HuggingFaceTB",
            "architecture": {"input_modalities": ["text", "image"]},
            "providers": [dear, serving, gone, {"provider": "d", "status": "live"}],
        }

    def extracted(self, asked: Asked) -> Says:
        if asked.path != f"/hf-inference/models/{EMBED}/pipeline/feature-extraction":
            return as_json({"error": "Not Found"}, 404)
        texts = asked.json()["inputs"]
        if len(texts) > 32:
            return as_json({"error": f"batch size {len(texts)} > maximum allowed batch size 32", "error_type": "Validation"}, 422)  # fmt: skip
        vectors: list[Any] = [unit(text) for text in texts]
        if self.tokens:
            vectors = [[[vector, vector]] for vector in vectors]
        return as_json(vectors)
