"""Pictures and sound."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_magics.errors import UsageError
from llm_magics.notebook.commands.registry import Variables, command
from llm_magics.notebook.options import OptionParser, check_name, pairs

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from llm_magics.runtime.media_calls import MediaCall


@command("image TEXT [-o NAME] [--model M] [--size S]", is_prose=True)
def image(shell: InteractiveShell, rest: str, variables: Variables) -> Any:
    """
    Make a picture; -o keeps the bytes of its file.

    ``picture = %llm image TEXT`` assigns them.
    """
    from IPython.display import Image, display

    from llm_magics.runtime.media_calls import image_call
    from llm_magics.runtime.prompts.templates import render
    from llm_magics.runtime.session import session

    parser = _parser("%llm image", "Make a picture.")
    parser.add_argument("--size", metavar="S")
    given = parser.parse_prose(rest)
    prompt = render(" ".join(given.words), variables)
    if not prompt.strip():
        msg = "%llm image takes a text that says what is to be seen."
        raise UsageError(msg, hint='Write %llm image "a whale in a teacup" -o img.')
    options = {**pairs(given.option), **({"size": given.size} if given.size else {})}
    model = given.model or session.config.image_model
    pictures = _finished(image_call(session, prompt, model, options))
    for picture in pictures:
        display(Image(data=picture))
    made = pictures[0] if len(pictures) == 1 else pictures
    _keep(shell, given.output, made)
    return made


@command("transcribe FILE [-o NAME] [--model M]")
def transcribe(shell: InteractiveShell, rest: str, variables: Variables) -> Any:
    """Write down what is said in a recording; -o keeps the text."""
    from llm_magics.runtime.media_calls import transcription_call
    from llm_magics.runtime.session import session

    given = _parser("%llm transcribe", "Write down what is said.").parse(rest)
    if len(given.words) != 1:
        msg = "%llm transcribe takes a file."
        raise UsageError(msg, hint="Write %llm transcribe talk.mp3 -o text.")
    check_name(given.output)
    model = given.model or session.config.transcription_model
    audio = _read(Path(given.words[0]).expanduser())
    said = _finished(transcription_call(session, audio, model, pairs(given.option)))
    _keep(shell, given.output, said)
    return None if given.output else str(said)


def _parser(magic: str, about: str) -> OptionParser:
    parser = OptionParser(magic, about)
    add = parser.add_argument
    add("words", nargs="*")
    add("-o", "--output", metavar="NAME")
    add("-p", "--option", action="append", default=[], metavar="KEY=VALUE")
    add("--model", metavar="M")
    return parser


def _finished(call: MediaCall[Any]) -> Any:
    from llm_magics._async.sync import Exchange

    with Exchange(call) as exchange:
        exchange.finish()
    return call.result


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}."
        raise UsageError(msg, hint="Name a file with a recording in it.") from None
    if not data:
        msg = f"The recording {path} is empty (0 bytes)."
        raise UsageError(msg, hint="Check how the file was written.")
    return data


def _keep(shell: InteractiveShell, name: str | None, value: Any) -> None:
    check_name(name)
    if name:
        shell.user_ns[name] = value
