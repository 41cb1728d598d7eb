"""The provider that runs models on this machine with llama.cpp."""

from llm_magics.providers.local.provider import LocalConfig, LocalProvider

__all__ = ["LocalConfig", "LocalProvider"]
