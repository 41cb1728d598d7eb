"""Texts and columns into vectors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import llm_magics as lm
from llm_magics.errors import ProviderError, UsageError
from llm_magics.providers.echo import EchoProvider
from llm_magics.runtime.embedding import EmbedOptions
from tests.support.prepared_python import run_prepared

ECHO = {"model": "echo/echo"}


def test_vectors_are_one_float32_array() -> None:
    """Shape (n, d), in the order of the texts, however many batches it takes."""
    texts = [f"text {n % 70}" for n in range(150)]
    matrix = lm.embed(texts, **ECHO)
    assert matrix.shape == (150, 64)
    assert matrix.dtype == np.float32
    assert np.array_equal(matrix[:10], matrix[70:80])


@pytest.mark.weights
def test_the_starter_model_embeds_by_default() -> None:
    """384 numbers from the real model."""
    assert lm.embed(["hello"]).shape == (1, 384)


def test_nothing_embeds_to_nothing() -> None:
    """An empty list is an empty array, and asks nobody."""
    assert lm.embed([], **ECHO).shape == (0, 0)


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT, "", "  \n"])
def test_missing_texts_have_missing_vectors(missing: object) -> None:
    """They are not sent, and cost the others nothing."""
    matrix = lm.embed(["a", missing, "b"], **ECHO)  # type: ignore[list-item]
    assert np.isnan(matrix).all(axis=1).tolist() == [False, True, False]
    column = pd.Series(["a", missing, "b"], dtype=object).llm.embed(**ECHO)
    assert [vector is None for vector in column] == [False, True, False]


@pytest.mark.parametrize(
    ("texts", "said"),
    [("one string", "got str"), (5, "got int"), (["a", 5], "Row 1 is int")],
)
def test_what_is_no_text_is_refused(texts: object, said: str) -> None:
    """The message says which row, before anything is sent."""
    with pytest.raises(UsageError, match=said):
        lm.embed(texts, **ECHO)  # type: ignore[arg-type]


def test_a_column_keeps_its_index() -> None:
    """Any index, in any order, with any dtype of strings."""
    for dtype in (object, "string", "category"):
        column = pd.Series(["b", "a", "b"], index=[7, 3, 7], name="text", dtype=dtype)
        vectors = column.llm.embed(**ECHO)
        assert vectors.index.tolist() == [7, 3, 7]
        assert vectors.iloc[0].dtype == np.float32
        assert np.array_equal(vectors.iloc[0], vectors.iloc[2])


def test_a_frame_gets_a_column_of_vectors() -> None:
    """In place, under the name that was asked for."""
    frame = pd.DataFrame({"text": ["a", "b"]}, index=["x", "y"])
    assert frame.llm.embed("text", into="v", **ECHO) is frame
    assert np.stack(frame["v"]).shape == (2, 64)
    with pytest.raises(UsageError, match="txt") as caught:
        frame.llm.embed("txt")
    assert caught.value.hint == "Did you mean text?"


@pytest.mark.usefixtures("quick_retries")
def test_a_provider_that_loses_vectors_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer vectors than texts are an error, never a shift."""

    async def lose(self: EchoProvider, texts: list[str], model: str) -> list[list[float]]:
        return [[1.0]] * (len(texts) - 1)

    monkeypatch.setattr(EchoProvider, "generate_embeddings", lose)
    with pytest.raises(ProviderError, match="1 vector"):
        lm.embed(["a", "b"], **ECHO)


@pytest.mark.parametrize("order", ["pandas, llm_magics", "llm_magics, pandas"])
def test_the_accessor_is_there_in_either_order_of_import(order: str) -> None:
    """Whichever is imported first, ``df.llm`` is there; and a plain import is left as it was."""
    script = (
        f"import {order}\nimport pandas as pd, sys\n"
        "assert pd.DataFrame().llm and pd.Series(dtype=object).llm\n"
        "assert type(pd.__spec__.loader).__module__.startswith('_frozen_importlib')\n"
        "assert not any(getattr(finder, 'package', '') == 'pandas' for finder in sys.meta_path)\n"
    )
    run_prepared(script, strict=True)


def test_the_same_text_is_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thousand rows of fifty texts cost fifty."""
    sent: list[str] = []
    real = EchoProvider.generate_embeddings

    async def count(self: EchoProvider, texts: list[str], model: str) -> list[list[float]]:
        sent.extend(texts)
        return await real(self, texts, model)

    monkeypatch.setattr(EchoProvider, "generate_embeddings", count)
    matrix = lm.embed([f"text {n % 50}" for n in range(2000)], **ECHO)
    assert len(sent) == 50
    assert np.array_equal(matrix[7], matrix[1957])


def test_what_had_come_before_an_error_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third batch fails: the vectors of the first two are in the frame."""
    from llm_magics.dataframes.embed import embed_rows

    real = EchoProvider.generate_embeddings
    batches: list[int] = []

    async def fail(self: EchoProvider, texts: list[str], model: str) -> list[list[float]]:
        batches.append(len(texts))
        if len(batches) == 3:
            raise ProviderError("no more")
        return await real(self, texts, model)

    monkeypatch.setattr(EchoProvider, "generate_embeddings", fail)
    options = EmbedOptions(batch_size=64, concurrency=1)
    done = embed_rows([f"text {n}" for n in range(200)], "echo/echo", options)
    assert isinstance(done.error, ProviderError)
    assert sum(vector is not None for vector in done.vectors) == 128


@pytest.mark.parametrize("texts", [{"a": "b"}, {"a"}, pd.DataFrame({"text": ["a"]}), b"x"])
def test_what_is_no_list_is_refused(texts: object) -> None:
    """A frame would embed its column names, a dict its keys."""
    with pytest.raises(UsageError):
        lm.embed(texts, **ECHO)  # type: ignore[arg-type]


def test_asking_whether_pandas_is_there_does_not_disarm_the_accessor() -> None:
    """Many libraries look for the spec of an optional package before anybody imports it."""
    script = (
        "import llm_magics, importlib.util\n"
        "assert importlib.util.find_spec('pandas')\n"
        "import pandas as pd\n"
        "assert pd.DataFrame().llm\n"
    )
    run_prepared(script, strict=True)


@pytest.mark.parametrize(("name", "expected"), [("text", "text_vector"), (None, "vector"), (7, "7_vector")])  # fmt: skip
def test_a_column_of_vectors_is_named_after_its_texts(name: object, expected: str) -> None:
    """``series.llm.embed()``, with the index of the texts."""
    texts = pd.Series(["a", "b"], index=[3, 5], name=name)
    vectors = texts.llm.embed(**ECHO)
    assert vectors.name == expected
    assert vectors.index.tolist() == [3, 5]
