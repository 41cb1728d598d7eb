"""Reports and commands of gates: text, Markdown, JUnit XML, pytest, %llm gate and the process."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from junitparser import Error, Failure, JUnitXml

import llm_magics
from llm_magics.__main__ import main
from llm_magics.errors import GateError, UsageError
from llm_magics.evaluations.gate.reports import format_junit, format_markdown, format_text
from llm_magics.evaluations.gate.results import CheckResult, Outcome, RunResult
from llm_magics.evaluations.gate.shared_run import run_once
from llm_magics.notebook.completion import find_candidates
from tests.evaluations.gate.gate_folders import write_baseline, write_gate, write_recording

HOSTILE = "a|b<script>alert(1)</script>\x00\x1b[31m\ud800 `x`\n# title"


def check(**changes):
    """Return a result of a check."""
    values = {
        "gate": "support",
        "label": "model",
        "model": "echo/echo",
        "score": "exact",
        "outcome": Outcome.PASSED,
        "reason": "no drop was found",
        "drop": 0.05,
        "items": 740,
        "required": 736,
        "detectable": 0.0499,
        "baseline": 0.9,
        "new": 0.89,
        "p": 0.3,
        "looks": 5,
        "planned_looks": 5,
    }
    return CheckResult(**{**values, **changes})


ALL = RunResult(
    checks=(
        check(),
        check(outcome=Outcome.FAILED, score="numeric", worse=(("q1", 1.0, 0.0),), flaky=("q9",)),
        check(outcome=Outcome.UNDECIDED, gate="sales", reason="a drop of 0.05 needs 736 items"),
        check(
            outcome=Outcome.NOT_RECORDED,
            gate="sales",
            score="regex",
            new=math.nan,
            unrecorded=("q1", "q2"),
        ),
    ),
    notes=("support: changed since the baseline: prompt.",),
)


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([Outcome.PASSED], 0),
        ([Outcome.PASSED, Outcome.UNDECIDED], 3),
        ([Outcome.UNDECIDED, Outcome.NOT_RECORDED], 4),
        ([Outcome.NOT_RECORDED, Outcome.FAILED, Outcome.UNDECIDED], 1),
    ],
)
def test_exit_code_is_that_of_the_worst_check(outcomes, code):
    """A failure comes before a missing recording, and that before an undecided check."""
    result = RunResult(checks=tuple(check(outcome=each) for each in outcomes))
    assert result.exit_code == code


def test_text_names_outcomes_and_items():
    """The text has a line for each check, with the items to look at."""
    text = format_text(ALL)
    assert (
        "passed        support · model · exact: 0.900 → 0.890 over 740 items, p = 0.3000" in text
    )
    assert "largest drops: q1 (1.00 → 0.00)" in text
    assert "flaky in the baseline, left out: q9" in text
    assert text.splitlines()[-1] == "gate failed: 4 checks, from recorded answers"


def test_reason_and_equal_drops_are_short_lines():
    """The reason is below the scores, and items with the same drop are listed together."""
    worse = (("q1", 1.0, 0.0), ("q2", 1.0, 0.0), ("q3", 0.75, 0.5))
    failed = check(outcome=Outcome.FAILED, reason="the mean score dropped by 0.010", worse=worse)
    lines = format_text(RunResult(checks=(failed,))).splitlines()
    assert [line.strip() for line in lines[1:3]] == [
        "the mean score dropped by 0.010",
        "largest drops: q1, q2 (1.00 → 0.00), q3 (0.75 → 0.50)",
    ]


def test_junit_counts_failures_and_errors():
    """Failed checks are failures, undecided and not recorded ones errors, as junitparser reads."""
    xml = JUnitXml.fromstring(format_junit(ALL).encode())
    assert (xml.tests, xml.failures, xml.errors) == (4, 1, 2)
    first, second = xml
    assert (first.name, first.tests, first.failures, first.errors) == ("support", 2, 1, 0)
    passed, failed = first
    undecided, missing = second
    assert not passed.result
    assert isinstance(failed.result[0], Failure)
    assert [type(each.result[0]) for each in (undecided, missing)] == [Error, Error]
    assert [each.result[0].type for each in (undecided, missing)] == ["undecided", "not recorded"]


def test_junit_has_the_elements_of_its_schema():
    """Elements, attributes and required attributes are those of Jenkins' schema of JUnit."""
    counts = {"name", "tests", "failures", "errors", "time"}
    root = ET.fromstring(format_junit(ALL))
    assert (root.tag, set(root.attrib)) == ("testsuites", counts)
    for suite in root:
        assert (suite.tag, set(suite.attrib)) == ("testsuite", counts | {"skipped"})
        assert suite.get("skipped") == "0"
        for case in suite:
            assert (case.tag, set(case.attrib)) == ("testcase", {"classname", "name", "time"})
            (outcome,) = case
            assert outcome.tag in {"failure", "error", "system-out"}
            assert set(outcome.attrib) <= {"type", "message"}


