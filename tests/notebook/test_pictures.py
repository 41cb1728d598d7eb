"""What a notebook holds that can be shown to a model: arrays, figures, pictures."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from IPython.core.interactiveshell import InteractiveShell

from llm_magics import errors
from llm_magics.attachments import load_image
from tests.support.fake_ollama import FakeOllama
from tests.support.serving import serving

PIL = pytest.importorskip("PIL.Image")

shapes = st.tuples(st.integers(1, 9), st.integers(1, 9)) | st.tuples(
    st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 4])
)


def pixels(data: bytes) -> Any:
    """What another library reads from the file."""
    return np.asarray(PIL.open(io.BytesIO(data)))


@given(arrays(np.uint8, shapes))
def test_an_array_is_the_picture_that_others_read(array: Any) -> None:
    """Grey, RGB and RGBA, of any size; checked with Pillow."""
    expected = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    np.testing.assert_array_equal(pixels(load_image(array).data), expected)


def test_fractions_and_truth_values_are_colours_too() -> None:
    """From 0 to 1; views that are not in one piece, and other sizes of numbers."""
    assert pixels(load_image(np.array([[0.0, 0.5, 1.0]])).data).tolist() == [[0, 128, 255]]
    assert pixels(load_image(np.array([[True, False]])).data).tolist() == [[255, 0]]
    assert pixels(load_image(np.arange(12, dtype=np.int64).reshape(3, 4).T[::2]).data).shape == (
        2,
        3,
    )


@pytest.mark.parametrize(
    "wrong",
    [np.zeros(3), np.zeros((2, 2, 2)), np.zeros((0, 2)), np.full((2, 2), 300), np.full((2, 2), -1),
     np.full((2, 2), np.nan), np.full((2, 2), 2.0), np.full((2, 2), "x"), np.zeros((2, 2), complex), object()],
)  # fmt: skip
def test_what_is_no_picture_is_said_to_be_none(wrong: Any) -> None:
    """With the shapes that are."""
    with pytest.raises(errors.ConfigurationError) as caught:
        load_image(wrong)
    assert caught.value.hint


def test_pictures_of_other_libraries() -> None:
    """Pillow's, matplotlib's figure and what stands within it, and IPython's."""
    from IPython.display import Image as Shown
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1))
    axes = figure.subplots()
    (line,) = axes.plot([1, 2])
    made = PIL.new("RGB", (3, 2), "red")
    assert pixels(load_image(made).data).shape == (2, 3, 3)
    for each in (figure, axes, line):
        assert pixels(load_image(each).data).shape == (100, 100, 4)
    data = load_image(made).data
    assert load_image(Shown(data=data)).data == data


def test_a_variable_is_shown_to_the_model(shell: InteractiveShell) -> None:
    """``--image X`` takes the notebook's variable of that name."""
    fake = FakeOllama()
    with serving(fake) as server:
        shell.run_line_magic("llm", f"config providers.ollama.base_url {server.url}")
        shell.user_ns["pic"] = np.zeros((2, 2, 3), np.uint8)
        shell.run_cell_magic("llm", "ollama/seeing:1b --image pic -o ans", "what is it?")
        sent = next(each for each in reversed(server.asked) if each.path == "/api/chat").json()
    assert len(sent["messages"][-1]["images"]) == 1
    assert shell.user_ns["ans"].text
