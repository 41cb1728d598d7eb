"""A prompt that is asked with several expected answers is an item with each of them."""

from __future__ import annotations

import pandas as pd

import llm_magics as lm


def measured() -> lm.Measurements:
    """Two models, a prompt that occurs twice, and another."""
    return lm.compare(
        ["a", "a", "b"], ["echo/echo", "echo/lorem"], expected=["a", "x", "b"], score="exact"
    )


def test_each_row_has_its_own_expected_answer() -> None:
    """In the order in which they were given."""
    runs = measured()
    of_echo = runs[runs.asked == "echo/echo"]
    assert of_echo["expected"].tolist() == ["a", "x", "b"]
    assert of_echo["score_exact"].tolist() == [1.0, 0.0, 1.0]


def test_items_are_counted_apart() -> None:
    """In differences and means: three items, and not two."""
    runs = measured()
    assert runs.differences("score_exact")["n"].tolist() == [3]
    assert runs.summary().loc["echo/echo", "score_exact"] == 2 / 3
    assert "3 prompts" in runs.report()


def test_answers_are_scored_later_by_as_many_expected_answers_as_prompts() -> None:
    """A list is in the order of the prompts, whether or not some are alike."""
    runs = lm.compare(["a", "a", "b"], ["echo/echo", "echo/lorem"])
    scored = runs.scored("exact", expected=["a", "x", "b"])
    assert scored[scored.asked == "echo/echo"]["score_exact"].tolist() == [1.0, 0.0, 1.0]
    by_unique = runs.scored("exact", expected=pd.Series(["a", "b"]))
    assert by_unique[by_unique.asked == "echo/echo"]["score_exact"].tolist() == [1.0, 1.0, 1.0]
