"""Parsers of the magics' lines, with errors that name the nearest correct word."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from keyword import iskeyword
from typing import Any, NoReturn

from llm_magics.errors import UsageError, nearest

# The thread of those who name none.
THREAD = "main"

# What services take beside the flags; ``-p`` passes them on where the prompt has no such name.
SERVICE_PARAMETERS = frozenset(
    {
        "frequency_penalty",
        "keep_alive",
        "min_p",
        "num_ctx",
        "num_gpu",
        "num_keep",
        "num_thread",
        "presence_penalty",
        "repeat_last_n",
        "repeat_penalty",
        "service_tier",
        "shift",
        "top_k",
        "truncate",
        "truncation",
        "typical_p",
    }
)

FORMATS = ("markdown", "text", "code", "json", "df")


class OptionParser(argparse.ArgumentParser):
    """argparse, with mistakes as `UsageError` that name the nearest right thing."""

    def __init__(self, magic: str, description: str, **options: Any) -> None:
        super().__init__(
            prog=magic,
            description=description,
            add_help=False,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,
        )

    def parse(self, line: str) -> argparse.Namespace:
        """The options on ``line``."""
        return self.parse_prose(strip_comment(line))

    def parse_prose(self, line: str) -> argparse.Namespace:
        """The options on a line of prose, in which a ``#`` begins no comment."""
        options, unknown = self.parse_known_intermixed_args(split_words(line))
        if unknown:
            self._refuse(unknown[0])
        return options

    @property
    def flags(self) -> list[str]:
        """Every flag there is."""
        return sorted(self._option_string_actions)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print before it ends the process."""
        unrecognised = re.match(r"unrecognized arguments: (\S+)", message)
        if unrecognised:
            self._refuse(unrecognised[1])
        msg = f"{self.prog}: {message}."
        raise UsageError(msg, hint=self._where)

    def _refuse(self, word: str) -> NoReturn:
        if word.startswith("-"):
            msg = f"{self.prog} has no flag {word.partition('=')[0]}."
            raise UsageError(msg, hint=nearest(word.partition("=")[0], self.flags))
        msg = f'{self.prog} does not know what to do with "{word}".'
        raise UsageError(msg, hint=self._where)

    @property
    def _where(self) -> str:
        """Return where its flags are listed."""
        magic, _, command = self.prog.partition(" ")
        return f"See {magic} help {command}" if command else f"See {magic}?"


def strip_comment(line: str) -> str:
    """
    Return ``line`` without a comment at its end.

    A comment begins with a ``#`` at the start of a word, outside of quotes, which are read as
    `split` reads them: a backslash escapes a character, but not within single quotes.
    """
    quote = before = ""
    is_escaped = False
    for at, character in enumerate(line):
        if is_escaped:
            is_escaped = False
        elif character == "\\" and quote != "'":
            is_escaped = True
        elif quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character == "#" and (not before or before.isspace()):
            return line[:at].rstrip()
        before = character
    return line


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}


def unescape(text: str) -> str:
    """Return ``text`` with backslash escapes of newline, tab and backslash replaced."""
    return re.sub(r"\\([ntr\\])", lambda found: _ESCAPES[found[1]], text)


def split_words(line: str) -> list[str]:
    """``line`` in words, quotes heeded."""
    try:
        return shlex.split(line)
    except ValueError as error:
        msg = f"The line cannot be read: {str(error).lower()}."
        raise UsageError(msg, hint="Put a word with spaces or quotes in it in quotes.") from None


def parse_pairs(words: Sequence[str]) -> dict[str, str]:
    """``KEY=VALUE`` words as a dictionary."""
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            msg = f'"{word}" is not KEY=VALUE.'
            raise UsageError(msg, hint="Write -p topic=whales, with no spaces around the =.")
        found[key] = value
    return found


def parse_service_value(text: str) -> Any:
    """
    Return the value that ``text`` stands for: a number, true or false, else the text itself.

    >>> service_value("8192"), service_value("true"), service_value("5m")
    (8192, True, '5m')
    """
    try:
        return json.loads(text.lower() if text.lower() in ("true", "false", "null") else text)
    except ValueError:
        return text


def check_output_name(name: str | None) -> None:
    """Refuse a name for -o that no variable can have."""
    if name is not None and (not name.isidentifier() or iskeyword(name)):
        msg = f'-o {name}: "{name}" cannot be a variable\'s name.'
        raise UsageError(msg, hint="Use letters, digits and _, like -o answer.")


def move_model_from_thread(options: argparse.Namespace) -> None:
    """Of ``--thread a/model`` the word is a model: names of threads have no slash."""
    if options.thread and "/" in options.thread:
        options.model.insert(0, options.thread)
        options.thread = THREAD


def llm_cell_parser() -> OptionParser:
    """The line of ``%%llm``."""
    parser = OptionParser("%%llm", "Ask a model the prompt in the lines below.")
    add = parser.add_argument
    add("model", nargs="*", metavar="MODEL", help="provider/name; several are compared")
    add("-o", "--output", metavar="NAME", help="keep the answer in this variable")
    add("-s", "--system", metavar="TEXT", help="the system message")
    add(
        "-f",
        "--format",
        choices=FORMATS,
        help="how the answer is shown; markdown, with --schema json",
    )
    add(
        "-t",
        "--template",
        metavar="NAME",
        help="the prompt in prompts/NAME.md; the cell is {{ input }}",
    )
    add("-p", "--param", action="append", default=[], metavar="KEY=VALUE",
        help="what {{ KEY }} in the prompt stands for, or a parameter: num_ctx=8192")  # fmt: skip
    add(
        "--schema",
        metavar="FIELDS",
        help='what the answer must look like: "name, age int", or a variable',
    )
    add(
        "--image",
        action="append",
        default=[],
        metavar="X",
        help="a picture: a file, an address, a variable",
    )
    add("--tools", metavar="F,G", help="functions of the notebook that the model may call")
    add("--thread", nargs="?", const=THREAD, metavar="NAME", help="go on with a conversation")
    add_parameters(parser)
    add("--fresh", action="store_true", help="ask anew, whatever the cache has")
    add("--save", metavar="NAME", help="keep the cell as prompts/NAME.md, and ask nobody")
    add("--yes", action="store_true", help="allow what would be asked about")
    add("--dry-run", action="store_true", help="show what would be sent, and send nothing")
    add("--no-stream", action="store_true", help="show the answer when it is whole")
    return parser


def add_parameters(parser: OptionParser) -> None:
    """The flags that say how to answer."""
    add = parser.add_argument
    add("--temperature", type=float, metavar="T", help="0 (the likeliest answer) or more")
    add("--max-tokens", type=int, metavar="N", help="the longest answer")
    add("--top-p", type=float, metavar="P", help="the share of probability drawn from")
    add("--seed", type=int, metavar="N", help="the same seed asks for the same draw")
    add(
        "--stop",
        action="append",
        type=unescape,
        metavar="TEXT",
        help="end the answer before this; \\n is a newline",
    )


def collect_parameters(options: argparse.Namespace) -> Mapping[str, Any]:
    """Return the parameters that are set on the line."""
    names = ("temperature", "max_tokens", "top_p", "seed", "stop")
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def embed_parser(magic: str = "%embed") -> OptionParser:
    """The flags of ``%embed`` and ``%%embed``."""
    parser = OptionParser(magic, "Turn texts into vectors.")
    add = parser.add_argument
    add("-o", "--output", metavar="NAME", help="keep the result in this variable")
    add("--model", metavar="MODEL", help="provider/name; the setting embedding_model if not given")
    add("--batch-size", type=int, metavar="N", help="texts in one request, at most")
    add("--concurrency", type=int, metavar="N", help="requests at once, at most")
    add(
        "--too-long",
        choices=("truncate", "chunk-mean", "error"),
        default="truncate",
        help="what becomes of a text that is longer than the model reads",
    )
    add(
        "--on-error",
        choices=("null", "raise"),
        default="null",
        help="null leaves a text that is refused without a vector",
    )
    add("--dimensions", type=int, metavar="N", help="numbers in a vector, where fewer can be had")
    add("--prefix", default="", metavar="TEXT", help='what the model wants first: "passage: "')
    add("--dry-run", action="store_true", help="show what would be sent, and send nothing")
    add("--yes", action="store_true", help="do not ask, whatever it may cost")
    if magic == "%embed":
        add("--into", metavar="COLUMN", help="put the vectors into this column of the frame")
    return parser


def bench_parser() -> OptionParser:
    """The line of ``%llm bench``."""
    parser = _create_measurement_parser("%llm bench", "Measure how fast models answer.")
    add = parser.add_argument
    add("--prompts", metavar="X", help="a list, column or text of the notebook")
    add("--repeat", type=int, metavar="N", help="how often each prompt is asked of each model")
    add("--requests", type=int, metavar="N", help="of each model at each load, in place of that")
    add("--seconds", type=float, metavar="S", help="for each model at each load, in place of both")
    add("--concurrency", metavar="N,N", help="requests at once; of several one after the other")
    add("--rate", metavar="R,R", help="requests a second in place of that")
    add("--arrival", choices=("poisson", "constant"), default="poisson", help="with --rate")
    add("--warmup", type=int, default=1, metavar="N", help="requests that do not count")
    add("--same", action="store_true", help="do not make prompts distinct")
    return parser


def compare_parser() -> OptionParser:
    """The line of ``%llm compare``."""
    parser = _create_measurement_parser(
        "%llm compare", "Ask models the same, and see who is better."
    )
    add = parser.add_argument
    add("--prompts", metavar="X", help="a list, column or text of the notebook")
    add("--expected", metavar="X", help="what is right, one for each prompt")
    add("--score", metavar="NAME,…", action="append", default=[],
        help="exact, contains, numeric, … or a function")  # fmt: skip
    add("--judge", metavar="MODEL", help="a model that says which of two answers is better")
    add("--repeat", type=int, default=1, metavar="N", help="how often each prompt is asked")
    add("--concurrency", type=int, default=1, metavar="N", help="requests at once, to a provider")
    return parser


def _create_measurement_parser(magic: str, about: str) -> OptionParser:
    parser = OptionParser(magic, about)
    add = parser.add_argument
    add("models", nargs="*", metavar="MODEL", help="provider/name; the setting model if not given")
    add("-o", "--output", metavar="NAME", help="keep all measurements in this variable")
    add("-s", "--system", metavar="TEXT", help="the system message")
    add_parameters(parser)
    add("--yes", action="store_true", help="do not ask, whatever it may cost")
    return parser


def parse_setting_value(value: str) -> Any:
    """Text as it is; lists as YAML writes them; ``none`` for nothing. Types are coerced later."""
    from llm_magics._util.filesystem import load_yaml

    if value.lower() in ("none", "null"):
        return None
    if not value.startswith("["):
        return value.strip("\"'")
    try:
        return load_yaml(value)
    except ValueError:
        return value
