"""Prompts that an operator sends in waves, with one line of progress and one count of the cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self

from llm_magics._async.bridge import bridge
from llm_magics._async.sync import SyncRunner
from llm_magics.dataframes.prompt_run import LazyPrompts, create_prompt
from llm_magics.dataframes.reports import RowsEstimate
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.errors import LLMError
from llm_magics.host import Progress, ProgressDisplay, current_host
from llm_magics.runtime.batch import BatchCall
from llm_magics.runtime.response import Response
from llm_magics.runtime.session import session

# Receives the result of each prompt of a wave, by its number in the wave.
Receive = Callable[[int, Response | LLMError], None]

# More prompts than these are estimated from a sample of this size.
MOST_ESTIMATED = 500


class PromptWaves:
    """
    Sends prompts to one model in waves; each answer is stored when it is complete.

    In a ``with`` block, all waves share one line of progress.

    Attributes:
        expected: the number of prompts that all waves may have, for the progress.
        calls: the number of prompts that were sent and answered.
        cached: the number of prompts whose answer was stored before.
        cost_usd: the cost of ``calls`` in US dollars; ``None`` if unknown.
    """

    def __init__(
        self, prompt_spec: RowPrompts, parameters: Mapping[str, Any] | None = None
    ) -> None:
        """
        Send prompts as ``prompt_spec`` says, except for its text.

        ``parameters`` are by default those of ``prompt_spec``.
        """
        self._spec = prompt_spec
        # One mapping, because the prompts of a batch share it.
        self._parameters = prompt_spec.parameters if parameters is None else parameters
        self._last: BatchCall | None = None
        self._display: ProgressDisplay | None = None
        self._depth = 0
        self.expected = 0
        self.calls = self.cached = 0
        self.cost_usd: float | None = 0.0

    @property
    def model(self) -> str:
        """The name of the model as the user or the settings give it."""
        return self._spec.model or str(session.config.model)

    def __enter__(self) -> Self:
        self._depth += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        self._depth -= 1
        if not self._depth and self._display is not None:
            self._display(None)
            self._display = None

    def send(self, texts: Sequence[str], receive: Receive, schema: Any = None) -> None:
        """
        Send a wave of prompts with ``texts``, and pass each result to ``receive``.

        The results that arrived before an error or an interrupt are passed too. Equal texts are
        sent several times. ``schema`` replaces the schema of the answers.

        Raises:
            LLMError: an error that affects all prompts.
            KeyboardInterrupt: the user interrupted the call.
        """
        if not len(texts):
            return
        call = self._create_call(texts, schema, is_fresh=self._spec.fresh)
        if self._last is not None:
            call.continue_from(self._last, self.expected)
        self._last = call
        with self:
            try:
                with SyncRunner(call, self._show) as runner:
                    runner.finish()
            finally:
                self._count(call)
                for number, response in enumerate(call.responses):
                    result = call.errors.get(number, response)
                    if result is not None:
                        receive(number, result)

    def estimate(
        self, texts: Sequence[str], schema: Any = None, *, with_stored: bool = False
    ) -> RowsEstimate:
        """
        Return the estimated cost of prompts with ``texts``.

        The estimate of many prompts is that of a sample, scaled up. Those that have an answer cost
        nothing, unless ``with_stored``. ``schema`` is as for `send`.
        """
        count = len(texts)
        if count > MOST_ESTIMATED:
            step = count / MOST_ESTIMATED
            texts = [texts[int(number * step)] for number in range(MOST_ESTIMATED)]
        call = self._create_call(texts, schema, is_fresh=with_stored or self._spec.fresh)
        left = bridge.run(call.to_send())
        scale = count / max(1, len(texts))
        prompts = round(left.prompts * scale)
        return RowsEstimate(
            rows=count,
            prompts=prompts,
            input_tokens=round(left.input_tokens * scale),
            output_tokens=round(left.output_tokens * scale),
            cost_usd=None if left.cost_usd is None else left.cost_usd * scale,
            seconds=bridge.run(call.seconds(prompts)),
        )

    def _create_call(self, texts: Sequence[str], schema: Any, *, is_fresh: bool) -> BatchCall:
        spec = self._spec if schema is None else replace(self._spec, schema=schema)
        spec = replace(spec, fresh=is_fresh)
        create = partial(create_prompt, spec, self._parameters)
        call = BatchCall(session, LazyPrompts(texts, create), spec.concurrency)
        call.done = lambda: f"{self.calls + self.cached:,} prompts"
        return call

    def _count(self, call: BatchCall) -> None:
        answered = sum(each is not None for each in call.responses)
        self.calls += call.sent
        self.cached += answered - call.sent
        known = self.cost_usd is not None and call.cost_usd is not None
        self.cost_usd = self.cost_usd + call.cost_usd if known else None  # type: ignore[operator]

    def _show(self, progress: Progress | None) -> None:
        """Show the progress; the line stays until the ``with`` block ends."""
        if progress is None:
            return
        if self._display is None:
            self._display = current_host().create_progress_display()
        self._display(progress)


class SendsWaves:
    """In a ``with`` block, all waves of ``_waves`` share one line of progress."""

    _waves: PromptWaves

    def __enter__(self) -> Self:
        self._waves.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._waves.__exit__(kind, error, traceback)
