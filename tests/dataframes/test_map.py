"""Maps of vectors: what is selected, what the widget shows of it, and what a notebook keeps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

import llm_magics as lm
from llm_magics import errors
from llm_magics._util import validation
from llm_magics.dataframes import vectors
from llm_magics.dataframes.map import VectorMap
from llm_magics.dataframes.vectors import EmbeddingModel

ECHO = {"model": "echo/echo"}


@pytest.fixture
def frame() -> pd.DataFrame:
    """Texts of three kinds with their vectors, and one that is missing."""
    texts = [f"{kind} {n}" for kind in ("red apple", "fast car", "slow train") for n in range(5)]
    made = pd.DataFrame({"text": [None, *texts], "n": range(16)}, index=[7] * 16)
    return made.llm.embed("text", **ECHO)


@pytest.fixture
def vector_map(frame: pd.DataFrame) -> VectorMap:
    """A map of them."""
    return frame.llm.map(clusters=3)


def test_a_map_has_the_points_of_the_plot(frame: pd.DataFrame, vector_map: VectorMap) -> None:
    """With the same options, which are those of a plot."""
    pd.testing.assert_frame_equal(vector_map.plot.frame, frame.llm.plot(clusters=3).frame)
    assert repr(vector_map).startswith("VectorMap(15 vectors · 1 missing")
    assert frame.llm.map(color="n", text="text").plot.marks().span == (1, 15)


def test_nothing_is_selected_at_first(vector_map: VectorMap) -> None:
    """The selection is an empty frame with the columns of the DataFrame."""
    assert vector_map.selection.empty
    assert vector_map.selection.columns.tolist() == ["text", "n", "vector"]


def test_a_search_selects_the_nearest_rows(frame: pd.DataFrame, vector_map: VectorMap) -> None:
    """The best first, also where labels of the index are repeated and a row has no vector."""
    found = vector_map.search("slow train 3", 4)
    assert found["text"].tolist() == frame.llm.nearest("slow train 3", k=4)["text"].tolist()
    assert found["text"].iloc[0] == "slow train 3"
    pd.testing.assert_frame_equal(vector_map.selection, found)
    assert len(vector_map.search("train", 99)) == 15
    by_vector = vector_map.search(frame["vector"].iloc[5], 1)
    assert by_vector["n"].tolist() == [5]


def test_a_search_skips_vectors_without_a_point() -> None:
    """Their numbers are too large to be projected."""
    frame = pd.DataFrame({"vector": [[1e38, 1e38], [1.0, 0.0], [0.0, 1.0], [3e38, 3e38]]})
    assert sorted(frame.llm.map().search([1.0, 1.0], 4).index) == [1, 2]


def test_a_map_of_texts_is_searched_by_their_vectors(frame: pd.DataFrame) -> None:
    """The model is the one that embedded them."""
    found = frame.llm.map("text", **ECHO).search("fast car 2", 1)
    assert found["n"].tolist() == [8]
    lm.config.embedding_model = "echo/echo"
    assert frame.llm.map("text").search("fast car 2", 1)["n"].tolist() == [8]


def test_a_search_uses_the_model_of_the_vectors() -> None:
    """And their length, also if they are known only from a file."""
    frame = pd.DataFrame({"vector": [[1.0, 0.0], [0.0, 1.0]]})
    model = EmbeddingModel("openai/text-embedding-3-small", 2)
    vectors.tag(frame, "vector", model)
    assert vectors.find_embedding_model(frame.llm.map()._vectors) == model


def test_a_condition_selects_rows(frame: pd.DataFrame, vector_map: VectorMap) -> None:
    """In the order of the DataFrame; a row without a vector is not on the map."""
    assert vector_map.select(frame.n < 3)["n"].tolist() == [1, 2]
    assert vector_map.select([True] * 16)["n"].tolist() == list(range(1, 16))
    assert vector_map.select(pd.array([None, True] * 8, "boolean"))["n"].tolist() == list(range(1, 16, 2))  # fmt: skip
    vector_map.clear()
    assert vector_map.selection.empty


@pytest.mark.parametrize(
    "wrong", [[True], [1] * 16, "text", None, 3, pd.Series([True] * 16), {"a", "b"}]
)
def test_what_is_not_a_condition(vector_map: VectorMap, wrong: Any) -> None:
    """Is an error that names what is, and selects nothing."""
    with pytest.raises(errors.UsageError, match="16 rows") as caught:
        vector_map.select(wrong)
    assert "m.select(" in str(caught.value.hint)
    assert vector_map.selection.empty


@pytest.mark.parametrize(("query", "k"), [("", 3), ("train", 0), ([1.0], 3)])
def test_what_cannot_be_searched(vector_map: VectorMap, query: Any, k: int) -> None:
    """Is an error, and the selection stays."""
    vector_map.search("train", 2)
    with pytest.raises(errors.UsageError):
        vector_map.search(query, k)
    assert len(vector_map.selection) == 2


def test_the_selection_has_later_columns(frame: pd.DataFrame, vector_map: VectorMap) -> None:
    """Rows that were replaced are an error."""
    vector_map.select(frame.n == 3)
    frame["later"] = range(16)
    assert vector_map.selection["later"].tolist() == [3]
    frame.index = range(16)
    with pytest.raises(errors.UsageError, match="have changed"):
        vector_map.selection  # noqa: B018


def test_changes_are_reported(vector_map: VectorMap) -> None:
    """Once for each change."""
    sizes: list[int] = []
    vector_map.on_select(lambda: sizes.append(len(vector_map.selection)))
    vector_map.search("train", 2)
    vector_map.search("train", 2)
    vector_map.clear()
    assert sizes == [2, 0]


def test_without_jupyter_scatter(frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says how to install it, before anything is computed."""
    found = validation.find_spec
    monkeypatch.setattr(
        validation, "find_spec", lambda name: None if name == "jscatter" else found(name)
    )
    with pytest.raises(errors.UsageError, match="jupyter-scatter") as caught:
        frame.llm.map("text", model="echo/there-is-no-such-model")
    assert "[map]" in str(caught.value.hint)


