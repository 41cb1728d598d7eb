"""The command ``gate``, of ``python -m llm_magics`` and of ``%llm``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from llm_magics._util.filesystem import display_path
from llm_magics._util.text import escape_controls
from llm_magics.errors import BudgetError, UsageError
from llm_magics.evaluations.gate.reports import (
    format_junit,
    format_markdown,
    format_text,
    write_report,
)
from llm_magics.evaluations.gate.results import Outcome, RunResult
from llm_magics.evaluations.gate.runner import Mode, Options, check_gates, run_gates
from llm_magics.evaluations.gate.specification import Gate, load_gate
from llm_magics.evaluations.gate.update import update_baseline

DESCRIPTION = (
    "Run evaluation sets against a baseline kept in git, and fail only on evidence of a drop. "
    "Exit codes: 0 passed, 1 failed, 2 usage error, 3 undecided (too few items, failed requests "
    "or the limit of the cost), 4 not recorded."
)
_FOLDER = Path("evals")
# The file to which GitHub Actions appends the summary of a step.
_STEP_SUMMARY = "GITHUB_STEP_SUMMARY"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to ``parser``."""
    parser.add_argument(
        "file",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="gate files, or folders with them; default: all YAML files in evals/",
    )
    mode = parser.add_mutually_exclusive_group()
    for value, text in (
        ("live", "ask the models, although there is a recording"),
        ("record", "ask the models, and write the answers to the recording"),
        ("replay", "take answers only from the recording"),
    ):
        mode.add_argument(
            f"--{value}", dest="mode", action="store_const", const=Mode(value), help=text
        )
    parser.add_argument(
        "--recording", type=Path, metavar="FILE", help="the recording; default: that of the gate"
    )
    parser.add_argument(
        "--max-cost", type=float, metavar="USD", help="limit of the cost; default: of the gates"
    )
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML")
    parser.add_argument("--summary", type=Path, metavar="FILE", help="write a Markdown summary")
    parser.add_argument(
        "--update-baseline", action="store_true", help="write the baselines instead of checking"
    )
    parser.add_argument(
        "--accept", action="store_true", help="with --update-baseline: also if it is worse"
    )


def find_files(files: Sequence[Path]) -> list[Path]:
    """
    Return the gate files, each once: those given, those in given folders, or all in ``evals``.

    Raises:
        UsageError: a folder has none.
    """
    found: dict[Path, Path] = {}
    for path in files or [_FOLDER]:
        for each in _in_folder(path):
            found.setdefault(each.resolve(), each)
    return list(found.values())


def _in_folder(path: Path) -> list[Path]:
    """Return the gate files in a folder; any other path is that of a file."""
    if not path.is_dir() and path != _FOLDER:
        return [path]
    found = sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
    if not found:
        msg = f"No gate file was found in {display_path(path)}/."
        raise UsageError(msg, hint="Name one: python -m llm_magics gate evals/support.yaml")
    return found


def run_command(arguments: argparse.Namespace, write: Callable[[str], object]) -> int:
    """
    Run the command, pass its output to ``write`` and return the exit code.

    Raises:
        LLMError: an argument or a file is invalid, or no request can succeed: exit code 2.
    """
    _check(arguments)
    gates = [load_gate(each) for each in find_files(arguments.file)]
    options = Options(
        mode=arguments.mode or Mode.AUTO,
        recording=arguments.recording,
        max_cost_usd=arguments.max_cost,
    )
    if arguments.update_baseline:
        return _update(gates, options, arguments.accept, write)
    result = run_gates(gates, options)
    write(format_text(result))
    write_reports(result, arguments.junit, arguments.summary)
    return result.exit_code


def write_reports(result: RunResult, junit: Path | None, summary: Path | None) -> None:
    """Write the reports, and the summary of the step in GitHub Actions."""
    if junit is not None:
        write_report(junit, format_junit(result))
    if summary is not None:
        write_report(summary, format_markdown(result))
    if step := os.environ.get(_STEP_SUMMARY):
        write_report(Path(step), f"{format_markdown(result)}\n", is_appended=True)


def _check(arguments: argparse.Namespace) -> None:
    if arguments.accept and not arguments.update_baseline:
        msg = "--accept has no effect without --update-baseline."
        raise UsageError(msg, hint="Add --update-baseline to write the baseline.")
    if arguments.update_baseline and (arguments.junit or arguments.summary):
        msg = "--update-baseline writes no reports."
        raise UsageError(msg, hint="Leave out --junit and --summary.")
    is_replayed = arguments.mode is Mode.REPLAY
    if arguments.update_baseline and arguments.recording is not None and not is_replayed:
        msg = "--recording has no effect on --update-baseline, which asks the models."
        raise UsageError(msg, hint="Add --replay to write the baseline from the recording.")
    if arguments.max_cost is not None and not 0 <= arguments.max_cost < float("inf"):
        msg = f"Invalid value for --max-cost: {arguments.max_cost}."
        raise UsageError(msg, hint="Pass an amount in US dollars, such as 0.50.")
    if arguments.recording is not None and len(arguments.file) != 1:
        msg = "--recording needs exactly one gate file."
        raise UsageError(msg, hint="Name the recording in each gate file: recording: FILE")


def _update(
    gates: Sequence[Gate], options: Options, is_accepted: bool, write: Callable[[str], object]
) -> int:
    check_gates(gates, options)
    outcomes = []
    for gate in gates:
        try:
            update = update_baseline(gate, options, is_accepted=is_accepted)
        except BudgetError as error:
            write(escape_controls(f"{gate.name}: {error} Run it again to continue."))
            outcomes.append(Outcome.UNDECIDED)
            continue
        if update.comparison is not None:
            write(format_text(update.comparison))
        write(escape_controls(update.message))
        outcomes.append(update.outcome)
    order = (Outcome.FAILED, Outcome.NOT_RECORDED, Outcome.UNDECIDED)
    return int(next((each for each in order if each in outcomes), Outcome.PASSED))
