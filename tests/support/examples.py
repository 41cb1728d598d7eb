"""The number of examples of a random search: all of them in CI, a quarter elsewhere."""

from __future__ import annotations

from hypothesis import settings

# The examples of a property in the profile "thorough", with which CI runs the default suite.
THOROUGH = 100


def examples(count: int) -> int:
    """Return ``count`` in the profile "thorough", otherwise a part of it as the profile has."""
    return max(1, count * min(settings.default.max_examples, THOROUGH) // THOROUGH)
