"""Texts on their way to vectors: each paid for once, kept as soon as it lands."""

from llm_magics.runtime.embedding.call import EmbeddingCall
from llm_magics.runtime.embedding.results import EmbedOptions

__all__ = ["EmbedOptions", "EmbeddingCall"]
