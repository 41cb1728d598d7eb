"""Commands about models and providers: use, models, pull, delete, providers, health and pick."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_magics._util.text import display_name, quote_word
from llm_magics.errors import Interrupted, UsageError, nearest
from llm_magics.notebook.commands.registry import Variables, command, one_word
from llm_magics.notebook.display.output import print_safe
from llm_magics.notebook.parsers import split_words

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell
    from pandas import DataFrame


@command("use MODEL")
def use(shell: InteractiveShell, rest: str, variables: Variables) -> None:
    """Use this model from now on."""
    from llm_magics._async.bridge import bridge
    from llm_magics.runtime.models import select_model
    from llm_magics.runtime.session import session

    names = bridge.run(select_model(session, one_word("use", rest, "a model")))
    chosen = session.config.model
    details = "" if names == [chosen] else f": {', then '.join(map(display_name, names))}"
    print_safe(f"Using {display_name(chosen)} from now on{details}.")


@command("models [PATTERN]")
def models(shell: InteractiveShell, rest: str, variables: Variables) -> DataFrame:
    """List the available models, as a DataFrame."""
    from llm_magics.api import models as listed
    from llm_magics.errors import ModelNotFoundError
    from llm_magics.runtime.doctor import describe_unlisted
    from llm_magics.runtime.session import session

    frame = listed(rest)
    if not rest and (others := describe_unlisted(session)):
        print_safe(others)
    if rest and frame.empty:
        if rest.rstrip("/") in session.providers.names():
            print_safe(explain_no_models(rest.rstrip("/")))
            return frame
        known = listed()
        msg = f'No model or provider matches "{rest}".'
        raise ModelNotFoundError(msg, hint=nearest(rest, {*known.provider, *known.model}))
    return frame


def explain_no_models(provider_name: str) -> str:
    """Return the message for a provider that lists no models."""
    from llm_magics.runtime.session import session

    provider = session.provider(provider_name)
    where = f" at {provider.address}" if provider.address else ""
    if "pull" in provider.capabilities:
        return (
            f"{provider_name}{where} has no models. Pull one with: %llm pull {provider_name}/NAME"
        )
    return f"{provider_name}{where} lists no models. Use one as: {provider_name}/MODEL"


@command("pull MODEL")
def pull(shell: InteractiveShell, rest: str, variables: Variables) -> None:
    """Download a model."""
    from llm_magics._async.sync import SyncRunner
    from llm_magics.runtime.models import PullCall
    from llm_magics.runtime.session import session

    model = one_word("pull", rest, "a model")
    try:
        with SyncRunner(PullCall(session, model)) as exchange:
            exchange.finish()
    except KeyboardInterrupt:
        msg = f"Stopped: {display_name(model)} was not downloaded completely."
        hint = f"The downloaded part is saved. Continue with: %llm pull {quote_word(model) or 'MODEL'}"
        raise Interrupted(msg, hint=hint) from None
    print_safe(f"{display_name(model)} is ready.")


@command("delete MODEL")
def delete(shell: InteractiveShell, rest: str, variables: Variables) -> None:
    """Delete a model's weights."""
    from llm_magics._async.bridge import bridge
    from llm_magics.runtime.models import delete_model
    from llm_magics.runtime.session import session

    model = one_word("delete", rest, "a model")
    bridge.run(delete_model(session, model))
    print_safe(f"Deleted {display_name(model)}.")


@command("providers")
def providers(shell: InteractiveShell, rest: str, variables: Variables) -> DataFrame:
    """List the providers with their keys, start commands and capabilities, as a DataFrame."""
    from llm_magics.runtime.models import provider_table
    from llm_magics.runtime.session import session

    return provider_table(session)


@command("health [PROVIDER …]")
def health(shell: InteractiveShell, rest: str, variables: Variables) -> DataFrame:
    """Check which providers work, and why the others do not."""
    from llm_magics._async.bridge import bridge
    from llm_magics.runtime.doctor import check_health as checked
    from llm_magics.runtime.doctor import describe_unlisted
    from llm_magics.runtime.session import session

    names = split_words(rest)
    if not names and (others := describe_unlisted(session)):
        print_safe(others)
    known = session.providers.names()
    for each in names:
        if each not in known:
            msg = f'No provider is named "{display_name(each)}".'
            raise UsageError(msg, hint=nearest(each, known))
    return bridge.run(checked(session, names or None))


@command("pick")
def pick(shell: InteractiveShell, rest: str, variables: Variables) -> None:
    """Choose a model and its parameters in a panel."""
    from llm_magics.notebook.picker import pick as show_picker

    show_picker(shell)
