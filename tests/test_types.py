"""Messages, parameters, responses, progress: the values that travel."""

from __future__ import annotations

import pickle
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_magics import ChatMessage, ModelParameters, ModelResponse, StreamChunk, errors
from llm_magics.attachments import Image, load_image
from llm_magics.errors import ConfigurationError, LLMError, ProviderError, nearest
from llm_magics.host import Progress, TerminalHost, install_host
from llm_magics.providers.base import BaseModelProvider, ModelInfo
from llm_magics.runtime.response import Response
from llm_magics.secrets import Secret, scrub
from llm_magics.types import Usage

CANARY = "canary-4f1f2c0a9d"


def test_a_message_can_be_written_as_a_dict() -> None:
    """Both spellings make the same value."""
    assert ChatMessage.of({"role": "user", "content": "hi"}) == ChatMessage("user", "hi")


def test_an_unknown_role_is_refused() -> None:
    """The services would take it silently."""
    with pytest.raises(ConfigurationError, match="robot"):
        ChatMessage("robot", "hi")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", -0.1), ("max_tokens", 0), ("top_p", 0), ("top_p", 1.1), ("temperature", "x")],
)
def test_impossible_parameters_are_refused(name: str, value: object) -> None:
    """The message names the parameter and what it may be."""
    with pytest.raises(ConfigurationError, match=name) as caught:
        ModelParameters(**{name: value})  # type: ignore[arg-type]
    assert caught.value.hint


def test_a_response_adds_up_its_chunks() -> None:
    """Text is joined; of usage and finish the last word wins."""
    response = ModelResponse.of(
        [
            StreamChunk("a", usage=Usage(1, 1)),
            StreamChunk("b", reasoning="hm"),
            StreamChunk(finish_reason="stop", usage=Usage(1, 2)),
        ]
    )
    assert (response.text, response.reasoning, response.finish_reason) == ("ab", "hm", "stop")
    assert response.usage == Usage(1, 2)
    assert response.usage.total_tokens == 3


def test_progress_says_amount_speed_and_time_to_go() -> None:
    """Bytes, share, speed and remaining time, as far as they are known; slow rates by the row."""
    half = Progress("fetching x", 50_000_000, 100_000_000, elapsed_s=5)
    assert str(half) == "fetching x  50.0/100.0 MB  50%  10.0 MB/s  about 5 s left"
    assert str(Progress("loading x")) == "loading x"
    assert str(Progress("x", 99_999, 100_000, elapsed_s=5)).endswith("about 1 s left")
    slow = Progress("asking", 5, 25, "rows", elapsed_s=60)
    assert str(slow) == "asking  5/25 rows  20%  12 s a row  about 4 min left"
    assert str(Progress("embedding", 5, 10, "rows")) == "embedding  5/10 rows  50%"


def test_every_provider_error_is_one() -> None:
    """Each class in the tree's drawing exists and stands where it is drawn."""
    assert errors.__doc__ is not None
    drawn = [
        line.split("──")[1].split()[0] for line in errors.__doc__.splitlines() if "──" in line
    ]
    assert {"LLMError", *drawn} == {
        name
        for name, each in vars(errors).items()
        if isinstance(each, type) and issubclass(each, LLMError)
    }
    for name in drawn[drawn.index("ProviderError") :]:
        assert issubclass(getattr(errors, name), ProviderError)


def test_our_connection_error_is_a_builtin_one() -> None:
    """Code that catches Python's own ConnectionError catches ours."""
    with pytest.raises(ConnectionError):
        raise errors.ConnectionError("gone")


def test_an_error_is_shown_in_two_to_four_lines() -> None:
    """What, why, and what to do; never a stack."""
    error = LLMError("what\nwhy\nmore\nmuch more", hint="do this")
    assert error._render_traceback_() == ["LLMError: what", "why", "more", "→ do this"]


def test_full_tracebacks_can_be_had() -> None:
    """On request the whole stack is shown."""

    class VerboseHost(TerminalHost):
        def shows_full_tracebacks(self) -> bool:
            return True

    install_host(VerboseHost())
    try:
        with pytest.raises(LLMError) as caught:
            raise LLMError("what")
        assert any("Traceback" in line for line in caught.value._render_traceback_())
    finally:
        install_host(TerminalHost())


