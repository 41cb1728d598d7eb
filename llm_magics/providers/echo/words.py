"""Texts and vectors that are drawn, the same on every machine."""

from __future__ import annotations

import hashlib
import math
import random
import re

LOREM_TOKENS = 60
_WORDS = (  # noqa: SIM905 (a list of them would be a page long)
    "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor "
    "incididunt ut labore et dolore magna aliqua enim ad minim veniam quis nostrud "
    "exercitation ullamco laboris nisi aliquip ex ea commodo consequat duis aute irure in "
    "reprehenderit voluptate velit esse cillum fugiat nulla pariatur excepteur sint "
    "occaecat cupidatat non proident sunt culpa qui officia deserunt mollit anim id est "
    "laborum "
).split()


def tokens_of(text: str) -> list[str]:
    """``text`` cut into what counts as tokens here: words with the space before them."""
    return re.findall(r"\s*\S+|\s+$", text)


def lorem(draw: random.Random, count: int = LOREM_TOKENS) -> str:
    """So many words and a few more, in sentences."""
    words: list[str] = []
    while len(words) < count:
        sentence = draw.choices(_WORDS, k=draw.randint(6, 12))
        words += [sentence[0].capitalize(), *sentence[1:-1], sentence[-1] + "."]
    return " ".join(words)


def hashed_words(text: str, dimensions: int) -> list[float]:
    """A unit vector: each word adds to one of its numbers, or takes away."""
    vector = [0.0] * dimensions
    for word in re.findall(r"\w+", text.lower()) or [text]:
        digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
        vector[int.from_bytes(digest[:4], "little") % dimensions] += 1.0 if digest[4] & 1 else -1.0
    norm = math.sqrt(sum(value * value for value in vector))
    if not norm:  # words that cancel out
        vector[0], norm = 1.0, 1.0
    return [value / norm for value in vector]