def test_a_terminal_shows_one_line(
    vector_map: VectorMap, shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a widget and a picture."""
    vector_map._ipython_display_()
    assert capsys.readouterr().out == f"{vector_map!r}\n"
    assert vector_map._widget is None


def widget_of(vector_map: VectorMap) -> Any:
    """The widget of a map. It imports ipywidgets and jupyter-scatter, which takes a second."""
    from llm_magics.dataframes.map_widget import MapWidget

    return MapWidget(vector_map.plot, vector_map._selected, vector_map.search)


class Kernel:
    """What a notebook has and a terminal has not."""

    _allow_stdin = True


@pytest.fixture
def notebook(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[dict[str, Any]]]:
    """The outputs of a notebook that a person watches."""
    monkeypatch.setattr(shell, "kernel", Kernel(), raising=False)
    outputs: list[dict[str, Any]] = []
    monkeypatch.setattr(
        shell.display_pub, "publish", lambda data, *_, **rest: outputs.append(data)
    )
    return outputs


def test_a_notebook_gets_the_widget_and_a_picture(
    vector_map: VectorMap, notebook: list[dict[str, Any]]
) -> None:
    """In two outputs, so that the picture remains where the widget cannot be shown."""
    vector_map._ipython_display_()
    widget, picture = notebook
    assert list(widget) == ["application/vnd.jupyter.widget-view+json"]
    assert sorted(picture) == ["image/png", "text/plain"]
    assert picture["image/png"].startswith(b"\x89PNG")
    vector_map._ipython_display_()
    assert notebook[2] == widget


def test_an_unattended_notebook_gets_the_picture(
    vector_map: VectorMap, notebook: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the state of a widget."""
    monkeypatch.setattr(Kernel, "_allow_stdin", False)
    vector_map._ipython_display_()
    assert [sorted(each) for each in notebook] == [["image/png", "text/plain"]]
    lm.config.render = "live"
    vector_map._ipython_display_()
    assert len(notebook) == 3


def test_captured_output_has_no_widget(
    vector_map: VectorMap, notebook: list[dict[str, Any]]
) -> None:
    """A picture alone can be shown later."""
    with capture_output() as captured:
        vector_map._ipython_display_()
    assert [sorted(each.data) for each in captured.outputs] == [["image/png", "text/plain"]]


def test_the_widget_and_the_map_have_one_selection(
    frame: pd.DataFrame, vector_map: VectorMap
) -> None:
    """Whichever changes it."""
    widget = widget_of(vector_map)
    assert "Draw around" in widget._list.value
    widget._points.selection = np.array([9, 2, 0], np.uint32)
    assert vector_map.selection["n"].tolist() == [1, 3, 10]
    assert "3 of 15 points selected" in widget._list.value
    assert "red apple 0" in widget._list.value
    widget._query.value = "slow train 3"
    assert len(vector_map.selection) == 15
    widget._rows.value = 10
    assert vector_map.selection["text"].iloc[0] == "slow train 3"
    assert sorted(widget._points.selection.tolist()) == sorted(
        vector_map._selected.points.tolist()
    )
    assert "and 2 more" in widget._list.value
    widget._clear.click()
    assert vector_map.selection.empty
    assert widget._query.value == ""
    vector_map.select(frame.n == 4)
    assert widget._points.selection.tolist() == [3]
    widget._points.selection = None
    assert vector_map.selection.empty


def test_few_selected_points_are_enlarged(
    vector_map: VectorMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many keep their size, so that they do not hide each other."""
    from llm_magics.dataframes import map_widget

    widget = widget_of(vector_map)
    monkeypatch.setattr(map_widget, "_MAX_ENLARGED", 3)
    for count, size in ((3, 4), (4, 0.01), (2, 4)):
        vector_map.search("train", count)
        assert widget._points.regl_scatterplot_options["pointSizeSelected"] == size


def test_a_failed_search_is_shown_in_the_widget(vector_map: VectorMap) -> None:
    """As its message; the selection stays."""
    widget = widget_of(vector_map)
    vector_map.search("train", 2)
    vector_map._model = "echo/there-is-no-such-model<b>"
    widget._query.value = "car"
    assert "there-is-no-such-model" in widget._list.value
    assert "<b>" not in widget._list.value
    assert len(vector_map.selection) == 2


def test_texts_in_the_widget_are_not_markup(frame: pd.DataFrame) -> None:
    """Like names of groups. The texts stay in the kernel until the mouse asks for one."""
    hostile = "<script>alert(1)</script>\x1b[31m\u202e"
    frame["text"] = frame["kind"] = [hostile] * 16
    vector_map = frame.llm.map(color="kind")
    widget = widget_of(vector_map)
    vector_map.select([True] * 16)
    for part in (widget._list.value, str(widget.box.children[2].children[1].children[0].value)):
        assert "<script" not in part
        assert part.startswith('<div class="mathjax_ignore')
        assert not any(sign in part for sign in "\x1b\u202e")
    assert "alert(1)" not in str(widget._points.get_state())


@pytest.mark.parametrize("color", ["n", "few", "many", None])
def test_the_widget_has_the_colours_of_the_picture(frame: pd.DataFrame, color: str | None) -> None:
    """For numbers, groups, groups that occur once, and none."""
    from matplotlib.colors import to_hex

    frame["n"] = [*range(15), None]
    frame["few"] = pd.Categorical(["b", "c"] * 8, categories=["a", "b", "c"])
    frame["many"] = [f"k{n % 20}" for n in range(15)] + [None]
    vector_map = frame.llm.map(color=color)
    points = widget_of(vector_map)._points
    expected = {str(each) for each in vector_map.plot.marks().colours}
    palette = points.color if isinstance(points.color[0], list) else [points.color]
    shown = {to_hex(each).upper() for each in palette}
    if color == "n":
        assert {"#3B528B", "#F0C828", "#7F7F7F"} <= shown
        assert len(shown) == 15
    else:
        assert shown == expected
    codes = points.points[:, 2].astype(int)
    if len(palette) > 1:
        assert set(codes) == set(range(len(palette)))
