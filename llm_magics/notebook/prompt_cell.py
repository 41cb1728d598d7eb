"""``%%llm`` and ``%llm ask``: send the prompt of a cell and display the answer."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llm_magics._async.bridge import bridge
from llm_magics._async.sync import SyncRunner
from llm_magics._util.filesystem import display_path
from llm_magics._util.text import display_name, format_usd, one_line, pluralize
from llm_magics.errors import Interrupted, ParseError, UsageError, nearest
from llm_magics.host import current_host
from llm_magics.notebook import frontend, markdown
from llm_magics.notebook.display.answer import create_answer_display
from llm_magics.notebook.display.footer import show_footer, show_transient
from llm_magics.notebook.display.footnotes import show_footnotes
from llm_magics.notebook.display.output import print_safe
from llm_magics.notebook.frontend import display_mode
from llm_magics.notebook.next_step import STARTER, NextStep
from llm_magics.notebook.parsers import (
    SERVICE_PARAMETERS,
    check_output_name,
    collect_parameters,
    llm_cell_parser,
    move_model_from_thread,
    parse_pairs,
    parse_service_value,
)
from llm_magics.notebook.provenance import PROVENANCE_KEY, get_provenance
from llm_magics.notebook.tool_calls import ToolRounds, find_functions, find_server_tools
from llm_magics.runtime.chat import ChatCall
from llm_magics.runtime.pricing import Estimate
from llm_magics.runtime.prompts import prompt_files
from llm_magics.runtime.prompts.prompt import Prompt
from llm_magics.runtime.prompts.prompt_files import PromptFile
from llm_magics.runtime.prompts.templates import Substitution, find_names
from llm_magics.runtime.response import Response
from llm_magics.runtime.session import session
from llm_magics.runtime.structured import StructuredCall
from llm_magics.tools import create_tool
from llm_magics.types import Tool

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


_next_step = NextStep(session)

# The variable of the last answer, like IPython's _ for the last result.
LAST = "_llm"


def answer(shell: InteractiveShell, options: argparse.Namespace, prompt: Prompt) -> Response:
    """
    Display the answer as it streams and return it.

    The text received is stored in the variables of the answer even after an error or interrupt.
    """
    call = StructuredCall(session, prompt)
    form = options.format or ("markdown" if call.schema is None else "json")
    rounds = ToolRounds(shell, prompt.tools, is_allowed=options.yes) if prompt.tools else None
    try:
        _show(shell, call, options, is_shown=form == "markdown")
        for messages in rounds.of(call) if rounds is not None else ():
            call.go_on(messages)
            _show(shell, call, options, is_shown=form == "markdown")
    except KeyboardInterrupt:
        response = call.response()
        if response.text:
            _show_footer(shell, response)
        raise _interrupted(response, options.output) from None
    finally:
        _store(shell, options.output, call.response())
    response = call.response()
    if form != "markdown":
        _show_as(shell, form, call)
    _show_summary(shell, response)
    response.check()
    return response


def _show(
    shell: InteractiveShell, call: StructuredCall, options: argparse.Namespace, *, is_shown: bool
) -> None:
    """Run the call to its end; with ``is_shown``, display the answer as it streams."""

    def model() -> str:
        return call.response().model

    if _has_hints(shell) and session.config.model == STARTER:
        _next_step.begin()
    if not is_shown:
        with (
            create_answer_display(shell, model) as display,
            SyncRunner(call, display.show_progress, display.catch_up) as runner,
        ):
            runner.finish()
        return
    call.ask_once()  # a repeated request could not replace the displayed text
    with create_answer_display(shell, model, stream=not options.no_stream) as display:
        written = 0
        try:
            with SyncRunner(call, display.show_progress, display.catch_up) as exchange:
                for chunk in exchange:
                    if chunk.ends_reasoning:
                        display.rethink()
                        written = 0
                    if chunk.reasoning:
                        display.think(chunk.reasoning)
                    if chunk.text:
                        written += len(chunk.text)
                        display.write(chunk.text)
        finally:
            # After an interrupt, the answer may have text that is not displayed yet.
            display.write(call.response().text[written:])
        display.tell(get_provenance(call))


def _show_summary(shell: InteractiveShell, response: Response) -> None:
    """Show the sources, print retries, fallbacks and removed turns, and show the footer."""
    show_footnotes(shell, response)
    if response.retries or response.fallback_from or response.repairs:
        print_safe(_format_attempts(response))
    if response.removed_turns:
        turns = pluralize(response.removed_turns, "later turn")
        which, cells = (
            ("was", "its cell") if response.removed_turns == 1 else ("were", "their cells")
        )
        sys.stdout.write(
            f"{turns} depended on the replaced answer and {which} removed; rerun {cells}.\n"
        )
    _show_footer(shell, response)


def _show_footer(shell: InteractiveShell, response: Response) -> None:
    """Show the footer of ``response``, unless the setting ``footer`` hides it."""
    publish = shell.display_pub.publish
    if session.config.footer == "always" or _has_hints(shell):
        show_footer(publish, response)
    if response.model == STARTER and _has_hints(shell) and (hint := _next_step.take()):
        show_transient(publish, hint, "hint")


def _has_hints(shell: InteractiveShell) -> bool:
    """Whether a user watches and the setting ``footer`` allows hints."""
    return session.config.footer != "never" and display_mode(shell) == "live"


def _format_attempts(response: Response) -> str:
    """Return a line about fallbacks, retries and corrections."""
    parts = [f"answered by {display_name(response.model)}"]
    if response.fallback_from:
        parts.append(f"instead of {', '.join(map(display_name, response.fallback_from))}")
    if response.retries:
        times = "once" if response.retries == 1 else f"{response.retries} times"
        parts.append(f"retried {times}")
    if response.repairs:
        parts.append("corrected to match its schema")
    return ", ".join(parts)


def _show_as(shell: InteractiveShell, form: str, call: StructuredCall) -> None:
    try:
        _show_value(form, call)
    except ParseError:  # show the raw text, so that the user sees the problem
        with create_answer_display(shell, lambda: call.response().model, stream=False) as display:
            display.write(call.response().text)
        raise


def _show_value(form: str, call: StructuredCall) -> None:
    from IPython.display import Code, display

    response = call.response()
    if form == "text":
        sys.stdout.write(markdown.to_plain_text(response.text).rstrip("\n") + "\n")
        return
    if form == "code":
        value: Any = Code(response.code, language=_language(response))
    else:
        value = response.data if form == "json" else response.df()
    about = get_provenance(call)
    display(value, metadata={PROVENANCE_KEY: about} if about else {})


def _language(response: Response) -> str:
    blocks = response.code_blocks
    return blocks[0].language if blocks and blocks[0].language else "python"


def _store(shell: InteractiveShell, name: str | None, response: Response) -> None:
    if not response.text and not response.tool_calls:
        return  # keep the previous answer instead of an empty one
    shell.user_ns[LAST] = response
    if name:
        shell.user_ns[name] = response


def _interrupted(response: Response, name: str | None) -> Interrupted:
    msg = "Stopped before the first token."
    if response.text:
        msg = f"Stopped after {len(response.text):,} characters."
    hint = f"The partial answer is in {name or LAST}." if response.text else None
    return Interrupted(msg, hint=hint, partial=response)


def answer_cell(
    shell: InteractiveShell, options: argparse.Namespace, cell: str, variables: Mapping[str, Any]
) -> Any:
    """Run ``%%llm`` with its options and cell; ``variables`` are those of the caller."""
    if not cell.strip() and not options.template:
        msg = "The cell is empty."
        raise UsageError(msg, hint="Write the prompt in the lines below %%llm.")
    frontend.apply_nested_loop()  # a settings file may enable it
    check_output_name(options.output)
    move_model_from_thread(options)
    for model in options.model:
        if "=" in model:
            msg = f'"{model}" is not a model.'
            raise UsageError(msg, hint=f"To set a {{{{ name }}}} of the prompt, use -p {model}.")
    _validate_options(options, cell, variables)
    if options.save:
        return _save(options, cell)
    if len(options.model) > 1:
        from llm_magics.notebook.compare_cell import compare

        return compare(shell, _prompt(options, cell, variables), options)
    prompt = _prompt(options, cell, variables)
    if options.dry_run:
        return _dry_run(ChatCall(session, prompt), prompt.tools)
    session.conversations.leave(current_host().current_cell.key, but=options.thread)
    answer(shell, options, prompt)
    return None


def answer_line(shell: InteractiveShell, text: str, variables: Mapping[str, Any]) -> Response:
    """Run ``%llm ask``: send the prompt, display the answer and return it."""
    if not text.strip():
        msg = "The prompt is empty."
        raise UsageError(msg, hint="Use: %llm ask Why is the sky blue?")
    frontend.apply_nested_loop()
    options = llm_cell_parser().parse("")
    session.conversations.leave(current_host().current_cell.key, but=None)
    return answer(shell, options, _prompt(options, text, variables))


def _validate_options(
    options: argparse.Namespace, cell: str, variables: Mapping[str, Any]
) -> None:
    """
    Refuse options that would be ignored or misread silently.

    Raises:
        UsageError: an option has no effect, or a name is not defined.
    """
    for flag in ("template", "thread", "output", "image", "attach", "tools", "mcp"):
        if options.save and getattr(options, flag):
            msg = f"--save stores the prompt without sending it, so --{flag} has no effect."
            raise UsageError(msg, hint="Save first, and send the prompt from another cell.")
    schema = options.schema or ""
    if schema.isidentifier() and schema[:1].isupper() and schema not in variables:
        classes = [name for name, value in variables.items() if isinstance(value, type)]
        msg = f"{schema} is not defined."
        hint = f"{nearest(schema, classes, listed=False)} Example of fields: --schema 'name, age int'."
        raise UsageError(msg, hint=hint.strip())
    parameters = parse_pairs(options.param)
    if parameters and not options.save:
        _check_unused(parameters, options, cell)


def _used(options: argparse.Namespace, cell: str) -> set[str]:
    """Return the variables used in the prompt, its system message and its template."""
    text = f"{cell} {options.system or ''}"
    if options.template:
        file = prompt_files.load(options.template)
        text += f" {file.text} {file.system or ''}"
    return set(find_names(text))


def _check_unused(parameters: Mapping[str, str], options: argparse.Namespace, cell: str) -> None:
    used = _used(options, cell)
    for each in parameters:
        if options.template and each == "input":
            msg = "-p cannot set {{ input }}: it is the text of the cell."
            raise UsageError(msg, hint="Write the text in the lines below.")
        if each not in used and each not in SERVICE_PARAMETERS:
            msg = f"-p {each}: the prompt has no {{{{ {each} }}}}."
            raise UsageError(msg, hint=nearest(each, used))


def _split_parameters(
    options: argparse.Namespace, cell: str
) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the values of ``-p`` for the prompt, and those that are model parameters."""
    values = parse_pairs(options.param)
    if not SERVICE_PARAMETERS.intersection(values):
        return values, {}
    used = _used(options, cell)
    service = {
        name: values.pop(name) for name in SERVICE_PARAMETERS.intersection(values) - set(used)
    }
    return values, {name: parse_service_value(value) for name, value in service.items()}


