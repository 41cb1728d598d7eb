"""
The IPython shell: display mode, current cell, user coroutines, tracebacks and DataFrames.

The kernel's event loop is running while a cell runs. So a coroutine of the user (an async tool) runs
on a new loop in a new thread. Objects that are bound to the kernel's loop, such as a client created
in a cell, work only on that loop. For them, the setting ``loop: nested`` makes the kernel's loop
re-entrant. This patches asyncio in this process permanently, so it must be enabled explicitly.

Tracebacks are redacted, because ``%xmode Verbose`` prints the variables of every function, and an
error of another package may quote a request or an answer.

The texts in a DataFrame may be from models, and the DataFrame does not record this. So the HTML and
text of all pandas and polars frames that IPython displays are sanitized as soon as pandas and this
package are imported: only harmless formulas are typeset.
"""

from __future__ import annotations

import ast
import asyncio
import hashlib
import re
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from llm_magics._util.text import escape_all_but_colours, escape_controls
from llm_magics.errors import ConfigurationError, LLMError
from llm_magics.host import Cell, CodeLocation, Host, warn
from llm_magics.secrets import redact, register_secret
from llm_magics.settings.config import config

if TYPE_CHECKING:
    from IPython.core.interactiveshell import (
        ExecutionInfo,
        ExecutionResult,
        InteractiveShell,
    )


_T = TypeVar("_T")

# From this Python version, nest_asyncio makes every request in the process fail.
_FIRST_UNSUPPORTED = (3, 14)


def run_coroutine(work: Coroutine[Any, Any, _T]) -> _T:
    """Run ``work`` and return its result, even if a loop is running. An interrupt cancels it."""
    if _is_nested() and (loop := _running_loop()) is not None:
        _patcher().apply(loop)
        return _run_nested(loop, work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def apply_nested_loop() -> None:
    """Make the running loop re-entrant if the setting ``loop`` is ``nested``."""
    try:
        is_nested = _is_nested()
    except LLMError:  # the settings cannot be read, which is reported when one is needed
        return
    if is_nested and (loop := _running_loop()) is not None:
        _patcher().apply(loop)


def _run_nested(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, _T]) -> _T:
    task = loop.create_task(work)
    try:
        return loop.run_until_complete(task)
    except BaseException:
        task.cancel()  # otherwise it continues on the kernel's loop after an interrupt
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        raise


def _is_nested() -> bool:
    return bool(config.loop == "nested")


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _patcher() -> ModuleType:
    """
    Return the package that patches the loop: nest_asyncio2 if installed, otherwise nest_asyncio.

    Only one is used, because each would undo the patches of the other.

    Raises:
        ConfigurationError: this Python version needs nest_asyncio2, which is not installed.
    """
    try:
        import nest_asyncio2
    except ImportError:
        import nest_asyncio
    else:
        patcher: ModuleType = nest_asyncio2
        return patcher
    if sys.version_info >= _FIRST_UNSUPPORTED:
        config.reset("loop")
        msg = "The setting loop: nested needs nest-asyncio2 on this Python."
        raise ConfigurationError(msg, hint="Run: pip install nest-asyncio2, and restart.")
    older: ModuleType = nest_asyncio
    return older


def track_cells(shell: InteractiveShell, host: Host) -> None:
    """Update the current cell of ``host`` before each cell runs, and stop what it interrupts."""
    own = _CellTracker(shell, host)
    shell.events.register("pre_run_cell", own.begin)
    shell.events.register("post_run_cell", own.end)
    shell.llm_magics_follower = own
    running = Cell(_cell_id_in_metadata(shell), _history_length(shell) - 1)
    host.current_cell = running


def untrack_cells(shell: InteractiveShell) -> None:
    """Undo `track_cells`."""
    own = shell.__dict__.pop("llm_magics_follower", None)
    if own is not None:
        shell.events.unregister("pre_run_cell", own.begin)
        shell.events.unregister("post_run_cell", own.end)


def label_cell(shell: InteractiveShell, code: CodeType) -> str | None:
    """Return the name that IPython's tracebacks give to the cell of a code object."""
    format_name = getattr(shell.compile, "format_code_name", None)
    if format_name is None:
        return _label_in_ipython_7(code.co_filename)
    found = format_name(code.co_filename)
    return " ".join(found) if found else None


def _label_in_ipython_7(path: str) -> str | None:
    numbered = re.match(r"<ipython-input-(\d+)-", path)
    if numbered is not None:
        return f"Cell In[{numbered[1]}]"
    # The kernel's names of cells have no number.
    return "Cell In[?]" if re.search(r"ipykernel_\d+[/\\]\d+\.py$", path) else None


