"""Messages that hold for the whole package."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_magics._util.text import reason_of

PACKAGE = Path(__file__).parents[1] / "llm_magics"
SYSTEM_ERRORS = {"OSError", "PermissionError", "FileNotFoundError"}


def handlers(source: str) -> Iterator[ast.ExceptHandler]:
    """The clauses of a module that catch a system's error by a name."""
    if not any(name in source for name in SYSTEM_ERRORS):
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler) and node.name and node.type:
            caught = {part.id for part in ast.walk(node.type) if isinstance(part, ast.Name)}
            if caught & SYSTEM_ERRORS:
                yield node


def shows_raw(handler: ast.ExceptHandler) -> bool:
    """Whether a clause has the error itself in an f-string, or makes a text of it."""
    parts = [part for node in handler.body for part in ast.walk(node)]
    shown = [ast.unparse(part.value) for part in parts if isinstance(part, ast.FormattedValue)]
    texts = [ast.unparse(part) for part in parts if isinstance(part, ast.Call)]
    return handler.name in shown or f"str({handler.name})" in texts


def test_no_message_shows_an_error_of_the_system_raw() -> None:
    """Not ``[Errno 13] Permission denied: '/x'``: the reason alone, by ``reason_of``."""
    raw = [
        f"{path}:{handler.lineno}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for handler in handlers(path.read_text("utf-8"))
        if shows_raw(handler)
    ]
    assert not raw


@pytest.mark.parametrize("shown", ["f'{error}'", "f'{error!r}'", "'a' + str(error)"])
def test_an_error_that_is_shown_raw_is_found(shown: str) -> None:
    """In an f-string or as a text of its own."""
    source = f"try: pass\nexcept OSError as error:\n    print({shown})"
    (handler,) = handlers(source)
    assert shows_raw(handler)


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
