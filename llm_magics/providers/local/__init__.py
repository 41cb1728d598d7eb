"""Models on this machine, on llama.cpp."""

from llm_magics.providers.local.provider import LocalConfig, LocalProvider

__all__ = ["LocalConfig", "LocalProvider"]
