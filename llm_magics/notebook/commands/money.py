"""Calls, and what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_magics.errors import UsageError
from llm_magics.notebook.commands.registry import Variables, command, one_word, say

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell
    from pandas import DataFrame


@command("runs")
def runs(shell: InteractiveShell, rest: str, variables: Variables) -> DataFrame:
    """The calls of this session with their measurements, as a DataFrame."""
    from llm_magics.api import runs as logged

    return logged()


@command("audit NOTEBOOK")
def audit(shell: InteractiveShell, rest: str, variables: Variables) -> DataFrame:
    """Where the answers in a notebook file come from, as a DataFrame."""
    from pathlib import Path

    from llm_magics.notebook.auditing import audit as audited

    return audited(Path(one_word("audit", rest, "a notebook", "notebook.ipynb")))


@command("cost [cells]")
def cost(shell: InteractiveShell, rest: str, variables: Variables) -> DataFrame:
    """
    Calls, tokens and dollars of this session, by model or by cell.

    ``unpriced`` calls are not in the dollars: what they cost is not known.
    """
    from llm_magics.api import runs as logged

    if rest not in ("", "cells"):
        msg = f"%llm cost takes cells or nothing, and was given {rest!r}."
        raise UsageError(msg, hint="Write %llm cost cells to see what each cell has cost.")
    calls = logged()
    calls = calls.assign(calls=1, unpriced=calls["cost_usd"].isna())
    by = ["cell", "provider", "model"] if rest else ["provider", "model"]
    columns = ["calls", "input_tokens", "output_tokens", "cost_usd", "unpriced"]
    # min_count: where no price is known the sum is unknown too, and not nothing.
    return calls.groupby(by, dropna=False)[columns].sum(min_count=1)


@command("budget [USD|off]")
def budget(shell: InteractiveShell, rest: str, variables: Variables) -> None:
    """Refuse, before it is sent, what may cost more than is left of so many dollars."""
    from llm_magics._util.text import dollars
    from llm_magics.runtime.session import session

    if rest == "off":
        session.config.budget = None
    elif rest:
        session.config.set("budget", rest.removeprefix("$"))
        session.budget.allow(session.config.budget)
    now = session.budget
    if now.limit_usd is None:
        say("There is no budget: calls may cost what they cost.")
    else:
        say(f"{dollars(now.left_usd)} of {dollars(now.limit_usd)} is left.")
