"""Versions of prompt files in real git repositories: found, compared, and read without side effects."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics.errors import TemplateError, UsageError
from llm_magics.runtime.prompts import prompt_files, prompt_versions
from llm_magics.runtime.prompts.prompt_versions import split_revision
from tests.support.telemetry import configure

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(*arguments: str, folder: Path | None = None) -> str:
    """What git writes; its settings are of this test alone."""
    environment = {name: value for name, value in os.environ.items() if "GIT_" not in name}
    environment |= {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "A",
        "GIT_AUTHOR_EMAIL": "a@example.org",
        "GIT_COMMITTER_NAME": "A",
        "GIT_COMMITTER_EMAIL": "a@example.org",
    }
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def write(text: str, name: str = "brief", folder: Path | None = None) -> Path:
    """A prompt file in ``folder``, by default here."""
    path = (folder or Path.cwd()) / "prompts" / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def commit(text: str, name: str = "brief", folder: Path | None = None) -> str:
    """Commit a version of a prompt file; returns its commit."""
    write(text, name, folder)
    git("add", "-A")
    git("commit", "-qm", "a version")
    return git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with three versions of a prompt: one, two and three; the file itself has four."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    git("init", "-q", "-b", "main")
    for word in ("one", "two", "three"):
        commit(f"{word}: {{{{ input }}}}")
    git("tag", "second", "HEAD~1")
    write("four: {{ input }}")
    return folder


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("brief", "four"),
        ("brief@HEAD", "three"),
        ("brief@HEAD~1", "two"),
        ("brief@HEAD~2", "one"),
        ("brief@second", "two"),
        ("brief@main", "three"),
        ("brief@main@{0}", "three"),
        ("prompts/brief.md@second", "two"),
        ("brief.md@second", "two"),
    ],
)
def test_versions_by_their_revision(repository: Path, name: str, expected: str) -> None:
    """The file of the folder without a revision; else what git names by a commit, branch or tag."""
    assert lm.ask("hello", model="echo/echo", template=name).text.strip() == f"{expected}: hello"


def test_a_commit_by_its_identifier(repository: Path) -> None:
    """In full or abbreviated."""
    identifier = git("rev-parse", "HEAD~2")
    for each in (identifier, identifier[:8]):
        assert prompt_files.load(f"brief@{each}").text == "one: {{ input }}"


def test_from_a_folder_below(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook finds the prompts of the folders above, and their versions."""
    (repository / "notebooks" / "deep").mkdir(parents=True)
    monkeypatch.chdir(repository / "notebooks" / "deep")
    assert prompt_files.load("brief@HEAD~1").text == "two: {{ input }}"


def test_a_file_that_no_longer_exists(repository: Path) -> None:
    """Its versions are still there, with the whole folder gone."""
    shutil.rmtree(repository / "prompts")
    assert prompt_files.load("brief@HEAD~1").text == "two: {{ input }}"


def test_a_file_with_the_mark_in_its_name(repository: Path) -> None:
    """It is found by its full name, as before."""
    write("mine", "brief@home")
    assert prompt_files.load("brief@home").text == "mine"


def test_digests(repository: Path) -> None:
    """Equal contents have the same digest, whatever their line ends; versions differ."""
    path = write("three: {{ input }}")
    now, then = prompt_files.load("brief"), prompt_files.load("brief@HEAD")
    assert now.digest == then.digest
    assert now.name == then.name == "brief"
    assert len(now.digest) == 16
    assert prompt_files.load("brief@HEAD~1").digest != now.digest
    path.write_bytes(b"---\r\nsystem: S\r\n---\r\nthree\r\n")
    windows = prompt_files.load("brief").digest
    path.write_bytes(b"---\nsystem: S\n---\nthree\n")
    assert prompt_files.load("brief").digest == windows


