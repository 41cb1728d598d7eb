"""
Documents as attachments, and the media types of files.

The type of a file is determined from its first bytes. Its name decides only between formats that
are all plain text: Markdown, CSV, HTML without a declaration.
"""

from __future__ import annotations

import base64
import hashlib
import io
import stat
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from mimetypes import guess_type
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from llm_magics._util.text import one_line, reason_of
from llm_magics.attachments import Image, Sound, load_image
from llm_magics.errors import AttachmentError, ConfigurationError

PDF = "application/pdf"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
HTML = "text/html"
CSV = "text/csv"
MARKDOWN = "text/markdown"
PLAIN = "text/plain"

# Formats that are sent unchanged where text is sent.
TEXT_TYPES = frozenset({PLAIN, MARKDOWN, CSV})
DOCUMENT_TYPES = TEXT_TYPES | {PDF, DOCX, HTML}

# No service accepts more in one request (Gemini: 100 MB, 2026-11).
MAX_FILE_BYTES = 100_000_000

_EXTENSIONS = {".csv": CSV, ".htm": HTML, ".html": HTML, ".markdown": MARKDOWN, ".md": MARKDOWN}
_FILE_NAMES = {".pdf": PDF, ".docx": DOCX, ".csv": CSV, ".html": HTML, ".md": MARKDOWN}
_FORMATS = "Use PDF, DOCX, HTML, Markdown, CSV, other text in UTF-8, an image or audio."

# ISO base media files that are images; their brand follows "ftyp" (ISO/IEC 23008-12).
_IMAGE_BRANDS = frozenset({b"avif", b"heic", b"heix", b"mif1", b"msf1"})
_BYTE_ORDER_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}


