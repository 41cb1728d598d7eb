"""
Commands about prompts: ask, explain, templates, threads, image and transcribe.

The prompt of explain has the traceback of the last error and the source code in it.
"""

from __future__ import annotations

import html
import linecache
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_magics._util.text import pluralize, reason_of
from llm_magics.errors import UsageError, nearest
from llm_magics.notebook import markdown
from llm_magics.notebook.commands.registry import Variables, command, one_word
from llm_magics.notebook.display.output import print_safe
from llm_magics.notebook.frontend import display_mode
from llm_magics.notebook.parsers import OptionParser, check_output_name, parse_pairs, split_words
from llm_magics.secrets import redact

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell
    from pandas import DataFrame

    from llm_magics.runtime.media_calls import MediaCall
    from llm_magics.runtime.response import Response


@command("ask TEXT", is_prose=True)
def ask(shell: InteractiveShell, rest: str, variables: Variables) -> Response:
    """
    Send a one-line prompt to the model of the settings; {{ name }} works as in %%llm.

    ``answer = %llm ask TEXT`` assigns the answer.
    """
    from llm_magics.notebook.prompt_cell import answer_line

    return answer_line(shell, rest, variables)


@command("explain [MODEL]")
def explain(shell: InteractiveShell, rest: str, variables: Variables) -> Response:
    """Explain the last error. The prompt is displayed before it is sent."""
    from llm_magics.notebook.parsers import llm_cell_parser
    from llm_magics.notebook.prompt_cell import answer
    from llm_magics.runtime.prompts.prompt import Prompt

    model = one_word("explain", rest, "a model") if rest else None
    prompt = _build_error_prompt()
    _show_error_prompt(shell, prompt)
    return answer(shell, llm_cell_parser().parse(""), Prompt(text=prompt, model=model))


@command("templates")
def templates(shell: InteractiveShell, rest: str, variables: Variables) -> DataFrame:
    """List the prompt files that -t can use, as a DataFrame."""
    from llm_magics._util.filesystem import display_path
    from llm_magics._util.tables import WideFrame, display_when_empty
    from llm_magics.errors import LLMError
    from llm_magics.runtime.prompts import prompt_files
    from llm_magics.runtime.prompts.templates import find_names

    rows: list[tuple[str, str, str | None, str, str]] = []
    for name, path in sorted(prompt_files.names().items()):
        try:
            file = prompt_files.read(path)
        except LLMError as error:  # an invalid file must not hide the others
            rows.append((name, f"({error})", None, "", display_path(path)))
            continue
        names = find_names(f"{file.text}{file.system or ''}") - {"input"}
        rows.append(
            (name, file.description, file.model, ", ".join(sorted(names)), display_path(path))
        )
    frame = WideFrame(rows, columns=["name", "description", "model", "variables", "path"])
    return display_when_empty(frame, "No prompt files yet. Save one with: %%llm --save NAME")


@command("threads [NAME|clear [NAME]]")
def threads(shell: InteractiveShell, rest: str, variables: Variables) -> Any:
    """Show the messages of each conversation (--thread), as a DataFrame."""
    from llm_magics.runtime.session import session

    words = split_words(rest)
    known = session.conversations.names()
    clears = words[:1] == ["clear"] and "clear" not in known
    if len(words) > 1 + clears:
        msg = f"%llm threads takes one thread name (got {rest!r})."
        raise UsageError(
            msg, hint="Use: %llm threads, %llm threads NAME, or %llm threads clear NAME"
        )
    name = next(iter(words[1:] if clears else words), None)
    if name is not None and name not in known:
        msg = f'No conversation is named "{name}".'
        raise UsageError(msg, hint=nearest(name, known))
    if clears:
        print_safe(f"Removed {pluralize(session.conversations.forget(name), 'turn')}.")
        return None
    return session.conversations.frame(name)


@command("image TEXT [-o NAME] [--model M] [--size S]", is_prose=True)
def image(shell: InteractiveShell, rest: str, variables: Variables) -> Any:
    """
    Generate an image; -o stores the bytes of its file.

    ``picture = %llm image TEXT`` assigns them.
    """
    from IPython.display import Image, display

    from llm_magics.runtime.media_calls import image_call
    from llm_magics.runtime.prompts.templates import render
    from llm_magics.runtime.session import session

    parser = _parser("%llm image", "Generate an image.")
    parser.add_argument("--size", metavar="S")
    options = parser.parse_prose(rest)
    prompt = render(" ".join(options.words), variables)
    if not prompt.strip():
        msg = "%llm image needs a description of the image."
        raise UsageError(msg, hint='Use: %llm image "a whale in a teacup" -o img')
    parameters = {
        **parse_pairs(options.option),
        **({"size": options.size} if options.size else {}),
    }
    model = options.model or session.config.image_model
    pictures = _run_call(image_call(session, prompt, model, parameters))
    for picture in pictures:
        display(Image(data=picture))
    result = pictures[0] if len(pictures) == 1 else pictures
    _store(shell, options.output, result)
    return result


