"""The text of documents, page by page, and pages as pictures."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from llm_magics.documents import CSV, DOCX, HTML, PDF, PLAIN, Document
from llm_magics.errors import AttachmentError
from llm_magics.runtime import document_text
from llm_magics.runtime.document_text import (
    Page,
    inspect_pdf,
    read_pages,
    render_pages,
)
from llm_magics.runtime.html_text import html_to_text
from tests.support.document_files import BLANK, SCANNED, write_docx, write_pdf


def pdf(pages: list[str], **options: Any) -> Document:
    """A document with these pages."""
    return Document(data=write_pdf(pages, **options), media_type=PDF, name="report.pdf")


def paragraph(text: str) -> str:
    """A paragraph of a DOCX file."""
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def test_a_pdf_is_read_page_by_page() -> None:
    """A scanned page has no text; a blank one has nothing at all."""
    assert list(read_pages(pdf(["One (1)\nline two", SCANNED, BLANK, "Four"]))) == [
        Page("One (1)\nline two"),
        Page(""),
        Page("", is_empty=True),
        Page("Four"),
    ]


def test_other_documents_have_one_page() -> None:
    """Text has the line breaks of Unix."""
    text = Document(data=b"\xef\xbb\xbfa,b\r\n1,2\r\n", media_type=CSV)
    assert list(read_pages(text)) == [Page("a,b\n1,2")]
    assert list(read_pages(Document(data=b" \n", media_type=PLAIN))) == [Page("", is_empty=True)]
    page = Document(data=b"<p>a</p>", media_type=HTML)
    assert list(read_pages(page)) == [Page("a")]


def test_a_docx_is_read_with_its_tables() -> None:
    """Cells of a row stay on one line."""
    cells = "".join(f"<w:tc>{paragraph(text)}</w:tc>" for text in ("a &lt;", "b"))
    body = f"{paragraph('Hello')}<w:tbl><w:tr>{cells}</w:tr></w:tbl>{paragraph('end')}"
    document = Document(data=write_docx(body), media_type=DOCX)
    (page,) = read_pages(document)
    assert page.text.split() == ["Hello", "a", "<", "|", "b", "end"]
    assert "a < | b" in page.text.replace("\n", "")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<title>t</title><style>a</style><script>evil()</script>seen", "seen"),
        ("<head><title>t</title></head><body>seen", "seen"),
        ("<head><title>t<body><p>seen</body>", "seen"),
        ("<h2>A\n  b</h2><p>c</p>d", "## A b\n\nc\nd"),
        ("<ul><li>1<li>2</ul>", "- 1\n- 2"),
        ("<table><tr><th>a<th>b<tr><td><p>c</p><td>d</table>", "a | b\nc | d"),
        ("<pre>if a:\n  b</pre>", "if a:\n  b"),
        ("a &amp;&#32;b<br>c", "a & b\nc"),
        ('<p title="a > b" >c</p>', "c"),
        ('<p title="open>c</p><b>d', "c\nd"),
        ("a < b <!-- c --> d <!doctype html>e <!-- f", "a < b d e"),
        ("<script>if (a </b) '</scripts>' </SCRIPT>c<style>d", "c"),
        (f"&#{'1' * 5000};", f"&#{'1' * 5000};"),
        ("<svg><title>a</title><p>b</svg>c", "c"),
    ],
)
def test_html_is_read_without_what_a_reader_does_not_see(source: str, text: str) -> None:
    """Headings, lists and tables keep their form."""
    assert html_to_text(source) == text


@pytest.mark.parametrize(
    "part",
    ["<", "<!--", "<!", "<a ", "<a '", '<p "', "<script>", "<svg>", "</", "&#", "<td>", "<tr><td><p>"],
)  # fmt: skip
def test_html_is_read_in_time_proportional_to_its_length(part: str) -> None:
    """A file from a table may be made to take for ever; these steps are counted, not timed."""
    steps = [count_steps(lambda n=n: html_to_text(part * n)) for n in (200, 400)]  # type: ignore[misc]
    assert steps[1] < 2.5 * steps[0] + 100


def count_steps(work: Callable[[], object]) -> int:
    """The number of lines of Python that run."""
    steps = 0

    def trace(frame: object, event: str, argument: object) -> object:
        nonlocal steps
        steps += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return steps


def test_a_pdf_with_a_password_is_refused() -> None:
    """One with an empty password can be read."""
    with pytest.raises(AttachmentError, match="encrypted") as caught:
        read_pages(pdf(["a"], password="secret"))
    assert caught.value.hint == "Save a copy without a password, and attach that."
    opened = pdf(["Hello"], password="")
    assert list(read_pages(opened)) == [Page("Hello")]
    assert inspect_pdf(opened) == (1, True)
    assert inspect_pdf(pdf(["a", "b"])) == (2, False)


@pytest.mark.parametrize(
    ("data", "media_type", "words"),
    [
        (b"%PDF-1.4 rubbish", PDF, "not a valid PDF file"),
        (write_pdf(["a"])[:200], PDF, "not a valid PDF file"),
        (write_pdf([]), PDF, "not a valid PDF file"),
        (write_docx("<w:p>")[:300], DOCX, "not a valid DOCX file"),
        (write_docx("<w:p>"), DOCX, "not a valid DOCX file"),
    ],
)
def test_a_damaged_file_is_refused(data: bytes, media_type: str, words: str) -> None:
    """With the name of the file, and no traceback of the library."""
    with pytest.raises(AttachmentError, match=f"x is {words}"):
        read_pages(Document(data=data, media_type=media_type, name="x"))


def test_a_damaged_file_after_an_encrypted_one_is_damaged() -> None:
    """PDFium repeats the error of the file before."""
    for data, words in [
        (write_pdf(["a"], password="secret"), "encrypted"),
        (write_pdf([]), "valid"),
    ]:
        with pytest.raises(AttachmentError, match=words):
            read_pages(Document(data=data, media_type=PDF, name="x"))


def test_a_pdf_with_2000_pages_is_refused() -> None:
    """Before any page is read."""
    with pytest.raises(AttachmentError, match="2,000 pages") as caught:
        read_pages(pdf([BLANK] * 2000))
    assert caught.value.hint == "Split it, and attach the part that you need."


def test_a_file_that_unpacks_to_gigabytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the sizes in its directory, without unpacking it."""
    monkeypatch.setattr(document_text, "_MAX_UNPACKED_BYTES", 1_000_000)
    file = io.BytesIO(write_docx(paragraph("a")))
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/media/zeros.bin", bytes(2_000_000))
    with pytest.raises(AttachmentError, match="2 MB"):
        read_pages(Document(data=file.getvalue(), media_type=DOCX))


