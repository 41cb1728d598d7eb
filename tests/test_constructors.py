"""Internal classes of more than three fields are constructed by keywords alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import llm_magics

PACKAGE = Path(llm_magics.__file__).parent
MAX_POSITIONAL = 3

# Classes that users and authors of providers construct, by the order of their fields too.
PUBLIC = {
    "ChatMessage",
    "ModelInfo",
    "ModelParameters",
    "ModelResponse",
    "Progress",
    "Response",
    "Timing",
    "Usage",
}


def classes(source: str) -> Iterator[ast.ClassDef]:
    """Yield the classes in ``source``, but for exceptions, whose arguments are their message."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and not node.name.endswith("Error"):
            yield node


def positional_fields(node: ast.ClassDef) -> int:
    """Return how many arguments the constructor of a class takes by position."""
    for decorator in node.decorator_list:
        text = ast.unparse(decorator)
        if text.startswith("dataclass") and "kw_only=True" not in text:
            return _positional_fields_of_dataclass(node)
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            return len(each.args.posonlyargs) + len(each.args.args) - 1
    return 0


def _positional_fields_of_dataclass(node: ast.ClassDef) -> int:
    count = 0
    for each in node.body:
        if isinstance(each, ast.AnnAssign):
            annotation = ast.unparse(each.annotation)
            if annotation == "KW_ONLY":
                break
            is_argument = each.value is None or "init=False" not in ast.unparse(each.value)
            count += is_argument and "ClassVar" not in annotation
    return count


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("@dataclass\nclass A:\n    a: int\n    b: int = 1\n    c: ClassVar[int] = 2", 2),
        ("@dataclass(frozen=True)\nclass A:\n    a: int\n    _: KW_ONLY\n    b: int", 1),
        ("@dataclass(kw_only=True)\nclass A:\n    a: int", 0),
        ("class A:\n    def __init__(self, a, b, *, c): ...", 2),
    ],
)
def test_arguments_by_position_are_counted(source: str, count: int) -> None:
    """Of dataclasses, and of classes with a constructor of their own."""
    assert [positional_fields(each) for each in classes(source)] == [count]


def test_internal_classes_of_many_fields_are_constructed_by_keywords() -> None:
    """A call with eleven values in a row cannot be read, and breaks when a field is added."""
    found = {
        node.name: path.name
        for path in PACKAGE.rglob("*.py")
        for node in classes(path.read_text("utf-8"))
        if positional_fields(node) > MAX_POSITIONAL
    }
    assert set(found) == PUBLIC, found
