"""A service of embeddings that counts what it is paid for."""

from __future__ import annotations

import base64
import threading
from functools import cache
from typing import Any

import numpy as np

from tests.support.serving import Asked, Says, as_json

WIDTH = 8


def vector_of(text: str) -> list[float]:
    """A direction for each text, the same every time."""
    return list(_vector_of(text))


@cache
def _vector_of(text: str) -> tuple[float, ...]:
    draw = np.random.default_rng(list(text.encode()))
    return tuple(map(float, draw.standard_normal(WIDTH).astype(np.float32)))


class Embedder:
    """
    A service of OpenAI's format that counts the texts it is paid for.

    It refuses a batch with one of ``poison`` in it, and one with a text longer than ``longest``
    words; ``refusals`` are its next answers. With ``cut`` its vectors are so long.
    """

    def __init__(self) -> None:
        self.paid: list[str] = []
        self.requests = 0
        self.poison: set[str] = set()
        self.longest = 1000
        self.refusals: list[Says] = []
        self.delay_s = 0.0
        self.cut: int | None = None
        self.dimensions: list[int | None] = []
        self._lock = threading.Lock()

    def __call__(self, asked: Asked) -> Says:
        body = asked.json()
        texts: list[str] = body["input"]
        with self._lock:
            self.requests += 1
            if self.refusals:
                return self.refusals.pop(0)
        if self.poison & set(texts):
            return as_json({"error": {"message": "Invalid input.", "code": "invalid_value"}}, 400)
        for text in texts:
            if len(text.split()) > self.longest:
                msg = f"This model's maximum context length is {self.longest} tokens, however you requested {len(text.split())} tokens."
                return as_json({"error": {"message": msg, "code": "context_length_exceeded"}}, 400)
        self.paid += texts
        self.dimensions.append(body.get("dimensions"))
        rows = [vector_of(text)[: body.get("dimensions") or self.cut] for text in texts]
        if body.get("encoding_format") == "base64":
            packed = [base64.b64encode(np.asarray(row, "<f4").tobytes()).decode() for row in rows]
            data: list[Any] = [{"index": n, "embedding": row} for n, row in enumerate(packed)]
        else:
            data = [{"index": n, "embedding": row} for n, row in enumerate(rows)]
        answer = as_json({"data": data, "usage": {"prompt_tokens": len(texts)}})
        return Says(answer.pieces, content_type="application/json", delay_s=self.delay_s)
