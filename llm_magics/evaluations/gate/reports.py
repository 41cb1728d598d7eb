"""Reports of gates: lines for a terminal, a summary in Markdown, and JUnit XML."""

from __future__ import annotations

import html
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from llm_magics._util.filesystem import atomic_write, display_path
from llm_magics._util.text import escape_controls, format_usd, one_line, pluralize, reason_of
from llm_magics.errors import UsageError
from llm_magics.evaluations.gate.results import CheckResult, Outcome, RunResult

# Items that are listed by id; the others are counted.
_LISTED = 20
# Characters that XML 1.0 does not allow.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|~#])")


def format_text(result: RunResult) -> str:
    """Return the results as text, for a terminal or the output of a cell."""
    lines = []
    for each in result.checks:
        scores = _scores(each)
        first = f"{each.name}: {scores}" if scores else each.name
        lines.append(f"{each.outcome.words:12}  {first}")
        lines += [f"{'':12}  {line}" for line in (each.reason, *_details(each))]
    lines += [one_line(note) for note in result.notes]
    lines.append(
        f"gate {result.outcome.words}: {pluralize(len(result.checks), 'check')}, {_cost(result)}"
    )
    return escape_controls("\n".join(lines))


def describe(check: CheckResult) -> str:
    """Return the scores and the reason of a check in one line."""
    scores = _scores(check)
    return f"{scores}; {check.reason}" if scores else check.reason


def _scores(check: CheckResult) -> str:
    """Return the scores, the number of items and p; empty without new scores."""
    if math.isnan(check.new):
        return ""
    p = "" if math.isnan(check.p) else f", p = {check.p:.4f}"
    items = pluralize(check.items, "item")
    return f"{check.baseline:.3f} → {check.new:.3f} over {items}{p}"


def describe_check(check: CheckResult) -> str:
    """Return the outcome of a check with the lists of its items."""
    first = f"{check.outcome.words}: {check.name}: {describe(check)}"
    return escape_controls("\n".join([first, *_details(check)]))


def _details(check: CheckResult) -> list[str]:
    """Return lines with the lists of items."""
    lines = []
    if check.worse and check.outcome is Outcome.FAILED:
        worst = [
            f"{', '.join(one_line(item) for item, *_ in items)} ({was:.2f} → {now:.2f})"
            for (was, now), items in groupby(check.worse, key=lambda each: each[1:])
        ]
        lines.append(f"largest drops: {', '.join(worst)}")
    left_out = ", left out" if check.are_flaky_left_out else ""
    for what, items in (
        (f"flaky in the baseline{left_out}", check.flaky),
        ("not in the baseline, or changed since", check.unmatched),
        ("not in the recording", check.unrecorded),
        ("without an answer", check.missing),
    ):
        if items:
            lines.append(f"{what}: {_listed(items)}")
    return lines


def _listed(items: Sequence[str]) -> str:
    rest = len(items) - _LISTED
    more = f" and {rest:,} more" if rest > 0 else ""
    return f"{', '.join(map(one_line, sorted(items)[:_LISTED]))}{more}"


def _cost(result: RunResult) -> str:
    if not result.is_live:
        return "from recorded answers"
    return f"{format_usd(result.cost_usd)}, {result.elapsed_s:.1f} s"


def format_markdown(result: RunResult) -> str:
    """Return a summary in Markdown, for example for the page of a run of GitHub Actions."""
    lines = [
        f"## Gate {result.outcome.words}",
        "",
        "| check | outcome | baseline | now | items | needed | drop to find | p |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for each in result.checks:
        scores = f"{_number(each.baseline)} | {_number(each.new)}"
        sample = f"{each.items:,} | {each.required:,} | {each.drop:.3g}"
        lines.append(
            f"| {_plain(each.name)} | {each.outcome.words} | {scores} | {sample} | {_number(each.p, 4)} |"
        )
    lines.append("")
    for each in result.checks:
        lines += [f"- **{_plain(each.name)}**: {_plain(each.reason)}"]
        lines += [f"  - {_plain(line)}" for line in _details(each)]
    lines += [f"- {_plain(note)}" for note in result.notes]
    lines += ["", f"{pluralize(len(result.checks), 'check')}, {_cost(result)}", ""]
    return "\n".join(lines)


def _number(value: float, digits: int = 3) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def _plain(text: str) -> str:
    """Return ``text`` on one line, without effect as Markdown or HTML."""
    escaped = _MARKDOWN.sub(r"\\\1", escape_controls(one_line(text)))
    return html.escape(escaped, quote=False).replace("\\&lt;", "&lt;").replace("\\&gt;", "&gt;")


def format_junit(result: RunResult) -> str:
    """Return JUnit XML: a test suite for each gate, a test case for each check."""
    # All checks run together; tools add up the times of the cases.
    share_s = result.elapsed_s / max(1, len(result.checks))
    root = ET.Element("testsuites", _counts(result.checks, "llm_magics gate", share_s))
    for name, group in groupby(result.checks, key=lambda each: each.gate):
        checks = list(group)
        suite = ET.SubElement(root, "testsuite", _counts(checks, name, share_s))
        suite.set("skipped", "0")
        for check in checks:
            _add_case(suite, check, share_s)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _counts(checks: Sequence[CheckResult], name: str, share_s: float) -> dict[str, str]:
    failed = sum(each.outcome is Outcome.FAILED for each in checks)
    passed = sum(each.outcome is Outcome.PASSED for each in checks)
    return {
        "name": _xml(name),
        "tests": str(len(checks)),
        "failures": str(failed),
        "errors": str(len(checks) - failed - passed),
        "time": f"{share_s * len(checks):.3f}",
    }


def _add_case(suite: ET.Element, check: CheckResult, share_s: float) -> None:
    case = ET.SubElement(
        suite,
        "testcase",
        {
            "classname": _xml(check.gate),
            "name": _xml(f"{check.label} · {check.score}"),
            "time": f"{share_s:.3f}",
        },
    )
    details = _xml("\n".join([describe(check), *_details(check)]))
    if check.outcome is Outcome.PASSED:
        ET.SubElement(case, "system-out").text = details
        return
    kind = "failure" if check.outcome is Outcome.FAILED else "error"
    message = _xml(f"{check.outcome.words}: {one_line(check.reason)}")
    facts = {"type": check.outcome.words, "message": message}
    ET.SubElement(case, kind, facts).text = details


def _xml(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def write_report(path: Path, text: str, *, is_appended: bool = False) -> None:
    """
    Write a report.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        if is_appended:
            with path.open("a", encoding="utf-8") as file:
                file.write(text)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, text)
    except OSError as error:
        msg = f"Could not write {display_path(path)}: {reason_of(error)}."
        raise UsageError(msg, hint="Choose another file.") from None
