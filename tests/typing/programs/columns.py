"""Embeddings and prompts over columns, by functions and by the accessors."""

from typing import Any, assert_type

import numpy as np
import numpy.typing as npt
import pandas as pd

import llm_magics as lm
from llm_magics.dataframes.accessor import FrameAccessor, SeriesAccessor

frame = pd.DataFrame({"text": ["good", "bad"]})


def embed() -> None:
    """Vectors are an array of float32."""
    vectors = lm.embed(frame["text"], "echo/echo", batch_size=10, too_long="truncate")
    assert_type(vectors, npt.NDArray[np.float32])
    assert_type(lm.matrix(vectors), npt.NDArray[np.float32])


async def embed_and_wait() -> None:
    """The asynchronous form has the same result."""
    assert_type(await lm.aembed(["good"], on_error="null"), npt.NDArray[np.float32])


def by_functions() -> None:
    """Search, prompts and pictures."""
    lm.nearest(frame, "good", k=1)
    lm.prompt(frame, "Translate {{ text }}.", model="echo/echo", max_tokens=20)
    lm.extract(frame["text"], "mood str", model="echo/echo")
    lm.classify(frame["text"], ["good", "bad"], model="echo/echo")
    lm.dedupe(frame["text"], 0.9)


def by_accessors() -> None:
    """Pandas's types know of no accessors; annotated, their methods are typed."""
    table: FrameAccessor = FrameAccessor(frame)
    table.embed("text", model="echo/echo", into="vector")
    table.prompt("Translate {{ text }}.", model="echo/echo", into="translation")
    table.extract("text", "mood str")
    table.classify("text", ["good", "bad"])
    column: SeriesAccessor = SeriesAccessor(frame["text"])
    assert_type(column.embed(model="echo/echo"), pd.Series[Any])
    assert_type(column.nearest("good"), pd.Series[Any])
    assert_type(column.dedupe(0.9), pd.Series[Any])