def test_only_passed_checks_look_passed_in_junit():
    """GitHub's reporters, GitLab and Jenkins count a case without failure, error or skipped as passed."""
    cases = ET.fromstring(format_junit(ALL)).iter("testcase")
    bad = ("failure", "error", "skipped")
    shown = [next((each for tag in bad for each in case.findall(tag)), None) for case in cases]
    assert [None if each is None else each.get("message") for each in shown] == [
        None,
        "failed: no drop was found",
        "undecided: a drop of 0.05 needs 736 items",
        "not recorded: no drop was found",
    ]


def test_cases_of_junit_have_different_names_and_add_up():
    """GitLab shows only the first case of a name, and tools add up the times of the cases."""
    root = ET.fromstring(format_junit(replace(ALL, elapsed_s=2.0)))
    cases = list(root.iter("testcase"))
    assert len({(each.get("classname"), each.get("name")) for each in cases}) == 4
    assert sum(float(each.get("time")) for each in cases) == 2.0 == float(root.get("time"))
    assert [each.get("time") for each in root] == ["1.000", "1.000"]


def test_reports_of_hostile_names_are_harmless():
    """Names and errors from files and services have no effect in any report."""
    result = RunResult(checks=(check(gate=HOSTILE, unmatched=(HOSTILE,)),), notes=(HOSTILE,))
    ET.fromstring(format_junit(result))
    markdown = format_markdown(result)
    assert "<script>" not in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert [line.replace("\\|", "").count("|") for line in rows] == [9, 9, 9]
    assert not [line for line in markdown.splitlines() if line.startswith("# ")]
    for text in (format_text(result), markdown):
        assert not set("\x00\x1b") & set(text)
        text.encode()


def test_markdown_is_a_table():
    """The summary has a row for each check, and what a reader should know below."""
    markdown = format_markdown(ALL)
    assert markdown.startswith("## Gate failed\n")
    assert (
        "| support · model · numeric | failed | 0.900 | 0.890 | 740 | 736 | 0.05 | 0.3000 |"
        in markdown
    )
    assert "not in the recording: q1, q2" in markdown


def test_command_writes_reports(tmp_path, monkeypatch, capsys):
    """The command writes JUnit XML, the summary, and the summary of the step in GitHub Actions."""
    path = write_gate(tmp_path / "evals", items=25, drop=0.5)
    write_baseline(path)
    write_recording(path)
    step = tmp_path / "step.md"
    step.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    assert main(["gate", "--junit", "out/gate.xml", "--summary", "gate.md"]) == 0
    assert JUnitXml.fromfile("out/gate.xml").tests == 1
    summary = Path("gate.md").read_text("utf-8")
    assert summary.startswith("## Gate passed")
    assert step.read_text("utf-8") == f"before\n{summary}\n"
    assert "gate passed: 1 check" in capsys.readouterr().out


def test_folders_have_gate_files(tmp_path, capsys):
    """A folder stands for the gate files in it; one without any is an error."""
    for name in ("one", "two"):
        path = write_gate(tmp_path / "gates", name, items=20, drop=0.5)
        write_baseline(path)
        write_recording(path)
    assert main(["gate", "gates"]) == 0
    assert "gate passed: 2 checks" in capsys.readouterr().out
    assert main(["gate", "gates", "gates/one.yaml", f"{tmp_path}/gates/two.yaml"]) == 0
    assert "gate passed: 2 checks" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert main(["gate", "empty"]) == 2
    assert "No gate file was found in empty/." in capsys.readouterr().err


def test_baselines_with_a_common_file_are_an_error(tmp_path, capsys):
    """The second gate would overwrite the baseline of the first."""
    for name in ("one", "two"):
        write_gate(tmp_path / "gates", name, items=20, more="baseline: {file: all.jsonl}")
    assert main(["gate", "--update-baseline", "gates"]) == 2
    assert "gates/all.jsonl is the baseline of" in capsys.readouterr().err
    assert not (tmp_path / "gates" / "all.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gate"], "No gate file was found in evals/."),
        (["gate", "none.yaml"], "Could not read none.yaml"),
        (["gate", "--accept", "x.yaml"], "--accept has no effect"),
        (["gate", "--max-cost", "-1", "x.yaml"], "Invalid value for --max-cost"),
        (["gate", "--max-cost", "nan", "x.yaml"], "Invalid value for --max-cost"),
        (["gate", "--recording", "a", "x.yaml", "y.yaml"], "exactly one gate file"),
        (["gate", "--update-baseline", "--junit", "j", "x.yaml"], "writes no reports"),
        (["gate", "--update-baseline", "--recording", "a", "x.yaml"], "--recording has no effect"),
    ],
)
def test_mistakes_have_exit_code_two(words, message, capsys):
    """An error in the arguments or files is exit code 2, with what to do."""
    assert main(words) == 2
    captured = capsys.readouterr().err
    assert message in captured
    assert "→" in captured


def test_unknown_flag_has_exit_code_two(capsys):
    """An unknown flag is refused as by any command."""
    with pytest.raises(SystemExit) as caught:
        main(["gate", "--fast"])
    assert caught.value.code == 2


