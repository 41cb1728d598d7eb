"""
A hint after the first answer of the starter model: which better model is at hand.

It is found while the answer arrives, and displayed only in interactive notebooks.
"""

from __future__ import annotations

from collections.abc import Callable

from llm_magics._async.bridge import bridge
from llm_magics._util.text import escape_invisible, quote_word
from llm_magics.errors import LLMError
from llm_magics.providers.base import ModelInfo
from llm_magics.providers.identity import credential_name
from llm_magics.runtime.session import Session

STARTER = "local/smollm2-135m"

# Servers on the user's machine that may be running.
_LOCAL_SERVERS = {"ollama": "Ollama", "lmstudio": "LM Studio"}

_ADVICE = (
    f"{STARTER.partition('/')[2]} is a small model for trying things out. "
    "For better answers, start Ollama (https://ollama.com), or set a key: %llm key openai"
)


class NextStep:
    """Finds the hint of one session; `take` returns it once."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._hint: str | None = None
        self._is_taken = False
        self._cancel: Callable[[], None] | None = None

    def begin(self) -> None:
        """Start to look for better models, in the background; only the first call has an effect."""
        if self._cancel is None:
            self._cancel = bridge.start(self._find())

    def take(self) -> str | None:
        """Return the hint if it is known; ``None`` if it is not known yet or was already taken."""
        if self._is_taken or self._hint is None:
            return None
        self._is_taken = True
        return self._hint

    async def _find(self) -> None:
        found = await self._session.listings.of(list(_LOCAL_SERVERS))
        for (name, title), models in zip(_LOCAL_SERVERS.items(), found, strict=True):
            best = None if isinstance(models, BaseException) else _best_chat_model(models)
            if best is not None and (model := quote_word(f"{name}/{best}")) is not None:
                self._hint = f"{title} is running with {best}: %llm use {model}"
                return
        self._hint = self._of_keys() or _ADVICE

    def _of_keys(self) -> str | None:
        for name in self._session.providers.listed_names():
            if name in _LOCAL_SERVERS:
                continue
            try:
                provider = self._session.provider(name)
            except LLMError:  # it is configured wrongly, which is reported when it is used
                continue
            if provider.key_variable and provider.is_set_up and "chat" in provider.capabilities:
                variable, shown = credential_name(provider), escape_invisible(name)
                return f"{variable} is set: %llm models {shown}/ lists its models, %llm use {shown}/MODEL selects one"
        return None


def _best_chat_model(models: list[ModelInfo]) -> str | None:
    """Return the name of the loaded chat model, otherwise of the largest one."""
    chats = [each for each in models if "chat" in each.capabilities or not each.capabilities]
    if not chats:
        return None
    return max(chats, key=lambda each: (bool(each.loaded), each.size_bytes or 0)).name
