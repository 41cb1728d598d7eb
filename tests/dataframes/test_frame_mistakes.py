"""What a slip must not cost: nothing that was there before is lost, and nothing is sent."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

import llm_magics as lm
from llm_magics import errors
from llm_magics.dataframes import arrow
from llm_magics.dataframes.vectors import find_embedding_model
from tests.support.chatter import Chatter
from tests.support.embedder import Embedder
from tests.support.serving import serving

ECHO = {"model": "echo/echo"}


@pytest.fixture
def chat() -> Iterator[Chatter]:
    """The service ``lab``, whose model ``m`` is asked where none is named."""
    fake = Chatter()
    with serving(fake) as server:
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url, "api_key": "k"}}
        lm.config.model = "lab/m"
        lm.config.cache_dir = "cache"
        yield fake


@pytest.fixture
def service() -> Iterator[Embedder]:
    """The service ``lab``, whose models embed."""
    fake = Embedder()
    with serving(fake) as server:
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url, "api_key": "k"}}
        lm.config.embedding_model = "lab/m"
        yield fake


@pytest.mark.parametrize(
    "given",
    [
        {"temprature": 1},
        {"concurency": 4},
        {"on_eror": "raise"},
        {"model": "nope/none"},
        {"thread": "x"},
        {"concurrency": 0},
        {"concurrency": "x"},
        {"on_error": "rise"},
    ],
)
def test_a_slip_changes_no_column(chat: Chatter, given: dict[str, Any]) -> None:
    """Nor is anything sent."""
    frame = pd.DataFrame({"text": ["a", "b"], "answer": ["old", "old"]})
    with pytest.raises(errors.LLMError):
        frame.llm.prompt("{{ text }}", **given)
    assert frame["answer"].tolist() == ["old", "old"]
    assert chat.paid == []


@pytest.mark.parametrize("name", ["into", "schema", "thread"])
def test_what_does_not_belong_here_goes_to_no_model(chat: Chatter, name: str) -> None:
    """It is refused by name, and not taken for a parameter of the model."""
    with pytest.raises(errors.UsageError, match=f"{name} is not supported here"):
        lm.classify(["a"], ["x", "y"], **{name: "z"})
    assert chat.paid == []


def test_a_row_that_fails_keeps_what_it_had(chat: Chatter) -> None:
    """Answers of an earlier run are not lost to a failure."""
    chat.poison = {"bad"}
    frame = pd.DataFrame({"text": ["a", "bad"], "summary": ["old a", "old bad"]})
    with pytest.warns(UserWarning, match="1 failed"):
        frame.llm.prompt("{{ text }}", into="summary")
    assert frame["summary"].tolist() == ["said: a", "old bad"]
    frame["mood"] = ["fine", "good"]
    with pytest.warns(UserWarning, match="1 failed"):
        frame.llm.classify("text", ["good", "awful"], into="mood")
    assert frame["mood"].tolist()[1] == "good"


def test_answers_never_take_the_place_of_what_they_are_about(chat: Chatter) -> None:
    """A second run would ask about the answers."""
    frame = pd.DataFrame({"text": ["a"], "n": [1]})
    for ask in (
        lambda: frame.llm.prompt("{{ text }}", into="text"),
        lambda: frame.llm.extract("text", "text, words int"),
        lambda: frame.llm.classify("text", ["x", "y"], into="text"),
    ):
        with pytest.raises(errors.UsageError, match="text"):
            ask()
    with pytest.raises(errors.UsageError, match=r"\bn\b"):
        frame.llm.extract("text", "n int")
    assert (chat.paid, list(frame), frame["n"].tolist()) == ([], ["text", "n"], [1])
    frame.llm.extract("text", "words int")
    frame.llm.extract("text", "words int")  # its own may be made anew


def test_columns_called_like_functions_are_columns(chat: Chatter) -> None:
    """Jinja has functions of these names; a frame's own come first."""
    frame = pd.DataFrame({"min": [1, 2], "max": [3, 4]})
    frame.llm.prompt("from {{ min }} to {{ max }}, {{ len('ab') }}")
    assert frame["answer"].tolist() == ["said: from 1 to 3, 2", "said: from 2 to 4, 2"]


def test_a_row_with_nothing_to_ask_is_missing(chat: Chatter) -> None:
    """A prompt that comes out blank ends no column."""
    frame = pd.DataFrame({"n": [1, 0, 2]})
    frame.llm.prompt("{% if n %}ask {{ n }}{% endif %}")
    assert frame["answer"].tolist() == ["said: ask 1", None, "said: ask 2"]


