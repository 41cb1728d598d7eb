"""``%embed`` and ``%%embed``: the texts to embed and the target of their vectors."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llm_magics.errors import UsageError, nearest
from llm_magics.notebook.display.output import print_safe
from llm_magics.notebook.parsers import check_output_name, embed_parser, strip_comment

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell
    from pandas import DataFrame

    from llm_magics.dataframes.embedding_run import EmbeddedRows
    from llm_magics.runtime.embedding import EmbedOptions


def embed_expression(shell: InteractiveShell, line: str, variables: Mapping[str, Any]) -> Any:
    """Run ``%embed``; ``variables`` are those of the caller."""
    from llm_magics.dataframes.embed import embed_and_write, write_vectors
    from llm_magics.dataframes.rows import check_holds_no_texts, check_not_overwriting

    parser = embed_parser("%embed")
    source, flags = _split_at_flags(strip_comment(line), parser.flags)
    options = parser.parse(flags)
    check_output_name(options.output)
    if not source:
        msg = "%embed needs a column or a list of texts."
        raise UsageError(msg, hint="Use: %embed df.text --into vector")
    frame = _find_frame(shell, source, variables) if options.into else None
    texts = _evaluate(shell, source, variables)
    if frame is not None:
        check_not_overwriting([getattr(texts, "name", None)], [options.into], "vectors")
        check_holds_no_texts(frame, options.into)
    if options.dry_run:
        _print_estimate(texts, options)
        return None
    how = _options(options)

    def write(done: EmbeddedRows) -> Any:
        done.refuse_without_texts(texts)
        vectors: Any = done.column(texts) if hasattr(texts, "iloc") else done.matrix
        targets = []
        if frame is not None:
            where = write_vectors(done, frame, options.into, texts)
            targets.append(where.removeprefix("the column "))
        if options.output:
            shell.user_ns[options.output] = vectors
            targets.append(options.output)
        return _report_result(done, targets, vectors)

    return embed_and_write(write, texts, options.model, how, options.on_error, yes=options.yes)


def embed_lines(shell: InteractiveShell, line: str, cell: str) -> Any:
    """Run ``%%embed``."""
    import pandas as pd

    from llm_magics.dataframes.embed import embed_and_write, write_vectors

    options = embed_parser("%%embed").parse(line)
    check_output_name(options.output)
    # Not splitlines(), which also splits at characters such as U+2028.
    texts = [text.strip() for text in cell.split("\n") if text.strip()]
    if not texts:
        msg = "The cell is empty."
        raise UsageError(msg, hint="Write one text per line below %%embed.")
    if options.dry_run:
        _print_estimate(texts, options)
        return None
    frame = pd.DataFrame({"text": texts})

    def write(done: EmbeddedRows) -> DataFrame | None:
        write_vectors(done, frame, "vector", frame["text"])
        if options.output:
            shell.user_ns[options.output] = frame
        targets = [options.output] if options.output else []
        result: DataFrame | None = _report_result(done, targets, frame)
        return result

    how = _options(options)
    return embed_and_write(write, texts, options.model, how, options.on_error, yes=options.yes)


def _print_estimate(texts: Any, options: argparse.Namespace) -> None:
    from llm_magics.dataframes.embedding_run import estimate_embedding

    print_safe(f"{estimate_embedding(texts, options.model, _options(options))}; nothing was sent")


def _options(options: argparse.Namespace) -> EmbedOptions:
    from llm_magics.runtime.embedding import EmbedOptions

    return EmbedOptions(
        batch_size=options.batch_size,
        concurrency=options.concurrency,
        too_long=options.too_long,
        dimensions=options.dimensions,
        prefix=options.prefix,
        batch=options.batch,
        wait=not options.no_wait,
    )


def _report_result(done: EmbeddedRows, targets: list[str], value: Any) -> Any:
    """Print where the vectors are stored; without ``targets``, ``value`` is the result of the cell."""
    where = " and ".join(targets)
    if isinstance(done.error, KeyboardInterrupt):
        raise done.interrupted(value, where)
    if done.error is not None:
        raise done.error
    if not targets:
        if done.report.counts["failed"] or done.report.counts["no text"]:
            print_safe(str(done.report))
        return value
    print_safe(f"{done.report} → {where}")
    return None


def _split_at_flags(line: str, known: list[str]) -> tuple[str, str]:
    """
    Return the expression and the flags after it.

    An expression may contain quotes, spaces and minus signs. So the line is split before the first
    known flag such that the text before it is a valid Python expression.
    """
    positions = [position.start() for position in re.finditer(r"(?:^|\s)--?[A-Za-z]", line)]
    for position in positions:
        before, after = line[:position].strip(), line[position:].strip()
        if after.split("=")[0].split()[0] in known and _is_expression(before):
            return before, after
    if positions and not _is_expression(line.strip()):  # a mistyped flag, which the parser reports
        return line[: positions[-1]].strip(), line[positions[-1] :].strip()
    return line.strip(), ""


def _is_expression(text: str) -> bool:
    try:
        ast.parse(text, mode="eval")
    except SyntaxError:
        return not text
    return True


def _evaluate(shell: InteractiveShell, source: str, variables: Mapping[str, Any]) -> Any:
    try:
        return eval(source, shell.user_global_ns, dict(variables))  # noqa: S307 (the user's own)
    except SyntaxError as error:
        msg = f"%embed {source}: {error.msg}."
        raise UsageError(msg, hint="Use: %embed df.text --into vector") from None
    except NameError as error:
        known = [name for name in variables if not name.startswith("_")]
        guess = nearest(str(error.name), known, listed=False)
        msg = f"%embed {source}: {error}."
        raise UsageError(msg, hint=guess or "Define it in an earlier cell.") from None
    except Exception as error:
        msg = f"%embed {source}: {type(error).__name__}: {error}"
        raise UsageError(
            msg, hint="Run the expression in its own cell to see the error."
        ) from error


def _find_frame(shell: InteractiveShell, source: str, variables: Mapping[str, Any]) -> DataFrame:
    """
    Return the DataFrame that ``source`` is a column of.

    Raises:
        UsageError: ``source`` is not a column of a DataFrame that is stored in a variable.
    """
    import pandas as pd

    if not _is_expression(source):
        msg = f"%embed {source}: not a valid expression."
        raise UsageError(msg, hint="Use: %embed df.text --into vector")
    expression = ast.parse(source, mode="eval").body
    if isinstance(expression, ast.Attribute | ast.Subscript):
        base = ast.unparse(expression.value)
        frame = _evaluate(shell, base, variables)
        # An expression that returns a new object each time (a mask, a slice, a call) is a copy.
        # Vectors written to it would be lost.
        if isinstance(frame, pd.DataFrame) and frame is _evaluate(shell, base, variables):
            return frame
    msg = f"--into needs a column of a DataFrame in a variable, got {source}."
    raise UsageError(msg, hint="Use %embed df.text --into vector, or store the result with -o.")
