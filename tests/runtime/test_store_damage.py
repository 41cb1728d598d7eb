"""Stored vectors and answers after damage, clearing and updates: right, or computed again."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import errors
from llm_magics.providers import create_provider
from llm_magics.providers.configs import remove_credential_headers, settings_digest
from llm_magics.runtime.session import session
from llm_magics.runtime.storage.answer_cache import Cache
from llm_magics.runtime.storage.vector_store import (
    VectorStore,
    clear_store,
    hash_texts,
    measure_store,
)
from tests.support.embedder import Embedder
from tests.support.examples import examples
from tests.support.nested import plain_environment
from tests.support.serving import serving

SPACE = {"model": "m"}
ROOT = Path(__file__).parents[2]
BEFORE = Path(__file__).parents[1] / "data" / "vectors_of_before"


def rows_of(texts: list[str], width: int = 5) -> np.ndarray:
    """A row for each text that no other has."""
    return np.array([row_of(text, width) for text in texts], np.float32)


@cache
def row_of(text: str, width: int) -> np.ndarray:
    """The row for a text."""
    return np.random.default_rng(list(text.encode())).standard_normal(width)


def files_of(folder: Path, suffix: str) -> list[Path]:
    """All files of a kind in a store."""
    return sorted(folder.glob(f"*/*{suffix}"))


def found_in(folder: Path, texts: list[str], space: dict[str, Any] = SPACE) -> tuple[int, int]:
    """How many of ``texts`` are found by a new store, and how many warnings came; none is wrong."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found, rows = VectorStore(folder, space).find(hash_texts(texts))
    if found.any():
        np.testing.assert_array_equal(rows[found], rows_of(texts)[found])
    return int(found.sum()), len(said)


TEXTS = [f"text {n}" for n in range(40)]


def test_every_flipped_byte_of_a_row_is_noticed(tmp_path: Path) -> None:
    """That row is dropped with one line of warning, and once; all others are found."""
    VectorStore(tmp_path, SPACE).put(hash_texts(TEXTS), rows_of(TEXTS))
    draw = random.Random(1)
    (rows,) = files_of(tmp_path, ".rows")
    whole = rows.read_bytes()
    kept = tmp_path.with_name("kept")
    shutil.copytree(tmp_path, kept)
    for _ in range(60):
        shutil.rmtree(tmp_path)
        shutil.copytree(kept, tmp_path)
        place = draw.randrange(len(whole))
        flipped = bytearray(whole)
        flipped[place] ^= 1 << draw.randrange(8)
        rows.write_bytes(flipped)
        assert found_in(tmp_path, TEXTS) == (39, 1)
        assert found_in(tmp_path, TEXTS) == (39, 0)
        store = VectorStore(tmp_path, SPACE)
        store.put(hash_texts(TEXTS), rows_of(TEXTS))
        assert found_in(tmp_path, TEXTS) == (40, 0)


@given(st.data())
@settings(deadline=None, max_examples=examples(60))
def test_whatever_happens_to_the_files_no_vector_is_wrong(data: st.DataObject) -> None:
    """Bytes changed, cut, added or moved in any of them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = VectorStore(folder, SPACE)
        for start in (0, 20):
            store.put(hash_texts(TEXTS[start : start + 20]), rows_of(TEXTS[start : start + 20]))
        for _ in range(data.draw(st.integers(1, 3))):
            path = data.draw(
                st.sampled_from(files_of(folder, ".rows") + files_of(folder, ".keys"))
            )
            told = path.read_bytes()
            at = data.draw(st.integers(0, len(told)))
            some = data.draw(st.binary(max_size=8))
            kind = data.draw(st.sampled_from(["change", "cut", "insert", "remove", "swap"]))
            path.write_bytes(
                {
                    "change": told[:at] + some + told[at + len(some) :],
                    "cut": told[:at],
                    "insert": told[:at] + some + told[at:],
                    "remove": told[:at] + told[at + len(some) :],
                    "swap": told[at:] + told[:at],
                }[kind]
            )
        found_in(folder, TEXTS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            store.put(hash_texts(["new"]), rows_of(["new"]))
            missing, _ = store.find(hash_texts(TEXTS))
            again = [text for text, there in zip(TEXTS, missing, strict=True) if not there]
            store.put(hash_texts(again), rows_of(again).reshape(-1, 5))
        count, _ = found_in(folder, [*TEXTS, "new"])
        assert count == 41


@pytest.mark.parametrize(
    "what", ["cleared", "rows cut", "keys cut", "rows gone", "replaced", "longer"]
)
def test_files_that_changed_under_a_running_session_are_not_continued(
    tmp_path: Path, what: str
) -> None:
    """What it stores afterwards is found, and is right."""
    store = VectorStore(tmp_path, SPACE)
    store.put(hash_texts(TEXTS[:20]), rows_of(TEXTS[:20]))
    (rows,), (keys,) = files_of(tmp_path, ".rows"), files_of(tmp_path, ".keys")
    if what == "cleared":
        clear_store(tmp_path)
    elif what == "rows cut":
        os.truncate(rows, 10 * 5 * 4)
    elif what == "keys cut":
        os.truncate(keys, 10 * 32)
    elif what == "rows gone":
        rows.unlink()
    elif what == "replaced":
        copy = rows.with_name("copy")
        shutil.copyfile(rows, copy)
        os.replace(copy, rows)
    else:
        with rows.open("ab") as file:
            file.write(bytes(7))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for start in range(20, 40, 5):
            store.put(hash_texts(TEXTS[start : start + 5]), rows_of(TEXTS[start : start + 5]))
        found, got = store.find(hash_texts(TEXTS))
    assert found[20:].all()
    np.testing.assert_array_equal(got[found], rows_of(TEXTS)[found])
    assert found_in(tmp_path, TEXTS[20:])[0] == 20


CLEARER = """
import sys
from pathlib import Path
from llm_magics.runtime.storage.vector_store import clear_store
print("ready", flush=True)
while True:
    clear_store(Path(sys.argv[1]))
