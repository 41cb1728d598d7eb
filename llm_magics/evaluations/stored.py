"""
The stored evaluations of the user: each run of ``lm.evaluate`` is a file in one folder.

The setting ``evaluations`` names the folder, or turns this off. The oldest files are deleted when
there are more than 500, or when all together are larger than 1 GB.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from platformdirs import user_data_path

from llm_magics._util.filesystem import display_path
from llm_magics._util.tables import display_columns, display_when_empty
from llm_magics._util.text import reason_of
from llm_magics.errors import UsageError, nearest
from llm_magics.evaluations.items import Item
from llm_magics.evaluations.run_files import (
    PART_SUFFIX,
    SUFFIX,
    RunFile,
    RunJournal,
    is_in_progress,
    read_run,
    remove_run,
    write_run,
)
from llm_magics.host import warn
from llm_magics.runtime.session import session

if TYPE_CHECKING:
    from llm_magics.evaluations.results import EvaluationResults

_MAX_RUNS = 500
_MAX_BYTES = 1_000_000_000
_RUNNING = "not yet: it is running"

_NOT_IN_NAME = re.compile(r"[^\w.-]+")
_MAX_NAME = 60
_MAX_NAME_BYTES = 180  # of the 255 that a file system allows


def folder() -> Path | None:
    """Return the folder of stored evaluations; ``None`` if they are not stored."""
    chosen = session.config.evaluations
    if chosen == Path("off"):
        return None
    if chosen is not None:
        return Path(chosen).expanduser().absolute()
    return user_data_path("llm_magics", appauthor=False) / "evaluations"


def create_id(name: str, now: datetime) -> str:
    """Return a new id of a run, which is also the name of its file."""
    slug = _NOT_IN_NAME.sub("-", name)[:_MAX_NAME].strip(".-")
    slug = slug.encode()[:_MAX_NAME_BYTES].decode("utf-8", "ignore") or "evaluation"
    return f"{slug}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def open_journal(about: Mapping[str, Any], items: Collection[Item]) -> RunJournal | None:
    """Return the file for the rows of a run that begins; ``None`` if runs are not stored."""
    where = folder()
    if where is None:
        return None
    with suppress(OSError):
        where.mkdir(parents=True, exist_ok=True, mode=0o700)
    return RunJournal(where / f"{about['id']}{PART_SUFFIX}", about, items)


def store(run: RunFile, journal: RunJournal) -> None:
    """Store a run that has ended, instead of its journal; warn if that fails."""
    where = folder()
    try:
        if where is not None:
            write_run(where / f"{run.about['id']}{SUFFIX}", run)
            journal.remove()
            _prune(where)
    except OSError as error:
        msg = (
            f"The evaluation could not be stored in {display_path(where or Path())}: {reason_of(error)}."
            " Store it with runs.save(…), or elsewhere: %llm config evaluations FOLDER"
        )
        warn(msg)


def _prune(where: Path) -> None:
    """
    Delete the oldest runs beyond the limits, but never the newest one, or one that is in progress.

    Other files in the folder, such as saved results, data sets and baselines, are not touched.
    """
    sizes: dict[Path, int] = {}
    for path in _paths(where):
        with suppress(OSError):
            sizes[path] = path.stat().st_size
    if len(sizes) <= _MAX_RUNS and sum(sizes.values()) <= _MAX_BYTES:
        return
    number = size = 0
    for path, own in sizes.items():
        with suppress(UsageError):
            about = read_run(path, only_header=True).about
            if path.name not in (f"{about.get('id')}{SUFFIX}", f"{about.get('id')}{PART_SUFFIX}"):
                continue
            number, size = number + 1, size + own
            is_beyond = number > _MAX_RUNS or size > _MAX_BYTES
            if number > 1 and is_beyond and not is_in_progress(path, about):
                remove_run(path)


def _paths(where: Path) -> list[Path]:
    """Return the files of runs, the newest first."""
    times: dict[Path, float] = {}
    for path in where.glob(f"*{SUFFIX}"):
        with suppress(OSError):
            times[path] = path.stat().st_mtime
    return sorted(times, key=lambda path: (times[path], path.name), reverse=True)


def _headers() -> Iterator[tuple[Path, RunFile]]:
    """Yield the stored runs without their rows, the newest first; damaged files are left out."""
    where = folder()
    for path in _paths(where) if where is not None else ():
        with suppress(UsageError):
            run = read_run(path, only_header=True)
            if path.name.endswith(PART_SUFFIX):
                why = _RUNNING if is_in_progress(path, run.about) else "because its process ended"
                about = {**run.about, "stopped": why}
                run = RunFile(about=about, scores=run.scores, items=(), digests={}, rows=())
            yield path, run


def list_evaluations() -> pd.DataFrame:
    """
    Return the stored runs of ``lm.evaluate``: one row per run and model, the newest first.

    Columns: ``name``, ``time``, ``model``, the mean of each ``score_…``, ``items``, ``digest`` of the
    data, ``task``, ``stopped`` (why a run is incomplete) and ``id``, for ``lm.load_evaluation``.
    """
    rows = []
    for _, run in _headers():
        about = run.about
        task = about.get("task")
        common = {
            "name": about.get("name"),
            "time": about.get("time"),
            "items": about.get("items"),
            "digest": str(about.get("digest", ""))[:12],
            "task": task.get("name") if isinstance(task, dict) else None,
            "stopped": about.get("stopped"),
            "id": about.get("id"),
        }
        models = about.get("models")
        scores = run.scores or [
            {"model": each} for each in (models if isinstance(models, list) else [])
        ]
        rows += [{**common, **each} for each in scores]
    names = ["name", "time", "model", "items", "digest", "task", "stopped", "id"]
    frame = pd.DataFrame(
        rows, columns=list(dict.fromkeys([*names, *(n for r in rows for n in r)]))
    )
    frame["time"] = pd.to_datetime(frame["time"], errors="coerce", utc=True)
    scores_first = [name for name in map(str, frame) if name.startswith("score_")]
    order = ["name", "time", "model", *scores_first, "items", "digest", "task", "stopped", "id"]
    shown = ("name", "time", "model", *scores_first[:2], "items", "digest", "id")
    hint = "No evaluations are stored. lm.evaluate(…) stores each of its runs."
    return display_when_empty(display_columns(frame[order], *shown), hint)


def load_evaluation(run: str | Path) -> EvaluationResults:
    """
    Return the results of a stored run.

    Args:
        run: the path of a file, the id of a stored run, or a name, for the last run with it.

    Raises:
        UsageError: the run does not exist, or its file cannot be read.
    """
    from llm_magics.evaluations.results import EvaluationResults

    if not isinstance(run, str | Path):
        msg = f"Invalid run: got {type(run).__name__}."
        raise UsageError(msg, hint="Pass a path, or an id or name of lm.list_evaluations().")
    path = Path(run)
    if isinstance(run, Path) or path.suffix == SUFFIX or _is_file(path):
        return EvaluationResults.load(path)
    known: dict[str, Path] = {}
    for file, each in _headers():  # the newest first
        for name in (each.about.get("id"), each.about.get("name")):
            known.setdefault(str(name), file)
    if run not in known:
        msg = f"No stored evaluation is called {run!r:.60}."
        hint = f"{nearest(run, known, listed=False)} lm.list_evaluations() lists them."
        raise UsageError(msg, hint=hint.strip())
    return EvaluationResults.load(known[run])


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name may be too long for a file
        return False


def find_previous(about: Mapping[Any, Any]) -> EvaluationResults:
    """
    Return the last complete run with the same name before the one that ``about`` describes.

    Raises:
        UsageError: there is none.
    """
    from llm_magics.evaluations.results import EvaluationResults

    runs = list(_headers())
    ids = [run.about.get("id") for _, run in runs]
    if about.get("id") in ids:  # runs of the same second are in their order, too
        runs = runs[ids.index(about.get("id")) + 1 :]
    for path, run in runs:
        is_same = run.about.get("name") == about.get("name")
        is_before = str(run.about.get("time")) <= str(about.get("time"))
        if is_same and is_before and not run.about.get("stopped"):
            return EvaluationResults.load(path)
    msg = f"No earlier run of {about.get('name')!r:.60} is stored."
    raise UsageError(msg, hint="Pass other=…: results, a path, or an id of lm.list_evaluations().")


def find_incomplete(key: str) -> RunFile | None:
    """
    Return the last run that did not end, of the same task, data and models; ``None`` if none.

    Raises:
        UsageError: it is still running.
    """
    for path, run in _headers():
        if run.about.get("key") == key:
            if is_in_progress(path, run.about):
                msg = "This evaluation is still running."
                hint = "Wait until it ends, or interrupt it; without resume=True, all items are asked."
                raise UsageError(msg, hint=hint)
            return read_run(path) if run.about.get("stopped") else None
    return None


def utc_now() -> datetime:
    """Return the current time."""
    return datetime.now(UTC)
