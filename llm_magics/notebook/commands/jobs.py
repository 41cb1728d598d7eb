"""The command for batch jobs: list, cancel and forget them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_magics._async.bridge import bridge
from llm_magics._util.text import pluralize
from llm_magics.errors import DeclinedError, UsageError, nearest
from llm_magics.host import current_host
from llm_magics.notebook.commands.registry import Variables, command
from llm_magics.notebook.display.output import print_safe
from llm_magics.notebook.parsers import OptionParser

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell
    from pandas import DataFrame

    from llm_magics.runtime.storage.job_journal import JobRecord

_ACTIONS = ("cancel", "forget")


@command("jobs [cancel ID|forget ID]")
def jobs(shell: InteractiveShell, rest: str, variables: Variables) -> DataFrame | None:
    """
    List the batch jobs, cancel one, or forget one.

    ID is the beginning of a job's id, or of the service's id of it. Cancelling stops the rest of a
    job; what was done until then is billed, and its results are read when the cell runs again.

    Forgetting deletes a job from the list without cancelling it. Rows whose results were not read
    are then submitted and paid again when the cell runs again, which is what you want for a job
    that stays ``uncertain`` but does not exist. Stored answers are kept. With --yes you are not
    asked.
    """
    from llm_magics.runtime.jobs.control import cancel_job, find_job
    from llm_magics.runtime.session import session

    arguments = _parser().parse(rest)
    if not arguments.words:
        from llm_magics.runtime.jobs.table import jobs as listed

        return listed()
    action, *ids = arguments.words
    if action not in _ACTIONS:
        msg = f"%llm jobs does not have the action {action!r}."
        raise UsageError(msg, hint=nearest(action, _ACTIONS))
    if len(ids) != 1:
        msg = f"%llm jobs {action} takes the id of one job."
        raise UsageError(msg, hint="List them with: %llm jobs")
    record = find_job(session.journal.jobs(), ids[0])
    if action == "cancel":
        print_safe(bridge.run(cancel_job(session, record)))
    else:
        _forget(record, is_allowed=arguments.yes)
    return None


def _parser() -> OptionParser:
    parser = OptionParser("%llm jobs", "List, cancel or forget batch jobs.")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--yes", action="store_true")
    return parser


def _forget(record: JobRecord, *, is_allowed: bool) -> None:
    """
    Delete a job from the journal, after a question if rows may be paid again.

    Raises:
        DeclinedError: the user declined.
        UsageError: the session is not interactive.
    """
    from llm_magics.runtime.jobs.control import forget_job, unread_rows
    from llm_magics.runtime.session import session

    unread = unread_rows(session, record)
    if unread and not is_allowed:
        is_open = "may still run" if record.is_active else "has results that were not read"
        what = (
            f"The job {record.id} at {record.provider} {is_open}. Without it, {pluralize(unread, 'row')} "
            "will be submitted and paid again when the cell runs again."
        )
        answer = current_host().ask(f"{what} Forget it? [y/N] ")
        if answer is None:
            msg = f"{what} Confirmation is required, but the session is not interactive."
            raise UsageError(msg, hint=f"Allow it with: %llm jobs forget {record.id} --yes")
        if answer.strip().lower() not in ("y", "yes"):
            msg = f"The job {record.id} was not forgotten: you declined."
            raise DeclinedError(msg, hint="To stop it instead: %llm jobs cancel ID")
    forget_job(session, record)
    print_safe(f"Forgot {record.id}. Answers that are stored stay in the cache.")
