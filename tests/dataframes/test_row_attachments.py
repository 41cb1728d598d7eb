"""Files for the prompts of rows: ``df.llm.prompt(…, attachments="file")``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import llm_magics as lm
from llm_magics.attachments import Image
from llm_magics.dataframes.row_attachments import AttachedText, RowAttachments
from llm_magics.errors import AttachmentError, UsageError
from llm_magics.runtime.batch import without_attachments
from tests.support.document_files import BLANK, write_pdf

MODEL = "echo/echo"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with contracts, and a file outside of it."""
    work = tmp_path / "work"
    (work / "sub").mkdir(parents=True)
    (work / "a.pdf").write_bytes(write_pdf(["Signed by Ada"]))
    (work / "sub" / "b.txt").write_text("Signed by Bob", "utf-8")
    (work / "broken.pdf").write_bytes(b"%PDF-1.4 rubbish")
    (tmp_path / "secret.txt").write_text("the key", "utf-8")
    monkeypatch.chdir(work)
    return work


def ask(files: Any, **options: Any) -> pd.DataFrame:
    """The answers to a question about each file."""
    frame = pd.DataFrame({"file": pd.Series(files, dtype=object)})
    answers: pd.DataFrame = frame.llm.prompt(
        "Who signed {{ file }}?", model=MODEL, attachments="file", **options
    )
    return answers


def test_each_row_gets_its_file(folder: Path) -> None:
    """By its path; a row without a file is skipped."""
    answers = ask(["a.pdf", str(folder / "sub" / "b.txt"), None, Path("sub/../a.pdf")])
    first, second, none, again = answers["answer"]
    assert "Signed by Ada" in first
    assert first.endswith("Who signed a.pdf?")
    assert "Signed by Bob" in second
    assert none is None
    assert "Signed by Ada" in again
    assert answers.llm.report.counts["missing"] == 1


def test_bytes_and_lists_are_attached(folder: Path) -> None:
    """As in a column of Parquet files."""
    text = (folder / "sub" / "b.txt").read_bytes()
    frame = pd.DataFrame({"data": [text], "files": [np.array(["a.pdf", None], dtype=object)]})
    answers = frame.llm.prompt("Who?", model=MODEL, attachments=["data", "files"])
    assert answers["answer"].iloc[0].index("Bob") < answers["answer"].iloc[0].index("Ada")
    with pytest.raises(UsageError, match=r"Row 0 .* 1\.5"):
        ask([1.5])


def test_equal_rows_are_sent_once(folder: Path) -> None:
    """Rows that differ in their files are not equal."""
    frame = pd.DataFrame({"file": ["a.pdf", "sub/b.txt", "a.pdf"]})
    answers = frame.llm.prompt("Who?", model=MODEL, attachments="file")
    assert answers.llm.report.sent == 2
    assert "Bob" in answers["answer"].iloc[1]
    assert answers["answer"].iloc[0] == answers["answer"].iloc[2]


def test_answers_are_found_by_the_content(folder: Path) -> None:
    """Also in another file; a file that was changed is sent again."""
    frame = pd.DataFrame({"file": ["a.pdf"]})
    frame.llm.prompt("Who?", model=MODEL, attachments="file")
    (folder / "a.pdf").rename(folder / "c.pdf")
    renamed = pd.DataFrame({"file": ["c.pdf"]}).llm.prompt("Who?", model=MODEL, attachments="file")
    assert renamed.llm.report.sent == 0
    (folder / "c.pdf").write_bytes(write_pdf(["Signed by Eve"]))
    changed = pd.DataFrame({"file": ["c.pdf"]}).llm.prompt("Who?", model=MODEL, attachments="file")
    assert "Eve" in changed["answer"].iloc[0]


@pytest.mark.parametrize(
    "path",
    ["../secret.txt", "sub/../../secret.txt", "/etc/passwd", "link.txt", "links/secret.txt", "~/../.."],
)  # fmt: skip
def test_a_path_outside_of_the_folder_is_refused(folder: Path, path: str) -> None:
    """Links are resolved; a table may be from anybody, and nothing of it is sent."""
    if sys.platform != "win32":
        (folder / "link.txt").symlink_to(folder.parent / "secret.txt")
        (folder / "links").symlink_to(folder.parent)
    sent = len(lm.runs())
    if path.startswith("~") or (sys.platform == "win32" and "link" in path):
        path = f"../{path}"
    with pytest.raises(UsageError, match=r"Row 1 .* outside"):
        ask(["a.pdf", path])
    assert len(lm.runs()) == sent


