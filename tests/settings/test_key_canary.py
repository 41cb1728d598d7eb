"""Keys that a service repeats, and those in addresses and headers, looked for wherever they could show."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import pickle
import re
import time
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from pydantic import ValidationError

import llm_magics as lm
from llm_magics import ChatMessage, ModelParameters, errors, secrets
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.errors import ProviderError
from llm_magics.providers import create_provider
from llm_magics.providers.base import ModelInfo
from llm_magics.providers.ollama import OllamaConfig
from llm_magics.secrets import Secret, redact, redact_json, strip_credentials
from tests.support.examples import examples
from tests.support.kernels import Kernel
from tests.support.serving import Asked, Says, as_json, chat_event, serving

# With characters that JSON, HTML and addresses write otherwise.
KEY = 'canary-9f"&<+/=71aa02'
PASSWORD = "pw4!"  # too short to be replaced wherever it stands
HEADER = "gateway-canary-77ab12"
HI = [ChatMessage("user", "hi")]


def assert_hidden(*texts: str) -> None:
    """None of the three, in no encoding."""
    encoded = base64.b64encode(f"bob:{PASSWORD}".encode()).decode()
    for text in texts:
        for key in (
            KEY,
            quote(KEY, safe=""),
            json.dumps(KEY)[1:-1],
            HEADER,
            f":{PASSWORD}@",
            encoded,
        ):
            assert key not in text, (key, text)


def told_of(error: BaseException) -> list[str]:
    """All that can be seen of an error."""
    shown = "\n".join(getattr(error, "_render_traceback_", list)())
    return ["".join(traceback.format_exception(error)), repr(vars(error)), repr(error.args), shown]


def with_credentials(url: str) -> str:
    """``url`` with a user and the short password."""
    return url.replace("://", f"://bob:{PASSWORD}@")


PROVIDERS = ["openai", "anthropic", "gemini", "ollama", "lmstudio", "huggingface"]


def repeating(asked: Asked) -> Says:
    """Refuse a request, with all that it carried in every field of the error and its headers."""
    said = " ".join(f"{name}: {value}" for name, value in asked.headers.items())
    fields = dict.fromkeys(("message", "code", "type", "param"), said)
    body = {"error": {**fields, "code": KEY}, "request_id": KEY, "headers": dict(asked.headers)}
    headers = {"x-request-id": HEADER, "request-id": HEADER}
    return Says([json.dumps(body).encode()], 401, "application/json", headers=headers)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_key_that_a_service_repeats_is_in_no_attribute_of_the_error(provider: str) -> None:
    """Not in its message, hint, code, request id or body; nor what health says of it."""
    with serving(repeating) as server:
        url = with_credentials(server.url)
        headers = {"X-Gateway": HEADER}
        made = create_provider(provider, base_url=url, api_key=KEY, extra_headers=headers)
        calls = (
            made.generate_chat(HI, "m", ModelParameters()),
            made.generate_embeddings(["a"], "m"),
            made.list_models(),
        )
        for call in calls:
            with pytest.raises(ProviderError) as caught:
                asyncio.run(_awaited(call))
            assert_hidden(*told_of(caught.value))
        assert_hidden(repr(asyncio.run(made.health_check())), repr(made.config), repr(vars(made)))
        assert server.asked
        assert any(HEADER in repr(asked.headers) for asked in server.asked)


async def _awaited(call: Any) -> Any:
    return await call


def test_an_answer_holds_no_key_but_in_its_text(shell: InteractiveShell) -> None:
    """A key repeated as a finish reason, the id of a tool call or a model's name is masked."""
    call = {
        "index": 0,
        "id": KEY,
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
    }
    events = [
        chat_event(
            choices=[{"index": 0, "delta": {"content": f"it is {KEY}"}}], model=KEY, id=KEY
        ),
        chat_event(choices=[{"index": 0, "delta": {"tool_calls": [call]}}], model=KEY),
        chat_event(choices=[{"index": 0, "delta": {}, "finish_reason": KEY}], model=KEY, id=KEY),
        b"data: [DONE]\n\n",
    ]
    with serving(Says(events)) as server:
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url, "api_key": KEY}}
        with contextlib.suppress(ProviderError):
            answer = lm.ask("hi", model="lab/m")
            assert_hidden(repr(answer), repr(answer.raw), repr(answer.tool_calls))
            assert_hidden(repr(answer.finish_reason))
    assert_hidden(lm.runs().to_string(), lm.runs()._repr_html_())
    assert_hidden(ModelInfo(KEY).name)


