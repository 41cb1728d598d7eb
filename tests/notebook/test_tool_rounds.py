"""``--tools``: the notebook's functions called by a model, with leave, and told back to it."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import errors
from llm_magics.notebook import prompt_cell, tool_calls
from llm_magics.notebook.tool_calls import ToolRounds
from llm_magics.runtime.response import Response
from llm_magics.types import ToolCall
from tests.support.kernels import Kernel
from tests.support.servers import servers
from tests.support.serving import Says, chat_event, chat_stream


def wanting(*calls: tuple[str, str]) -> Says:
    """An answer that wants these calls, in the format of chat completions."""
    told = [
        {
            "index": n,
            "id": f"call_{n}",
            "type": "function",
            "function": {"name": name, "arguments": text},
        }
        for n, (name, text) in enumerate(calls)
    ]
    choice = {"index": 0, "delta": {"tool_calls": told}, "finish_reason": None}
    return Says(
        [chat_event(choices=[choice]), chat_event(finish_reason="tool_calls"), b"data: [DONE]\n\n"]
    )


def in_turn(*answers: Says) -> Any:
    """One answer after the other, and the last for ever."""
    left = list(answers)
    return lambda asked: left.pop(0) if len(left) > 1 else left[0]


WEATHER = """
seen = []
def weather(city: str) -> str:
    "The weather in a city."
    seen.append(city)
    return f"12 degrees in {city}"
"""


def test_a_model_calls_and_is_told(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it wanted and what came of it go back, in the order it wanted them; then it answers."""
    shell.run_cell(WEATHER)
    calls = [("weather", '{"city": "Oslo"}'), ("weather", '{"city": "Rome"}')]
    with servers(one=in_turn(wanting(*calls), Says(chat_stream("Cold.")))) as running:
        shell.run_cell_magic("llm", "one/m --tools weather --yes --thread -o ans", "How is it?")
        first, second = (asked.json() for asked in running["one"].asked)
    assert shell.user_ns["seen"] == ["Oslo", "Rome"]
    assert shell.user_ns["ans"].text == "Cold."
    assert first["tools"][0]["function"]["name"] == "weather"
    roles = [message["role"] for message in second["messages"]]
    assert roles == ["user", "assistant", "tool", "tool"]
    assert [each["function"]["name"] for each in second["messages"][1]["tool_calls"]] == [
        "weather"
    ] * 2
    assert [(m["tool_call_id"], m["content"]) for m in second["messages"][2:]] == [
        ("call_0", "12 degrees in Oslo"),
        ("call_1", "12 degrees in Rome"),
    ]
    assert 'weather(city="Oslo") → 12 degrees in Oslo' in capsys.readouterr().out
    assert len(lm.runs()) == 2
    assert shell.run_line_magic("llm", "threads").content.tolist() == ["How is it?", "Cold."]


def test_nothing_runs_where_nobody_can_allow_it(kernel: Kernel) -> None:
    """Without --yes the cell fails, and the function was not called; with it, it is shown folded."""
    kernel.run(WEATHER)
    with servers(one=in_turn(wanting(("weather", '{"city": "<b>Oslo"}')), wanting(("weather", '{"city": "<b>Oslo"}')), Says(chat_stream("Cold.")))) as running:  # fmt: skip
        settings = f"{{'one': {{'type': 'openai', 'base_url': '{running['one'].url}', 'api_key': 'a-key'}}}}"
        kernel.run(f"import llm_magics as lm; lm.config.providers = {settings}")
        told = kernel.run("%%llm one/m --tools weather\nHow is it?")
        assert told.status == "error"
        assert "Confirmation is required" in told.error
        assert 'city: "<b>Oslo"' in told.error
        assert "--yes" in told.error
        assert kernel.run("print(seen)").text == "[]"
        shown = kernel.run("%%llm one/m --tools weather --yes\nHow is it?")
    assert [output["data"]["text/plain"] for output in shown.outputs] == [
        'weather(city="<b>Oslo") → 12 degrees in <b>Oslo',
        "Cold.",
    ]
    assert "<details" in shown.shown
    assert "<b>" not in shown.shown


