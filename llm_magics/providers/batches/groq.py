"""
The batch API of Groq.

Facts of November 2026: 50,000 lines, and 200 MB by https://console.groq.com/docs/batch but 100 MB by
groq 1.7.0, so the lower number is used; files are stored for up to 30 days; chat completions only.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from llm_magics.providers.batches import openai
from llm_magics.providers.batches.service import BatchLimits


class Batches(openai.Batches):
    """The batch API of Groq."""

    limits = BatchLimits(requests=50_000, bytes=100_000_000, retention_days=30)
    paths = frozenset({"/chat/completions"})
    first_page: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    is_latest_first = False  # the order is not documented
