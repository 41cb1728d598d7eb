"""
The magics ``%%llm``, ``%llm``, ``%embed`` and ``%%embed``, and the transformers of their cells.

IPython treats ``%llm ask Why is the sky blue?`` as a help request for an object named ``blue``, and
would display an answer a second time as the result of its line. So such lines are first transformed
to calls of the magic. ``%llm pull?`` shows the help of the subcommand; IPython handles ``%llm?``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from tokenize import COMMENT, DEDENT, ENCODING, INDENT, NEWLINE, NL
from typing import TYPE_CHECKING, Any

from IPython.core.magic import (
    Magics,
    cell_magic,
    line_magic,
    magics_class,
    needs_local_scope,
    no_var_expand,
)

from llm_magics.notebook import parsers

if TYPE_CHECKING:
    from pandas import DataFrame


@magics_class
class LLMMagics(Magics):  # type: ignore[misc]
    """Language models in a cell."""

    @needs_local_scope
    @no_var_expand
    @cell_magic("llm")
    def llm_cell(self, line: str, cell: str, local_ns: Mapping[str, Any]) -> Any:
        """Send the prompt in the lines below to a model; {{ names }} are the notebook's variables.

        %%llm [MODEL ...] [-o NAME] [-s SYSTEM] [-f markdown|text|code|json|df]
              [-t TEMPLATE] [-p KEY=VALUE ...] [--schema FIELDS] [--image X ...] [--thread [NAME]]
              [--tools F,G]
              [--temperature T] [--max-tokens N] [--top-p P] [--seed N] [--stop TEXT]
              [--fresh] [--dry-run] [--no-stream] [--save NAME] [--yes]

        The answer is displayed as it arrives and stored in _llm. With -o ans: ans.text, ans.code,
        ans.json(), ans.df(), ans.usage, ans.timing. Two or more models are compared.

        -t NAME uses the prompt in prompts/NAME.md, in which the cell is {{ input }}; --save NAME
        saves the cell as such a file. --thread continues a conversation: when the cell runs again,
        it replaces its turn. --tools lets the model call functions of the notebook; without --yes,
        you confirm each call. --dry-run shows the messages and the cost, and sends nothing.
        """
        from llm_magics.notebook import prompt_cell

        parsed = parsers.llm_cell_parser().parse(line)
        return prompt_cell.answer_cell(self.shell, parsed, cell, self._seen_from(local_ns))

    @needs_local_scope
    @no_var_expand
    @line_magic("llm")
    def llm_line(self, line: str, local_ns: Mapping[str, Any]) -> Any:
        """Run a subcommand; %llm help lists them."""
        from llm_magics.notebook import commands

        return commands.run(self.shell, line, self._seen_from(local_ns))

    @needs_local_scope
    @no_var_expand
    @line_magic("embed")
    def embed_line(self, line: str, local_ns: Mapping[str, Any]) -> Any:
        """Embed texts as vectors.

        %embed EXPR [--into COLUMN] [-o NAME] [--model MODEL] [--batch-size N] [--concurrency N]
               [--too-long truncate|chunk-mean|error] [--on-error null|raise] [--dimensions N]
               [--prefix TEXT] [--dry-run] [--yes]

        EXPR is a column (df.text, df["text"]) or a list. --into stores the vectors in a column of
        the same DataFrame; -o stores them in a variable; without both they are the result.
        Vectors are cached as they arrive: after an interrupt or a crash, the same line sends only
        the texts without vectors.
        """
        from llm_magics.notebook import embed_cell as embedding

        return embedding.embed_expression(self.shell, line, self._seen_from(local_ns))

    @no_var_expand
    @cell_magic("embed")
    def embed_cell(self, line: str, cell: str) -> DataFrame | None:
        """Embed the lines below, one text per line, as a DataFrame of texts and vectors.

        %%embed [-o NAME] [--model MODEL] [--batch-size N] [--concurrency N]
                [--too-long truncate|chunk-mean|error] [--on-error null|raise] [--dimensions N]
                [--prefix TEXT] [--dry-run] [--yes]
        """
        from llm_magics.notebook import embed_cell as embedding

        return embedding.embed_lines(self.shell, line, cell)

    def _seen_from(self, local_ns: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the variables that the magic can use; it may be inside a function."""
        return {**self.shell.user_ns, **local_ns}


_MAGIC_LINE = re.compile(
    r"""^(?P<space>\s*)(?P<target>[\w.\[\]"', ]+=\s*)?%llm[ \t]+(?P<name>\w+)(?P<rest>.*?)\s*$"""
)

# Subcommands that display their result while it arrives.
_DISPLAYED_COMMANDS = frozenset({"ask", "explain", "image"})

_LAYOUT = frozenset({COMMENT, DEDENT, ENCODING, INDENT, NEWLINE, NL})


def call_magics(lines: list[str]) -> list[str]:
    """Return a cell's lines, with ``%llm`` lines that IPython would misread transformed to calls."""
    first = next((line for line in lines if line.strip()), "")
    if first.startswith("%%"):  # its body is not Python, or is transformed when it is run
        return lines
    called = {number: call for number, line in enumerate(lines) if (call := _call(line))}
    starts = _starts_of_statements(lines) if called else set()
    return [
        called[number] if number in called and number in starts else line
        for number, line in enumerate(lines)
    ]


# Do not run this transformer to check whether the input in a terminal is complete.
call_magics.has_side_effects = True  # type: ignore[attr-defined]


def _call(line: str) -> str | None:
    found = _MAGIC_LINE.match(line)
    if found is None:
        return None
    name, rest, target = found["name"], found["rest"], found["target"] or ""
    if name not in _DISPLAYED_COMMANDS and not rest.endswith("?"):
        return None
    text = f"{name}{rest}"
    if rest in ("?", "??"):
        text = f"help {name}"
    end = (
        "" if target or name not in _DISPLAYED_COMMANDS else " and None"
    )  # so that IPython does not display the result again
    return f"{found['space']}{target}get_ipython().run_line_magic('llm', {text!r}){end}\n"


def _starts_of_statements(lines: list[str]) -> set[int]:
    """Return the positions of the lines on which a statement starts, not those inside a string."""
    from IPython.core.inputtransformer2 import make_tokens_by_line

    starts = set()
    for tokens in make_tokens_by_line(lines):
        first = next((token for token in tokens if token.type not in _LAYOUT), None)
        if first is not None:
            starts.add(first.start[0] - 1)
    return starts


def keep_empty_cell(lines: list[str]) -> list[str]:
    """
    Add an empty line to a ``%%llm`` or ``%%embed`` cell that has no body.

    IPython would otherwise raise its own ``UsageError``, which nbval treats as success.
    """
    if len(lines) == 1 and lines[0].startswith(("%%llm", "%%embed")):
        return [lines[0].rstrip("\n") + "\n", "\n"]
    return lines


# Do not run this transformer to check whether the input in a terminal is complete.
keep_empty_cell.has_side_effects = True  # type: ignore[attr-defined]
