"""Notebooks that are killed in a batch job lose nothing and pay nothing twice."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_sixty_kills_lose_no_answer_and_pay_no_row_twice() -> None:
    """At every kind of step and at random times, a fifth of them with lost connections."""
    command = [sys.executable, "-m", "tests.support.kills", "--count", "60"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 answers lost, 0 on the wrong row, 0 rows paid twice" in done.stdout