def _prompt(options: argparse.Namespace, cell: str, variables: Mapping[str, Any]) -> Prompt:
    values, service = _split_parameters(options, cell)
    functions = find_functions(options.tools, variables) if options.tools else []
    return Prompt(
        text=cell.rstrip("\n"),
        model=options.model[0] if options.model else None,
        system=options.system,
        parameters={**collect_parameters(options), **service},
        variables={**variables, **values},
        images=[variables.get(word, word) for word in options.image],
        attachments=[variables.get(word, word) for word in options.attach],
        schema=options.schema and variables.get(options.schema, options.schema),
        tools=[*functions, *(find_server_tools(options.mcp, functions) if options.mcp else ())],
        template=options.template,
        thread=options.thread,
        is_fresh=options.fresh,
    )


def _save(options: argparse.Namespace, cell: str) -> None:
    """Save the cell as a template, without the options of a single run."""
    values, service = _split_parameters(options, cell)
    file = PromptFile(
        text=cell.strip("\n"),
        system=options.system,
        model=next(iter(options.model), None),
        parameters={**collect_parameters(options), **service},
        schema=options.schema,
        defaults=values,
    )
    path = prompt_files.save(options.save, file, overwrite=options.yes)
    print_safe(f"Saved as {display_path(path)}. Use it with %%llm -t {options.save}.")


