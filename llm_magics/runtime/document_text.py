"""
The text of documents: PDF page by page, DOCX, HTML and plain text; and pages as pictures.

PDF needs ``pypdfium2`` and DOCX needs ``mammoth`` (extra ``documents``).
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, NamedTuple, TypeVar

from llm_magics._util.text import pluralize, reason_of
from llm_magics.attachments import Image
from llm_magics.documents import DOCX, HTML, PDF, Document, attachment_digest
from llm_magics.errors import AttachmentError
from llm_magics.runtime.html_text import html_to_text

# More pages than any service accepts natively (Gemini: 1,000, 2026-11), or a context of a million
# tokens holds as text.
MAX_PAGES = 1000

# About 2.5 million tokens, more than any model reads.
_MAX_CHARACTERS = 10_000_000

# The unpacked size of a DOCX file; a small file can unpack to gigabytes.
_MAX_UNPACKED_BYTES = 200_000_000

# The longer edge of a picture of a page; Anthropic and OpenAI scale larger ones down (2026-11).
_LONGER_EDGE_PX = 1568
_PX_PER_POINT = 2.0

# PDFium must not be called by two threads at the same time.
_PDFIUM = Lock()

# Control characters, except tab and newline; U+FFFE is PDFium's mark of a hyphenated word.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Page:
    """
    A page of a document.

    Attributes:
        text: its text; empty for a scanned page.
        is_empty: whether there is nothing on it, not even a picture.
    """

    text: str
    is_empty: bool = False


def read_pages(document: Document) -> Sequence[Page]:
    """
    Return the text of each page; a document of another format than PDF has one.

    Raises:
        AttachmentError: the file is damaged, encrypted or too long, or a package is missing.
    """
    return _texts.get(attachment_digest(document), lambda: _read(document))


def _read(document: Document) -> Sequence[Page]:
    if document.media_type == PDF:
        return _read_pdf(document)
    if document.media_type == DOCX:
        text = html_to_text(_docx_to_html(document))
    elif document.media_type == HTML:
        text = html_to_text(document.text)
    else:
        text = document.text
    text = _clean(text)
    _check_length(len(text), document)
    return (Page(text, is_empty=not text),)


def _clean(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufffe", "-")
    return _CONTROLS.sub("", text).strip()


def _check_length(characters: int, document: Document) -> None:
    if characters > _MAX_CHARACTERS:
        msg = f"{document.title} has more than {_MAX_CHARACTERS:,} characters of text."
        raise AttachmentError(msg, hint="Attach a part of it.")


def has_pdf_reader() -> bool:
    """Return whether the package that reads PDF is installed."""
    from importlib.util import find_spec

    return find_spec("pypdfium2") is not None


@contextmanager
def _open_pdf(document: Document) -> Iterator[Any]:
    """Open a PDF for the block, in which no other thread uses PDFium."""
    try:
        import pypdfium2
    except ImportError:
        msg = f"To read {document.title}, the package pypdfium2 is needed."
        hint = 'Install it: pip install "jupyter-llm-magics[documents]"'
        raise AttachmentError(msg, hint=hint) from None
    with _PDFIUM:
        try:
            pdf = pypdfium2.PdfDocument(document.data)
        except pypdfium2.PdfiumError as error:
            # PDFium can repeat the error of an earlier file.
            if "password" in str(error).lower() and b"/Encrypt" in document.data:
                msg = f"{document.title} is encrypted: it can only be opened with a password."
                hint = "Save a copy without a password, and attach that."
                raise AttachmentError(msg, hint=hint) from None
            msg = f"{document.title} is not a valid PDF file: {reason_of(error)}."
            raise AttachmentError(msg, hint="Check that it opens in a PDF reader.") from None
        try:
            yield pdf
        except pypdfium2.PdfiumError as error:
            msg = f"Could not read {document.title}: {reason_of(error)}."
            raise AttachmentError(msg, hint="Check that it opens in a PDF reader.") from None
        finally:
            pdf.close()


_T = TypeVar("_T")


class _Results:
    """The latest results by key; the documents themselves are not stored."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._found: dict[Any, Any] = {}
        self._lock = Lock()

    def get(self, key: Any, make: Callable[[], _T]) -> _T:
        """Return the result for ``key``, which ``make`` returns the first time."""
        with self._lock:
            if key in self._found:
                found: _T = self._found[key]
                return found
        result = make()
        with self._lock:
            while len(self._found) >= self._size:
                del self._found[next(iter(self._found))]
            self._found[key] = result
        return result