@pytest.mark.parametrize(
    ("answers", "ran"),
    [
        (["y", "n"], ["a"]),
        (["n", "y"], ["b"]),
        (["all"], ["a", "b"]),
        (["", ""], []),
        (["yes", "YES"], ["a", "b"]),
    ],
)
def test_who_sits_there_is_asked(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, answers: list[str], ran: list[str]
) -> None:
    """For each call, until all are allowed; what is not is told to the model as that."""
    monkeypatch.setattr(tool_calls, "display_mode", lambda shell: "live")
    asked: list[str] = []
    seen: list[str] = []

    def note(text: str) -> None:
        """Note it."""
        seen.append(text)

    def ask(question: str) -> str:
        asked.append(question)
        return answers[len(asked) - 1]

    rounds = ToolRounds(shell, [note], is_allowed=False, ask=ask)
    calls = tuple(ToolCall(name, "note", json.dumps({"text": name})) for name in "ab")
    messages = rounds.messages(Response("", tool_calls=calls))
    assert seen == ran
    assert asked[0] == 'The model wants to call note:\n    text: "a"\nRun it? [y/N/all] '
    refused = [message.content for message in messages[1:] if "did not allow" in message.content]
    assert len(refused) == 2 - len(ran)


HIDING = {
    "note": "harmless " + "x" * 5000,
    "mark\u202e": 'a\u202eb\u200bc\ue000d\U000e0041e\x1b]52;c;x\x07\ufe0f\u3164\nnext: "fake"',
    "nested": {"deep": ["\u2066x\u2069"]},
    "cmd": "rm -rf ~",
}


