"""Answers that fail, are refused, empty or cut: nowhere good, nowhere stored, and nothing lost."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import errors
from llm_magics.runtime.response import Response
from llm_magics.runtime.session import session
from tests.support.serving import Asked, Says, as_json, chat_event, chat_stream, serving

DONE = b"data: [DONE]\n\n"
LENGTH = "cut off at the length limit"


def chat(text: str = "", finish: str | None = "stop", **more: Any) -> Says:
    """A streamed chat of one piece that ends for a reason of its own."""
    choice = {"index": 0, "delta": {}, "finish_reason": finish, **more}
    words = [chat_event(text)] if text else []
    return Says([*words, chat_event(choices=[choice]), DONE])


def whole(text: str | None = "", finish: str | None = "stop", **more: Any) -> Says:
    """The same as one JSON body."""
    message = {"role": "assistant", "content": text, **more.pop("message", {})}
    choice = {"index": 0, "message": message, "finish_reason": finish, **more}
    return as_json({"choices": [choice]})


def sse(*events: dict[str, Any]) -> Says:
    """A stream of events."""
    return Says([f"data: {json.dumps(event)}\n\n".encode() for event in events])


def messages(text: str, stop_reason: str, kind: str = "text") -> Says:
    """A streamed answer of Anthropic's."""
    words = {"type": f"{kind}_delta", kind: text}
    return sse(
        {"type": "message_start", "message": {"usage": {"input_tokens": 5, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": kind, kind: ""}},
        {"type": "content_block_delta", "index": 0, "delta": words},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": stop_reason}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    )  # fmt: skip


def response(text: str, status: str = "completed", part: str = "output_text", **more: Any) -> Says:
    """A streamed answer of the Responses API."""
    content = [{"type": part, "refusal" if part == "refusal" else "text": text}] if text else []
    output = [{"type": "message", "role": "assistant", "content": content}]
    kind = {"completed": "completed", "incomplete": "incomplete"}.get(status, "failed")
    deltas = [{"type": f"response.{part}.delta", "delta": text}] if text else []
    ended = {"status": status, "output": output, **more}
    return sse(*deltas, {"type": f"response.{kind}", "response": ended})


def lines(text: str, done_reason: str, **message: Any) -> Says:
    """A streamed answer of Ollama's."""
    told = [
        {"message": {"role": "assistant", "content": text, **message}, "done": False},
        {
            "message": {"role": "assistant", "content": ""},
            "done": True,
            "done_reason": done_reason,
        },
    ]
    return Says(
        [json.dumps(line).encode() + b"\n" for line in told], content_type="application/x-ndjson"
    )


class Scripted:
    """A service whose answer hangs on the prompt; it counts what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Says | Callable[[], Says]] = {}
        self.paid: list[str] = []

    def __call__(self, asked: Asked) -> Says:
        if asked.method == "GET":
            return as_json({"data": [{"id": "m"}], "models": [{"name": "m"}]})
        body = asked.json()
        last = (body.get("messages") or body.get("input"))[-1]["content"]
        said = last if isinstance(last, str) else last[-1]["text"]
        self.paid.append(said)
        answer = self.answers.get(said, Says(chat_stream(f"said: {said}")))
        return answer if isinstance(answer, Says) else answer()


@pytest.fixture
def service() -> Iterator[Scripted]:
    """The service, by each wire format; ``lab/m`` is asked where no model is named."""
    fake = Scripted()
    with serving(fake) as server:
        own = {"base_url": server.url, "api_key": "k"}
        lm.config.providers = {
            "lab": {"type": "openai", **own},
            "resp": {"type": "openai", "api": "responses", **own},
            "claude": {"type": "anthropic", **own},
            "llama": {"type": "ollama", "base_url": server.url},
        }
        lm.config.model = "lab/m"
        lm.config.cache_dir = "cache"
        lm.config.cache = True
        lm.config.retries = 0
        yield fake


REFUSED = [
    ("lab/m", chat("", "content_filter")),
    ("lab/m", chat("Hm", "content_filter")),
    ("lab/m", whole(None, "content_filter")),
    ("lab/m", whole(None, "stop", message={"refusal": "I cannot."})),
    ("lab/m", Says([chat_event(choices=[{"index": 0, "delta": {"refusal": "I cannot."}}]), chat_event(finish_reason="stop"), DONE])),
    ("lab/m", chat("", "SAFETY")),
    ("lab/m", chat("", "recitation")),
    ("lab/m", chat("", "guardrail_intervened")),
    ("resp/m", response("I cannot.", part="refusal")),
    ("resp/m", response("Hm", "incomplete", incomplete_details={"reason": "content_filter"})),
    ("claude/m", messages("Hm", "refusal")),
]  # fmt: skip
EMPTY = [
    ("lab/m", as_json({"choices": []})),
    ("lab/m", Says([chat_event(choices=[]), DONE])),
    ("lab/m", chat("", "stop")),
    ("lab/m", chat("", None)),
    ("lab/m", chat(" \n", "stop")),
    ("lab/m", whole(None)),
    ("lab/m", whole("", message={"reasoning_content": "hm"})),
    ("lab/m", Says([chat_event(choices=[{"index": 0, "delta": {"reasoning": "hm"}}]), chat_event(finish_reason="stop"), DONE])),
    ("lab/m", chat("<think>hm</think>", "stop")),
    ("lab/m", chat("<think>hm", "length")),
    ("resp/m", response("")),
    ("claude/m", messages("hm", "end_turn", "thinking")),
    ("claude/m", messages("hm", "max_tokens", "thinking")),
    ("llama/m", lines("", "stop", thinking="hm")),
    ("llama/m", lines("", "length", thinking="hm")),
    ("llama/m", lines("", "load")),
]  # fmt: skip
FAILED = [
    ("lab/m", chat("", "error", error={"code": 504, "message": "upstream timed out"}), True),
    ("lab/m", chat("Hm", "error", error={"code": 504, "message": "upstream timed out"}), True),
    ("lab/m", whole("", "error", error={"code": 502, "message": "bad gateway"}), True),
    ("lab/m", whole("Hm", "error", error={"code": 502, "message": "bad gateway"}), True),
    ("lab/m", chat("", "error", error={"code": 400, "message": "no"}), False),
    ("lab/m", whole("", "error", message={"error": {"code": 429, "message": "slow"}}), True),
    ("lab/m", as_json({"error": {"code": 503, "message": "no"}, "choices": [{"message": {"content": "Hm"}}]}), True),
    ("lab/m", Says([chat_event("Hm", error={"code": 503, "message": "no"})]), True),
    ("lab/m", chat("", "error"), True),
    ("lab/m", chat("Hm", "error"), True),
    ("lab/m", chat("Hm", "abort"), True),
    ("lab/m", chat("Hm", "a_word_of_tomorrow"), False),
    ("resp/m", response("", "failed", error={"code": "server_error", "message": "no"}), True),
    ("resp/m", response("Hm", "incomplete"), False),
    ("resp/m", response("Hm", "cancelled"), False),
    ("llama/m", Says([b'{"error": "an error was encountered", "status": 500}\n'], content_type="application/x-ndjson"), True),
]  # fmt: skip
CUT = [
    ("lab/m", chat("Half an", "length")),
    ("lab/m", whole("Half an", "MAX_TOKENS")),
    ("resp/m", response("Half an", "incomplete", incomplete_details={"reason": "max_output_tokens"})),
    ("claude/m", messages("Half an", "max_tokens")),
    ("claude/m", messages("Half an", "model_context_window_exceeded")),
    ("claude/m", messages("Half an", "pause_turn")),
    ("llama/m", lines("Half an", "length")),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet_ollama() -> Iterator[None]:
    """Ollama's own warning of an empty answer stands beside the error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "llama/m answered with nothing")
        warnings.filterwarnings("ignore", "ollama/m answered with nothing")
        yield


@contextmanager
def tape(setting: str, folder: Path) -> Iterator[None]:
    """Record into a file in ``folder``, or replay it, while the block runs."""
    setattr(lm.config, setting, str(folder / "tape.jsonl"))
    try:
        yield
    finally:
        lm.config.reset(setting)


def recorded(folder: Path) -> str:
    """What the recording in ``folder`` holds."""
    path = folder / "tape.jsonl"
    return path.read_text("utf-8") if path.is_file() else ""


@pytest.mark.parametrize(("model", "answer"), REFUSED)
def test_a_refusal_is_an_error(
    service: Scripted, tmp_path: Path, model: str, answer: Says
) -> None:
    """In every format; it is neither cached nor recorded, and is asked again."""
    service.answers["x"] = answer
    lm.config.model = model
    with tape("record", tmp_path):
        for _ in range(2):
            with pytest.raises(errors.ContentFilterError) as caught:
                lm.ask("x")
            assert isinstance(caught.value.partial, Response)
            assert caught.value.partial.text in ("", "Hm", "I cannot.")
    assert service.paid == ["x", "x"]
    assert not recorded(tmp_path)
    assert lm.runs().finish_reason.tolist() == ["error", "error"]


@pytest.mark.parametrize(("model", "answer"), EMPTY)
def test_an_empty_answer_is_an_error(
    service: Scripted, tmp_path: Path, model: str, answer: Says
) -> None:
    """Thinking alone is none; the error has it."""
    service.answers["x"] = answer
    lm.config.model = model
    with tape("record", tmp_path):
        for _ in range(2):
            with pytest.raises(errors.EmptyAnswerError) as caught:
                lm.ask("x")
            partial = caught.value.partial
            assert isinstance(partial, Response)
            assert (partial.text.strip(), partial.reasoning in ("", "hm")) == ("", True)
            is_cut = partial.finish_reason == "length"
            assert ("cut" in str(caught.value)) == is_cut
    assert service.paid == ["x", "x"]
    assert not recorded(tmp_path)


@pytest.mark.parametrize(("model", "answer", "retryable"), FAILED)
def test_a_failure_is_an_error(
    service: Scripted, tmp_path: Path, model: str, answer: Says, retryable: bool
) -> None:
    """By the code of the error in a choice; a reason that is not known is no success."""
    service.answers["x"] = answer
    lm.config.model = model
    with tape("record", tmp_path):
        for _ in range(2):
            with pytest.raises(errors.ProviderError) as caught:
                lm.ask("x")
            assert caught.value.retryable is retryable
            assert caught.value.partial.text in ("", "Hm")
    assert service.paid == ["x", "x"]
    assert not recorded(tmp_path)


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504, 529, "504"])
@pytest.mark.parametrize("make", [chat, whole])
def test_an_error_in_a_choice_is_retried_by_its_code(
    service: Scripted, make: Callable[..., Says], code: int | str
) -> None:
    """As if the request itself had been refused with it."""
    lm.config.retries = 2
    lm.config.max_retry_delay_s = 0.0
    found = iter([make("", "error", error={"code": code, "message": "no"})])
    service.answers["x"] = lambda: next(found, chat("yes"))
    assert lm.ask("x").text == "yes"
    assert service.paid == ["x", "x"]
    assert lm.runs().retries.tolist() == [1]


@pytest.mark.parametrize(
    "reason", ["stop", "eos", "eos_token", "function_call", "end_turn", "STOP", None]
)
def test_a_complete_answer_is_cached(service: Scripted, reason: str | None) -> None:
    """Whatever the word for it; without one, after a regular end with text."""
    service.answers["x"] = chat("yes", reason)
    assert [lm.ask("x").text, lm.ask("x").text] == ["yes", "yes"]
    assert service.paid == ["x"]


def test_tool_calls_are_an_answer(service: Scripted) -> None:
    """Also in the format of old, and without text."""
    called = {"function_call": {"name": "f", "arguments": "{}"}}
    service.answers["x"] = Says([chat_event(choices=[{"index": 0, "delta": called}]), chat_event(finish_reason="function_call"), DONE])  # fmt: skip
    assert [call.name for call in lm.ask("x").tool_calls] == ["f"]
    assert lm.ask("x").cached


@pytest.mark.parametrize(("model", "answer"), CUT)
def test_a_cut_answer_has_its_text_and_reason(
    service: Scripted, tmp_path: Path, model: str, answer: Says
) -> None:
    """It is never cached, but recorded; one warning where the user set no limit."""
    service.answers["x"] = answer
    lm.config.model = model
    with tape("record", tmp_path):
        with pytest.warns(UserWarning, match=LENGTH) as caught:
            first = lm.ask("x")
        assert len(caught) == 1
        assert first.text == "Half an"
        assert first.finish_reason in ("length", "MAX_TOKENS", "pause_turn")
    assert not lm.ask("x", max_tokens=4).cached
    assert not lm.ask("x", max_tokens=4).cached
    assert len(service.paid) == 3
    with tape("replay", tmp_path), pytest.warns(UserWarning, match=LENGTH):
        assert lm.ask("x").text == "Half an"
    assert len(service.paid) == 3


@pytest.mark.parametrize("given", [{"max_completion_tokens": 4}, {"options": {"num_predict": 4}}])
def test_a_limit_of_another_name_is_one(service: Scripted, given: dict[str, Any]) -> None:
    """The user knows of it: there is no warning."""
    service.answers["x"] = chat("Half an", "length")
    assert lm.ask("x", **given).finish_reason == "length"


def test_the_awaited_forms_do_the_same(service: Scripted) -> None:
    """``aask`` raises, and ``astream`` at its end."""
    service.answers |= {"refused": chat("Hm", "content_filter"), "empty": chat("", "stop")}

    async def everything() -> None:
        with pytest.raises(errors.ContentFilterError):
            await lm.aask("refused")
        with pytest.raises(errors.EmptyAnswerError):
            await lm.aask("empty")
        stream = lm.astream("refused")
        assert str(await anext(stream)) == "Hm"
        with pytest.raises(errors.ContentFilterError):
            async for _ in stream:
                pass

    asyncio.run(everything())


def test_a_stream_raises_at_its_end(service: Scripted) -> None:
    """What came until then was handed out."""
    service.answers |= {"refused": chat("Hm", "content_filter"), "cut": chat("Half an", "length")}
    stream = lm.stream("refused")
    seen = [str(next(stream))]
    with pytest.raises(errors.ContentFilterError):
        seen += [str(chunk) for chunk in stream]
    assert "".join(seen) == stream.response.text == "Hm"
    with pytest.warns(UserWarning, match=LENGTH):
        assert "".join(map(str, lm.stream("cut"))) == "Half an"


def test_each_outcome_has_its_name_in_columns(service: Scripted) -> None:
    """Cells without a good answer are null, the report has the texts, and only these are asked again."""
    service.answers |= {
        "cut": chat("Half an", "length"),
        "refused": chat("I will not", "content_filter"),
        "empty": chat("", "stop"),
        "thought": chat("<think>hm</think>", "stop"),
        "late": chat("<think>hm", "length"),
        "failed": chat("", "error", error={"code": 400, "message": "no"}),
    }
    texts = ["a", "cut", "refused", "empty", "thought", "late", "failed", None, "b", "cut"]
    frame = pd.DataFrame({"text": texts})
    expected = "2 ok · 2 cut · 1 refused · 3 empty · 1 failed · 1 missing"
    with pytest.warns(UserWarning, match=expected) as caught:
        frame.llm.prompt("{{ text }}")
    assert len(caught) == 1
    assert str(frame.llm.report) == expected
    assert frame["answer"].notna().tolist() == [True, *[False] * 7, True, False]
    told = frame.llm.report.frame()
    assert told.index.tolist() == [1, 2, 3, 4, 5, 6, 9]
    assert told.outcome.tolist() == ["cut", "refused", "empty", "empty", "empty", "failed", "cut"]
    texts = told.text.fillna("").tolist()
    assert texts == ["Half an", "I will not", "", "hm", "hm", "", "Half an"]
    assert "cut off at the length limit" in told.error[5]
    service.answers.clear()
    service.paid.clear()
    frame.llm.prompt("{{ text }}")
    assert str(frame.llm.report) == "9 ok · 1 missing"
    assert sorted(service.paid) == ["cut", "empty", "failed", "late", "refused", "thought"]


@pytest.mark.parametrize("given", [{"max_tokens": 4}, {"max_completion_tokens": 4}])
def test_a_cut_text_fills_its_cell_at_the_users_limit(
    service: Scripted, given: dict[str, Any]
) -> None:
    """That is what was asked for; it still is not ok, and is not cached."""
    service.answers["cut"] = chat("Half an", "length")
    done = lm.prompt(["a", "cut"], "{{ text }}", **given)
    assert done.tolist() == ["said: a", "Half an"]
    assert str(done.llm.report) == "1 ok · 1 cut"
    told = done.llm.report.frame()
    assert (told.outcome.tolist(), told.text.tolist()) == (["cut"], ["Half an"])
    lm.prompt(["a", "cut"], "{{ text }}", **given)
    assert sorted(service.paid) == ["a", "cut", "cut"]


def test_rows_without_an_answer_raise_where_that_is_wanted(service: Scripted) -> None:
    """Or where no row has one."""
    service.answers |= {"refused": chat("", "content_filter"), "cut": chat("Half", "length")}
    with pytest.raises(errors.ContentFilterError):
        lm.prompt(["a", "refused"], "{{ text }}", on_error="raise")
    with pytest.raises(errors.IncompleteAnswerError) as caught:
        lm.prompt(["a", "cut"], "{{ text }}", on_error="raise")
    assert caught.value.partial.text == "Half"
    with pytest.raises(errors.ContentFilterError):
        lm.prompt(["refused"], "{{ text }}")


def test_an_invalid_answer_is_asked_again_the_next_time(service: Scripted) -> None:
    """Of extract and classify alike; good ones are not."""
    lm.config.schema_retries = 0
    asked = "Take this out of the text, as JSON. The text:\n\n"
    service.answers |= {
        f"{asked}a": chat('{"n": 1}'),
        f"{asked}b": chat('{"n": "many"}'),
        f"{asked}c": chat("no JSON"),
        f"{asked}d": chat('{"n": 4', "length"),
    }
    with pytest.warns(UserWarning, match="1 ok · 1 cut · 2 failed"):
        lm.extract(["a", "b", "c", "d"], "n int")
    service.paid.clear()
    service.answers |= {f"{asked}{each}": chat('{"n": 2}') for each in "bcd"}
    assert lm.extract(["a", "b", "c", "d"], "n int")["n"].tolist() == [1, 2, 2, 2]
    assert sorted(service.paid) == [f"{asked}{each}" for each in "bcd"]
    assert str(lm.extract(["a", "b", "c", "d"], "n int").llm.report) == "4 ok"
    assert len(service.paid) == 3


def test_an_answer_that_was_mended_is_not_asked_for_again(service: Scripted) -> None:
    """The good one stands for the prompt: what was paid for is not paid for twice."""
    answers = iter([chat("no JSON"), chat('{"n": 1}')])
    service.answers = {}
    lm.config.schema_retries = 1

    class Each(dict):  # type: ignore[type-arg]
        def get(self, _key: str, _default: object = None) -> Any:
            return next(answers)

    service.answers = Each()
    assert lm.extract(["a"], "n int")["n"].tolist() == [1]
    assert len(service.paid) == 2
    again = lm.extract(["a"], "n int")
    assert (again["n"].tolist(), again.llm.report.cached, len(service.paid)) == ([1], 1, 2)


def test_what_an_earlier_version_stored_is_looked_at(service: Scripted) -> None:
    """A cut or empty answer in the cache is none: it is asked again."""
    lm.ask("x")
    cache = session.cache
    assert cache is not None
    (key,) = [row[0] for row in cache._opened(1).execute("SELECT key FROM kept")]
    for bad in (
        {"chunks": [], "finish_reason": "stop"},
        {"chunks": [[0.1, "Half"]], "finish_reason": "length"},
    ):
        cache.put(key, json.dumps(bad).encode())
        service.paid.clear()
        assert lm.ask("x").text == "said: x"
        assert service.paid == ["x"]


def test_no_refused_or_empty_answer_is_a_turn(service: Scripted) -> None:
    """The next prompt goes on from the last good one."""
    service.answers |= {
        "refused": chat("Never", "content_filter"),
        "thought": chat("<think>hm</think>"),
    }
    lm.ask("a", thread="t")
    for prompt in ("refused", "thought"):
        with pytest.raises(errors.LLMError):
            lm.ask(prompt, thread="t")
    assert [each.content for each in lm.ask("b", thread="t").messages] == ["a", "said: a", "b"]


def test_a_comparison_and_a_bench_have_a_row_for_each(service: Scripted) -> None:
    """Refused and empty ones failed; a cut one has its text, its reason, and one warning for all."""
    service.answers |= {
        "cut": chat("Half an", "length"),
        "refused": chat("Never", "content_filter"),
        "empty": chat("", "stop"),
        "late": chat("<think>hm", "length"),
    }
    prompts = ["a", "cut", "refused", "empty", "late"]
    with pytest.warns(UserWarning, match=f"1 of 5 answers was {LENGTH}") as caught:
        told = lm.compare(prompts, models=["lab/m"])
    assert len(caught) == 1
    assert told.finish_reason.tolist() == ["stop", "length", "error", "error", "length"]
    assert told.text.fillna("").tolist() == ["said: a", "Half an", "Never", "", ""]
    with pytest.warns(UserWarning, match=LENGTH):
        runs = lm.bench(prompts, models="lab/m", repeat=1, warmup=0, distinct=False)
    assert sorted(runs.finish_reason) == ["error", "error", "length", "length", "stop"]
    assert lm.compare(prompts[:2], models=["lab/m"], max_tokens=4).error.isna().all()


def test_a_refused_verdict_is_no_score(service: Scripted) -> None:
    """Nor an empty one: those pairs count for nobody."""
    session.config.schema_retries = 0

    class Judged(dict):  # type: ignore[type-arg]
        def get(self, key: str, default: Any = None) -> Any:
            is_verdict = "Two answers to the same question" in key
            return chat('{"better": "A"}', "content_filter") if is_verdict else default

    service.answers = Judged()
    with pytest.warns(UserWarning, match="judge"):
        told = lm.compare(["a"], models=["lab/m", "lab/n"], score=lm.scorers.judge("lab/judge"))
    assert told.score_judge.isna().all()


def test_a_cell_shows_what_came_and_raises(
    service: Scripted, shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last good answer stays in ``_llm`` where nothing came."""
    service.answers |= {
        "refused": chat("Never", "content_filter"),
        "empty": chat("", "stop"),
        "cut": chat("Half an", "length"),
    }
    with pytest.warns(UserWarning, match=LENGTH):
        shell.run_cell_magic("llm", "lab/m", "cut")
    assert shell.user_ns["_llm"].text == "Half an"
    with pytest.raises(errors.EmptyAnswerError):
        shell.run_cell_magic("llm", "lab/m", "empty")
    assert shell.user_ns["_llm"].text == "Half an"
    with pytest.raises(errors.ContentFilterError, match="Never"):
        shell.run_cell_magic("llm", "lab/m", "refused")
    assert "Never" in capsys.readouterr().out
    service.answers["both"] = iter_of(chat("Half an", "length"), chat("all"))
    with pytest.warns(UserWarning, match=f"1 of 2 answers was {LENGTH}"):
        told = shell.run_cell_magic("llm", "lab/m lab/n", "both")
    assert sorted(told.finish_reason) == ["length", "stop"]


def iter_of(*answers: Says) -> Callable[[], Says]:
    """One answer after the other."""
    left = iter(answers)
    return lambda: next(left)


def test_no_call_of_a_cut_answer_is_run(service: Scripted, shell: InteractiveShell) -> None:
    """Its arguments may be half."""
    called = {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]}
    service.answers["x"] = Says([chat_event(choices=[{"index": 0, "delta": called}]), chat_event(finish_reason="length"), DONE])  # fmt: skip
    runs: list[int] = []

    def f() -> None:
        """Run."""
        runs.append(1)

    shell.user_ns["f"] = f
    with (
        pytest.raises(errors.LLMError),
        pytest.warns(UserWarning, match=LENGTH),
    ):
        shell.run_cell_magic("llm", "lab/m --tools f --yes", "x")
    assert not runs


def test_an_empty_answer_that_must_fit_a_schema_is_asked_for_again(service: Scripted) -> None:
    """As one that does not fit is; at last the error says that it was empty."""
    session.config.schema_retries = 1
    found = iter_of(chat("", "stop"), chat('{"n": 1}'))

    class Each(dict):  # type: ignore[type-arg]
        def get(self, _key: str, _default: object = None) -> Any:
            return found()

    service.answers = Each()
    assert lm.ask("x", schema="n int").data == {"n": 1}
    found = iter_of(chat("", "stop"), chat("", "stop"))
    with pytest.raises(errors.EmptyAnswerError):
        lm.ask("y", schema="n int")
    assert len(service.paid) == 4


def test_what_a_refused_answer_cost_is_spent(service: Scripted) -> None:
    """It was billed, by the count that came with it."""
    lm.config.prices = {"lab/*": {"input_usd": 1.0, "output_usd": 1.0}}
    usage = {"prompt_tokens": 600_000, "completion_tokens": 400_000}
    service.answers["x"] = Says([chat_event("Hm"), chat_event(finish_reason="content_filter"), chat_event(choices=[], usage=usage), DONE])  # fmt: skip
    lm.config.budget = 10.0
    with pytest.raises(errors.ContentFilterError):
        lm.ask("x")
    assert session.budget.spent_usd == pytest.approx(1.0)
    assert lm.runs().cost_usd.tolist() == [pytest.approx(1.0)]


def test_another_model_takes_over_after_an_error_in_a_choice(service: Scripted) -> None:
    """Not after a refusal: it is an answer of its kind."""
    lm.config.routes = {"both": ["lab/m", "claude/m"]}
    service.answers["x"] = iter_of(
        chat("", "error", error={"code": 503, "message": "no"}), messages("yes", "end_turn")
    )
    assert lm.ask("x", model="both").text == "yes"
    service.answers["y"] = chat("", "content_filter")
    with pytest.raises(errors.ContentFilterError):
        lm.ask("y", model="both")
    assert service.paid == ["x", "x", "y"]


def test_each_outcome_has_its_name_on_dask(service: Scripted) -> None:
    """A partition's cut and refused rows are null, and its warning says how many there are."""
    dd = pytest.importorskip("dask.dataframe")
    service.answers |= {"cut": chat("Half an", "length"), "refused": chat("No", "content_filter")}
    frame = dd.from_pandas(pd.DataFrame({"text": ["a", "cut", "refused"]}), npartitions=1)
    with pytest.warns(UserWarning, match="1 ok · 1 cut · 1 refused"):
        done = frame.llm.prompt("{{ text }}", yes=True).compute(scheduler="sync")
    assert done["answer"].isna().tolist() == [False, True, True]
    cut = frame.llm.prompt("{{ text }}", yes=True, max_tokens=4)
    with pytest.warns(UserWarning, match="1 refused"):
        assert cut.compute(scheduler="sync")["answer"].fillna("").tolist() == [
            "said: a",
            "Half an",
            "",
        ]
