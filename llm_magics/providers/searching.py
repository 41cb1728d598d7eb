"""Which providers search the web, and the errors of models that do not."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator

from llm_magics.errors import ProviderError, UnsupportedError
from llm_magics.providers.error_bodies import error_text
from llm_magics.types import StreamChunk

# The providers with modules in this package; for services, the data file has the fact.
_SEARCHING = ("anthropic", "gemini", "openai")

_STATUSES = frozenset({400, 403, 404, 422})
_SEARCH_WORDS = re.compile(
    r"(?:web|google)[ _-]?search|search[ _]?grounding|grounding", re.IGNORECASE
)
_REFUSAL_WORDS = re.compile(
    r"not (?:be )?(?:support|enabl|availab|permit|allow)|unsupported|does(?: not|n.t) support"
    r"|unknown|unrecogni[sz]ed|invalid (?:value|type|tool)|cannot be (?:used|combined)",
    re.IGNORECASE,
)


def searching_providers() -> list[str]:
    """Return the names of the providers that search the web, sorted."""
    from llm_magics.providers.services import services

    offering = [name for name, each in services().items() if each.profile.get("search")]
    return sorted({*_SEARCHING, *offering})


async def explain_search_refusal(
    chunks: AsyncGenerator[StreamChunk, None],
) -> AsyncGenerator[StreamChunk, None]:
    """Yield ``chunks``; raise `UnsupportedError` if the service refuses its search tool."""
    try:
        async for chunk in chunks:
            yield chunk
    except UnsupportedError:
        raise
    except ProviderError as error:
        if not is_search_refusal(error):
            raise
        hint = f"Use a model that searches the web, of {', '.join(searching_providers())}."
        facts = {**error.details(), "retryable": False}
        raise UnsupportedError(str(error).partition("\n")[0], hint=hint, **facts) from error
    finally:
        await chunks.aclose()


def is_search_refusal(error: ProviderError) -> bool:
    """Return whether the service refused a request because of its search tool."""
    words = error_text(error)
    is_about_search = _SEARCH_WORDS.search(words) is not None
    return error.status in _STATUSES and is_about_search and bool(_REFUSAL_WORDS.search(words))
