"""The service that operators ask in these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import llm_magics as lm
from tests.support.judge import Judge
from tests.support.serving import serving


@pytest.fixture
def service(own_settings: None) -> Iterator[Judge]:
    """The service ``lab``, whose model ``m`` is asked where none is named."""
    fake = Judge()
    with serving(fake) as server:
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url, "api_key": "k"}}
        lm.config.model = "lab/m"
        lm.config.cache_dir = "cache"
        yield fake
