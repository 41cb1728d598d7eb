"""One output of a cell, which can be shown again with other contents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any
from uuid import uuid4

# What is shown, by MIME type.
Bundle = dict[str, str]


class Output:
    """Appears in the cell when first shown, and is replaced in place afterwards."""

    def __init__(self, publish: Callable[..., Any]) -> None:
        self._publish = publish
        self._transient = {"display_id": uuid4().hex}
        self.is_shown = False

    def show(self, bundle: Bundle, metadata: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Show ``bundle``, in place of what was shown before."""
        self._publish(
            data=bundle,
            metadata=dict(metadata),
            transient=self._transient,
            update=self.is_shown,
        )
        self.is_shown = True

    def clear(self) -> None:
        """Show nothing, if anything was shown."""
        if self.is_shown:
            self.show({})
