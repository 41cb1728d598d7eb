"""Messages that hold for the whole package."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_magics._util.text import reason_of

PACKAGE = Path(__file__).parents[1] / "llm_magics"
SYSTEM_ERRORS = {"OSError", "PermissionError", "FileNotFoundError"}


def handlers(path: Path) -> Iterator[ast.ExceptHandler]:
    """The clauses of a module that catch a system's error by a name."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ExceptHandler) and node.name and node.type:
            caught = {part.id for part in ast.walk(node.type) if isinstance(part, ast.Name)}
            if caught & SYSTEM_ERRORS:
                yield node


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_no_message_shows_an_error_of_the_system_raw(path: Path) -> None:
    """Not ``[Errno 13] Permission denied: '/x'``: the reason alone, by ``reason_of``."""
    for handler in handlers(path):
        shown = [
            ast.unparse(part.value)
            for node in handler.body
            for part in ast.walk(node)
            if isinstance(part, ast.FormattedValue)
        ]
        texts = [ast.unparse(part) for node in handler.body for part in ast.walk(node)]
        assert handler.name not in shown, f"{path}:{handler.lineno}"
        assert f"str({handler.name})" not in texts, f"{path}:{handler.lineno}"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(13, "Permission denied", "/x"), "Permission denied"),
        (FileNotFoundError(2, "No such file or directory", "/x"), "No such file or directory"),
        (OSError("out of luck."), "out of luck"),
        (OSError(), "OSError"),
        (ValueError("line 3 is too long.\n"), "line 3 is too long"),
    ],
)
def test_the_reason_of_an_error(error: Exception, reason: str) -> None:
    """Without number, path and full stop."""
    assert reason_of(error) == reason
