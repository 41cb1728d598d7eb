"""What services answer in place of vectors: each text gets its own vector, or none."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import errors
from llm_magics.types import PackedVectors
from llm_magics.wire import ollama
from llm_magics.wire.openai_media import extract_vectors, parse_embeddings, parse_packed_vectors
from tests.support.embedder import WIDTH, vector_of
from tests.support.serving import Asked, Says, as_json, serving

NAN, HUGE = float("nan"), 10**400


def in_base64(vector: list[float]) -> str:
    """As OpenAI sends it."""
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()


# What comes in place of the vector of the text "odd".
ODD: dict[str, Any] = {
    "nulls": [None] * WIDTH,
    "one null": [1.0, None] + [1.0] * (WIDTH - 2),
    "null": None,
    "texts": ["1.0"] * WIDTH,
    "truth values": [True] * WIDTH,
    "nan": [NAN] * WIDTH,
    "infinite": [float("inf")] * WIDTH,
    "too large": [HUGE] * WIDTH,
    "empty": [],
    "zeros": [0.0] * WIDTH,
    "short": [1.0] * (WIDTH // 2),
    "long": [1.0] * (2 * WIDTH),
    "nested": [[1.0] * WIDTH],
    "a number": 1,
    "an object": {"values": [1.0] * WIDTH},
    "no base64": "!!!!" + in_base64([1.0] * WIDTH),
    "base64 with garbage": in_base64([1.0] * WIDTH)[:8] + "*" + in_base64([1.0] * WIDTH)[8:],
    "base64 cut": in_base64([1.0] * WIDTH)[:6],
    "base64 of zeros": in_base64([0.0] * WIDTH),
    "base64 of NaN": in_base64([NAN] * WIDTH),
    "base64, short": in_base64([1.0] * 2),
    "a mark": "#0",
}


def openai_format(text: str, odd: Any, *, packs: bool) -> Any:
    """The vector of ``text`` as a service of OpenAI's format sends it."""
    if text == "odd":
        return odd
    return in_base64(vector_of(text)) if packs else vector_of(text)


def service(kind: str, odd: Any) -> Callable[[Asked], Says]:
    """A service of one kind that sends ``odd`` for the text "odd"."""

    def answer(asked: Asked) -> Says:
        if asked.path == "/api/show":
            return as_json({"capabilities": ["embedding"], "details": {}, "model_info": {}})
        if asked.path == "/api/tags":
            return as_json({"models": [{"name": "m", "model": "m", "digest": "d", "details": {}}]})
        if asked.method != "POST":
            return as_json({"data": [{"id": "m"}]})
        body = asked.json()
        if kind == "ollama":
            rows = [openai_format(text, odd, packs=False) for text in body["input"]]
            return as_json({"embeddings": rows})
        if kind == "huggingface":
            return as_json([openai_format(text, odd, packs=False) for text in body["inputs"]])
        packs = kind == "base64"
        rows = [openai_format(text, odd, packs=packs) for text in body["input"]]
        data = [{"index": n, "embedding": row} for n, row in enumerate(rows)]
        return as_json({"data": data[::-1], "usage": {"prompt_tokens": 1}})

    return answer


def placed(kind: str, url: str) -> str:
    """Tell where the service is; the name of its model."""
    own = {"ollama": "ollama", "huggingface": "huggingface"}.get(kind)
    if own:
        lm.config.set(f"providers.{own}.base_url", url)
        lm.config.set(f"providers.{own}.api_key", "k" * 12)
        return f"{own}/m"
    lm.config.set("providers.lab.type", "openai")
    lm.config.set("providers.lab.base_url", f"{url}/v1")
    return "lab/m"


TEXTS = ["a", "odd", "b", "c"]


