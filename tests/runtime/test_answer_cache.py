"""The cache: what it keeps, whose it is, and what it outlives."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import OrderedDict
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics.runtime.session import session
from llm_magics.runtime.storage.answer_cache import Cache, CacheSize
from tests.support.examples import examples
from tests.support.fake_openai import FakeOpenAI
from tests.support.nested import plain_environment
from tests.support.servers import servers
from tests.support.serving import Asked, Says, chat_event, chat_stream, serving

MB = 1_000_000
ROOT = Path(__file__).parents[2]


def key_of(number: int) -> bytes:
    """A key like those that calls have."""
    return hashlib.sha256(str(number).encode()).digest()


@given(st.lists(st.tuples(st.integers(0, 5), st.none() | st.binary(max_size=200)), max_size=40))
@settings(max_examples=examples(30), deadline=None)
def test_it_is_a_dictionary(steps: list[tuple[int, bytes | None]]) -> None:
    """Whatever is put and asked for, in whatever order; sizes are counted as they are."""
    kept: dict[bytes, bytes] = {}
    cache = Cache(Path(f"any-{time.monotonic_ns()}.sqlite"), MB)
    for number, value in steps:
        key = key_of(number)
        if value is None:
            assert cache.get(key) == kept.get(key)
        else:
            cache.put(key, value)
            kept[key] = value
    assert cache.get_all(map(key_of, range(6))) == kept
    size = cache.size()
    assert size.entries == len(kept)
    assert size.bytes == sum(len(value) + 120 for value in kept.values())
    cache.close()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60))
@settings(max_examples=examples(30), deadline=None)
def test_what_was_used_least_recently_goes_first(uses: list[int]) -> None:
    """Never more than the bound is kept, and the last used are among it."""
    now = [0.0]
    cache = Cache(Path(f"lru-{time.monotonic_ns()}.sqlite"), 5 * 1120, lambda: now[0])
    order: OrderedDict[int, None] = OrderedDict()
    for number in uses:
        now[0] += 100
        if cache.get(key_of(number)) is None:
            cache.put(key_of(number), b"x" * 1000)
        order[number] = None
        order.move_to_end(number)
        assert cache.size().bytes <= 5 * 1120
    last = list(order)[-4:]
    assert len(cache.get_all(map(key_of, last))) == len(last)
    cache.close()


def test_a_value_larger_than_the_bound_is_not_kept() -> None:
    """Nor does it break anything."""
    cache = Cache(Path("small.sqlite"), 1000)
    cache.put(b"k", b"x" * 5000)
    assert cache.get(b"k") is None
    assert cache.size() == CacheSize(0, 0)
    cache.close()


WRITING = """
import hashlib, sys
from pathlib import Path
from llm_magics.runtime.storage.answer_cache import Cache
cache = Cache(Path(sys.argv[1]), 10**8)
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[2]), int(sys.argv[2]) + 120):
    cache.put(hashlib.sha256(str(number).encode()).digest(), str(number).encode())
cache.close()
"""


def test_several_kernels_write_at_once(tmp_path: Path) -> None:
    """All of what all of them wrote is there, and the file is sound."""
    path = tmp_path / "shared.sqlite"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITING, str(path), str(start * 100)],
            env={**plain_environment(), "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for start in range(4)
    ]
    for writer in writers:
        assert writer.stdout
        assert writer.stdout.readline() == b"ready\n"
    for writer in writers:
        writer.communicate(b"\n", timeout=60)
    assert [writer.returncode for writer in writers] == [0] * 4
    cache = Cache(path, 100 * MB)
    assert cache.get_all(map(key_of, range(420))) == {
        key_of(number): str(number).encode() for number in range(420)
    }
    assert cache.size().entries == 420
    cache.close()


KILLED = """
import sys
from pathlib import Path
from llm_magics.runtime.storage.answer_cache import Cache
cache = Cache(Path(sys.argv[1]), 10**9)
print("ready", flush=True)
number = 0
while True:
    cache.put_all((f"{number}-{place}".encode(), b"x" * 5000) for place in range(50))
    number += 1
