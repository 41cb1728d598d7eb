"""Recordings: kept, played back, strict; what they hold and what they never hold."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import ChatMessage, ModelParameters, errors
from llm_magics.attachments import Image
from llm_magics.runtime.session import session
from llm_magics.runtime.storage import recordings
from llm_magics.runtime.storage.recordings import Recording
from llm_magics.runtime.storage.serialization import (
    chat_request,
    decode_answer,
    decode_vector,
    digest_request,
    encode_answer,
    encode_vector,
)
from llm_magics.types import ModelResponse, StreamChunk, ToolCall, Usage
from tests.support.fake_openai import FakeOpenAI
from tests.support.servers import servers
from tests.support.serving import Says, chat_stream

FILE = Path("tape.jsonl")


def recorded() -> None:
    """Two answers and two vectors of a server that is gone afterwards."""
    with servers(one=FakeOpenAI()):
        lm.config.record = FILE
        lm.ask("a question", model="one/gpt-test", max_tokens=3)
        lm.ask("another", model="one/gpt-test", max_tokens=3, temperature=0.5)
        lm.embed(["a", "b"], model="one/text-embedding-test")
    lm.config.record = None


def test_what_was_recorded_is_played_with_nobody_there() -> None:
    """The same text, tokens and vectors; no cost, no latency, and marked as what it is."""
    with servers(one=FakeOpenAI()):
        live = lm.ask("a question", model="one/gpt-test", max_tokens=3)
        vectors = lm.embed(["b"], model="one/text-embedding-test")
    recorded()
    lm.config.replay = FILE
    again = lm.ask("a question", model="one/gpt-test", max_tokens=3)
    assert (again.text, again.finish_reason, again.usage) == (live.text, "length", live.usage)
    assert (again.cached, again.cost_usd, again.timing.ttft_s) == (True, 0.0, None)
    assert np.array_equal(lm.embed(["b"], model="one/text-embedding-test"), vectors)
    assert "".join(c.text for c in lm.stream("a question", model="one/gpt-test", max_tokens=3)) == live.text  # fmt: skip
    rows = lm.runs()
    assert rows.cached.tolist()[-3:] == [True] * 3
    assert rows.ttft_s.isna().tolist()[-3:] == [True] * 3


def test_a_miss_is_live_or_an_error_that_says_what_differs() -> None:
    """Strict: the ingredient that changed, by its name, with what it was and is."""
    recorded()
    lm.config.replay = FILE
    with pytest.raises(errors.ConnectionError):
        lm.ask("a question", model="one/gpt-test", max_tokens=4)
    lm.config.replay_strict = True
    for change, names in (
        ({"max_tokens": 4}, "max_tokens was 3, now 4"),
        ({"max_tokens": 3, "temperature": 0.1}, "temperature was not set, now 0.1"),
        ({"max_tokens": 3, "system": "be brief"}, "system was not set"),
    ):
        with pytest.raises(errors.ReplayMissError) as caught:
            lm.ask("a question", model="one/gpt-test", **change)  # type: ignore[arg-type]
        assert names in str(caught.value)
    with pytest.raises(errors.ReplayMissError, match=r"a question.* a questionn"):
        lm.ask("a questionn", model="one/gpt-test", max_tokens=3)
    with pytest.raises(errors.ReplayMissError, match="model was one/gpt-test"):
        lm.ask("a question", model="echo/echo", max_tokens=3)
    with pytest.raises(errors.ReplayMissError, match=r"text was [ab], now c"):
        lm.embed(["c"], model="one/text-embedding-test")


def test_long_prompts_are_shown_where_they_differ() -> None:
    """Prompts about rows begin with the same instruction."""
    recorded()
    lm.config.record, same = FILE, "Decide whether this statement is true, and answer as JSON. "
    lm.ask(f"{same}The lamp is good.", model="echo/echo")
    lm.config.record, lm.config.replay, lm.config.replay_strict = None, FILE, True
    with pytest.raises(errors.ReplayMissError, match=r"was ….*The lamp.*now ….*The chair"):
        lm.ask(f"{same}The chair is good.", model="echo/echo")


def test_the_file_is_stable_and_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorted lines of JSON; recording the same again changes nothing; keys are taken out."""
    key = "sk-" + "a" * 30
    with servers(one=FakeOpenAI()):
        lm.config.record = FILE
        lm.ask(f"my key is {key}", model="one/gpt-test", extra_headers={"X-Key": "canary-99"})
        lm.ask("b", model="one/gpt-test")
        before = FILE.read_text(encoding="utf-8")
        lm.config.reset("record")
        lm.config.record = FILE
        entries = [json.loads(line) for line in before.splitlines()]
    assert [entry["key"] for entry in entries] == sorted(entry["key"] for entry in entries)
    assert key not in before
    assert "canary-99" not in before
    assert "a-key-of-the-test" not in before
    assert set(entries[0]) == {"key", "request", "answer"}
    assert not list(Path().glob("*.part"))