@pytest.mark.parametrize("kind", ["base64", "numbers", "ollama", "huggingface"])
@pytest.mark.parametrize("name", sorted(ODD))
def test_an_odd_vector_is_one_failed_row(kind: str, name: str) -> None:
    """The others are stored; the odd one alone is asked for again."""
    odd = ODD[name]
    if kind == "huggingface" and name == "nested":
        pytest.skip("for this service a list of token vectors is a vector, by its mean")
    with serving(service(kind, odd)) as server:
        model = placed(kind, server.url)
        frame = pd.DataFrame({"text": TEXTS})
        with pytest.warns(UserWarning, match="1 failed"):
            frame.llm.embed("text", model=model)
        assert frame["vector"].isna().tolist() == [False, True, False, False]
        for text, vector in zip(TEXTS, frame["vector"], strict=True):
            if text != "odd":
                np.testing.assert_array_equal(vector, np.float32(vector_of(text)))
        assert "3 ok · 1 failed" in str(frame.llm.report)
        before = len(server.asked)
        matrix = lm.embed(TEXTS, model=model, on_error="null")
        assert np.isnan(matrix[:, 0]).tolist() == [False, True, False, False]
        bodies = [asked.json() for asked in server.asked[before:] if asked.method == "POST"]
        sent = [body.get("input", body.get("inputs")) for body in bodies]
        # Of another length, and alone: one more is sent to see whether the model has changed.
        assert ["odd"] in sent
        assert len([texts for texts in sent if texts]) <= 2
        with pytest.raises(errors.ProviderError, match="'odd'"):
            lm.embed(TEXTS, model=model, on_error="raise")


@pytest.fixture
def answers() -> Iterator[list[Any]]:
    """What a service answers, one after the other; then right answers."""
    wanted: list[Any] = []

    def answer(asked: Asked) -> Says:
        texts = asked.json()["input"]
        rows = [vector_of(text) for text in texts]
        made = wanted.pop(0)(texts, rows) if wanted else None
        data = made or [{"index": n, "embedding": row} for n, row in enumerate(rows)]
        return as_json({"data": data, "usage": {"prompt_tokens": 1}})

    with serving(answer) as server:
        lm.config.embedding_model = placed("numbers", server.url)
        yield wanted


INDEXES: list[list[Any]] = [
    [0, 0, 2],
    [0, 1, 1],
    [0, 1, 3],
    [1, 2, 3],
    [-1, 0, 1],
    ["0", "1", "2"],
    [0.0, 1.0, 2.0],
    [False, True, 2],
    [0, None, 2],
    [0, 1, [2]],
]


@pytest.mark.parametrize("indexes", INDEXES, ids=str)
def test_indexes_that_are_not_each_once_refuse_the_batch(
    answers: list[Any], indexes: list[Any]
) -> None:
    """No text ever gets another's vector, and nothing of that answer is stored."""

    def wrong(texts: list[str], rows: list[list[float]]) -> list[dict[str, Any]]:
        return [
            {"index": index, "embedding": row} for index, row in zip(indexes, rows, strict=True)
        ]

    answers += [wrong] * 20
    lm.config.retries = 0
    with pytest.raises(errors.ProviderError, match="exactly"):
        lm.embed(["a", "b", "c"])
    answers.clear()
    expected = np.float32([vector_of(text) for text in "abc"])
    np.testing.assert_array_equal(lm.embed(["a", "b", "c"]), expected)


@given(st.permutations(range(5)), st.booleans())
def test_vectors_go_to_their_texts_in_any_order(order: list[int], packs: bool) -> None:
    """By their index; without any index, in the order in which they came."""
    vectors = [[float(n), 1.0] for n in range(5)]
    told = [in_base64(vector) if packs else vector for vector in vectors]
    reply = {"data": [{"index": n, "embedding": told[n]} for n in order]}
    assert parse_embeddings(reply) == vectors
    assert parse_packed_vectors(reply).data == np.float32(vectors).tobytes()
    plain = {"data": [{"embedding": each} for each in told]}
    assert parse_packed_vectors(plain).data == np.float32(vectors).tobytes()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(max_size=3), each, max_size=2),
    max_leaves=6,
)  # fmt: skip


