"""The subcommands of ``%llm``: each with its usage, and its docstring for help."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from llm_magics.errors import UsageError, nearest
from llm_magics.notebook.options import split

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell
    from pandas import DataFrame

Variables = Mapping[str, Any]
Command = Callable[["InteractiveShell", str, Variables], Any]

COMMANDS: dict[str, Command] = {}
_USAGE: dict[str, str] = {}


def _command(usage: str) -> Callable[[Command], Command]:
    name = usage.partition(" ")[0]

    def register(function: Command) -> Command:
        COMMANDS[name] = function
        _USAGE[name] = usage
        return function

    return register


def run(shell: InteractiveShell, line: str, variables: Variables) -> Any:
    """What ``%llm`` does with its line."""
    name, _, rest = line.strip().partition(" ")
    if not name:
        name = "help"
    if name not in COMMANDS:
        msg = f'%llm has no subcommand "{name}".'
        raise UsageError(msg, hint=nearest(name, COMMANDS))
    return COMMANDS[name](shell, rest.strip(), variables)


@_command("ask TEXT")
def ask(shell: InteractiveShell, rest: str, variables: Variables) -> None:
    """Ask the model of the settings; {{ names }} as in %%llm."""
    from llm_magics.notebook.asking import answer_cell
    from llm_magics.notebook.options import llm_cell_parser

    answer_cell(shell, llm_cell_parser().parse(""), rest, variables)


@_command("use MODEL")
def use(shell: InteractiveShell, rest: str, variables: Variables) -> None:
    """Ask this model from now on."""
    from llm_magics.bridge import bridge
    from llm_magics.engine.road import find_candidates, find_route
    from llm_magics.engine.session import session
    from llm_magics.errors import ModelNotFoundError, UnsupportedError

    model = _one_word("use", rest, "a model")
    if model in {*session.config.aliases, *session.config.routes}:
        names = [each.model for each in bridge.run(find_candidates(session, model))]
        session.config.model = model
        _say(f"Asking {model} from now on: {', then '.join(names)}.")
        return
    route = bridge.run(find_route(session, model))
    listed = {info.name: info for info in bridge.run(route.provider.describe_models())}
    if route.model not in listed and not route.model.endswith(".gguf"):
        msg = f'{route.provider.name} has no model "{route.model}".'
        raise ModelNotFoundError(msg, hint=nearest(route.model, listed))
    abilities = listed[route.model].abilities if route.model in listed else ()
    if abilities and "chat" not in abilities:
        msg = f"{route.name} cannot chat; it is made for {' and '.join(abilities)}."
        hint = f"For embeddings write: %llm config embedding_model {route.name}"
        raise UnsupportedError(msg, hint=hint)
    session.config.model = route.name
    _say(f"Asking {route.name} from now on.")


@_command("models [PATTERN]")
def models(shell: InteractiveShell, rest: str, variables: Variables) -> DataFrame:
    """What models there are, as a DataFrame."""
    from llm_magics.api import models as listed

    return listed(rest)


@_command("pull MODEL")
def pull(shell: InteractiveShell, rest: str, variables: Variables) -> None:
    """Fetch a model, so that it can be used."""
    from llm_magics.engine.exchange import Exchange
    from llm_magics.engine.manage import PullCall
    from llm_magics.engine.session import session

    model = _one_word("pull", rest, "a model")
    with Exchange(PullCall(session, model)) as exchange:
        exchange.finish()
    _say(f"{model} is here.")


@_command("delete MODEL")
def delete(shell: InteractiveShell, rest: str, variables: Variables) -> None:
    """Delete a model's weights."""
    from llm_magics.bridge import bridge
    from llm_magics.engine.manage import delete_model
    from llm_magics.engine.session import session

    model = _one_word("delete", rest, "a model")
    bridge.run(delete_model(session, model))
    _say(f"{model} is deleted.")


