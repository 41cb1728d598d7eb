"""Texts on their way to vectors: each paid for once, kept as soon as it lands."""

from llm_magics.engine.embedding.call import EmbeddingCall
from llm_magics.engine.embedding.options import EmbedOptions

__all__ = ["EmbedOptions", "EmbeddingCall"]
