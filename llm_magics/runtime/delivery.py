"""
How attachments are sent: unchanged, as text, or as pictures of their pages.

This is the only place that decides it, from what the model accepts; a wire format only encodes the
result. Stored answers are found by the attachments themselves, so a replay needs no conversion.
"""

from __future__ import annotations

import asyncio
import io
import re
import wave
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from llm_magics._util.text import pluralize
from llm_magics.attachments import Image, Sound
from llm_magics.documents import FORMAT_NAMES, PDF, Attachment, Document, format_size
from llm_magics.errors import AttachmentError
from llm_magics.host import warn
from llm_magics.providers.media import AcceptedMedia
from llm_magics.runtime import document_text, pricing
from llm_magics.runtime.answer_bounds import text_tokens
from llm_magics.runtime.document_text import Page, check_page_count
from llm_magics.runtime.routing import Route
from llm_magics.types import ChatMessage

Way = Literal["native", "text", "pages"]

# More pictures than a service accepts in one request (Anthropic, 2026-11: 100 with a context of
# 200,000 tokens).
_MAX_PICTURES = 100

# The bytes of a second of compressed audio of 128 kbit/s, to estimate its tokens.
_AUDIO_BYTES_PER_SECOND = 16_000


# The end of a document, as also a document itself could write it.
_END = re.compile(r"<(\s*/\s*document)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """
    How one attachment is sent.

    Attributes:
        attachment: the document or audio.
        way: ``native``, ``text``, or ``pages``: pages without text as pictures, others as text.
        pages: the number of pages of a PDF; ``None`` if it has none or they are not counted.
        tokens: the estimated tokens.
        empty_pages: the numbers of pages with nothing on them, from 1.
        unread_pages: the numbers of pages without text, which the model cannot see.
        text: the text to send.
        pictures: the pictures to send.
    """

    attachment: Attachment
    way: Way
    pages: int | None = None
    tokens: int = 0
    empty_pages: tuple[int, ...] = ()
    unread_pages: tuple[int, ...] = ()
    text: str = ""
    pictures: tuple[Image, ...] = ()

    @property
    def name(self) -> str:
        """The name of the attachment."""
        found = self.attachment
        return found.title if isinstance(found, Document) else "audio"

    @property
    def gaps(self) -> str:
        """Which pages the model does not get, in words; empty if it gets all of them."""
        parts = [
            f"{_name_pages(numbers)} {what}"
            for numbers, what in (
                (self.empty_pages, "empty"),
                (self.unread_pages, "without text, and the model does not accept pictures"),
            )
            if numbers
        ]
        return "; ".join(parts)

    def __str__(self) -> str:
        found = self.attachment
        size = "" if not found.data else f", {format_size(len(found.data))}"
        kind = FORMAT_NAMES.get(found.media_type, found.media_type)
        parts = [
            f"{self.name} ({kind}{size}): sent {'unchanged' if self.way == 'native' else 'as text'}"
        ]
        if self.pages is not None:
            parts.append(pluralize(self.pages, "page"))
        if self.pictures:
            parts.append(f"{pluralize(len(self.pictures), 'page')} without text as pictures")
        parts.append(f"about {pluralize(self.tokens, 'token')}")
        return ", ".join([*parts, *([self.gaps] if self.gaps else [])])


def _name_pages(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:10])) + (" …" if len(numbers) > 10 else "")
    return f"page {shown} is" if len(numbers) == 1 else f"pages {shown} are"


class Deliveries:
    """The attachments of the messages of one call, prepared for each model that may answer."""

    def __init__(self, messages: Sequence[ChatMessage]) -> None:
        self._original = messages
        self._prepared: dict[str, tuple[Sequence[ChatMessage], list[Delivery]]] = {}

    @cached_property
    def are_empty(self) -> bool:
        """Whether the messages have no attachments."""
        return not any(message.attachments for message in self._original)

    async def prepare(self, route: Route, *, warns: bool = False) -> None:
        """
        Decide how the attachments are sent to the model of ``route``, and convert them.

        With ``warns``, warn about pages of the prompt's own attachments that the model does not
        get.

        Raises:
            AttachmentError: the model does not accept one of them, or it cannot be read.
        """
        if self.are_empty or route.name in self._prepared:
            return
        accepted = await route.provider.accepted_media(route.model)
        # In a thread, because all streams share this loop.
        self._prepared[route.name] = await asyncio.to_thread(
            _prepare, self._original, accepted, route.name
        )
        # The last message is the result of a tool, or has none, in later rounds.
        own = self._original[-1].attachments
        for each in self.of(route) if warns else ():
            if each.gaps and any(each.attachment is attachment for attachment in own):
                warn(f"{each.name}: {each.gaps}.")

    def messages(self, route: Route) -> Sequence[ChatMessage]:
        """Return the messages to send; before `prepare`, as the user wrote them."""
        found = self._prepared.get(route.name)
        return self._original if found is None else found[0]

    def of(self, route: Route) -> Sequence[Delivery]:
        """Return how each attachment is sent; before `prepare`, nothing."""
        found = self._prepared.get(route.name)
        return () if found is None else found[1]

    def gaps(self) -> list[str]:
        """Return which pages the model does not get, in words, for each document."""
        prepared = [each for _, found in self._prepared.values() for each in found]
        return list(dict.fromkeys(f"{each.name}: {each.gaps}" for each in prepared if each.gaps))

    def counts(self) -> Counter[str]:
        """Return the number of attachments by the way in which they are sent, and of each ``page``."""
        found = next((each for _, each in self._prepared.values()), [])
        counts = Counter(
            "sent unchanged" if each.way == "native" else "sent as text" for each in found
        )
        pages = sum(each.pages or 0 for each in found)
        return counts + Counter({"page": pages})

    def native_tokens(self, route: Route) -> int:
        """Return the estimated tokens of the attachments that are sent unchanged."""
        return sum(each.tokens for each in self.of(route) if each.way == "native")


def _prepare(
    messages: Sequence[ChatMessage], accepted: AcceptedMedia, model: str
) -> tuple[Sequence[ChatMessage], list[Delivery]]:
    deliveries: list[Delivery] = []
    prepared: list[ChatMessage] = []
    for message in messages:
        own = [decide(each, accepted, model) for each in message.attachments]
        deliveries += own
        texts = [each.text for each in own if each.text]
        prepared.append(
            replace(
                message,
                content="\n\n".join([*texts, message.content]),
                images=(*message.images, *(image for each in own for image in each.pictures)),
                attachments=tuple(each.attachment for each in own if each.way == "native"),
            )
            if own
            else message
        )
    _check_limits(deliveries, accepted, model)
    return prepared, deliveries


def _check_limits(deliveries: Sequence[Delivery], accepted: AcceptedMedia, model: str) -> None:
    """Refuse what the service would refuse after the upload."""
    sizes = [
        *(len(each.attachment.data) for each in deliveries if each.way == "native"),
        *(len(image.data) for each in deliveries for image in each.pictures),
    ]
    if accepted.max_bytes and sum(sizes) > accepted.max_bytes:
        msg = f"The attachments are too large for {model}: {format_size(sum(sizes))}."
        hint = f"It accepts {format_size(accepted.max_bytes)} in one request; attach a part."
        raise AttachmentError(msg, hint=hint)
    pages = sum(each.pages or 0 for each in deliveries if each.way == "native")
    if accepted.max_pages and pages > accepted.max_pages:
        msg = f"The attachments have {pages:,} pages, and {model} accepts {accepted.max_pages:,}."
        raise AttachmentError(msg, hint="Split the PDF, and attach the part that you need.")
    pictures = sum(len(each.pictures) for each in deliveries)
    if pictures > _MAX_PICTURES:
        msg = (
            f"{pluralize(pictures, 'page')} of the attachments have no text. "
            f"At most {_MAX_PICTURES} can be sent as pictures."
        )
        raise AttachmentError(msg, hint="Split the PDF, and attach the part that you need.")


def decide(attachment: Attachment, accepted: AcceptedMedia, model: str) -> Delivery:
    """
    Return how ``attachment`` is sent to a model that accepts ``accepted``.

    Raises:
        AttachmentError: the model does not accept it, or it cannot be read.
    """
    if isinstance(attachment, Image):  # a message of the user's own code
        return Delivery(attachment=attachment, way="pages", pictures=(attachment,))
    if isinstance(attachment, Sound):
        return _decide_sound(attachment, accepted, model)
    if attachment.url:
        if attachment.media_type in accepted.documents and accepted.fetches_documents:
            return Delivery(
                attachment=attachment, way="native", tokens=10 * accepted.tokens_per_page
            )
        msg = f"{model} does not fetch documents at addresses."
        raise AttachmentError(msg, hint="Download the file first, and attach its path.")
    if attachment.media_type in accepted.documents and not _is_encrypted(attachment):
        return _send_natively(attachment, accepted)
    return _convert(attachment, accepted, model)


def _decide_sound(sound: Sound, accepted: AcceptedMedia, model: str) -> Delivery:
    if sound.media_type not in accepted.audio:
        formats = ", ".join(sorted(each.partition("/")[2].upper() for each in accepted.audio))
        msg = f"{model} does not accept audio."
        hint = "Transcribe it first: %llm transcribe FILE, or use a model that accepts audio."
        if formats:
            msg = f"{model} does not accept {sound.media_type}."
            hint = f"Convert it to one of: {formats.replace('MPEG', 'MP3')}."
        raise AttachmentError(msg, hint=hint)
    tokens = round(_duration_s(sound) * accepted.tokens_per_second)
    return Delivery(attachment=sound, way="native", tokens=max(1, tokens))


def _duration_s(sound: Sound) -> float:
    """Return the duration of a WAV file; for others, an estimate from their size."""
    if sound.media_type == "audio/wav":
        try:
            with wave.open(io.BytesIO(sound.data)) as file:
                return float(file.getnframes()) / (file.getframerate() or 1)
        except (wave.Error, EOFError):
            pass
    return len(sound.data) / _AUDIO_BYTES_PER_SECOND


def _is_encrypted(document: Document) -> bool:
    """Whether a PDF is encrypted without a password: readers open it, and services refuse it."""
    is_known = document.media_type == PDF and document_text.has_pdf_reader()
    return is_known and document_text.inspect_pdf(document).is_encrypted


def _send_natively(document: Document, accepted: AcceptedMedia) -> Delivery:
    if document.media_type != PDF:
        tokens = len(document.data) // 4
        return Delivery(attachment=document, way="native", tokens=tokens)
    # Without the package, the service checks the file.
    pages = document_text.inspect_pdf(document).pages if document_text.has_pdf_reader() else None
    tokens = (pages or 10) * accepted.tokens_per_page
    return Delivery(attachment=document, way="native", pages=pages, tokens=tokens)


def _convert(document: Document, accepted: AcceptedMedia, model: str) -> Delivery:
    """Return a document as text; its scanned pages as pictures, if the model may see."""
    pages = document_text.read_pages(document)
    is_pdf = document.media_type == PDF
    empty = [number for number, page in enumerate(pages) if page.is_empty]
    scanned = [number for number, page in enumerate(pages) if not (page.text or page.is_empty)]
    if len(empty) == len(pages):
        what = f": there is nothing on its {pluralize(len(pages), 'page')}" if is_pdf else ""
        msg = f"{document.title} is empty{what}."
        raise AttachmentError(msg, hint="Check that it is the right file.")
    sees = accepted.images is not False
    if scanned and not sees and len(scanned) + len(empty) == len(pages):
        msg = f"{document.title} has no text (its pages are scanned), and {model} does not accept pictures."
        raise AttachmentError(msg, hint="Use a model with vision, or run text recognition first.")
    if sees:
        check_page_count(len(scanned), _MAX_PICTURES, document, "without text can be sent")
    pictures = tuple(document_text.render_pages(document, scanned)) if scanned and sees else ()
    text = _mark_pages(document, pages, sees=sees)
    return Delivery(
        attachment=document,
        way="pages" if pictures else "text",
        pages=len(pages) if is_pdf else None,
        tokens=text_tokens(text) + len(pictures) * pricing.TOKENS_PER_IMAGE,
        empty_pages=tuple(number + 1 for number in empty),
        unread_pages=() if sees else tuple(number + 1 for number in scanned),
        text=text,
        pictures=pictures,
    )


def _mark_pages(document: Document, pages: Sequence[Page], *, sees: bool) -> str:
    """Return the text of a document between marks, with a mark in front of each page of a PDF."""
    title = document.title.replace('"', "'").replace("<", "‹").replace(">", "›")
    lines = [f'<document name="{title}">']
    scanned = 0
    for number, page in enumerate(pages, 1):
        gap = "empty" if page.is_empty else "no text" if not page.text else ""
        if gap == "no text" and sees:
            scanned += 1
            gap = f"see picture {scanned} of this document"
        if document.media_type == PDF:
            lines.append(f"[page {number} of {len(pages)}{f': {gap}' if gap else ''}]")
        if page.text:  # its end must not be written by the document itself
            lines.append(_END.sub(r"<\\\1", page.text))
    return "\n".join([*lines, "</document>"])
