"""What had come when it had to end early, so that nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from llm_magics.errors import BudgetError

KEEP_THEM = "They are in the exception: import sys; runs = sys.last_value.partial"


@contextmanager
def partial_kept(so_far: Callable[[], Any]) -> Generator[None, None, None]:
    """When the budget is spent inside, the error has what came before it in ``partial``."""
    try:
        yield
    except BudgetError as error:
        vars(error)["partial"] = so_far()
        error.hint = f"{error.hint or ''} {KEEP_THEM}".strip()
        raise
