"""The benchmarks' table, printed after the tests' own summary."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.nested import plain_environment

ROWS = pytest.StashKey[list[tuple[str, str, str]]]()
Record = Callable[[str, str, str], None]


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """Put a row into the table: what was measured, the figure, and what it is held against."""
    rows = request.config.stash.setdefault(ROWS, [])
    return lambda what, figure, target: rows.append((what, figure, target))


@contextmanager
def server_of(module: str, *arguments: str) -> Iterator[str]:
    """The address of a server of these benchmarks, which is a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"tests.benchmarks.{module}", *arguments],
        cwd=Path(__file__).parents[2],
        env=plain_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    process.kill()
    process.communicate()


@pytest.fixture
def stream_url() -> Iterator[str]:
    """The address of the streaming server."""
    with server_of("stream_server") as url:
        yield url


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print it."""
    rows = config.stash.get(ROWS, [])
    if not rows:
        return
    terminalreporter.section("benchmarks (ratios within one run)")
    table = [("measured", "figure", "target"), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(3)]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        terminalreporter.write_line("  ".join(cells).rstrip())
