"""
``%env SOME_API_KEY=…`` in a cell: set, and not shown.

IPython prints such a line back, and the output is saved with the notebook. So the key is set
here, unseen, and the better way is told.
"""

from __future__ import annotations

import os
import re

from llm_magics.secrets import Secret

_LINE = re.compile(
    r"^(?P<space>\s*)%(?:env|set_env)\s+(?P<name>\w*(?:KEY|TOKEN|SECRET)\w*)\s*[= ]\s*(?P<value>\S.*?)\s*$",
    re.IGNORECASE,
)


def hide(lines: list[str]) -> list[str]:
    """The cell with such lines turned into a call that sets the variable unseen."""
    return [_hidden(line) for line in lines]


# IPython must not ask it whether what is being typed in a terminal is complete.
hide.has_side_effects = True  # type: ignore[attr-defined]


def _hidden(line: str) -> str:
    found = _LINE.match(line)
    if found is None or found["value"].startswith(
        ("$", "{")
    ):  # a variable's value is not written here
        return line
    call = "__import__('llm_magics.notebook.typed_keys', fromlist=['x']).set_unseen"
    return f"{found['space']}{call}({found['name']!r}, {found['value']!r})\n"


def set_unseen(name: str, value: str) -> None:
    """Set the variable, and say how it is done better."""
    os.environ[name] = value.strip("\"'")
    Secret(value.strip("\"'"))  # taken out of whatever is shown from now on
    print(
        f"{name} is set, and not shown. It stands in this cell all the same, and is saved with the\n"
        "notebook: clear the line. %llm key PROVIDER asks for a key unseen and keeps it."
    )