@given(st.lists(json_values, min_size=1, max_size=4))
def test_whatever_comes_as_vectors_is_rows_of_one_length(values: list[Any]) -> None:
    """However the answer is read, each text has a row, of numbers or of NaN."""
    good = [[1.0, 2.0]] * (len(values) + 1)
    for packed in (
        PackedVectors.of([*values, *good]),
        parse_packed_vectors({"data": [{"embedding": each} for each in [*values, *good]]}),
        PackedVectors.of(ollama.parse_embeddings({"embeddings": [*values, *good]})),
    ):
        assert packed.dimensions == 2
        rows = np.frombuffer(packed.data, "<f4").reshape(-1, 2)
        assert len(rows) == len(values) + len(good)
        np.testing.assert_array_equal(rows[len(values) :], good)


def test_a_number_in_place_of_a_vector_gets_no_other_texts_vector() -> None:
    """Vectors that are set apart are found again by marks that no service sends."""
    packed = in_base64([1.0, 2.0])
    reply = {"data": [{"embedding": packed}, {"embedding": 0}, {"embedding": packed}]}
    rest, apart = extract_vectors(json.dumps(reply).encode())
    rows = np.frombuffer(parse_packed_vectors(json.loads(rest), apart).data, "<f4").reshape(3, 2)
    assert np.isnan(rows[1]).all()


def test_a_batch_that_one_text_spoils_is_split(answers: list[Any]) -> None:
    """Where no vector of a batch can be used, its halves are asked for."""

    def spoilt(texts: list[str], rows: list[list[float]]) -> list[dict[str, Any]] | None:
        if "odd" not in texts:
            return None
        return [{"index": n, "embedding": [None] * WIDTH} for n in range(len(texts))]

    answers += [spoilt] * 40
    matrix = lm.embed(["a", "b", "odd", "c"], on_error="null")
    assert np.isnan(matrix[:, 0]).tolist() == [False, False, True, False]


def test_a_service_without_a_usable_vector_is_given_up(answers: list[Any]) -> None:
    """After a few texts, not after all of them."""
    asked: list[int] = []

    def none(texts: list[str], rows: list[list[float]]) -> list[dict[str, Any]]:
        asked.append(len(texts))
        return [{"index": n, "embedding": [None] * WIDTH} for n in range(len(texts))]

    answers += [none] * 1000
    with pytest.raises(errors.ProviderError, match="unusable vector"):
        lm.embed([f"text {n}" for n in range(200)], on_error="null", concurrency=1)
    assert len(asked) < 40


def test_vectors_of_another_length_than_was_asked_for_are_refused(answers: list[Any]) -> None:
    """The error names both lengths; nothing is stored under the one that was asked for."""

    def whole(texts: list[str], rows: list[list[float]]) -> list[dict[str, Any]]:
        return [{"index": n, "embedding": row * 2} for n, row in enumerate(rows)]

    answers += [whole] * 20
    with pytest.raises(errors.UnsupportedError, match=r"16 dimensions"):
        lm.embed(["a", "b"], dimensions=8)
    answers.clear()
    assert lm.embed(["a", "b"], dimensions=8).shape == (2, 8)


def test_one_text_of_another_length_fails_alone(answers: list[Any]) -> None:
    """In a batch of its own too: the model still gives the others' length."""

    def odd(texts: list[str], rows: list[list[float]]) -> list[dict[str, Any]] | None:
        return [{"index": 0, "embedding": [1.0] * 3}] if texts == ["odd"] else None

    answers += [odd] * 40
    matrix = lm.embed(["a" * 9, "b" * 9, "odd", "c"], batch_size=1, concurrency=1, on_error="null")
    assert np.isnan(matrix[:, 0]).tolist() == [False, False, True, False]
    before = len(answers)
    lm.embed(["a" * 9, "b" * 9, "c"])
    assert len(answers) == before  # they are stored


