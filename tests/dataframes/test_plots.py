"""Vectors as pictures: where points are, what they say, and that nothing in them runs."""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import llm_magics as lm
from llm_magics import errors, host
from llm_magics._util import label_placement, plotting
from llm_magics.dataframes import plot, projection
from llm_magics.providers.echo import EchoProvider

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
    """The same each time, the largest first."""
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
    assert page.count("<i class") == 15
    assert 'title="red apple 0"' in page
    assert shown._repr_mimebundle_()["text/plain"] == f"VectorPlot({shown.title})"


def test_colours_tell_groups_and_numbers(frame: pd.DataFrame) -> None:
    """By name of a column, or by a column; many groups are the largest and the others."""
    by_number = frame.llm.plot(color="n")
    assert by_number.marks().title_suffix == " · colour from 0 (dark) to 14 (light)"
    kinds = frame["text"].str.split().str[0]
    by_kind = lm.plot(frame["vector"], color=kinds, text=frame["text"])
    assert 'Groups: fast, red, slow"' in by_kind._repr_mimebundle_()["text/html"]
    many = plotting.create_marks([f"k{n % 20:02}" for n in range(100)] + [None], 101)
    assert len(many.names) == len(many.colours) == 17
    assert (many.names[-1], many.colours[-1]) == ("others", plotting.COLOURS[-1])
    assert many.numbers.max() == many.numbers[-1] == 16
    assert plotting.create_marks([1.0, float("nan"), 3.0], 3).span == (1, 3)
    assert plotting.create_marks([float("nan")], 1).span is None
    assert plotting.create_marks([None, None], 2).numbers.tolist() == [0, 0]
    unused = pd.Categorical(["a"], categories=["a", "b"])
    assert plotting.create_marks(unused, 1).names == ["a"]
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
    drawn = {each.get_text() for each in shown.figure().axes[0].texts}
    assert drawn == {"apples", "cars", "trains"}
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
    """Nothing in them is markup or changes the direction of the line, in attributes and in names."""
    frame.loc[100, "text"] = HOSTILE
    shown = frame.llm.plot(color=None, clusters=2)
    shown.frame["cluster"] = shown.frame["cluster"].cat.rename_categories(
        {shown.frame["cluster"].cat.categories[0]: HOSTILE}
    )
    page = type(shown)(shown.frame, HOSTILE)._repr_mimebundle_()["text/html"]
    assert re.findall(r"<(?:script|img)[^>]*>", page) == [re.search("<img alt=[^<>]*>", page)[0]]
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
    assert 'title="red apple 0"' in (tmp_path / "plot.html").read_text("utf-8")
    assert mpl.get_backend()
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_texts_of_some_points_are_in_the_page() -> None:
    """A notebook stays small; the frame has all points, and the picture has most of them."""
    shown = lm.plot(np.random.default_rng(0).random((60_000, 4), np.float32))
    page = shown._repr_mimebundle_()["text/html"]
    assert "60,000 vectors" in page
    assert page.count("<i class") == 1500
    assert len(page) < 600_000
    assert len(shown.frame) == 60_000
    axes = shown.figure().axes[0]
    assert "50,000 drawn" in axes.get_title(loc="left")
    assert len(axes.collections[0].get_offsets()) == 50_000


# The distance in OKLab between colours that stand for different groups, and the contrast of each
# with white and with the background of a dark page.
DIFFERENT, CONTRAST = 0.09, 2.2


def test_groups_are_distinguishable() -> None:
    """More than eight have different colours, visible on light and dark, and different shapes."""
    names = [f"k{n:02}" for n in range(17)]
    marks = plotting.create_marks(names, 17)
    assert len(set(marks.colours)) == 17
    linear = np.array([[channel(each[at : at + 2]) for at in (1, 3, 5)] for each in marks.colours])
    light = linear @ [0.2126, 0.7152, 0.0722]
    dark_page = channel("11")
    assert (1.05 / (light + 0.05) >= CONTRAST - 0.05).all()
    assert ((light + 0.05) / (dark_page + 0.05) >= CONTRAST).all()
    places = oklab(linear)
    distances = np.linalg.norm(places[:, None] - places, axis=2)
    assert distances[~np.eye(17, dtype=bool)].min() > DIFFERENT
    shapes = [plotting.group_shape(n) for n in range(17)]
    assert all(shapes[n] != shapes[n + 8] for n in range(9))


def channel(digits: str) -> float:
    """The light of a colour channel, from 0 to 1."""
    share = int(digits, 16) / 255
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4


def oklab(linear: Any) -> Any:
    """Colours in Ottosson's OKLab, in which distances are those that are seen."""
    cones = linear @ np.transpose(
        [[0.41222, 0.53633, 0.05145], [0.2119, 0.6807, 0.1074], [0.0883, 0.28172, 0.62998]]
    )
    return np.cbrt(cones) @ np.transpose(
        [[0.21045, 0.79362, -0.00407], [1.978, -2.42859, 0.45059], [0.0259, 0.78277, -0.80868]]
    )


def boxes(centres: Any, sizes: Any) -> list[Any]:
    """The rectangles of labels."""
    placed = [at for at in zip(centres, sizes, strict=True) if at[0] is not None]
    return [(*(centre - size / 2), *(centre + size / 2)) for centre, size in placed]