def test_labels_may_come_in_any_form(chat: Chatter) -> None:
    """A generator, and one twice; what is no list of texts is refused."""
    labels = (each for each in ("good", "bad", "good"))
    assert lm.classify(["it is ba"], labels).cat.categories.tolist() == ["good", "bad"]
    for wrong in (None, "good", ["good", 1], {"good": "x", "bad": "y"}):
        with pytest.raises(errors.UsageError, match="labels"):
            lm.classify(["a"], wrong)
    schema = {"type": "object", "properties": {"x": {"enum": ["a", "a", "b"], "type": "string"}}}
    assert lm.extract(["a"], schema)["x"].cat.categories.tolist() == ["a", "b"]


def test_the_dearest_model_of_a_route_counts(chat: Chatter) -> None:
    """A free one before it does not hide what another costs."""
    lm.config.set("providers.free.type", "openai")
    lm.config.set("providers.free.base_url", "http://127.0.0.1:9")
    lm.config.prices = {"free/*": 0, "lab/*": {"input_usd": 0, "output_usd": 1_000_000}}
    lm.config.routes = {"mix": ["free/x", "lab/m"]}
    with pytest.raises(errors.UsageError):
        lm.prompt(["a", "b"], "{{ text }}", model="mix", max_tokens=1)
    assert chat.paid == []


def test_texts_that_are_embedded_by_the_way_are_asked_about(service: Embedder) -> None:
    """By nearest, dedupe, plot and index too."""
    lm.config.prices = {"lab/*": {"input_usd": 1_000_000}}
    frame = pd.DataFrame({"text": [f"text {n}" for n in range(20)]})
    lm.embed(["text"])  # one text is a call like any other
    for look in (
        lambda: frame.llm.nearest("text", on="text"),
        lambda: frame.llm.dedupe(on="text"),
        lambda: frame.llm.plot("text"),
        lambda: lm.index(frame["text"]),
    ):
        with pytest.raises(errors.UsageError):
            look()
    assert service.paid == ["text"]


def test_older_vectors_are_lost_to_no_slip(service: Embedder) -> None:
    """A column of numbers has nothing to embed, and takes the place of nothing."""
    frame = pd.DataFrame({"text": ["a", "b"], "stars": [1, 2]}).llm.embed("text")
    before = lm.matrix(frame["vector"])
    with pytest.raises(errors.UsageError, match=r"stars.*int64"):
        frame.llm.embed("stars")
    service.poison = {"a", "b"}
    frame["text"] = ["a!", "b!"]
    lm.config.set("providers.lab.base_url", "http://127.0.0.1:9")
    with pytest.raises(errors.ConnectionError):
        frame.llm.embed("text")
    np.testing.assert_array_equal(lm.matrix(frame["vector"]), before)


def test_a_model_that_was_changed_is_paid_once(service: Embedder) -> None:
    """Its vectors have another length now: what came is kept, and the older ones asked for anew."""
    lm.embed(["a", "b"])
    service.cut = 4
    with pytest.raises(errors.ProviderError, match="4 dimensions"):
        lm.embed(["a", "new 1", "new 2"])
    assert lm.embed(["a", "new 1", "new 2"]).shape == (3, 4)
    assert sorted(service.paid) == ["a", "a", "b", "new 1", "new 2"]
    lm.embed(["a", "new 1"])
    assert len(service.paid) == 5


def test_who_made_vectors_is_known_wherever_they_go(service: Embedder) -> None:
    """Through other names, merges, sorting and files; two models in one column are an error."""
    pytest.importorskip("pyarrow")
    texts = pd.DataFrame({"id": [1, 2, 3], "text": ["a", "b", "c"]})
    texts["v"] = texts["text"].llm.embed(model="lab/other")
    merged = texts.merge(pd.DataFrame({"id": [3, 1], "x": [0, 0]}), on="id").rename(
        columns={"v": "w"}
    )
    assert find_embedding_model(merged["w"]) == ("lab/other", None)
    before = service.requests
    assert merged.llm.nearest("c", on="w", k=1)["text"].tolist() == ["c"]
    assert service.requests == before  # it had been embedded by that model, and by no other
    texts.llm.embed("text", into="u", model="lab/third", dimensions=4)
    file = io.BytesIO()
    texts.to_parquet(file)
    back = pd.read_parquet(file)
    assert back.llm.nearest("b", on="u", k=1)["text"].tolist() == ["b"]
    both = pd.concat([texts["v"], texts["text"].llm.embed(model="lab/m")])
    with pytest.raises(errors.UsageError, match=r"lab/m and lab/other"):
        both.llm.nearest("a")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "query is empty"),
        (None, "a text or a vector"),
        (["a", "b"], "a text or a vector"),
        ([[1.0, 2.0]], "a text or a vector"),
        ([float("nan")] * 64, "a text or a vector"),
        ([1.0, 2.0], "2 dimensions"),
    ],
)
def test_a_query_is_a_text_or_a_vector(query: Any, said: str) -> None:
    """Whatever else is given, the error says so."""
    frame = pd.DataFrame({"text": ["a"]}).llm.embed("text", **ECHO)
    with pytest.raises(errors.UsageError, match=said):
        frame.llm.nearest(query)