def test_process_has_the_exit_code(tmp_path):
    """As a process: a drop is exit code 1, without a key or any setting."""
    path = write_gate(tmp_path / "evals", items=20, drop=0.5)
    write_baseline(path)
    write_recording(path, wrong=lambda row, _: row < 15)
    command = [sys.executable, "-m", "llm_magics", "gate", "--junit", "gate.xml"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1] == "gate failed: 1 check, from recorded answers"
    assert JUnitXml.fromfile("gate.xml").failures == 1


def test_magic_fails_unless_all_pass(shell, tmp_path, capsys):
    """%llm gate prints the results; the cell fails if a check did not pass."""
    path = write_gate(tmp_path, items=20, drop=0.5)
    write_baseline(path)
    write_recording(path)
    shell.run_line_magic("llm", f"gate {path}")
    assert "gate passed: 1 check" in capsys.readouterr().out
    write_recording(path, wrong=lambda row, _: row < 15)
    with pytest.raises(GateError, match="did not pass: failed"):
        shell.run_line_magic("llm", f"gate {path}")


def test_help_and_tab_know_the_flags(shell, capsys):
    """All flags of the command."""
    shell.run_line_magic("llm", "help gate")
    text = capsys.readouterr().out
    for flag in ("--replay", "--record", "--junit", "--update-baseline"):
        assert flag in text
        assert flag in find_candidates("%llm", f"gate evals/x.yaml {flag[:4]}").names


def run_pytest(folder, *words):
    """Return the finished process of pytest in ``folder``, with this plugin alone."""
    command = [sys.executable, "-m", "pytest", "-p", "llm_magics.pytest_plugin", "-q", *words]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    return subprocess.run(
        [*command, "-p", "no:cacheprovider"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def test_plugin_is_an_entry_point():
    """The package registers the plugin with pytest."""
    root = Path(llm_magics.__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"llm_gate": "llm_magics.pytest_plugin"}


def test_checks_are_tests(tmp_path):
    """With --llm-gate each check is a test; other YAML files are not collected."""
    good = write_gate(tmp_path / "evals", "good", items=20, drop=0.5)
    bad = write_gate(tmp_path / "evals", "bad", items=20, drop=0.5)
    write_gate(tmp_path / "other")
    for each in (good, bad):
        write_baseline(each)
    write_recording(good)
    write_recording(bad, wrong=lambda row, _: row < 15)
    done = run_pytest(tmp_path, "--llm-gate")
    assert "1 failed, 1 passed" in done.stdout, done.stdout
    assert "failed: bad · model · exact: 1.000 → 0.250" in done.stdout
    assert done.returncode == 1


def test_plugin_imports_nothing_without_its_flag(tmp_path):
    """Without the flag the plugin collects nothing and imports neither pandas nor pydantic."""
    write_gate(tmp_path / "evals")
    (tmp_path / "test_it.py").write_text(
        "import sys\ndef test_it():\n"
        "    assert 'llm_magics.pytest_plugin' in sys.modules\n"
        "    assert not {'pandas', 'pydantic', 'httpx', 'yaml'} & set(sys.modules)\n",
        encoding="utf-8",
    )
    done = run_pytest(tmp_path)
    assert "1 passed" in done.stdout, done.stdout


def test_processes_share_one_run(tmp_path):
    """The first runs, the others wait for its result, which is read without a change."""
    calls = []

    def run():
        calls.append(1)
        return ALL

    path = tmp_path / "result.json"
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: run_once(path, run), range(8)))
    assert len(calls) == 1
    assert {repr(each) for each in found} == {repr(ALL)}


def test_processes_share_the_error_of_a_run(tmp_path):
    """A run that failed is not repeated; the others raise its error, with what to do."""
    path = tmp_path / "result.json"

    def fail():
        raise UsageError("No baseline.", hint="Write it.")

    def never():
        raise AssertionError

    for run in (fail, never):
        with pytest.raises(UsageError, match="No baseline") as caught:
            run_once(path, run)
        assert caught.value.hint == "Write it."


COUNTING = """\
from llm_magics.providers.echo import EchoProvider

stream = EchoProvider.stream_chat

def counted(self, messages, model, parameters):
    with open("asked", "a", encoding="utf-8") as file:
        file.write(f"{messages[-1].content}\\n")
    return stream(self, messages, model, parameters)

EchoProvider.stream_chat = counted
"""


def test_workers_of_xdist_ask_once(tmp_path):
    """With two workers of pytest-xdist each item is asked once, and every check is reported."""
    for name in ("one", "two"):
        models = "{a: echo/echo, b: echo/echo}"
        write_baseline(write_gate(tmp_path / "evals", name, items=20, drop=0.5, models=models))
    (tmp_path / "conftest.py").write_text(COUNTING, encoding="utf-8")
    done = run_pytest(tmp_path, "--llm-gate", "--llm-gate-mode=live", "-p", "xdist", "-n", "2")
    assert "4 passed" in done.stdout, done.stdout
    asked = (tmp_path / "asked").read_text("utf-8").split()
    assert sorted(asked, key=int) == [str(each) for each in range(20) for _ in range(4)]