def test_labels_do_not_overlap() -> None:
    """They move to free space nearby; without any, the last ones are left out."""
    draw = np.random.default_rng(0)
    for count in (3, 12, 200):
        anchors = draw.uniform(100, 400, (count, 2))
        sizes = draw.uniform(20, 90, (count, 2))
        points = draw.uniform(0, 500, (3000, 2))
        centres = label_placement.place_labels(anchors, sizes, points, (500, 500))
        rectangles = boxes(centres, sizes)
        for one, other in itertools.combinations(rectangles, 2):
            apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1]
            assert apart or other[3] <= one[1]
        assert all(min(each) >= 0 and max(each) <= 500 for each in rectangles)
        assert centres[0] is not None
    assert None in centres
    (too_wide,) = label_placement.place_labels(
        anchors[:1], np.array([[600, 9]]), points, (500, 500)
    )
    assert too_wide is None


def test_labels_are_beside_the_points() -> None:
    """Near what they describe, and not on it."""
    points = np.random.default_rng(0).normal(250, 15, (2000, 2))
    size = np.array([[80, 14]])
    (centre,) = label_placement.place_labels(np.array([[250, 250]]), size, points, (500, 500))
    assert 20 < np.hypot(centre[0] - 250, centre[1] - 250) < 150
    inside = (np.abs(points - centre) < size / 2).all(axis=1)
    assert inside.mean() < 0.02
    empty = label_placement.place_labels(np.array([[250, 250]]), size, points[:1], (500, 500))
    assert np.hypot(empty[0][0] - 250, empty[0][1] - 250) < 30


def test_names_in_other_scripts_are_drawn_without_warnings() -> None:
    """Also where no font has their letters."""
    shown = lm.plot(blobs(), clusters=3)
    names = ["電池が切れた", "баттарея", "\U0001f50b $x_1$ _"]
    shown.frame["cluster"] = shown.frame["cluster"].cat.rename_categories(names)
    assert "電池が切れた" in shown._repr_mimebundle_()["text/html"]
    assert shown.figure()._repr_png_().startswith(b"\x89PNG")


def test_the_text_is_that_of_the_longest_column() -> None:
    """Where it is not known which column was embedded, names and categories are not texts."""
    frame = pd.DataFrame({"product": ["pan", "pot"], "text": ["a long text", "another one"]})
    frame["vector"] = [[1.0, 0.0], [0.0, 1.0]]
    assert frame.llm.plot().frame["text"].tolist() == frame["text"].tolist()
    assert frame.llm.plot(text="product").frame["text"].tolist() == ["pan", "pot"]


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
    """If it is not installed, the error says how to install it."""
    monkeypatch.setattr(projection, "find_spec", lambda name: None)
    with pytest.raises(errors.UsageError, match="not installed") as caught:
        lm.plot(blobs(), method="umap")
    assert "umap-learn" in str(caught.value.hint)


class Umap:
    """What the package umap offers, and how it uses tqdm."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def fit_transform(self, vectors: Any) -> Any:
        from umap import layouts

        for _ in layouts.tqdm(range(3), disable=True):
            pass
        return vectors[:, :2]


def test_umap_shows_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its epochs; its own progress bar is put back."""
    fake, layouts = ModuleType("umap"), ModuleType("umap.layouts")
    fake.UMAP, fake.layouts, layouts.tqdm = Umap, layouts, len
    monkeypatch.setitem(sys.modules, "umap", fake)
    monkeypatch.setitem(sys.modules, "umap.layouts", layouts)
    shown: list[Any] = []
    points, shares = projection.project(blobs(), "umap", shown.append)
    assert str(shown[0]) == "projecting 60 vectors"
    assert [each.done for each in shown] == [0, 1, 2, 3]
    assert shown[-1].fraction == 1
    assert shares is None
    np.testing.assert_array_equal(points, blobs()[:, :2])
    assert layouts.tqdm is len


def test_a_plot_shows_its_steps_and_removes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """While many vectors are projected and grouped; a few are quick."""
    shown: list[Any] = []
    monkeypatch.setattr(host.current_host(), "create_progress_display", lambda: shown.append)
    lm.plot(blobs(), clusters=2)
    assert not shown
    monkeypatch.setattr(plot, "_SLOW_ROWS", 60)
    lm.plot(blobs(), clusters=2)
    assert [str(each) for each in shown] == [
        "projecting 60 vectors",
        "grouping 60 vectors",
        "None",
    ]


def test_without_scikit_learn_nothing_is_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error, which has the line that installs it, comes before any text is sent."""
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(errors.UsageError, match="scikit-learn") as caught:
        lm.plot(["one", "two"], model="echo/there-is-no-such-model")
    assert 'pip install "jupyter-llm-magics[plots]"' in str(caught.value.hint)


def test_without_matplotlib_nothing_is_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error comes before any text is sent."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(errors.UsageError, match="needs matplotlib") as caught:
        lm.plot(["one", "two"], model="echo/there-is-no-such-model")
    assert "[plots]" in str(caught.value.hint)
