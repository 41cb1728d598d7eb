"""The examples in docstrings."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "llm_magics"
WITH_EXAMPLES = [
    path for path in sorted(PACKAGE.rglob("*.py")) if ">>>" in path.read_text("utf-8")
]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_in_docstrings_run(path: Path) -> None:
    """They give what they show."""
    name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    failed, attempted = doctest.testmod(importlib.import_module(name.removesuffix(".__init__")))
    assert attempted
    assert not failed
