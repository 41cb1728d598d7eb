"""What a codec raises; the rooms above give it a name and a provider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class InStreamError(Exception):
    """The service sent an error inside a stream that had begun with status 200."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        super().__init__(str(body))
        self.body = body
