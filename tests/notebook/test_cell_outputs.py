"""What stands beside an answer in its cell: thoughts, a footer, and where it comes from."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient

import llm_magics as lm
from llm_magics import errors
from llm_magics.notebook.display import footer
from llm_magics.notebook.display import thoughts as thinking
from llm_magics.notebook.display.answer import LiveDisplay, StaticDisplay
from llm_magics.notebook.provenance import audit
from llm_magics.runtime.response import Response
from llm_magics.types import Timing, Usage
from tests.support.cells import Cell
from tests.support.kernels import Kernel
from tests.support.servers import servers
from tests.support.serving import Says, chat_event, chat_stream

THOUGHTS = ["Let me ", "see: <script>", "2 + 2.", ""]


@pytest.mark.parametrize("answer", [["It is ", "4."], [], ["  ", "\n", "4"]])
def test_thoughts_are_folded_away_above_the_answer(answer: list[str]) -> None:
    """The same outputs whether somebody watched or not; nothing of them can run."""
    shown = []
    for kind in (LiveDisplay, StaticDisplay):
        cell = Cell()
        with kind(cell.publish) as display:
            for text in THOUGHTS:
                display.think(text)
            for text in answer:
                display.write(text)
            display.tell({"model": "a/b"})
        shown.append(cell.outputs)
    assert shown[0] == shown[1]
    first = shown[0][0]["data"]
    assert first["text/plain"] == "(thought: 6 words)"  # type: ignore[index]
    assert first["text/html"].startswith("<details")  # type: ignore[index]
    assert "<script>" not in str(shown)
    if answer:
        assert shown[0][-1]["metadata"] == {"llm_magics": {"model": "a/b"}}


def test_long_thoughts_cost_little_on_the_wire() -> None:
    """Only how many they are is sent while they come, twice a second."""
    now = [0.0]
    cell = Cell()
    with LiveDisplay(cell.publish, clock=lambda: now[0]) as display:
        for _ in range(4000):
            now[0] += 0.0125
            display.think("word ")
        display.write("done")
    assert cell.sent < 120
    assert "thought: 4,000 words" in str(cell.outputs[0])
    assert thinking.thoughts_bundle("one")["text/plain"] == "(thought: 1 word)"


def test_thoughts_reach_the_cell(kernel: Kernel) -> None:
    """From the service's own field, and from tags in the text; the answer stays the answer."""
    pieces = [
        chat_event("<think>hmm hmm</think>It is 4."),
        chat_event(finish_reason="stop"),
        b"data: [DONE]\n\n",
    ]
    with servers(one=Says(pieces)) as running:
        settings = f"{{'one': {{'type': 'openai', 'base_url': '{running['one'].url}', 'api_key': 'a-key'}}}}"
        kernel.run(f"import llm_magics as lm; lm.config.providers = {settings}")
        told = kernel.run("%%llm one/m -o ans\nhi")
    assert "(thought: 2 words)" in told.text
    assert kernel.run("print(ans.text, '|', ans.reasoning)").text == "It is 4. | hmm hmm"


def test_a_footer_is_shown_where_it_is_wanted(watched_kernel: Kernel) -> None:
    """In interactive notebooks, by default; it is a separate output below the answer."""
    kernel = watched_kernel
    shown = kernel.run("%%llm echo/echo\nhi").outputs
    assert shown[1]["data"]["text/plain"].startswith("echo/echo · 1 → 1 tokens")
    kernel.run("%llm config footer never")
    assert len(kernel.run("%%llm echo/echo\nhi").outputs) == 1


def test_what_a_footer_says() -> None:
    """Who, how much, how long, how fast, what it cost, and how it ended; only what is known."""
    timing = Timing(ttft_s=0.2, e2e_s=2.34, load_s=1.5, tokens_per_s=81.6)
    answer = Response("x", "a/b", "length", Usage(1200, 40), timing, 0.0042)
    assert footer.format_footer(answer) == (
        "a/b · 1,200 → 40 tokens · 1.5 s to load · 2.3 s · 82 tokens/s · $0.0042 · cut at max_tokens"
    )
    assert footer.format_footer(Response("x", "a/b", cached=True)) == "a/b · cached"
    assert footer.format_footer(Response("x", "a/b", "interrupted", Usage(None, 3))) == "a/b · ? → 3 tokens · interrupted"  # fmt: skip