def test_a_folder_can_be_named(folder: Path) -> None:
    """Relative paths start there, and the working folder is outside of it then."""
    answers = ask(["b.txt"], attachments_root="sub")
    assert "Bob" in answers["answer"].iloc[0]
    with pytest.raises(UsageError, match="outside of"):
        ask(["../a.pdf"], attachments_root=folder / "sub")
    with pytest.raises(UsageError, match="does not exist"):
        ask(["a.pdf"], attachments_root="missing")
    with pytest.raises(UsageError, match="attachments_root"):
        ask(["a.pdf"], attachments_root="a\0b")


@pytest.mark.parametrize("path", [".env", ".ssh/key", "sub/../.env", "link.txt"])
def test_a_hidden_file_is_refused(folder: Path, path: str) -> None:
    """It may contain keys, for example if the working folder is the home folder."""
    (folder / ".ssh").mkdir()
    for name in (".env", ".ssh/key"):
        (folder / name).write_text("the key", "utf-8")
    if path == "link.txt":
        if sys.platform == "win32":
            path = ".env"
        else:
            (folder / path).symlink_to(folder / ".env")
    sent = len(lm.runs())
    with pytest.raises(UsageError, match=r"Row 1 .* hidden"):
        ask(["a.pdf", path])
    assert len(lm.runs()) == sent
    answers = ask(["key"], attachments_root=".ssh")
    assert "the key" in answers["answer"].iloc[0]


def test_the_same_bytes_as_text_and_html_have_different_answers(folder: Path) -> None:
    """The model gets HTML without its tags, and each answer is stored for its own file."""
    for name in ("page.txt", "page.html"):
        (folder / name).write_text("<p>Signed by <b>Eve</b></p>", "utf-8")
    frame = pd.DataFrame({"file": ["page.txt", "page.html"]})
    for _ in range(2):  # the second time from the cache
        answers = lm.prompt(frame, "Who?", model=MODEL, attachments="file")
        assert "<b>Eve</b>" in answers.iloc[0]
        assert "Signed by Eve" in answers.iloc[1]