"""


def test_clearing_in_another_kernel_while_vectors_are_added(tmp_path: Path) -> None:
    """Again and again: what is found is right, and the last that was stored is found."""
    command = [sys.executable, "-c", CLEARER, str(tmp_path)]
    clearing = subprocess.Popen(
        command, cwd=ROOT, env=plain_environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        assert clearing.stdout is not None
        clearing.stdout.readline()
        store = VectorStore(tmp_path, SPACE)
        texts = [f"text {n}" for n in range(600)]
        for start in range(0, 600, 10):
            some = texts[start : start + 10]
            store.put(hash_texts(some), rows_of(some))
            found_in(tmp_path, texts[: start + 10])
    finally:
        clearing.send_signal(signal.SIGKILL)
        clearing.communicate()
    store.put(hash_texts(texts), rows_of(texts))
    assert found_in(tmp_path, texts) == (600, 0)
    clear_store(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_clearing_while_a_column_is_embedded(shell: InteractiveShell) -> None:
    """In the same process: each text gets its own vector, then and later."""
    service = Embedder()
    texts = [f"text {n}" for n in range(400)]
    with serving(service) as server:
        lm.config.set("providers.lab.type", "openai")
        lm.config.set("providers.lab.base_url", f"{server.url}/v1")
        stop = threading.Event()

        def clear() -> None:
            while not stop.is_set():
                shell.run_line_magic("llm", "cache clear vectors")

        thread = threading.Thread(target=clear)
        thread.start()
        try:
            first = lm.embed(texts, model="lab/m", batch_size=8)
        finally:
            stop.set()
            thread.join()
        lm.embed(texts[:300], model="lab/m", batch_size=8)
        second = lm.embed(texts, model="lab/m")
    np.testing.assert_array_equal(first, second)


# A full disk.


FULL = """
import resource, signal, sys, warnings
import numpy as np
from pathlib import Path
from llm_magics.runtime.storage.vector_store import VectorStore, hash_texts
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = VectorStore(Path(sys.argv[1]), {"model": "m"})
store.put(hash_texts(["a"]), np.ones((1, 64), np.float32))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for n in range(3):
        store.put(hash_texts([f"b {n} {k}" for k in range(9)]), np.ones((9, 64), np.float32))
print([str(each.message) for each in said])
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.put(hash_texts(["c"]), 3 * np.ones((1, 64), np.float32))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX")
def test_a_full_disk_costs_what_does_not_fit(tmp_path: Path) -> None:
    """One warning; nothing half written is found, and later vectors are stored again."""
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=plain_environment(), check=True, capture_output=True, text=True)  # fmt: skip
    assert done.stdout.count("Could not store") == 1
    texts = ["a", "c", *(f"b {n} {k}" for n in range(3) for k in range(9))]
    found, rows = VectorStore(tmp_path, SPACE).find(hash_texts(texts))
    assert found.tolist() == [True, True] + [False] * 27
    assert rows[:2, 0].tolist() == [1, 3]


# Stores of before.


