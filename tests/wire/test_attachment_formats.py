"""
Documents and audio in each format, with the official clients as oracles.

The fakes refuse what the services refuse: see ``tests/support/document_rules.py``.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import types

from llm_magics import ChatMessage
from llm_magics.attachments import Image, Sound
from llm_magics.documents import CSV, DOCX, HTML, PDF, PLAIN, Document
from llm_magics.errors import AttachmentError
from llm_magics.providers import create_provider
from tests.support import fake_anthropic, fake_gemini, fake_ollama
from tests.support.document_files import write_docx, write_pdf, write_wav
from tests.support.fake_anthropic import FakeAnthropic
from tests.support.fake_gemini import FakeGemini, camel
from tests.support.fake_ollama import FakeOllama
from tests.support.fake_openai import FakeOpenAI
from tests.support.fake_responses import FakeResponses
from tests.support.serving import Server, serving

KEY = "a-key-of-the-test"
REPORT = Document(data=write_pdf(["Signed by Ada"]), media_type=PDF, name="report.pdf")
LETTER = Document(data=write_docx(""), media_type=DOCX, name="letter.docx")
TABLE = Document(data=b"\xef\xbb\xbfa,b\n1,2\n", media_type=CSV, name="table.csv")
PAGE = Document(data=b"<html>hi", media_type=HTML, name="page.html")
FAR = Document(media_type=PDF, name="b.pdf", url="https://a.example/b.pdf")
SPEECH = Sound(write_wav(0.1))
PICTURE = Image(b"\x89PNG\r\n\x1a\n" + bytes(8))


def ours(name: str, server: Server, model: str, message: ChatMessage, **settings: Any) -> Any:
    """The content of the message in the request that our provider sends."""

    async def use() -> None:
        async with create_provider(name, base_url=server.url, api_key=KEY, **settings) as provider:
            await provider.generate_chat([message], model)

    asyncio.run(use())
    return contents(server)


def contents(server: Server) -> Any:
    """The content of the only message in the last request."""
    body = server.asked[-1].json()
    (message,) = body.get("messages") or body.get("input") or body["contents"]
    return message.get("content") or message["parts"]


def test_anthropic_documents() -> None:
    """A PDF, its address, and text of any kind, which the service takes as plain text."""
    blocks: list[Any] = [
        {"type": "document", "title": "report.pdf", "citations": {"enabled": True},
         "source": {"type": "base64", "media_type": "application/pdf", "data": REPORT.base64}},
        {"type": "document", "title": "table.csv", "citations": {"enabled": True},
         "source": {"type": "text", "media_type": "text/plain", "data": "a,b\n1,2\n"}},
        {"type": "document", "title": "b.pdf", "citations": {"enabled": True},
         "source": {"type": "url", "url": "https://a.example/b.pdf"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE.base64}},
        {"type": "text", "text": "read"},
    ]  # fmt: skip
    message = ChatMessage("user", "read", images=(PICTURE,), attachments=(REPORT, TABLE, FAR))
    with serving(FakeAnthropic()) as server:
        client = anthropic.Anthropic(base_url=server.url, api_key=KEY, max_retries=0)
        messages: list[Any] = [{"role": "user", "content": blocks}]
        with (
            client,
            client.messages.stream(
                model=fake_anthropic.CHAT, max_tokens=9, messages=messages
            ) as stream,
        ):
            stream.until_done()
        theirs = contents(server)
        assert ours("anthropic", server, fake_anthropic.CHAT, message) == theirs


def test_openai_files_and_audio() -> None:
    """The Chat Completions API takes PDF, WAV and MP3."""
    speech = {"data": SPEECH.base64, "format": "wav"}
    parts: list[Any] = [
        {"type": "text", "text": "read"},
        {"type": "file", "file": {"filename": "report.pdf", "file_data": REPORT.as_url}},
        {"type": "input_audio", "input_audio": speech},
        {"type": "image_url", "image_url": {"url": PICTURE.as_url}},
    ]
    message = ChatMessage("user", "read", images=(PICTURE,), attachments=(REPORT, SPEECH))
    with serving(FakeOpenAI()) as server:
        with openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=0) as client:
            list(
                client.chat.completions.create(
                    model="gpt-test", messages=[{"role": "user", "content": parts}], stream=True
                )
            )
        theirs = contents(server)
        assert ours("openai", server, "gpt-test", message) == theirs


def test_openai_input_files() -> None:
    """The Responses API takes PDF and DOCX, and addresses."""
    parts: list[Any] = [
        {"type": "input_text", "text": "read"},
        {"type": "input_file", "filename": "report.pdf", "file_data": REPORT.as_url},
        {"type": "input_file", "filename": "letter.docx", "file_data": LETTER.as_url},
        {"type": "input_file", "file_url": "https://a.example/b.pdf"},
        {"type": "input_image", "image_url": PICTURE.as_url},
    ]
    message = ChatMessage("user", "read", images=(PICTURE,), attachments=(REPORT, LETTER, FAR))
    with serving(FakeResponses()) as server:
        with openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=0) as client:
            list(
                client.responses.create(
                    model="gpt-5", input=[{"role": "user", "content": parts}], stream=True
                )
            )
        theirs = contents(server)
        assert ours("openai", server, "gpt-5", message, api="responses") == theirs


def test_gemini_files() -> None:
    """All kinds are parts with data; an address is a part with a URI."""
    parts = [
        types.Part.from_bytes(data=REPORT.data, mime_type="application/pdf"),
        types.Part.from_bytes(data=TABLE.data, mime_type="text/plain"),
        types.Part.from_bytes(data=SPEECH.data, mime_type="audio/wav"),
        types.Part.from_uri(file_uri=FAR.url, mime_type="application/pdf"),
        types.Part(text="read"),
    ]
    message = ChatMessage("user", "read", attachments=(REPORT, TABLE, SPEECH, FAR))
    with serving(FakeGemini()) as server:
        options = types.HttpOptions(base_url=server.url, api_version="v1beta")
        client = genai.Client(api_key=fake_gemini.KEY, http_options=options)
        list(
            client.models.generate_content_stream(
                model=fake_gemini.CHAT, contents=types.Content(role="user", parts=parts)
            )
        )
        client.close()
        theirs = [as_documented(part) for part in contents(server)]
        assert ours("gemini", server, fake_gemini.CHAT, message) == theirs


def as_documented(value: Any) -> Any:
    """A part of Google's client, which sends names in snake case and the URL-safe base64."""
    if not isinstance(value, dict):
        return value
    part = {camel(name): as_documented(each) for name, each in value.items()}
    if "data" in part:
        part["data"] = part["data"].replace("-", "+").replace("_", "/")
    return part


