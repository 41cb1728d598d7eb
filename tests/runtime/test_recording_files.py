"""Files of recorded answers: whatever is in them or happens to them, no answer is lost."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_magics as lm
from llm_magics import errors
from llm_magics.parameters import ModelParameters
from llm_magics.runtime.session import session
from llm_magics.runtime.storage import recordings
from llm_magics.runtime.storage.recordings import Recording
from llm_magics.runtime.storage.serialization import (
    Request,
    chat_request,
    decode_answer,
    digest_request,
    encode_answer,
)
from llm_magics.types import ChatMessage, StreamChunk
from tests.support.examples import examples
from tests.support.nested import plain_environment

FILE = Path("tape.jsonl")
ROOT = Path(__file__).parents[2]

# What str.splitlines() takes for ends of lines.
ENDS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"

texts = st.text(st.sampled_from(ENDS) | st.characters(exclude_categories=["Cs"]), max_size=20)


def request(text: str) -> Request:
    """A prompt that is recorded."""
    return chat_request("m/m", [ChatMessage("user", text)], ModelParameters())


def answer(text: str) -> dict[str, object]:
    """An answer as it is recorded."""
    return encode_answer([StreamChunk(text, elapsed_s=0.1), StreamChunk(finish_reason="stop")])


def texts_in(tape: Recording, prompts: list[str]) -> list[str | None]:
    """What is played for each of ``prompts``."""
    found = [tape.find(request(prompt)) for prompt in prompts]
    return [
        None if told is None else "".join(chunk.text for chunk in decode_answer(told))
        for told in found
    ]


@given(st.dictionaries(texts, texts, min_size=1, max_size=8), st.booleans())
@settings(deadline=None)
def test_any_text_survives_recording(answers: dict[str, str], appends: bool) -> None:
    """Also with characters that are ends of lines elsewhere; the file has one line an answer."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        if appends:
            patch.setattr(recordings, "_REWRITTEN_BYTES", 1)
        file = Path(folder) / FILE
        tape = Recording(path=file, records=True)
        for prompt, text in answers.items():
            tape.keep(request(prompt), answer(text))
        told = file.read_text("utf-8")
        assert len(told.splitlines()) == told.count("\n") == len(answers)
        assert texts_in(Recording(path=file), list(answers)) == list(answers.values())
        tape.tidy()
        assert texts_in(Recording(path=file), list(answers)) == list(answers.values())


@pytest.mark.parametrize("end", sorted(ENDS))
def test_a_prompt_with_an_end_of_a_line_in_it(end: str) -> None:
    """It is recorded and played, and so is a file that has the character as it is."""
    lm.config.record, lm.config.model = FILE, "echo/echo"
    live = lm.ask(f"one{end}two").text
    lm.config.record, lm.config.replay, lm.config.replay_strict = None, FILE, True
    assert lm.ask(f"one{end}two").text == live
    entry = json.loads(FILE.read_bytes())
    plain = json.dumps(entry, sort_keys=True, ensure_ascii=False)
    Path("older.jsonl").write_text(f"{plain}\n", "utf-8", newline="\n")
    lm.config.replay = "older.jsonl"
    assert lm.ask(f"one{end}two").text == live


KERNEL = """
import sys, warnings
warnings.simplefilter("error")
import llm_magics as lm
from llm_magics.runtime.session import session
from llm_magics.runtime.storage import recordings
lm.config.model = "echo/echo"
for rewritten in sys.argv[2:]:
    recordings._REWRITTEN_BYTES = int(rewritten)
    lm.config.record = f"{rewritten}.jsonl"
    session.recording
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(40):
        lm.ask(f"{sys.argv[1]} {number}")
    lm.config.record = None
    session.recording
"""


