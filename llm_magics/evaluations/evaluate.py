"""``lm.evaluate``: run a task on the items of an evaluation set and score the answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, overload

from llm_magics._async.functions import call_function
from llm_magics._async.sync import run_async, run_sync
from llm_magics.evaluations.evaluation_run import EvaluationPlan
from llm_magics.evaluations.preparation import Options, prepare
from llm_magics.evaluations.results import EvaluationResults


@overload
def evaluate(
    task: Any,
    data: Any,
    models: str | Iterable[str] | None = ...,
    *,
    score: Any = ...,
    split: str | None = ...,
    cluster: str | None = ...,
    repeat: int = ...,
    system: str | None = ...,
    concurrency: int = ...,
    name: str | None = ...,
    resume: bool = ...,
    dry_run: Literal[False] = ...,
    yes: bool = ...,
    **parameters: Any,
) -> EvaluationResults: ...


@overload
def evaluate(
    task: Any,
    data: Any,
    models: str | Iterable[str] | None = ...,
    *,
    score: Any = ...,
    split: str | None = ...,
    cluster: str | None = ...,
    repeat: int = ...,
    system: str | None = ...,
    concurrency: int = ...,
    name: str | None = ...,
    resume: bool = ...,
    dry_run: Literal[True],
    yes: bool = ...,
    **parameters: Any,
) -> EvaluationPlan: ...


def evaluate(  # noqa: PLR0913 (a public function)
    task: Any,
    data: Any,
    models: str | Iterable[str] | None = None,
    *,
    score: Any = None,
    split: str | None = None,
    cluster: str | None = None,
    repeat: int = 1,
    system: str | None = None,
    concurrency: int = 4,
    name: str | None = None,
    resume: bool = False,
    dry_run: bool = False,
    yes: bool = False,
    **parameters: Any,
) -> EvaluationResults | EvaluationPlan:
    """
    Run a task on each item of an evaluation set, and score the answers.

    Each run is stored in the user's data folder (setting ``evaluations``): see ``lm.list_evaluations()``.
    Answers are stored as they arrive, so that a run that was stopped can be continued.

    Args:
        task: a prompt with ``{{ column }}``; the name of a prompt file; a function of an item (a
            ``pandas.Series``), which may be asynchronous, and returns an answer of ``lm.ask``, a
            text or another value; or a function of all items, if its first parameter is called
            ``df``: ``lambda df: df.llm.classify("text", labels=[…])``. Functions with a parameter
            ``model`` get the model.
        data: an `EvaluationSet`, or what it can read: the path of a file, a DataFrame, or a list
            of dicts.
        models: the models; by default the one that the prompt file, the function or the setting
            names.
        score: how to score answers, as for ``lm.compare``. A function with a parameter ``row``
            gets the item. Without expected answers in the data, scores that need them fail.
        split: evaluate only the items of this split.
        cluster: the column with the groups in which items are alike, such as the document that
            they are about. Intervals and tests then count groups, not items.
        repeat: how often each item is asked; repeats are averaged in all statistics.
        system, parameters: as for ``lm.ask``; functions get them if they have such parameters.
        concurrency: concurrent requests to each provider, or concurrent calls of a function.
        name: the name of the run; by default that of the task or the data.
        resume: continue the last run of the same task, data, models and parameters, if it did not
            end. A function is the same if its code and the constants that it uses are.
        dry_run: return the `EvaluationPlan` with the cost, and send nothing.
        yes: do not ask for confirmation of the cost. The cost of a function is estimated from its
            first 8 calls.

    Returns:
        one row per item, model and repeat. A failed request has its ``error``, scores 0 and does
        not stop the others; an answer that cannot be scored has no score (NaN). ``.summary()`` has
        means with intervals, ``.differences()`` compares models, or with an earlier run, and
        ``.failures()`` has the worst answers.

    Raises:
        UsageError: an argument or the data are invalid.
        DeclinedError: the user declined the cost.
        BudgetError: the budget is spent; ``partial`` has the results so far.
        Interrupted: ``partial`` has the results so far (with ``lm.aevaluate``, in the
            ``CancelledError``).
    """
    options = Options(
        task=task,
        data=data,
        models=models,
        score=score,
        split=split,
        cluster=cluster,
        repeat=repeat,
        system=system,
        concurrency=concurrency,
        name=name,
        resume=resume,
        yes=yes,
        parameters=parameters,
    )
    run = prepare(options, evaluate)
    if dry_run:
        return run.plan()
    run.confirm()
    try:
        run.start()
        for operation in run.parts():
            run_sync(operation)
        for call in run.frame_calls:
            run.call_frame(call)
    except BaseException as error:
        run.end_early(error)
        raise
    return run.finish()


async def aevaluate(  # noqa: PLR0913 (as for evaluate)
    task: Any,
    data: Any,
    models: str | Iterable[str] | None = None,
    *,
    score: Any = None,
    split: str | None = None,
    cluster: str | None = None,
    repeat: int = 1,
    system: str | None = None,
    concurrency: int = 4,
    name: str | None = None,
    resume: bool = False,
    yes: bool = False,
    **parameters: Any,
) -> EvaluationResults:
    """Run a task on each item of an evaluation set, and score the answers, as `evaluate` does."""
    options = Options(
        task=task,
        data=data,
        models=models,
        score=score,
        split=split,
        cluster=cluster,
        repeat=repeat,
        system=system,
        concurrency=concurrency,
        name=name,
        resume=resume,
        yes=yes,
        parameters=parameters,
    )
    run = prepare(options, evaluate)
    run.confirm()
    try:
        run.start()
        for operation in run.parts():
            await run_async(operation)
        for call in run.frame_calls:
            await call_function(run.call_frame, call)
    except BaseException as error:
        run.end_early(error)
        raise
    return run.finish()
