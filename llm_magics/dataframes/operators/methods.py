"""The methods of ``df.llm`` that are operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

    from llm_magics.dataframes.operators.join import How
    from llm_magics.dataframes.operators.known_oracles import RowFunction
    from llm_magics.dataframes.operators.packed_prompts import RowsPerPrompt
    from llm_magics.dataframes.rows import OnError


class OperatorMethods:
    """Operators over the rows of a DataFrame, for its accessor."""

    _frame: DataFrame

    def filter(  # noqa: PLR0913 (as for lm.filter)
        self,
        prompt: str,
        *,
        accuracy: float | None = None,
        precision: float | None = None,
        recall: float | None = None,
        confidence: float = 0.95,
        max_calls: int = 400,
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
        **parameters: Any,
    ) -> Any:
        """
        Return the rows for which a statement is true, at a guaranteed quality and a low cost.

        The oracle, a good model, is asked about some of the rows; a cheap proxy decides those of
        which it is certain, as far as the target is kept. The result is a new DataFrame; its
        ``.llm.report`` has estimates of the quality, the decision about every row, and a picture.

        Args:
            prompt: a statement with ``{{ column }}``, such as ``"{{ text }} is a complaint"``.
            accuracy: the share of all answered rows, kept or not, whose decision equals the
                oracle's.
            precision: the share of the kept rows for which the oracle says yes.
            recall: the share of the rows with yes that are kept. Without any target, precision and
                recall are 0.9.
            confidence: the probability with which the target is kept.
            max_calls: the number of questions to the oracle, for precision or recall alone.
            oracle: a model, the name of a column of human labels, or a function of the row; by
                default, ``model``.
            proxy: ``"auto"``, a model, the name of a column of scores in [0, 1], or ``None``.
            seed: another seed samples other rows.
            model, system, concurrency, on_error, fresh, dry_run, yes, parameters: see
                `llm_magics.filter`.

        Raises:
            UsageError: an option is invalid, the prompt names no column, or the cost needs
                confirmation.
            Interrupted: ``partial`` has the rows that the oracle has confirmed so far.
            LLMError: an error that affects all rows.
        """
        from llm_magics.dataframes.operators.filter import filter as filter_rows

        return filter_rows(
            self._frame,
            prompt,
            accuracy=accuracy,
            precision=precision,
            recall=recall,
            confidence=confidence,
            max_calls=max_calls,
            oracle=oracle,
            proxy=proxy,
            seed=seed,
            model=model,
            system=system,
            concurrency=concurrency,
            on_error=on_error,
            fresh=fresh,
            dry_run=dry_run,
            yes=yes,
            **parameters,
        )

    def join(  # noqa: PLR0913 (as for lm.join)
        self,
        other: Any,
        prompt: str,
        how: How = "inner",
        *,
        recall: float = 0.9,
        confidence: float = 0.95,
        oracle: str | RowFunction | None = None,
        candidates: Any = "auto",
        on_left: str | None = None,
        on_right: str | None = None,
        embedding_model: str | None = None,
        suffixes: tuple[str, str] = ("_x", "_y"),
        seed: int = 0,
        model: str | None = None,
        system: str | None = None,
        concurrency: int | None = None,
        on_error: OnError = "null",
        fresh: bool = False,
        dry_run: bool = False,
        yes: bool = False,
        **parameters: Any,
    ) -> Any:
        """
        Return the pairs of rows for which a statement is true, without asking about all pairs.

        With probability ``confidence``, at least the share ``recall`` of all true pairs is found;
        each pair of the result was answered. The result is a new DataFrame with the columns of both
        tables; its ``.llm.report`` has the pairs that were asked, and bounds for the recall.

        Args:
            other: the right table: a DataFrame, or a list or column of texts.
            prompt: a statement with ``{{ left.column }}`` and ``{{ right.column }}``, such as
                ``"{{ left.text }} is answered by {{ right.text }}"``.
            how: ``inner``; ``left``, ``right`` or ``outer`` keep rows without a pair.
            recall: the share of all true pairs to find.
            confidence: the probability of finding that share.
            oracle: the model whose answers count as right, or a function of a row with the columns
                ``left.NAME`` and ``right.NAME``; by default, ``model``.
            candidates: how likely pairs are found: ``auto``, ``vectors``, ``ngrams``, or an array
                of scores.
            on_left, on_right: the columns of vectors or texts for candidates.
            embedding_model: the model that embeds texts for candidates.
            suffixes: what is appended to the names of columns that both tables have.
            seed: another seed draws other pairs.
            model, system, concurrency, on_error, fresh, dry_run, yes, parameters: see
                `llm_magics.join`.

        Raises:
            UsageError: the prompt does not name columns of both tables, or the cost needs
                confirmation.
            Interrupted: ``partial`` has the pairs that are found so far.
            LLMError: an error that affects all pairs.
        """
        from llm_magics.dataframes.operators.join import join

        return join(
            self._frame,
            other,
            prompt,
            how,
            recall=recall,
            confidence=confidence,
            oracle=oracle,
            candidates=candidates,
            on_left=on_left,
            on_right=on_right,
            embedding_model=embedding_model,
            suffixes=suffixes,
            seed=seed,
            model=model,
            system=system,
            concurrency=concurrency,
            on_error=on_error,
            fresh=fresh,
            dry_run=dry_run,
            yes=yes,
            **parameters,
        )

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

    def share(  # noqa: PLR0913 (as for lm.share)
        self,
        prompt: str,
        *,
        by: Any = None,
        labels: int = 200,
        confidence: float = 0.95,
        simultaneous: bool = False,
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
        **parameters: Any,
    ) -> Any:
        """
        Estimate for which share of the rows a statement is true, with an interval, for each group.

        The oracle is asked about some rows, drawn at random; a proxy predicts its answers for all
        rows, which makes the intervals narrower but never wrong. The result is a new DataFrame with
        the columns ``share``, ``low``, ``high``, ``rows``, ``labels`` and ``labels_to_halve``; its
        ``.llm.report`` has the proxy, its quality, the rows that failed and a picture.

        Args:
            prompt: a statement with ``{{ column }}``, such as ``"{{ text }} asks for a refund"``.
            by: the column that groups the rows, or a list of columns.
            labels: the number of different statements to ask about.
            confidence: the probability that an interval contains the share.
            simultaneous: whether it is the probability that the intervals of all groups do.
            oracle: the name of a model, or of a column of human labels; or a function of the row.
            proxy: ``"auto"``, the name of a column of scores, the name of a model, or ``None``.
            seed: another seed draws other rows.
            model, system, concurrency, on_error, fresh, dry_run, yes, parameters: see
                `llm_magics.share`.

        Raises:
            UsageError: the prompt names no column, or the cost needs confirmation.
            Interrupted: ``partial`` has the estimates from the answers so far.
            LLMError: an error that affects all rows.
        """
        from llm_magics.dataframes.operators.share import share

        return share(
            self._frame,
            prompt,
            by=by,
            labels=labels,
            confidence=confidence,
            simultaneous=simultaneous,
            oracle=oracle,
            proxy=proxy,
            seed=seed,
            model=model,
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