_MAGIC_CALLS = {"run_line_magic": "%", "run_cell_magic": "%%"}


def typed_line(source: str) -> str:
    """Return the magic that IPython transformed to the call ``source``; other code unchanged."""
    if not any(name in source for name in _MAGIC_CALLS):
        return source
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a line of a longer statement
        return source
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(attr=name),
                args=[ast.Constant(value=str(magic)), ast.Constant(value=str(line)), *_],
            ) if name in _MAGIC_CALLS:
                return f"{_MAGIC_CALLS[name]}{magic} {line}".rstrip()
    return source


_ENV_KEY = re.compile(
    r"\s*%(?:env|set_env)\s+(?P<name>\w*(?:KEY|TOKEN|SECRET)\w*)\s*[= ]\s*(?P<value>[^\s${].*?)\s*$",
    re.IGNORECASE,
)


class _CellTracker:
    def __init__(self, shell: InteractiveShell, host: Host) -> None:
        self._shell = shell
        self._host = host
        self._names_of_saved_keys: set[str] = set()

    def begin(self, info: ExecutionInfo) -> None:
        """Handle IPython's event ``pre_run_cell``."""
        if info.silent:
            return
        key = info.cell_id or _cell_id_in_metadata(self._shell) or self._by_text(info.raw_cell)
        self._host.begin_cell(Cell(str(key), _history_length(self._shell)))
        self._warn_of_saved_keys(info.raw_cell)

    def end(self, result: ExecutionResult) -> None:
        """
        Handle IPython's event ``post_run_cell``.

        An interrupt may arrive in the user's own code between two chunks of a stream, which would
        go on in the background.
        """
        self._host.end_cell(is_interrupted=isinstance(result.error_in_exec, KeyboardInterrupt))

    def _warn_of_saved_keys(self, text: str) -> None:
        """Warn, once per variable, of ``%env NAME=value``: the notebook file contains the key."""
        for number, line in enumerate(text.split("\n"), 1):
            found = _ENV_KEY.match(line)
            if found is None:
                continue
            register_secret(found["value"].strip("\"'"))  # errors and logs mask it
            name = found["name"]
            if name in self._names_of_saved_keys:
                continue
            self._names_of_saved_keys.add(name)
            message = (
                f"The value of {name} is saved with this notebook: it is in the cell, and %env prints it. "
                "Remove the line and clear its output. Set the key with %llm key PROVIDER, "
                "or set the environment variable outside the notebook."
            )
            cell = f"Cell In[{_history_length(self._shell)}]"
            warn(message, location=CodeLocation(cell, number, "__main__", ""))

    def _by_text(self, text: str) -> str:
        """
        Return a key for the cell from its text, for frontends that do not send cell ids.

        The key is empty in a terminal, which has no cells, and in an unattended run, which runs
        each cell once. There, the same text twice means two turns of a conversation.
        """
        is_terminal = type(self._shell).__name__ == "TerminalInteractiveShell"
        if is_terminal or (hasattr(self._shell, "kernel") and not is_interactive(self._shell)):
            return ""
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _history_length(shell: InteractiveShell) -> int:
    """
    Return the number of cells in the history, which is the number of the next cell.

    ``execution_count`` is not used: some IPython versions increment it before a cell runs, others
    after it.
    """
    return len(shell.history_manager.input_hist_parsed)


def _cell_id_in_metadata(shell: InteractiveShell) -> str:
    """Return the cell's id from the metadata of the execution request, or ``""``."""
    get_parent = getattr(shell, "get_parent", None)
    metadata: Any = (get_parent() or {}).get("metadata") if get_parent else None
    if not isinstance(metadata, dict):
        return ""
    colab = metadata.get("colab")
    return str(
        metadata.get("cellId") or (colab.get("cell_id") if isinstance(colab, dict) else "") or ""
    )


DisplayMode = Literal["live", "static", "text"]


def display_mode(shell: InteractiveShell) -> DisplayMode:
    """
    Return how answers are displayed in ``shell``: the setting ``render``, or the default.

    The default is ``live`` in an interactive notebook, ``static`` if the notebook runs unattended
    or its output is captured, and ``text`` in a terminal.
    """
    chosen: str = config.render
    if chosen == "live":
        return "live"
    if chosen == "static":
        return "static"
    if chosen == "text" or not hasattr(shell, "kernel"):
        return "text"
    return "live" if is_interactive(shell) else "static"


def is_interactive(shell: InteractiveShell) -> bool:
    """
    Whether a user watches the notebook.

    Unattended runs (nbclient, papermill, nbval) do not allow input requests.
    """
    from IPython.core.displaypub import CapturingDisplayPublisher

    if isinstance(shell.display_pub, CapturingDisplayPublisher):
        return False
    return bool(getattr(shell.kernel, "_allow_stdin", True))


