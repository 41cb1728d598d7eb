"""
Credentials on their way to the workers of a cluster, outside the task graph.

A graph is pickled, shown and logged in many places. It carries only a name and a pad; the
values themselves, covered by the pad, wait in the scheduler's memory, and in this process for
the tasks that run here.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from llm_magics.errors import ConfigurationError

_sealed_here: dict[str, Mapping[str, Any]] = {}

# How long a worker waits for the scheduler to have them.
_WAIT_S = 10


class Sealed:
    """Values by name, JSON in kind, that are nowhere in the graph."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        """Keep ``values`` here, and on the scheduler of the current client if there is one."""
        self.name = self._pad = ""
        if not values:
            return
        self.name, self._pad = f"llm_magics-{uuid4().hex}", secrets.token_hex(32)
        _sealed_here[self.name] = values
        variable = _variable(self.name)
        if variable is not None:
            variable.set(_covered(json.dumps(dict(values)).encode(), self._pad).hex())

    def open(self) -> Mapping[str, Any]:
        """
        Return the values, on a worker of whatever process.

        Raises:
            ConfigurationError: they did not travel to this worker.
        """
        if not self.name:
            return {}
        if self.name in _sealed_here:
            return _sealed_here[self.name]
        variable = _variable(self.name)
        try:
            if variable is not None:
                covered = bytes.fromhex(variable.get(timeout=_WAIT_S))
                opened = json.loads(_covered(covered, self._pad))
                _sealed_here[self.name] = opened
                return dict(opened)
        except (TimeoutError, ValueError):
            pass
        msg = "The credentials set in the notebook's session are not known on this worker."
        hint = (
            "Make the distributed.Client before the column is planned, "
            "or set them in the environment of the workers."
        )
        raise ConfigurationError(msg, hint=hint)

    def __repr__(self) -> str:
        return f"Sealed({'****' if self.name else ''})"


def _variable(name: str) -> Any:
    """Return the variable of the cluster's called ``name``; ``None`` where there is no cluster."""
    try:
        from distributed import Variable, get_client

        return Variable(name, client=get_client())
    except (ImportError, ValueError):
        return None


def _covered(data: bytes, pad: str) -> bytes:
    """Return ``data`` under ``pad``, or from under it: the same does both."""
    stream = hashlib.shake_256(pad.encode()).digest(len(data))
    return bytes(a ^ b for a, b in zip(data, stream, strict=True))
