"""Prices, costs, budgets, dry runs: what is known is right, what is not known is never nothing."""

from __future__ import annotations

import asyncio
import math
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import ChatMessage, ModelParameters, errors
from llm_magics._util.text import format_usd
from llm_magics.providers.anthropic import AnthropicProvider
from llm_magics.providers.gemini import GeminiProvider
from llm_magics.providers.openai import OpenAIProvider
from llm_magics.runtime import pricing
from llm_magics.runtime.policies.budget import Budget
from llm_magics.runtime.pricing import Price, PriceSource, listed_cost_usd
from llm_magics.runtime.session import session
from llm_magics.types import ModelResponse, Usage
from llm_magics.wire import anthropic_answers
from tests.support.servers import servers
from tests.support.serving import Asked, Says, as_json, chat_event, chat_stream, serving

MILLION = 1_000_000

counts = st.integers(0, 10**9)


@given(counts, counts, counts, counts)
def test_a_price_is_linear_in_tokens(plain: int, cached: int, written: int, out: int) -> None:
    """Each kind at its own price; what is cached is not billed twice."""
    price = Price(input_usd=2.0, output_usd=10.0, cached_usd=0.1, written_usd=2.5)
    used = Usage(plain + cached + written, out, cached, written)
    expected = (plain * 2.0 + out * 10.0 + cached * 0.1 + written * 2.5) / MILLION
    assert price.of(used) == pytest.approx(expected)


@given(counts, counts)
def test_thinking_has_its_own_price(thought: int, text: int) -> None:
    """Where the service has one; where it has not, thinking costs as much as other output."""
    usage = Usage(0, thought + text, reasoning_tokens=thought)
    own = Price(input_usd=2.0, output_usd=8.0, reasoning_usd=3.0)
    assert own.of(usage) == pytest.approx((thought * 3.0 + text * 8.0) / MILLION)
    usual = Price(input_usd=2.0, output_usd=8.0)
    assert usual.of(usage) == pytest.approx((thought + text) * 8.0 / MILLION)
    if thought + text:  # without a count, it is unknown how much is at which price
        assert own.of(Usage(0, thought + text)) is None


