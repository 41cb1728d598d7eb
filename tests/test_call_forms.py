"""The Python functions take their arguments as users write them, and say what is wrong if not."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import llm_magics as lm
from llm_magics.errors import UsageError


def test_the_model_may_be_the_second_argument() -> None:
    """Of every function that takes a prompt or texts and one model."""
    assert str(lm.ask("hi", "echo/echo")) == "hi"
    assert "".join(map(str, lm.stream("hi", "echo/echo"))) == "hi"
    assert str(asyncio.run(lm.aask("hi", "echo/echo"))) == "hi"
    vectors = lm.embed(["a", "b"], "echo/echo")
    assert vectors.shape[0] == len(asyncio.run(lm.aembed(["a", "b"], "echo/echo"))) == 2


def test_errors_about_arguments_name_the_public_function() -> None:
    """And not the private one that implements it."""
    with pytest.raises(TypeError, match=r"^ask\(\)"):
        lm.ask("hi", "echo/echo", "what else")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^bench\(\) .*'models'"):
        lm.bench("hi", "echo/echo", models="echo/echo")  # type: ignore[misc]


def test_bench_takes_prompts_first_like_compare() -> None:
    """The same two arguments in the same order."""
    runs = lm.bench(["a", "b"], models="echo/echo", repeat=1, warmup=0, distinct=False)
    assert runs["prompt"].tolist() == ["a", "b"]
    assert len(lm.bench("a", "echo/echo", repeat=2, warmup=0)) == 2
    assert len(lm.compare("a", models="echo/echo")) == 1


@pytest.mark.parametrize("models", ["openai/gpt-5", ["openai/gpt-5", "echo/echo"]])
def test_bench_with_a_model_alone_says_how_to_name_it(models: Any) -> None:
    """A model in the place of the prompts is not measured with itself as the prompt."""
    with pytest.raises(UsageError, match="models=") as caught:
        lm.bench(models)
    assert f"lm.bench(models={models!r})" in str(caught.value.hint)


def test_comparing_without_models_says_what_is_missing() -> None:
    """With a line that works."""
    with pytest.raises(UsageError, match="models") as caught:
        lm.compare("hi")
    assert "lm.compare(" in str(caught.value.hint)


def test_dir_lists_public_names_alone() -> None:
    """What Tab completes after ``lm.`` is what the documentation knows."""
    assert dir(lm) == sorted(lm.__all__)
    assert all(hasattr(lm, name) for name in dir(lm))


@pytest.fixture
def vectors() -> np.ndarray[Any, Any]:
    """Three vectors; the first two point the same way."""
    return np.array([[1, 0], [2, 0], [0, 1]], np.float32)


def frames_of(vectors: np.ndarray[Any, Any]) -> list[Any]:
    """A DataFrame with one column of vectors, of every library."""
    columns = {"text": ["a", "b", "c"], "v": vectors.tolist()}
    return [pd.DataFrame(columns), pl.DataFrame(columns), pa.table(columns)]


def test_a_frame_stands_for_its_only_column_of_vectors(vectors: np.ndarray[Any, Any]) -> None:
    """In every function that takes a column of vectors, whatever library the frame is of."""
    for frame in frames_of(vectors):
        assert lm.nearest(frame, [1.0, 0.0], k=1).index.tolist() == [0]
        assert lm.dedupe(frame).tolist() == [True, False, True]
        assert lm.matrix(frame).shape == (3, 2)
        assert len(lm.index(frame)) == 3
        assert len(lm.plot(frame).frame) == 3


@pytest.mark.parametrize("of_frame", [lm.nearest, lm.dedupe, lm.matrix, lm.index, lm.plot])
def test_a_frame_without_one_column_of_vectors_names_its_columns(of_frame: Any) -> None:
    """None and several are both an error that says what to write."""
    arguments = (["x"],) if of_frame is lm.nearest else ()
    texts = pd.DataFrame({"text": ["a"], "n": [1]})
    with pytest.raises(UsageError, match=r"no vector column.*text, n") as caught:
        of_frame(texts, *arguments)
    assert caught.value.hint
    two = pd.DataFrame({"v": [[1.0]], "w": [[2.0]]})
    with pytest.raises(UsageError, match=r"2 vector columns: v, w") as caught:
        of_frame(two, *arguments)
    assert 'df["v"]' in str(caught.value.hint)


def test_the_accessor_finds_the_only_column_of_vectors(vectors: np.ndarray[Any, Any]) -> None:
    """Where the column has another name than "vector"."""
    frame = pd.DataFrame({"text": ["a", "b", "c"], "v": list(vectors)})
    assert frame.llm.nearest([1.0, 0.0], k=1)["text"].tolist() == ["a"]
    assert frame.llm.dedupe()["text"].tolist() == ["a", "c"]
    assert frame.llm.plot().frame["text"].tolist() == ["a", "b", "c"]


def test_points_are_labelled_by_the_embedded_column() -> None:
    """Not by the first column of texts, also after a copy and a selection."""
    frame = pd.DataFrame({"id": ["1", "2", "3"], "review": ["good", "bad", "fine"]})
    frame.llm.embed("review", into="v", model="echo/echo")
    for each in (frame, frame.copy(), frame[frame.id != "2"]):
        assert each.llm.plot("v").frame["text"].tolist() == each["review"].tolist()
        assert lm.plot(each).frame["text"].tolist() == each["review"].tolist()
    assert frame.drop(columns="review").llm.plot("v").frame["text"].tolist() == ["1", "2", "3"]