def test_two_kernels_record_into_one_file(tmp_path: Path) -> None:
    """All answers of both are in it, in their order, whether it is rewritten or appended to."""
    all_rewritten = ["2000000", "3000", "1"]
    kernels = [
        subprocess.Popen(
            [sys.executable, "-c", KERNEL, name, *all_rewritten],
            env={**plain_environment(), "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    for _ in all_rewritten:
        for kernel in kernels:
            assert kernel.stdout is not None
            kernel.stdout.readline()
        for kernel in kernels:
            assert kernel.stdin is not None
            kernel.stdin.write("\n")
            kernel.stdin.flush()
    for kernel in kernels:
        kernel.communicate()
        assert kernel.returncode == 0
    for rewritten in all_rewritten:
        file = tmp_path / f"{rewritten}.jsonl"
        lines = file.read_text().split("\n")[:-1]
        keys = [json.loads(line)["key"] for line in lines]
        assert len(keys) == 80
        assert keys == sorted(keys)
        lm.config.replay, lm.config.replay_strict = file, True
        for name in ("one", "two"):
            assert lm.ask(f"{name} 39", model="echo/echo").cached


def test_many_threads_record_into_one_file(tmp_path: Path) -> None:
    """Each with a recording of its own, as kernels have."""

    def record(name: str) -> None:
        tape = Recording(path=tmp_path / FILE, records=True)
        for number in range(15):
            tape.keep(request(f"{name} {number}"), answer("a"))
        tape.tidy()

    threads = [threading.Thread(target=record, args=[str(name)]) for name in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tape = Recording(path=tmp_path / FILE)
    prompts = [f"{name} {number}" for name in range(5) for number in range(15)]
    assert texts_in(tape, prompts) == ["a"] * 75


FULL = """
import resource, signal, warnings
import llm_magics as lm
from llm_magics.runtime.session import session
from llm_magics.runtime.storage import recordings
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
lm.config.model = "echo/echo"
for rewritten, asks_again in ((2_000_000, True), (2_000_000, False), (1, True), (1, False)):
    recordings._REWRITTEN_BYTES = rewritten
    lm.config.record = f"{rewritten} {asks_again}.jsonl"
    lm.ask("first")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for number in range(4):
            assert lm.ask(f"answer {number} " * 20).text.startswith("answer")
        assert session.recording.find is not None
    print([str(each.message) for each in said])
    text = open(lm.config.record).read()
    assert text.endswith("\\n") and text.count("\\n") == 1, text
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    if asks_again:
        lm.ask("last")
    lm.config.record = None
    session.recording
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX")
def test_a_full_disk_loses_no_answer(tmp_path: Path) -> None:
    """It is returned, a warning says that it was not recorded, and it is when there is room."""
    command = [sys.executable, "-c", FULL]
    environment = {**plain_environment(), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line.count("were not recorded") for line in done.stdout.splitlines()] == [1] * 4
    files = list(tmp_path.glob("*.jsonl"))
    counts = {file.stem: file.read_text().count("\n") for file in files}
    assert counts == {"2000000 True": 6, "2000000 False": 5, "1 True": 6, "1 False": 5}
    assert not list(tmp_path.glob("*.part"))


def recorded(*prompts: str) -> bytes:
    """A file with answers to ``prompts``; what is in it."""
    tape = Recording(path=FILE, records=True)
    tape.keep_all([(request(prompt), answer(f"to {prompt}")) for prompt in prompts])
    return FILE.read_bytes()


@given(st.data())
@settings(deadline=None, max_examples=examples(40))
def test_a_torn_last_line_is_set_aside(data: st.DataObject) -> None:
    """Wherever it was cut: the others are played, and what is recorded next is whole."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / FILE
        tape = Recording(path=file, records=True)
        prompts = ["a", "b", "c"]
        tape.keep_all([(request(prompt), answer(f"to {prompt}")) for prompt in prompts])
        told = file.read_bytes()
        last = told.rindex(b"\n", 0, -1) + 1
        cut = data.draw(st.integers(last, len(told) - 1))
        file.write_bytes(told[:cut])
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            again = Recording(path=file, records=True)
        is_whole = cut in (last, len(told) - 1)
        assert len(said) == (not is_whole)
        played = [text for text in texts_in(again, prompts) if text]
        assert len(played) == 2 + (cut == len(told) - 1)
        again.keep(request("new"), answer("to new"))
        beside = file.with_name("tape.jsonl.damaged")
        assert beside.exists() == (not is_whole)
        if not is_whole:
            assert beside.read_bytes().strip() == told[last:cut].strip()
        assert texts_in(Recording(path=file), ["new"]) == ["to new"]


def test_marks_of_a_merge_are_left_out() -> None:
    """Both sides are used; the lines are named, and kept beside when the file is rewritten."""
    one, two = recorded("a", "b").split(b"\n")[:-1]
    FILE.write_bytes(b"\n".join([b"<<<<<<< ours", one, b"=======", two, b">>>>>>> theirs", b""]))
    with pytest.warns(UserWarning, match=r"lines 1, 3, 5 could not be parsed"):
        tape = Recording(path=FILE, records=True)
    assert texts_in(tape, ["a", "b"]) == ["to a", "to b"]
    tape.keep(request("c"), answer("to c"))
    assert texts_in(Recording(path=FILE), ["a", "b", "c"]) == ["to a", "to b", "to c"]
    assert (
        Path("tape.jsonl.damaged").read_text(encoding="utf-8")
        == "<<<<<<< ours\n=======\n>>>>>>> theirs\n"
    )


@pytest.mark.parametrize("text", ["# My notes\n", '{"a": 1}\n', "x\ny\n", '{"a": 1}\n{"b": 2'])
def test_another_file_is_not_taken_for_a_recording(text: str) -> None:
    """Nor is it ever overwritten."""
    FILE.write_text(text, encoding="utf-8")
    for records in (False, True):
        with pytest.raises(errors.ConfigurationError, match="line 1"):
            Recording(path=FILE, records=records)
    assert FILE.read_text(encoding="utf-8") == text


def test_a_file_that_became_another_meanwhile_is_not_overwritten() -> None:
    """The answer is returned, and a warning says that it was not recorded."""
    tape = Recording(path=FILE, records=True)
    tape.keep(request("a"), answer("to a"))
    FILE.write_text("# My notes\n", encoding="utf-8")
    with pytest.warns(UserWarning, match="were not recorded"):
        tape.keep(request("b"), answer("to b"))
    assert FILE.read_text(encoding="utf-8") == "# My notes\n"
    FILE.unlink()
    tape.keep(request("c"), answer("to c"))
    assert texts_in(Recording(path=FILE), ["a", "b", "c"]) == ["to a", "to b", "to c"]


@pytest.mark.parametrize("chunks", [3, [["x", "a"]], [[0, 5]], [[0]]])
def test_an_answer_that_cannot_be_played_is_a_miss(chunks: object) -> None:
    """With a warning, and not a raw exception."""
    told = {"key": digest_request(request("a")), "request": request("a")}
    FILE.write_text(json.dumps({**told, "answer": {"chunks": chunks}}) + "\n", encoding="utf-8")
    tape = Recording(path=FILE, strict=True)
    with (
        pytest.warns(UserWarning, match="could not be parsed"),
        pytest.raises(errors.ReplayMissError),
    ):
        tape.find(request("a"))


def test_a_file_with_ends_of_lines_of_windows() -> None:
    """As git may check it out."""
    FILE.write_bytes(b"\xef\xbb\xbf" + recorded("a", "b").replace(b"\n", b"\r\n"))
    assert texts_in(Recording(path=FILE), ["a", "b"]) == ["to a", "to b"]


def test_recorded_vectors_that_cannot_be_read_are_asked_for() -> None:
    """And vectors of other dimensions than are asked for."""
    lm.config.record, lm.config.vectors = FILE, "off"
    live = lm.embed(["a"], model="echo/echo")
    lm.config.record = None
    assert session.recording is None
    entry = json.loads(FILE.read_text(encoding="utf-8"))
    for vector in ("!!", "", 5, None):
        entry["answer"]["vector"] = vector
        Path("odd.jsonl").write_text(json.dumps(entry) + "\n", encoding="utf-8")
        lm.config.replay = "odd.jsonl"
        with pytest.warns(UserWarning, match="could not be parsed"):
            assert (lm.embed(["a"], model="echo/echo") == live).all()
        lm.config.replay = None
        assert session.recording is None


def test_without_locks_each_answer_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that has none: appended, and put in order at the end."""

    @contextmanager
    def no_lock(path: Path, timeout_s: float = 0.0) -> Iterator[bool]:
        yield False

    monkeypatch.setattr(recordings, "locked", no_lock)
    tapes = [Recording(path=FILE, records=True) for _ in range(2)]
    prompts = [f"prompt {number}" for number in range(12)]
    for number, prompt in enumerate(prompts):
        tapes[number % 2].keep(request(prompt), answer("a"))
    assert FILE.read_text(encoding="utf-8").count("\n") == 12
    for tape in tapes:
        tape.tidy()
    assert FILE.read_text(encoding="utf-8").count("\n") == 12
    assert texts_in(Recording(path=FILE), prompts) == ["a"] * 12


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="there are no devices")
def test_a_device_is_not_replaced_by_a_recording() -> None:
    """Nor is a folder."""
    for path in ("/dev/null", "."):
        with pytest.raises(errors.ConfigurationError):
            Recording(path=Path(path), records=True)
    assert Path("/dev/null").is_char_device()