def is_watched(shell: InteractiveShell) -> bool:
    """Whether a user watches the notebook, or uses a terminal."""
    return is_interactive(shell) if hasattr(shell, "kernel") else bool(sys.stdout.isatty())


def ask_user(shell: InteractiveShell, question: str) -> str | None:
    """Return the user's answer to ``question``; ``None`` if the session is not interactive."""
    mode = display_mode(shell)
    can_ask = mode == "live" or (mode == "text" and sys.stdin.isatty())
    return input(question) if can_ask else None


_SHOW_TRACEBACK = "_showtraceback"


def redact_tracebacks(shell: InteractiveShell) -> None:
    """Remove keys and control characters from all tracebacks that ``shell`` displays."""
    restore_tracebacks(shell)
    show = getattr(shell, _SHOW_TRACEBACK)

    def show_without_keys(kind: Any, error: Any, lines: Any) -> None:
        text = str(error)
        redacted = error if _redact(text) == text else _redact(text)
        show(kind, redacted, [_redact(line) for line in lines])

    show_without_keys.llm_magics = True  # type: ignore[attr-defined]
    setattr(shell, _SHOW_TRACEBACK, show_without_keys)


def _redact(text: str) -> str:
    return escape_all_but_colours(redact(text))


def restore_tracebacks(shell: InteractiveShell) -> None:
    """Undo `redact_tracebacks`."""
    if hasattr(vars(shell).get(_SHOW_TRACEBACK), "llm_magics"):
        delattr(shell, _SHOW_TRACEBACK)


# By module and name. The module of a pandas DataFrame depends on the version of pandas.
_FRAMES = (
    ("pandas", "DataFrame"),
    ("pandas.core.frame", "DataFrame"),
    ("pandas.io.formats.style", "Styler"),
    ("polars.dataframe.frame", "DataFrame"),
    ("polars.series.series", "Series"),
)
# Series have no HTML representation.
_FRAMES_AND_SERIES = (*_FRAMES, ("pandas", "Series"), ("pandas.core.series", "Series"))


def sanitize_frames(shell: InteractiveShell) -> None:
    """Display DataFrames so that only harmless formulas in them are typeset."""
    for formatter, printed, kinds in _frame_printers(shell):
        for kind in kinds:
            # Do not replace a formatter that the user or another package registered.
            if kind not in formatter.deferred_printers and not _is_set_up(formatter, kind):
                formatter.for_type_by_name(*kind, printed)


def restore_frames(shell: InteractiveShell) -> None:
    """Undo `sanitize_frames`."""
    for formatter, printed, kinds in _frame_printers(shell):
        for kind in kinds:
            if formatter.deferred_printers.get(kind) is printed:
                del formatter.deferred_printers[kind]
        for kind, printer in list(formatter.type_printers.items()):
            if printer is printed:
                formatter.pop(kind)


def _frame_printers(
    shell: InteractiveShell,
) -> list[tuple[Any, Callable[..., Any], tuple[tuple[str, str], ...]]]:
    formatters = shell.display_formatter.formatters
    return [
        (formatters["text/html"], _frame_html, _FRAMES),
        (formatters["text/plain"], _print_frame, _FRAMES_AND_SERIES),
    ]


def _is_set_up(formatter: Any, kind: tuple[str, str]) -> bool:
    return any((each.__module__, each.__name__) == kind for each in formatter.type_printers)


def _frame_html(frame: Any) -> str | None:
    html = _with_short_vectors(frame)._repr_html_()
    from llm_magics._util import typesetting  # loading the extension should not import it

    return None if html is None else typesetting.sanitize_table(html)


def _print_frame(frame: Any, printer: Any, cycle: bool) -> None:
    """Print the text of a frame with control characters escaped."""
    text = repr(_with_short_vectors(frame))
    for number, line in enumerate(escape_controls(text).split("\n")):
        if number:
            printer.break_()
        printer.text(line)


def _with_short_vectors(frame: Any) -> Any:
    """Return a pandas DataFrame with its vectors in a short form; other objects unchanged."""
    attributes = getattr(frame, "attrs", None)
    if not attributes or not isinstance(attributes, dict) or getattr(frame, "ndim", 0) != 2:
        return frame
    from llm_magics.dataframes.vector_display import for_display

    return for_display(frame)


def _sanitize_running_shell() -> None:
    """Sanitize frames without ``%load_ext`` too: ``lm.compare(…)`` also returns a DataFrame."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None:
        sanitize_frames(shell)


_sanitize_running_shell()
