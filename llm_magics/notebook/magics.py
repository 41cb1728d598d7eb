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
from typing import Any

from IPython.core.magic import (
    Magics,
    cell_magic,
    line_magic,
    magics_class,
    needs_local_scope,
    no_var_expand,
)

from llm_magics.notebook import parsers


@magics_class
class LLMMagics(Magics):  # type: ignore[misc]
    """Language models in a cell."""

    @needs_local_scope
    @no_var_expand
    @cell_magic("llm")
    def llm_cell(self, line: str, cell: str, local_ns: Mapping[str, Any]) -> Any:
        r"""Send the lines below to a model; {{ names }} are replaced by the notebook's variables.

        %%llm [MODEL ...] [FLAGS]

        MODEL is provider/name; without one, the setting model is used. Two or more are compared.
        The answer is displayed as it arrives and stored in _llm. With -o ans: ans.text, ans.code,
        ans.json(), ans.df(), ans.usage, ans.timing.

        -o, --output NAME         store the answer in this variable
        -s, --system TEXT         system message
        -f, --format markdown|text|code|json|df
                                  how to display the answer; default: markdown, or json with
                                  --schema
        -t, --template NAME       use the prompt in prompts/NAME.md, or NAME@REVISION from git;
                                  the cell fills {{ input }}
        -p, --param KEY=VALUE     value of {{ KEY }} in the prompt, or a model parameter:
                                  num_ctx=8192
        --schema FIELDS           fields of the answer: "name, age int", or a variable with a schema
                                  or class
        --image X                 image to send: a file, a URL or a variable
        --attach FILE             file to send: PDF, DOCX, HTML, text, audio or an image
        --search                  let the model search the web, and show its sources below the
                                  answer
        --tools F,G               functions defined in the notebook that the model may call
        --mcp SERVER              MCP server whose tools the model may call (repeatable)
        --thread [NAME]           continue a conversation
        --reasoning off|low|medium|high
                                  how much the model thinks before it answers; default: as the
                                  model usually does
        --tier standard|flex      tier of the service: flex is cheaper and slower, where a service
                                  has it
        --temperature T           sampling temperature, 0 or more
        --max-tokens N            maximum length of the answer, in tokens
        --top-p P                 nucleus sampling: probability mass to sample from
        --seed N                  seed for reproducible sampling, where the service supports it
        --stop TEXT               stop before this text; \n is a newline
        --fresh                   bypass the cache
        --save NAME               save the cell as prompts/NAME.md without sending it
        --yes                     do not ask for confirmation
        --dry-run                 show what would be sent, with tokens and cost; send nothing
        --no-stream               display the answer only when it is complete

        -t NAME uses the prompt in prompts/NAME.md, in which the cell is {{ input }}; --save NAME
        saves the cell as such a file. --thread continues a conversation: when the cell runs again,
        it replaces its turn. --tools lets the model call functions of the notebook; without --yes,
        you confirm each call. -p, --image, --attach, --mcp and --stop can be repeated.
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

        %embed EXPR [FLAGS]

        EXPR is a column (df.text, df["text"]) or a list. --into stores the vectors in a column of
        the same DataFrame; -o stores them in a variable; without both they are the result.
        Vectors are cached as they arrive: after an interrupt or a crash, the same line sends only
        the texts without vectors.

        -o, --output NAME         store the result in this variable
        --model MODEL             provider/name; default: the setting embedding_model
        --batch-size N            maximum number of texts per request
        --concurrency N           maximum number of concurrent requests
        --too-long truncate|chunk-mean|error
                                  how to handle texts longer than the model's context
        --on-error null|raise     null: leave a text without a vector if the service refuses it
        --dimensions N            length of the vectors, where the model can shorten them
        --prefix TEXT             text put before each text: "passage: "
        --dry-run                 show what would be sent, with tokens and cost; send nothing
        --yes                     do not ask for confirmation of the cost
        --batch                   embed in batch jobs of the service, at its lower price, and wait
                                  for them
        --no-wait                 with --batch: submit the jobs, and do not wait
        --into COLUMN             store the vectors in this column of the DataFrame
        """
        from llm_magics.notebook import embed_cell as embedding

        return embedding.embed_expression(self.shell, line, self._seen_from(local_ns))

    @no_var_expand
    @cell_magic("embed")
    def embed_cell(self, line: str, cell: str) -> Any:
        """Embed the lines below, one text per line, as a DataFrame of texts and vectors.

        %%embed [FLAGS]

        -o, --output NAME         store the result in this variable
        --model MODEL             provider/name; default: the setting embedding_model
        --batch-size N            maximum number of texts per request
        --concurrency N           maximum number of concurrent requests
        --too-long truncate|chunk-mean|error
                                  how to handle texts longer than the model's context
        --on-error null|raise     null: leave a text without a vector if the service refuses it
        --dimensions N            length of the vectors, where the model can shorten them
        --prefix TEXT             text put before each text: "passage: "
        --dry-run                 show what would be sent, with tokens and cost; send nothing
        --yes                     do not ask for confirmation of the cost
        --batch                   embed in batch jobs of the service, at its lower price, and wait
                                  for them
        --no-wait                 with --batch: submit the jobs, and do not wait
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
    lines = list(lines)
    called: dict[int, list[str]] = {}
    for number in range(len(lines)):
        parts = _continued(lines, number)
        if call := _call(" ".join(parts)):
            called[number] = [call, *["\n"] * (len(parts) - 1)]  # later lines keep their numbers
    for number in _starts_of_statements(lines) & called.keys() if called else ():
        lines[number : number + len(called[number])] = called[number]
    return lines


def _continued(lines: list[str], number: int) -> list[str]:
    """Return a line and those that continue it after a backslash, without line ends."""
    parts = [lines[number].rstrip("\n")]
    while parts[-1].endswith("\\") and number + len(parts) < len(lines):
        parts[-1] = parts[-1][:-1].rstrip()
        parts.append(lines[number + len(parts)].strip())
    return parts


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
