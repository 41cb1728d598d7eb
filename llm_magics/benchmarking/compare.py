"""``lm.compare``: send the same prompts to several models and score their answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from llm_magics._async.sync import Operation, run_async, run_sync
from llm_magics._util import validation
from llm_magics._util.validation import check_integer
from llm_magics.benchmarking import evaluation, measure
from llm_magics.benchmarking.analysis import MODEL_COLUMN
from llm_magics.benchmarking.contenders import Contender, find_contenders
from llm_magics.benchmarking.job_run import JobRun, calls_by_model
from llm_magics.benchmarking.latencies import resolve_tokenizer
from llm_magics.benchmarking.measure import (
    PARTIAL_HINT,
    Job,
    Record,
)
from llm_magics.benchmarking.measurements import Measurements
from llm_magics.errors import Interrupted
from llm_magics.runtime.chat import ChatCall
from llm_magics.runtime.confirm import confirm_calls
from llm_magics.runtime.prompts.prompt import Prompt
from llm_magics.runtime.session import session


def compare(  # noqa: PLR0913 (a public function)
    prompts: str | Iterable[str] | None = None,
    models: str | Iterable[str] | None = None,
    *,
    templates: str | Iterable[str] = (),
    system: str | None = None,
    variables: Mapping[str, Any] | None = None,
    expected: Any = None,
    score: Any = None,
    repeat: int = 1,
    concurrency: int = 1,
    tokenizer: Any = None,
    yes: bool = False,
    **parameters: Any,
) -> Measurements:
    """
    Send each prompt to each model and measure quality, speed and cost.

    Args:
        prompts, models: a string or a list of strings.
        templates: prompt files to compare with each other, such as ``["brief@HEAD~3", "brief"]``;
            ``prompts`` are their ``{{ input }}``. Each model gets each of them.
        system, variables, parameters: as for ``lm.ask``, the same for all requests.
        expected: the expected answers: one for all, one per prompt in the same order, or a
            mapping from prompts.
        score: how to score answers: ``"exact"``, ``"contains"``, ``"numeric"``, ``"similar"``,
            ``"regex"``, ``"json_valid"``, ``scorers.judge(…)``, or a function of the answer
            (and the expected answer). Pass several as a list, or as a mapping from names.
        repeat: how often each prompt is sent.
        concurrency: concurrent requests to each provider. Providers run in parallel.
        tokenizer: as for `lm.bench`.
        yes: do not ask for confirmation of the cost.

    Returns:
        one row per prompt and model, with the answer in ``text``, the columns of ``lm.runs``,
        and a column ``score_…`` per score. A failed request has its ``error`` there and does
        not stop the others. ``.summary()``, ``.differences()`` and ``.plot_frontier()`` compare
        the models.

    Raises:
        UsageError: an argument is invalid.
        BudgetError: the budget is spent; ``partial`` has the results so far.
        Interrupted: ``partial`` has the results so far (with ``lm.acompare``, in the
            ``CancelledError``).
    """
    return run_sync(
        _compare_operation(
            prompts,
            models,
            templates=templates,
            system=system,
            variables=variables,
            expected=expected,
            score=score,
            repeat=repeat,
            concurrency=concurrency,
            tokenizer=tokenizer,
            yes=yes,
            parameters=parameters,
        )
    )


async def acompare(  # noqa: PLR0913 (a public function)
    prompts: str | Iterable[str] | None = None,
    models: str | Iterable[str] | None = None,
    *,
    templates: str | Iterable[str] = (),
    system: str | None = None,
    variables: Mapping[str, Any] | None = None,
    expected: Any = None,
    score: Any = None,
    repeat: int = 1,
    concurrency: int = 1,
    tokenizer: Any = None,
    yes: bool = False,
    **parameters: Any,
) -> Measurements:
    """
    Send each prompt to each model and measure quality, speed and cost.

    Args:
        prompts, models: a string or a list of strings.
        templates: prompt files to compare with each other, such as ``["brief@HEAD~3", "brief"]``;
            ``prompts`` are their ``{{ input }}``. Each model gets each of them.
        system, variables, parameters: as for ``lm.ask``, the same for all requests.
        expected: the expected answers: one for all, one per prompt in the same order, or a
            mapping from prompts.
        score: how to score answers: ``"exact"``, ``"contains"``, ``"numeric"``, ``"similar"``,
            ``"regex"``, ``"json_valid"``, ``scorers.judge(…)``, or a function of the answer
            (and the expected answer). Pass several as a list, or as a mapping from names.
        repeat: how often each prompt is sent.
        concurrency: concurrent requests to each provider. Providers run in parallel.
        tokenizer: as for `lm.bench`.
        yes: do not ask for confirmation of the cost.

    Returns:
        one row per prompt and model, with the answer in ``text``, the columns of ``lm.runs``,
        and a column ``score_…`` per score. A failed request has its ``error`` there and does
        not stop the others. ``.summary()``, ``.differences()`` and ``.plot_frontier()`` compare
        the models.

    Raises:
        UsageError: an argument is invalid.
        BudgetError: the budget is spent; ``partial`` has the results so far.
        Interrupted: ``partial`` has the results so far (with ``lm.acompare``, in the
            ``CancelledError``).
    """
    return await run_async(
        _compare_operation(
            prompts,
            models,
            templates=templates,
            system=system,
            variables=variables,
            expected=expected,
            score=score,
            repeat=repeat,
            concurrency=concurrency,
            tokenizer=tokenizer,
            yes=yes,
            parameters=parameters,
        )
    )


def _compare_operation(  # noqa: PLR0913 (a public function)
    prompts: str | Iterable[str] | None,
    models: str | Iterable[str] | None,
    *,
    templates: str | Iterable[str],
    system: str | None,
    variables: Mapping[str, Any] | None,
    expected: Any,
    score: Any,
    repeat: int,
    concurrency: int,
    tokenizer: Any,
    yes: bool,
    parameters: dict[str, Any],
) -> Operation[Measurements]:
    validation.check_misspelled(parameters, compare)
    contenders = find_contenders(models, templates)
    texts = [""] if prompts is None and templates else validation.check_texts("prompts", prompts)
    evaluation.check_scorers(score, expected, len(contenders))
    right = None if expected is None else evaluation.expected_by_prompt(texts, expected)
    times = check_integer("repeat", repeat)
    prompt = Prompt(
        text="",
        model=None,
        system=system,
        parameters=parameters,
        variables=variables,
        is_fresh=times > 1,
    )
    jobs = _build_jobs(prompt, texts, contenders, times, right)
    at_once, record = (
        check_integer("concurrency", concurrency),
        Record(resolve_tokenizer(tokenizer)),
    )
    if not yes:
        confirm_calls(calls_by_model(jobs))
    about = {
        **measure.describe_environment(each.model for each in contenders),
        **measure.request_settings(system, parameters),
    }
    call = JobRun(jobs=jobs, ask=record.ask, record=record, at_once=at_once, about=about)

    def result() -> Measurements:
        return _add_scores(call.result(), score, yes=yes)

    def stopped() -> Interrupted:
        partial = call.result(is_stopped=True)
        evaluation.add_scores(partial, evaluation.rule_scorers(score))
        msg = f"Stopped after {call.record.so_far()}."
        return Interrupted(msg, hint=PARTIAL_HINT if len(partial) else None, partial=partial)

    return Operation(call, result, stopped)


def _add_scores(measurements: Measurements, score: Any, *, yes: bool) -> Measurements:
    """Add the scores. An interrupt while scoring keeps the answers, which are already paid for."""
    try:
        evaluation.add_scores(measurements, score, yes=yes)
    except KeyboardInterrupt:
        msg = f"Stopped while scoring; all {len(measurements):,} answers are complete."
        raise Interrupted(
            msg, hint=f"{PARTIAL_HINT}; score them with .scored(…)", partial=measurements
        ) from None
    return measurements


def _build_jobs(
    prompt: Prompt,
    texts: Sequence[str],
    contenders: Sequence[Contender],
    repeat: int,
    right: Sequence[Any] | None,
) -> list[Job]:
    """
    Return one job per row of the result, in the order of the rows.

    The calls are built here, in the calling thread, because templates run the user's code. Errors
    in prompts and parameters are reported before anything is sent.
    """
    jobs = []
    for each, row, column in product(range(repeat), range(len(texts)), range(len(contenders))):
        of = contenders[column]
        model_prompt = replace(prompt, text=texts[row], model=of.model, template=of.template)
        columns: dict[str, Any] = {"repeat": each} if repeat > 1 else {}
        columns |= {MODEL_COLUMN: of.label, **of.columns, "prompt": texts[row]}
        columns |= {} if right is None else {"expected": right[row]}
        jobs.append(
            Job(
                position=(each, row, column),
                prompt=model_prompt,
                columns=columns,
                call=ChatCall(session, model_prompt),
            )
        )
    return jobs