@pytest.mark.parametrize(
    ("declared", "text", "words"),
    [
        (
            '<!ENTITY a "aaaaaaaaaa">'
            + "".join(f'<!ENTITY a{n} "{f"&a{n - 1 or str()};" * 10}">' for n in range(1, 10)),
            "&a9;",
            "not a valid DOCX file",
        ),
        ("", f"{'<w:p><w:r><w:t>' * 2000}x{'</w:t></w:r></w:p>' * 2000}", "not a valid DOCX file"),
    ],
)
def test_a_file_that_would_fill_the_memory_is_refused(
    declared: str, text: str, words: str
) -> None:
    """Entities that unfold, and elements inside each other."""
    document = Document(data=write_docx(text, declared), media_type=DOCX)
    with pytest.raises(AttachmentError, match=words):
        read_pages(document)


def test_a_docx_cannot_read_other_files(tmp_path: Path) -> None:
    """Not by an entity, which is left out."""
    (tmp_path / "secret.txt").write_text("the key", "utf-8")
    declared = f'<!ENTITY a SYSTEM "{(tmp_path / "secret.txt").as_uri()}">'
    document = Document(data=write_docx(paragraph("x&a;y"), declared), media_type=DOCX)
    assert list(read_pages(document)) == [Page("xy")]


def test_too_much_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model reads it."""
    monkeypatch.setattr(document_text, "_MAX_CHARACTERS", 5)
    for document in (pdf(["abc", "def"]), Document(data=b"abcdef", media_type=PLAIN)):
        with pytest.raises(AttachmentError, match="5 characters"):
            read_pages(document)


def test_pages_are_drawn_within_bounds() -> None:
    """The picture of a page of 5 metres is as large as that of any other."""
    (small,) = render_pages(pdf([SCANNED]), [0])
    (large,) = render_pages(pdf([SCANNED], size=(14_400, 7_200)), [0])
    assert PIL.Image.open(io.BytesIO(small.data)).size == (1212, 1568)
    assert PIL.Image.open(io.BytesIO(large.data)).size == (1568, 784)


@pytest.mark.parametrize(
    ("package", "document"),
    [
        ("pypdfium2", pdf(["not read before"])),
        ("mammoth", Document(data=write_docx(paragraph("not read before")), media_type=DOCX)),
    ],
)
def test_a_missing_package_is_named(
    package: str, document: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the line that installs it."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(AttachmentError, match=f"the package {package} is needed") as caught:
        read_pages(document)
    assert caught.value.hint == 'Install it: pip install "jupyter-llm-magics[documents]"'


def test_a_document_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversation sends it again with each prompt; its content identifies it, not its name."""
    first = read_pages(pdf(["read once"]))
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    again = Document(data=write_pdf(["read once"]), media_type=PDF, name="other.pdf")
    assert read_pages(again) is first