def test_vectors_never_take_the_place_of_texts(
    answers: list[Any], shell: InteractiveShell
) -> None:
    """Neither of those that they are of, nor of others."""
    frame = pd.DataFrame({"text": ["a", "b"], "title": ["x", "y"]})
    before = frame.copy()
    for into in ("text", "title"):
        with pytest.raises(errors.UsageError, match="overwrite"):
            frame.llm.embed("text", into=into)
    shell.user_ns["frame"] = frame
    for line in ("frame.text --into text", 'frame["text"] --into title'):
        with pytest.raises(errors.UsageError, match="overwrite"):
            shell.run_line_magic("embed", line)
    pd.testing.assert_frame_equal(frame, before)
    frame.llm.embed("text")
    frame.llm.embed("text")  # older vectors are overwritten


def test_answers_never_take_the_place_of_a_column_by_default() -> None:
    """A column called like the one that answers go into belongs to the user."""
    frame = pd.DataFrame({"q": ["a", "b"], "answer": ["yes", "no"], "label": ["x", "y"]})
    before = frame.copy()
    with pytest.raises(errors.UsageError, match="answer"):
        frame.llm.prompt("{{ q }}", model="echo/echo")
    with pytest.raises(errors.UsageError, match="label"):
        frame.llm.classify("q", ["x", "y"], model="echo/echo")
    pd.testing.assert_frame_equal(frame, before)
    frame.llm.prompt("{{ q }}", model="echo/echo", into="said")
    frame.llm.prompt("{{ q }}", model="echo/echo", into="said")


def test_dask_refuses_it_too() -> None:
    """Before anything is computed."""
    dd = pytest.importorskip("dask.dataframe")
    frame = dd.from_pandas(pd.DataFrame({"text": ["a", "b"]}), npartitions=1)
    for refused in (
        lambda: frame.llm.embed("text", into="text", model="echo/echo"),
        lambda: frame.llm.prompt("{{ text }}", into="text", model="echo/echo"),
        lambda: frame.llm.extract("text", "text, age int", model="echo/echo"),
        lambda: frame.llm.classify("text", ["x", "y"], into="text", model="echo/echo"),
    ):
        with pytest.raises(errors.UsageError, match="overwrite"):
            refused()


def test_a_matrix_can_only_be_read(answers: list[Any]) -> None:
    """What is done to it does not change the column, whatever the column is made of."""
    frame = pd.DataFrame({"text": ["a", "b", "a"]}).llm.embed("text")
    before = np.stack(list(frame["vector"]))
    columns: list[Any] = [frame["vector"], list(frame["vector"]), before, frame["vector"].head(2)]
    if pytest.importorskip("pyarrow"):
        import pyarrow as pa

        lists = pd.ArrowDtype(pa.list_(pa.float32()))
        columns.append(pd.Series(list(frame["vector"])).astype(lists))
    for column in columns:
        matrix = lm.matrix(column)
        with pytest.raises(ValueError, match="read-only"):
            matrix -= 1
    with pytest.raises(ValueError, match="read-only"):
        frame["vector"].iloc[0][0] = 5  # the third row shares it
    np.testing.assert_array_equal(np.stack(list(frame["vector"])), before)
    own = lm.embed(["a", "b"])
    own -= 1
    np.testing.assert_array_equal(lm.embed(["a", "b"]), before[:2])


def test_lines_are_cut_at_newlines_and_nowhere_else(
    answers: list[Any], shell: InteractiveShell
) -> None:
    """A text of %%embed may hold U+2028 and its like."""
    frame = shell.run_cell_magic("embed", "", "one\u2028still one\ntwo\x0bstill two\n")
    assert frame["text"].tolist() == ["one\u2028still one", "two\x0bstill two"]