def test_the_cost_of_thinking_is_a_part_of_the_cost() -> None:
    """It is missing if the service does not count the thinking, and 0 if the model did not think."""
    lm.config.prices = {"echo/echo": {"input_usd": 1, "output_usd": 4}}
    provider = session.provider("echo")

    def cost(usage: Usage) -> float | None:
        answer = ModelResponse("hi", finish_reason="stop", usage=usage)
        return pricing.answer_cost(
            session.config, provider, "echo", answer, is_sent=True
        ).reasoning_usd

    assert cost(Usage(10, MILLION, reasoning_tokens=MILLION // 4)) == pytest.approx(1.0)
    assert cost(Usage(10, MILLION, reasoning_tokens=0)) == 0
    assert cost(Usage(10, MILLION)) is None
    lm.config.prices = {}


def test_a_listed_price_of_thinking_counts() -> None:
    """Of the services in genai-prices, Perplexity bills thinking separately."""
    source = PriceSource("perplexity")
    thinking = listed_cost_usd(
        source, "sonar-deep-research", Usage(0, MILLION, reasoning_tokens=MILLION)
    )
    text = listed_cost_usd(source, "sonar-deep-research", Usage(0, MILLION))
    assert thinking is not None
    assert text is not None
    assert 0 < thinking < text


@pytest.mark.parametrize(
    ("price", "usage"),
    [
        (Price(), Usage(1, 1)),
        (Price(input_usd=1.0), Usage(1, 1)),
        (Price(input_usd=1.0, output_usd=1.0), Usage(None, 1)),
        (Price(input_usd=1.0, output_usd=1.0), Usage()),
        (Price(input_usd=None, output_usd=1.0), Usage(1, 1)),
        (Price(input_usd=1.0, output_usd=1.0), Usage(1, None)),
        (Price(input_usd=1.0), Usage(1, None)),
    ],
)
def test_what_is_not_known_is_not_nothing(price: Price, usage: Usage) -> None:
    """A part without a price, or without a count, leaves the whole unknown."""
    assert price.of(usage) is None


def test_cached_tokens_are_billed_once_at_their_own_price() -> None:
    """Anthropic counts them beside the input, OpenAI within it; both come out right."""
    told = {
        "input_tokens": 100,
        "cache_read_input_tokens": 10_000,
        "cache_creation_input_tokens": 1000,
        "output_tokens": 50,
    }
    used = anthropic_answers.parse_usage(told)
    assert used == Usage(11_100, 50, 10_000, 1000)
    expected = (100 * 2 + 10_000 * 0.1 + 1000 * 2.5 + 50 * 10) / MILLION
    assert listed_cost_usd(PriceSource("anthropic"), "claude-sonnet-5-5", used) == pytest.approx(expected)  # fmt: skip
    used = Usage(1000, 10, 800)
    expected = (200 * 0.25 + 800 * 0.025 + 10 * 2) / MILLION
    assert listed_cost_usd(PriceSource("openai"), "gpt-5-mini", used) == pytest.approx(expected)


@pytest.mark.parametrize("made", [OpenAIProvider, AnthropicProvider, GeminiProvider])
def test_the_list_and_the_table_agree(
    made: type[OpenAIProvider | AnthropicProvider | GeminiProvider],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With and without genai-prices the same models cost about the same."""
    provider = made()
    models = {
        "openai": "gpt-5-mini",
        "anthropic": "claude-haiku-4-5",
        "gemini": "gemini-3.1-pro-preview",
    }
    model = models[provider.name]
    used = Usage(1000, 100)
    listed = pricing.cost_usd(session.config, provider, model, used)
    monkeypatch.setattr(pricing, "_has_list", lambda: False)
    assert pricing.cost_usd(session.config, provider, model, used) == pytest.approx(listed)
    assert listed
    assert pricing.cost_usd(session.config, provider, "no-such-model", used) is None


@pytest.mark.parametrize(
    ("seller", "model"),
    [
        (PriceSource("openai"), "no-such-model"),
        (PriceSource("openai"), "whisper-1"),  # by the hour: its tokens have no price
        (PriceSource("", "http://127.0.0.1:8080"), "gpt-5-mini"),
        (PriceSource("no-such-seller"), "gpt-5-mini"),
        (PriceSource(), "gpt-5-mini"),
    ],
)
def test_what_the_list_does_not_have(seller: PriceSource, model: str) -> None:
    """Is unknown, and never free; another server's model of the same name has no price."""
    assert listed_cost_usd(seller, model, Usage(1000, 1000)) is None


def test_a_look_alike_is_known_by_its_address() -> None:
    """Groq at Groq's own address has Groq's prices."""
    seller = PriceSource("", "https://api.groq.com/openai/v1")
    cost = listed_cost_usd(seller, "llama-3.3-70b-versatile", Usage(MILLION, 0))
    assert cost == pytest.approx(0.59)


def priced(usd: float = 1000.0) -> None:
    """Have the test's server cost ``usd`` for a million tokens in, twice that out."""
    lm.config.prices = {"one/*": {"input_usd": usd, "output_usd": 2 * usd}}


def test_ones_own_price_counts() -> None:
    """By pattern or by name; 0 is free; what has none is NaN in the log."""
    with servers(one=Says(chat_stream("a ", "b "))):
        assert lm.ask("hi", model="one/m").cost_usd is None
        priced()
        used = lm.ask("hi", model="one/m")
        expected = ((used.usage.input_tokens or 0) + 2 * (used.usage.output_tokens or 0)) / 1000
        assert used.cost_usd == pytest.approx(expected)
        lm.config.prices = {"one/*": {"input_usd": 5}, "one/m": 0}
        assert lm.ask("hi", model="one/m").cost_usd == 0
    costs = lm.runs().cost_usd
    assert math.isnan(costs[0])
    assert costs[1] == pytest.approx(expected)


def test_a_price_of_the_wrong_kind() -> None:
    """Is refused by name."""
    with pytest.raises(errors.ConfigurationError, match="prices"):
        lm.config.prices = {"a": {"inputs": 1}}
    with pytest.raises(errors.ConfigurationError, match="prices"):
        lm.config.prices = {"a": -1}


def test_a_budget_is_kept_before_anything_is_sent() -> None:
    """The call that may pass it is refused; those before it are counted by what they did cost."""
    with servers(one=Says(chat_stream("a ", "b "))) as running:
        priced()
        lm.config.budget = 2.5
        answer = lm.ask("hi", model="one/m", max_tokens=100)
        assert session.budget.left_usd == pytest.approx(2.5 - (answer.cost_usd or 0))
        with pytest.raises(errors.BudgetError, match="one/m") as caught:
            lm.ask("hi", model="one/m", max_tokens=2000)
        assert "%llm budget" in str(caught.value.hint)
        with pytest.raises(errors.BudgetError):
            lm.embed(["word " * 10_000], model="one/m")
        assert len(running["one"].asked) == 1
        assert lm.runs().finish_reason.tolist() == ["stop", "error", "error"]
        lm.config.budget = None
        lm.ask("hi", model="one/m", max_tokens=2000)


def test_a_budget_cannot_be_kept_where_the_price_is_unknown() -> None:
    """It says so, and how to say the price; what is free is asked."""
    lm.config.budget = 0
    with servers(one=Says(chat_stream("a"))):
        with pytest.raises(errors.BudgetError, match="is unknown") as caught:
            lm.ask("hi", model="one/m")
        assert "prices" in str(caught.value.hint)
    assert lm.ask("hi", model="echo/echo").text == "hi"


def test_what_was_refused_costs_nothing_and_what_broke_off_its_estimate() -> None:
    """Nobody knows what half an answer was billed."""
    busy = Says([b'{"error": {"message": "busy"}}'], 429, "application/json")
    cut = Says(chat_stream("a ", "b ")[:2], cut=True)
    with servers(one=busy, two=cut):
        lm.config.prices = {"*": {"input_usd": 1000, "output_usd": 1000}}
        lm.config.budget, lm.config.retries = 5.0, 0
        with pytest.raises(errors.RateLimitError):
            lm.ask("hi", model="one/m", max_tokens=100)
        assert session.budget.left_usd == 5.0
        with pytest.raises(errors.StreamInterrupted):
            lm.ask("hi", model="two/m", max_tokens=100)
        assert 4.8 < (session.budget.left_usd or 0) < 4.9


def test_calls_at_once_do_not_pass_it_together() -> None:
    """What is under way is held back from the others."""
    budget = Budget()
    budget.allow(1.0)
    entered, refused = threading.Semaphore(0), []
    leave = threading.Event()

    def spend() -> None:
        try:
            with budget.held("m", 0.4) as hold:
                entered.release()
                leave.wait(10)
                hold.spent_usd = 0.3
        except errors.BudgetError as error:
            refused.append(error)
            entered.release()

    threads = [threading.Thread(target=spend) for _ in range(5)]
    for thread in threads:
        thread.start()
    for _ in threads:
        entered.acquire(timeout=10)
    leave.set()
    for thread in threads:
        thread.join()
    assert len(refused) == 3
    assert budget.left_usd == pytest.approx(0.4)


@given(st.text(max_size=400))
def test_tokens_are_rather_too_many_than_too_few(text: str) -> None:
    """As many as there are characters of scripts that take one each, at least a third of bytes."""
    assert pricing.text_tokens(text) >= len(text.encode("utf-8", "replace")) / 3
    asked = [ChatMessage("user", text)]
    assert pricing.message_tokens(asked, ModelParameters()) > pricing.text_tokens(text)


def test_an_estimate_is_of_the_longest_answer_so_far() -> None:
    """And at least of a usual one, where no bound is set."""
    used = {"prompt_tokens": 1, "completion_tokens": 5000, "total_tokens": 5001}
    end = [chat_event(finish_reason="stop"), chat_event(choices=[], usage=used)]
    long = [chat_event("x"), *end, b"data: [DONE]\n\n"]
    with servers(one=Says(long)):
        provider = session.provider("one")
        asked = [ChatMessage("user", "hi")]
        before = pricing.chat_estimate(
            session.config,
            session.runs,
            provider,
            "m",
            messages=asked,
            parameters=ModelParameters(),
        )
        lm.ask("hi", model="one/m")
        after = pricing.chat_estimate(
            session.config,
            session.runs,
            provider,
            "m",
            messages=asked,
            parameters=ModelParameters(),
        )
        assert (before.output_tokens, after.output_tokens) == (1000, 5000)


def test_the_magics_of_money(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The budget is told and ended, costs are by model and by cell, and unpriced calls counted."""
    with servers(one=Says(chat_stream("a ", "b ")), two=Says(chat_stream("c"))):
        priced()
        shell.run_line_magic("llm", "budget 2.50")
        assert "$2.50 of $2.50 left." in capsys.readouterr().out
        shell.run_cell("%%llm one/m --max-tokens 10\nhi", store_history=True)
        shell.run_line_magic("llm", "budget")
        assert "of $2.50 left." in capsys.readouterr().out
        shell.run_line_magic("llm", "budget off")
        assert "No budget" in capsys.readouterr().out
        shell.run_cell("%%llm two/m\nhi", store_history=True)
        by_model = shell.run_line_magic("llm", "cost")
        assert by_model.loc[("one", "m"), "cost_usd"] > 0
        assert math.isnan(by_model.loc[("two", "m"), "cost_usd"])
        assert by_model.unpriced.tolist() == [0, 1]
        by_cell = shell.run_line_magic("llm", "cost cells")
        assert by_cell.index.names == ["cell", "provider", "model"]
        assert by_cell.calls.tolist() == [1, 1]
    for wrong in ("budget much", "budget -1", "cost everything"):
        with pytest.raises(errors.LLMError):
            shell.run_line_magic("llm", wrong)


def test_a_dry_run_tells_what_goes_and_what_it_costs(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """The messages as they would be, what each variable brought, tokens and dollars."""
    shell.run_cell("import pandas as pd; df = pd.DataFrame({'a': range(1000)})")
    with serving(as_json({})) as server:
        lm.config.set("providers.openai.base_url", server.url)
        lm.config.prices = {"openai/m": {"input_usd": 1, "output_usd": 1}}
        shell.run_cell_magic("llm", "openai/m --dry-run --max-tokens 50 -p who=Bob", "{{ df }} for {{ who }}")  # fmt: skip
        told = capsys.readouterr().out
        assert server.asked == []
    assert "nothing was sent to openai/m." in told
    assert "[user] 1,000 rows x 1 columns" in told
    assert "df: DataFrame 1,000 x 1," in told
    assert "who: str, 3 characters" in told
    assert "at most 50 output tokens: cost $0.00012" in told
    assert lm.runs().empty


def embedding_server(*usages: int | None) -> Any:
    """A server whose batches take so many tokens, or do not say."""
    left = iter(usages)

    def answer(asked: Asked) -> Says:
        texts = asked.json()["input"]
        data = [{"index": n, "embedding": [1.0, 2.0]} for n in range(len(texts))]
        used = next(left)
        usage = {} if used is None else {"usage": {"prompt_tokens": used, "total_tokens": used}}
        return as_json({"data": data, **usage})

    return answer


def test_embeddings_are_paid_batch_by_batch() -> None:
    """What a recording has costs nothing, and what is sent costs what it costs."""
    texts = [f"text {number}" for number in range(128)]
    with servers(one=embedding_server(100, 100)):
        priced()
        lm.config.budget = 10
        lm.config.record = Path("tape.jsonl")
        lm.embed(texts[:64], model="one/m")
        assert session.budget.spent_usd == pytest.approx(0.1)
        lm.config.replay = Path("tape.jsonl")
        lm.embed(texts, model="one/m")
        assert session.budget.spent_usd == pytest.approx(0.2)
        lm.embed(texts, model="one/m")
        assert session.budget.spent_usd == pytest.approx(0.2)
    assert lm.runs().cost_usd.tolist() == pytest.approx([0.1, 0.1, 0])


def test_a_batch_that_is_not_counted_is_not_free() -> None:
    """It counts by its estimate, and the whole's cost is unknown; a refused one costs nothing."""
    refused = Says([b'{"error": {"message": "no"}}'], 401, "application/json")
    with servers(one=embedding_server(100, None), two=refused):
        lm.config.prices = {"*": {"input_usd": 1000, "output_usd": 0}}
        lm.config.budget = 10
        lm.embed(
            [f"text {number}" for number in range(128)],
            model="one/m",
            batch_size=64,
            concurrency=1,
        )
        spent = session.budget.spent_usd
        assert spent > 0.2
        assert math.isnan(lm.runs().cost_usd[0])
        with pytest.raises(errors.AuthenticationError):
            lm.embed(["a"], model="two/m")
        assert session.budget.spent_usd == spent


@pytest.mark.parametrize(
    "given", [{"max_completion_tokens": 90_000}, {"n": 50, "max_tokens": 500}]
)
def test_an_estimate_knows_other_names_for_long(given: dict[str, int]) -> None:
    """Whatever the service calls the bound, and however many answers it is to give."""
    with servers(one=Says(chat_stream("a"))) as running:
        priced()
        lm.config.budget = 2
        with pytest.raises(errors.BudgetError):
            lm.ask("hi", model="one/m", **given)
        assert running["one"].asked == []


def test_what_was_never_sent_costs_nothing() -> None:
    """Cancelled while it waits for its place; refused by the budget, by a missing key."""

    async def play() -> None:
        first = asyncio.create_task(lm.aask("hold", model="one/m", max_tokens=5))
        await asyncio.sleep(0.08)
        waiting = asyncio.create_task(lm.aask("wait", model="one/m", max_tokens=5000))
        await asyncio.sleep(0.08)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    with servers(one=Says(chat_stream("a")[:2], hang=True)):
        priced()
        lm.config.set("providers.one.concurrency", 1)
        lm.config.budget = 20
        asyncio.run(play())
        assert session.budget.spent_usd < 1
        lm.config.budget = 0.001
        with pytest.raises(errors.BudgetError):
            lm.ask("hi", model="one/m")
    lm.config.budget = None
    with pytest.raises(errors.AuthenticationError):
        lm.ask("hi", model="openai/gpt-5-mini")
    costs = lm.runs().cost_usd.tolist()
    assert costs[0] == 0
    assert math.isnan(costs[1])
    assert costs[2:] == [0, 0]


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (3092.214, "$3,092.21"),
        (0.5, "$0.50"),
        (0.0, "$0.00"),
        (0.00042, "$0.00042"),
        (0.00995, "$0.01"),
        (-0.5, "$-0.50"),
        (None, "an unknown amount"),
        (float("nan"), "an unknown amount"),
    ],
)
def test_an_amount_is_written_in_dollars(usd: float | None, text: str) -> None:
    """Cents from one cent on, two significant digits below; an amount that is unknown says so."""
    assert format_usd(usd) == text
