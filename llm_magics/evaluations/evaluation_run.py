"""A run of an evaluation: its jobs, their cost, and the rows so far, which are stored as they come."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from llm_magics._async.bridge import bridge
from llm_magics._async.sync import Operation
from llm_magics._util.text import format_usd, pluralize
from llm_magics.benchmarking import evaluation
from llm_magics.benchmarking.analysis import SCORE_PREFIX
from llm_magics.benchmarking.job_run import JobRun, calls_by_model
from llm_magics.benchmarking.measure import PARTIAL_HINT, Job
from llm_magics.errors import Interrupted, LLMError
from llm_magics.evaluations import stored
from llm_magics.evaluations.datasets import EvaluationSet
from llm_magics.evaluations.frame_calls import FrameCall
from llm_magics.evaluations.record import EvaluationRecord
from llm_magics.evaluations.results import WHILE_SCORING, EvaluationResults, add_scores
from llm_magics.evaluations.run_files import RunJournal
from llm_magics.evaluations.tasks import FunctionJob
from llm_magics.host import current_host, warn
from llm_magics.runtime.batch import BatchCall, BatchEstimate
from llm_magics.runtime.confirm import confirm_cost
from llm_magics.runtime.prompts.prompt import Prompt
from llm_magics.runtime.session import session

# The calls of a function after which its cost is known.
_PILOT = 8
_RESUME_HINT = "Continue it: the same call with resume=True"

AnyJob = Job | FunctionJob


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """
    What an evaluation would ask.

    Attributes:
        items, models, repeat: their numbers.
        answers: the number of answers to obtain.
        done: the number of answers of an earlier run, which this one continues.
        prompts: the number of requests to send; ``None`` if a function decides it.
        input_tokens, output_tokens: their estimated tokens.
        cost_usd: their cost in US dollars; ``None`` if it is unknown.
    """

    items: int
    models: int
    repeat: int
    answers: int
    done: int = 0
    prompts: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None

    @property
    def size(self) -> str:
        """The numbers of items, models, repeats and answers in words."""
        parts = [pluralize(self.items, "item"), pluralize(self.models, "model")]
        parts += [f"{self.repeat:,} repeats"] if self.repeat > 1 else []
        text = f"{' × '.join(parts)}: {pluralize(self.answers, 'answer')}"
        return f"{text}, {self.done:,} of them are complete" if self.done else text

    def __str__(self) -> str:
        text = self.size
        if self.prompts is None:
            return f"{text} · cost unknown before the first answers of the function"
        return (
            f"{text} · {pluralize(self.prompts, 'prompt')} to send · about {self.input_tokens:,} tokens, "
            f"and answers of up to {self.output_tokens:,} · cost {format_usd(self.cost_usd)}"
        )

    __repr__ = __str__


@dataclass(kw_only=True, eq=False)
class EvaluationRun:
    """
    The jobs of an evaluation and the rows so far.

    Attributes:
        jobs: the jobs that are left: requests, or calls of a function for single items.
        frame_calls: the calls of a function of all items.
        data: the items.
        about: the attributes of the results.
        score: the scores, as passed by the user.
        at_once: the number of concurrent jobs of each provider.
        yes: whether costs are not confirmed.
        record: the rows so far.
    """

    jobs: list[AnyJob]
    frame_calls: list[FrameCall]
    data: EvaluationSet
    about: dict[str, Any]
    score: Any
    at_once: int
    yes: bool
    record: EvaluationRecord = field(init=False)
    _journal: RunJournal | None = field(init=False, default=None)
    _is_ended: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        """Count the answers, and pass each row on when it is complete."""
        self.record = EvaluationRecord(self._pass_on)
        self._answers = len(self.jobs) + sum(len(call.positions) for call in self.frame_calls)

    def resume(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take over the complete answers in ``rows``, which are not asked again."""
        earlier = {
            (row.get("item"), row.get("asked"), row.get("repeat")): row
            for row in rows
            if row.get("error") is None and row.get("finish_reason") != "interrupted"
        }
        self.jobs = [
            job for job in self.jobs if not self._take_over(earlier, {job.position: job.columns})
        ]
        self.frame_calls = [
            call for call in self.frame_calls if not self._take_over(earlier, call.columns)
        ]

    def _take_over(
        self,
        earlier: Mapping[tuple[Any, ...], Mapping[str, Any]],
        wanted: Mapping[tuple[int, ...], dict[str, Any]],
    ) -> bool:
        """Add the earlier rows with the ``wanted`` first columns; ``False`` unless all exist."""
        found: dict[tuple[int, ...], Mapping[str, Any]] = {}
        for position, columns in wanted.items():
            row = earlier.get(tuple(columns[name] for name in ("item", "asked", "repeat")))
            if row is None:
                return False
            found[position] = row
        for position, row in found.items():
            old = {name: row[name] for name in row if not name.startswith(SCORE_PREFIX)}
            self.record.add(position, {**old, **wanted[position]})
        return True

    def plan(self) -> EvaluationPlan:
        """
        Return what would be asked, without sending anything.

        Raises:
            LLMError: a model does not exist, or its prompts cannot be estimated.
        """
        plan = self._plan()
        if self.has_functions:
            return plan
        estimate = bridge.run(_estimate(self.jobs, only_priced=False))
        return replace(
            plan,
            prompts=estimate.prompts,
            input_tokens=estimate.input_tokens,
            output_tokens=estimate.output_tokens,
            cost_usd=estimate.cost_usd,
        )

    def _plan(self) -> EvaluationPlan:
        about = self.about
        return EvaluationPlan(
            items=about["items"],
            models=len(about["models"]),
            repeat=about["repeat"],
            answers=self._answers,
            done=len(self.record),
        )

    @property
    def size(self) -> str:
        """The numbers of items, models and answers in words."""
        return self._plan().size

    @property
    def has_functions(self) -> bool:
        """Whether a function of the user sends the requests."""
        return bool(self.frame_calls) or any(isinstance(job, FunctionJob) for job in self.jobs)

    def confirm(self) -> None:
        """
        Ask the user to allow the cost of the prompts, if it is known and above the limit.

        Raises:
            DeclinedError: the user declined.
            UsageError: the session is not interactive.
        """
        if self.has_functions or self.yes or session.config.budget is not None:
            return
        estimate = bridge.run(_estimate(self.jobs, only_priced=True))
        of_what = f"{estimate.prompts:,} requests"
        confirm_cost(estimate.known_usd, of_what, is_partial=estimate.has_unknown_cost)

    def start(self) -> None:
        """Announce the run, and begin to store its rows."""
        current_host().report(f"Evaluating {self.size}.")
        self._journal = stored.open_journal(self.about, self.data)
        for row in self.record.rows:  # of the run that is continued
            self._pass_on(row)

    def _pass_on(self, row: dict[str, Any]) -> None:
        if self._journal is not None:
            self._journal.add(row)

    def parts(self) -> Iterator[Operation[None]]:
        """
        Yield the operations to run, one after the other.

        The first calls of a function show what it costs; the rest is then confirmed.
        """
        size = max(_PILOT, len(self.about["models"])) if self.has_functions else len(self.jobs)
        pilot, rest = self.jobs[:size], self.jobs[size:]
        if pilot:
            yield self._operation(pilot)
        if rest:
            self._confirm_rest(len(pilot), len(rest))
            yield self._operation(rest)

    def _confirm_rest(self, asked: int, left: int) -> None:
        if self.yes or session.config.budget is not None:
            return
        costs = [row["cost_usd"] for row in self.record.rows[-asked:]]
        known = [usd for usd in costs if usd is not None]
        confirm_cost(
            sum(known) / max(1, len(known)) * left,
            f"{left:,} further answers",
            is_partial=len(known) < len(costs),
            so_far=f"{pluralize(asked, 'answer')} complete",
        )

    def _operation(self, jobs: Sequence[AnyJob]) -> Operation[None]:
        call: JobRun[AnyJob] = JobRun(
            jobs=jobs,
            ask=self.record.run,
            record=self.record,
            at_once=self.at_once,
            about=self.about,
            task=f"evaluating {self.about['name']}",
            create=self._create,
        )
        return Operation(call, lambda: None, self.interrupted)

    def _create(self, rows: Any, about: Mapping[str, Any]) -> EvaluationResults:
        return EvaluationResults.of_rows(rows, about, self.data)

    def call_frame(self, call: FrameCall) -> None:
        """
        Call a function of all items, and add its rows.

        Raises:
            Interrupted: the user has interrupted it.
        """
        began = time.perf_counter()
        try:
            rows, runs = call.rows()
        except KeyboardInterrupt:
            raise self.interrupted() from None
        self.record.add_frame(rows, runs, time.perf_counter() - began)

    def interrupted(self) -> Interrupted:
        """Return the exception for an interrupt, with the results so far, which are stored."""
        partial = self.partial(f"after {len(self.record.answered):,} of {self._answers:,} answers")
        hint = f"{PARTIAL_HINT}. {_RESUME_HINT}" if len(partial) else None
        msg = f"Stopped after {self.record.so_far()}."
        return Interrupted(msg, hint=hint, partial=partial)

    def partial(self, why: str) -> EvaluationResults:
        """Return the results so far with their scores, marked as stopped, and store them."""
        self._is_ended = True
        results = self._create(self.record.answered, {**self.about, "stopped": why})
        if len(results):
            try:
                with suppress(KeyboardInterrupt):  # the user does not wait for the scores
                    add_scores(results, evaluation.rule_scorers(self.score))
            finally:
                self._store(results)
        self._close_journal()
        return results

    def end_early(self, error: BaseException) -> None:
        """Store the rows so far, and add them to an error that ends the run."""
        if self._is_ended or not len(self.record):
            self._close_journal()
            return
        partial = self.partial(f"by an error: {type(error).__name__}")
        vars(error)["partial"] = partial
        if isinstance(error, LLMError) and _RESUME_HINT not in (error.hint or ""):
            error.hint = f"{error.hint or ''} {_RESUME_HINT}".strip()

    def finish(self) -> EvaluationResults:
        """
        Return the results with their scores, and store them.

        Without all scores, they are stored as stopped, so that the run can be continued.

        Raises:
            Interrupted: the user has interrupted the scoring; ``partial`` has all answers.
        """
        try:
            self.record.warn_of_cut()
            results = self._create(self.record.rows, self.about)
            try:
                add_scores(results, self.score, yes=self.yes)
            except BaseException as error:  # the answers are paid
                results.attrs["stopped"] = WHILE_SCORING
                self._store(results)
                if not isinstance(error, KeyboardInterrupt):
                    raise
                msg = f"Stopped while scoring; all {len(results):,} answers are complete."
                hint = f"{PARTIAL_HINT}; score them with .scored(…). {_RESUME_HINT}"
                raise Interrupted(msg, hint=hint, partial=results) from None
            self._store(results)
        finally:
            self._close_journal()
        _warn_of_errors(results)
        return results

    def _store(self, results: EvaluationResults) -> None:
        if self._journal is not None:
            try:
                stored.store(results.to_file(), self._journal)
            finally:
                self._journal.close()
                self._journal = None

    def _close_journal(self) -> None:
        """Release the file of the rows so far, and delete it if it has none."""
        if self._journal is not None:
            if self._journal.is_empty:
                self._journal.remove()
            self._journal.close()
            self._journal = None


def _warn_of_errors(results: EvaluationResults) -> None:
    failed = results["error"].dropna()
    if len(failed):
        msg = (
            f"{len(failed):,} of {len(results):,} answers failed and score 0 (the first: {failed.iloc[0]})."
            " See runs.failures()."
        )
        warn(msg)


async def _estimate(jobs: Sequence[AnyJob], *, only_priced: bool) -> BatchEstimate:
    """Return the estimate of the requests; with ``only_priced``, of models that have a price."""
    total = BatchEstimate()
    for model, calls in calls_by_model(jobs).items():
        try:
            has_price = await BatchCall(session, [Prompt(text="", model=model)]).may_cost()
            for call in calls if has_price or not only_priced else ():
                estimate = await call.to_send()
                if estimate is not None:
                    total.add(estimate)
        except LLMError:  # reported in the rows of this model; the others continue
            if not only_priced:
                raise
    return total
