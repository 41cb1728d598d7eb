"""The model that is asked where a cell names none: chosen, or refused with the reason."""

from __future__ import annotations

from collections.abc import Sequence

from llm_magics._util.terminal import name
from llm_magics.engine.road import find_candidates, find_route
from llm_magics.engine.session import Session
from llm_magics.errors import ModelNotFoundError, UnsupportedError, nearest


async def choose(session: Session, wanted: str) -> list[str]:
    """
    Ask ``wanted`` — a model, an alias or a route — from now on; the models it stands for.

    Raises:
        ModelNotFoundError: there is no such model.
        UnsupportedError: it cannot chat.
    """
    if wanted in {*session.config.aliases, *session.config.routes}:
        names = [each.model for each in await find_candidates(session, wanted)]
        session.config.model = wanted
        return names
    route = await find_route(session, wanted)
    listed = {info.name: info for info in await route.provider.describe_models()}
    if route.model not in listed and not route.model.endswith(".gguf"):
        msg = f'{route.provider.name} has no model "{name(route.model)}".'
        raise ModelNotFoundError(msg, hint=nearest(route.model, listed))
    refuse_mute(route.name, listed[route.model].abilities if route.model in listed else ())
    session.config.model = route.name
    return [route.name]


def refuse_mute(model: str, abilities: Sequence[str]) -> None:
    """Refuse a model of which it is known that it cannot chat."""
    if abilities and "chat" not in abilities:
        msg = f"{name(model)} cannot chat; it is made for {name(' and '.join(abilities))}."
        hint = f"For embeddings write: %llm config embedding_model {name(model)}"
        raise UnsupportedError(msg, hint=hint)