def test_the_environment_says_what_is_played(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLM_MAGICS_REPLAY names a file, or is ``off``, whatever the settings say."""
    recorded()
    monkeypatch.setenv("LLM_MAGICS_REPLAY", str(FILE))
    lm.config.reset()
    lm.config.reload()
    lm.config.providers = {"one": {"type": "openai", "base_url": "http://127.0.0.1:9"}}
    assert lm.ask("a question", model="one/gpt-test", max_tokens=3).cached
    monkeypatch.setenv("LLM_MAGICS_REPLAY", "off")
    lm.config.reload()
    with pytest.raises(errors.ConnectionError):
        lm.ask("a question", model="one/gpt-test", max_tokens=3)


def test_the_magics(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """``%llm record`` and ``%llm replay``, with ``--strict`` and ``off``."""
    shell.run_line_magic("llm", f"record {FILE}")
    shell.run_cell_magic("llm", "-o first", "hello")
    shell.run_line_magic("llm", "record off")
    shell.run_line_magic("llm", f"replay {FILE} --strict")
    shell.run_cell_magic("llm", "-o second", "hello")
    assert shell.user_ns["first"].text == shell.user_ns["second"].text
    assert shell.user_ns["second"].cached
    with pytest.raises(errors.ReplayMissError):
        shell.run_cell_magic("llm", "", "hello you")
    shell.run_line_magic("llm", "replay off")
    shell.run_cell_magic("llm", "-o third", "hello you")
    assert not shell.user_ns["third"].cached
    assert "Replay is off" in capsys.readouterr().out
    with pytest.raises(errors.ConfigurationError, match=r"no-such\.jsonl"):
        shell.run_line_magic("llm", "replay no-such.jsonl")
    shell.run_cell_magic("llm", "-o fourth", "still here")
    assert shell.user_ns["fourth"].text == "still here"


def test_a_damaged_file_is_said_to_be_one() -> None:
    """With its line; nothing of it is thrown away, and the other answers are used."""
    recorded()
    text = FILE.read_text(encoding="utf-8")
    FILE.write_text(f"{text}<<<<<<< HEAD\n", encoding="utf-8")
    with pytest.warns(UserWarning, match="line 5 could not be parsed"):
        tape = Recording(path=FILE)
    assert len(tape._entries) == 4
    assert FILE.read_text(encoding="utf-8").startswith(text)


def test_a_relative_path_is_another_file_in_another_folder(tmp_path: Path) -> None:
    """What was recorded in one is not written into the other."""
    lm.config.record, lm.config.model = FILE, "echo/echo"
    lm.ask("one")
    (tmp_path / "other").mkdir()
    os.chdir(tmp_path / "other")
    lm.ask("two")
    assert len(FILE.read_text(encoding="utf-8").splitlines()) == 1
    assert len((tmp_path / FILE).read_text().splitlines()) == 1


def test_half_an_answer_is_not_kept() -> None:
    """Left early, a stream is no answer to be played again."""
    with servers(one=FakeOpenAI()):
        lm.config.record = FILE
        for _ in lm.stream("x", model="one/gpt-test", max_tokens=200):
            break
    assert not FILE.exists()


texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.tuples(texts, texts)), st.none() | st.integers(0, 99))
def test_an_answer_comes_back_as_it_was(pieces: list[tuple[str, str]], used: int | None) -> None:
    """Text, thinking, tools, usage and finish, whatever characters are in it."""
    chunks = [StreamChunk(text, thought, n / 10) for n, (text, thought) in enumerate(pieces)]
    call = ToolCall("c", "f", '{"x": 1}')
    last = StreamChunk(finish_reason="stop", usage=Usage(used, 2), tool_calls=(call,))
    told = json.loads(json.dumps(encode_answer([*chunks, last])))
    before, after = ModelResponse.of([*chunks, last]), ModelResponse.of(decode_answer(told))
    for name in ("text", "reasoning", "usage", "finish_reason", "tool_calls"):
        assert getattr(before, name) == getattr(after, name)


@given(st.lists(st.floats(width=32, allow_nan=False)))
def test_a_vector_comes_back_as_it_was(vector: list[float]) -> None:
    """Every bit of its float32 numbers."""
    assert decode_vector(encode_vector(vector)) == vector


def test_a_key_is_of_all_that_decides_the_answer() -> None:
    """Another picture, schema or tool is another call; a header is not."""
    plain = ModelParameters(max_tokens=3)
    hi = ChatMessage("user", "hi")
    seen = ChatMessage("user", "hi", images=(Image(b"\x89PNG\r\n\x1a\n1"),))
    keys = {
        digest_request(chat_request("m", [hi], plain)),
        digest_request(chat_request("n", [hi], plain)),
        digest_request(chat_request("m", [seen], plain)),
        digest_request(
            chat_request("m", [hi], ModelParameters(max_tokens=3, schema={"type": "object"}))
        ),
        digest_request(
            chat_request("m", [hi], ModelParameters(max_tokens=3, extra_body={"top_k": 1}))
        ),
    }
    assert len(keys) == 5
    cell, python = (ModelParameters(temperature=number, max_tokens=3) for number in (0.0, 0))
    assert digest_request(chat_request("m", [hi], cell)) == digest_request(
        chat_request("m", [hi], python)
    )
    header = ModelParameters(max_tokens=3, extra_headers={"X": "y"}, stream=True)
    assert digest_request(chat_request("m", [hi], header)) in keys


@pytest.mark.parametrize("file", ["../outside.jsonl", "/tmp/outside.jsonl", "~/outside.jsonl"])
def test_a_project_cannot_have_files_written_elsewhere(file: str, tmp_path: Path) -> None:
    """Beside its settings, but not over what is the user's."""
    (tmp_path / "llm_magics.yaml").write_text(f"record: {file}")
    with pytest.raises(errors.ConfigurationError, match="record"):
        lm.ask("x", model="echo/echo")
    (tmp_path / "llm_magics.yaml").write_text("record: inside.jsonl")
    lm.config.reload()
    lm.ask("x", model="echo/echo")
    assert (tmp_path / "inside.jsonl").is_file()


def test_comparisons_are_recorded_and_played() -> None:
    """The same frame, with nobody there; its latency is not known, and that is said."""
    with servers(one=FakeOpenAI(), two=FakeOpenAI()):
        lm.config.record = FILE
        models = ["one/gpt-test", "two/gpt-test"]
        live = lm.compare(["a", "b"], models, max_tokens=3)
    lm.config.record, lm.config.replay, lm.config.replay_strict = None, FILE, True
    again = lm.compare(["a", "b"], models, max_tokens=3)
    told = ["prompt", "provider", "model", "text", "output_tokens", "finish_reason"]
    assert again[told].equals(live[told])
    assert again.cached.all()
    assert again.ttft_s.isna().all()
    assert (again.cost_usd == 0).all()


def test_an_answer_is_played_as_fast_as_it_came(shell: InteractiveShell) -> None:
    """At once, or at its own speed, or at another one's."""
    with servers(one=Says(chat_stream("a ", "b ", "c "), gap_s=0.06)):
        lm.config.record = FILE
        lm.ask("hi", model="one/m")
    lm.config.record = None

    def taken(line: str) -> float:
        times = []
        for _ in range(3):  # the least, as other programs disturb it
            shell.run_line_magic("llm", f"replay {FILE} --strict {line}")
            started = time.perf_counter()
            assert lm.ask("hi", model="one/m").text == "a b c "
            times.append(time.perf_counter() - started)
        return min(times)

    at_once, as_it_came, thrice = taken(""), taken("--speed 1"), taken("--speed 3")
    assert at_once < thrice < as_it_came
    assert as_it_came > 0.18
    assert thrice > 0.06


def test_a_long_recording_grows_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not written anew for each answer; in its order again when it ends."""
    monkeypatch.setattr(recordings, "_REWRITTEN_BYTES", 1000)
    lm.config.record, lm.config.model = FILE, "echo/echo"
    for number in range(20):
        lm.ask(str(number))
    lines = FILE.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 20
    keys = [json.loads(line)["key"] for line in lines]
    assert keys != sorted(keys)
    lm.config.record = None
    assert session.recording is None
    assert FILE.read_text(encoding="utf-8").splitlines() == [
        line for _, line in sorted(zip(keys, lines, strict=True))
    ]
    lm.config.replay, lm.config.replay_strict = FILE, True
    assert [lm.ask(str(number)).cached for number in range(20)] == [True] * 20