"""


def test_a_kernel_killed_in_the_middle_of_a_write(tmp_path: Path) -> None:
    """Leaves the file whole: every batch is in it with all its values, or not at all."""
    path = tmp_path / "killed.sqlite"
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout
            writer.stdout.readline()
            time.sleep(0.15)
            writer.send_signal(signal.SIGKILL)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    cache = Cache(path, 10**9)
    size = cache.size()
    assert size.entries
    assert size.entries % 50 == 0
    assert size.bytes == size.entries * 5120
    cache.close()


@pytest.mark.parametrize("damage", ["overwritten", "cut", "no database"])
def test_a_damaged_file_is_set_aside(damage: str, tmp_path: Path) -> None:
    """It is said, nothing is lost of it, and a new one is begun."""
    path = tmp_path / "cache.sqlite"
    cache = Cache(path, 10 * MB)
    cache.put_all((key_of(number), b"x" * 3000) for number in range(200))
    cache.close()
    data = path.read_bytes()
    if damage == "overwritten":
        path.write_bytes(data[:4096] + os.urandom(len(data) - 4096))
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.write_bytes(b"something else entirely " * 400)
    spoilt = path.read_bytes()

    def use() -> None:
        for number in range(200):
            cache.get(key_of(number))
        cache.put(b"after", b"all")
        cache.put(b"after", b"all")

    with pytest.warns(UserWarning, match="is damaged .* renamed to"):
        use()
    assert cache.get(b"after") == b"all"
    (aside,) = tmp_path.glob("*.damaged-*")
    assert aside.read_bytes()[: len(spoilt)] == spoilt or damage != "no database"
    cache.close()


def test_where_nothing_can_be_written_it_is_done_without(tmp_path: Path) -> None:
    """One warning, and no error."""
    (tmp_path / "a-file").write_text("")
    cache = Cache(tmp_path / "a-file" / "cache.sqlite", MB)

    def use() -> tuple[bytes | None, CacheSize]:
        cache.put(b"k", b"v")
        return cache.get(b"k"), cache.size()

    with pytest.warns(UserWarning, match="Could not use the cache") as told:
        assert use() == (None, CacheSize(0, 0))
    assert len(told) == 1


def test_it_is_the_users_own(tmp_path: Path) -> None:
    """Nobody else on the machine can read what was asked."""
    cache = Cache(tmp_path / "cache.sqlite", MB)
    cache.put(b"k", b"v")
    assert (tmp_path / "cache.sqlite").stat().st_mode & 0o077 == 0
    cache.close()


@pytest.fixture
def own_cache(tmp_path: Path) -> Path:
    """A cache of the test's own, not yet on."""
    lm.config.cache_dir = tmp_path / "cache"
    return tmp_path / "cache" / "answers.sqlite"


def test_answers_are_cached_only_when_asked(own_cache: Path) -> None:
    """Off unless said; then the same answer, at no cost, with no latency, and marked."""
    with servers(one=Says(chat_stream("a ", "b ", "c"))) as running:
        lm.ask("hi", model="one/m")
        lm.ask("hi", model="one/m")
        assert len(running["one"].asked) == 2
        assert not own_cache.exists()
        lm.config.cache = True
        live = lm.ask("hi", model="one/m")
        again = lm.ask("hi", model="one/m")
        assert len(running["one"].asked) == 3
        assert (again.text, again.usage, again.finish_reason) == (
            live.text,
            live.usage,
            live.finish_reason,
        )
        assert (live.cached, again.cached, again.cost_usd) == (False, True, 0.0)
        assert (again.timing.ttft_s, again.timing.e2e_s) == (None, None)
        assert [chunk.text for chunk in lm.stream("hi", model="one/m") if chunk.text] == [
            chunk.text for chunk in lm.stream("hi", model="one/m", fresh=True) if chunk.text
        ]
        assert len(running["one"].asked) == 4
        lm.ask("hi", model="one/m", temperature=0)
        assert len(running["one"].asked) == 5
    rows = lm.runs()
    assert rows.cached.tolist() == [False, False, False, True, True, False, False]
    assert rows.ttft_s.isna().tolist() == rows.cached.tolist()


def test_two_servers_of_one_name_share_nothing(own_cache: Path) -> None:
    """Whoever changes the address of a provider gets the other's answers."""
    lm.config.cache = True
    for said in ("first", "second"):
        with servers(one=Says(chat_stream(said))):
            assert lm.ask("hi", model="one/m").text == said


