"""Many texts in portions that a service takes at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

# OpenAI's bounds for one request of embeddings: 2,048 texts and 300,000 tokens, a token
# being three bytes of text at the least in what people embed.
MOST_TEXTS = 2048
MOST_BYTES = 300_000 * 3


def batches(texts: Sequence[str], most_texts: int = MOST_TEXTS) -> Iterator[list[str]]:
    """``texts`` in their order, in portions of ``most_texts`` and ``MOST_BYTES`` at most."""
    batch: list[str] = []
    size = 0
    for text in texts:
        length = len(text.encode())
        if batch and (len(batch) == most_texts or size + length > MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += length
    if batch:
        yield batch