def test_settings_with_credentials_are_shown_without() -> None:
    """In reprs of configs, settings and parameters, in what they dump, and in pydantic's errors."""
    url = with_credentials("http://127.0.0.1:9")
    headers = {"X-Gateway": HEADER}
    for provider in PROVIDERS:
        config = create_provider(
            provider, base_url=f"{url}?key={KEY}", extra_headers=headers
        ).config
        assert_hidden(repr(config), str(config), repr(config.model_dump()), repr(dict(config)))
    with pytest.raises(ValidationError) as caught:
        OllamaConfig(base_url=f"ftp://bob:{PASSWORD}@h", num_ctx="x", extra_headers=f"X: {HEADER}")  # type: ignore[arg-type]
    assert_hidden(str(caught.value), repr(caught.value))
    lm.config.set("providers.openai.base_url", url)
    lm.config.set("providers.openai.extra_headers", headers)
    lm.config.aliases = {"mine": {"model": "openai/m", "extra_headers": {"X-Gateway": HEADER}}}
    assert_hidden(repr(lm.config), lm.config.frame().to_string())
    assert_hidden(repr(lm.config.get("providers.openai.base_url")), repr(lm.config.set_here()))
    assert_hidden(repr(ModelParameters(extra_headers=headers)))
    assert_hidden(repr(RowPrompts(text="{{ text }}", parameters={"extra_headers": headers})))
    # The values themselves are as they were: requests are made from them.
    assert str(lm.config.get("providers.openai.base_url")) == url
    assert ModelParameters(extra_headers=headers).extra_headers == headers


def test_the_credentials_of_an_address_are_sent_and_in_no_error() -> None:
    """Neither where nobody answers, nor in what health says, nor in a warning about the address."""
    made = create_provider(
        "openai", base_url=with_credentials("http://127.0.0.1:9/v1"), api_key="k"
    )
    with pytest.raises(errors.ConnectionError) as caught:
        asyncio.run(made.list_models())
    assert_hidden(*told_of(caught.value), repr(asyncio.run(made.health_check())))
    with serving(as_json({"data": []})) as server:
        made = create_provider("openai", base_url=with_credentials(server.url))
        detail = asyncio.run(made.health_check())["detail"]
        sent = server.asked[0].headers["authorization"]
    assert base64.b64decode(sent.removeprefix("Basic ")).decode() == f"bob:{PASSWORD}"
    assert "127.0.0.1" in detail
    assert_hidden(detail)


def test_a_short_key_is_masked_where_a_key_stands_and_nowhere_else() -> None:
    """Words that happen to be one stay; behind "key:" or as a whole field it is hidden."""
    Secret("stop7")
    assert redact("Incorrect API key provided: stop7. See the docs.").count("stop7") == 0
    assert redact("Authorization: Bearer stop7") == "Authorization: Bearer ****"
    assert redact("stop7 sequences and unstop7 words") == "stop7 sequences and unstop7 words"
    assert redact_json({"code": "stop7", "note": ["Bearer stop7", "at stop7"]}) == {
        "code": "****",
        "note": ["****", "at stop7"],
    }
    error = ProviderError("x", provider="stop7", code="stop7", request_id="stop7")
    assert (error.provider, error.code, error.request_id) == ("stop7", "****", "****")


def test_attributes_set_later_are_read_over_too() -> None:
    """An error gets its hint, its body or an attribute of a plugin's after it was made."""
    Secret(KEY)
    error = ProviderError("x")
    error.hint, error.body, error.note = f"use {KEY}", {"a": [KEY]}, KEY  # type: ignore[attr-defined]
    assert_hidden(*told_of(error))
    assert_hidden(*told_of(errors.Interrupted(f"stopped {KEY}", hint=KEY)))


@given(
    st.text(
        st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=16, max_size=40
    )
)
@settings(max_examples=examples(60))
def test_a_long_key_is_found_in_every_encoding(key: str) -> None:
    """As it is, percent-encoded, in JSON, in base64, and split by a line break."""
    key = f"k{''.join(key.split())}{'x' * 16}"
    for known in (secrets._secrets, secrets._patterns):
        known.clear()  # the keys of the examples before
    Secret(key)
    encoded = base64.b64encode(key.encode()).decode()
    for form in (key, quote(key, safe=""), json.dumps(key)[1:-1], encoded):
        assert form not in redact(f"before {form} after")
    assert "x" * 16 not in redact(f"before: {key[:4]}\n    {key[4:]}")


SPELLED = "Zx9+pQ/ab%cd=EF~gh_12345"