def test_an_answer_that_breaks_off_is_not_cached(own_cache: Path) -> None:
    """The next one is asked for."""
    lm.config.cache = True
    cut = Says(chat_stream("a ", "b ")[:2], cut=True)
    with servers(one=cut), pytest.raises(lm.errors.StreamInterrupted):
        lm.ask("hi", model="one/m")
    assert session.answer_cache.size().entries == 0


def test_the_cache_by_its_magic(
    shell: InteractiveShell, own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On, off, how much it holds, cleared; --fresh asks again."""
    shell.run_line_magic("llm", "cache on")
    shell.run_cell_magic("llm", "-o one", "hi")
    shell.run_cell_magic("llm", "-o two", "hi")
    shell.run_cell_magic("llm", "-o three --fresh", "hi")
    assert [shell.user_ns[name].cached for name in ("one", "two", "three")] == [False, True, False]
    shell.run_line_magic("llm", "cache")
    assert "The cache is on: 1 answers" in capsys.readouterr().out
    shell.run_line_magic("llm", "cache clear")
    assert "1 cached answer" in capsys.readouterr().out
    shell.run_line_magic("llm", "cache off")
    shell.run_cell_magic("llm", "-o four", "hi")
    assert not shell.user_ns["four"].cached
    with pytest.raises(lm.errors.UsageError, match="cache"):
        shell.run_line_magic("llm", "cache maybe")


def test_what_somebody_else_put_there_is_no_answer(own_cache: Path) -> None:
    """The model is asked, as if nothing were there."""
    lm.config.cache = True
    with serving(FakeOpenAI()) as server:
        lm.config.providers = {
            "one": {"type": "openai", "base_url": server.url, "api_key": "a-key-of-the-test"}
        }
        lm.ask("hi", model="one/gpt-test")
        path = session.answer_cache.path
        connection = sqlite3.connect(path)
        for rubbish in (b"", b"[]", b'{"chunks": 3}', b'{"chunks": [["a"]]}', b"\xff"):
            connection.execute("UPDATE kept SET value = ?", (rubbish,))
            connection.commit()
            assert not lm.ask("hi", model="one/gpt-test").cached
            connection.execute("UPDATE kept SET used = used")
        connection.close()


def test_another_weight_of_the_same_name_is_another_model(own_cache: Path) -> None:
    """Ollama pulls a new version of a model: its answers are asked for anew."""
    digest = ["one"]

    def ollama(asked: Asked) -> Says:
        if asked.path == "/api/tags":
            body = f'{{"models": [{{"name": "m:latest", "digest": "{digest[0]}"}}]}}'
            return Says([body.encode()], content_type="application/json")
        line = b'{"message": {"role": "assistant", "content": "hi"}, "done": true, "done_reason": "stop"}\n'
        return Says([line], content_type="application/x-ndjson")

    lm.config.cache = True
    with serving(ollama) as server:
        lm.config.set("providers.ollama.base_url", server.url)
        assert [lm.ask("hi", model="ollama/m").cached for _ in range(2)] == [False, True]
        digest[0] = "two"
        session.provider("ollama")._digests = (0.0, {})  # type: ignore[attr-defined]
        assert not lm.ask("hi", model="ollama/m").cached


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"base_url": "{url}/v1?deployment=a"}, {"base_url": "{url}/v1?deployment=b"}),
        ({"organization": "o1"}, {"organization": "o2"}),
        ({"api_version": "2023-01-01"}, {"api_version": "2024-01-01"}),
        ({"extra_headers": {"X-Tenant": "one"}}, {"extra_headers": {"X-Tenant": "two"}}),
    ],
    ids=["query", "organization", "version", "headers"],
)
def test_what_a_provider_is_told_decides_too(
    own_cache: Path, one: dict[str, str], other: dict[str, str]
) -> None:
    """An answer to one of them is none to the other."""
    lm.config.cache = True
    with serving(Says(chat_stream("hi"))) as server:
        for told in (one, other, one):
            own = {k: v.format(url=server.url) if k == "base_url" else v for k, v in told.items()}
            given = {"type": "openai", "base_url": server.url, "api_key": "a-key-here", **own}
            lm.config.reset("providers.p.organization")
            for name, value in given.items():
                lm.config.set(f"providers.p.{name}", value)
            lm.ask("hi", model="p/m")
        assert lm.runs().cached.tolist() == [False, False, True]
        lm.ask("hi", model="p/m", extra_headers={"X-Tenant": "A"})
        assert not lm.ask("hi", model="p/m", extra_headers={"X-Tenant": "B"}).cached


def test_an_answer_with_a_key_in_it_is_not_kept(own_cache: Path) -> None:
    """Not whole, not in pieces, not with quotes in it; a plain word of a header is no key."""
    lm.config.cache = True
    lm.config.record = Path("tape.jsonl")
    odd = 'pass"word' + "\\\\1234567"
    secret = "sk-" + "canary0123456789" * 2
    for pieces in (("it is ", secret[:9], secret[9:20], secret[20:], "!"), ("so ", odd)):
        with servers(one=Says(chat_stream(*pieces))):
            lm.config.set("providers.one.extra_headers", {"X-Auth": odd, "X-Env": "production"})
            answer = lm.ask("hi", model="one/m")
            assert answer.text == "".join(pieces)
            assert not lm.ask("hi", model="one/m").cached
    assert session.answer_cache.size().entries == 0
    kept = [
        json.loads(line)["answer"]["chunks"]
        for line in Path("tape.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    texts = ["".join(piece[1] for piece in each) for each in kept]
    assert all(secret not in text and odd not in text for text in texts)
    with servers(one=Says(chat_stream("to production"))):
        lm.config.set("providers.one.extra_headers", {"X-Env": "production"})
        assert [lm.ask("go", model="one/m").text for _ in range(2)] == ["to production"] * 2
        assert lm.runs().cached.tolist()[-1]


@pytest.mark.parametrize(
    "rubbish",
    [
        '{"chunks": [[0, 5]]}',
        '{"chunks": [["x", "a"]]}',
        '{"chunks": [[0, "a", 7]]}',
        "[" * 100_000,
    ],
)
def test_no_rubbish_ends_a_call(own_cache: Path, rubbish: str) -> None:
    """Whatever stands in the file, the model is asked."""
    lm.config.cache = True
    lm.ask("hi", model="echo/echo")
    connection = sqlite3.connect(session.answer_cache.path)
    connection.execute("UPDATE kept SET value = ?", (rubbish.encode(),))
    connection.commit()
    connection.close()
    assert lm.ask("hi", model="echo/echo").text == "hi"


def test_odd_answers_and_parameters_are_kept_or_not_but_given(own_cache: Path) -> None:
    """Half a character, names that are numbers; a service that cannot tell its weights."""
    lm.config.cache = True
    with servers(one=Says([chat_event("a\ud83d b"), *chat_stream("c")])):
        for _ in range(2):
            assert lm.ask("hi", model="one/m").text.endswith("bc")
            lm.ask("hi", model="one/m", logit_bias={1: 5, "a": 3})

    def ollama(asked: Asked) -> Says:
        if asked.path == "/api/tags":
            return Says([b"{}"], 500, "application/json")
        line = b'{"message": {"role": "assistant", "content": "hi"}, "done": true}\n'
        return Says([line], content_type="application/x-ndjson")

    with serving(ollama) as server:
        lm.config.set("providers.ollama.base_url", server.url)
        assert lm.ask("hi", model="ollama/m").text == "hi"


def test_a_file_that_another_holds_is_done_without(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for once, and not by every call."""
    opened: list[float] = []
    open_file = session.answer_cache._opened

    def counted(patience_s: float) -> sqlite3.Connection:
        opened.append(patience_s)
        return open_file(patience_s)

    monkeypatch.setattr(session.answer_cache, "_opened", counted)
    lm.config.cache = True
    lm.ask("first", model="echo/echo")
    holder = sqlite3.connect(session.answer_cache.path, isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    session.answer_cache.close()
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.warns(UserWarning, match="Could not use the cache"):
        assert lm.ask("second", model="echo/echo").text == "second"
    waited_for = len(opened)
    assert waited_for >= 1
    for number in range(5):
        lm.ask(str(number), model="echo/echo")
    assert len(opened) == waited_for
    holder.close()
