"""Commands about settings: config, key and trust."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from llm_magics._util.text import escape_invisible
from llm_magics.errors import UsageError, nearest
from llm_magics.notebook.commands.registry import Variables, command, one_word
from llm_magics.notebook.display.output import print_safe
from llm_magics.notebook.parsers import parse_setting_value, split_words, unescape
from llm_magics.secrets import Secret

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


@command("config [KEY [VALUE]]")
def config(shell: InteractiveShell, rest: str, variables: Variables) -> Any:
    """Show all settings with their sources, show one or those of a provider, or set one."""
    from llm_magics.settings.config import config as settings
    from llm_magics.settings.config import describe_setting, redact_setting

    key, _, value = rest.partition(" ")
    if not key:
        return settings.frame()
    if value.strip():
        parsed = parse_setting_value(value.strip())
        if key == "stop" and isinstance(parsed, str):
            parsed = unescape(parsed)
        settings.set(key, parsed)
        _reset_if_rejected(key)
    elif key == "providers" or (key.startswith("providers.") and key.count(".") == 1):
        table = settings.frame()
        table = table[table.index.str.startswith(f"{key}.")]
        if not table.empty:
            return table
        print_safe(f"{key}: no setting is set here or in a settings file.")
        return None
    print_safe(f"{key} = {redact_setting(settings.get(key))!r}  ({settings.source(key)})")
    if not value.strip() and (description := describe_setting(key)):
        print_safe(description)
    return None


def _reset_if_rejected(key: str) -> None:
    """Reset a setting that its provider rejects, because all later calls would fail."""
    from llm_magics.errors import ConfigurationError
    from llm_magics.runtime.session import session

    if not key.startswith("providers."):
        return
    try:
        session.provider(key.split(".")[1])
    except ConfigurationError as error:
        if error.code and error.code != key.rpartition(".")[2]:
            return  # another setting is missing, which a later line may set
        session.config.reset(key)
        raise


@command("key PROVIDER [--forget]")
def key(shell: InteractiveShell, rest: str, variables: Variables) -> None:
    """
    Enter a provider's API key without echo; saved in the system keyring if there is one.

    In Colab, Kaggle and Databricks, the notebook's secrets are looked up again first.
    """
    from llm_magics.runtime.session import session
    from llm_magics.settings import credentials

    words = split_words(rest)
    forgets = "--forget" in words
    name = one_word(
        "key", " ".join(word for word in words if word != "--forget"), "a provider", "openai"
    )
    _check_takes_key(name)
    if forgets:
        had_one = session.config.get(f"providers.{name}.api_key") is not None
        session.config.reset(f"providers.{name}.api_key")
        had_key = credentials.delete_key(name) or had_one
        print_safe(
            f"Removed the API key for {name}." if had_key else f"No API key for {name} was saved."
        )
        return
    _check_has_no_identity(name)
    if source := session.providers.look_up_again(name):
        print_safe(f"Using the {source} for {name}.")
        return
    secret = read_secret(f"API key for {name} (hidden): ", f"%llm key {name}")
    session.config.set(f"providers.{name}.api_key", secret)
    why = credentials.store_key(name, secret)
    where = f"for this session only. {why}." if why else "in the system keyring."
    print_safe(f"Saved the API key for {name} {where}")


def _check_takes_key(name: str) -> None:
    from llm_magics.runtime.session import session

    names = session.providers.names()
    if name not in names:
        msg = f'No provider is named "{name}".'
        raise UsageError(msg, hint=nearest(name, names))
    if not session.providers.takes_key(name):
        msg = f"{name} does not use an API key."
        raise UsageError(msg, hint="Use it without one.")


def _check_has_no_identity(name: str) -> None:
    from llm_magics.providers.identity import describe_identity, sign_in_hint
    from llm_magics.runtime.session import session

    identity = session.providers.identity(name)
    if identity is None:
        return
    msg = f"{name} signs in by {describe_identity(identity)}, without an API key."
    hint = sign_in_hint(identity)
    if session.config.get(f"providers.{name}.token_provider") is not None:
        hint += f" To use a key instead: %llm config providers.{name}.token_provider none"
    raise UsageError(msg, hint=hint)


def read_secret(question: str, again: str) -> Secret:
    """
    Return the key that the user types without echo; ``again`` is the line that asks once more.

    Raises:
        UsageError: the session is not interactive, or the key is empty or has unprintable
            characters.
    """
    import getpass

    try:
        typed = getpass.getpass(question).strip()
    except (EOFError, NotImplementedError) as error:  # the session is not interactive
        msg = "Typing a key needs an interactive notebook."
        raise UsageError(
            msg, hint="Set the environment variable before the kernel starts."
        ) from error
    if not typed or not typed.isprintable():
        msg = "The key has unprintable characters." if typed else "No key was entered."
        raise UsageError(msg, hint=f"Run {again} again.")
    return Secret(typed)


@command("trust [off]")
def trust(shell: InteractiveShell, rest: str, variables: Variables) -> None:
    """Allow this project's settings to decide where your API keys are sent, and its MCP servers."""
    from llm_magics.settings import credentials as trusted
    from llm_magics.settings.config import config as settings_now

    if rest not in ("", "off"):
        msg = f"%llm trust takes 'off' or no argument (got {rest!r})."
        raise UsageError(msg, hint="It applies to the project of this notebook.")
    settings_now.reload()  # trust the current content of the file, and apply it
    found = trusted.find_project_file(settings_now)
    if found is None:
        print_safe("This project has no settings file.")
        return
    path, settings = found
    if rest == "off":
        print_safe(
            f"{path} is no longer trusted."
            if trusted.distrust(path)
            else f"{path} was not trusted."
        )
        return
    trusted.trust(path, settings)
    lines = [
        f"  {name}: {', '.join(f'{key} {escape_invisible(value)}' for key, value in own.items())}"
        for name, own in trusted.provider_locations(settings).items()
    ]
    lines += [
        f"  {key}: {escape_invisible(folder)} (stored vectors and answers there may be deleted)"
        for key, folder in trusted.storage_folders(settings).items()
    ]
    lines += [
        f"  {line}"
        for name, own in trusted.server_entries(settings).items()
        for line in _format_server(name, own)
    ]
    print_safe(
        "\n".join(
            [
                f"Trusted: API keys and tokens may be sent to the addresses in {path} until they change:",
                *lines,
            ]
        )
    )


def _format_server(name: str, own: Any) -> Iterator[str]:
    """Yield lines about what an MCP server in a project's file may do."""
    from llm_magics.settings.schema import ServerSettings

    server = ServerSettings.model_validate(own)
    what = (
        f"sends requests to {server.url}" if server.url else f"runs {shlex.join(server.command)}"
    )
    yield escape_invisible(f"MCP server {name}: {what}")
    copied = [each for each, value in server.env.items() if value is None]
    copied += [server.token_env] if server.token_env else []
    if copied:
        yield escape_invisible(f"  gets the environment variables {', '.join(copied)}")
    if server.allow:
        yield escape_invisible(f"  runs without a question: {', '.join(server.allow)}")
