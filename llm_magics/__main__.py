"""``python -m llm_magics doctor [PROVIDER ...]``: check every provider and report what works."""

from __future__ import annotations

import argparse
import sys

from llm_magics._util.text import escape_controls
from llm_magics.errors import LLMError


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code: 1 if a checked provider fails, otherwise 0."""
    parser = argparse.ArgumentParser("python -m llm_magics")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    doctor = commands.add_parser("doctor", help="check every provider and report what works")
    doctor.add_argument(
        "provider", nargs="*", help="check only these; default: all configured providers"
    )
    return _doctor(parser.parse_args(arguments).provider)


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