def _dry_run(call: ChatCall, tools: Sequence[Any]) -> None:
    route, others, estimate = bridge.run(call.plan())
    lines = [f"Dry run: nothing was sent to {display_name(route.name)}."]
    if others:
        lines.append(f"on failure: {', then '.join(map(display_name, others))}")
    lines += [f"[{message.role}] {message.content}" for message in call.messages]
    lines += [f"[image] {image!r}" for image in call.messages[-1].images]
    lines += [f"[attachment] {each}" for each in call.deliveries.of(route)]
    lines += [_format_tool(create_tool(each)) for each in tools]
    if call.json_schema is not None:
        lines.append(f"[schema] {json.dumps(call.json_schema, ensure_ascii=False)}")
    if estimate.searches:
        lines.append(f"[search] the model may search the web: about {estimate.searches} searches")
    if call.filled:
        lines += ["", "inserted:", *map(_format_filled, call.filled)]
    lines += ["", _format_estimate(estimate)]
    print_safe("\n".join(lines))


def _format_tool(tool: Tool) -> str:
    arguments = ", ".join(tool.parameters.get("properties", {}))
    about = one_line(tool.description)
    name = getattr(tool, "shown", tool.name)
    return f"[tool] {name}({arguments}): {about if len(about) <= 200 else f'{about[:199]}…'}"


def _format_filled(filled: Substitution) -> str:
    names = ", ".join(filled.names) or "an expression"
    return f"  {names}: {filled.kind}, {pluralize(filled.characters, 'character')}"


def _format_estimate(estimate: Estimate) -> str:
    cost = "free" if estimate.cost_usd == 0 else f"cost {format_usd(estimate.cost_usd)}"
    return (
        f"about {pluralize(estimate.input_tokens, 'input token')}, at most "
        f"{pluralize(estimate.output_tokens, 'output token')}: {cost}"
    )
