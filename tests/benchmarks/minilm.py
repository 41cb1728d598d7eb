"""MiniLM on this machine: rows a second against sentence-transformers, in turns. As JSON."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import llm_magics as lm
from tests.support import published

ROWS, ROUNDS = 240, 5
WORDS = "the quick brown fox jumps over a lazy dog while people read about markets weather music".split()  # noqa: SIM905 (a list of them is no easier to read)


def texts() -> list[str]:
    """Of 5 to 60 words."""
    draw = np.random.default_rng(0)
    return [f"{' '.join(draw.choice(WORDS, draw.integers(5, 60)))} {n}" for n in range(ROWS)]


def theirs(path: str) -> Callable[[list[str]], object]:
    """sentence-transformers with the same weights, as its own page of the model says."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    modules = [Transformer(path, max_seq_length=256), Pooling(384), Normalize()]
    model = SentenceTransformer(modules=modules, device="cpu")
    return lambda rows: model.encode(rows, batch_size=32)


def main() -> None:
    """Rows a second of ours over theirs: the median of several rounds."""
    lm.config.vectors = "off"
    rows = texts()
    with tempfile.TemporaryDirectory() as folder:
        path = published.minilm(Path(folder))
        readers: dict[str, Callable[[list[str]], object]] = {
            "theirs": theirs(path),
            "huggingface-local": lambda given: lm.embed(given, model=f"huggingface-local/{path}"),
            "local": lambda given: lm.embed(given, model="local/minilm-l6-v2"),
        }
        took: dict[str, list[float]] = {name: [] for name in readers}
        for read in readers.values():
            read(rows[:32])
        for _ in range(ROUNDS):
            for name, read in readers.items():
                began = time.perf_counter()
                read(rows)
                took[name].append(time.perf_counter() - began)
    ratios = {
        name: float(np.median(np.array(took["theirs"]) / np.array(took[name])))
        for name in ("huggingface-local", "local")
    }
    sys.stdout.write(json.dumps(ratios) + "\n")


if __name__ == "__main__":
    main()
