"""The same names on frames of Dask's, with real worker processes, one of which is killed."""

from __future__ import annotations

import json
import os
import pickle
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

import llm_magics as lm
from llm_magics import errors
from llm_magics.dataframes.dask import workers as partitions
from llm_magics.dataframes.dask.workers import (
    EmbeddingSpec,
    SealedValues,
    WorkerTask,
    embed_partition,
)
from llm_magics.runtime.embedding import EmbedOptions
from llm_magics.settings.config import config
from tests.conftest import eventually
from tests.dataframes.test_confidence import Sure
from tests.support.analyst import Analyst
from tests.support.embedder import Embedder, vector_of
from tests.support.serving import Asked, Says, chat_stream, serving

dd = pytest.importorskip("dask.dataframe")
distributed = pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.dask,
    pytest.mark.filterwarnings(
        # distributed leaves sockets and loops to be collected when a cluster ends.
        "ignore::ResourceWarning",
        "ignore::pytest.PytestUnraisableExceptionWarning",
        # Dask's own use of what pandas is about to drop.
        "ignore:(?s).*inplace keyword:DeprecationWarning",
        "ignore:(?s).*inplace keyword:UserWarning",
    ),
]


@contextmanager
def workers(folder: Path) -> Iterator[Any]:
    """Two worker processes of one thread each, and a client of theirs."""
    import dask

    quick = {"distributed.scheduler.locks.lease-timeout": "3s"}
    with (
        dask.config.set(quick),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            local_directory=str(folder),
        ) as made,
        distributed.Client(made) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Workers that all tests share, but for the one that kills."""
    with workers(tmp_path_factory.mktemp("dask")) as client:
        yield client


@pytest.fixture(autouse=True)
def own_folders(own_settings: None, tmp_path: Path) -> None:
    """Workers see the vectors and answers of the test, and no other's."""
    lm.config.vectors, lm.config.cache_dir = tmp_path / "kept", tmp_path / "cache"
    partitions._worker.settings = ""
    partitions._worker.applied.clear()


@pytest.fixture
def service() -> Iterator[Embedder]:
    """The service ``lab``, whose model ``m`` embeds where none is named; it asks for no key."""
    fake = Embedder()
    with serving(fake) as server:
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url}}
        lm.config.embedding_model = "lab/m"
        yield fake


def frame_of(count: int, partitions: int = 8) -> Any:
    """Texts, each another, in partitions, on an index of their own."""
    texts = pd.DataFrame({"text": [f"text {n}" for n in range(count)]}, index=range(7, 7 + count))
    return dd.from_pandas(texts, npartitions=partitions)


def test_a_column_is_embedded_by_the_workers(cluster: Any, service: Embedder) -> None:
    """Index and order kept; a second run, by whomever, pays nothing; nothing is sent to plan it."""
    planned = frame_of(100).llm.embed("text", batch_size=10)
    assert service.requests == 0
    assert str(planned.dtypes["vector"]) == "list<item: float>[pyarrow]"
    done = planned.compute()
    assert sorted(service.paid) == sorted(f"text {n}" for n in range(100))
    assert done.index.tolist() == list(range(7, 107))
    expected = np.array([vector_of(text) for text in done["text"]], np.float32)
    np.testing.assert_array_equal(lm.matrix(done["vector"]), expected)
    planned.compute()
    np.testing.assert_array_equal(lm.embed(done["text"]), expected)
    assert len(service.paid) == 100


def test_gaps_are_gaps_and_refusals_too(cluster: Any, service: Embedder) -> None:
    """Missing and refused texts have missing vectors; the notebook is told, or it is raised."""
    service.poison = {"text 3"}
    texts = pd.DataFrame({"text": ["text 1", None, "text 3", "", "text 4"]})
    frame = dd.from_pandas(texts, npartitions=2)
    with pytest.warns(UserWarning, match="1 failed"):
        done = _and_what_workers_say(frame.llm.embed("text"))
    assert done["vector"].isna().tolist() == [False, True, True, True, False]
    assert (
        np.isnan(lm.matrix(done["vector"])).any(axis=1).tolist() == done["vector"].isna().tolist()
    )
    with pytest.raises(errors.LLMError, match=r"ProviderError: .*Invalid input"):
        frame["text"].llm.embed(on_error="raise").compute()


