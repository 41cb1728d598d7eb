"""The command about MCP servers: list, add, remove, test and allow their tools."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llm_magics._async.bridge import bridge
from llm_magics._util.text import escape_invisible, one_line, pluralize
from llm_magics.errors import UsageError, nearest
from llm_magics.notebook.commands.registry import Variables, command
from llm_magics.notebook.display.output import print_safe
from llm_magics.notebook.parsers import split_words
from llm_magics.secrets import is_secret_name, redact

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell
    from pandas import DataFrame

_EXAMPLE = "Use: %llm mcp add files npx -y @modelcontextprotocol/server-filesystem ."


@command("mcp [add|remove|test|allow|stop|token NAME …]")
def mcp(shell: InteractiveShell, rest: str, variables: Variables) -> DataFrame | None:
    """
    List the MCP servers, whose tools %%llm --mcp NAME offers to a model, or change them.

    add NAME [--env KEY[=VALUE]] [--timeout S] COMMAND…   add a program to your settings
    add NAME [--token-env VARIABLE] [--timeout S] URL     add a server with an address
    remove NAME                    remove it from your settings
    test NAME                      start it, and list its tools
    allow NAME TOOL…               run these tools without a question, as they are now
    stop NAME                      end it; the next use starts it again
    token NAME [--forget]          enter its bearer token without echo, for the system keyring
    """
    words = split_words(rest)
    if not words:
        return _list()
    action, *arguments = words
    if action not in _ACTIONS:
        msg = f'%llm mcp has no action "{action}".'
        raise UsageError(msg, hint=nearest(action, _ACTIONS))
    if not arguments:
        msg = f"%llm mcp {action} needs the name of a server."
        raise UsageError(msg, hint=_EXAMPLE if action == "add" else f"Use: %llm mcp {action} NAME")
    if action in ("remove", "stop", "test") and len(arguments) > 1:
        msg = f"%llm mcp {action} takes one name (got {' '.join(arguments)!r})."
        raise UsageError(msg, hint=f"Use: %llm mcp {action} {arguments[0]}")
    return _ACTIONS[action](*arguments)


def _list() -> DataFrame:
    from llm_magics._util.tables import WideFrame, display_when_empty
    from llm_magics.errors import ConfigurationError
    from llm_magics.mcp.servers import servers
    from llm_magics.runtime.session import session

    rows = []
    for name, (settings, source) in session.config.servers().items():
        running = servers.running(name)
        state = "running" if running else "failed" if name in servers.failures else "not started"
        try:
            servers.settings(name)
        except ConfigurationError:
            state = "not trusted"
        tools = [each["name"] for each in running.listed] if running else []
        rows.append(
            (
                name,
                state,
                running.revision if running else "",
                ", ".join(tools),
                ", ".join(settings.allow),
                settings.url or " ".join(settings.command),
                source,
                servers.failures.get(name, ""),
            )
        )
    columns = ["server", "state", "revision", "tools", "allow", "runs", "source", "error"]
    hint = f"No MCP servers yet. {_EXAMPLE}"
    return display_when_empty(WideFrame(rows, columns=columns), hint)


def _add(name: str, *words: str) -> None:
    from llm_magics.mcp import approvals
    from llm_magics.runtime.session import session
    from llm_magics.settings.config import Config
    from llm_magics.settings.user_file import change_servers

    settings = _parse_server(name, words)
    Config(environment={}).set(f"mcp.{name}", settings)  # an invalid server is an error here
    path = change_servers(lambda known: {**known, name: settings})
    approvals.forget(name)
    session.config.reload()
    print_safe(f"Added {name} to {path}. Start it and see its tools: %llm mcp test {name}")


def _parse_server(name: str, words: tuple[str, ...]) -> dict[str, Any]:
    """Return the settings of a server from the words after its name."""
    left = list(words)
    env: dict[str, str | None] = {}
    settings: dict[str, Any] = {}
    while left and left[0].startswith("--"):
        flag, equals, value = left.pop(0).partition("=")
        if flag not in ("--env", "--timeout", "--token-env"):
            msg = f"%llm mcp add has no flag {flag}."
            raise UsageError(msg, hint=nearest(flag, ["--env", "--timeout", "--token-env"]))
        if not equals:
            value = left.pop(0) if left else ""
        if not value:
            msg = f"{flag} needs a value."
            raise UsageError(msg, hint="Example: --env HOME=/tmp, --timeout 60")
        if flag == "--env":
            variable, equals, own = value.partition("=")
            env[variable] = own if equals else None
        elif flag == "--timeout":
            settings["timeout_s"] = value
        else:
            settings["token_env"] = value
    if not left:
        msg = f"%llm mcp add {name} needs a command or a URL."
        raise UsageError(msg, hint=_EXAMPLE)
    _check_has_no_key(env, " ".join(left))
    is_address = len(left) == 1 and re.match(r"https?://", left[0], re.IGNORECASE)
    where = {"url": left[0]} if is_address else {"command": left}
    if settings.get("timeout_s"):
        try:
            settings["timeout_s"] = float(settings["timeout_s"])
        except ValueError:
            msg = f"--timeout takes a number of seconds (got {settings['timeout_s']!r})."
            raise UsageError(msg, hint="Use: --timeout 60") from None
    return {**where, **({"env": env} if env else {}), **settings}


def _check_has_no_key(env: dict[str, str | None], line: str) -> None:
    """Refuse a key, because it would be written to the settings file and saved in the notebook."""
    for variable, value in env.items():
        if value and (is_secret_name(variable) or redact(value) != value):
            msg = f"The value of {variable} may be a key, which is not written to a file."
            hint = f"Set {variable} before the kernel starts, and use: --env {variable}"
            raise UsageError(msg, hint=hint)
    if redact(line) != line:
        msg = "The command contains a key, which is not written to a file."
        raise UsageError(msg, hint="Pass it by an environment variable (--env), or %llm mcp token")


def _remove(name: str) -> None:
    from llm_magics.mcp import approvals
    from llm_magics.mcp.servers import servers
    from llm_magics.runtime.session import session
    from llm_magics.settings.user_file import change_servers, user_servers

    if name not in user_servers():
        known = session.config.servers()
        msg = f'Your settings have no MCP server "{name}".'
        hint = (
            nearest(name, user_servers()) if name not in known else f"It is from: {known[name][1]}"
        )
        raise UsageError(msg, hint=hint)
    path = change_servers(lambda known: {key: own for key, own in known.items() if key != name})
    approvals.forget(name)
    bridge.run(servers.stop(name))
    session.config.reload()
    print_safe(f"Removed {name} from {path}.")


def _test(name: str) -> DataFrame:
    from llm_magics._util.tables import WideFrame, display_when_empty
    from llm_magics.mcp import approvals
    from llm_magics.mcp.servers import servers

    tools = bridge.run(servers.list_tools(name))
    running = servers.running(name)
    print_safe(
        f"{name} runs, speaks revision {running.revision if running else '?'} and has "
        f"{pluralize(len(tools), 'tool')}."
    )
    settings, known = servers.settings(name), approvals.allowed_digests(name)
    rows = [
        (
            f"{name}.{tool['name']}",
            escape_invisible(one_line(tool["description"])),
            ", ".join(tool["parameters"].get("properties", {})),
            tool["name"] in settings.allow,
            known.get(tool["name"], approvals.tool_digest(tool)) != approvals.tool_digest(tool),
        )
        for tool in tools
    ]
    columns = ["tool", "description", "arguments", "allowed", "changed"]
    return display_when_empty(WideFrame(rows, columns=columns), f"{name} has no tools.")


def _allow(name: str, *tools: str) -> None:
    from llm_magics.mcp import approvals
    from llm_magics.mcp.servers import servers
    from llm_magics.runtime.session import session
    from llm_magics.settings.user_file import change_servers, user_servers

    if not tools:
        msg = f"%llm mcp allow {name} needs the names of tools."
        raise UsageError(msg, hint=f"See them: %llm mcp test {name}")
    settings = servers.settings(name)
    known = {tool["name"]: tool for tool in bridge.run(servers.list_tools(name))}
    tools = tuple(tool.removeprefix(f"{name}.") for tool in tools)
    for tool in tools:
        if tool not in known:
            msg = f'{name} has no tool "{tool}".'
            raise UsageError(msg, hint=nearest(tool, known))
    left = [tool for tool in tools if tool not in settings.allow]
    if left and name not in user_servers():
        source = session.config.servers()[name][1]
        msg = f"{name} is not in your settings, but from: {source}."
        raise UsageError(msg, hint=f"Add to its entry there: allow: [{', '.join(left)}]")
    if left:
        allow = [*settings.allow, *left]
        change_servers(lambda own: {**own, name: {**own[name], "allow": allow}})
        session.config.reload()
    approvals.remember(name, {tool: approvals.tool_digest(known[tool]) for tool in tools})
    print_safe(f"Allowed without a question, until they change: {', '.join(tools)}.")


def _stop(name: str) -> None:
    from llm_magics.mcp.servers import servers

    servers.settings(name)
    print_safe(f"Ended {name}." if bridge.run(servers.stop(name)) else f"{name} was not running.")


def _token(name: str, *words: str) -> None:
    from llm_magics.mcp.servers import servers
    from llm_magics.mcp.tokens import keyring_name, token_variable
    from llm_magics.notebook.commands.settings import read_secret
    from llm_magics.settings import credentials

    if words not in ((), ("--forget",)):
        msg = f"%llm mcp token takes a name and --forget (got {' '.join(words)!r})."
        raise UsageError(msg, hint="The token is typed without echo: %llm mcp token NAME")
    url = servers.settings(name).url
    if url is None:
        msg = f"{name} is a program; a token belongs to a server with a URL."
        raise UsageError(
            msg, hint="Pass an environment variable: %llm mcp add NAME --env VARIABLE"
        )
    where = keyring_name(url)
    if words:
        had_one = credentials.delete_key(where)
        print_safe(
            f"Removed the token for {name}." if had_one else f"No token for {name} was saved."
        )
        return
    secret = read_secret(f"Token for {name} (hidden): ", f"%llm mcp token {name}")
    if why := credentials.store_key(where, secret):
        msg = f"The token for {name} was not saved. {why}."
        raise UsageError(msg, hint=f"Set {token_variable(name)} before the kernel starts.")
    bridge.run(servers.stop(name))  # so that the next use sends the new token
    print_safe(f"Saved the token for {url} in the system keyring.")


_ACTIONS: dict[str, Callable[..., DataFrame | None]] = {
    "add": _add,
    "allow": _allow,
    "remove": _remove,
    "stop": _stop,
    "test": _test,
    "token": _token,
}
