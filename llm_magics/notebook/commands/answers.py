"""Prompts and answers: asked, kept, recorded, gone on with."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from llm_magics.errors import UsageError, nearest
from llm_magics.notebook.commands.registry import Variables, command, on_or_off, one_word, say
from llm_magics.notebook.options import OptionParser, split

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell
    from pandas import DataFrame

    from llm_magics.runtime.response import Response


@command("ask TEXT", is_prose=True)
def ask(shell: InteractiveShell, rest: str, variables: Variables) -> Response:
    """
    Ask the model of the settings; {{ names }} as in %%llm.

    ``answer = %llm ask TEXT`` assigns the answer.
    """
    from llm_magics.notebook.asking import answer_line

    return answer_line(shell, rest, variables)


@command("explain [MODEL]")
def explain(shell: InteractiveShell, rest: str, variables: Variables) -> Response:
    """Have the last error explained; what is sent is shown before."""
    from llm_magics.notebook.answering import answer
    from llm_magics.notebook.explaining import material, show
    from llm_magics.notebook.options import llm_cell_parser
    from llm_magics.runtime.prompts.prompt import Prompt

    model = one_word("explain", rest, "a model") if rest else None
    told = material()
    show(shell, told)
    return answer(shell, llm_cell_parser().parse(""), Prompt(told, model))


@command("record [FILE|off]")
def record(shell: InteractiveShell, rest: str, variables: Variables) -> None:
    """Keep every answer from now on in a file, for replay."""
    from llm_magics.errors import ConfigurationError
    from llm_magics.runtime.session import session

    if not rest:
        tape = session.tape
        say(
            f"Answers are kept in {tape.path}."
            if tape and tape.records
            else "Nothing is recorded."
        )
        return
    file = one_word("record", rest, "a file", "answers.jsonl")
    before = session.config.record
    session.config.record = file
    try:
        off = file == "off" or session.tape is None
    except ConfigurationError:
        session.config.record = before
        raise
    say("Recording has ended." if off else f"Every answer is kept in {file} from now on.")


@command("replay [FILE [--strict] [--speed X]|off]")
def replay(shell: InteractiveShell, rest: str, variables: Variables) -> None:
    """Take answers from a recording; with --strict, from nowhere else."""
    from llm_magics.errors import ConfigurationError
    from llm_magics.runtime.session import session

    given = _replay_parser().parse(rest)
    if not rest:
        tape = session.tape
        say(f"Answers come from {tape.path}." if tape and tape.plays else "Answers are live.")
        return
    file = one_word("replay", shlex.join(given.file), "a file", "answers.jsonl")
    before = session.config.replay
    session.config.replay, session.config.replay_strict = file, given.strict
    session.config.replay_speed = given.speed
    try:
        tape = session.tape
    except ConfigurationError:
        session.config.replay = before
        raise
    say("Answers are live." if tape is None else f"Answers come from {file}.")


def _replay_parser() -> OptionParser:
    parser = OptionParser("%llm replay", "Take answers from a recording.")
    parser.add_argument("file", nargs="*")
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--speed", type=float, default=0.0)
    return parser


@command("cache [on|off|clear|clear vectors]")
def cache(shell: InteractiveShell, rest: str, variables: Variables) -> None:
    """
    Give an answer given before again; --fresh in a cell asks anew.

    Vectors are kept always, and shared by all notebooks: clear vectors forgets them.
    """
    from llm_magics.runtime.session import session
    from llm_magics.settings.credentials import refuse_clearing

    if rest == "clear":
        refuse_clearing(session.config, "cache_dir")
        gone = session.answer_cache.clear()
        say(f"{gone.entries:,} answers are forgotten.")
        return
    if rest.split() == ["clear", "vectors"]:
        say(_clear_vectors())
        return
    if rest:
        session.config.cache = on_or_off("cache", rest)
    size = session.answer_cache.size()
    state = "on" if session.config.cache else "off"
    say(
        f"The cache is {state}: {size.entries:,} answers, {size.bytes / 1e6:.1f} of "
        f"{session.config.cache_mb:,} MB, in {session.answer_cache.path}"
        " (those of columns are kept always)"
    )
    say(_kept_vectors())


def _kept_vectors() -> str:
    from llm_magics.runtime.session import session
    from llm_magics.runtime.storage.vector_store import size_of

    folder = session.vectors_folder
    if folder is None:
        return "Vectors are not kept: the setting vectors is off."
    count, size = size_of(folder)
    return f"{count:,} vectors are kept, {size / 1e6:.1f} MB, in {folder}"


def _clear_vectors() -> str:
    from llm_magics.runtime.session import session
    from llm_magics.runtime.storage.vector_store import forget_all, size_of
    from llm_magics.settings.credentials import refuse_clearing

    folder = session.vectors_folder
    if folder is None:
        return _kept_vectors()
    refuse_clearing(session.config, "vectors" if session.config.vectors else "cache_dir")
    count, _ = size_of(folder)
    size = forget_all(folder)
    return f"{count:,} vectors are forgotten, {size / 1e6:.1f} MB."


@command("templates")
def templates(shell: InteractiveShell, rest: str, variables: Variables) -> DataFrame:
    """The prompts in files that -t can name, as a DataFrame."""
    from llm_magics._util.filesystem import shown
    from llm_magics._util.tables import WideFrame
    from llm_magics.errors import LLMError
    from llm_magics.runtime.prompts import prompt_files
    from llm_magics.runtime.prompts.templates import names_in

    rows: list[tuple[str, str, str | None, str, str]] = []
    for name, path in sorted(prompt_files.names().items()):
        try:
            file = prompt_files.read(path)
        except LLMError as error:  # one that is wrong hides no other
            rows.append((name, f"({error})", None, "", shown(path)))
            continue
        names = names_in(f"{file.text}{file.system or ''}") - {"input"}
        rows.append((name, file.description, file.model, ", ".join(sorted(names)), shown(path)))
    return WideFrame(rows, columns=["name", "description", "model", "variables", "path"])


@command("threads [NAME|clear [NAME]]")
def threads(shell: InteractiveShell, rest: str, variables: Variables) -> Any:
    """What the next prompt of each --thread will carry, as a DataFrame."""
    from llm_magics.runtime.session import session

    words = split(rest)
    known = session.threads.names()
    clears = words[:1] == ["clear"] and "clear" not in known
    if len(words) > 1 + clears:
        msg = f"%llm threads takes the name of one thread, and was given {rest!r}."
        raise UsageError(
            msg, hint="Write %llm threads, %llm threads NAME or %llm threads clear NAME."
        )
    name = next(iter(words[1:] if clears else words), None)
    if name is not None and name not in known:
        msg = f'There is no thread "{name}".'
        raise UsageError(msg, hint=nearest(name, known))
    if clears:
        say(f"{session.threads.forget(name):,} turns are forgotten.")
        return None
    return session.threads.frame(name)
