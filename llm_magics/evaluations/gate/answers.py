"""
Files of repeated answers: baselines and recordings of the gate.

A file has one JSON object a line. The first says how the answers were made; each other line has
all answers to one item under one label of a model. Equal answers of an item are written once.
The lines are sorted, so that a git diff shows only the items whose answers have changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_magics._util.filesystem import atomic_write, display_path
from llm_magics._util.text import reason_of, replace_lone_surrogates
from llm_magics.errors import UsageError
from llm_magics.secrets import scrub_json

_FORMAT = "llm_magics answers 1"
# Characters that some editors treat as line ends, but are allowed in JSON strings.
_ESCAPED = {ord(each): f"\\u{ord(each):04x}" for each in "\x85\u2028\u2029"}


@dataclass(frozen=True, kw_only=True)
class ItemAnswers:
    """
    The answers of one model to one item, in the order of the repeats.

    Attributes:
        label: the label of the model in the gate file.
        item: the id of the item.
        digest: the digest of the item's inputs.
        key: the digest of the whole request: model, prompt, system message and parameters.
        texts: the answers. ``None`` is an answer that the model refused, or that was empty.
    """

    label: str
    item: str
    digest: str
    key: str
    texts: tuple[str | None, ...]

    def line(self) -> str:
        """Return the line of the file."""
        distinct = list(dict.fromkeys(self.texts))
        return _line(
            {
                "item": self.item,
                "model": self.label,
                "input": self.digest,
                "key": self.key,
                "answers": distinct,
                "repeats": [distinct.index(each) for each in self.texts],
            }
        )


@dataclass
class AnswerFile:
    """
    The answers in a file.

    Attributes:
        about: how the answers were made.
        answers: the answers by the label of the model and the id of the item.
    """

    about: dict[str, Any] = field(default_factory=dict)
    answers: dict[tuple[str, str], ItemAnswers] = field(default_factory=dict)

    def add(self, found: Iterable[ItemAnswers]) -> None:
        """Add answers; earlier ones of the same item and model are replaced."""
        self.answers |= {(each.label, each.item): each for each in found}

    def text(self) -> str:
        """Return the contents of the file, without anything that looks like a key."""
        lines = [_line({"format": _FORMAT, **self.about})]
        return "".join([*lines, *(self.answers[each].line() for each in sorted(self.answers))])

    def save(self, path: Path) -> None:
        """
        Write the file at once.

        Raises:
            UsageError: it cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, self.text())
        except OSError as error:
            msg = f"Could not write {display_path(path)}: {reason_of(error)}."
            raise UsageError(msg, hint="Check the path in the gate file.") from None

    @classmethod
    def load(cls, path: Path) -> AnswerFile:
        """
        Return the answers in ``path``.

        Raises:
            UsageError: it cannot be read, or a line is damaged.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            msg = f"Could not read {display_path(path)}: {reason_of(error)}."
            raise UsageError(msg, hint="Restore it from version control.") from None
        return cls.parse(content, display_path(path))

    @classmethod
    def load_if_exists(cls, path: Path) -> AnswerFile:
        """
        Return the answers in ``path``, or none if the file does not exist.

        Raises:
            UsageError: it cannot be read, or a line is damaged.
        """
        return cls.load(path) if path.is_file() else cls()

    @classmethod
    def parse(cls, content: bytes, shown: str) -> AnswerFile:
        """
        Return the answers in ``content``; errors name the file as ``shown``.

        Raises:
            UsageError: a line is damaged.
        """
        found = cls()
        # Only a newline ends a line, because texts may contain U+2028 and similar characters.
        lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
                if number == 1:
                    found.about = _about(values)
                else:
                    found.add([_parse(values)])
            except (ValueError, KeyError, TypeError, IndexError, RecursionError):
                msg = f"{shown}, line {number}: not an answer of a gate."
                hint = "Restore the file from version control, or write it again."
                raise UsageError(msg, hint=hint) from None
        return found


def _about(values: Mapping[str, Any]) -> dict[str, Any]:
    if values["format"] != _FORMAT:
        msg = "unknown format"
        raise ValueError(msg)
    return {name: value for name, value in values.items() if name != "format"}


def _parse(values: Mapping[str, Any]) -> ItemAnswers:
    distinct, repeats = values["answers"], values["repeats"]
    texts = [values[name] for name in ("item", "model", "input", "key")]
    is_valid = (
        isinstance(distinct, list)
        and isinstance(repeats, list)
        and all(isinstance(each, str) for each in texts)
        and all(each is None or isinstance(each, str) for each in distinct)
        and all(type(each) is int and 0 <= each < len(distinct) for each in repeats)
    )
    if not is_valid:
        msg = "invalid values"
        raise ValueError(msg)
    return ItemAnswers(
        item=texts[0],
        label=texts[1],
        digest=texts[2],
        key=texts[3],
        texts=tuple(distinct[each] for each in repeats),
    )


def _line(values: Mapping[str, Any]) -> str:
    text = json.dumps(scrub_json(dict(values)), ensure_ascii=False)
    return f"{replace_lone_surrogates(text).translate(_ESCAPED)}\n"