def _anthropic(message: ChatMessage) -> None:
    with serving(FakeAnthropic()) as server:
        ours("anthropic", server, fake_anthropic.CHAT, message)


def _chat(message: ChatMessage) -> None:
    with serving(FakeOpenAI()) as server:
        ours("openai", server, "gpt-test", message)


def _responses(message: ChatMessage) -> None:
    with serving(FakeResponses()) as server:
        ours("openai", server, "gpt-5", message, api="responses")


def _ollama(message: ChatMessage) -> None:
    with serving(FakeOllama()) as server:
        ours("ollama", server, fake_ollama.CHAT, message)


@pytest.mark.parametrize(
    ("send", "attachment", "words"),
    [
        (_anthropic, SPEECH, "Anthropic does not accept audio/wav"),
        (_anthropic, LETTER, "Anthropic does not accept application/vnd"),
        (_chat, Sound(b"OggS"), "does not accept audio/ogg"),
        (_chat, FAR, "does not accept application/pdf"),
        (_responses, SPEECH, "The Responses API does not accept audio/wav"),
        (_ollama, REPORT, "Ollama does not accept application/pdf"),
    ],
)
def test_what_a_format_cannot_carry_is_refused(
    send: Callable[[ChatMessage], None], attachment: Any, words: str
) -> None:
    """Where user code gives it to a provider; lm.ask converts it before."""
    with pytest.raises(AttachmentError, match=words) as caught:
        send(ChatMessage("user", "read", attachments=(attachment,)))
    assert caught.value.hint == "Use lm.ask, which converts documents to text."


@pytest.mark.parametrize("document", [LETTER, PAGE, Document(data=b"a", media_type=PLAIN)])
def test_the_fake_of_openai_refuses_what_the_service_refuses(document: Document) -> None:
    """The Chat Completions API takes no other documents than PDF."""
    with pytest.raises(Exception, match="unsupported MIME type"):
        _chat(ChatMessage("user", "read", attachments=(document,)))


def test_the_same_file_has_the_same_base64() -> None:
    """Standard base64, as all of these services expect."""
    assert base64.b64decode(REPORT.base64) == REPORT.data
    assert base64.b64decode(SPEECH.base64) == SPEECH.data
