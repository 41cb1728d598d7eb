"""``--attach``: documents and audio in cells."""

from __future__ import annotations

from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from llm_magics.errors import AttachmentError, UsageError
from llm_magics.notebook.completion import complete_word, find_candidates
from tests.support.document_files import BLANK, SCANNED, write_docx, write_pdf, write_wav


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with documents."""
    (tmp_path / "report.pdf").write_bytes(write_pdf(["Signed by Ada", BLANK, SCANNED]))
    (tmp_path / "letter.docx").write_bytes(write_docx("<w:p><w:r><w:t>Dear Bob</w:t></w:r></w:p>"))
    (tmp_path / "talk.wav").write_bytes(write_wav(2))
    (tmp_path / "the data").mkdir()
    (tmp_path / "the data" / "a.csv").write_text("a,b", "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_files_and_variables_are_attached(shell: InteractiveShell, folder: Path) -> None:
    """Any number of them."""
    shell.user_ns["mine"] = (folder / "the data" / "a.csv").read_bytes()
    shell.run_cell_magic("llm", "--attach letter.docx --attach mine", "Who?")
    sent = shell.user_ns["_llm"].text
    assert '<document name="letter.docx">\nDear Bob\n</document>' in sent
    assert '<document name="document">\na,b\n</document>' in sent
    assert sent.endswith("Who?")


def test_a_dry_run_shows_the_way_of_each_file(
    shell: InteractiveShell, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With pages and tokens, which count in the estimate."""
    shell.run_cell_magic("llm", "echo/echo --attach report.pdf --dry-run", "Who?")
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("[attachment]")]
    assert line.startswith("[attachment] report.pdf (PDF, ")
    assert ": sent as text, 3 pages, 1 page without text as pictures, about 1,5" in line
    assert line.endswith("tokens, page 2 is empty")
    assert lines[-1].startswith("about 1,5")


def test_a_dry_run_for_a_service_that_takes_documents(
    shell: InteractiveShell,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is sent unchanged, and its price is known."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    line = "anthropic/claude-haiku-4-5 --attach report.pdf --attach letter.docx --dry-run"
    shell.run_cell_magic("llm", line, "Who?")
    said = capsys.readouterr().out
    assert ": sent unchanged, 3 pages, about 9,000 tokens" in said
    assert "letter.docx (DOCX, " in said
    assert "about 9,0" in said.splitlines()[-1]
    assert "cost $0.01" in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--attach no.pdf", "Could not read the file no.pdf: No such file"),
        ("--attach talk.wav", "echo/echo does not accept audio"),
        ("--attach https://a.example/b.pdf", "does not fetch documents"),
        ("--attach .", "not a regular file"),
    ],
)
def test_what_cannot_be_attached_fails_the_cell(
    shell: InteractiveShell, folder: Path, line: str, words: str
) -> None:
    """Before anything is sent."""
    with pytest.raises(AttachmentError, match=words):
        shell.run_cell_magic("llm", f"echo/echo {line}", "Who?")
    assert "_llm" not in shell.user_ns


def test_a_saved_prompt_has_no_attachments(shell: InteractiveShell, folder: Path) -> None:
    """They belong to a run."""
    with pytest.raises(UsageError, match="--attach"):
        shell.run_cell_magic("llm", "--save mine --attach report.pdf", "Who?")


def test_several_models_get_the_same_files(shell: InteractiveShell, folder: Path) -> None:
    """Each in its own way."""
    shell.run_cell_magic("llm", "echo/echo echo/lorem -o both --attach letter.docx", "Who?")
    assert "Dear Bob" in shell.user_ns["both"]["text"].iloc[0]


def test_paths_are_completed(shell: InteractiveShell, folder: Path) -> None:
    """Folders with their separator, names with spaces in quotes, and variables."""
    shell.user_ns["letters"] = b""
    assert complete_word("%%llm --attach le", "le") == ["letter.docx", "letters"]
    assert complete_word("%%llm --image rep", "rep") == ["report.pdf"]
    assert "the data/" in find_candidates("%%llm", "--attach th").names
    (folder / "sub").mkdir()
    (folder / "sub" / "x.pdf").write_bytes(b"")
    (folder / "sub" / ".hidden").write_bytes(b"")
    assert complete_word("%%llm --attach su", "su") == ["sub/"]
    assert complete_word("%%llm --attach sub/", "sub/") == ["sub/x.pdf"]
    assert complete_word("%%llm --attach sub/.", "sub/.") == ["sub/.hidden"]
    assert complete_word("%%llm --attach missing/", "missing/") == []