def _and_what_workers_say(planned: Any) -> Any:
    done = planned.compute()
    time.sleep(0.5)
    return done


@pytest.mark.parametrize("limit", [1, 3])
def test_the_cluster_keeps_one_limit(cluster: Any, service: Embedder, limit: int) -> None:
    """So many requests at once, of all workers together, and no more."""
    with serving(service) as server:
        service.delay_s = 0.05
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url}}
        frame_of(120).llm.embed("text", batch_size=5, concurrency=limit).compute()
    assert server.most_at_once == limit
    assert len(service.paid) == 120


def test_a_worker_is_killed_in_the_middle(service: Embedder, tmp_path: Path) -> None:
    """Its work is done by another, which pays again only for what it had under way."""
    with workers(tmp_path / "dask") as client:
        _kill_one(client, service)


def _kill_one(cluster: Any, service: Embedder) -> None:
    service.delay_s = 0.2
    batch, at_once = 10, 4
    planned = frame_of(400).llm.embed("text", batch_size=batch, concurrency=at_once)
    future = cluster.compute(planned)
    assert eventually(lambda: len(service.paid) >= 120, 60)
    victim = next(iter(cluster.run(os.getpid).values()))
    os.kill(victim, signal.SIGKILL)
    done = future.result(timeout=120)
    assert done["vector"].notna().all()
    assert {*service.paid} == {f"text {n}" for n in range(400)}
    assert 400 <= len(service.paid) <= 400 + batch * at_once


def test_vectors_survive_files_and_shuffles(
    cluster: Any, service: Embedder, tmp_path: Path
) -> None:
    """Parquet by Dask and by pandas, another index, a shuffle: the same vectors come back."""
    planned = frame_of(40, 4).llm.embed("text")
    whole = lm.matrix(planned.compute()["vector"])
    planned.to_parquet(tmp_path / "files")
    by_dask = dd.read_parquet(tmp_path / "files").compute()
    by_pandas = pd.read_parquet(tmp_path / "files")
    for other in (by_dask, by_pandas, planned.shuffle("text").compute().sort_index()):
        np.testing.assert_array_equal(lm.matrix(other["vector"]), whole)
    by_pandas.to_parquet(tmp_path / "again.parquet")
    again = pd.read_parquet(tmp_path / "again.parquet")
    assert np.shares_memory(lm.matrix(again["vector"]), lm.matrix(again["vector"]))
    np.testing.assert_array_equal(lm.matrix(again["vector"]), whole)


def test_the_nearest_of_all_partitions(cluster: Any, service: Embedder) -> None:
    """The same rows as of one frame, best first."""
    planned = frame_of(60).llm.embed("text")
    done = planned.compute()
    far = planned.llm.nearest("text 11", k=4).compute()
    near = done.llm.nearest("text 11", k=4)
    assert far.index.tolist() == near.index.tolist()
    np.testing.assert_allclose(far["cosine"], near["cosine"], atol=1e-6)
    with pytest.raises(errors.UsageError, match="no column"):
        planned.llm.nearest("x", on="vectr")


def chatter(asked: Asked) -> Says:
    """Says back what it is asked, or the first label, or a number of words."""
    body = asked.json()
    said = body["messages"][-1]["content"]
    if "response_format" not in body:
        return Says(chat_stream(f"said: {said}"))
    properties = body["response_format"]["json_schema"]["schema"]["properties"]
    if "words" in properties:
        return Says(chat_stream(f'{{"words": {len(said.split())}, "last": "x"}}'))
    return Says(chat_stream('{"label": "good"}'))


