"""Vectors as pictures: where points are, what they say, and that nothing in them runs."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import llm_magics as lm
from llm_magics import errors
from llm_magics._util import plotting
from llm_magics.dataframes import plot, projection
from llm_magics.providers.echo import EchoProvider
from tests.support.prepared_python import run_prepared

ECHO = {"model": "echo/echo"}


@pytest.fixture
def frame() -> pd.DataFrame:
    """Texts of three kinds with their vectors, and one that is missing."""
    texts = [f"{kind} {n}" for kind in ("red apple", "fast car", "slow train") for n in range(5)]
    made = pd.DataFrame({"text": [*texts, None], "n": range(16)}, index=range(100, 116))
    return made.llm.embed("text", **ECHO)


def blobs(count: int = 60, width: int = 40) -> Any:
    """Three groups of directions, a third of ``count`` each."""
    draw = np.random.default_rng(1)
    middles = draw.standard_normal((3, width)) * 4
    spread = draw.standard_normal((count, width)) * 0.3
    return (np.repeat(middles, count // 3, axis=0) + spread).astype(np.float32)


def test_the_components_are_those_of_an_exact_decomposition() -> None:
    """Up to their sign, which is always the same; with their shares of the variance."""
    vectors = blobs() + np.arange(40, dtype=np.float32)
    points, shares = projection.principal_components(vectors)
    centred = vectors - vectors.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    exact = left[:, :2] * sizes[:2]
    np.testing.assert_allclose(np.abs(points), np.abs(exact), atol=1e-2)
    np.testing.assert_allclose(shares, (sizes**2 / (sizes**2).sum())[:2], rtol=1e-3)
    np.testing.assert_array_equal(points, projection.principal_components(vectors)[0])


@pytest.mark.parametrize("shape", [(2, 5), (3, 1), (5, 2), (2, 1)])
def test_few_vectors_and_few_dimensions(shape: tuple[int, int]) -> None:
    """Are points too."""
    points, shares = projection.principal_components(
        np.random.default_rng(0).random(shape, np.float32)
    )
    assert points.shape == (shape[0], 2)
    assert np.isfinite(points).all()
    assert sum(shares) <= 1.001
    assert np.isfinite(projection.principal_components(np.ones(shape, np.float32))[0]).all()


def test_groups_are_found() -> None:
    """The same each time, the largest first; a group may be empty-handed and harms nobody."""
    vectors = np.concatenate([blobs(), blobs()[:10]])
    numbers, centres = projection.cluster(vectors, 3)
    assert np.bincount(numbers).tolist() == [30, 20, 20]
    assert len(set(numbers[:20])) == len(set(numbers[20:40])) == 1
    np.testing.assert_array_equal(projection.cluster(vectors, 3)[0], numbers)
    assert centres.shape == (3, 40)


def test_fewer_distinct_vectors_than_clusters() -> None:
    """Leave clusters empty, without a warning."""
    same = np.ones((4, 3), np.float32)
    numbers, centres = projection.cluster(same, 3)
    assert numbers.tolist() == [0, 0, 0, 0]
    assert centres.shape == (3, 3)
    names = projection.keywords(["red apple"] * 4, numbers, 3)
    assert names == ["apple, red", "group 2", "group 3"]


def test_a_frame_is_drawn(frame: pd.DataFrame) -> None:
    """A point for each vector on the frame's index, with the text of its row."""
    shown = frame.llm.plot()
    assert shown.frame.index.tolist() == list(range(100, 115))
    assert shown.frame["text"].tolist() == frame["text"].tolist()[:15]
    assert "15 vectors · 1 missing · 2 principal components" in shown.title
    page = shown._repr_mimebundle_()["text/html"]
    assert page.count("<i style") + page.count("<i class") == 15
    assert 'data-tip="red apple 0"' in page
    assert shown._repr_mimebundle_()["text/plain"] == f"VectorPlot({shown.title})"


