"""Claims about groups of rows: extracted from packs of rows, merged in a tree, and summed up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from math import ceil
from typing import Any, NamedTuple

from llm_magics.dataframes.operators.claims import (
    MAX_CLAIMS,
    Claim,
    answer_prompt,
    cited_rows,
    claim_ids,
    claims_schema,
    extraction_prompt,
    merge_prompt,
    merged_claims,
    read_claims,
    unique_claims,
)
from llm_magics.dataframes.operators.consent import Consent, scale_estimate
from llm_magics.dataframes.operators.packing import row_ids
from llm_magics.dataframes.operators.prompt_waves import PromptWaves
from llm_magics.dataframes.operators.row_packs import (
    cut_text,
    pack,
    row_tokens,
    usable_tokens,
)
from llm_magics.dataframes.reports import sum_known
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.errors import LLMError
from llm_magics.runtime.answer_bounds import text_tokens
from llm_magics.runtime.response import Response

# The steps, as they are called in reports.
EXTRACT, MERGE, ANSWER = "extract", "merge", "answer"

# By default, the most rows in one prompt: of many rows, models overlook some.
AUTO_ROWS = 50

# The most claims in one prompt that merges them; its answer may have as many.
_MERGED_CLAIMS = 40

# Merging ends if it leaves more than this share of the claims.
_SHRUNK = 0.9

# The tokens of the longest instructions, and of the answer to one prompt.
_INSTRUCTION_TOKENS, _ANSWER_TOKENS = 300, 800
_FEWEST_TOKENS = 200


class Spending(NamedTuple):
    """The prompts that were sent, those whose answer was stored before, and the cost in dollars."""

    calls: int = 0
    cached: int = 0
    cost_usd: float | None = 0.0


class Failure(NamedTuple):
    """A prompt that failed: its step, the rows that it is about, and the error."""

    step: str
    rows: frozenset[int]
    error: LLMError


@dataclass(eq=False, kw_only=True)
class Group:
    """
    The rows of a group, with their claims and the answer.

    Attributes:
        rows: their numbers, in the order of the table; of equal texts, the first one.
        copies: the numbers of all rows with the text of a row, if there are several.
        claims: the claims so far.
        answer: the answer to the question; ``None`` without claims.
        packs: the number of packs of rows whose claims were extracted.
        sources: the number of packs that the claims are from.
        dropped: the number of claims that named no row.
        invalid: the number of citations that named a row or claim that was not in the prompt.
        left_out: the number of claims that did not fit into the prompt of the answer.
        failures: the prompts that failed.
    """

    rows: list[int]
    copies: Mapping[int, Sequence[int]]
    claims: list[Claim] = field(default_factory=list)
    answer: str | None = None
    packs: int = 0
    sources: int = 0
    dropped: int = 0
    invalid: int = 0
    left_out: int = 0
    failures: list[Failure] = field(default_factory=list)

    def expand(self, rows: Iterable[int]) -> frozenset[int]:
        """Return ``rows`` with all that have the same texts."""
        return frozenset(copy for row in rows for copy in self.copies.get(row, (row,)))

    def add(self, part: Group, offset: int) -> None:
        """Add the claims about other rows, whose numbers are those of ``part`` + ``offset``."""
        self.rows += [row + offset for row in part.rows]
        copies = {
            row + offset: [each + offset for each in rows] for row, rows in part.copies.items()
        }
        self.copies = {**self.copies, **copies}
        claims = [Claim(claim.text, _moved(claim.rows, offset)) for claim in part.claims]
        self.claims = unique_claims([*self.claims, *claims])
        self.packs += part.packs
        self.sources += part.sources
        self.dropped += part.dropped
        self.invalid += part.invalid
        self.failures += [
            failure._replace(rows=_moved(failure.rows, offset)) for failure in part.failures
        ]

    @property
    def cited(self) -> frozenset[int]:
        """The rows that a claim rests on."""
        return cited_rows(self.claims)


def _moved(rows: Iterable[int], offset: int) -> frozenset[int]:
    return frozenset(row + offset for row in rows)


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A prompt about a group: its text, the rows it is about, and what to do with the answer."""

    group: Group
    rows: frozenset[int]
    text: Callable[[], str]
    use: Callable[[Response], None]


