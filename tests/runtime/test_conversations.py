"""Conversations: what goes along, and what running a cell again does to them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import ChatMessage, errors
from llm_magics.runtime.prompts.prompt import Conversations, Turn
from llm_magics.runtime.session import session
from tests.support.kernels import Kernel
from tests.support.servers import servers
from tests.support.serving import Asked, Says, chat_stream


def turn(cell: str, run: str, text: str, is_whole: bool = True) -> Turn:
    """A turn of a cell."""
    asked, answered = ChatMessage("user", text), ChatMessage("assistant", "a")
    return Turn(
        key=text, cell=cell, run=run, asked=asked, answered=answered, model="m", is_whole=is_whole
    )


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), st.integers(0, 2)), max_size=20))
@settings(deadline=None)
def test_running_a_cell_again_replaces_its_turns_and_what_came_after(
    steps: list[tuple[str, int]],
) -> None:
    """No cell has turns of two runs; those of one run stand beside each other."""
    threads = Conversations()
    expected: list[tuple[str, int, str]] = []
    for number, (cell, run) in enumerate(steps):
        for place, (other, of_run, _) in enumerate(expected):
            if cell and (other, of_run != run) == (cell, True):
                expected = expected[:place]
                break
        before = [message.content for message in threads.before("t", cell, str(run))][::2]
        assert before == [each[2] for each in expected]
        threads.add("t", turn(cell, str(run), str(number)))
        expected.append((cell, run, str(number)))
    assert [m.content for m in threads.before("t")][::2] == [each[2] for each in expected]
    assert len(threads.frame("t")) == 2 * len(expected)
    assert threads.forget("t") == len(expected)
    assert threads.before("t") == []


def test_turns_that_are_asked_at_once_are_all_kept() -> None:
    """Whichever ends first, in this run of the cell and in the next."""
    threads = Conversations()
    for run, order in (("1", "BA"), ("2", "AB")):
        for name in order:
            threads.add("t", turn("c", run, f"{name}{run}"))
    assert [m.content for m in threads.before("t")][::2] == ["A2", "B2"]


def test_what_broke_off_takes_nothing_with_it() -> None:
    """A turn that others hang on stays until a whole one takes its place."""
    threads = Conversations()
    for cell in "abc":
        threads.add("t", turn(cell, "1", cell))
    threads.add("t", turn("a", "2", "half", is_whole=False))
    assert [m.content for m in threads.before("t")][::2] == ["a", "b", "c"]
    threads.add("t", turn("c", "2", "half", is_whole=False))
    assert [m.content for m in threads.before("t")][::2] == ["a", "b", "half"]
    threads.add("t", turn("a", "3", "new"))
    assert [m.content for m in threads.before("t")][::2] == ["new"]


def told_of(asked: Asked) -> list[str]:
    """What a server was told, message by message."""
    return [f"{each['role'][0]}:{each['content']}" for each in asked.json()["messages"]]


def numbered() -> Says:
    """An answer."""
    return Says(chat_stream("yes"))


def test_what_was_said_goes_along() -> None:
    """Questions and answers in their order, after the system message; other threads do not."""
    with servers(one=numbered()) as running:
        lm.config.model = "one/m"
        lm.ask("first", thread="t", system="be brief")
        lm.ask("second", thread="t", system="be kind")
        lm.ask("elsewhere", thread="u")
        lm.ask("alone")
        asked = [told_of(each) for each in running["one"].asked]
        assert asked == [
            ["s:be brief", "u:first"],
            ["s:be kind", "u:first", "a:yes", "u:second"],
            ["u:elsewhere"],
            ["u:alone"],
        ]
        assert len(lm.runs()) == 4


def test_a_cell_that_runs_again(shell: InteractiveShell) -> None:
    """Replaces its turn, and what hung on it; by its id where the frontend gives one."""
    with servers(one=numbered()) as running:
        lm.config.model = "one/m"

        def run(cell: str, text: str) -> list[str]:
            shell.run_cell(f"%%llm --thread\n{text}", store_history=True, cell_id=cell)
            return told_of(running["one"].asked[-1])

        assert run("c1", "one") == ["u:one"]
        assert run("c2", "two") == ["u:one", "a:yes", "u:two"]
        assert run("c3", "two") == ["u:one", "a:yes", "u:two", "a:yes", "u:two"]
        assert run("c2", "other") == ["u:one", "a:yes", "u:other"]
        frame = shell.run_line_magic("llm", "threads")
        assert frame.content.tolist() == ["one", "yes", "other", "yes"]
        assert frame.columns.tolist() == ["thread", "turn", "role", "content", "model", "whole"]
        assert run("c1", "new") == ["u:new"]
        assert shell.run_line_magic("llm", "threads main").content.tolist() == ["new", "yes"]


def test_several_turns_of_one_cell(shell: InteractiveShell) -> None:
    """A loop asks on; running it again begins where it began."""
    lm.config.model = "echo/echo"
    shell.run_cell("%%llm --thread t\nbefore", cell_id="c0")
    loop = "import llm_magics as lm\nfor i in range(3): lm.ask(str(i), thread='t')"
    for _ in range(2):
        shell.run_cell(loop, cell_id="c1")
        asked = [message.content for message in session.conversations.before("t")][::2]
        assert asked == ["before", "0", "1", "2"]


def test_where_nobody_says_which_cell_it_is(shell: InteractiveShell) -> None:
    """The same text is the same cell; two terminals' lines are two turns."""
    lm.config.model = "echo/echo"
    for text in ("a", "b", "b", "a"):
        shell.run_cell(f"%%llm --thread\n{text}")
    assert [message.content for message in session.conversations.before("main")][::2] == ["a"]