def test_nearest_names_candidates_or_lists_a_few() -> None:
    """A slip of the finger is recognised; otherwise one sees what there is."""
    assert nearest("modle", ["model", "seed"]) == "Did you mean model?"
    assert nearest("x", ["model", "seed"]) == "Available: model, seed."
    assert nearest("x", []) == "None are available."
    assert nearest("x", ["model"], listed=False) == ""


def test_a_secret_shows_itself_nowhere() -> None:
    """Neither repr, str, format, traceback nor pickle give it away."""
    secret = Secret(CANARY)
    assert CANARY not in f"{secret} {secret!r} {secret:>40} {[secret]}"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    try:
        raise LLMError(f"wrong key {secret.reveal()}", hint=f"not {CANARY}")
    except LLMError as error:
        shown = "".join(traceback.format_exception(error)) + str(error.hint)
    assert CANARY not in shown.replace('f"wrong', "")
    assert "****" in shown


def test_what_looks_like_a_key_is_taken_out() -> None:
    """Even a key nobody told us of."""
    key = "sk-" + "ant-" + "a1b2c3d4" * 3
    assert scrub(f"use {key} now") == "use **** now"
    assert scrub("a task-force") == "a task-force"


@pytest.mark.parametrize(
    "wrong",
    ["data:image/png;base64,abc", "a\0b", "~nobody-at-all/x.png", "no-such.png", SimpleNamespace(save=print), 5],
)  # fmt: skip
def test_what_is_no_picture(wrong: object) -> None:
    """An error that says so, whatever it is."""
    with pytest.raises(ConfigurationError):
        load_image(wrong)


def test_what_is_a_picture(tmp_path: Path) -> None:
    """Bytes, a path, an address, data in an address, and whatever saves itself as PNG."""
    png = b"\x89PNG\r\n\x1a\n"
    (tmp_path / "a.png").write_bytes(png)

    class Figure:
        def savefig(self, file: Any, format: str) -> None:  # noqa: A002 (matplotlib's name)
            assert format == "PNG"
            file.write(png)

    data = "data:image/png;base64,iVBORw0KGgo="
    given = (png, bytearray(png), str(tmp_path / "a.png"), tmp_path / "a.png", data, Figure())
    for each in given:
        assert load_image(each).data == png
    assert load_image("https://a.example/x.png").url == "https://a.example/x.png"
    assert load_image(Image(png)).data == png


@pytest.mark.parametrize("value", [1.5, "5", True, -1, 10**30, None])
def test_what_is_no_count_of_tokens_counts_as_not_told(value: Any) -> None:
    """A service may send anything."""
    assert Usage(value).input_tokens is None
    assert Usage(5).input_tokens == 5


@pytest.mark.parametrize(
    "wrong", [{"extra_body": 5}, {"extra_headers": {"X": 5}}, {"extra_headers": "X: 5"}]
)
def test_extras_are_dictionaries(wrong: dict[str, Any]) -> None:
    """Checked here, where it is the caller's mistake; what they hold is not shown."""
    with pytest.raises(ConfigurationError, match="Invalid value"):
        ModelParameters(**wrong)


@pytest.mark.parametrize("name", ["Host", " hOST "])
def test_a_call_is_not_sent_to_another_host(name: str) -> None:
    """The parameters may be from a file of others, and a server may forward the user's key."""
    with pytest.raises(ConfigurationError, match="Host"):
        ModelParameters(extra_headers={name: "evil.example"})


def test_old_names_of_attributes_name_the_new_ones() -> None:
    """Of an answer, of a model, and of a provider in another package."""
    for owner, old, new in [
        (Response("x"), "mended", "repairs"),
        (Response("x"), "dropped", "removed_turns"),
        (ModelInfo("m"), "abilities", "capabilities"),
        (ModelInfo("m"), "longest_answer", "max_output_tokens"),
    ]:
        with pytest.raises(AttributeError, match=new):
            getattr(owner, old)
    with pytest.raises(TypeError, match="embedding_concurrency"):
        type("Old", (BaseModelProvider,), {"embeds_at_once": 2})
