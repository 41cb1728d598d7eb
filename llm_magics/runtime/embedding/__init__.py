"""Texts embedded in batches: vectors are looked up first, and stored as soon as they arrive."""

from llm_magics.runtime.embedding.call import EmbeddingCall
from llm_magics.runtime.embedding.results import EmbedOptions

__all__ = ["EmbedOptions", "EmbeddingCall"]
