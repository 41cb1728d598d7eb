"""Commands that measure and compare models: bench and compare."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from llm_magics.errors import BudgetError, Interrupted, LLMError, UsageError, nearest
from llm_magics.notebook.commands.registry import Variables, command
from llm_magics.notebook.display.output import print_safe
from llm_magics.notebook.parsers import (
    bench_parser,
    check_output_name,
    collect_parameters,
    compare_parser,
)

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell
    from pandas import DataFrame

    from llm_magics.benchmarking.measurements import Measurements

# The columns of the summary to display; the variable of -o has all measurements.
_BENCH_COLUMNS = ["requests", "failed", "ttft_s", "ttft_s_p90", "itl_ms", "e2e_s", "e2e_s_p90", "latency_s", "tokens_per_s", "throughput_tokens_per_s", "cost_usd"]  # fmt: skip
_COMPARE_COLUMNS = ["requests", "failed", "cached", "ttft_s", "e2e_s", "tokens_per_s", "output_tokens", "cost_usd"]  # fmt: skip


@command("bench MODEL… [-o NAME] [FLAGS]")
def bench(shell: InteractiveShell, rest: str, variables: Variables) -> DataFrame:
    """
    Measure the speed of models; -o stores a row for each request.

    --concurrency N,N, --repeat N, --prompts X, --requests N, --seconds S, --rate R,R, --arrival, --warmup N, --same, and the
    parameters of %%llm.
    """
    from llm_magics.benchmarking.bench import bench as measure

    arguments = bench_parser().parse(rest)
    options: dict[str, Any] = {
        "repeat": arguments.repeat,
        "requests": arguments.requests,
        "seconds": arguments.seconds,
        "concurrency": _numbers("--concurrency", arguments.concurrency, int),
        "rate": _numbers("--rate", arguments.rate, float),
        "arrival": arguments.arrival,
        "warmup": arguments.warmup,
        "distinct": not arguments.same,
    }
    if arguments.prompts:
        options["prompts"] = _texts(shell, arguments.prompts, variables)
    runs = _measure(
        shell,
        arguments,
        lambda: measure(models=_models(arguments), **options, **_request_options(arguments)),
    )
    return _summarize(runs, _BENCH_COLUMNS)


@command("compare MODEL… --prompts X [-t NAME …] [-o NAME] [FLAGS]")
def compare(shell: InteractiveShell, rest: str, variables: Variables) -> DataFrame:
    """
    Compare models on the prompts in a variable; -o stores every answer. -t compares prompt files, also with their
    versions in git: -t brief@HEAD~3 -t brief

    --expected X, --score exact,contains,…, --judge MODEL, --repeat N, --concurrency N, and the parameters of
    %%llm.
    """
    from llm_magics.benchmarking import scorers
    from llm_magics.benchmarking.analysis import score_columns
    from llm_magics.benchmarking.compare import compare as measure

    arguments = compare_parser().parse(rest)
    if not arguments.prompts and not arguments.template:
        msg = "%llm compare needs --prompts."
        raise UsageError(msg, hint="Use: %llm compare A B --prompts questions")
    prompts = _texts(shell, arguments.prompts, variables) if arguments.prompts else None
    expected = _evaluate(shell, arguments.expected, variables) if arguments.expected else None
    names = ",".join(arguments.score).split(",")
    score = [_score(name, variables) for name in names if name.strip()]
    score += [scorers.judge(arguments.judge)] if arguments.judge else []
    runs = _measure(
        shell,
        arguments,
        lambda: measure(
            prompts,
            (arguments.models or None) if arguments.template else _models(arguments),
            templates=arguments.template,
            expected=expected,
            score=score or None,
            repeat=arguments.repeat,
            concurrency=arguments.concurrency,
            **_request_options(arguments),
        ),
    )
    _print_differences(runs)
    for name, agreed in runs.attrs.get("judges", {}).items():
        print_safe(f"{name} chose the same answer in both orders for {agreed:.0%} of the pairs")
    scores = score_columns(runs)
    return _summarize(runs, [*scores, *_COMPARE_COLUMNS])


def _models(arguments: argparse.Namespace) -> list[str]:
    from llm_magics.runtime.session import session

    return arguments.models or [str(session.config.model)]


def _request_options(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"system": arguments.system, "yes": arguments.yes, **collect_parameters(arguments)}


def _measure(
    shell: InteractiveShell, arguments: argparse.Namespace, measure: Callable[[], Measurements]
) -> Measurements:
    """
    Return the result of ``measure``, and store it in the variable of ``-o``.

    If it is interrupted or the budget is spent, store the results so far.

    Raises:
        UsageError: no request finished in time.
        LLMError: all requests failed.
    """
    from llm_magics._util.statistics import require_scipy

    check_output_name(arguments.output)
    require_scipy()  # needed for the summary; checked before answers are paid for
    try:
        runs = measure()
    except (Interrupted, BudgetError) as stopped:
        partial = getattr(stopped, "partial", None)
        if arguments.output and partial is not None:
            shell.user_ns[arguments.output] = partial
            stopped.hint = f"Partial results are in {arguments.output}."
        raise
    if arguments.output:
        shell.user_ns[arguments.output] = runs
    if not len(runs):
        msg = "No request finished within the given time."
        raise UsageError(
            msg, hint="Raise the time, or set a number of requests: --seconds 10 or --requests 5"
        )
    if runs["error"].notna().all():
        msg = f"All {len(runs):,} requests failed. First error: {runs['error'].iloc[0]}"
        raise LLMError(msg, hint="Run one of the models alone for the full error: %%llm MODEL")
    return runs


def _summarize(runs: Measurements, names: Sequence[str]) -> DataFrame:
    summary = runs.summary()
    columns: DataFrame = summary[[name for name in names if name in summary]]
    for model, group in runs[runs["error"].notna()].groupby("asked", sort=False):
        of = (runs["asked"] == model).sum()
        print_safe(f"{model}: {len(group):,} of {of:,} requests failed ({group['error'].iloc[0]})")
    return columns.dropna(axis=1, how="all")


def _print_differences(runs: Measurements) -> None:
    import pandas as pd

    from llm_magics.benchmarking.analysis import score_columns

    if runs["asked"].nunique() < 2 or not score_columns(runs):
        return
    differences = pd.concat([runs.differences(name) for name in score_columns(runs)])
    for _, row in differences.iterrows():
        name = str(row["measured"]).removeprefix("score_")
        print_safe(f"{name}: {row['model']} and {row['other']}: {row['verdict']}")


def _texts(shell: InteractiveShell, source: str, variables: Variables) -> list[str]:
    value = _evaluate(shell, source, variables)
    if isinstance(value, str):
        return [value]
    try:
        texts = list(value)
    except TypeError:
        texts = [None]
    if not texts or not all(isinstance(text, str) for text in texts):
        msg = f"--prompts {source} is not a list or column of texts."
        raise UsageError(msg, hint="Pass a list of strings or a column of texts.")
    return texts


def _evaluate(shell: InteractiveShell, source: str, variables: Variables) -> Any:
    try:
        return eval(source, shell.user_global_ns, dict(variables))  # noqa: S307 (the user's own)
    except NameError as error:
        known = [name for name in variables if not name.startswith("_")]
        guess = nearest(str(error.name), known, listed=False)
        msg = f"{source}: {error}."
        hint = guess or "Define it in an earlier cell; put an expression in quotes."
        raise UsageError(msg, hint=hint) from None
    except Exception as error:
        msg = f"{source}: {type(error).__name__}: {error}"
        hint = "Pass the name of a variable, or an expression in quotes."
        raise UsageError(msg, hint=hint) from error


def _score(name: str, variables: Variables) -> Any:
    """Return the name of a built-in scorer, or a function of the notebook."""
    from llm_magics.benchmarking.scorers import SCORERS

    found = None if name.strip() in SCORERS else variables.get(name.strip())
    return found if callable(found) else name.strip()


def _numbers(flag: str, text: str | None, kind: type[int | float]) -> list[Any] | None:
    if text is None:
        return None
    try:
        return [kind(each) for each in text.split(",")]
    except ValueError:
        msg = f"Invalid value for {flag}: {text!r:.60}."
        raise UsageError(
            msg, hint=f"Use numbers separated by commas without spaces: {flag} 1,8"
        ) from None
