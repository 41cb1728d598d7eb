"""``lm.ask`` and its kin, and the road behind them."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncGenerator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics.errors import (
    ConfigurationError,
    ConnectionError,
    Interrupted,
    ModelNotFoundError,
    ParseError,
    UsageError,
)
from llm_magics.host import Progress, ProgressDisplay, TerminalHost, install_host
from llm_magics.parameters import ModelParameters
from llm_magics.providers.base import BaseModelProvider
from llm_magics.providers.echo import EchoProvider
from llm_magics.runtime.session import session
from llm_magics.types import StreamChunk
from tests.support.run_columns import COLUMNS
from tests.support.small_provider import SmallProvider


class SlowProvider(EchoProvider):
    """Loads first, streams for ever, and knows whether it was left; can interrupt its caller."""

    name = "slow"
    left = False
    interrupts_after: int | None = None

    async def prepare(self, model: str, capability: str) -> AsyncGenerator[Progress, None]:
        yield Progress("fetching x", 1, 2)
        yield Progress("loading x", is_load=True)
        await asyncio.sleep(0.1)

    async def generate_chat(self, messages: Any, model: str, parameters: ModelParameters) -> Any:
        return self._for_ever()

    async def _for_ever(self) -> AsyncGenerator[StreamChunk, None]:
        try:
            for number in count(1):
                yield StreamChunk("word ")
                await asyncio.sleep(0.01)
                if number == self.interrupts_after:
                    os.kill(os.getpid(), signal.SIGINT)
        finally:
            SlowProvider.left = True


class FailingProvider(EchoProvider):
    """Cannot be reached."""

    name = "failing"

    async def list_models(self) -> list[str]:
        raise ConnectionError("Nobody answers.")

    async def generate_chat(self, messages: Any, model: str, parameters: ModelParameters) -> Any:
        raise ConnectionError("Nobody answers.", provider=self.name)


@pytest.fixture
def more_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The three above, beside the built-in ones."""
    from llm_magics import providers

    for made in (SlowProvider, FailingProvider, SmallProvider):
        home = f"{made.__module__}:{made.__name__}"
        monkeypatch.setitem(providers._BUILT_IN, made.name, home)
    SlowProvider.left, SlowProvider.interrupts_after = False, None


@pytest.fixture
def shown() -> Iterator[list[Progress | None]]:
    """The progress that was shown."""
    shown: list[Progress | None] = []

    class RecordingHost(TerminalHost):
        def create_progress_display(self) -> ProgressDisplay:
            return shown.append

    install_host(RecordingHost())
    yield shown
    install_host(TerminalHost())


def test_an_answer_is_a_value() -> None:
    """Text, facts and measurements; printed it is its text."""
    answer = lm.ask("hello there", model="echo/echo", system="be kind")
    assert str(answer) == answer.text == "hello there"
    assert answer.model == "echo/echo"
    assert [message.role for message in answer.messages] == ["system", "user"]
    assert answer.usage.output_tokens == 2
    assert answer.timing.ttft_s == pytest.approx(0.05 + 0.004)
    assert repr(answer) == "Response('hello there', model='echo/echo', output_tokens=2)"


def test_settings_are_the_defaults_of_a_call() -> None:
    """Model, system and parameters come from the settings, unless the call says otherwise."""
    lm.config.model = "echo/lorem"
    lm.config.system = "be brief"
    lm.config.max_tokens = 3
    answer = lm.ask("x")
    assert (answer.model, answer.usage.output_tokens) == ("echo/lorem", 3)
    assert answer.messages[0].content == "be brief"
    assert lm.ask("x", max_tokens=5).usage.output_tokens == 5


def test_settings_of_a_provider_take_effect_at_once() -> None:
    """A change makes the provider anew, in the middle of a session."""
    assert lm.ask("x", model="echo/echo").timing.ttft_s == pytest.approx(0.051)
    lm.config.set("providers.echo.ttft_s", 1.0)
    assert lm.ask("x", model="echo/echo").timing.ttft_s == pytest.approx(1.001)


