"""Where an answer comes from, as its output's metadata tell."""

from __future__ import annotations

from typing import Any, Protocol

from llm_magics._async.bridge import bridge
from llm_magics.errors import LLMError

# The name under which an output's metadata hold it: of one answer, or a list of several.
PROVENANCE = "llm_magics"


class Call(Protocol):
    """What was asked, of one model."""

    async def provenance(self) -> dict[str, Any]:
        """Where the answer comes from."""


def told_by(call: Call) -> dict[str, Any]:
    """Where the answer comes from; a service that does not say is no reason to lose it."""
    try:
        return bridge.run(call.provenance())
    except LLMError:
        return {}