def test_colours_tell_groups_and_numbers(frame: pd.DataFrame) -> None:
    """By name of a column, or by a column; many groups are the largest and the others."""
    by_number = frame.llm.plot(color="n")
    assert "colour from 0 (dark) to 14 (light)" in by_number._repr_mimebundle_()["text/html"]
    kinds = frame["text"].str.split().str[0]
    by_kind = lm.plot(frame["vector"], color=kinds, text=frame["text"])
    assert ">red</" not in by_kind._repr_mimebundle_()["text/html"]
    assert "red" in by_kind._repr_mimebundle_()["text/html"]
    many = plotting.create_marks([f"k{n % 20}" for n in range(100)] + [None], 101)
    assert len(many.names) == 8
    assert many.names[-1] == "others"
    assert many.numbers.max() == 7
    assert plotting.create_marks([1.0, float("nan"), 3.0], 3).colours[1] == plotting.COLOURS[-1]
    assert plotting.create_marks([None, None], 2).numbers.tolist() == [0, 0]
    for wrong in ({"color": [1, 2]}, {"text": ["a"]}):
        with pytest.raises(errors.UsageError, match="values for"):
            lm.plot(frame["vector"], **wrong)


def test_clusters_are_named_by_a_model(
    frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the texts in their middle; asked once for each, and kept."""
    asked: list[str] = []
    real = EchoProvider.stream_chat

    def count(self: EchoProvider, messages: Any, *rest: Any) -> Any:
        asked.append(messages[-1].content)
        kind = next(kind for kind in ("apple", "car", "train") if kind in messages[-1].content)
        said = [type(messages[-1])("user", f'"**{kind}s**"\nbecause')]
        return real(self, said, *rest)

    monkeypatch.setattr(EchoProvider, "stream_chat", count)
    lm.config.model, lm.config.cache_dir = "echo/echo", Path("cache")
    shown = frame.llm.plot(clusters=3, label=True)
    assert set(shown.frame["cluster"].cat.categories) == {"apples", "cars", "trains"}
    assert shown.frame["cluster"][100] == "apples"
    assert len(asked) == 3
    assert "- red apple" in "".join(asked)
    assert "<b style" in shown._repr_mimebundle_()["text/html"]
    frame.llm.plot(clusters=3, label="echo/echo")
    assert len(asked) == 3
    plain = frame.llm.plot(clusters=3)
    assert set(plain.frame["cluster"].cat.categories) == {"apple, red", "car, fast", "slow, train"}
    with pytest.raises(errors.UsageError, match="99"):
        frame.llm.plot(clusters=99)


def test_groups_are_called_by_words_of_their_own() -> None:
    """Those that others have not; where no word tells, by a number."""
    texts = ["the cat sat", "the cat ran", "the bank paid", "the bank failed", "..."]
    numbers = np.array([0, 0, 1, 1, 2])
    names = projection.keywords(texts, numbers, 3)
    assert [name.split(",")[0] for name in names] == ["cat", "bank", "group 3"]
    assert "the" not in "".join(names)
    texts = ["not with that cat", "very much that bank"]
    assert projection.keywords(texts, np.array([0, 1]), 2) == ["cat", "bank"]
    texts = ["the system didn't start", "a fire won't wait"]
    names = projection.keywords(texts, np.array([0, 1]), 2)
    assert names == ["start, system", "fire, wait"]
    assert projection.keywords(["...", "12"], np.array([0, 1]), 2) == ["group 1", "group 2"]


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("Fruit", "Fruit"),
        ('\n  "Fruit."\nMore', "Fruit"),
        ("", ""),
        ("a " * 9, ""),
        ("x" * 99, ""),
    ],
)
def test_a_name_is_taken_from_an_answer(answer: str, name: str) -> None:
    """Its first line, without what models put around it."""
    assert plot._parse_name(answer) == name


HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>\x00\x1b[31m\u202e$\\alpha$'


def test_texts_are_shown_as_they_are(frame: pd.DataFrame) -> None:
    """Nothing in them is markup, in attributes and in names, nor turns the line around."""
    frame.loc[100, "text"] = HOSTILE
    shown = frame.llm.plot(color=None, clusters=2)
    shown.frame["cluster"] = shown.frame["cluster"].cat.rename_categories(
        {shown.frame["cluster"].cat.categories[0]: HOSTILE}
    )
    page = type(shown)(shown.frame, HOSTILE)._repr_mimebundle_()["text/html"]
    assert not re.search(r"<(script|img)", page)
    assert not re.search("[\x00-\x1f\u202e]", page)
    type(shown)(shown.frame, HOSTILE).figure()


def test_a_figure_of_matplotlibs(frame: pd.DataFrame, tmp_path: Path) -> None:
    """To go on with, and to save; nothing of pyplot's state is touched."""
    shown = frame.llm.plot(clusters=3)
    figure = shown.figure()
    assert len(figure.axes[0].collections) == 3
    assert figure.patch.get_alpha() == 0
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    assert shown.figure(ax).axes[0] is ax
    shown.save(tmp_path / "plot.png")
    shown.save(tmp_path / "plot.html")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert "data-tip" in (tmp_path / "plot.html").read_text("utf-8")
    assert mpl.get_backend()
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_many_points_are_drawn_in_part() -> None:
    """A notebook stays small, and the picture says so; the frame has all of them."""
    shown = lm.plot(np.random.default_rng(0).random((5000, 4), np.float32))
    page = shown._repr_mimebundle_()["text/html"]
    assert "5,000 vectors" in page
    assert "4,000 shown" in page
    assert len(page) < 600_000
    assert len(shown.frame) == 5000
    assert 'data-tip="4999"' in page or 'data-tip="4998"' in page


def test_texts_alone_are_drawn() -> None:
    """They are embedded first."""
    lm.config.embedding_model = "echo/echo"
    shown = lm.plot(["one", "two", "three", None])
    assert shown.frame["text"].tolist() == ["one", "two", "three"]
    assert pd.Series(["one", "two"]).llm.plot().frame["text"].tolist() == ["one", "two"]


@pytest.mark.parametrize(
    ("column", "given", "said"),
    [
        ([[1.0, 2.0]], {}, "two vectors"),
        ([[1.0, 2.0], [2.0, 1.0]], {"method": "tsne"}, "method"),
    ],
)
def test_what_cannot_be_drawn(column: Any, given: dict[str, Any], said: str) -> None:
    """Is an error that says why."""
    with pytest.raises(errors.UsageError, match=said):
        lm.plot(column, **given)


def test_umap_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Near stays near; where it is not, the error says how to have it."""
    monkeypatch.setattr(projection, "find_spec", lambda name: None)
    with pytest.raises(errors.UsageError, match="not installed") as caught:
        lm.plot(blobs(), method="umap")
    assert "umap-learn" in str(caught.value.hint)


def test_without_scikit_learn_nothing_is_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error, which has the line that installs it, comes before any text is sent."""
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(errors.UsageError, match="needs scikit-learn") as caught:
        lm.plot(["one", "two"], model="echo/there-is-no-such-model")
    assert 'pip install "llm_magics[plots]"' in str(caught.value.hint)


def test_without_matplotlib_the_page_is_drawn_all_the_same() -> None:
    """The figure alone needs it."""
    code = """
import sys
sys.modules["matplotlib"] = None
import llm_magics as lm
shown = lm.plot([[1.0, 2.0], [2.0, 1.0], [0.0, 1.0]])
assert shown._repr_mimebundle_()["text/html"].count("<i") == 3
try:
    shown.figure()
except lm.errors.UsageError as error:
    print(error.hint)
"""
    assert "llm_magics[plots]" in run_prepared(code).stdout