def test_rows_are_asked_about_by_the_workers(cluster: Any) -> None:
    """Answers, typed fields and labels, of the same types in all partitions; asked once."""
    with serving(chatter) as server:
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url}}
        lm.config.model = "lab/m"
        frame = frame_of(20, 4)
        asked = frame.llm.prompt("Sum up {{ text }}", into="summary")
        assert asked.compute()["summary"].tolist()[3] == "said: Sum up text 3"
        count = len(server.asked)
        assert count == 20
        asked.compute()
        assert len(server.asked) == count
        fields = frame.llm.extract("text", "words int, last")
        assert [str(fields.dtypes[name]) for name in ("words", "last")] == ["Int64", "string"]
        assert fields.compute()["words"].notna().all()
        labels = frame.llm.classify("text", ["good", "bad"], into="label").compute()["label"]
        assert labels.cat.categories.tolist() == ["good", "bad"]
        assert frame["text"].llm.classify(["good", "bad"]).compute().tolist() == ["good"] * 20
        assert frame["text"].llm.prompt("{{ text }}").compute().iloc[0] == "said: text 0"
        with pytest.raises(errors.UsageError, match="dry_run"):
            frame.llm.prompt("{{ text }}", dry_run=True)


def test_groups_are_answered_from_the_claims_of_all_partitions(cluster: Any) -> None:
    """The labels of the rows stay, and the same call pays nothing."""
    analyst = Analyst()
    texts = pd.DataFrame(
        {
            "review": ["#a", "#b", "#a #b", None, "fine", "#b"],
            "n": [1, 1, 2, 2, 1, 1],
            "other": [0] * 6,
        },
        index=[10, 11, 12, 13, 14, 15],
    )
    with serving(analyst) as server:
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url}}
        lm.config.model = "lab/m"
        frame = dd.from_pandas(texts, npartitions=3)
        found = frame.llm.aggregate("What is wrong?", by="n", concurrency=2)
        assert found["n"].tolist() == [1, 2]
        assert found[["claims", "rows", "cited"]].to_numpy().tolist() == [[2, 4, 3], [2, 1, 1]]
        claims = found.llm.report.claims
        rows = {
            each.split()[-1]: labels
            for each, labels in zip(claims["claim"][:2], claims["rows"][:2], strict=True)
        }
        assert rows == {"#a": [10], "#b": [11, 15]}
        assert found.llm.report.missing == 1
        assert found.llm.report.calls == analyst.paid
        paid = analyst.paid
        assert frame.llm.aggregate("What is wrong?", by="n").llm.report.cached == paid
        assert analyst.paid == paid
        analyst.poison = {"#a #b"}
        with pytest.warns(UserWarning, match="failed"):
            found = frame.llm.aggregate("What then?", on="review")
        assert found["answer"].notna().all()
        assert found.llm.report.failures()["rows"].tolist()[0] == [12]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"by": "x"}, "no column 'x'"),
        ({"on": "{{ x }}"}, "no such column"),
        ({"rows_per_prompt": 0}, "rows_per_prompt"),
        ({"dry_run": True}, "before it is computed"),
        ({"batch": True}, "batch jobs"),
    ],
)
def test_mistakes_of_aggregate_are_named_first(wrong: dict[str, Any], said: str) -> None:
    """Before a partition is computed."""
    lm.config.model = "echo/echo"
    with pytest.raises(errors.UsageError, match=said):
        frame_of(4).llm.aggregate("What is wrong?", **wrong)


def test_labels_and_fields_have_confidences(cluster: Any) -> None:
    """The columns, their dtypes and their values are those of pandas."""
    texts = pd.DataFrame({"text": ["0.8 of praise", "0.6 of complaint", "0.5 of praise"]})
    labels = ["praise", "complaint"]
    with serving(Sure()) as server:
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url}}
        lm.config.model = "lab/m"
        frame = dd.from_pandas(texts, npartitions=2)
        planned = frame.llm.classify("text", labels, confidence=True)
        assert str(planned.dtypes["label_confidence"]) == "Float64"
        found = planned.compute()
        expected = texts.copy().llm.classify("text", labels, confidence=True)
        assert found["label_confidence"].tolist() == expected["label_confidence"].tolist()
        column = frame["text"].llm.classify(labels, confidence=True)
        assert list(column.columns) == ["label", "label_confidence"]
        people = frame["text"].llm.extract("name, age int, is_nurse bool", confidence=True)
        assert people.compute()["name_confidence"].tolist() == pytest.approx([0.25] * 3)