def test_the_digest_is_known_of_a_call(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces have the name and the digest of the prompt file; a prompt without one has neither."""
    telemetry = configure(monkeypatch)
    lm.ask("hello", model="echo/echo", template="brief@HEAD")
    assert telemetry.attributes["gen_ai.prompt.name"] == "brief"
    assert telemetry.attributes["gen_ai.prompt.version"] == prompt_files.load("brief@HEAD").digest
    telemetry.exporter.clear()
    lm.ask("hello", model="echo/echo")
    assert not {name for name in telemetry.attributes if "prompt" in name}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("brief@nowhere", "no revision nowhere"),
        ("brief@HEAD~9", "no revision HEAD~9"),
        ("brief@", "is not a revision"),
        ("brief@HEAD:other", "is not a revision"),
        ("brief@HEAD other", "is not a revision"),
        ("brief@--output=stolen", "no revision --output=stolen"),
        ("brief@--help", "no revision --help"),
        ("brief@-n1", "no revision -n1"),
        ("brief@^HEAD", r"no revision \^HEAD"),
        ("brief@HEAD..HEAD", "no revision HEAD..HEAD"),
        ("absent@HEAD", "absent.md is not in the revision HEAD"),
        ("../brief@HEAD", "is not a valid template name"),
    ],
)
def test_mistakes(repository: Path, name: str, said: str) -> None:
    """Each says what is wrong; nothing is taken for an option of git, and nothing is written."""
    before = sorted(repository.rglob("*"))
    with pytest.raises(TemplateError, match=said) as caught:
        prompt_files.load(name)
    assert caught.value.hint
    assert sorted(repository.rglob("*")) == before


def test_outside_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says where git found none."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    write("text")
    with pytest.raises(TemplateError, match="git repository"):
        prompt_files.load("brief@HEAD")


def test_without_git(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what is missing."""
    monkeypatch.setenv("PATH", str(repository))
    with pytest.raises(TemplateError, match="not installed"):
        prompt_files.load("brief@HEAD")


def test_a_git_that_hangs(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is stopped after the maximum time."""
    folder = repository / "bin"
    folder.mkdir()
    (folder / "git").write_text("#!/bin/sh\nexec sleep 60\n", "utf-8")
    (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(prompt_versions, "_TIMEOUT_S", 0.1)
    began = time.monotonic()
    with pytest.raises(TemplateError, match="did not answer"):
        prompt_files.load("brief@HEAD")
    assert time.monotonic() - began < 10


def test_what_is_not_a_text_file(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link, a folder, a file that is too large and one that is not UTF-8 are refused."""
    (repository / "prompts" / "link.md").symlink_to("brief.md")
    write("inside", "x", repository / "prompts" / "folder.md")
    (repository / "prompts" / "latin.md").write_bytes(b"caf\xe9")
    commit("x" * 2000, "large")
    monkeypatch.setattr(prompt_files, "_MAX_BYTES", 1000)
    for name, said in (
        ("link", "not a file"),
        ("folder", "not a file"),
        ("large", "more than 1,000 bytes"),
        ("latin", "Could not read"),
    ):
        with pytest.raises(TemplateError, match=said):
            prompt_files.load(f"{name}@HEAD")


def test_nothing_in_the_repository_runs(repository: Path) -> None:
    """Neither a filter, nor a pager, nor a hook of a repository that others have written."""
    mark = repository / "ran"
    command = f"touch {mark}; cat"
    (repository / ".gitattributes").write_text("*.md filter=evil diff=evil\n", "utf-8")
    git("add", "-A")
    git("commit", "-qm", "attributes")
    for name in ("filter.evil.smudge", "diff.evil.textconv", "core.pager", "core.fsmonitor", "core.sshCommand"):  # fmt: skip
        git("config", name, command)
    assert prompt_files.load("brief@HEAD~1").text == "three: {{ input }}"
    assert not mark.exists()


def test_a_missing_object_is_not_fetched(repository: Path) -> None:
    """A repository without all objects names a command that would run to get them; it does not."""
    mark = repository / "ran"
    blob = git("rev-parse", "HEAD~1:prompts/brief.md")
    git("config", "extensions.partialClone", "origin")
    git("config", "core.repositoryFormatVersion", "1")
    git("config", "remote.origin.url", str(repository))
    git("config", "remote.origin.promisor", "true")
    git("config", "remote.origin.uploadpack", f"touch {mark}; false")
    (repository / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(TemplateError, match="is missing"):
        prompt_files.load("brief@HEAD~1")
    assert not mark.exists()


def test_the_repository_of_the_file_is_used(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one that the environment names, as in a hook of git."""
    other = tmp_path / "other"
    other.mkdir()
    git("init", "-q", folder=other)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert prompt_files.load("brief@HEAD").text == "three: {{ input }}"


@given(st.text(max_size=20))
@settings(max_examples=15)
def test_any_text_after_the_mark(revision: str) -> None:
    """It is a version or a clear error, never another exception."""
    name, found = split_revision(f"brief@{revision}")
    assert (name, found) == ("brief", revision)
    with pytest.raises(TemplateError):
        prompt_files.load(f"brief@{revision}")


def test_an_evaluation_of_a_version(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt file with a revision is a task of ``lm.evaluate``, with its digest in the traces."""
    telemetry = configure(monkeypatch)
    data = [{"input": "a", "expected": "two"}]
    runs = lm.evaluate("brief@HEAD~1", data, models="echo/echo", score="contains")
    assert runs["text"].str.strip().tolist() == ["two: a"]
    assert (
        telemetry.attributes["gen_ai.prompt.version"] == prompt_files.load("brief@HEAD~1").digest
    )


def test_two_versions_on_the_same_inputs(repository: Path) -> None:
    """Each text goes to both; the statistics pair them by text."""
    runs = lm.compare(
        ["a", "b", "c"],
        "echo/echo",
        templates=["brief@HEAD~2", "brief"],
        score="contains",
        expected="four",
    )
    assert runs["asked"].tolist() == ["brief@HEAD~2", "brief"] * 3
    assert runs["template"].tolist() == ["brief@HEAD~2", "brief"] * 3
    assert runs["template_digest"].nunique() == 2
    assert runs["prompt"].tolist() == ["a", "a", "b", "b", "c", "c"]
    assert runs["text"].str.strip().tolist()[:2] == ["one: a", "four: a"]
    assert runs["model"].unique().tolist() == ["echo"]
    assert runs.summary()["score_contains"].tolist() == [0.0, 1.0]
    (difference,) = runs.differences().itertuples()
    assert difference.n == 3


def test_versions_with_several_models(repository: Path) -> None:
    """Each model gets each version; the model of a file counts if none is named."""
    runs = lm.compare("a", ["echo/echo", "echo/lorem"], templates=["brief@HEAD", "brief"])
    assert runs["asked"].tolist() == [
        f"{model}, {name}" for model in ("echo/echo", "echo/lorem") for name in ("brief@HEAD", "brief")
    ]  # fmt: skip
    write("---\nmodel: echo/echo\n---\nfive")
    runs = lm.compare(templates="brief")
    assert runs["provider"].tolist() == ["echo"]
    assert runs["text"].str.strip().tolist() == ["five"]


def test_git_is_asked_once_for_all_prompts(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for each prompt, so that all get the same version."""
    asked: list[str] = []
    read = prompt_files._load_version

    def noted(name: str, revision: str, known: dict[str, Path]) -> prompt_files.PromptFile:
        asked.append(revision)
        return read(name, revision, known)

    monkeypatch.setattr(prompt_files, "_load_version", noted)
    lm.compare([f"text {n}" for n in range(20)], "echo/echo", templates=["brief@HEAD", "brief"])
    assert asked == ["HEAD"]


def test_mistakes_of_a_comparison(repository: Path) -> None:
    """A template that is named twice, and none at all."""
    with pytest.raises(UsageError, match="listed twice"):
        lm.compare("a", "echo/echo", templates=["brief", "brief"])
    with pytest.raises(UsageError, match="needs a list of models"):
        lm.compare("a")


def test_the_commands(repository: Path, shell: InteractiveShell) -> None:
    """``-t`` of a cell takes a revision; ``%llm compare -t A -t B`` compares them."""
    shell.run_cell_magic("llm", "echo/echo -t brief@HEAD~2 -o said", "hello")
    assert shell.user_ns["said"].text.strip() == "one: hello"
    shell.user_ns["texts"] = ["a", "b"]
    line = "compare echo/echo -t brief@HEAD~1 -t brief --prompts texts -o runs"
    summary = shell.run_line_magic("llm", line)
    assert list(summary.index) == ["brief@HEAD~1", "brief"]
    assert len(shell.user_ns["runs"]) == 4
