"""How much of a model's context the rows of one prompt may fill."""

from __future__ import annotations

from llm_magics._async.bridge import bridge
from llm_magics.providers.base import ModelInfo
from llm_magics.providers.model_catalog import complete_info
from llm_magics.runtime.routing import find_route
from llm_magics.runtime.session import session

# The context of a model whose size is unknown; local models often have no larger one.
_UNKNOWN_CONTEXT = 4096

# The part of the context that a prompt and its answer may fill. Long prompts are answered worse.
_SHARE = 0.6
_MOST_TOKENS = 16_000


def usable_tokens(model: str) -> int:
    """
    Return the tokens that the rows of a prompt and its answer may have.

    The context is that of the package's table, not of the service's list of models: the same call
    must put the same rows into a prompt, or stored answers would not be found.
    """
    route = bridge.run(find_route(session, model))
    info = complete_info(route.provider.name, ModelInfo(route.model))
    return min(int((info.context or _UNKNOWN_CONTEXT) * _SHARE), _MOST_TOKENS)
