"""The methods of ``df.llm`` that are operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

    from llm_magics.dataframes.operators.packed_prompts import RowsPerPrompt
    from llm_magics.dataframes.rows import OnError


class OperatorMethods:
    """Operators over the rows of a DataFrame, for its accessor."""

    _frame: DataFrame

    def aggregate(  # noqa: PLR0913 (as for lm.aggregate)
        self,
        question: str,
        *,
        by: Any = None,
        on: Any = None,
        model: str | None = None,
        rows_per_prompt: RowsPerPrompt = "auto",
        system: str | None = None,
        concurrency: int | None = None,
        on_error: OnError = "null",
        fresh: bool = False,
        dry_run: bool = False,
        yes: bool = False,
        **parameters: Any,
    ) -> Any:
        """
        Answer a question about the rows of each group, and name the rows on which the answer rests.

        The result is a new DataFrame with a row for each group: the columns of ``by``, ``answer``,
        and the numbers of ``claims``, ``rows`` and rows ``cited`` by a claim. Its
        ``.llm.report.claims`` has the labels of the rows of each claim.

        Args:
            question: the question, such as ``"What do these reviews complain about?"``.
            by: the column that groups the rows, or a list of columns; by default, all rows are
                one group.
            on: the column of texts, a list of columns, or a template. By default the column
                ``text``, or the only one with texts.
            model: the model.
            rows_per_prompt: the most rows in one prompt; by default 50, or fewer if the model's
                context is too small.
            system, concurrency, on_error, fresh, dry_run, yes, parameters: see
                `llm_magics.aggregate`.

        Raises:
            UsageError: a column does not exist, or the cost needs confirmation.
            Interrupted: ``partial`` has the claims so far.
            LLMError: an error that affects all rows.
        """
        from llm_magics.dataframes.operators.aggregate import aggregate

        return aggregate(
            self._frame,
            question,
            by=by,
            on=on,
            model=model,
            rows_per_prompt=rows_per_prompt,
            system=system,
            concurrency=concurrency,
            on_error=on_error,
            fresh=fresh,
            dry_run=dry_run,
            yes=yes,
            **parameters,
        )

    def topk(  # noqa: PLR0913 (as for lm.topk)
        self,
        prompt: str,
        k: int = 10,
        *,
        model: str | None = None,
        scores: Any = None,
        candidates: int | None = None,
        rows_per_prompt: RowsPerPrompt = "auto",
        seed: int = 0,
        system: str | None = None,
        concurrency: int | None = None,
        on_error: OnError = "null",
        fresh: bool = False,
        dry_run: bool = False,
        yes: bool = False,
        **parameters: Any,
    ) -> Any:
        """
        Return the ``k`` rows for which a statement is true to the highest degree, best first.

        All rows are scored, several in one prompt; then the candidates with the highest scores are
        compared in pairs, each pair in both orders. The result is a new DataFrame with the columns
        ``rank`` and, if a model gave it, ``score``; its ``.llm.report`` has the comparisons.

        Args:
            prompt: a statement with ``{{ column }}``, such as ``"{{ text }} is urgent"``.
            k: the number of rows.
            model: the model that compares, and gives the scores.
            scores: the name of a column of scores, of which the highest is the best; or of a
                model that gives them, such as a cheaper one.
            candidates: the number of candidates, from ``k`` to 5 times ``k`` (the default).
            rows_per_prompt: the number of rows in a prompt for scores.
            seed: another seed chooses other candidates among rows with equal scores.
            system, concurrency, on_error, fresh, dry_run, yes, parameters: see `llm_magics.topk`.

        Raises:
            UsageError: the prompt names no column, or the cost needs confirmation.
            Interrupted: ``partial`` has the rows that are ranked so far.
            LLMError: an error that affects all rows.
        """
        from llm_magics.dataframes.operators.topk import topk

        return topk(
            self._frame,
            prompt,
            k,
            model=model,
            scores=scores,
            candidates=candidates,
            rows_per_prompt=rows_per_prompt,
            seed=seed,
            system=system,
            concurrency=concurrency,
            on_error=on_error,
            fresh=fresh,
            dry_run=dry_run,
            yes=yes,
            **parameters,
        )