@_command("config [KEY [VALUE]]")
def config(shell: InteractiveShell, rest: str, variables: Variables) -> Any:
    """See all settings and where they come from, see one, or set one."""
    from llm_magics.settings.config import config as settings

    key, _, value = rest.partition(" ")
    if not key:
        return settings.frame()
    if value.strip():
        settings.set(key, _parsed(value.strip()))
        _take_back_if_refused(key)
    _say(f"{key} = {settings.get(key)!r}  ({settings.source(key)})")
    return None


def _parsed(value: str) -> Any:
    """Text as it is; lists as YAML writes them; ``none`` for nothing. Types are coerced later."""
    import yaml

    if value.lower() in ("none", "null"):
        return None
    if not value.startswith("["):
        return value.strip("\"'")
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return value


def _take_back_if_refused(key: str) -> None:
    """A setting that its provider refuses must not stay, and spoil every call after it."""
    from llm_magics.engine.session import session
    from llm_magics.errors import ConfigurationError

    if not key.startswith("providers."):
        return
    try:
        session.provider(key.split(".")[1])
    except ConfigurationError as error:
        if error.code and error.code != key.rpartition(".")[2]:
            return  # something else is missing still, which the next line may bring
        session.config.reset(key)
        raise


@_command("record FILE|off")
def record(shell: InteractiveShell, rest: str, variables: Variables) -> None:
    """Keep every answer from now on in a file, for replay."""
    from llm_magics.engine.session import session

    file = _one_word("record", rest, "a file")
    session.config.record = file
    off = file == "off" or session.tape is None
    _say("Recording has ended." if off else f"Every answer is kept in {file} from now on.")


@_command("replay FILE [--strict]|off")
def replay(shell: InteractiveShell, rest: str, variables: Variables) -> None:
    """Take answers from a recording; with --strict, from nowhere else."""
    from llm_magics.engine.session import session
    from llm_magics.errors import ConfigurationError

    words = [word for word in split(rest) if word != "--strict"]
    file = _one_word("replay", " ".join(words), "a file")
    before = session.config.replay
    session.config.replay, session.config.replay_strict = file, "--strict" in rest.split()
    try:
        tape = session.tape
    except ConfigurationError:
        session.config.replay = before
        raise
    _say("Answers are live." if tape is None else f"Answers come from {file}.")


@_command("health")
def health(shell: InteractiveShell, rest: str, variables: Variables) -> DataFrame:
    """Which providers can be used, and if not, why."""
    from llm_magics.bridge import bridge
    from llm_magics.engine.manage import health as checked
    from llm_magics.engine.session import session

    return bridge.run(checked(session))


@_command("runs")
def runs(shell: InteractiveShell, rest: str, variables: Variables) -> DataFrame:
    """The calls of this session with their measurements, as a DataFrame."""
    from llm_magics.api import runs as logged

    return logged()


@_command("cost")
def cost(shell: InteractiveShell, rest: str, variables: Variables) -> DataFrame:
    """Calls, tokens and dollars of this session, by model."""
    from llm_magics.api import runs as logged

    calls = logged().assign(calls=1)
    columns = ["calls", "input_tokens", "output_tokens", "cost_usd"]
    # min_count: where no price is known the sum is unknown too, and not nothing.
    return calls.groupby(["provider", "model"])[columns].sum(min_count=1)


@_command("help")
def help_(shell: InteractiveShell, rest: str, variables: Variables) -> None:
    """Show this."""
    lines = ["%%llm [MODEL] …   the prompt in the lines below; %%llm? lists its flags", ""]
    lines += [f"%llm {_USAGE[name]:22} {inspect.getdoc(COMMANDS[name])}" for name in COMMANDS]
    lines += ["", "%embed EXPR --into COLUMN   vectors for a column; %embed? lists its flags"]
    _say("\n".join(lines))


def _one_word(command: str, rest: str, what: str) -> str:
    words = split(rest)
    if len(words) != 1:
        msg = f"%llm {command} takes {what}, and was given {rest or 'none'!r}."
        raise UsageError(msg, hint=f"Write %llm {command} local/smollm2-135m.")
    return words[0]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