def test_all_arguments_are_asked_about(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is cut, each has a line of its own, and what cannot be seen is spelled out."""
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return "n"

    def run(**given: Any) -> None:
        """Run it."""

    run.__signature__ = inspect.signature(lambda note, cmd: None)  # type: ignore[attr-defined]
    calls = (
        ToolCall("c", "run", json.dumps(HIDING)),
        ToolCall("d", "run", "[\u202e1]"),
        ToolCall("e", "run", ""),
    )
    monkeypatch.setattr(tool_calls, "display_mode", lambda shell: "live")
    ToolRounds(shell, [run], is_allowed=False, ask=ask).messages(Response("", tool_calls=calls))
    lines = asked[0].splitlines()
    assert len(lines) == len(HIDING) + 2
    assert lines[1] == f'    note: "{HIDING["note"]}"'
    assert lines[4] == '    cmd: "rm -rf ~"'
    assert lines[2].startswith(r"    mark\u202e: ")
    for character in [
        r"\u202e",
        r"\u200b",
        r"\ue000",
        r"\U000e0041",
        r"\u001b",
        r"\ufe0f",
        r"\u3164",
        r"\u2066",
        r"\u2069",
    ]:
        assert character in asked[0]
    assert all(each.isprintable() for each in lines)
    assert "not a JSON object" in asked[1]
    assert r"[\u202e1]" in asked[1]
    assert "without arguments" in asked[2]
    monkeypatch.setattr(tool_calls, "display_mode", lambda shell: "static")
    with pytest.raises(errors.UsageError) as caught:
        ToolRounds(shell, [run], is_allowed=False).messages(Response("", tool_calls=calls))
    shown = "\n".join(caught.value._render_traceback_())
    assert all(line in shown for line in lines[:-1])


def test_a_shown_call_hides_nothing_either(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --yes nobody is asked, and the call that ran is shown with all its arguments."""

    def run(note: str, cmd: str) -> str:
        """Run it."""
        return "done\u202e\x1b[2J"

    call = ToolCall("c", "run", json.dumps({"note": "x" * 400, "cmd": "rm\u200b"}))
    ToolRounds(shell, [run], is_allowed=True).messages(Response("", tool_calls=(call,)))
    told = capsys.readouterr().out
    assert r'cmd: "rm\u200b"' in told
    assert r"done\u202e\u001b[2J" in told


def test_calls_and_results_are_bounded(shell: InteractiveShell) -> None:
    """Those beyond the limit are not run, a long result is cut, and the model is told both."""
    ran: list[int] = []

    def big(number: int) -> str:
        """Give much."""
        ran.append(number)
        return "é" * 101_234

    lm.config.tool_calls_max = 3
    calls = tuple(ToolCall(f"c{n}", "big", json.dumps({"number": n})) for n in range(5))
    rounds = ToolRounds(shell, [big], is_allowed=True)
    _, *results = rounds.messages(Response("", tool_calls=calls))
    assert ran == [0, 1, 2]
    assert [each.tool_call_id for each in results] == [call.id for call in calls]
    for each in results[:3]:
        assert each.content == "é" * 20_000 + "\n[… 81,234 more characters left out]"
    assert all("At most 3 calls" in each.content for each in results[3:])
    lm.config.tool_result_max_chars = 100
    assert (
        "101,134 more characters" in rounds.messages(Response("", tool_calls=calls[:1]))[1].content
    )


def test_rounds_are_bounded(shell: InteractiveShell) -> None:
    """A model that only ever calls is stopped, and that is said."""
    shell.run_cell(WEATHER)
    lm.config.tool_rounds = 3
    with servers(one=wanting(("weather", '{"city": "Oslo"}'))) as running:
        with pytest.raises(errors.LLMError, match="3 rounds"):
            shell.run_cell_magic("llm", "one/m --tools weather --yes", "How is it?")
        assert len(running["one"].asked) == 4
    assert len(shell.user_ns["seen"]) == 3


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("wether", "{}", "wether"),
        ("weather", "{}", "Field required"),
        ("weather", '{"city": 3', "not a JSON object"),
        ("weather", '{"city": "x", "y": 1}', "Extra inputs"),
        ("fails", "{}", "ZeroDivisionError"),
    ],
)
def test_what_goes_wrong_is_told_to_the_model(
    shell: InteractiveShell, name: str, text: str, told: str
) -> None:
    """It may know better the next time; the cell goes on."""
    shell.run_cell(WEATHER + "\ndef fails():\n    'Fails.'\n    1 / 0")
    with servers(one=in_turn(wanting((name, text)), Says(chat_stream("Sorry.")))) as running:
        shell.run_cell_magic("llm", "one/m --tools weather,fails --yes -o ans", "How is it?")
        said = running["one"].asked[1].json()["messages"][-1]["content"]
    assert told in said
    assert shell.user_ns["ans"].text == "Sorry."


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("--tools wether", "not defined", "Did you mean weather?"),
        ("--tools seen", "not a function", "def"),
        ("echo/echo echo/lorem --tools weather", "one model", "Name one"),
    ],
)
def test_tools_that_are_none(shell: InteractiveShell, line: str, message: str, hint: str) -> None:
    """Are refused before anything is sent."""
    shell.run_cell(WEATHER)
    with pytest.raises(errors.UsageError, match=message) as caught:
        shell.run_cell_magic("llm", line, "hi")
    assert hint in str(caught.value.hint)
    assert lm.runs().empty


def test_an_interrupt_in_a_function_ends_the_cell(shell: InteractiveShell) -> None:
    """What had come is kept."""
    shell.run_cell("def slow():\n    'Slow.'\n    raise KeyboardInterrupt")
    with servers(one=wanting(("slow", "{}"))), pytest.raises(errors.Interrupted):
        shell.run_cell_magic("llm", "one/m --tools slow --yes -o ans", "hi")
    assert prompt_cell.LAST in shell.user_ns