@command("transcribe FILE [-o NAME] [--model M]")
def transcribe(shell: InteractiveShell, rest: str, variables: Variables) -> Any:
    """Transcribe an audio file; -o stores the text."""
    from llm_magics.runtime.media_calls import transcription_call
    from llm_magics.runtime.session import session

    options = _parser("%llm transcribe", "Transcribe an audio file.").parse(rest)
    if len(options.words) != 1:
        msg = "%llm transcribe needs one file."
        raise UsageError(msg, hint="Use: %llm transcribe talk.mp3 -o text")
    check_output_name(options.output)
    model = options.model or session.config.transcription_model
    audio = _read(Path(options.words[0]).expanduser())
    said = _run_call(transcription_call(session, audio, model, parse_pairs(options.option)))
    _store(shell, options.output, said)
    return None if options.output else str(said)


def _parser(magic: str, about: str) -> OptionParser:
    parser = OptionParser(magic, about)
    add = parser.add_argument
    add("words", nargs="*")
    add("-o", "--output", metavar="NAME")
    add("-p", "--option", action="append", default=[], metavar="KEY=VALUE")
    add("--model", metavar="M")
    return parser


def _run_call(call: MediaCall[Any]) -> Any:
    from llm_magics._async.sync import SyncRunner

    with SyncRunner(call) as exchange:
        exchange.finish()
    return call.result


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        msg = f"Could not read {path}: {reason_of(error)}."
        raise UsageError(msg, hint="Pass the path of an audio file.") from None
    if not data:
        msg = f"The audio file {path} is empty (0 bytes)."
        raise UsageError(msg, hint="Check that the file was written completely.")
    return data


def _store(shell: InteractiveShell, name: str | None, value: Any) -> None:
    check_output_name(name)
    if name:
        shell.user_ns[name] = value


_INSTRUCTION = (
    "Explain this error of a Python notebook in plain words: what happened, why, and how to fix "
    "it. Show the corrected lines."
)

# The maximum number of lines per source file, and of characters of a traceback, in the prompt.
_MAX_LINES = 80
_MAX_TRACEBACK = 6000


def _build_error_prompt() -> str:
    """
    Return the prompt that explains the last error. It does not contain values of variables.

    Raises:
        UsageError: no cell has failed in this session.
    """
    error = getattr(sys, "last_value", None)
    if error is None:
        msg = "No cell has failed in this session; nothing to explain."
        raise UsageError(msg, hint="Run the failing cell, then %llm explain.")
    frames = [each for each in traceback.extract_tb(error.__traceback__) if _is_user_frame(each)]
    text = "".join([*traceback.format_list(frames), *traceback.format_exception_only(error)])
    parts = [_INSTRUCTION, f"```\n{text[-_MAX_TRACEBACK:].strip()}\n```", *_sources(frames)]
    return redact("\n\n".join(parts))


def _is_user_frame(frame: traceback.FrameSummary) -> bool:
    """Whether a frame belongs to a cell or to a file in the notebook's folder, not to a library."""
    if _is_cell(frame.filename):
        return True
    path = Path(frame.filename)
    is_installed = "site-packages" in path.parts
    return path.is_relative_to(Path.cwd()) and not is_installed


def _is_cell(filename: str) -> bool:
    return "ipykernel_" in filename or filename.startswith("<ipython-input")


def _sources(frames: Iterable[traceback.FrameSummary]) -> list[str]:
    """Return an excerpt of each source file or cell, with the failing lines marked."""
    at: dict[str, set[int]] = {}
    for frame in frames:
        at.setdefault(frame.filename, set()).add(frame.lineno or 0)
    found = []
    for filename, marked in at.items():
        lines = linecache.getlines(filename)
        first = max(0, min(marked) - _MAX_LINES // 2) if len(lines) > _MAX_LINES else 0
        excerpt = [
            f"{'>' if number in marked else ' '} {line.rstrip()}"
            for number, line in enumerate(lines[first : first + _MAX_LINES], first + 1)
        ]
        name = "The cell" if _is_cell(filename) else f"The file {Path(filename).name}"
        if excerpt:
            text = "\n".join(excerpt)
            found.append(f"{name}, failing at >:\n\n```python\n{text}\n```")
    return found


def _show_error_prompt(shell: InteractiveShell, prompt: str) -> None:
    """Display the prompt; it is folded in HTML."""
    text = markdown.to_plain_text(prompt)
    if display_mode(shell) == "text":
        sys.stdout.write(f"{text}\n\n")
        return
    words = "prompt sent to explain the error"
    shell.display_pub.publish(
        data={
            "text/plain": text,
            "text/html": (
                f'<details class="mathjax_ignore"><summary><em>{words}</em></summary>'
                f'<pre style="white-space: pre-wrap">{html.escape(text)}</pre></details>'
            ),
        },
        metadata={},
    )
