"""Embed texts in batches: stored vectors are reused, and new ones are stored as they arrive."""

from llm_magics.runtime.embedding.call import EmbeddingCall
from llm_magics.runtime.embedding.results import EmbedOptions

__all__ = ["EmbedOptions", "EmbeddingCall"]