def test_columns_that_are_not_what_they_seem() -> None:
    """Vectors out of a CSV, vectors and texts, two columns of a name, none of vectors."""
    frame = pd.DataFrame({"text": ["a", "b"]}).llm.embed("text", **ECHO)
    written = pd.read_csv(io.StringIO(frame.to_csv(index=False)))
    with pytest.raises(errors.UsageError, match="truncated"):
        written.llm.nearest("a")
    mixed = pd.Series([frame["vector"][0], "a"])
    with pytest.raises(errors.UsageError, match="vectors"):
        mixed.llm.nearest("a")
    twice = pd.DataFrame([["a", "b"]], columns=["text", "text"])
    for ask in (
        lambda: twice.llm.embed("text", **ECHO),
        lambda: twice.llm.prompt("{{ text }}", **ECHO),
    ):
        with pytest.raises(errors.UsageError, match="column"):
            ask()
    with pytest.raises(errors.UsageError, match="vector column") as caught:
        pd.DataFrame({"text": ["a"]}).llm.nearest("a")
    assert "df.llm.embed" in str(caught.value.hint)


def test_nothing_says_what_another_says() -> None:
    """Empty and missing columns have no duplicates; equal vectors are found at a cosine of 1."""
    assert lm.dedupe([]).tolist() == []
    assert lm.dedupe([None, None]).tolist() == [True, True]
    draw = np.random.default_rng(0).standard_normal((1, 384)).astype(np.float32)
    assert lm.dedupe(np.repeat(draw, 3, axis=0), 1).tolist() == [True, False, False]
    assert lm.nearest(iter(["a", "b"]), "b", k=np.int64(1), **ECHO).index.tolist() == [1]


def test_gaps_of_other_libraries_are_gaps() -> None:
    """``pd.NA`` among vectors, and Arrow's larger lists."""
    pa = pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"v": [np.ones(3, np.float32), pd.NA]})
    assert np.isnan(lm.matrix(frame["v"])[1]).all()
    for kind in (pa.large_list(pa.float32()), pa.list_(pa.float32(), 3), pa.list_(pa.float64())):
        array = pa.array([[1.0, 2.0, 3.0], None], type=kind)
        column = pd.Series(pd.arrays.ArrowExtensionArray(array))
        assert arrow.is_arrow_column(column)
        assert np.isnan(lm.matrix(column)[:, 0]).tolist() == [False, True]


def test_odd_vectors_are_left_out_of_a_picture() -> None:
    """Zero, endless and missing ones; numbers with gaps colour as numbers do."""
    vectors = np.random.default_rng(0).standard_normal((12, 4)).astype(np.float32)
    vectors[0], vectors[1], vectors[2] = 0, np.inf, np.nan
    vectors[3] = 1e30
    shown = lm.plot(vectors, clusters=2, color=pd.Series([1, None] * 6, dtype="Int64"))
    assert len(shown.frame) == 8
    assert shown.marks().span == (1, 1)
    with pytest.raises(errors.UsageError, match="holds lists"):
        lm.plot(vectors, color=[[1]] * 12)
    named = pd.Series(["_a", "b"] * 6)
    legend = lm.plot(vectors, color=named).figure().axes[0].get_legend()
    assert [each.get_text() for each in legend.get_texts()] == [" _a", " b"]
    with pytest.raises(errors.UsageError, match="folder"):
        shown.save("nowhere/plot.html")
    assert pd.DataFrame({"id": ["x", "y"], "text": ["a", "b"]}).llm.plot("text", **ECHO).frame[
        "text"
    ].tolist() == ["a", "b"]


def test_many_hands_for_little_work_are_not_hired(service: Embedder) -> None:
    """A million requests at once of one text are one."""
    assert lm.embed(["a"], concurrency=1_000_000).shape[0] == 1
