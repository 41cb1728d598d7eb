"""Digests of functions: what makes a function another one."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, partial, wraps
from typing import Any

import pytest

from llm_magics.evaluations.code_digests import function_digest, function_name

# Each defines ``task`` from the value at VALUE.
TASKS = {
    "code": "def task(row): return VALUE",
    "lambda": "task = lambda row: VALUE",
    "default": "def task(row, value=VALUE): return value",
    "keyword": "def task(row, *, value=VALUE): return value",
    "global": "PROMPT = VALUE\ndef task(row): return PROMPT",
    "inner": "PROMPT = VALUE\ndef task(row): return (lambda: PROMPT)()",
    "helper": "def helper(): return VALUE\ndef task(row): return helper()",
    "list": "LABELS = [VALUE]\ndef task(row): return LABELS",
    "mapping": "LABELS = {'a': VALUE}\ndef task(row): return LABELS",
    "set": "task = lambda row: row in {VALUE, 'b', 'c'}",
    "closure": "def make(v):\n    def task(row): return v\n    return task\ntask = make(VALUE)",
    "closures": "def make(v):\n    return lambda: v\na, b = make(1), make(VALUE)\n"
    "def task(row): return a(), b()",
    "partial": "from functools import partial\ntask = partial(lambda a, row: a, VALUE)",
    "object": "class Task:\n    def __init__(self, v): self.v = v\n"
    "    def __call__(self, row): return self.v\ntask = Task(VALUE)",
    "method": "class Task:\n    def __init__(self, v): self.v = v\n"
    "    def ask(self, row): return self.v\ntask = Task(VALUE).ask",
    "pattern": "import re\nP = re.compile('x' * 300 + VALUE)\ndef task(row): return P",
}


def _task(code: str, value: str) -> Callable[..., Any]:
    names: dict[str, Any] = {"__name__": "a_notebook"}
    exec(code.replace("VALUE", repr(value)), names)
    task = names["task"]
    assert callable(task)
    return task


@pytest.mark.parametrize("code", TASKS.values(), ids=TASKS)
def test_a_digest_changes_with_everything_that_a_function_uses(code: str) -> None:
    """Its code, arguments, helpers and constants; the same ones have the same digest."""
    one, same, other = (function_digest(_task(code, value)) for value in ("a", "a", "é"))
    assert one == same != other


def test_the_order_of_a_set_does_not_count() -> None:
    """It differs between processes."""
    tasks = [f"task = lambda row: row in {{{numbers}}}" for numbers in ("0, 8", "8, 0")]
    one, other = (_task(code, "") for code in tasks)
    assert str(one.__code__.co_consts) != str(other.__code__.co_consts)
    assert function_digest(one) == function_digest(other)


def test_caches_and_counters_of_a_function_do_not_change_its_digest() -> None:
    """Otherwise no run could be continued in the same kernel."""
    calls: list[str] = []
    known: dict[str, str] = {}

    def task(row: str) -> str:
        calls.append(row)
        return known.setdefault(row, row)

    before = function_digest(task)
    task("a")
    assert function_digest(task) == before


def test_decorated_and_recursive_functions_have_a_digest() -> None:
    """A function that calls itself, one with a decorator, and one without Python code."""

    def again(row: int) -> int:
        return again(row - 1) if row else 0

    @wraps(again)
    def decorated(row: int) -> int:
        return again(row)

    digests = [function_digest(each) for each in (again, decorated, cache(again), len, str, int)]
    assert all(re.fullmatch("[0-9a-f]{64}", each) for each in digests)
    assert digests[0] == digests[1] == digests[2]
    assert len(set(digests[2:])) == 4


def test_names_of_functions() -> None:
    """Of a partial, the name of its function; a lambda has none."""
    assert function_name(partial(partial(test_names_of_functions))) == "test_names_of_functions"
    assert function_name(lambda row: row) == "function"
    assert function_name(re.compile("a")) == "Pattern"  # type: ignore[arg-type]