@pytest.mark.weights
def test_labels_are_scored_on_the_workers(cluster: Any) -> None:
    """Each partition is calibrated as the whole frame is."""
    texts = pd.DataFrame({"text": ["I love it!", "It broke at once.", "Great sound."]})
    options: dict[str, Any] = {"model": "local/smollm2-135m", "confidence": True}
    labels = ["positive", "negative"]
    frame = dd.from_pandas(texts, npartitions=2)
    found = frame.llm.classify("text", labels, **options).compute()
    expected = texts.copy().llm.classify("text", labels, **options)
    assert found["label"].tolist() == expected["label"].tolist()
    np.testing.assert_allclose(
        found["label_confidence"].to_numpy(float),
        expected["label_confidence"].to_numpy(float),
        atol=0.05,
    )


IDS = (1234567890123456789, 1234567890123456791)


def typed(asked: Asked) -> Says:
    """Digits, days, and a null now and then."""
    number = int(asked.json()["messages"][-1]["content"].rsplit(maxsplit=1)[-1])
    told = {"id": IDS[number % 2], "d": "2026-01-02", "size": "small", "tags": ["a"]}
    told |= {"n": None if number % 3 else 2.5, "at": "2026-01-02T03:04:05Z", "ok": True}
    return Says(chat_stream(json.dumps(told)))


def test_what_was_planned_is_what_comes(cluster: Any) -> None:
    """The dtypes of the plan are those of each partition and of the result, and digits stay."""
    with serving(typed) as server:
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url}}
        lm.config.model = "lab/m"
        fields = "id int, d date, at datetime, size small|large, n float?, ok bool, tags list[str]"
        planned = frame_of(12, 4).llm.extract("text", fields)
        done = planned.compute()
        assert done["id"].tolist() == [IDS[number % 2] for number in range(12)]
        names = ["id", "d", "at", "size", "n", "ok", "tags"]
        dtypes = {name: str(planned.dtypes[name]) for name in names}
        assert dtypes["id"] == "Int64"
        assert dtypes["at"] == "datetime64[ns, UTC]"
        for part in [done, *(planned.partitions[n].compute() for n in range(4))]:
            assert {name: str(part.dtypes[name]) for name in names} == dtypes
        by_pandas = planned.head(3, npartitions=1)[["text"]].llm.extract("text", fields)
        assert {name: str(by_pandas.dtypes[name]) for name in names} == dtypes


def test_without_a_cluster(service: Embedder) -> None:
    """Dask's own threads keep the limit too."""
    with serving(service) as server:
        service.delay_s = 0.02
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url}}
        planned = frame_of(100).llm.embed("text", batch_size=5, concurrency=2)
        done = planned.compute(scheduler="threads")
    assert len(lm.matrix(done["vector"])) == 100
    assert len(service.paid) == 100
    assert server.most_at_once == 2


@pytest.mark.parametrize("method", ["plot", "map"])
def test_a_picture_needs_a_part_in_memory(method: str) -> None:
    """The error has the line that takes one."""
    frame = dd.from_pandas(pd.DataFrame({"vector": [[1.0, 2.0]] * 4}), npartitions=2)
    with pytest.raises(errors.UsageError, match=f"A {method} needs all points") as caught:
        getattr(frame.llm, method)("vector", color="vector")
    assert f".compute().llm.{method}(" in str(caught.value.hint)


def engines() -> set[int]:
    """The processes of engines that this worker runs."""
    children = psutil.Process().children(recursive=True)
    return {each.pid for each in children if any("child.py" in word for word in each.cmdline())}


def close_engines() -> None:
    """End the engine of the provider in use on this worker; the next call starts another."""
    from llm_magics._async.bridge import bridge
    from llm_magics.runtime.session import session

    bridge.run(session.providers.close())


def test_weights_are_loaded_once_a_worker(cluster: Any) -> None:
    """However many partitions it works through."""
    lm.config.reset("cache_dir")  # the weights are in the user's
    lm.embed(["warm"], model="local/minilm-l6-v2")
    planned = frame_of(64, 8).llm.embed("text", model="local/minilm-l6-v2")
    cluster.run(close_engines)
    before = cluster.run(engines)  # of earlier tests with other settings
    done = planned.compute()
    counts = [len(found - before[worker]) for worker, found in cluster.run(engines).items()]
    assert max(counts) == 1
    expected = lm.embed(done["text"], model="local/minilm-l6-v2")
    np.testing.assert_allclose(lm.matrix(done["vector"]), expected, atol=1e-5)