def test_a_store_of_the_version_before_is_taken_over(tmp_path: Path) -> None:
    """With all of its vectors, and without the credentials that were in it."""
    folder = tmp_path / "vectors"
    shutil.copytree(BEFORE, folder)
    lab = create_provider(
        "openai",
        base_url="https://else:another-password@lab.example.org/v1?api-version=2&key=another",
        api_key="another-api-key",
        extra_headers={"Authorization": "Bearer another", "X-Team": "blue"},
    )
    identity = asyncio.run(lab.identity("m"))
    store = VectorStore(folder, {"provider": "lab", "model": "m", "identity": identity})
    texts = ["one", "two", "three"]
    found, rows = store.find(hash_texts([*texts, "four"]))
    assert found.tolist() == [True, True, True, False]
    expected = [[len(each), sum(map(ord, each)), 1.5, -2.0] for each in texts]
    np.testing.assert_array_equal(rows[:3], np.float32(expected))
    told = "".join(path.read_text("latin-1") for path in folder.rglob("*") if path.is_file())
    for word in ("of-before", "someone", "lab.example.org", "another"):
        assert word not in told
    assert found_in_again(folder, store) == 3
    assert measure_store(folder)[0] == 6


def found_in_again(folder: Path, store: VectorStore) -> int:
    """How many of the texts another session finds, which has nothing to convert."""
    label = json.loads((store.folder / "space.json").read_text())
    before = sorted(path.name for path in folder.rglob("*"))
    found, _ = VectorStore(folder, label).find(hash_texts(["one", "two", "three"]))
    assert sorted(path.name for path in folder.rglob("*")) == before
    return int(found.sum())


@pytest.mark.parametrize("name", ["openai", "ollama", "echo"])
def test_spaces_of_the_version_before_are_found_by_their_identity_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Settings with which an answer cannot differ are not in it."""
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    shutil.copytree(BEFORE, tmp_path / "v")
    provider = create_provider(name)
    spaces = {
        "openai": {"model": "text-embedding-3-small", "dimensions": 4},
        "ollama": {"model": "m"},
        "echo": {"model": "echo"},
    }
    if name == "ollama":
        identity = f"{asyncio.run(super(type(provider), provider).identity('m'))} sha256:abc"  # type: ignore[misc]
    else:
        identity = asyncio.run(provider.identity("m"))
    space = {"provider": name, "identity": identity, **spaces[name]}
    assert VectorStore(tmp_path / "v", space).find(hash_texts(["one"]))[0].all()


def old_store(folder: Path, texts: list[str], *, rows: int | None = None) -> None:
    """Write a store as the version before did, with so many rows."""
    home = folder / VectorStore(folder, SPACE).folder.name
    home.mkdir(parents=True)
    (home / "space.json").write_text(json.dumps(SPACE))
    stem = "0" * 32
    (home / f"{stem}.5.keys").write_bytes(hash_texts(texts).tobytes())
    (home / f"{stem}.5.rows").write_bytes(rows_of(texts)[:rows].tobytes())


def test_misaligned_files_of_before_are_dropped(tmp_path: Path) -> None:
    """Where there are fewer rows than keys nobody knows whose they are."""
    old_store(tmp_path, TEXTS, rows=30)
    assert found_in(tmp_path, TEXTS) == (0, 1)
    assert found_in(tmp_path, TEXTS) == (0, 0)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_store_of_before_that_cannot_be_written_to_is_read(tmp_path: Path) -> None:
    """From a disk that is read only, say."""
    old_store(tmp_path, TEXTS)
    (home,) = tmp_path.iterdir()
    home.chmod(0o500)
    try:
        assert found_in(tmp_path, TEXTS) == (40, 0)
    finally:
        home.chmod(0o700)


def test_two_kernels_may_take_over_the_same_store(tmp_path: Path) -> None:
    """At the same time; nothing is lost, and nothing is found twice."""
    old_store(tmp_path, TEXTS)
    stores = [VectorStore(tmp_path, SPACE) for _ in range(8)]
    counts: list[int] = []

    def look(store: VectorStore) -> None:
        counts.append(int(store.find(hash_texts(TEXTS))[0].sum()))

    threads = [threading.Thread(target=look, args=[store]) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [40] * 8
    assert measure_store(tmp_path)[0] == 40


# Credentials.


def test_a_new_key_loses_no_vector_and_none_is_on_the_disk() -> None:
    """In headers, in the address, and as the key itself."""
    service = Embedder()
    with serving(service) as server:
        lm.config.set("providers.lab.type", "openai")
        for word in ("one", "two"):
            lm.config.set(
                "providers.lab.base_url",
                server.url.replace("://", f"://me:password-{word}@") + f"/v1?token=t-{word}",
            )
            lm.config.set("providers.lab.api_key", f"the-key-{word}")
            headers = {"Authorization": f"Basic secret-{word}", "X-Api-Key": f"abc-{word}"}
            lm.config.set("providers.lab.extra_headers", headers)
            lm.embed(["a", "b"], model="lab/m")
        assert service.requests == 1
        lm.config.set("providers.lab.extra_headers", {"X-Model-Variant": "large"})
        lm.embed(["a", "b"], model="lab/m")
        assert service.requests == 2
    folder = session.vectors_folder
    assert folder is not None
    told = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    for word in (b"password-", b"secret-", b"the-key-", b"abc-", b"t-one", b"127.0.0.1"):
        assert word not in told


@given(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30))
def test_an_identity_is_the_same_for_every_key(one: str, two: str) -> None:
    """And another for every other setting."""
    told = [
        settings_digest({"base_url": "https://h/v1", "extra_headers": {"Authorization": key}, "api_key": key})
        for key in (one, two)
    ]  # fmt: skip
    assert told[0] == told[1]
    assert told[0] != settings_digest({"base_url": "https://h/v2"})
    assert remove_credential_headers({"X-Team": "blue", "Cookie": one}) == {"X-Team": "blue"}


# Clearing.


def test_clearing_deletes_what_the_store_wrote_and_nothing_else(tmp_path: Path) -> None:
    """Neither the user's files nor what links lead to."""
    store = VectorStore(tmp_path, SPACE)
    store.put(hash_texts(["a"]), rows_of(["a"]))
    mine = tmp_path / "mine"
    mine.mkdir()
    precious = [
        mine / "space.json",
        mine / f"{'0' * 32}.5.keys",
        mine / "thesis.rows",
        tmp_path / "space.json",
        tmp_path / "a.keys",
        store.folder / "notes.keys",
        store.folder / "notes.md",
    ]
    for path in precious:
        path.write_text("precious")
    foreign = tmp_path / ("a" * 32)
    foreign.mkdir()
    (foreign / "space.json").write_text('{"not": "ours"}')
    (tmp_path / ("b" * 32)).symlink_to(mine, target_is_directory=True)
    (store.folder / f"{'c' * 32}.5.rows").symlink_to(mine / "thesis.rows")
    clear_store(tmp_path)
    assert all(path.read_text() == "precious" for path in precious)
    assert (foreign / "space.json").exists()
    assert not store.find(hash_texts(["a"]))[0].any()
    assert not list(store.folder.glob("*.v2.*"))


