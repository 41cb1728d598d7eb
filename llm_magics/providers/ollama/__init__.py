"""The provider of Ollama, through its own API."""

from llm_magics.providers.ollama.dialect import OllamaConfig
from llm_magics.providers.ollama.provider import OllamaProvider

__all__ = ["OllamaConfig", "OllamaProvider"]
