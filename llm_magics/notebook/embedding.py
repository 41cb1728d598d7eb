"""``%embed`` and ``%%embed``: which texts are meant, and where their vectors go."""

from __future__ import annotations

import ast
import re
import sys
from typing import TYPE_CHECKING, Any

from llm_magics.errors import UsageError, nearest
from llm_magics.notebook.options import OptionParser, embed_parser

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell
    from pandas import DataFrame


def embed_expression(shell: InteractiveShell, line: str) -> Any:
    """What ``%embed`` does with its line."""
    from llm_magics.frames import embed as frames

    source, flags = _cut_at_flags(line)
    options = embed_parser("%embed").parse(flags)
    if not source:
        msg = "%embed was not told what to embed."
        raise UsageError(msg, hint="Write %embed df.text --into vector.")
    frame = _frame_of(shell, source) if options.into else None
    texts = _value(shell, source)
    if not hasattr(texts, "index") or isinstance(texts, list | tuple):
        vectors: Any = frames.embed(texts, model=options.model)
        return _kept(shell, options.output, vectors, f"{len(vectors):,} texts embedded")
    column, report = frames.embed_column(texts, options.model)
    if frame is not None:
        frame[options.into] = column
        sys.stdout.write(f"{report} → {options.into}\n")
        return None
    return _kept(shell, options.output, column, str(report))


def embed_lines(shell: InteractiveShell, line: str, cell: str) -> DataFrame | None:
    """What ``%%embed`` does with its line and its cell."""
    import pandas as pd

    from llm_magics.frames.embed import embed_column

    parser: OptionParser = embed_parser("%%embed")
    options = parser.parse(line)
    texts = [text.strip() for text in cell.splitlines() if text.strip()]
    if not texts:
        msg = "The cell is empty."
        raise UsageError(msg, hint="Write one text a line below %%embed.")
    frame = pd.DataFrame({"text": texts})
    frame["vector"], report = embed_column(frame["text"], options.model)
    kept: DataFrame | None = _kept(shell, options.output, frame, str(report))
    return kept


def _kept(shell: InteractiveShell, name: str | None, value: Any, said: str) -> Any:
    """``value`` as the result of the cell, or put into a variable and told of."""
    if name is None:
        return value
    if not name.isidentifier():
        msg = f'-o {name}: "{name}" cannot be a variable\'s name.'
        raise UsageError(msg, hint="Use letters, digits and _, like -o vectors.")
    shell.user_ns[name] = value
    sys.stdout.write(f"{said} → {name}\n")
    return None


def _cut_at_flags(line: str) -> tuple[str, str]:
    """The expression and the flags after it. An expression keeps its quotes and spaces."""
    flag = re.search(r"(?:^|\s)--?[A-Za-z]", line)
    if flag is None:
        return line.strip(), ""
    return line[: flag.start()].strip(), line[flag.start() :].strip()


def _value(shell: InteractiveShell, source: str) -> Any:
    try:
        return eval(source, shell.user_global_ns, shell.user_ns)  # noqa: S307 (the user's own cell)
    except NameError as error:
        known = [name for name in shell.user_ns if name not in shell.user_ns_hidden]
        msg = f"%embed {source}: {error}."
        raise UsageError(
            msg,
            hint=nearest(str(error.name), known, listed=False) or "Define it in a cell before.",
        ) from None
    except Exception as error:
        msg = f"%embed {source}: {type(error).__name__}: {error}."
        raise UsageError(msg, hint="Try the expression in a cell of its own.") from error


def _frame_of(shell: InteractiveShell, source: str) -> DataFrame:
    """The frame of which ``source`` is a column, for the vectors to go into."""
    import pandas as pd

    try:
        expression = ast.parse(source, mode="eval").body
    except SyntaxError as error:
        msg = f"%embed {source}: {error.msg}."
        raise UsageError(msg, hint="Write %embed df.text --into vector.") from None
    if isinstance(expression, ast.Attribute | ast.Subscript):
        base = ast.unparse(expression.value)
        frame = _value(shell, base)
        if isinstance(frame, pd.DataFrame) and not _makes_a_copy(expression.value):
            return frame
    msg = f"--into needs a column of a frame, and {source} is not one."
    raise UsageError(msg, hint="Write %embed df.text --into vector, or keep the result with -o.")


def _makes_a_copy(expression: ast.expr) -> bool:
    return any(isinstance(node, ast.Call) for node in ast.walk(expression))