@pytest.mark.parametrize(
    "form",
    [
        re.sub(r"\W", lambda found: f"%{ord(found[0]):02x}", SPELLED),
        quote(SPELLED),
        quote(quote(SPELLED, safe=""), safe=""),
        SPELLED.replace("/", "\\/"),
        SPELLED.replace("=", "\\u003d").replace("+", "\\u002B"),
        SPELLED.replace("=", "&#61;").replace("+", "&#x2B;"),
        SPELLED.encode().hex(),
        f"{SPELLED[:8]}\u200b{SPELLED[8:]}",
        *(base64.b64encode(f"{user}:{SPELLED}".encode()).decode() for user in ("", "a", "ab")),
        base64.b64encode(f"Bearer {SPELLED} and more".encode()).decode(),
        base64.urlsafe_b64encode(f"x>?{SPELLED}".encode()).decode(),
    ],
)
def test_a_key_is_found_however_it_is_spelled(form: str) -> None:
    """With any choice of characters escaped, in any case, and in base64 behind other text."""
    Secret(SPELLED)
    shown = redact(f"before {form} after")
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    assert "****" in shown
    assert form[12:-8] not in shown
    assert SPELLED[-5:] not in shown
    assert redact("before Zx9 pQ ab after") == "before Zx9 pQ ab after"


@pytest.mark.parametrize(
    ("address", "bare"),
    [
        ("http://u:p@h:1/x", "http://h:1/x"),
        ("http://u:p@h?api-version=2024-10-21&key=abc", "http://h?api-version=2024-10-21"),
        ("http://u:p%40@h/?token=x", "http://h/"),
        ("u:p@h:11434", "h:11434"),
        ("http://[::1]:1/v1", "http://[::1]:1/v1"),
    ],
)
def test_addresses_without_credentials(address: str, bare: str) -> None:
    """The user, the password and the keys of the query go; the rest stays."""
    assert strip_credentials(address) == bare


def test_verbose_tracebacks_of_any_error_hold_no_key(kernel: Kernel) -> None:
    """``%xmode Verbose`` shows variables, and an error of another package quotes a request."""
    kernel.run("from llm_magics.secrets import Secret\n%xmode Verbose")
    kernel.run(f"key = {KEY[:6]!r} + {KEY[6:]!r}; Secret(key)")
    told = kernel.run(
        "def sends(headers):\n    raise RuntimeError(f'refused {headers}')\n"
        "sends({'authorization': 'Bearer ' + key})"
    )
    assert told.status == "error"
    assert "RuntimeError" in told.error
    assert "Bearer ****" in repr(told.outputs)
    assert_hidden(told.error, repr(told.outputs))


def test_a_notebook_with_credentials_in_its_address_shows_none(
    tmp_path: Path, kernel: Kernel
) -> None:
    """In outputs, errors, tables and metadata, however the cells end."""
    with serving(repeating) as server:
        url = with_credentials(server.url)
        settings = {"type": "openai", "base_url": url, "extra_headers": {"X-Gateway": HEADER}}
        told = [
            kernel.run(
                f"import llm_magics as lm; lm.config.providers = {{'lab': {settings!r}}}; None"
            ),
            kernel.run("%%llm lab/m\nhi"),
            kernel.run("%llm health"),
            kernel.run("%llm models lab"),
            kernel.run("%llm config"),
            kernel.run("lm.config"),
            kernel.run("lm.config.get('providers.lab.base_url')"),
            kernel.run("lm.runs()"),
            kernel.run("%llm config tracebacks full"),
            kernel.run("lm.embed(['a'], model='lab/m')"),
            kernel.run("%llm explain lab/m"),
        ]
        assert server.asked
    for cell in told:
        assert_hidden(cell.error, repr(cell.outputs), cell.text)


def test_graphs_of_dask_hold_neither_credentials_nor_headers() -> None:
    """Pickled, in its repr, in its HTML, and in the keys of its tasks."""
    dd = pytest.importorskip("dask.dataframe")
    import pandas as pd

    url = with_credentials("http://127.0.0.1:9")
    lm.config.providers = {"lab": {"type": "openai", "base_url": url, "api_key": KEY}}
    frame = dd.from_pandas(pd.DataFrame({"text": ["a", "b"]}), npartitions=1)
    planned = [
        frame.llm.embed("text", model="lab/m", yes=True),
        frame.llm.prompt(
            "{{ text }}", model="lab/m", yes=True, extra_headers={"X-Gateway": HEADER}
        ),
    ]
    for each in planned:
        graph = dict(each.__dask_graph__())
        assert_hidden(repr(graph), repr(each), each._repr_html_(), repr(list(graph)))
        assert_hidden(pickle.dumps(each).decode("latin-1"), pickle.dumps(graph).decode("latin-1"))


def test_long_names_in_an_address_are_searched_fast() -> None:
    """The time grows with the length of a message, whose text is from a service."""
    address = "https://a.example/?" + "key" * 30_000
    began = time.process_time()
    assert redact(address) == address
    assert redact(f"{address}=canary") == f"{address}=****"
    assert time.process_time() - began < 2
