"""
The command line.

    python -m llm_magics doctor [PROVIDER ...]    check every provider and report what works
    python -m llm_magics gate [FILE ...]          compare evaluation sets with their baseline
"""

from __future__ import annotations

import argparse
import sys

from llm_magics._util.text import escape_controls
from llm_magics.errors import Interrupted, LLMError

_USAGE_ERROR, _INTERRUPTED = 2, 130


def main(arguments: list[str] | None = None) -> int:
    """
    Run the command and return the exit code.

    For ``doctor`` it is 1 if a checked provider fails; for ``gate`` see `_gate`.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["gate"]:
        return _gate(words[1:])
    parser = argparse.ArgumentParser("python -m llm_magics")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    doctor = commands.add_parser("doctor", help="check every provider and report what works")
    doctor.add_argument(
        "provider", nargs="*", help="check only these; default: all configured providers"
    )
    commands.add_parser("gate", help="compare evaluation sets with their baseline")
    return _doctor(parser.parse_args(words).provider)


def _gate(words: list[str]) -> int:
    """
    Run gates. The exit code is 0 if all passed, 1 if one failed, 3 if undecided, 4 if not recorded.

    It is 2 after an error in the arguments or the files, or if no request can succeed.
    """
    # Here, so that other commands do not import pandas.
    from llm_magics.evaluations.gate.command import DESCRIPTION, add_arguments, run_command

    parser = argparse.ArgumentParser("python -m llm_magics gate", description=DESCRIPTION)
    add_arguments(parser)
    try:
        return run_command(parser.parse_args(words), lambda text: sys.stdout.write(f"{text}\n"))
    except LLMError as error:
        sys.stderr.write(f"{error}\n→ {error.hint}\n" if error.hint else f"{error}\n")
        return _USAGE_ERROR
    except Interrupted as error:
        sys.stderr.write(f"{error}\n")
        return _INTERRUPTED


def _doctor(names: list[str]) -> int:
    from llm_magics._async.bridge import bridge
    from llm_magics.errors import nearest
    from llm_magics.runtime.doctor import describe_unlisted, diagnose, format_table
    from llm_magics.runtime.session import session

    known = session.providers.names()
    for name in names:
        if name not in known:
            sys.stderr.write(f'No provider is named "{name}". {nearest(name, known)}\n')
            return 1
    found = bridge.run(diagnose(session, names))
    sys.stdout.write(f"{escape_controls(format_table(found))}\n")
    if not names and (others := describe_unlisted(session)):
        sys.stdout.write(f"{others}\n")
    return 1 if any(each.has_failed for each in found) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LLMError as error:
        sys.exit(f"{error}\n→ {error.hint}" if error.hint else str(error))
