"""``lm.history``, ``lm.response`` and ``lm.rerun``: the calls of all sessions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_magics.api import ask_prompt
from llm_magics.errors import HistoryError, UsageError
from llm_magics.runtime.history import queries, retention
from llm_magics.runtime.history.entries import (
    decode_messages,
    decode_stored_answer,
    is_cut,
    lacks_files,
)
from llm_magics.runtime.history.queries import StoredRun
from llm_magics.runtime.prompts.prompt import Prompt
from llm_magics.runtime.response import Response
from llm_magics.runtime.session import session
from llm_magics.settings.credentials import require_trusted_folder
from llm_magics.types import Timing, Usage

if TYPE_CHECKING:
    from pandas import DataFrame

# The longest time to wait for the calls of this session to be stored, in seconds.
_FLUSH_S = 10.0


def history(
    where: str = "",
    *,
    search: str | None = None,
    sql: str | None = None,
    limit: int | None = 1_000,
) -> DataFrame:
    """
    Return the calls of all sessions, one row each, newest first.

    Columns: ``id``, ``time`` (UTC), ``provider``, ``model`` (as ``provider/name``), those of
    ``lm.runs()``, ``notebook``, ``cell``, ``cell_id``, ``session``, ``request_id`` (of the
    service), ``template`` and ``template_digest`` (of the prompt file), ``parameters`` (JSON),
    ``prompt`` (the last message) and ``answer``.

    Args:
        where: the rest of a query after ``SELECT … FROM runs``, such as
            ``"WHERE model LIKE 'openai/%' AND cost_usd > 0.01"``.
        search: words that the prompt or the answer contains; ``"quotes"``, ``OR``, ``NOT`` and
            ``prefix*`` as in SQLite's full-text search.
        sql: a complete query in SQLite's SQL; the tables are ``runs`` and ``days``, the calls,
            tokens and cost of each day (UTC) and model. It cannot change anything.
        limit: the maximum number of rows; ``None`` returns all.

    Raises:
        HistoryError: the history is off or empty, or the query is invalid.
    """
    if sql is not None:
        if where or search is not None:
            msg = "sql is a complete query: it cannot be combined with where or search."
            raise UsageError(msg, hint='Use: lm.history(sql="SELECT … FROM runs WHERE …")')
        return queries.query(history_file(), sql)
    return queries.find_runs(history_file(), where, search, limit)


def response(run_id: str) -> Response:
    """
    Return the stored answer of a past call, as ``lm.ask`` has returned it.

    Args:
        run_id: the column ``id`` of ``lm.history()``.

    Raises:
        HistoryError: the run is unknown, or its contents are not stored.
    """
    stored = _load(run_id)
    found, answer = stored.columns, decode_stored_answer(stored.answer)
    usage = Usage(found["input_tokens"], found["output_tokens"], found["reasoning_tokens"])
    timing = Timing(
        ttft_s=found["ttft_s"],
        itl_ms=found["itl_ms"],
        e2e_s=found["e2e_s"],
        load_s=found["load_s"] or 0.0,
        tokens_per_s=found["tokens_per_s"],
    )
    return Response(
        text=answer.text,
        model=found["model"],
        finish_reason=found["finish_reason"],
        usage=usage,
        timing=timing,
        cost_usd=found["cost_usd"],
        reasoning_usd=found["reasoning_usd"],
        cached=bool(found["cached"]),
        messages=decode_messages(stored.messages),
        reasoning=answer.reasoning,
        tool_calls=answer.tool_calls,
        reasoning_blocks=answer.reasoning_blocks,
        schema=found["parameters"].get("schema"),
        retries=found["retries"] or 0,
        fallback_from=tuple(filter(None, (found["fallback_from"] or "").split(", "))),
        sources=answer.citations,
        searches=answer.searches,
        request_id=found["request_id"],
    )


def rerun(run_id: str, model: str | None = None, **parameters: Any) -> Response:
    """
    Send the messages of a past call again, with its parameters, and return the new answer.

    Args:
        run_id: the column ``id`` of ``lm.history()``.
        model: another model; by default the same one.
        parameters: parameters that replace those of the call.

    Raises:
        HistoryError: the run is unknown, or its contents are not stored.
        UsageError: the call had files or tools, which are not stored.
        LLMError: the new call failed.
    """
    stored = _load(run_id)
    old = dict(stored.columns["parameters"])
    schema, tools = old.pop("schema", None), old.pop("tools", None)
    messages = decode_messages(stored.messages)
    if lacks_files(stored.messages) or is_cut(stored.messages):
        msg = (
            f"The run {run_id} had files or a very long prompt, which the history does not store."
        )
        raise UsageError(msg, hint="Run its cell again.")
    if tools or messages[-1].role != "user":
        msg = f"The run {run_id} had tools, which are functions that the history does not store."
        raise UsageError(msg, hint="Run its cell again.")
    has_system = messages[0].role == "system"
    request = Prompt(
        text=messages[-1].content,
        model=model or stored.columns["model"],
        system=messages[0].content if has_system else "",
        parameters={**old, **parameters},
        schema=schema,
        before=messages[has_system:-1],
        is_fresh=True,
    )
    return ask_prompt(request)


def forget(ids: Sequence[str] | None) -> int:
    """Delete past calls and what only they have stored; ``None`` deletes all; return their number."""
    path = history_file()
    require_trusted_folder(session.config, "history")
    return retention.forget(path, ids)


def export(target: Path) -> int:
    """Write the history to a Parquet file, and return the number of calls."""
    return queries.export(history_file(), target)


def history_file() -> Path:
    """
    Return the path of the history, after the calls of this session have been stored in it.

    Raises:
        HistoryError: the settings turn it off.
    """
    path = session.history_path
    if path is None:
        msg = "The history is off, so that no calls are stored."
        raise HistoryError(msg, hint="Turn it on with: %llm config history on")
    if session.history is not None:
        session.history.flush(_FLUSH_S)
    return path


def _load(run_id: str) -> StoredRun:
    stored = queries.load_run(history_file(), run_id)
    if not stored.messages:
        msg = f"The history has no contents of the run {run_id}, only its figures."
        hint = "The setting history_contents was off, or the call was not a prompt."
        raise HistoryError(msg, hint=hint)
    return stored
