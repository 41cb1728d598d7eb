"""Documents written by the tests: PDF, also encrypted, DOCX, and audio."""

from __future__ import annotations

import hashlib
import io
import struct
import wave
import zipfile
from collections.abc import Sequence

# In place of the text of a page: a page with a picture only, and one with nothing on it.
SCANNED, BLANK = "\0scanned", "\0blank"

_PADDING = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")
_PERMISSIONS = -4
_ID = b"0123456789abcdef"


def write_pdf(
    pages: Sequence[str], *, password: str | None = None, size: tuple[int, int] = (612, 792)
) -> bytes:
    """
    Return a PDF of these pages.

    With ``password`` it is encrypted (ISO 32000-1, 7.6, revision 2); with an empty one, readers open
    it without asking.
    """
    objects = {3: b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"}
    numbers = range(4, 4 + 2 * len(pages), 2)
    kids = b" ".join(b"%d 0 R" % number for number in numbers)
    objects[1] = b"<</Type/Catalog/Pages 2 0 R>>"
    objects[2] = b"<</Type/Pages/Kids[%s]/Count %d>>" % (kids, len(pages))
    key, encryption = _encrypt(password)
    for number, text in zip(numbers, pages, strict=True):
        objects[number] = (
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 %d %d]/Contents %d 0 R"
            b"/Resources<</Font<</F 3 0 R>>>>>>" % (*size, number + 1)
        )
        drawing = _rc4(_object_key(key, number + 1), _drawing(text)) if key else _drawing(text)
        objects[number + 1] = b"<</Length %d>>stream\n%s\nendstream" % (len(drawing), drawing)
    return _write_file(objects, encryption)


def _drawing(text: str) -> bytes:
    if text == BLANK:
        return b""
    if text == SCANNED:
        return b"0.5 g 100 100 200 200 re f"
    lines = text.encode("latin-1").replace(b"(", b"\\(").replace(b")", b"\\)").split(b"\n")
    shown = b" ".join(b"(%s) Tj 0 -20 Td" % line for line in lines)
    return b"BT /F 18 Tf 72 700 Td %s ET" % shown


def _write_file(objects: dict[int, bytes], encryption: bytes) -> bytes:
    file = io.BytesIO()
    file.write(b"%PDF-1.4\n")
    places = {}
    for number in sorted(objects):
        places[number] = file.tell()
        file.write(b"%d 0 obj%s endobj\n" % (number, objects[number]))
    start = file.tell()
    file.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    file.write(b"".join(b"%010d 00000 n \n" % places[number] for number in sorted(objects)))
    file.write(b"trailer<</Size %d/Root 1 0 R%s>>\n" % (len(objects) + 1, encryption))
    file.write(b"startxref\n%d\n%%%%EOF\n" % start)
    return file.getvalue()


def _encrypt(password: str | None) -> tuple[bytes, bytes]:
    """The key of the file, and the entries of its trailer; empty without a password."""
    if password is None:
        return b"", b""
    padded = (password.encode() + _PADDING)[:32]
    owner = _rc4(hashlib.md5(padded).digest()[:5], padded)
    permissions = struct.pack("<i", _PERMISSIONS)
    key = hashlib.md5(padded + owner + permissions + _ID).digest()[:5]
    user = _rc4(key, _PADDING)
    entries = (
        b"/ID[<%s><%s>]/Encrypt<</Filter/Standard/V 1/R 2/O<%s>/U<%s>/P %d>>"
        % (*(each.hex().encode() for each in (_ID, _ID, owner, user)), _PERMISSIONS)
    )  # fmt: skip
    return key, entries


def _object_key(key: bytes, number: int) -> bytes:
    return hashlib.md5(key + struct.pack("<I", number)[:3] + b"\0\0").digest()[:10]


def _rc4(key: bytes, data: bytes) -> bytes:
    state, j = list(range(256)), 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    i = j = 0
    found = bytearray()
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        found.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(found)


_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def write_docx(body: str, declarations: str = "") -> bytes:
    """
    Return a DOCX file with this XML as its body, such as ``<w:p><w:r><w:t>hi</w:t></w:r></w:p>``.

    ``declarations`` are those of its document type, such as entities.
    """
    parts = {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-'
        'officedocument.wordprocessingml.document.main+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{_RELATIONS}"><Relationship Id="r1" '
        f'Type="{_OFFICE}/officeDocument" Target="word/document.xml"/></Relationships>',
        "word/document.xml": (f"<!DOCTYPE w [{declarations}]>" if declarations else "")
        + f'<w:document xmlns:w="{_WORD}"><w:body>{body}</w:body></w:document>',
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return file.getvalue()


def write_wav(seconds: float) -> bytes:
    """Return a WAV file of silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(1)
        sound.setframerate(8000)
        sound.writeframes(bytes(round(8000 * seconds)))
    return file.getvalue()
