"""Commands about settings: config, key and trust."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_magics.errors import UsageError, nearest
from llm_magics.notebook.commands.registry import Variables, command, one_word
from llm_magics.notebook.display.output import print_safe
from llm_magics.notebook.parsers import parse_setting_value, split_words, unescape
from llm_magics.secrets import Secret

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


@command("config [KEY [VALUE]]")
def config(shell: InteractiveShell, rest: str, variables: Variables) -> Any:
    """See all settings and where they come from, see one, or set one."""
    from llm_magics.settings.config import config as settings
    from llm_magics.settings.config import redact_setting

    key, _, value = rest.partition(" ")
    if not key:
        return settings.frame()
    if value.strip():
        parsed = parse_setting_value(value.strip())
        if key == "stop" and isinstance(parsed, str):
            parsed = unescape(parsed)
        settings.set(key, parsed)
        _reset_if_rejected(key)
    print_safe(f"{key} = {redact_setting(settings.get(key))!r}  ({settings.source(key)})")
    return None


def _reset_if_rejected(key: str) -> None:
    """A setting that its provider refuses must not stay, and spoil every call after it."""
    from llm_magics.errors import ConfigurationError
    from llm_magics.runtime.session import session

    if not key.startswith("providers."):
        return
    try:
        session.provider(key.split(".")[1])
    except ConfigurationError as error:
        if error.code and error.code != key.rpartition(".")[2]:
            return  # something else is missing still, which the next line may bring
        session.config.reset(key)
        raise


@command("key PROVIDER [--forget]")
def key(shell: InteractiveShell, rest: str, variables: Variables) -> None:
    """Type a provider's key unseen; kept in the system's keyring, or for the session."""
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
        was_kept = credentials.delete_key(name) or had_one
        print_safe(
            f"The key of {name} is forgotten." if was_kept else f"No key of {name} was kept."
        )
        return
    secret = _read_key(name)
    session.config.set(f"providers.{name}.api_key", secret)
    why = credentials.store_key(name, secret)
    where = f"for this session. {why}." if why else "in your system's keyring."
    print_safe(f"The key of {name} is kept {where}")


def _check_takes_key(name: str) -> None:
    from llm_magics.runtime.session import session

    names = session.providers.names()
    if name not in names:
        msg = f'There is no provider "{name}".'
        raise UsageError(msg, hint=nearest(name, names))
    if not session.providers.takes_key(name):
        msg = f"{name} takes no key."
        raise UsageError(msg, hint="It can be asked without.")


def _read_key(name: str) -> Secret:
    """Return the key that the user types; it is displayed nowhere."""
    import getpass

    try:
        typed = getpass.getpass(f"Key of {name} (not shown): ").strip()
    except (EOFError, NotImplementedError) as error:  # nobody is there to type
        msg = "A key can be typed only where somebody sits in front of the notebook."
        raise UsageError(
            msg, hint="Put it into the environment before the kernel starts."
        ) from error
    if not typed or not typed.isprintable():
        msg = "That is no key." if typed else "No key was typed."
        raise UsageError(msg, hint=f"Run %llm key {name} again.")
    return Secret(typed)


@command("trust [off]")
def trust(shell: InteractiveShell, rest: str, variables: Variables) -> None:
    """Let this project's settings say where your own keys are sent."""
    from llm_magics.settings import credentials as trusted
    from llm_magics.settings.config import config as settings_now

    if rest not in ("", "off"):
        msg = f"%llm trust takes off or nothing, and was given {rest!r}."
        raise UsageError(msg, hint="It is about the folder that the notebook is in.")
    settings_now.reload()  # what is trusted is what the file says now, and what is in force
    found = trusted.find_project_file(settings_now)
    if found is None:
        print_safe("There is no settings file of a project here.")
        return
    path, settings = found
    if rest == "off":
        print_safe(
            f"{path} is not trusted any more."
            if trusted.distrust(path)
            else f"{path} was not trusted."
        )
        return
    trusted.trust(path, settings)
    lines = [
        f"  {name}: {', '.join(f'{key} {value}' for key, value in own.items())}"
        for name, own in trusted.provider_locations(settings).items()
    ]
    lines += [
        f"  {key}: {folder} (stored vectors and answers may be cleared there)"
        for key, folder in trusted.storage_folders(settings).items()
    ]
    print_safe(
        "\n".join([f"Your keys may be sent to where {path} says, until that changes:", *lines])
    )
