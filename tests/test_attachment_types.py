"""What a file is, by its bytes: documents, audio and images."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from llm_magics.attachments import Image, Sound
from llm_magics.documents import (
    CSV,
    DOCX,
    HTML,
    MARKDOWN,
    MAX_FILE_BYTES,
    PDF,
    PLAIN,
    Document,
    attachment_digest,
    decode_text,
    find_media_type,
    load_attachment,
    parse_attachment,
)
from llm_magics.errors import AttachmentError
from tests.support.document_files import write_docx, write_pdf, write_wav

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)


@pytest.mark.parametrize(
    ("data", "name", "media_type"),
    [
        (write_pdf(["a"]), "report.txt", PDF),
        (b"\n\n%PDF-1.7 after an empty line", "", PDF),
        (write_docx(""), "letter.zip", DOCX),
        (b"PK\x03\x04 broken", "letter.docx", ""),
        (PNG, "picture.pdf", "image/png"),
        (write_wav(0.1), "sound.mp3", "audio/wav"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "photo.jpg", ""),
        (b"\0\0\0\x18ftypM4A \0\0\0\0", "", "audio/mp4"),
        (b"<!DOCTYPE html><p>hi", "page.txt", HTML),
        (b"  <HTML><p>hi", "", HTML),
        (b"<p>hi</p>", "page.html", HTML),
        (b"a,b\n1,2\n", "table.CSV", CSV),
        (b"# Title", "notes.md", MARKDOWN),
        (b"a,b\n1,2\n", "", PLAIN),
        ("früh".encode("utf-16"), "a.txt", PLAIN),
        ("früh".encode("latin-1"), "a.txt", ""),
        (b"MZ\x90\0\x03\0", "setup.txt", ""),
    ],
)
def test_the_bytes_decide_what_a_file_is(data: bytes, name: str, media_type: str) -> None:
    """The name counts only between formats that are all plain text."""
    assert find_media_type(data, name) == media_type


def test_each_kind_is_loaded_as_its_class(tmp_path: Path) -> None:
    """From a path, a string, or bytes; what is loaded already is returned."""
    path = tmp_path / "report.pdf"
    path.write_bytes(write_pdf(["a"]))
    found = load_attachment(str(path))
    assert found == load_attachment(path)
    assert isinstance(found, Document)
    assert (found.title, found.media_type) == ("report.pdf", PDF)
    assert load_attachment(found) is found
    assert load_attachment(PNG) == Image(PNG)
    assert load_attachment(bytearray(write_wav(0.1))) == Sound(write_wav(0.1))


def test_an_address_is_an_image_or_a_pdf() -> None:
    """By the end of its path, because nothing is fetched."""
    assert load_attachment("https://a.example/b.PNG?size=1") == Image(
        url="https://a.example/b.PNG?size=1"
    )
    found = load_attachment("https://a.example/the%20report.pdf#page=2")
    assert isinstance(found, Document)
    assert (found.media_type, found.title) == (PDF, "the report.pdf")
    with pytest.raises(AttachmentError, match="does not end like that of an image or a PDF"):
        load_attachment("https://a.example/report")


def test_the_digest_is_that_of_the_content() -> None:
    """Names do not count, and an address is its own digest."""
    one = parse_attachment(b"# a", "a.md")
    other = parse_attachment(b"# a", "b.txt")
    assert one != other
    assert attachment_digest(one) == attachment_digest(other)
    assert attachment_digest(one) != attachment_digest(parse_attachment(b"# b", "a.md"))
    # HTML is converted to text, so the model gets something else.
    assert attachment_digest(one) != attachment_digest(parse_attachment(b"# a", "a.html"))
    assert (
        attachment_digest(load_attachment("https://a.example/b.pdf")) == "https://a.example/b.pdf"
    )


@pytest.mark.parametrize(
    ("data", "name", "words"),
    [
        (b"", "a.pdf", "a.pdf is empty"),
        (b"PK\x03\x04 broken", "a.docx", "The format of a.docx is not supported"),
        (b"\x00\x01\x02", "", "The format of The attachment is not supported"),
    ],
)
def test_what_is_not_supported_is_refused(data: bytes, name: str, words: str) -> None:
    """With the name of the file."""
    with pytest.raises(AttachmentError, match=words):
        parse_attachment(data, name)


def test_a_zip_archive_is_named_as_one(tmp_path: Path) -> None:
    """A spreadsheet or presentation is not a document that can be read."""
    import zipfile

    path = tmp_path / "table.xlsx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", "")
    with pytest.raises(AttachmentError, match=r"table\.xlsx .*application/zip"):
        load_attachment(path)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    """Missing ones, folders, and those that are too large, of which nothing is read."""
    with pytest.raises(AttachmentError, match=r"no\.pdf"):
        load_attachment(tmp_path / "no.pdf")
    with pytest.raises(AttachmentError, match="not a regular file"):
        load_attachment(tmp_path)
    with pytest.raises(AttachmentError, match="Could not read the file"):
        load_attachment("a\0b.pdf")
    large = tmp_path / "large.pdf"
    with large.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(AttachmentError, match=r"large\.pdf .*100\.0 MB"):
        load_attachment(large)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX's")
def test_a_pipe_is_refused(tmp_path: Path) -> None:
    """Opening it would wait for a writer, perhaps for ever."""
    os.mkfifo(tmp_path / "pipe.pdf")
    with pytest.raises(AttachmentError, match="not a regular file"):
        load_attachment(tmp_path / "pipe.pdf")


def test_a_name_is_one_line() -> None:
    """A file may have any name, and it appears in prompts and messages."""
    document = Document(data=b"a", media_type=PLAIN, name="a\nb\x1b[31m.txt")
    assert document.title == "a b[31m.txt"
    assert document.file_name == document.title
    assert replace(document, name="").file_name == "document.txt"
    assert Document(data=b"a", media_type=PDF, name="scan").file_name == "scan.pdf"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_is_decoded_by_its_byte_order_mark(encoding: str) -> None:
    """The mark itself is not part of the text."""
    assert decode_text("früh".encode(encoding)) == "früh"


def test_a_document_is_either_bytes_or_an_address() -> None:
    """As an image."""
    for data, url in ((b"", ""), (b"a", "https://a.example")):
        with pytest.raises(AttachmentError, match="data or url"):
            Document(data=data, media_type=PDF, url=url)
    with pytest.raises(AttachmentError, match=r"https://a\.example"):
        Document(media_type=PDF, url="https://a.example").base64  # noqa: B018