# A conversation sends a document again with each prompt.
_facts, _texts, _pictures = _Results(256), _Results(16), _Results(32)


class PdfFacts(NamedTuple):
    """The number of pages of a PDF, and whether it is encrypted, without a password."""

    pages: int
    is_encrypted: bool


def inspect_pdf(document: Document) -> PdfFacts:
    """
    Return the number of pages of a PDF, and whether it is encrypted.

    Raises:
        AttachmentError: it is damaged, needs a password, or has no pages.
    """
    return _facts.get(attachment_digest(document), lambda: _inspect_pdf(document))


def _inspect_pdf(document: Document) -> PdfFacts:
    with _open_pdf(document) as pdf:
        from pypdfium2 import raw

        pages = len(pdf)
        is_encrypted = raw.FPDF_GetSecurityHandlerRevision(pdf) != -1
    if not pages:
        msg = f"{document.title} has no pages."
        raise AttachmentError(msg, hint="Check that it opens in a PDF reader.")
    return PdfFacts(pages, is_encrypted)


def _read_pdf(document: Document) -> Sequence[Page]:
    check_page_count(inspect_pdf(document).pages, MAX_PAGES, document, "can be converted to text")
    pages: list[Page] = []
    with _open_pdf(document) as pdf:
        for number in range(len(pdf)):
            page = pdf[number]
            try:
                pages.append(_read_page(page))
            finally:
                page.close()
            _check_length(sum(len(each.text) for each in pages), document)
    return tuple(pages)


def check_page_count(pages: int, limit: int, document: Document, what: str) -> None:
    """Raise `AttachmentError` if a document has more pages than the limit for ``what``."""
    if pages > limit:
        msg = f"{document.title} has {pluralize(pages, 'page')}, and at most {limit:,} {what}."
        raise AttachmentError(msg, hint="Split it, and attach the part that you need.")


def _read_page(page: Any) -> Page:
    from pypdfium2 import raw

    words = page.get_textpage()
    try:
        text = _clean(words.get_text_bounded())
    finally:
        words.close()
    drawn = raw.FPDFPage_CountObjects(page) + raw.FPDFPage_GetAnnotCount(page)
    return Page(text, is_empty=not text and drawn <= 0)


def render_pages(document: Document, numbers: Sequence[int]) -> Sequence[Image]:
    """Return pages of a PDF as JPEG, which is small for scans; ``numbers`` begin at 0."""
    digest = attachment_digest(document)
    return tuple(
        _pictures.get((digest, number), partial(_render, document, number)) for number in numbers
    )


def _render(document: Document, number: int) -> Image:
    with _open_pdf(document) as pdf:
        page = pdf[number]
        try:
            longer = max(page.get_width(), page.get_height(), 1.0)
            # A page may be as large as its author likes, and its picture would fill the memory.
            bitmap = page.render(scale=min(_PX_PER_POINT, _LONGER_EDGE_PX / longer))
            buffer = io.BytesIO()
            bitmap.to_pil().convert("RGB").save(buffer, format="JPEG", quality=90)
            bitmap.close()
        finally:
            page.close()
    return Image(buffer.getvalue())


def _docx_to_html(document: Document) -> str:
    """Return the content of a DOCX file as HTML, without its pictures."""
    try:
        import mammoth
    except ImportError:
        msg = f"To read {document.title}, the package mammoth is needed."
        hint = 'Install it: pip install "jupyter-llm-magics[documents]"'
        raise AttachmentError(msg, hint=hint) from None

    try:
        with zipfile.ZipFile(io.BytesIO(document.data)) as archive:
            unpacked = sum(each.file_size for each in archive.infolist())
        if unpacked > _MAX_UNPACKED_BYTES:
            msg = f"{document.title} is too large: it unpacks to {unpacked / 1e6:,.0f} MB."
            raise AttachmentError(msg, hint="Save it as PDF, and attach that.")
        leave_out = mammoth.images.img_element(lambda _: {})
        found = mammoth.convert_to_html(io.BytesIO(document.data), convert_image=leave_out)
    except AttachmentError:
        raise
    except Exception as error:  # a damaged file raises many types
        msg = f"{document.title} is not a valid DOCX file: {reason_of(error)}."
        raise AttachmentError(msg, hint="Save it again, or save it as PDF.") from None
    return str(found.value)
