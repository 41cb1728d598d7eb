"""
Turn thinking off, or set how much a model thinks, with a clear error where a model cannot.

A model that does not think ignores ``off`` and refuses any other level. A model that always thinks
refuses ``off``. An unknown fact about a model is learned from the service's refusal, before the
answer begins.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import replace

from llm_magics._async.concurrency import retry_unless_begun
from llm_magics.errors import ProviderError, UnsupportedError
from llm_magics.parameters import REASONING_LEVELS, ModelParameters
from llm_magics.providers.error_bodies import error_text, is_other_error
from llm_magics.types import StreamChunk
from llm_magics.wire.thinking import OFF, Refusal, ThinkingRules, find_refusal, level_of

# The code of errors about thinking.
CODE = "reasoning"

Chunks = AsyncGenerator[StreamChunk, None]


class ThinkingFallback:
    """Applies the level of thinking for one provider, and remembers which models do not think."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._plain: set[str] = set()

    def stream(
        self,
        model: str,
        parameters: ModelParameters,
        rules: ThinkingRules,
        send: Callable[[ModelParameters], Chunks],
    ) -> Chunks:
        """
        Return the answer of ``send``, with the level of thinking in ``parameters``.

        Raises:
            UnsupportedError: ``model`` cannot think, cannot think at this level, or always thinks.
        """
        level = level_of(parameters.reasoning or False)
        if level == OFF and (rules.thinks is False or model in self._plain):
            return send(replace(parameters, reasoning=None))
        if (refused := _known_refusal(level, rules)) is not None:
            raise self._error(refused, model, level, rules)

        def next_attempt(error: ProviderError) -> Chunks | None:
            refused = _refusal_of(error)
            if refused is None:
                return None
            if level == OFF and refused == "parameter":
                self._plain.add(model)
                return send(replace(parameters, reasoning=None))
            raise self._error(refused, model, level, rules, error) from error

        return retry_unless_begun(lambda: send(parameters), next_attempt)

    def _error(
        self,
        refused: Refusal,
        model: str,
        level: str,
        rules: ThinkingRules,
        error: ProviderError | None = None,
    ) -> UnsupportedError:
        name = f"{self._provider}/{model}"
        reply = f" The service answered: {error}" if error is not None else ""
        if level == OFF:
            msg = f"{name} cannot answer without thinking."
            hint = "Leave reasoning out, or use reasoning=low to think less."
        elif refused == "parameter":
            msg = f"{name} cannot think, so reasoning={level} has no effect."
            hint = "Leave reasoning out, or use a model whose capabilities include reasoning."
        else:
            msg = f"{name} does not support reasoning={level}."
            hint = f"Use one of: {', '.join(rules.levels or REASONING_LEVELS)}."
        return UnsupportedError(
            msg,
            hint=f"{hint}{reply}",
            provider=self._provider,
            model=model,
            code=CODE,
            status=error.status if error is not None else None,
            body=error.body if error is not None else None,
        )


def _known_refusal(level: str, rules: ThinkingRules) -> Refusal | None:
    """Return why the known facts about the model exclude a level; ``None`` if they do not."""
    if level == OFF:
        return "always" if rules.is_optional is False else None
    if rules.thinks is False:
        return "parameter"
    is_listed = rules.levels is None or level in rules.levels or level not in REASONING_LEVELS
    return None if is_listed else "value"


def _refusal_of(error: ProviderError) -> Refusal | None:
    """Return what a service refused about thinking; ``None`` for all other errors."""
    if is_thinking_refusal(error):  # from the format of the service, which knows its models
        return None
    if is_other_error(error) or (error.status or 400) not in (400, 404, 422, 500, 501):
        return None
    return find_refusal(error_text(error))


def is_thinking_refusal(error: BaseException) -> bool:
    """Return whether a model refused the level of thinking."""
    return isinstance(error, UnsupportedError) and error.code == CODE
