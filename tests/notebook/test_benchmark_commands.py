"""``%llm bench`` and ``%llm compare``."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics.benchmarking.measurements import Measurements
from llm_magics.errors import Interrupted, LLMError, UsageError
from llm_magics.notebook.completion import find_candidates


def run(shell: InteractiveShell, line: str) -> Any:
    """What ``%llm`` gives."""
    return shell.run_line_magic("llm", line)


def test_bench_shows_a_row_a_model_and_keeps_every_request(shell: InteractiveShell) -> None:
    """In the variable of -o."""
    told = run(
        shell, "bench echo/echo echo/lorem --concurrency 1,2 --repeat 2 -o runs --max-tokens 5"
    )
    assert told.index.tolist() == [
        ("echo/echo", 1), ("echo/lorem", 1), ("echo/echo", 2), ("echo/lorem", 2)
    ]  # fmt: skip
    assert {"ttft_s", "itl_ms", "tokens_per_s"} <= set(told)
    assert "throughput_tokens_per_s" not in told  # on a virtual clock there is none
    runs = shell.user_ns["runs"]
    assert isinstance(runs, Measurements)
    assert len(runs) == 8
    assert (runs.output_tokens <= 5).all()


def test_bench_takes_prompts_and_rates(shell: InteractiveShell) -> None:
    """A list, a column, or an expression in quotes; the setting ``model`` where none is named."""
    lm.config.model = "echo/echo"
    shell.run_cell("import pandas as pd\ndf = pd.DataFrame({'q': ['a', 'b']})")
    run(shell, "bench --prompts df.q --rate 50 --arrival constant --requests 3 -o runs --same")
    runs = shell.user_ns["runs"]
    assert runs.prompt.tolist() == ["a", "b", "a"]
    assert runs.text.tolist() == ["a", "b", "a"]
    assert runs.rate.tolist() == [50.0] * 3
    run(shell, "bench --prompts \"['x' + 'y']\" --seconds 0.05 -o runs")
    assert set(shell.user_ns["runs"].prompt) == {"xy"}


def test_compare_says_who_is_better(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """In words, below a row a model; scores by name, of the notebook too."""
    shell.run_cell("qs = ['a', 'b']\nright = ['a', 'c']\ndef short(text): return len(text) < 3")
    told = run(
        shell,
        "compare echo/echo echo/lorem --prompts qs --expected right --score exact,short -o runs",
    )
    assert told.score_exact.tolist() == [0.5, 0.0]
    assert told.score_short.tolist() == [1.0, 0.0]
    assert (
        "exact: echo/echo and echo/lorem: not resolved at n = 2; needs about "
        in capsys.readouterr().out
    )
    assert len(shell.user_ns["runs"]) == 4


def test_a_model_that_fails_is_told_of(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside the others; when all do it is an error, and the rows are kept."""
    run(shell, "bench echo/echo echo/nope --repeat 2")
    assert "echo/nope: 2 of 2 requests failed (ModelNotFoundError" in capsys.readouterr().out
    with pytest.raises(LLMError, match="All 1 requests failed"):
        run(shell, "bench ehco/echo --repeat 1 -o runs")
    assert len(shell.user_ns["runs"]) == 1


@pytest.mark.parametrize(
    ("line", "says", "hint"),
    [
        ("bench echo/echo --rte 3", "no flag --rte", "--rate"),
        ("bench echo/echo --concurrency one", "--concurrency: 'one'", "1,8"),
        ("bench echo/echo --repeat 0", "repeat: 0", "integer"),
        ("bench echo/echo --prompts nosuch", "'nosuch' is not defined", ""),
        ("bench echo/echo --prompts 5", "texts", "column"),
        ('bench echo/echo --prompts "1 +"', "SyntaxError", "quotes"),
        ("bench echo/echo -o 2x", "variable", ""),
        ("compare echo/echo", "--prompts", "--prompts"),
        ("compare echo/echo --prompt x", "no flag --prompt", "--prompts"),
        ('compare echo/echo --prompts "[\'a\']" --score exakt', "'exakt'", "exact"),
        ('compare echo/echo --prompts "[\'a\']" --score exact', "expected", ""),
    ],
)  # fmt: skip
def test_slips_are_named(shell: InteractiveShell, line: str, says: str, hint: str) -> None:
    """With the nearest right thing, and nothing is asked."""
    count = len(lm.runs())
    with pytest.raises(UsageError, match=says) as caught:
        run(shell, line)
    assert hint in str(caught.value.hint)
    assert len(lm.runs()) == count


def test_no_time_measures_nothing(shell: InteractiveShell) -> None:
    """Which is said."""
    with pytest.raises(UsageError, match="No request") as caught:
        run(shell, "bench echo/echo --seconds 0.0000001")
    assert "--seconds" in str(caught.value.hint)


def test_interrupted_it_keeps_what_had_come(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the variable of -o, and the error says so."""
    from llm_magics.benchmarking import bench

    partial = lm.bench(models="echo/echo", repeat=1)

    def stopped(*_: Any, **__: Any) -> Measurements:
        raise Interrupted("Stopped; 1 answer had come.", partial=partial)

    monkeypatch.setattr(bench, "bench", stopped)
    with pytest.raises(Interrupted) as caught:
        run(shell, "bench echo/echo -o runs")
    assert shell.user_ns["runs"] is partial
    assert "in runs" in str(caught.value.hint)


def test_tab_knows_models_flags_scores_and_variables(shell: InteractiveShell) -> None:
    """Where each can stand."""
    shell.run_cell("questions = ['a']\ndef polite(answer): return 1")
    assert "echo/lorem" in find_candidates("%llm", "bench echo/echo ec").names
    assert "--concurrency" in find_candidates("%llm", "bench echo/echo --c").names
    assert "--expected" in find_candidates("%llm", "compare --e").names
    assert "questions" in find_candidates("%llm", "compare echo/echo --prompts qu").names
    assert {"exact", "polite"} <= set(find_candidates("%llm", "compare x/y --score e").names)
    assert "echo/echo" in find_candidates("%llm", "compare x/y --judge e").names
    assert not list(find_candidates("%llm", "bench --repeat 3").names)


@pytest.mark.parametrize("line", ["bench echo/echo -o runs", "compare echo/echo --prompts 'x'"])
def test_without_scipy_nothing_is_sent(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """The summary would need it when the answers are paid already."""
    monkeypatch.setitem(sys.modules, "scipy", None)
    shell.user_ns["x"] = ["a", "b"]
    with pytest.raises(UsageError, match="needs scipy") as caught:
        run(shell, line)
    assert 'pip install "jupyter-llm-magics[bench]"' in str(caught.value.hint)
    assert lm.runs().empty
    assert "runs" not in shell.user_ns
