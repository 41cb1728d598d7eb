"""Which requests a benchmark makes, and in which order."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from llm_magics.benchmarking.loads.marks import mark_of, marked
from llm_magics.benchmarking.loads.steps import Step
from llm_magics.benchmarking.measuring.asking import Job
from llm_magics.runtime.chat import ChatCall
from llm_magics.runtime.prompts.prompt import Prompt
from llm_magics.runtime.session import session

# So often each prompt is asked, where nobody said how often.
_REPEAT = 3
# So many requests for each place of a closed loop, so that it runs full most of the time.
_A_PLACE = 4
# So many requests make a rate.
_AT_A_RATE = 30


@dataclass(frozen=True)
class Plan:
    """
    What is to be asked.

    Attributes:
        models, prompts: each model is asked each prompt.
        steps: at these loads, one after the other.
        repeat: how often; ``None`` leaves it to ``requests``, ``seconds``, or the load.
        requests: of each model at each step, in place of ``repeat``.
        seconds: how long each model is asked at each step, in place of both.
        is_distinct: whether each request begins with a mark of its own.
        seed: draws marks, arrivals and the order of models.
        system, parameters: the same for all.
        run: tells its rows from those of other runs, when they are put together.
    """

    models: Sequence[str]
    prompts: Sequence[str]
    steps: Sequence[Step]
    repeat: int | None = None
    requests: int | None = None
    seconds: float | None = None
    is_distinct: bool = True
    seed: int = 0
    system: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    run: int = 0

    def requests_at(self, step: Step) -> int | None:
        """How many requests of each model; ``None`` where the time decides."""
        if self.seconds is not None:
            return None
        if self.requests is not None:
            return self.requests
        if self.repeat is not None:
            return self.repeat * len(self.prompts)
        return max(
            _REPEAT * len(self.prompts), _A_PLACE * (step.concurrency or 1) * _is_many(step)
        )

    @property
    def total(self) -> int | None:
        """Requests of all models at all steps."""
        told = [self.requests_at(step) for step in self.steps]
        known = [each for each in told if each is not None]
        return len(self.models) * sum(known) if len(known) == len(told) else None

    def rounds_at(self, step: Step) -> int:
        """
        In so many rounds, in each of which all models have their turn.

        A machine that gets slower does so for all of them. Rounds are no shorter than it takes
        to keep a closed loop full, or an open one at its rate.
        """
        wanted = self.repeat or _REPEAT
        requests, at_once = self.requests_at(step), step.concurrency or 1
        if requests is None:  # an open loop that begins anew has begun with nobody waiting
            return 1 if step.rate else wanted
        least = _AT_A_RATE if step.rate else 1 if at_once == 1 else _A_PLACE * at_once
        return max(1, min(wanted, requests // least))

    def blocks(self) -> Iterator[Block]:
        """What is asked without a break: one model, at one load, in one round."""
        draw = random.Random(self.seed)  # noqa: S311 (an order, and no secret)
        for number, step in enumerate(self.steps):
            rounds = self.rounds_at(step)
            counts = {model: count() for model in range(len(self.models))}
            for each in range(rounds):
                for model in draw.sample(range(len(self.models)), len(self.models)):
                    yield Block(self, number, each, rounds, model, counts[model])

    def warm_up(self, requests: int) -> list[Job]:
        """What is asked of each model before anything counts."""
        return [
            self._job((number, model), Step(1), model, number, 0, "warm-up")
            for model in range(len(self.models))
            for number in range(requests)
        ]

    def calls(self) -> dict[str, list[ChatCall]]:
        """
        Each prompt once for each model, as it is asked but for the mark; nothing is sent.

        Raises:
            UsageError: something is wrong with a prompt or a parameter, and so for all models.
        """
        return {
            model: [
                ChatCall(session, self._prompt(prompt, model, self.system))
                for prompt in self.prompts
            ]
            for model in self.models
        }

    def _prompt(self, text: str, model: str, system: str | None) -> Prompt:
        return Prompt(text, model, system, self.parameters, is_fresh=True)

    def job(self, step: int, model: int, number: int, in_round: int) -> Job:
        """The request ``number`` of a model at a step."""
        place = (step, number, model)
        return self._job(place, self.steps[step], model, number, in_round, f"{step}")

    def _job(  # noqa: PLR0913, PLR0917 (where it stands)
        self,
        place: tuple[int, ...],
        step: Step,
        model: int,
        number: int,
        in_round: int,
        phase: str,
    ) -> Job:
        text = self.prompts[number % len(self.prompts)]
        asked = text
        system = self.system
        if self.is_distinct:
            mark = mark_of(f"{self.seed} {phase} {model} {number}")
            asked, system = marked(text, mark), system and marked(system, mark)
        columns = {
            "run": f"{self.run:08x}",
            "repeat": number // len(self.prompts),
            "round": in_round,
            **step.columns,
            "asked": self.models[model],
            "prompt": text,
        }
        return Job(place, self._prompt(asked, self.models[model], system), columns)


def _is_many(step: Step) -> bool:
    return (step.concurrency or 1) > 1


@dataclass(frozen=True)
class Block:
    """Requests of one model at one load in one of ``rounds``."""

    plan: Plan
    step_number: int
    in_round: int
    rounds: int
    model_number: int
    numbers: Iterator[int]

    @property
    def step(self) -> Step:
        """The load."""
        return self.plan.steps[self.step_number]

    @property
    def model(self) -> str:
        """Who is asked."""
        return self.plan.models[self.model_number]

    @property
    def seconds(self) -> float | None:
        """How long it lasts, where time decides."""
        return None if self.plan.seconds is None else self.plan.seconds / self.rounds

    def jobs(self) -> Iterator[Job]:
        """As many as fall to this round; without end where time decides."""
        requests = self.plan.requests_at(self.step)
        for number in self.numbers:
            yield self.plan.job(self.step_number, self.model_number, number, self.in_round)
            if requests is not None and (number + 1) * self.rounds >= requests * (
                self.in_round + 1
            ):
                return
