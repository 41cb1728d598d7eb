"""
Attachments of rows: columns with paths, addresses or the bytes of files.

A table may be from anywhere, so its paths are read only inside one folder, after symbolic links
are resolved, and its addresses are sent only if the user allows it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from llm_magics.errors import UsageError, nearest

# The beginnings of addresses. All other text is a path, such as "file:" and "data:" too.
_SCHEMES = ("https://", "http://")

# The maximum depth of lists in a cell.
_MAX_DEPTH = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RowAttachments:
    """
    The attachments of the prompts for rows.

    Attributes:
        columns: the columns with the attachments.
        root: the folder in which paths must be, and from which relative ones start.
        allow_urls: whether addresses are sent.
    """

    columns: tuple[str, ...] = ()
    root: Path
    allow_urls: bool = False

    @classmethod
    def of(cls, columns: Any, root: Any, allow_urls: Any) -> RowAttachments:
        """
        Return the attachments in these columns; ``root`` is the working folder by default.

        Raises:
            UsageError: an argument is invalid, or the folder does not exist.
        """
        names = [columns] if isinstance(columns, str) else columns or ()
        if not isinstance(names, list | tuple) or not all(isinstance(each, str) for each in names):
            msg = f"Invalid value for attachments: {columns!r:.60}."
            raise UsageError(msg, hint='Pass the name of a column, or several: attachments="file"')
        if not isinstance(allow_urls, bool):
            msg = f"Invalid value for allow_urls: {allow_urls!r:.60}."
            raise UsageError(msg, hint="Use True or False.")
        if root is not None and not isinstance(root, str | Path):
            msg = f"Invalid value for attachments_root: {root!r:.60}."
            raise UsageError(msg, hint='Pass a folder: attachments_root="reports"')
        try:
            folder = Path("." if root is None else root).expanduser().resolve()
            is_folder = folder.is_dir()
        except (OSError, ValueError, RuntimeError):  # a null character, or an unknown user
            msg = f"Invalid value for attachments_root: {str(root)!r:.200}."
            raise UsageError(msg, hint='Pass a folder: attachments_root="reports"') from None
        if names and not is_folder:
            msg = f"The folder {folder} does not exist."
            raise UsageError(msg, hint="Check attachments_root.")
        return cls(columns=tuple(names), root=folder, allow_urls=allow_urls)

    def check_columns(self, known: Mapping[str, Hashable]) -> None:
        """Raise `UsageError` for a column that the DataFrame, with these columns, does not have."""
        for name in self.columns:
            if name not in known:
                msg = f'The DataFrame has no column "{name}" with attachments.'
                raise UsageError(msg, hint=nearest(name, known))

    def of_row(self, values: Sequence[Any], row: Any) -> tuple[Any, ...]:
        """
        Return what to attach to the prompt of one row; ``row`` is its label in the index.

        Files are not opened here, so that one that is missing fails only its own row.

        Raises:
            UsageError: a path is outside of the folder, an address is not allowed, or a value is
                not a path, an address, or the bytes of a file.
        """
        return tuple(self._checked(each, row) for value in values for each in _flatten(value))

    def _checked(self, value: Any, row: Any) -> Any:
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        if isinstance(value, str) and value.strip().lower().startswith(_SCHEMES):
            if self.allow_urls:
                return value.strip()
            msg = f"Row {row!r:.60} has an address: {value.strip():.200}"
            hint = "If you trust the addresses in this column, pass allow_urls=True."
            raise UsageError(msg, hint=hint)
        if isinstance(value, str | Path):
            return self._resolve(Path(value), row)
        msg = f"Row {row!r:.60} has no file to attach, but {type(value).__name__}: {value!r:.60}"
        raise UsageError(msg, hint="Use paths, addresses, or the bytes of files.")

    def _resolve(self, path: Path, row: Any) -> Path:
        """
        Return the path without links; a ``~`` is a name like any other.

        Hidden files are refused, because they contain keys and settings (``.env``, ``.ssh``), and
        the working folder may be the home folder.
        """
        try:
            joined = self.root / path
            # Resolving a path of another computer would contact it.
            is_remote = joined.drive != self.root.drive and joined.drive.startswith("\\\\")
            resolved = joined if is_remote else joined.resolve()
        except (OSError, ValueError, RuntimeError):  # a null character, or a loop of links
            msg = f"Row {row!r:.60} has an invalid path: {str(path)!r:.200}"
            raise UsageError(msg, hint="Correct or drop this row.") from None
        if not resolved.is_relative_to(self.root):
            msg = f"Row {row!r:.60} has a path outside of {self.root}: {path!s:.200}"
            hint = "If you trust the paths in this column, pass their folder: attachments_root=…"
            raise UsageError(msg, hint=hint)
        if any(part.startswith(".") for part in resolved.relative_to(self.root).parts):
            msg = f"Row {row!r:.60} has a hidden file or folder in its path: {path!s:.200}"
            hint = "Copy the file to another name, or pass its hidden folder: attachments_root=…"
            raise UsageError(msg, hint=hint)
        return resolved


def _flatten(value: Any, depth: int = 0) -> Iterator[Any]:
    """Yield the attachments of a cell: one, several in a list or array, or none."""
    if depth > _MAX_DEPTH:
        msg = "A list of files to attach contains itself, or is nested too deeply."
        raise UsageError(msg, hint="Use a list of paths, addresses, or the bytes of files.")
    if hasattr(value, "tolist") and not isinstance(
        value, memoryview
    ):  # an array of Arrow or NumPy
        value = value.tolist()
    if isinstance(value, list | tuple):
        for each in value:
            yield from _flatten(each, depth + 1)
    elif not _is_missing(value):
        yield value


def _is_missing(value: Any) -> bool:
    import pandas as pd

    if isinstance(value, str):
        return not value.strip()
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


class AttachedText(str):
    """
    The text of a prompt with attachments, which is equal only to one with the same attachments.

    Attributes:
        attachments: the files, as checked by `RowAttachments`.
    """

    __slots__ = ("attachments",)

    attachments: tuple[Any, ...]

    def __new__(cls, text: str, attachments: tuple[Any, ...]) -> Self:
        """Create it from both."""
        attached = super().__new__(cls, text)
        attached.attachments = attachments
        return attached

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other) is True and self.attachments == getattr(
            other, "attachments", ()
        )

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((str.__hash__(self), self.attachments))