def test_an_answer_that_fails_leaves_the_turn_as_it_was() -> None:
    """And one that breaks off is part of the thread, marked as not whole."""
    answers = iter(
        [
            Says(chat_stream("good")),
            Says(status=400),
            Says(chat_stream("half ", "x")[:2], cut=True),
        ]
    )
    with servers(one=lambda asked: next(answers)):
        lm.config.retries = 0
        lm.ask("one", model="one/m", thread="t")
        with pytest.raises(errors.ProviderError):
            lm.ask("two", model="one/m", thread="t")
        assert [m.content for m in session.conversations.before("t")] == ["one", "good"]
        with pytest.raises(errors.StreamInterrupted):
            lm.ask("three", model="one/m", thread="t")
    frame = session.conversations.frame()
    assert frame.content.tolist()[2:] == ["three", "half "]
    assert frame.whole.tolist() == [True, True, False, False]


def test_a_name_with_a_slash_is_a_model(shell: InteractiveShell) -> None:
    """``--thread echo/lorem`` names no thread; two models have none together."""
    shell.run_cell_magic("llm", "-o ans --thread echo/lorem --max-tokens 3", "hi")
    assert shell.user_ns["ans"].model == "echo/lorem"
    assert session.conversations.names() == ["main"]
    with pytest.raises(errors.UsageError, match="names several"):
        shell.run_cell_magic("llm", "echo/echo echo/lorem --thread", "hi")
    with pytest.raises(errors.UsageError, match='"mian"'):
        shell.run_line_magic("llm", "threads mian")
    shell.run_line_magic("llm", "threads clear main")
    assert session.conversations.names() == []


def test_two_cells_of_the_same_words_where_nobody_watches(kernel: Kernel) -> None:
    """Are two turns: whoever runs a notebook unattended runs each cell once."""
    kernel.run("%llm config model echo/echo")
    for _ in range(2):
        kernel.run("%%llm --thread\nGo on.")
    told = kernel.run("print(len(get_ipython().run_line_magic('llm', 'threads')))").text
    assert told == "4"


def test_the_log_knows_which_cell_asked(kernel: Kernel) -> None:
    """By the number that stands beside it, whether by the magic or in Python."""
    kernel.run("import llm_magics as lm; lm.config.model = 'echo/echo'; lm.ask('a')")
    kernel.run("%%llm\nb")
    kernel.run("lm.ask('c'), lm.ask('d')")
    assert kernel.run("print(lm.runs().cell.tolist())").text == "[2, 3, 4, 4]"


@pytest.mark.parametrize("name", [["a"], 3, ""])
def test_a_thread_has_a_name(name: Any) -> None:
    """Anything else is refused before it is asked."""
    with pytest.raises(errors.UsageError, match="thread"):
        lm.ask("hi", model="echo/echo", thread=name)


def test_a_cell_that_leaves_a_thread_takes_its_turn_with_it(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """Renamed or without one: no prompt carries what no cell says any more; what goes is told."""
    lm.config.model = "echo/echo"

    def said(thread: str = "main") -> list[str]:
        return [message.content for message in session.conversations.before(thread)][::2]

    for cell in "abc":
        shell.run_cell(f"%%llm --thread\n{cell}", cell_id=cell)
    shell.run_cell("%%llm --thread other\nb", cell_id="b")
    assert (said(), said("other")) == (["a"], ["b"])
    shell.run_cell("%%llm\na", cell_id="a")
    assert (said(), said("other")) == ([], ["b"])
    for cell in "xyz":
        shell.run_cell(f"%%llm --thread\n{cell}", cell_id=cell)
    capsys.readouterr()
    shell.run_cell("%%llm --thread\nx", cell_id="x")
    assert "2 later turns" in capsys.readouterr().out
