"""The store of vectors: what was put is found, by all, after anything."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from IPython.core.interactiveshell import InteractiveShell

from llm_magics.runtime.storage.vector_store import (
    VectorStore,
    clear_store,
    hash_texts,
    measure_store,
)
from llm_magics.settings.config import config
from tests.support.examples import examples
from tests.support.nested import plain_environment

SPACE = {"model": "m"}
ROOT = Path(__file__).parents[2]


def rows_for(texts: list[str], width: int = 3) -> np.ndarray:
    """A vector for each text that can be told from all others."""
    return np.array([[len(text) + 1, sum(map(ord, text)) + 1, n + 1][:width] for n, text in enumerate(texts)], np.float32)  # fmt: skip


def test_what_was_put_is_found_again(tmp_path: Path) -> None:
    """By another store over the same folder too; what is not there is said not to be."""
    store = VectorStore(tmp_path, SPACE)
    rows = rows_for(["a", "b"])
    store.put(hash_texts(["a", "b"]), rows)
    for each in (store, VectorStore(tmp_path, SPACE)):
        found, got = each.find(hash_texts(["b", "x", "a"]))
        assert found.tolist() == [True, False, True]
        np.testing.assert_array_equal(got[[0, 2]], rows[[1, 0]])
        assert np.isnan(got[1]).all()
        assert len(each) == 2


def test_spaces_do_not_mix(tmp_path: Path) -> None:
    """Another model, or other weights under its name, has nothing of the first."""
    VectorStore(tmp_path, SPACE).put(hash_texts(["a"]), rows_for(["a"]))
    for other in ({"model": "n"}, {"model": "m", "digest": "2"}, {}):
        assert not VectorStore(tmp_path, other).find(hash_texts(["a"]))[0].any()


def test_nothing_is_made_by_looking(tmp_path: Path) -> None:
    """A store in which nothing was put leaves no folder."""
    found, rows = VectorStore(tmp_path / "none", SPACE).find(hash_texts(["a"]))
    assert (found.tolist(), rows.shape) == ([False], (1, 0))
    assert not (tmp_path / "none").exists()


class AsDictionary(RuleBasedStateMachine):
    """However it is used, by two stores in turn, it is a dictionary that never forgets."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.stores = [VectorStore(Path(self.folder.name), SPACE) for _ in range(2)]
        self.expected: dict[str, np.ndarray] = {}

    def teardown(self) -> None:
        self.folder.cleanup()

    texts = st.lists(st.text(max_size=3), max_size=6, unique=True)

    @rule(texts=texts, which=st.integers(0, 1))
    def put(self, texts: list[str], which: int) -> None:
        """Put what is new."""
        new = [text for text in texts if text not in self.expected]
        rows = rows_for(new).reshape(-1, 3)
        self.stores[which].put(hash_texts(new), rows)
        self.expected |= dict(zip(new, rows, strict=True))

    @rule(texts=texts, which=st.integers(0, 1))
    def find(self, texts: list[str], which: int) -> None:
        """What was put, by either."""
        found, rows = self.stores[which].find(hash_texts(texts))
        assert found.tolist() == [text in self.expected for text in texts]
        for text, row, there in zip(texts, rows, found, strict=True):
            if there:
                np.testing.assert_array_equal(row, self.expected[text])

    @rule()
    def reopen(self) -> None:
        """Another process."""
        self.stores[0] = VectorStore(Path(self.folder.name), SPACE)

    @invariant()
    def counts(self) -> None:
        """Each once."""
        assert len(self.stores[0]) == len(self.expected)


TestAsDictionary = AsDictionary.TestCase
TestAsDictionary.settings = settings(
    max_examples=examples(30), stateful_step_count=15, deadline=None
)