def threads() -> object:
    """With how many a model computes on this worker."""
    from llm_magics.settings.config import config

    return config.get("providers.local.threads")


def test_workers_share_the_cores(cluster: Any) -> None:
    """A model on a worker computes with the threads that are the worker's, or as was said."""
    lm.config.reset("cache_dir")
    name = "providers.local.threads"
    for said, expected in ((None, 1), (2, 2), (None, 1)):
        if said is None:
            lm.config.reset(name)
        else:
            lm.config.set(name, said)
        frame_of(4, 2).llm.embed("text", model="local/minilm-l6-v2").compute()
        told = cluster.run(threads)
        assert set(told.values()) == {expected}


def test_plans_with_other_settings_wait_for_each_other() -> None:
    """The threads of a worker share a session: each partition is worked on by its own plan's."""
    width = "providers.echo.dimensions"
    plans = {
        size: WorkerTask(
            settings={width: size}, limit=None, dtypes={}, home="a notebook elsewhere"
        )
        for size in (8, 16)
    }
    how = EmbeddingSpec(model="echo/echo", options=EmbedOptions(), on_error="null", name="v")

    def work(number: int) -> tuple[int, int]:
        size = (8, 16)[number % 2]
        column = pd.Series([f"{number} {n}" for n in range(20)])
        return size, len(embed_partition(column, plans[size], how).iloc[0])

    with ThreadPoolExecutor(4) as pool:
        assert all(size == came for size, came in pool.map(work, range(24)))


def test_the_notebooks_own_session_is_left_alone() -> None:
    """Where its own process computes, nothing is set in it, and what was set since planning counts."""
    lm.config.temperature = 0.2
    planned = frame_of(4, 2).llm.embed("text", model="echo/echo")
    lm.config.temperature = 0.9
    planned.compute(scheduler="threads")
    assert lm.config.temperature == 0.9
    assert "set in this session" not in config.source("providers.local.threads")