def test_settings_for_a_provider_that_is_not_there(tmp_path: Path) -> None:
    """A slip in a provider's name does not pass unnoticed."""
    Path("llm_magics.yaml").write_text("providers: {locl: {threads: 1}}", encoding="utf-8")
    with pytest.raises(ConfigurationError, match='"locl"') as caught:
        lm.ask("x", model="echo/echo")
    assert "llm_magics.yaml" in str(caught.value)
    assert "local" in str(caught.value.hint)


def test_braces_are_for_variables_only_where_there_are_some() -> None:
    """``lm.ask`` leaves braces alone unless it is given variables; the system message too."""
    assert lm.ask("{{ a }}", model="echo/echo").text == "{{ a }}"
    filled = lm.ask("{{ a }}", model="echo/echo", system="s {{ a }}", variables={"a": 1})
    assert (filled.text, filled.messages[0].content) == ("1", "s 1")


def test_an_empty_prompt_is_refused() -> None:
    """Before anything is sent; it leaves no row."""
    with pytest.raises(UsageError, match="empty"):
        lm.ask(" \n", model="echo/echo")
    assert lm.runs().empty


def test_a_stream_gives_its_chunks() -> None:
    """Text as it comes, then the finish."""
    chunks = list(lm.stream("a b", model="echo/echo"))
    assert [chunk.text for chunk in chunks] == ["a", " b", ""]
    assert chunks[-1].finish_reason == "stop"


@pytest.mark.usefixtures("more_providers")
def test_leaving_a_stream_stops_the_model() -> None:
    """``break`` and close: the provider's generator has ended, the run is logged."""
    chunks = lm.stream("x", model="slow/echo")
    for chunk in chunks:
        if chunk.text:
            break
    chunks.close()  # type: ignore[attr-defined]
    assert SlowProvider.left
    assert lm.runs().finish_reason.tolist() == ["interrupted"]


@pytest.mark.usefixtures("more_providers")
def test_an_interrupt_between_two_chunks_stops_the_model(shell: InteractiveShell) -> None:
    """It arrives in the user's own code, which holds the stream; other cells' streams go on."""
    shell.run_cell("import llm_magics as lm\nearlier = lm.stream('y', 'echo/echo')\nnext(earlier)")
    shell.run_cell(
        "stream = lm.stream('x', 'slow/echo')\n"
        "for chunk in stream:\n"
        "    if chunk.text:\n"
        "        raise KeyboardInterrupt"
    )
    assert SlowProvider.left
    assert shell.user_ns["stream"].response.finish_reason == "interrupted"
    assert shell.user_ns["stream"].response.text
    assert lm.runs().finish_reason.iloc[-1] == "interrupted"
    assert [chunk.finish_reason for chunk in shell.user_ns["earlier"]][-1] == "stop"


@pytest.mark.usefixtures("more_providers")
def test_interrupt_keeps_what_came() -> None:
    """Ctrl-C raises Interrupted, with the partial answer in it, and stops the model."""
    SlowProvider.interrupts_after = 20
    with pytest.raises(Interrupted) as caught:
        lm.ask("x", model="slow/echo")
    assert caught.value.partial.text.startswith("word word")
    assert caught.value.partial.finish_reason == "interrupted"
    assert isinstance(caught.value, KeyboardInterrupt)
    assert SlowProvider.left


@pytest.mark.usefixtures("more_providers")
def test_progress_is_shown_and_loading_told_apart(shown: list[Progress | None]) -> None:
    """Fetching and loading are shown; load_s is the loading, and no part of TTFT."""
    chunks = lm.stream("x", model="slow/echo")
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    assert [told.task for told in shown if told] == ["fetching x", "loading x"]
    assert shown[-1] is None
    (run,) = lm.runs().itertuples()
    assert run.load_s >= 0.1
    assert run.ttft_s < run.load_s