@given(st.data())
@settings(deadline=None, max_examples=examples(40))
def test_damage_costs_what_is_damaged_and_no_more(data: st.DataObject) -> None:
    """
    Keys cut anywhere, or zeros at their end, and rows behind them: what is whole is found.

    Rows are on the disk before their keys are: so far as there are keys they are whole.
    """
    texts = [f"text {n}" for n in range(20)]
    rows = rows_for(texts)
    with tempfile.TemporaryDirectory() as folder:
        VectorStore(Path(folder), SPACE).put(hash_texts(texts), rows)
        written = 0
        for pattern, width in (("*.keys", 32), ("*.rows", 12)):
            (path,) = Path(folder).glob(f"*/{pattern}")
            size = data.draw(st.integers(written * width, 20 * width))
            whole = path.read_bytes()
            is_cut = data.draw(st.booleans())
            path.write_bytes(whole[:size] + (b"" if is_cut else bytes(len(whole) - size)))
            written = -(-size // width)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a last entry that is half written
            found, got = VectorStore(Path(folder), SPACE).find(hash_texts(texts))
        assert not found[written:].any()
        for row, there, expected in zip(got, found, rows, strict=True):
            if there:
                np.testing.assert_array_equal(row, expected)


WRITER = """
import sys, itertools, numpy as np
from pathlib import Path
from llm_magics.runtime.storage.vector_store import VectorStore, hash_texts
store = VectorStore(Path(sys.argv[1]), {"model": "m"})
for n in itertools.count():
    texts = [f"{sys.argv[2]} {n} {k}" for k in range(50)]
    store.put(hash_texts(texts), np.full((50, 64), n + 1, np.float32))
    print(n, flush=True)
"""


def test_killed_in_the_middle_of_writing(tmp_path: Path) -> None:
    """Two processes at once, killed by kill -9: all that they had said to be done is there."""
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name], cwd=ROOT, env=plain_environment(), stdout=subprocess.PIPE, text=True)
        for name in ("one", "two")
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()
    time.sleep(0.2)
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
    store = VectorStore(tmp_path, SPACE)
    for name, writer in zip(("one", "two"), writers, strict=True):
        said, _ = writer.communicate()
        done = int(said.split()[-1]) if said.split() else 0
        texts = [f"{name} {n} {k}" for n in range(done + 1) for k in range(50)]
        found, rows = store.find(hash_texts(texts))
        assert found.all()
        np.testing.assert_array_equal(rows[:, 0], np.repeat(np.arange(done + 1) + 1, 50))


def test_where_nothing_can_be_written_nothing_is_lost(tmp_path: Path) -> None:
    """One warning, and the work goes on without it."""
    (tmp_path / "file").write_text("")
    store = VectorStore(tmp_path / "file", SPACE)
    with pytest.warns(UserWarning, match="Could not store"):
        store.put(hash_texts(["a"]), rows_for(["a"]))
    store.put(hash_texts(["b"]), rows_for(["b"]))
    assert not store.find(hash_texts(["a"]))[0].any()


def test_all_can_be_counted_and_forgotten(tmp_path: Path) -> None:
    """A store that is open finds nothing afterwards, and can be added to."""
    store = VectorStore(tmp_path, SPACE)
    store.put(hash_texts(["a", "b"]), rows_for(["a", "b"]))
    assert store.find(hash_texts(["a"]))[0].all()
    assert measure_store(tmp_path) == (2, 2 * (32 + 12))
    clear_store(tmp_path)
    assert not store.find(hash_texts(["a"]))[0].any()
    assert measure_store(tmp_path) == (0, 0)
    store.put(hash_texts(["c"]), rows_for(["c"]))
    assert store.find(hash_texts(["c"]))[0].all()


def test_the_command_that_counts_and_clears(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """Vectors beside answers; what was cleared is sent again."""
    shell.run_line_magic("embed", '["a", "b"]')
    shell.run_line_magic("llm", "cache")
    assert "Stored vectors: 2, 0.0 MB, in" in capsys.readouterr().out
    shell.run_line_magic("llm", "cache clear vectors")
    assert "2 vectors" in capsys.readouterr().out
    shell.run_line_magic("llm", "cache")
    assert "Stored vectors: 0" in capsys.readouterr().out
    shell.run_line_magic("embed", '["a", "b"]')
    shell.run_line_magic("llm", "cache")
    assert "Stored vectors: 2" in capsys.readouterr().out
    config.vectors = "off"
    shell.run_line_magic("llm", "cache clear vectors")
    assert "not stored" in capsys.readouterr().out
