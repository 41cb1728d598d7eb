"""Parsers for the lines of the magics, with errors that suggest the nearest correct word."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from keyword import iskeyword
from typing import Any, NoReturn

from llm_magics.errors import UsageError, nearest
from llm_magics.parameters import REASONING_LEVELS, TIERS

# The thread of ``--thread`` without a name.
THREAD = "main"

# Model parameters without a flag. ``-p`` passes them to the service unless the prompt uses the name.
SERVICE_PARAMETERS = frozenset(
    {
        "frequency_penalty",
        "keep_alive",
        "logprobs",
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
    """An argparse parser that raises `UsageError` with a suggestion."""

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
        """Return the options of ``line``, ignoring a comment at its end."""
        return self.parse_prose(strip_comment(line))

    def parse_prose(self, line: str) -> argparse.Namespace:
        """Return the options of a line of prose, in which ``#`` does not start a comment."""
        options, unknown = self.parse_known_intermixed_args(split_words(line))
        if unknown:
            self._refuse(unknown[0])
        return options

    @property
    def flags(self) -> list[str]:
        """All flags, sorted."""
        return sorted(self._option_string_actions)

    def error(self, message: str) -> NoReturn:
        """Raise the message as a `UsageError`; argparse would print it and exit."""
        unrecognised = re.match(r"unrecognized arguments: (\S+)", message)
        if unrecognised:
            self._refuse(unrecognised[1])
        msg = f"{self.prog}: {message}."
        raise UsageError(msg, hint=self._where)

    def _refuse(self, word: str) -> NoReturn:
        if word.startswith("-"):
            msg = f"{self.prog} has no flag {word.partition('=')[0]}."
            raise UsageError(msg, hint=nearest(word.partition("=")[0], self.flags))
        msg = f'{self.prog} does not take "{word}".'
        raise UsageError(msg, hint=self._where)

    @property
    def _where(self) -> str:
        """A hint that says where the flags are listed."""
        magic, _, command = self.prog.partition(" ")
        return f"See {magic} help {command}" if command else f"See {magic}?"


