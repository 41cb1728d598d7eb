"""
A pytest plugin: the checks of gate files as tests.

    pytest --llm-gate evals

Without ``--llm-gate`` it does nothing, and imports nothing but pytest. Every check of a gate file
is a test, which fails unless the check passes. All gates of a run share its error rate of 5 %;
they are run together, with the first of their tests. The workers of pytest-xdist share one run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from llm_magics.evaluations.gate.results import CheckResult, RunResult
    from llm_magics.evaluations.gate.specification import Gate

# Gate files in a folder of this name are collected; others if they are named.
_FOLDER = "evals"
_SUFFIXES = (".yaml", ".yml")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flags."""
    group = parser.getgroup("llm_magics", "gates of llm_magics")
    group.addoption(
        "--llm-gate",
        action="store_true",
        help="run gate files: YAML files in folders called evals, and those that are named",
    )
    group.addoption(
        "--llm-gate-mode",
        choices=["auto", "live", "record", "replay"],
        default="auto",
        help="where answers come from; auto: from recordings, if there are any",
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect gate files."""
    if not parent.config.getoption("--llm-gate") or file_path.suffix not in _SUFFIXES:
        return None
    if file_path.parent.name != _FOLDER and not parent.session.isinitpath(file_path):
        return None
    return _GateFile.from_parent(parent, path=file_path)


class _GateFile(pytest.File):
    """A gate file."""

    def collect(self) -> Iterable[pytest.Item]:
        from llm_magics.errors import LLMError
        from llm_magics.evaluations.gate.specification import load_gate

        try:
            gate = load_gate(self.path)
        except LLMError as error:
            raise self.CollectError(_explain(error)) from None
        for label in gate.rules.models:
            for score in gate.rules.scores:
                yield _CheckItem.from_parent(
                    self, name=f"{label}-{score}", gate=gate, label=label, score=score
                )


class _CheckFailed(Exception):  # noqa: N818 (it is never seen by name)
    """A check did not pass; the message is its report."""


class _CheckItem(pytest.Item):
    """One check of a gate file."""

    def __init__(self, *, gate: Gate, label: str, score: str, **options: Any) -> None:
        super().__init__(**options)
        self.gate, self._label, self._score = gate, label, score

    def runtest(self) -> None:
        from llm_magics.evaluations.gate.reports import describe_check
        from llm_magics.evaluations.gate.results import Outcome

        check = self._find(_run_once(self.session))
        report = describe_check(check)
        self.add_report_section("call", "gate", report)
        if check.outcome is not Outcome.PASSED:
            raise _CheckFailed(report)

    def _find(self, result: RunResult) -> CheckResult:
        wanted = (self.gate.name, self._label, self._score)
        return next(
            each for each in result.checks if (each.gate, each.label, each.score) == wanted
        )

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        from llm_magics.errors import LLMError

        if isinstance(excinfo.value, _CheckFailed):
            return str(excinfo.value)
        if isinstance(excinfo.value, LLMError):
            return _explain(excinfo.value)
        return str(super().repr_failure(excinfo, style))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"gate {self.gate.name}: {self._label}, {self._score}"


_RESULT: pytest.StashKey[RunResult | Exception] = pytest.StashKey()


def _run_once(session: pytest.Session) -> RunResult:
    """Return the results of all gates of the session, which are run once."""
    from llm_magics.errors import LLMError

    stash = session.config.stash
    if _RESULT not in stash:
        try:
            stash[_RESULT] = _run(session)
        except LLMError as error:
            stash[_RESULT] = error
    found = stash[_RESULT]
    if isinstance(found, Exception):
        raise found
    return found


def _run(session: pytest.Session) -> RunResult:
    """Run all gates of the session, or wait for another worker of pytest-xdist that does."""
    from llm_magics.evaluations.gate.runner import Mode, Options, run_gates
    from llm_magics.evaluations.gate.shared_run import run_once

    def run() -> RunResult:
        mode = Mode(session.config.getoption("--llm-gate-mode"))
        return run_gates(list(_gates(session)), Options(mode=mode))

    # Workers on this machine have their temporary folders in that of the session.
    worker = getattr(session.config, "workerinput", {})
    folder = session.config.getoption("basetemp")
    if "testrunuid" not in worker or folder is None:
        return run()
    return run_once(Path(folder).parent / f"llm-gate-{worker['testrunuid']}.json", run)


def _gates(session: pytest.Session) -> Iterator[Gate]:
    gates = {each.path: each.gate for each in session.items if isinstance(each, _CheckItem)}
    return iter(gates.values())


def _explain(error: Any) -> str:
    return f"{error}\n→ {error.hint}" if error.hint else str(error)
