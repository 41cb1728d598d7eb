"""Warnings and errors point to the user's own line, never to one inside this package."""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path

import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import host
from llm_magics._async.bridge import bridge
from llm_magics.errors import LLMError
from tests.conftest import HISTORY_IN_MEMORY, end_shell
from tests.support.prepared_python import run_prepared

PACKAGE = str(Path(lm.__file__).parent)


def line_of(text: str) -> int:
    """The number of the line of this file that contains ``text``."""
    lines = Path(__file__).read_text("utf-8").splitlines()
    (number,) = [at for at, line in enumerate(lines, 1) if text in line and "line_of" not in line]
    return number


def test_a_warning_points_to_the_line_of_the_caller() -> None:
    """Of a call on a column, however deep in the package it is issued."""
    frame = pd.DataFrame({"text": ["a", 3]})
    with pytest.warns(UserWarning, match="no text") as caught:
        frame.llm.embed("text", model="echo/echo")  # the embedding
    assert caught[0].filename == __file__
    assert caught[0].lineno == line_of("# the embedding")


def test_a_warning_from_the_event_loop_points_to_the_line_of_the_caller() -> None:
    """The loop runs on a thread of its own, where no frame is the user's."""

    async def work() -> None:
        await asyncio.to_thread(host.warn, "from far away")

    with pytest.warns(UserWarning, match="from far away") as caught:
        bridge.run(work())  # from here
    assert caught[0].filename == __file__
    assert caught[0].lineno == line_of("# from here")


def test_an_awaited_call_warns_at_the_line_that_awaits() -> None:
    """And not at one of asyncio's."""

    async def events() -> None:
        async def source() -> asyncio.AsyncGenerator[int, None]:  # type: ignore[name-defined]
            host.warn("while awaited")
            yield 1

        async for _ in bridge.aiterate(source()):  # awaited here
            pass

    with pytest.warns(UserWarning, match="while awaited") as caught:
        asyncio.run(events())
    assert caught[0].filename == __file__


def test_the_same_warning_of_one_line_is_shown_once() -> None:
    """In a loop, as Python's own warnings are; another line shows it again."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            host.warn("in a loop")
        host.warn("in a loop")
    assert len(caught) == 2


def test_no_module_warns_with_a_line_of_its_own() -> None:
    """Every warning goes through `host.warn`."""
    for path in Path(PACKAGE).rglob("*.py"):
        if path.name != "host.py":
            assert "warnings.warn" not in path.read_text("utf-8"), path


@pytest.fixture
def shell() -> InteractiveShell:
    """A shell with the extension loaded."""
    shell = InteractiveShell(config=HISTORY_IN_MEMORY)
    shell.run_line_magic("load_ext", "llm_magics")
    yield shell  # type: ignore[misc]
    shell.run_line_magic("unload_ext", "llm_magics")
    end_shell(shell)


def shown(error: BaseException | None) -> list[str]:
    """The lines that a notebook shows of an error."""
    assert isinstance(error, LLMError)
    return error._render_traceback_()


def test_an_error_raised_from_python_shows_the_user_s_line(shell: InteractiveShell) -> None:
    """With the number of the cell; a function's own line counts, wherever it is called."""
    shell.run_cell("import llm_magics as lm\ndef f():\n    return lm.ask('hi', 'nosuch/x')", True)
    lines = shown(shell.run_cell("f()", True).error_in_exec)
    assert len(lines) == 3
    assert lines[1].endswith("line 3: return lm.ask('hi', 'nosuch/x')")
    assert "Cell In[1]" in lines[1]


@pytest.mark.parametrize(
    ("cell", "line", "typed"),
    [
        ("%%llm nosuch/x\nhi", 1, "%%llm nosuch/x"),
        ("x = 1\n%llm cnofig", 2, "%llm cnofig"),
        ("x = 1\nv = %embed nosuch", 2, "%embed nosuch"),
        ("def f():\n    %embed nosuch\nf()", 2, "%embed nosuch"),
    ],
)
def test_an_error_of_a_magic_shows_the_magic_as_typed(
    shell: InteractiveShell, cell: str, line: int, typed: str
) -> None:
    """With its line in the cell; not the call that IPython makes of it."""
    lines = shown(shell.run_cell(cell, True).error_in_exec)
    assert len(lines) == 3
    assert lines[1].endswith(f"line {line}: {typed}")


def test_a_line_of_a_script_is_shown_by_its_file() -> None:
    """Outside of notebooks Python's own traceback is complete; the file is named."""
    try:
        lm.ask("hi", "nosuch/x")  # in a script
    except LLMError as error:
        lines = shown(error)
    assert lines[1].strip().startswith(f"File {__file__}, line {line_of('# in a script')}")


def test_a_warning_in_a_notebook_is_one_line() -> None:
    """It names the cell, and no path of this package or of a temporary file."""
    code = (
        "from IPython.core.interactiveshell import InteractiveShell as S\n"
        "s = S.instance()\n"
        "s.run_cell('%load_ext llm_magics\\nfrom llm_magics.host import warn', True)\n"
        "s.run_cell('x = 1\\nwarn(\"careful\")', True)\n"
    )
    done = run_prepared(code)
    (line,) = [line for line in done.stderr.splitlines() if "Warning" in line]
    assert done.stderr.strip() == line
    assert line.startswith("Cell In[2]:2: UserWarning: careful")