@pytest.mark.usefixtures("more_providers", "quick_retries")
def test_every_call_is_a_row() -> None:
    """Success and failure alike, with the columns that are promised."""
    lm.ask("a b", model="echo/echo")
    lm.ask("shout", model="theirs/small")
    with pytest.raises(ConnectionError):
        lm.ask("x", model="failing/echo")
    lm.embed(["a", "b"], model="echo/echo")
    runs = lm.runs()
    assert list(runs.columns) == COLUMNS
    assert runs.provider.tolist() == ["echo", "theirs", "failing", "echo"]
    assert runs.kind.tolist() == ["chat", "chat", "chat", "embedding"]
    assert runs.finish_reason.tolist() == ["stop", "stop", "error", "stop"]
    assert runs.error.tolist()[2] == "ConnectionError: Nobody answers."
    assert runs.cost_usd.isna().tolist() == [False, True, False, False]
    assert str(runs.time.dtype) == "datetime64[us, UTC]"
    assert runs.input_tokens.tolist()[0] == 2
    assert not runs.cached.any()


@pytest.mark.usefixtures("more_providers")
def test_a_provider_need_not_stream() -> None:
    """A whole answer is a stream of one."""
    assert lm.ask("shout", model="theirs/small").text == "SHOUT"


@pytest.mark.usefixtures("more_providers")
def test_a_bare_name_is_found_where_one_provider_has_it() -> None:
    """Providers that do not answer are passed over; several or none are an error."""
    assert lm.ask("shout", model="small").model == "theirs/small"
    with pytest.raises(ModelNotFoundError, match="Several") as caught:
        lm.ask("x", model="lorem")
    assert "echo/lorem" in str(caught.value.hint)
    with pytest.raises(ModelNotFoundError) as caught:
        lm.ask("x", model="smal")
    assert "small" in str(caught.value.hint)


@pytest.mark.usefixtures("more_providers")
def test_models_are_a_frame() -> None:
    """One row a model, narrowed by a part of the name or a pattern."""
    with pytest.warns(UserWarning, match="failing"):
        models = lm.models()
    with pytest.raises(lm.errors.ConnectionError):
        lm.models("failing")
    assert {"echo/echo", "local/smollm2-135m", "theirs/small"} <= set(models.model)
    assert not models.model.str.startswith("failing/").any() or "failing/echo" in set(models.model)
    assert lm.models("minilm").model.tolist() == ["local/minilm-l6-v2"]
    assert lm.models("echo/*").model.tolist() == ["echo/echo", "echo/lorem"]
    row = lm.models("smollm2").iloc[0]
    assert (row.context, row.size_mb) == (8192, 98.4)


def test_comparing_gives_a_row_for_each_prompt_and_model() -> None:
    """With the answers in it; one that fails stops no other."""
    frame = lm.compare(["a b", "c"], ["echo/echo", "echo/nope"], max_tokens=1)
    assert frame.text.tolist()[::2] == ["a", "c"]
    assert frame.error.isna().tolist() == [True, False, True, False]
    assert frame.finish_reason.tolist() == ["length", "error", "stop", "error"]


def test_benchmarks_take_turns() -> None:
    """One row a request; the models interleaved, the columns those of runs."""
    frame = lm.bench(models=["echo/echo", "echo/lorem"], prompts="a b c", repeat=2)
    assert frame.model.tolist() == ["echo", "lorem"] * 2
    assert frame["repeat"].tolist() == [0, 0, 1, 1]
    assert {"ttft_s", "itl_ms", "tokens_per_s", "finish_reason", "error"} <= set(frame.columns)
    assert isinstance(frame, pd.DataFrame)


def test_closing_the_session_closes_its_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it happens when Python ends."""
    closed: list[BaseModelProvider] = []

    async def close(self: EchoProvider) -> None:
        closed.append(self)

    monkeypatch.setattr(EchoProvider, "close", close)
    lm.ask("x", model="echo/echo")
    asyncio.run(session.close())
    assert session.provider("echo") in closed


def test_an_expression_runs_in_the_cells_own_thread() -> None:
    """It is the user's code: it may ask a model itself, and can be interrupted."""
    threads = []

    def who() -> str:
        threads.append(threading.current_thread())
        return lm.ask("inner", model="echo/echo").text

    answer = lm.ask("{{ who() }}", model="echo/echo", variables={"who": who})
    assert answer.text == "inner"
    assert threads == [threading.current_thread()]