def test_a_workers_own_threads_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a plan that named others, those of its environment count again."""
    monkeypatch.setenv("LLM_MAGICS_LOCAL_THREADS", "3")
    name = "providers.local.threads"
    for settings, expected in (({}, 3), ({name: 2}, 2), ({}, 3)):
        with WorkerTask(
            settings=settings, limit=None, dtypes={}, home="a notebook elsewhere"
        ).apply_settings():
            assert config.for_provider("local", ["threads"])["threads"] in (
                expected,
                str(expected),
            )


def test_keys_do_not_travel() -> None:
    """Settings of the session do, without those that hold keys; errors do, without what was sent."""
    lm.config.providers = {
        "lab": {"type": "openai", "base_url": "http://x", "api_key": "s3cret-key"}
    }
    lm.config.vectors = Path("here")
    told = config.set_here()
    assert told["providers.lab.base_url"] == "http://x"
    assert told["vectors"] == Path("here").absolute()
    assert "s3cret-key" not in str(pickle.dumps(told))
    planned = frame_of(4).llm.embed("text", model="lab/m")
    assert b"s3cret-key" not in pickle.dumps(planned)


def test_a_function_for_tokens_does_not_travel() -> None:
    """A worker refuses it before anything is sent; a name travels, and here the function works."""

    def own_token() -> str:
        return "s3cret-token-of-the-test"

    answered = Says(chat_stream("ok"))
    with serving(answered) as server:
        lm.config.providers = {
            "lab": {"type": "openai", "base_url": server.url, "token_provider": own_token},
            "other": {"type": "openai", "base_url": server.url, "token_provider": "entra"},
        }
        planned = frame_of(4).llm.prompt("{{ text }}", model="lab/m", yes=True)
        told = config.set_here()
        assert "s3cret-token" not in str(pickle.dumps(planned))
        assert told["providers.other.token_provider"] == "entra"
        assert planned.compute(scheduler="threads")["answer"].tolist() == ["ok"] * 4
        sent = len(server.asked)
        assert sent
        task = WorkerTask(settings=told, limit=None, dtypes={}, home="a notebook elsewhere")
        how = EmbeddingSpec(model="lab/m", options=EmbedOptions(), on_error="null", name="v")
        lm.config.reset()
        with pytest.raises(errors.LLMError, match="token_provider") as caught:
            embed_partition(pd.Series(["a", "b"]), task, how)
        assert "exists only in the process that set it" in str(caught.value.hint)
        assert "entra, vertex, aws" in str(caught.value.hint)
        assert len(server.asked) == sent


def test_credentials_reach_the_workers_outside_the_graph(cluster: Any) -> None:
    """A password in an address and a header of the call are sent by them, and are not pickled."""

    def refused_without(asked: Asked) -> Says:
        known = asked.headers.get("authorization"), asked.headers.get("x-gateway")
        return (
            Says(chat_stream("ok"))
            if known == ("Basic Ym9iOnB3NCE=", "a-gate-key-77")
            else Says(status=401)
        )

    with serving(refused_without) as server:
        url = server.url.replace("://", "://bob:pw4!@")
        lm.config.providers = {"lab": {"type": "openai", "base_url": url}}
        headers = {"X-Gateway": "a-gate-key-77"}
        frame = frame_of(4, partitions=2)
        planned = frame.llm.prompt("{{ text }}", model="lab/m", extra_headers=headers, yes=True)
        told = pickle.dumps(planned)
        assert planned.compute()["answer"].tolist() == ["ok"] * 4
    assert b"pw4!" not in told
    assert b"a-gate-key-77" not in told


def test_sealed_values_are_opened_where_the_cluster_is(cluster: Any) -> None:
    """In another process by its client, and nowhere without one."""
    values = {"headers": {"X-Key": "a-gate-key-78"}}
    sealed = SealedValues(values)
    assert cluster.submit(lambda: dict(sealed.open()), pure=False).result() == values
    assert b"a-gate-key-78" not in pickle.dumps(sealed)
    stray = pickle.loads(pickle.dumps(SealedValues(values)))
    stray.name = "llm_magics-elsewhere"
    with pytest.raises(errors.ConfigurationError, match="worker"):
        cluster.submit(lambda: dict(stray.open()), pure=False).result()


def test_a_cluster_asks_nobody(service: Embedder) -> None:
    """A model that has a price is refused when the work is planned, unless it is allowed."""
    lm.config.prices = {"lab/*": {"input_usd": 1, "output_usd": 1}}
    lm.config.model = "lab/m"
    frame = frame_of(4)
    for plan in (
        lambda: frame.llm.embed("text"),
        lambda: frame.llm.prompt("{{ text }}"),
        lambda: frame["text"].llm.classify(["x", "y"]),
    ):
        with pytest.raises(errors.UsageError, match="confirmation"):
            plan()
    lm.config.prices = {"lab/*": {"input_usd": 1}}  # as those of models that only embed
    with pytest.raises(errors.UsageError, match="confirmation"):
        frame.llm.embed("text")
    frame.llm.embed("text", yes=True)
    frame.llm.prompt("{{ text }}", yes=True)
    assert service.requests == 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"concurrency": 0}, "concurrency: 0"),
        ({"on_error": "x"}, "on_error"),
        ({"dimensions": -1}, "value for dimensions"),
    ],
)
def test_slips_are_told_when_the_work_is_planned(wrong: dict[str, Any], said: str) -> None:
    """And not by a worker, an hour later."""
    with pytest.raises(errors.UsageError, match=said):
        frame_of(4).llm.embed("text", model="echo/echo", **wrong)


def test_a_partition_of_gaps_is_near_to_nothing() -> None:
    """Its rows are passed over."""
    texts = pd.DataFrame({"text": ["a", "b", None, None]})
    planned = dd.from_pandas(texts, npartitions=2).llm.embed("text", model="echo/echo")
    found = planned.llm.nearest("b", k=3, model="echo/echo").compute(scheduler="threads")
    assert found["text"].tolist() == ["b", "a"]