@pytest.mark.parametrize("key", ["vectors", "cache_dir"])
def test_nothing_is_deleted_in_a_folder_that_a_project_chose(
    shell: InteractiveShell,
    key: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before the user trusts its settings; afterwards it is."""
    monkeypatch.delenv("LLM_MAGICS_VECTORS")
    monkeypatch.delenv("LLM_MAGICS_CACHE_DIR")
    Path("there").mkdir()
    Path("llm_magics.yaml").write_text(f"{key}: {Path('there').absolute()}\n", encoding="utf-8")
    lm.config.reset(key)
    lm.config.reload()
    lm.embed(["a"], model="echo/echo")
    stored = sorted(Path("there").rglob("*.rows"))
    assert stored
    for line in ["cache clear vectors", *(["cache clear"] if key == "cache_dir" else [])]:
        with pytest.raises(errors.ConfigurationError, match="trusted"):
            shell.run_line_magic("llm", line)
    assert sorted(Path("there").rglob("*.rows")) == stored
    shell.run_line_magic("llm", "trust")
    assert "may be deleted" in capsys.readouterr().out
    shell.run_line_magic("llm", "cache clear vectors")
    assert not list(Path("there").rglob("*.rows"))


# Answers.


def answers_in(path: Path, expected: dict[bytes, bytes]) -> tuple[int, int]:
    """How many answers are found, and how many lines of warning came; none is wrong."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        cache = Cache(path, 10_000_000)
        found = cache.get_all(expected)
        cache.close()
    for key, value in found.items():
        assert value == expected[key]
    return len(found), len(said)


VALUES = {
    f"key {n}".encode() * 4: json.dumps({"chunks": [[0.1, f"answer {n} " * 20]]}).encode()
    for n in range(60)
}


def test_flipped_bytes_in_the_cache_give_no_wrong_answer(tmp_path: Path) -> None:
    """Each time one line of warning at most, and what is whole is still there."""
    path, kept = tmp_path / "answers.sqlite", tmp_path / "kept.sqlite"
    cache = Cache(path, 10_000_000)
    cache.put_all(VALUES.items())
    cache.close()
    shutil.copyfile(path, kept)
    draw = random.Random(2)
    lost = 0
    for _ in range(120):
        for left in tmp_path.glob("answers.sqlite*"):
            left.unlink()
        told = bytearray(kept.read_bytes())
        told[draw.randrange(100, len(told))] ^= 1 << draw.randrange(8)
        path.write_bytes(told)
        count, said = answers_in(path, VALUES)
        assert said <= 1
        lost += len(VALUES) - count
    assert lost < 120 * 5


def test_a_flipped_answer_is_asked_for_again(tmp_path: Path) -> None:
    """With one line of warning, and it is stored again."""
    path = tmp_path / "answers.sqlite"
    cache = Cache(path, 10_000_000)
    cache.put_all(VALUES.items())
    cache.close()
    told = path.read_bytes()
    path.write_bytes(told.replace(b"answer 7 answer 7", b"answer 8 answer 7"))
    assert answers_in(path, VALUES) == (59, 1)
    assert answers_in(path, VALUES) == (59, 0)


def old_cache(path: Path) -> None:
    """Write a file of answers as the version before did."""
    with sqlite3.connect(path) as connection:
        connection.executescript(
            """
            CREATE TABLE kept (
                key BLOB PRIMARY KEY, used REAL NOT NULL, size INTEGER NOT NULL, value BLOB NOT NULL);
            CREATE INDEX by_use ON kept (used, size);
            CREATE TABLE total (id INTEGER PRIMARY KEY CHECK (id = 1), size INTEGER NOT NULL);
            INSERT INTO total VALUES (1, 0);
            CREATE TRIGGER added AFTER INSERT ON kept BEGIN
                UPDATE total SET size = size + NEW.size; END;
            CREATE TRIGGER removed AFTER DELETE ON kept BEGIN
                UPDATE total SET size = size - OLD.size; END;
            """
        )
        rows = [(key, 1.0, len(value) + 120, value) for key, value in VALUES.items()]
        connection.executemany("INSERT INTO kept VALUES (?, ?, ?, ?)", rows)
    connection.close()


def test_a_cache_of_the_version_before_is_taken_over(tmp_path: Path) -> None:
    """All of its answers, which have checksums from then on."""
    path = tmp_path / "answers.sqlite"
    old_cache(path)
    assert answers_in(path, VALUES) == (60, 0)
    told = path.read_bytes()
    path.write_bytes(told.replace(b"answer 7 answer 7", b"answer 8 answer 7"))
    assert answers_in(path, VALUES) == (59, 1)
    cache = Cache(path, 10_000_000)
    assert cache.clear().entries == 59
    assert cache.size().bytes == 0
    cache.close()


def test_an_answer_of_the_version_before_is_found_by_its_key_now(tmp_path: Path) -> None:
    """Though the identity of its service is a digest now."""
    lm.config.cache_dir, lm.config.cache = tmp_path / "cache", True
    lm.config.set("providers.lab.type", "openai")
    lm.config.set("providers.lab.base_url", "http://127.0.0.1:9/v1")
    lm.config.set("providers.lab.extra_headers", {"X-Api-Key": "abc"})
    from llm_magics.parameters import ModelParameters
    from llm_magics.runtime.answer_lookup import AnswerLookup
    from llm_magics.runtime.routing import Route
    from llm_magics.types import ChatMessage

    provider = session.provider("lab")
    route = Route(provider=provider, model="m")
    kept = AnswerLookup(
        recording=None,
        cache=session.cache,
        route=route,
        messages=[ChatMessage("user", "hi")],
        parameters=ModelParameters(),
        is_fresh=False,
    )
    assert asyncio.run(kept.find()) is None
    answer = {"chunks": [[0.1, "hello"]], "finish_reason": "stop"}
    session.answer_cache.put(kept._former_key, json.dumps(answer).encode())
    assert lm.ask("hi", model="lab/m").text == "hello"
    lm.config.set("providers.lab.extra_headers", {"X-Api-Key": "new"})
    assert lm.ask("hi", model="lab/m").text == "hello"


def test_the_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    """Though it lies where the cache would."""
    path = tmp_path / "answers.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (text)")
    connection.close()
    before = path.read_bytes()
    cache = Cache(path, 10_000_000)
    with pytest.warns(UserWarning, match="another program"):
        cache.put(b"k", b"v")
    assert cache.clear().entries == 0
    cache.close()
    assert path.read_bytes() == before
