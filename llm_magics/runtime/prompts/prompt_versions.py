"""
Earlier versions of prompt files, from git: ``NAME@REVISION``.

Only objects that are in the repository are read. Nothing is checked out or fetched, and no filter,
hook or pager runs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from llm_magics._util.text import escape_invisible, one_line
from llm_magics.errors import TemplateError

# The maximum time for one command, in seconds.
_TIMEOUT_S = 10.0

# A revision is one argument without a path after it. Control characters are not allowed in names.
_INVALID = re.compile(r"[:\s\x00-\x1f\x7f]")

# The name of a commit as git writes it.
_COMMIT = re.compile(r"[0-9a-f]{40,64}")

# They would make git use another repository than that of the file.
_LOCATIONS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_NAMESPACE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY")  # fmt: skip


def split_revision(name: str) -> tuple[str, str | None]:
    """Split ``NAME@REVISION`` at its first ``@``; without one, the revision is ``None``."""
    name, mark, revision = name.partition("@")
    return name, revision if mark else None


def read_version(paths: Iterable[Path], revision: str, max_bytes: int) -> tuple[Path, bytes]:
    """
    Return the first of ``paths`` that is in ``revision``, and its content there.

    Raises:
        TemplateError: git or the repository is missing, the revision is unknown, or none of the
            files is in it.
    """
    if not revision or _INVALID.search(revision):
        msg = f'"{escape_invisible(revision)}" is not a revision.'
        raise TemplateError(msg, hint="Use a commit, a branch or a tag: brief@HEAD~3")
    program = shutil.which("git")
    if program is None:
        msg = f"Reading the version {revision} of a template needs git, which is not installed."
        raise TemplateError(msg, hint="Install git, or use the template without @REVISION.")
    paths = list(paths)
    errors: list[TemplateError] = []
    for path in paths:
        try:
            found = _read_from(program, path, revision, max_bytes)
        except TemplateError as error:
            errors.append(error)
            continue
        if found is not None:
            return path, found
    if len(errors) == len(paths):  # otherwise a folder outside the repository is of no interest
        raise errors[0]
    name = paths[0].name
    msg = f"{name} is not in the revision {revision}."
    raise TemplateError(msg, hint=f"See its versions: git log --oneline -- prompts/{name}")


def _read_from(program: str, path: Path, revision: str, max_bytes: int) -> bytes | None:
    """Return the content of ``path`` in ``revision``; ``None`` if it is not in it."""
    folder = path.parent.parent  # the folder of prompts itself may not exist any more
    try:
        prefix = _run(program, folder, "rev-parse", "--show-prefix").decode().rstrip("\n")
    except _GitError as error:
        msg = f"Could not find a git repository in {folder}: {error}"
        hint = "Versions of templates are commits of git: git init, git add prompts, git commit"
        raise TemplateError(msg, hint=hint) from None
    try:
        arguments = (
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            f"{revision}^{{commit}}",
        )
        commit = _run(program, folder, *arguments).decode().strip()
        if not _COMMIT.fullmatch(commit):  # such as ^HEAD, which excludes it
            raise _GitError(revision)
    except _GitError:
        msg = f"The repository of {folder} has no revision {revision}."
        raise TemplateError(msg, hint="List the commits: git log --oneline") from None
    try:
        return _read_object(
            program, folder, commit, f"{prefix}{path.parent.name}/{path.name}", max_bytes
        )
    except _GitError as error:
        msg = f"Could not read {path.name} in {revision}: {error}"
        raise TemplateError(msg, hint="Get it with git: git fetch --refetch") from None


def _read_object(
    program: str, folder: Path, commit: str, name: str, max_bytes: int
) -> bytes | None:
    listed = _run(program, folder, "ls-tree", "-z", "-l", "--full-tree", commit, "--", name)
    if not listed:
        return None
    mode, kind, identifier, size = listed.split(b"\t")[0].decode().split()
    if kind != "blob" or mode == "120000":
        msg = f"{name} is not a file in {commit[:10]}."
        raise TemplateError(msg, hint="Use a revision in which it is a text file.")
    if not size.isdigit():
        msg = "its object is missing, as in a partial clone."
        raise _GitError(msg)
    if int(size) > max_bytes:
        msg = f"{name} in {commit[:10]} has more than {max_bytes:,} bytes."
        raise TemplateError(msg, hint="Use another revision.")
    return _run(program, folder, "cat-file", "blob", identifier)


class _GitError(Exception):
    """A command of git failed, with its message."""


def _run(program: str, folder: Path, *arguments: str) -> bytes:
    """Return what git writes, without access to a terminal, to the network or to other folders."""
    environment = {name: value for name, value in os.environ.items() if name not in _LOCATIONS}
    environment |= {
        "GIT_NO_LAZY_FETCH": "1",  # from git 2.44; before, the protocol setting has its effect
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }
    command = [program, "--no-pager", "--literal-pathspecs", "-c", "protocol.allow=never", "-C", str(folder), *arguments]  # fmt: skip
    try:
        done = subprocess.run(  # noqa: S603 (no shell, and no argument is taken for an option)
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_TIMEOUT_S,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        msg = f"git did not answer within {_TIMEOUT_S:.0f} s."
        raise _GitError(msg) from None
    except (OSError, ValueError) as error:
        msg = f"git could not be run: {type(error).__name__}."
        raise _GitError(msg) from None
    if done.returncode:
        message = escape_invisible(one_line(done.stderr.decode("utf-8", "replace")))
        raise _GitError(message[:300] or f"git ended with {done.returncode}")
    return done.stdout