@pytest.mark.parametrize(
    ("name", "hint"),
    [("max_token", "max_tokens"), ("messages", "set by the call"), ("stream", "set by")],
)
def test_a_slip_in_a_parameter_is_named(name: str, hint: str) -> None:
    """It would be sent along, and nobody would notice; our own fields cannot be overridden."""
    with pytest.raises(UsageError) as caught:
        lm.ask("x", model="echo/echo", **{name: 1})  # type: ignore[arg-type]
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize("prompt", [None, ["a"], 5])
def test_a_prompt_is_a_text(prompt: object) -> None:
    """Said shortly, for anything else."""
    with pytest.raises(UsageError, match="prompt"):
        lm.ask(prompt, model="echo/echo")  # type: ignore[arg-type]


def test_halves_of_characters_are_joined_or_replaced() -> None:
    """A pair cut in two by a service comes out whole; a lone half does no harm."""
    assert lm.ask("hi \ud800", model="echo/echo").text == "hi \ufffd"
    assert lm.embed(["a", "b\udc00"], model="echo/echo").shape == (2, 64)


def test_the_system_message_goes_to_all_that_are_compared() -> None:
    """With its variables filled in, as for one model."""
    frame = lm.compare("{{ a }}", "echo/echo", system="{{ a }}", variables={"a": "x y"})
    assert frame.input_tokens.tolist() == [4]


@pytest.mark.usefixtures("more_providers")
def test_an_interrupted_comparison_keeps_its_answers() -> None:
    """The answers that had come are a frame in the exception; one that was coming, as far as it was."""
    SlowProvider.interrupts_after = 20
    with pytest.raises(Interrupted) as caught:
        lm.compare("x", ["echo/echo", "slow/echo"])
    partial = caught.value.partial
    assert partial.text.tolist()[0] == "x"
    assert partial.text.tolist()[1].startswith("word word")
    assert partial.finish_reason.tolist() == ["stop", "interrupted"]
    assert "1 complete answer, 1 partial" in str(caught.value)


def test_an_error_in_a_script_ends_with_what_to_do() -> None:
    """The hint is a note on the exception, which every traceback shows."""
    with pytest.raises(ModelNotFoundError) as caught:
        lm.ask("x", model="echo/ecco")
    assert caught.value.__notes__ == ["→ Did you mean echo?"]


def test_a_name_without_a_model() -> None:
    """A provider alone, or a slash with nothing behind it, is said to be that."""
    with pytest.raises(ModelNotFoundError, match="not a model name") as caught:
        lm.ask("hi", model="echo/")
    assert "echo/NAME" in str(caught.value.hint)
    with pytest.raises(ModelNotFoundError, match="provider") as bare:
        lm.ask("hi", model="echo")
    assert "lorem" in str(bare.value.hint)


def test_an_answer_that_was_cut_is_said_to_be_cut() -> None:
    """A schema cannot be met by half an answer."""
    with pytest.raises(ParseError, match="cut off") as caught:
        lm.ask('{"a": 1}', model="echo/echo", schema="a int", max_tokens=1)
    assert caught.value.partial.finish_reason == "length"


def test_one_tool_or_picture_needs_no_list() -> None:
    """What stands alone is taken for a list of one."""

    def clock() -> str:
        """Tell the time."""
        return "noon"

    answer = lm.ask("hi", model="echo/echo", tools=clock, images=b"\x89PNG\r\n\x1a\n1")
    assert answer.text == "hi\n[picture: image/png]"


def test_reloading_keeps_what_was_set() -> None:
    """Files and environment are read again; the session's own settings stay."""
    lm.config.temperature = 0.5
    Path("llm_magics.yaml").write_text("seed: 7", encoding="utf-8")
    lm.config.reload()
    assert (lm.config.temperature, lm.config.seed) == (0.5, 7)
