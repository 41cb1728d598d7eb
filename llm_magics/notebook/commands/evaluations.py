"""The command that compares evaluation sets with their baseline: gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_magics.errors import GateError
from llm_magics.notebook.commands.registry import Variables, command
from llm_magics.notebook.display.output import print_safe
from llm_magics.notebook.parsers import gate_parser

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


@command("gate [FILE …] [FLAGS]")
def gate(shell: InteractiveShell, rest: str, variables: Variables) -> None:
    """
    Compare evaluation sets with their baseline, and fail only on evidence of a drop.

    FILE is a gate file, such as evals/support.yaml; by default all in evals/. --update-baseline
    writes the baseline, --record the recording. The cell fails unless all checks pass.
    """
    from llm_magics.evaluations.gate.command import run_command
    from llm_magics.evaluations.gate.results import Outcome

    outcome = Outcome(run_command(gate_parser().parse(rest), print_safe))
    if outcome is not Outcome.PASSED:
        msg = f"The gate did not pass: {outcome.words}."
        raise GateError(msg, hint=_HINTS[outcome.value])


_HINTS = {
    1: "The lines above name the checks and the items with the largest drops.",
    3: "Add items or repeats, or name a larger drop in the gate file.",
    4: "Record the answers with: %llm gate --record FILE",
}
