"""Notebooks that are killed in a batch job lose nothing and pay nothing twice."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.examples import examples


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_kills_lose_no_answer_and_pay_no_row_twice() -> None:
    """Sixty in CI: at every kind of step and at random times, a fifth with lost connections."""
    count = str(examples(60))
    command = [sys.executable, "-m", "tests.support.kills", "--count", count]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 answers lost, 0 on the wrong row, 0 rows paid twice" in done.stdout
