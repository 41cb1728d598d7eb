"""``filter``: the rows for which a statement is true, at a guaranteed quality."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from llm_magics._util.validation import check_integer
from llm_magics.dataframes.operators.consent import DryRunEnd, no_cost
from llm_magics.dataframes.operators.filter_run import FilterRun
from llm_magics.dataframes.operators.known_oracles import RowFunction
from llm_magics.dataframes.operators.options import check_parameters, check_single_oracle
from llm_magics.dataframes.operators.same_kind import as_sized, take_rows
from llm_magics.dataframes.operators.targets import MAX_CALLS, Target
from llm_magics.dataframes.reports import announce, store_report
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.dataframes.rows import OnError, to_frame
from llm_magics.errors import Interrupted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pandas import DataFrame

    from llm_magics.dataframes.operators.filter_report import FilterReport

__all__ = ["filter"]

# Returns the rows at some positions, as an object of the same kind as the table.
Select = Callable[["NDArray[np.intp]"], Any]

# The options that describe the target, and those that say how to send questions.
_TARGETS = ("accuracy", "precision", "recall", "confidence", "max_calls")
_PROMPTS = ("model", "system", "concurrency", "on_error", "fresh", "dry_run", "yes")


def filter(  # noqa: A001, PLR0913 (the name of the operation; as for lm.prompt)
    rows: Any,
    prompt: str,
    *,
    accuracy: float | None = None,
    precision: float | None = None,
    recall: float | None = None,
    confidence: float = 0.95,
    max_calls: int = MAX_CALLS,
    oracle: str | RowFunction | None = None,
    proxy: str | None = "auto",
    seed: int = 0,
    model: str | None = None,
    system: str | None = None,
    concurrency: int | None = None,
    on_error: OnError = "null",
    fresh: bool = False,
    dry_run: bool = False,
    yes: bool = False,
    return_report: bool = False,
    **parameters: Any,
) -> Any:
    """
    Return the rows for which a statement is true, at a guaranteed quality and a low cost.

    The oracle, a good model, is asked about some of the rows. A cheap proxy decides those of which
    it is certain, as far as a random sample of the oracle's answers shows that the target is kept.
    The oracle is asked about all other rows; where a proxy would save nothing, about all rows.
    Answers are cached: the same call continues where it stopped, and one with a tighter target pays
    mostly for the difference.

    Args:
        rows: a DataFrame; or a list, array, or column of pandas, polars or pyarrow, which is the
            column ``text``.
        prompt: a statement with ``{{ column }}``, such as ``"{{ text }} is a complaint"``. Rows in
            which all of these columns are missing are left out.
        accuracy: the share of all answered rows, kept or not, whose decision equals the oracle's.
        precision: the share of the kept rows for which the oracle says yes.
        recall: the share of the rows with yes that are kept. Without any target, precision and
            recall are 0.9. With precision or recall alone, ``max_calls`` are spent, and the result
            makes the most of the other.
        confidence: the probability with which the target is kept.
        max_calls: the number of questions to the oracle, for precision or recall alone.
        oracle: whose answers count as right: the name of a model; the name of a column of human
            labels (booleans, or 0 and 1); or a function of the row, a `pandas.Series`, that returns
            ``True`` or ``False``. By default, ``model``.
        proxy: ``"auto"`` chooses among stored vectors, keywords, and the model of the setting
            ``proxy_model``; or the name of a model; or the name of a column of scores in [0, 1];
            ``None`` asks the oracle about all rows.
        seed: another seed samples other rows.
        model, system, parameters: as for `llm_magics.ask`, for all questions to the oracle.
        concurrency: number of concurrent requests.
        on_error: with ``null``, rows for which the oracle fails are left out and listed in the
            report; ``raise`` raises the error.
        fresh: send prompts even if their answers are cached.
        dry_run: send nothing, and return an estimate of tokens, cost and time: of asking about all
            rows, or, if the answers of the pilot are stored, of what is expected after it.
        yes: do not ask for confirmation of the cost (setting ``confirm_above_usd``). Without it,
            the expected cost is confirmed after a pilot of at most 200 questions, before the first
            one whose answer is not stored.
        return_report: return the rows and the report. The objects of other libraries than pandas
            cannot hold it.

    Returns:
        the rows in their order, as an object of the same kind as ``rows``; with ``return_report``,
        these and a `FilterReport`: its ``frame()`` has the decision about every row, and its
        ``plot()`` is a picture of the scores. It is also the ``.llm.report`` of a pandas DataFrame or
        column.

    Raises:
        UsageError: an option is invalid, the prompt names no column of the rows, the extra
            ``operators`` is not installed, or the cost needs confirmation.
        Interrupted: ``partial`` has the rows that the oracle has confirmed so far; with
            ``return_report``, these and the report.
        LLMError: an error that affects all rows.
    """
    rows = as_sized(rows)
    options = {
        "accuracy": accuracy,
        "precision": precision,
        "recall": recall,
        "confidence": confidence,
        "max_calls": max_calls,
        "oracle": oracle,
        "proxy": proxy,
        "seed": seed,
        "model": model,
        "system": system,
        "concurrency": concurrency,
        "on_error": on_error,
        "fresh": fresh,
        "dry_run": dry_run,
        "yes": yes,
        "return_report": return_report,
        **parameters,
    }
    return filter_frame(to_frame(rows), prompt, partial(take_rows, rows), options)


def filter_frame(frame: DataFrame, prompt: str, select: Select, options: Mapping[str, Any]) -> Any:
    """
    Filter a table that is given as a pandas DataFrame.

    Args:
        frame: the table.
        prompt: the statement.
        select: returns the rows at some positions.
        options: the arguments of `filter`; unknown ones are parameters of the oracle's model.
    """
    rest = dict(options)
    has_report = rest.pop("return_report", False)
    target = Target(**{name: rest.pop(name) for name in _TARGETS if name in rest})
    seed = check_integer("seed", rest.pop("seed", 0), least=-(2**63), most=2**63 - 1)
    oracle, proxy = rest.pop("oracle", None), rest.pop("proxy", "auto")
    own = {name: rest.pop(name) for name in _PROMPTS if name in rest}
    check_parameters(filter, rest)
    check_single_oracle(oracle, own.get("model"))
    prompt_spec = RowPrompts(text=prompt, parameters=rest, **own)
    run = FilterRun(frame, prompt_spec, target=target, seed=seed)
    run.prepare(oracle, proxy)
    try:
        run.decide()
    except DryRunEnd as end:
        return end.estimate
    except KeyboardInterrupt:
        raise _interrupted(run, select, has_report=has_report) from None
    if prompt_spec.dry_run:
        return no_cost(run.rows)
    report = run.report()
    result = _with_report(select(run.kept), report, has_report=has_report)
    details = "see the report's frame()" if has_report else "return_report=True returns the report"
    if hasattr(result, "llm"):
        details = "see .llm.report.frame()"
    announce(report, "", has_failed=report.failed > 0, details=details)
    return result


def _with_report(result: Any, report: FilterReport, *, has_report: bool) -> Any:
    """Return ``result``, which holds its report if it can; or a pair of both."""
    if hasattr(result, "llm"):  # a DataFrame or column of pandas or Dask
        store_report(result, report)
    return (result, report) if has_report else result


def _interrupted(run: FilterRun, select: Select, *, has_report: bool) -> Interrupted:
    """Return the exception for an interrupt, with the rows that the oracle has confirmed."""
    asked = run.asked
    result = _with_report(select(run.kept), run.report(), has_report=has_report)
    msg = f"Stopped: the oracle was asked about {asked:,} of {run.questions:,} rows."
    hint = None
    if asked and run.stores_answers:
        hint = "Their answers are stored and will not be requested again."
    return Interrupted(msg, hint=hint, partial=result)
