"""
Vectors that were paid for, stored by what decides about them.

`store` finds and adds vectors, `segments` has the format of the files, `spaces` the folders.
"""

from llm_magics.policies.vectors.spaces import forget_all, size_of
from llm_magics.policies.vectors.store import VectorStore, keys_of

__all__ = ["VectorStore", "forget_all", "keys_of", "size_of"]
