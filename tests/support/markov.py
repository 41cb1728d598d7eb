"""
A provider in one file.

It picks each next word at random from the words that followed the previous one in a sample text.
"""

import random
import time
from itertools import pairwise

from llm_magics.errors import ModelNotFoundError, UnsupportedError, nearest
from llm_magics.providers.base import StreamingProvider
from llm_magics.types import StreamChunk, Usage

TEXTS = {"sea": "the sea is wide and the sea is deep and the ships on it are small and"}


class MarkovProvider(StreamingProvider):
    """Andrey Markov's language model, of 1913."""

    name = "markov"
    capabilities = ("chat", "completion")

    async def initialize(self):
        return True

    async def list_models(self):
        return list(TEXTS)

    async def health_check(self):
        return {"status": "ok", "detail": f"{len(TEXTS)} text"}

    async def generate_embeddings(self, texts, model):
        raise UnsupportedError("markov cannot embed.", hint="Use local.", provider=self.name)

    def stream_chat(self, messages, model, parameters):
        return self.stream_completion(messages[-1].content, model, parameters)

    async def stream_completion(self, prompt, model, parameters):
        text = TEXTS.get(self.bare(model))
        if text is None:
            raise ModelNotFoundError(
                f"There is no {model}.", hint=nearest(model, TEXTS), provider=self.name
            )
        began, words = time.perf_counter(), text.split()
        draw = random.Random(f"{parameters.seed} {prompt}")  # the same prompt, the same answer
        pairs = list(pairwise([*words, words[0]]))
        word, most = draw.choice(words), parameters.max_tokens or 20
        for _ in range(most):
            yield StreamChunk(f"{word} ", elapsed_s=time.perf_counter() - began)
            word = draw.choice([second for first, second in pairs if first == word])
        usage, elapsed_s = Usage(len(prompt.split()), most), time.perf_counter() - began
        yield StreamChunk(finish_reason="length", usage=usage, elapsed_s=elapsed_s)
