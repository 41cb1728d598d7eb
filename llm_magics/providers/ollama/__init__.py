"""Ollama, by its own API."""

from llm_magics.providers.ollama.provider import OllamaConfig, OllamaProvider

__all__ = ["OllamaConfig", "OllamaProvider"]
