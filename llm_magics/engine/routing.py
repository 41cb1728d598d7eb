"""From what a user calls a model to the provider and the name it has there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llm_magics.errors import ModelNotFoundError, nearest


def split(model: str) -> tuple[str | None, str]:
    """``provider/name`` cut at its first slash; a bare name has no provider."""
    provider, slash, name = model.partition("/")
    return (provider, name) if slash else (None, model)


def find_bare(name: str, listings: Mapping[str, Sequence[str]]) -> str:
    """
    The one provider that lists ``name``.

    Raises:
        ModelNotFoundError: none does, or several do.
    """
    if name in listings:
        msg = f'"{name}" is a provider, and no model.'
        hint = f"Write {name}/NAME. {nearest('', listings[name], listed=True)}"
        raise ModelNotFoundError(msg, hint=hint, provider=name)
    having = [provider for provider, models in listings.items() if name in models]
    if len(having) == 1:
        return having[0]
    known = [f"{provider}/{model}" for provider, models in listings.items() for model in models]
    if having:
        msg = f'Several providers have a model "{name}".'
        hint = f"Say which: {' or '.join(f'{provider}/{name}' for provider in having)}."
    else:
        msg = f'No provider has a model "{name}".'
        by_name = {model.partition("/")[2]: model for model in known}
        hint = nearest(by_name.get(name, name), [*known, *by_name])
    raise ModelNotFoundError(msg, hint=hint, model=name)