@pytest.mark.kernel
def test_a_notebook_says_where_its_answers_come_from(tmp_path: Path) -> None:
    """In its outputs' metadata: model, parameters, tokens, request, live or kept; no times."""
    sources = [
        "%load_ext llm_magics\n%llm config model echo/echo",
        "%%llm --temperature 0\nhi",
        "%llm record tape.jsonl",
        "%%llm --temperature 0\nhi",
        "%llm replay tape.jsonl --strict",
        "%%llm --temperature 0\nhi",
        "print('no answer')",
        "%llm replay off",
        '%%llm -f json\n{"a": 1}',
        "%%llm echo/echo echo/lorem --max-tokens 3\nhi",
    ]
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, sources)))
    client = NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})  # fmt: skip
    client.execute()
    nbformat.write(notebook, tmp_path / "n.ipynb")
    found = audit(tmp_path / "n.ipynb")
    assert found.cell.tolist() == [2, 4, 6, 9, 10, 10]
    assert found.source.tolist() == ["live", "live", "cached", "live", "live", "live"]
    assert found.model.tolist() == ["echo/echo"] * 5 + ["echo/lorem"]
    assert found.request[:3].nunique() == 1
    assert found.request[0] in (tmp_path / "tape.jsonl").read_text()
    assert found.parameters[0] == {"temperature": 0.0}
    assert found.input_tokens.tolist() == [1, 1, 1, 2, 1, 1]
    assert "_s" not in json.dumps(notebook.cells[1].outputs[0].metadata)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"cells": 3}', "[" * 100_000],
)
def test_what_is_no_notebook(shell: InteractiveShell, text: str) -> None:
    """Is an error in words; so is a file that is not there."""
    Path("odd.ipynb").write_text(text, encoding="utf-8")
    for name in ("odd.ipynb", "missing.ipynb"):
        with pytest.raises(errors.UsageError, match=name):
            shell.run_line_magic("llm", f"audit {name}")


def test_a_hostile_notebook_is_read_as_it_is() -> None:
    """Whatever stands in its metadata."""
    cells = [
        1, {}, {"outputs": 3}, {"outputs": [1, {}, {"metadata": 3}, {"metadata": {"llm_magics": []}}]},
        {"outputs": [{"metadata": {"llm_magics": {"model": {"a": 1}, "input_tokens": "many", "x": 1}}}], "source": 5},
    ]  # fmt: skip
    Path("odd.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    found = audit(Path("odd.ipynb"))
    assert len(found) == 1
    assert found.input_tokens.isna().all()


@pytest.mark.parametrize("magic", ["%env THEIR_API_KEY={}", "%set_env THEIR_API_KEY {}"])
def test_a_key_in_a_cell_is_warned_of_once(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, magic: str
) -> None:
    """IPython sets it as written; the warning is on its line, says what to do, and hides the key."""
    key = "sk-" + "typed" * 6
    monkeypatch.setenv("THEIR_API_KEY", "")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        shell.run_cell(f"1 + 1\n{magic.format(key)}", store_history=True)
        shell.run_cell(magic.format(key), store_history=True)
    (warning,) = caught
    assert warning.filename.startswith("Cell In[")
    assert warning.lineno == 2
    assert key not in str(warning.message)
    for part in ("THEIR_API_KEY", "%llm key PROVIDER", "environment variable"):
        assert part in str(warning.message)
    assert os.environ["THEIR_API_KEY"] == key
    assert key not in str(errors.LLMError(f"it is {key}"))


@pytest.mark.parametrize(
    "line",
    ["%env COLOUR=blue", "%env OTHER_API_KEY=$their_key", "%env OTHER_API_KEY={their_key}", "%env OTHER_API_KEY",
     "OTHER_API_KEY = 1"],
)  # fmt: skip
def test_a_cell_without_a_key_is_not_warned_of(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """Other variables, and keys that are in a variable of the notebook alone."""
    monkeypatch.setenv("COLOUR", "")
    monkeypatch.setenv("OTHER_API_KEY", "")
    shell.user_ns["their_key"] = "word"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        shell.run_cell(line)
    assert not caught


def test_a_plain_answer_has_no_thoughts() -> None:
    """Nothing is shown above it."""
    with servers(one=Says(chat_stream("a"))):
        assert lm.ask("hi", model="one/m").reasoning == ""