def test_a_list_that_contains_itself_is_refused(folder: Path) -> None:
    """With a message instead of a RecursionError."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(UsageError, match="contains itself"):
        ask([endless])


@pytest.mark.parametrize("path", ["~/secret.txt", "file:///etc/passwd", "data:text/plain,hi"])
def test_only_paths_and_addresses_of_the_web_mean_something(folder: Path, path: str) -> None:
    """All else is the name of a file, which does not exist."""
    with pytest.raises(AttachmentError, match="Could not read the file"):
        ask([path], on_error="raise")


@pytest.mark.parametrize("path", ["a\0b", "\0"])
def test_an_invalid_path_is_refused(folder: Path, path: str) -> None:
    """With its row."""
    with pytest.raises(UsageError, match="Row 0"):
        ask([path])


@pytest.mark.parametrize("address", ["https://a.example/b.pdf", " HTTP://169.254.169.254/a.png"])
def test_an_address_is_refused(folder: Path, address: str) -> None:
    """The service would fetch it, and the answer could reveal its content."""
    with pytest.raises(UsageError, match="Row 0") as caught:
        ask([address])
    assert "allow_urls=True" in str(caught.value.hint)


def test_addresses_can_be_allowed(folder: Path) -> None:
    """The model gets an image at an address; echo names it."""
    answers = ask(["https://a.example/b.png"], allow_urls=True)
    assert "[picture: https://a.example/b.png]" in answers["answer"].iloc[0]


def test_a_file_that_cannot_be_read_fails_its_row(folder: Path) -> None:
    """The others are answered."""
    with pytest.warns(UserWarning, match="2 failed"):
        answers = ask(["a.pdf", "broken.pdf", "missing.pdf"])
    assert "Ada" in answers["answer"].iloc[0]
    failed = answers.llm.report.frame()
    assert list(failed.index) == [1, 2]
    assert "broken.pdf is not a valid PDF file" in failed["error"].iloc[0]
    assert "missing.pdf: No such file" in failed["error"].iloc[1]
    with pytest.raises(AttachmentError, match=r"broken\.pdf"):
        ask(["broken.pdf"], on_error="raise")


def test_gaps_are_counted(folder: Path) -> None:
    """In one warning for all rows."""
    for name in ("c.pdf", "d.pdf"):
        (folder / name).write_bytes(write_pdf([name, BLANK]))
    with pytest.warns(
        UserWarning, match=r"not get all pages of 2 documents\. .\.pdf: page 2 is empty"
    ):
        ask(["a.pdf", "c.pdf", "d.pdf"])


def test_an_estimate_counts_files_and_pages(folder: Path) -> None:
    """Those that cannot be read too, before anything is sent."""
    estimate = ask(["a.pdf", "sub/b.txt", "broken.pdf"], dry_run=True)
    assert str(estimate).endswith("attachments: 2 sent as text, 1 not readable, 1 page")
    assert estimate.prompts == 2
    plain = pd.DataFrame({"a": ["x"]}).llm.prompt("{{ a }}", model=MODEL, dry_run=True)
    assert "attachments" not in str(plain)


def test_a_schema_extracts_from_files(folder: Path) -> None:
    """As from text."""
    frame = pd.DataFrame({"file": ["a.pdf"]})
    run = frame.llm.prompt(
        "The name?", schema="name", model=MODEL, attachments="file", dry_run=True
    )
    assert run.prompts == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"attachments": 3}, "Invalid value for attachments: 3"),
        ({"attachments": ["a", 3]}, "Invalid value for attachments"),
        ({"attachments": "fiel"}, 'no column "fiel" with attachments'),
        ({"attachments": "file", "allow_urls": "yes"}, "Invalid value for allow_urls"),
        ({"attachments": "file", "attachments_root": 3}, "Invalid value for attachments_root"),
    ],
)
def test_invalid_arguments_are_refused(folder: Path, options: dict[str, Any], words: str) -> None:
    """Before a file is opened."""
    with pytest.raises(UsageError, match=words):
        pd.DataFrame({"file": ["a.pdf"]}).llm.prompt("Who?", model=MODEL, **options)


def test_the_column_of_files_is_not_overwritten(folder: Path) -> None:
    """Also if the prompt does not name it."""
    frame = pd.DataFrame({"file": ["a.pdf"]})
    with pytest.raises(UsageError, match="file"):
        frame.llm.prompt("Who?", model=MODEL, attachments="file", into="file")
    assert frame["file"].tolist() == ["a.pdf"]


def test_other_methods_name_the_one_that_takes_files(folder: Path) -> None:
    """Extraction from files is a prompt with a schema."""
    frame = pd.DataFrame({"file": ["a.pdf"]})
    with pytest.raises(UsageError, match="attachments") as caught:
        frame.llm.extract("file", "name", attachments="file")
    assert "also take a schema" in str(caught.value.hint)


def test_a_list_of_paths_can_be_asked_about(folder: Path) -> None:
    """Its column is called text."""
    answers = lm.prompt(["a.pdf"], "Who?", model=MODEL, attachments="text")
    assert "Ada" in answers.iloc[0]


def test_stored_responses_hold_no_files(folder: Path) -> None:
    """Those of thousands of rows would fill the memory."""
    response = lm.ask(
        "Who?", model=MODEL, attachments=["a.pdf"], images=[Image(url="https://a.example/b.png")]
    )
    assert response.messages[-1].attachments
    bare = without_attachments(response)
    assert (bare.messages[-1].attachments, bare.messages[-1].images) == ((), ())
    assert bare.text == response.text
    assert without_attachments(bare) is bare


def test_texts_are_equal_only_with_equal_files() -> None:
    """As keys of a dictionary."""
    one, other = AttachedText("a", (Path("x"),)), AttachedText("a", (Path("y"),))
    assert one == AttachedText("a", (Path("x"),))
    assert len({one, other, AttachedText("a", (Path("x"),))}) == 2
    assert one != "a"


def test_the_working_folder_is_the_root(folder: Path) -> None:
    """By default; the working folder at the time of the call."""
    assert RowAttachments.of("file", None, False).root == folder.resolve()
    assert RowAttachments.of(None, None, False).columns == ()