# How formats are called in messages; others by their media type.
FORMAT_NAMES = {
    PDF: "PDF",
    DOCX: "DOCX",
    HTML: "HTML",
    CSV: "CSV",
    MARKDOWN: "Markdown",
    PLAIN: "text",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """
    A document: its bytes, or a URL that the service fetches itself.

    Attributes:
        data: the bytes of its file.
        media_type: its MIME type.
        name: the name of its file, without folders; it is not part of cache keys.
        url: its address, instead of ``data``.
    """

    data: bytes = field(default=b"", repr=False)
    media_type: str
    name: str = ""
    url: str = ""

    def __post_init__(self) -> None:
        if bool(self.data) == bool(self.url):
            msg = "A document needs either data or url."
            raise AttachmentError(msg, hint="Pass one of data and url.")

    @property
    def title(self) -> str:
        """Its name in messages to the user and to the model, on one line."""
        return one_line(self.name)[:200] or "document"

    @property
    def file_name(self) -> str:
        """A file name with an extension, by which services recognise the format."""
        extension = next(
            (end for end, kind in _FILE_NAMES.items() if kind == self.media_type), ".txt"
        )
        return self.title if self.title.lower().endswith(extension) else self.title + extension

    @property
    def as_url(self) -> str:
        """The bytes as a data URL."""
        return f"data:{self.media_type};base64,{self.base64}"

    @property
    def base64(self) -> str:
        """The bytes in base64."""
        if not self.data:
            msg = f"This model cannot fetch {self.url}."
            raise AttachmentError(msg, hint="Download the file first, and attach its path.")
        return base64.b64encode(self.data).decode()

    @property
    def text(self) -> str:
        """The text of a document of plain text, decoded."""
        return decode_text(self.data, self.title)


Attachment = Image | Sound | Document


def reject(attachment: Attachment, service: str) -> AttachmentError:
    """Return the error for an attachment that the API of ``service`` cannot carry."""
    msg = f"{service} does not accept {attachment.media_type} in a message."
    return AttachmentError(msg, hint="Use lm.ask, which converts documents to text.")


def attachment_digest(attachment: Attachment) -> str:
    """
    Return the SHA-256 of the content of an attachment, or the URL of one with an address.

    The digest of HTML differs from that of plain text with the same bytes, because only the name
    of a file may distinguish them, and a model gets the text of HTML without its tags.
    """
    url = "" if isinstance(attachment, Sound) else attachment.url
    digest = url or hashlib.sha256(attachment.data).hexdigest()
    is_html = isinstance(attachment, Document) and attachment.media_type == HTML
    return f"{HTML}:{digest}" if is_html else digest


def load_attachment(source: Any) -> Attachment:
    """
    Return the attachment in any source that users have.

    Args:
        source: a path, a URL, the bytes of a file, or what `load_image` accepts: a figure, an
            array, an image of PIL or IPython.

    Raises:
        AttachmentError: the file cannot be read, or its format is not supported.
    """
    if isinstance(source, Image | Sound | Document):
        return source
    if isinstance(source, bytes | bytearray | memoryview):
        return parse_attachment(bytes(source))
    if isinstance(source, str) and source.startswith(("https://", "http://")):
        return _at_address(source)
    if isinstance(source, str | Path) and not str(source).startswith("data:"):
        path = Path(source)
        return parse_attachment(read_file(path), path.name)
    return load_image(source)


def read_file(path: Path) -> bytes:
    """
    Return the bytes of a regular file of at most `MAX_FILE_BYTES`.

    Raises:
        AttachmentError: it is missing, too large, or something else, such as a device.
    """
    try:
        path = path.expanduser()
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a device or a pipe might never end
            reason = "it is not a regular file"
            raise OSError(reason)
        if status.st_size > MAX_FILE_BYTES:
            msg = f"The file {path} is too large: {format_size(status.st_size)}."
            hint = f"No service accepts more than {format_size(MAX_FILE_BYTES)}; attach a part."
            raise AttachmentError(msg, hint=hint)
        return path.read_bytes()
    except (OSError, ValueError, RuntimeError) as error:
        msg = f"Could not read the file {path}: {reason_of(error)}."
        raise AttachmentError(msg, hint="Check the path.") from None


def format_size(count: int) -> str:
    """Return a number of bytes in words, such as ``1.2 MB``."""
    if count < 1000:
        return f"{count} B"
    return f"{count / 1e3:.0f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"


def parse_attachment(data: bytes, name: str = "") -> Attachment:
    """
    Return the attachment in the bytes of a file.

    Raises:
        AttachmentError: the bytes are empty, or their format is not supported.
    """
    what = one_line(name) or "The attachment"
    if not data:
        msg = f"{what} is empty (0 bytes)."
        raise AttachmentError(msg, hint="Check that the file was written completely.")
    media_type = find_media_type(data, name)
    if media_type.startswith("image/"):
        return _load_image_file(data, what)
    if media_type.startswith("audio/"):
        return Sound(data)
    if media_type not in DOCUMENT_TYPES:
        msg = f"The format of {what} is not supported{f' ({media_type})' if media_type else ''}."
        raise AttachmentError(msg, hint=_FORMATS)
    return Document(data=data, media_type=media_type, name=name)


def _load_image_file(data: bytes, what: str) -> Image:
    try:
        return load_image(data)
    except ConfigurationError as error:
        raise AttachmentError(f"{what}: {error}", hint=error.hint) from None


def find_media_type(data: bytes, name: str = "") -> str:
    """Return the MIME type of the bytes of a file; empty if it is unknown."""
    if b"%PDF-" in data[:1024]:  # readers accept a few bytes in front of it
        return PDF
    if data.startswith(b"PK\x03\x04"):
        return _find_zip_type(data)
    if data[4:8] == b"ftyp" and data[8:12] in _IMAGE_BRANDS:
        return ""  # HEIC and AVIF, which services do not accept
    for kind in (Image, Sound):
        with suppress(ConfigurationError):
            return kind(data).media_type
    return _find_text_type(data, name)


def _find_zip_type(data: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return ""
    return DOCX if "word/document.xml" in names else "application/zip"


def _find_text_type(data: bytes, name: str) -> str:
    try:
        text = decode_text(data, name)
    except AttachmentError:
        return ""
    if "\0" in text:
        return ""
    start = text[:500].lstrip().lower()
    if start.startswith(("<!doctype html", "<html")):
        return HTML
    return _EXTENSIONS.get(Path(name).suffix.lower(), PLAIN)


def decode_text(data: bytes, name: str = "") -> str:
    """
    Return the text in ``data``: UTF-8, or UTF-16 or UTF-32 with a byte order mark.

    Raises:
        AttachmentError: it has another encoding, or is not text.
    """
    encoding = next(
        (known for mark, known in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8"
    )
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        msg = f"{name or 'The attachment'} is not text in UTF-8."
        raise AttachmentError(msg, hint="Save it as UTF-8, or attach another format.") from None


def _at_address(url: str) -> Attachment:
    """Return the image or PDF at an address, which the service fetches."""
    path = urlsplit(url).path
    media_type = guess_type(path)[0] or ""
    if media_type.startswith("image/"):
        return Image(url=url)
    if media_type == PDF:
        return Document(media_type=PDF, name=Path(unquote(path)).name, url=url)
    msg = f"The address {url} does not end like that of an image or a PDF."
    raise AttachmentError(msg, hint="Download the file first, and attach its path.")
