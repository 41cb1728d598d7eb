"""
The files that services accept in prompts, and their limits.

Each fact is from the page of the service that stands with it, as of November 2026. No account was
used to check them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llm_magics.documents import CSV, DOCX, MARKDOWN, PDF, PLAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedMedia:
    """
    The files that a model accepts.

    Attributes:
        images: whether it accepts images; ``None`` if unknown.
        documents: the media types of documents that are sent unchanged.
        audio: the media types of audio.
        fetches_documents: whether the service fetches a PDF at an address.
        max_bytes: the limit of all files of a request, in bytes before base64; 0 if unknown.
        max_pages: the limit of pages of all PDFs of a request; 0 if unknown.
        tokens_per_page: the estimated tokens of a page of a PDF.
        tokens_per_second: the estimated tokens of a second of audio.
    """

    images: bool | None = None
    documents: frozenset[str] = frozenset()
    audio: frozenset[str] = frozenset()
    fetches_documents: bool = False
    max_bytes: int = 0
    max_pages: int = 0
    tokens_per_page: int = 2000
    tokens_per_second: int = 32


# https://platform.claude.com/docs/en/build-with-claude/pdf-support: a request has at most 32 MB, as
# base64, and 600 pages; 100 pages if the context is 200,000 tokens. A page has 1,500 to 3,000 tokens
# of text, and an image.
ANTHROPIC_FILES = AcceptedMedia(
    documents=frozenset({PDF, PLAIN, MARKDOWN, CSV}),
    fetches_documents=True,
    max_bytes=23_000_000,
    max_pages=600,
    tokens_per_page=3000,
)
_ANTHROPIC_SMALL_CONTEXT, _ANTHROPIC_FEWER_PAGES = 200_000, 100

# https://developers.openai.com/api/docs/guides/file-inputs: Chat Completions accepts only PDF, the
# Responses API also DOCX, and addresses; all files of a request have at most 50 MB. CSV is sent as
# text, because the service reads only its first 1,000 rows.
# https://developers.openai.com/api/docs/guides/audio: Chat Completions accepts WAV and MP3. The
# limit of pages and the tokens of a page are not stated there: assumptions.
OPENAI_CHAT_FILES = AcceptedMedia(
    documents=frozenset({PDF}),
    audio=frozenset({"audio/wav", "audio/mpeg"}),
    max_bytes=50_000_000,
)
OPENAI_RESPONSES_FILES = AcceptedMedia(
    documents=frozenset({PDF, DOCX}), fetches_documents=True, max_bytes=50_000_000
)

# https://ai.google.dev/gemini-api/docs/document-processing, /file-input-methods and /audio: a PDF has
# at most 50 MB and 1,000 pages of 258 tokens; a second of audio has 32 tokens. Other documents are
# read as plain text, so they are sent as text. M4A is only on the page of Vertex AI: not checked.
GEMINI_FILES = AcceptedMedia(
    documents=frozenset({PDF}),
    audio=frozenset({"audio/wav", "audio/mpeg", "audio/mp4", "audio/ogg", "audio/flac"}),
    fetches_documents=True,
    max_bytes=50_000_000,
    max_pages=1000,
    tokens_per_page=258,
)


def accepted_by(
    service: AcceptedMedia, capabilities: Sequence[str], *, context: int | None = None
) -> AcceptedMedia:
    """
    Return what a model of ``service`` accepts, by its capabilities.

    If they are unknown, it is what most models of the service accept: OpenAI has few for audio.
    """
    if not capabilities:
        return replace(service, audio=frozenset()) if service is OPENAI_CHAT_FILES else service
    return replace(
        service,
        images="vision" in capabilities,
        documents=service.documents if "documents" in capabilities else frozenset(),
        audio=service.audio if "audio" in capabilities else frozenset(),
        fetches_documents=service.fetches_documents and "documents" in capabilities,
        max_pages=_ANTHROPIC_FEWER_PAGES
        if service is ANTHROPIC_FILES
        and context is not None
        and context <= _ANTHROPIC_SMALL_CONTEXT
        else service.max_pages,
    )