def strip_comment(line: str) -> str:
    """
    Return ``line`` without a comment at its end.

    A comment starts with ``#`` at the start of a word, outside quotes. Quotes have the syntax of
    `split_words`: a backslash escapes a character, except inside single quotes.
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
    """
    Split ``line`` into words with shell syntax.

    Raises:
        UsageError: a quote is not closed.
    """
    try:
        return shlex.split(line)
    except ValueError as error:
        msg = f"Could not parse the line: {str(error).lower()}."
        raise UsageError(msg, hint="Put values that contain spaces or quotes in quotes.") from None


def parse_pairs(words: Sequence[str]) -> dict[str, str]:
    """
    Return ``KEY=VALUE`` words as a dictionary.

    Raises:
        UsageError: a word does not have this form.
    """
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            msg = f'"{word}" is not KEY=VALUE.'
            raise UsageError(msg, hint="Use -p topic=whales, without spaces around =.")
        found[key] = value
    return found


def parse_service_value(text: str) -> Any:
    """
    Return the JSON value of ``text``, such as a number or boolean, otherwise the text itself.

    >>> parse_service_value("8192"), parse_service_value("true"), parse_service_value("5m")
    (8192, True, '5m')
    """
    try:
        return json.loads(text.lower() if text.lower() in ("true", "false", "null") else text)
    except ValueError:
        return text


def check_output_name(name: str | None) -> None:
    """
    Check that the value of -o is a valid variable name.

    Raises:
        UsageError: the name is invalid.
    """
    if name is not None and (not name.isidentifier() or iskeyword(name)):
        msg = f'-o {name}: "{name}" is not a valid variable name.'
        raise UsageError(msg, hint="Use letters, digits and underscores: -o answer")


def move_model_from_thread(options: argparse.Namespace) -> None:
    """Treat the word in ``--thread a/model`` as a model, because thread names have no slash."""
    if options.thread and "/" in options.thread:
        options.model.insert(0, options.thread)
        options.thread = THREAD


def llm_cell_parser() -> OptionParser:
    """Return the parser for the line of ``%%llm``."""
    parser = OptionParser("%%llm", "Send the lines below to a model.")
    add = parser.add_argument
    add("model", nargs="*", metavar="MODEL", help="provider/name; two or more are compared")
    add("-o", "--output", metavar="NAME", help="store the answer in this variable")
    add("-s", "--system", metavar="TEXT", help="system message")
    add(
        "-f",
        "--format",
        choices=FORMATS,
        help="how to display the answer; default: markdown, or json with --schema",
    )
    add(
        "-t",
        "--template",
        metavar="NAME",
        help="use the prompt in prompts/NAME.md, or NAME@REVISION from git; the cell fills {{ input }}",
    )
    add("-p", "--param", action="append", default=[], metavar="KEY=VALUE",
        help="value of {{ KEY }} in the prompt, or a model parameter: num_ctx=8192")  # fmt: skip
    add(
        "--schema",
        metavar="FIELDS",
        help='fields of the answer: "name, age int", or a variable with a schema or class',
    )
    add(
        "--image",
        action="append",
        default=[],
        metavar="X",
        help="image to send: a file, a URL or a variable",
    )
    add(
        "--attach",
        action="append",
        default=[],
        metavar="FILE",
        help="file to send: PDF, DOCX, HTML, text, audio or an image",
    )
    add(
        "--search",
        action="store_true",
        help="let the model search the web, and show its sources below the answer",
    )
    add("--tools", metavar="F,G", help="functions defined in the notebook that the model may call")
    add("--mcp", action="append", default=[], metavar="SERVER",
        help="MCP server whose tools the model may call (repeatable)")  # fmt: skip
    add("--thread", nargs="?", const=THREAD, metavar="NAME", help="continue a conversation")
    add_parameters(parser)
    add("--fresh", action="store_true", help="bypass the cache")
    add("--save", metavar="NAME", help="save the cell as prompts/NAME.md without sending it")
    add("--yes", action="store_true", help="do not ask for confirmation")
    add(
        "--dry-run",
        action="store_true",
        help="show what would be sent, with tokens and cost; send nothing",
    )
    add("--no-stream", action="store_true", help="display the answer only when it is complete")
    return parser


def add_parameters(parser: OptionParser) -> None:
    """Add the flags for thinking and sampling."""
    add = parser.add_argument
    add(
        "--reasoning",
        choices=REASONING_LEVELS,
        help="how much the model thinks before it answers; default: as the model usually does",
    )
    add(
        "--tier",
        choices=TIERS,
        help="tier of the service: flex is cheaper and slower, where a service has it",
    )
    add("--temperature", type=float, metavar="T", help="sampling temperature, 0 or more")
    add("--max-tokens", type=int, metavar="N", help="maximum length of the answer, in tokens")
    add(
        "--top-p",
        type=float,
        metavar="P",
        help="nucleus sampling: probability mass to sample from",
    )
    add(
        "--seed",
        type=int,
        metavar="N",
        help="seed for reproducible sampling, where the service supports it",
    )
    add(
        "--stop",
        action="append",
        type=unescape,
        metavar="TEXT",
        help="stop before this text; \\n is a newline",
    )


def collect_parameters(options: argparse.Namespace) -> Mapping[str, Any]:
    """Return the parameters of the model that are set on the line."""
    names = ("reasoning", "tier", "temperature", "max_tokens", "top_p", "seed", "stop")
    found = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return {**found, "search": True} if getattr(options, "search", False) else found


def embed_parser(magic: str = "%embed") -> OptionParser:
    """Return the parser for the flags of ``%embed`` or ``%%embed``."""
    parser = OptionParser(magic, "Embed texts as vectors.")
    add = parser.add_argument
    add("-o", "--output", metavar="NAME", help="store the result in this variable")
    add("--model", metavar="MODEL", help="provider/name; default: the setting embedding_model")
    add("--batch-size", type=int, metavar="N", help="maximum number of texts per request")
    add("--concurrency", type=int, metavar="N", help="maximum number of concurrent requests")
    add(
        "--too-long",
        choices=("truncate", "chunk-mean", "error"),
        default="truncate",
        help="how to handle texts longer than the model's context",
    )
    add(
        "--on-error",
        choices=("null", "raise"),
        default="null",
        help="null: leave a text without a vector if the service refuses it",
    )
    add(
        "--dimensions",
        type=int,
        metavar="N",
        help="length of the vectors, where the model can shorten them",
    )
    add("--prefix", default="", metavar="TEXT", help='text put before each text: "passage: "')
    add(
        "--dry-run",
        action="store_true",
        help="show what would be sent, with tokens and cost; send nothing",
    )
    add("--yes", action="store_true", help="do not ask for confirmation of the cost")
    add(
        "--batch",
        action="store_true",
        help="embed in batch jobs of the service, at its lower price, and wait for them",
    )
    add("--no-wait", action="store_true", help="with --batch: submit the jobs, and do not wait")
    if magic == "%embed":
        add("--into", metavar="COLUMN", help="store the vectors in this column of the DataFrame")
    return parser


def bench_parser() -> OptionParser:
    """Return the parser for the line of ``%llm bench``."""
    parser = _create_measurement_parser("%llm bench", "Measure the speed of models under load.")
    add = parser.add_argument
    add("--prompts", metavar="X", help="variable with a list, a column or a text")
    add(
        "--repeat", type=int, metavar="N", help="number of times each prompt is sent to each model"
    )
    add(
        "--requests",
        type=int,
        metavar="N",
        help="number of requests per model and load, instead of --repeat",
    )
    add(
        "--seconds",
        type=float,
        metavar="S",
        help="duration per model and load, instead of a number of requests",
    )
    add(
        "--concurrency",
        metavar="N,N",
        help="concurrent requests; several values are measured in turn",
    )
    add("--rate", metavar="R,R", help="requests per second, instead of --concurrency")
    add(
        "--arrival",
        choices=("poisson", "constant"),
        default="poisson",
        help="distribution of the arrivals with --rate",
    )
    add(
        "--warmup", type=int, default=1, metavar="N", help="requests before the measurement starts"
    )
    add(
        "--same",
        action="store_true",
        help="send identical prompts (a service may answer from its cache)",
    )
    return parser


def compare_parser() -> OptionParser:
    """Return the parser for the line of ``%llm compare``."""
    parser = _create_measurement_parser(
        "%llm compare", "Send the same prompts to several models and score the answers."
    )
    add = parser.add_argument
    add("--prompts", metavar="X", help="variable with a list, a column or a text")
    add("-t", "--template", metavar="NAME", action="append", default=[],
        help="prompt file to compare; NAME@REVISION is its version in git")  # fmt: skip
    add("--expected", metavar="X", help="variable with the expected answers, one per prompt")
    add("--score", metavar="NAME,…", action="append", default=[],
        help="scorer: exact, contains, numeric, … or a function")  # fmt: skip
    add("--judge", metavar="MODEL", help="model that judges which of two answers is better")
    add("--repeat", type=int, default=1, metavar="N", help="number of times each prompt is sent")
    add("--concurrency", type=int, default=1, metavar="N", help="concurrent requests per provider")
    return parser


def _create_measurement_parser(magic: str, about: str) -> OptionParser:
    parser = OptionParser(magic, about)
    add = parser.add_argument
    add("models", nargs="*", metavar="MODEL", help="provider/name; default: the setting model")
    add("-o", "--output", metavar="NAME", help="store the measurements in this variable")
    add("-s", "--system", metavar="TEXT", help="system message")
    add_parameters(parser)
    add("--yes", action="store_true", help="do not ask for confirmation of the cost")
    return parser


def parse_setting_value(value: str) -> Any:
    """Parse ``none`` as ``None``, a list as YAML, and anything else as text without quotes around it."""
    from llm_magics._util.filesystem import load_yaml

    if value.lower() in ("none", "null"):
        return None
    if not value.startswith("["):
        inner, quote = value[1:-1], value[:1]
        is_quoted = len(value) > 1 and quote in "\"'" and value[-1] == quote and quote not in inner
        return inner if is_quoted else value
    try:
        return load_yaml(value)
    except ValueError:
        return value


def gate_parser() -> OptionParser:
    """Return the parser for the line of ``%llm gate``."""
    from llm_magics.evaluations.gate.command import DESCRIPTION, add_arguments

    parser = OptionParser("%llm gate", DESCRIPTION)
    add_arguments(parser)
    return parser