class ClaimTree:
    """
    Answers a question about groups of rows; the prompts of all groups are sent together.

    Attributes:
        waves: sends the prompts, and counts them.
        cut: the rows whose text was too long for a prompt.
        earlier: the prompts that other processes have sent.
    """

    def __init__(
        self, question: str, texts: Sequence[str], *, prompt_spec: RowPrompts, max_rows: int
    ) -> None:
        """
        Prepare the prompts; nothing is sent.

        Args:
            question: the question.
            texts: the text of each row.
            prompt_spec: the model, and how to send the prompts; its text is not used.
            max_rows: the maximum number of rows in a prompt.
        """
        self._question = question
        self._texts = texts
        self._raises = prompt_spec.on_error == "raise"
        self._max_rows = max_rows
        self._consent = Consent(prompt_spec)
        self.waves = PromptWaves(replace(prompt_spec, schema=None))
        self.cut: set[int] = set()
        self.earlier = Spending()
        fixed = _INSTRUCTION_TOKENS + _ANSWER_TOKENS + text_tokens(question)
        self._max_tokens = max(_FEWEST_TOKENS, usable_tokens(self.waves.model) - fixed)

    @property
    def spending(self) -> Spending:
        """All prompts so far."""
        waves, earlier = self.waves, self.earlier
        return Spending(
            waves.calls + earlier.calls,
            waves.cached + earlier.cached,
            sum_known([waves.cost_usd, earlier.cost_usd]),
        )

    def run(self, groups: Sequence[Group]) -> None:
        """
        Extract the claims of each group, merge them, and answer the question.

        Raises:
            DryRunEnd: the call is a dry run, and an answer is missing.
            LLMError: an error that affects all groups; with ``on_error="raise"``, any error.
            KeyboardInterrupt: the user interrupted the call; the groups have the claims so far.
        """
        with self.waves:
            self.extract(groups)
            self.finish(groups)

    def finish(self, groups: Sequence[Group]) -> None:
        """Merge the claims of each group, and answer the question; raise as `run`."""
        failures = [failure for group in groups for failure in group.failures]
        if failures and not any(group.packs for group in groups):
            raise failures[0].error  # nothing is left to answer from
        with self.waves:
            self.merge(groups)
            self.answer(groups)

    def extract(self, groups: Sequence[Group]) -> None:
        """Extract the claims of each group from packs of its rows; raise as `run`."""
        tasks = [task for group in groups for task in self._extractions(group)]
        packs = Counter(task.group for task in tasks)
        later = len(packs) + sum(_expected_merges(count) for count in packs.values() if count > 1)
        self._send(EXTRACT, tasks, claims_schema(), later)

    def merge(self, groups: Sequence[Group]) -> None:
        """Merge the claims of groups with several sources until one prompt has all; raise as `run`."""
        left = [each for each in groups if each.sources > 1 and len(each.claims) > 1]
        while left:
            counts = [len(group.claims) for group in left]
            parts = {group: self._divided(group.claims) for group in left}
            tasks = [task for group in left for task in self._merges(group, parts[group])]
            try:
                self._send(MERGE, tasks, claims_schema(_MERGED_CLAIMS), len(groups))
            finally:
                for group in left:
                    group.claims = unique_claims(chain.from_iterable(parts[group]))
            left = [
                group
                for group, count in zip(left, counts, strict=True)
                if len(parts[group]) > 1 and len(group.claims) <= _SHRUNK * count
            ]

    def answer(self, groups: Sequence[Group]) -> None:
        """Answer the question for each group with claims; raise as `run`."""
        tasks = []
        for group in groups:
            group.claims.sort(key=lambda claim: (-len(claim.rows), claim.text))
            if group.claims:
                tasks.append(self._answer(group))
        self._send(ANSWER, tasks, None, 0)

    def _extractions(self, group: Group) -> Iterator[_Task]:
        tokens = [row_tokens(self._texts[row]) for row in group.rows]
        long = {
            row for row, size in zip(group.rows, tokens, strict=True) if size > self._max_tokens
        }
        self.cut |= group.expand(long)
        for part in pack(tokens, self._max_tokens, self._max_rows):
            rows = [group.rows[place] for place in part]
            yield _Task(
                group=group,
                rows=group.expand(rows),
                text=partial(self._extraction_prompt, rows),
                use=partial(self._use_extraction, group, rows),
            )

    def _extraction_prompt(self, rows: Sequence[int]) -> str:
        return extraction_prompt(self._question, self._cut_texts(rows))

    def _cut_texts(self, rows: Sequence[int]) -> list[str]:
        return [cut_text(self._texts[row], self._max_tokens) for row in rows]

    def _use_extraction(self, group: Group, rows: Sequence[int], response: Response) -> None:
        found = read_claims(response.json(), row_ids(self._cut_texts(rows)))
        claims = [
            Claim(text, group.expand(rows[place] for place in places))
            for text, places in found.claims
        ]
        group.claims = unique_claims([*group.claims, *claims])
        group.packs += 1
        group.sources += bool(claims)
        group.dropped += found.dropped
        group.invalid += found.invalid

    def _divided(self, claims: Sequence[Claim]) -> list[list[Claim]]:
        """Return parts of ``claims`` that fit into a prompt."""
        tokens = [row_tokens(claim.text) for claim in claims]
        # The answer may repeat all of them.
        parts = pack(tokens, self._max_tokens // 2, _MERGED_CLAIMS)
        return [[claims[place] for place in part] for part in parts]

    def _merges(self, group: Group, parts: list[list[Claim]]) -> Iterator[_Task]:
        for number, claims in enumerate(parts):
            if len(claims) > 1:
                yield _Task(
                    group=group,
                    rows=cited_rows(claims),
                    text=partial(merge_prompt, self._question, claims),
                    use=partial(_use_merge, group, parts, number),
                )

    def _answer(self, group: Group) -> _Task:
        tokens = [row_tokens(claim.text) for claim in group.claims]
        count = len(next(pack(tokens, self._max_tokens, len(tokens))))
        group.left_out = len(tokens) - count
        claims = group.claims[:count]
        return _Task(
            group=group,
            rows=cited_rows(claims),
            text=partial(answer_prompt, self._question, claims, len(group.expand(group.rows))),
            use=lambda response: setattr(group, "answer", response.text.strip()),
        )

    def _send(self, step: str, tasks: Sequence[_Task], schema: Any, later: int) -> None:
        """
        Send the prompts of ``tasks``, and use their answers.

        ``later`` is the expected number of prompts that follow.
        """
        if not tasks:
            return
        texts = _Prompts(tasks)
        wave = partial(self.waves.estimate, texts, schema)
        self._consent.obtain(wave, lambda: scale_estimate(wave(), later))
        errors: list[LLMError] = []

        def receive(number: int, result: Response | LLMError) -> None:
            task = tasks[number]
            try:
                if isinstance(result, LLMError):
                    raise result
                task.use(result)
            except LLMError as error:
                errors.append(error)
                task.group.failures.append(Failure(step, task.rows, error))

        self.waves.send(texts, receive, schema)
        if errors and self._raises:
            raise errors[0]


def _use_merge(group: Group, parts: list[list[Claim]], number: int, response: Response) -> None:
    found = read_claims(response.json(), claim_ids(parts[number]))
    parts[number] = merged_claims(parts[number], found)
    group.dropped += found.dropped
    group.invalid += found.invalid


def _expected_merges(packs: int) -> int:
    """Return about the number of prompts that merge the claims of ``packs`` prompts."""
    merges = packs * MAX_CLAIMS / 2 / _MERGED_CLAIMS
    return ceil(merges) + (merges > 1)


class _Prompts(Sequence[str]):
    """The prompts of tasks, each put together when it is read."""

    def __init__(self, tasks: Sequence[_Task]) -> None:
        self._tasks = tasks

    def __len__(self) -> int:
        return len(self._tasks)

    def __getitem__(self, number: Any) -> Any:
        found = self._tasks[number]
        return [each.text() for each in found] if isinstance(found, list) else found.text()
