"""A prompt from a cell, and its answer back into it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llm_magics import host, kernel_loop
from llm_magics._async.bridge import bridge
from llm_magics._util.filesystem import shown
from llm_magics._util.terminal import shown_name
from llm_magics._util.text import dollars
from llm_magics.errors import UsageError, nearest
from llm_magics.notebook import answering
from llm_magics.notebook.options import (
    SERVICE_PARAMETERS,
    check_name,
    llm_cell_parser,
    pairs,
    parameters_of,
    service_value,
    thread_or_model,
)
from llm_magics.notebook.printing import say
from llm_magics.notebook.tool_rounds import functions_named
from llm_magics.runtime.chat import ChatCall
from llm_magics.runtime.pricing import Estimate
from llm_magics.runtime.prompts import prompt_files
from llm_magics.runtime.prompts.prompt import Prompt
from llm_magics.runtime.prompts.prompt_files import PromptFile
from llm_magics.runtime.prompts.templates import Filled, names_in
from llm_magics.runtime.response import Response
from llm_magics.runtime.session import session
from llm_magics.schemas import schema_of

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def answer_cell(
    shell: InteractiveShell, options: argparse.Namespace, cell: str, variables: Mapping[str, Any]
) -> Any:
    """What ``%%llm`` does with its options and its cell; ``variables`` are the caller's."""
    if not cell.strip() and not options.template:
        msg = "The cell is empty."
        raise UsageError(msg, hint="Write the prompt in the lines below %%llm.")
    kernel_loop.nest_if_wanted()  # a file may ask for it
    check_name(options.output)
    thread_or_model(options)
    for model in options.model:
        if "=" in model:
            msg = f'"{model}" is no model.'
            raise UsageError(
                msg, hint=f"To fill in a {{{{ name }}}} of the prompt write -p {model}."
            )
    _refuse_slips(options, cell, variables)
    if options.save:
        return _save(options, cell)
    if len(options.model) > 1:
        from llm_magics.notebook.comparing import compare

        return compare(shell, _prompt(options, cell, variables), options)
    prompt = _prompt(options, cell, variables)
    if options.dry_run:
        return _dry_run(ChatCall(session, prompt))
    session.threads.leave(host.running().key, but=options.thread)
    answering.answer(shell, options, prompt)
    return None


def answer_line(shell: InteractiveShell, text: str, variables: Mapping[str, Any]) -> Response:
    """Ask the prompt on the line of ``%llm ask`` and return the answer, which is shown."""
    if not text.strip():
        msg = "The prompt is empty."
        raise UsageError(msg, hint="Write the prompt on the line: %llm ask Why is the sky blue?")
    kernel_loop.nest_if_wanted()
    options = llm_cell_parser().parse("")
    session.threads.leave(host.running().key, but=None)
    return answering.answer(shell, options, _prompt(options, text, variables))


def _refuse_slips(options: argparse.Namespace, cell: str, variables: Mapping[str, Any]) -> None:
    """What would be dropped, or taken for something else, without a word."""
    for flag in ("template", "thread", "output", "image", "tools"):
        if options.save and getattr(options, flag):
            msg = f"--save keeps the cell and asks nobody: --{flag} does nothing there."
            raise UsageError(msg, hint="Save first, and ask in another cell.")
    schema = options.schema or ""
    if schema.isidentifier() and schema[:1].isupper() and schema not in variables:
        classes = [name for name, value in variables.items() if isinstance(value, type)]
        msg = f"There is no {schema}."
        hint = f"{nearest(schema, classes, listed=False)} Fields are written: --schema 'name, age int'."
        raise UsageError(msg, hint=hint.strip())
    given = pairs(options.param)
    if given and not options.save:
        _refuse_unused(given, options, cell)


def _used(options: argparse.Namespace, cell: str) -> set[str]:
    """Return the names in the prompt, its system message, and its template."""
    text = f"{cell} {options.system or ''}"
    if options.template:
        file = prompt_files.load(options.template)
        text += f" {file.text} {file.system or ''}"
    return set(names_in(text))


def _refuse_unused(given: Mapping[str, str], options: argparse.Namespace, cell: str) -> None:
    used = _used(options, cell)
    for each in given:
        if options.template and each == "input":
            msg = "{{ input }} is the cell."
            raise UsageError(msg, hint="Write it in the lines below.")
        if each not in used and each not in SERVICE_PARAMETERS:
            msg = f"-p {each}: the prompt has no {{{{ {each} }}}}."
            raise UsageError(msg, hint=nearest(each, used))


def _given(options: argparse.Namespace, cell: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Return what ``-p`` fills into the prompt, and what it tells the service."""
    given = pairs(options.param)
    if not SERVICE_PARAMETERS.intersection(given):
        return given, {}
    used = _used(options, cell)
    told = {name: given.pop(name) for name in SERVICE_PARAMETERS.intersection(given) - set(used)}
    return given, {name: service_value(value) for name, value in told.items()}


def _prompt(options: argparse.Namespace, cell: str, variables: Mapping[str, Any]) -> Prompt:
    given, told = _given(options, cell)
    return Prompt(
        cell.rstrip("\n"),
        model=options.model[0] if options.model else None,
        system=options.system,
        parameters={**parameters_of(options), **told},
        variables={**variables, **given},
        images=[variables.get(word, word) for word in options.image],
        schema=options.schema and variables.get(options.schema, options.schema),
        tools=functions_named(options.tools or "", variables),
        template=options.template,
        thread=options.thread,
        is_fresh=options.fresh,
    )


def _save(options: argparse.Namespace, cell: str) -> None:
    """The cell as a template; what belongs to one run of it alone is not kept."""
    given, told = _given(options, cell)
    file = PromptFile(
        cell.strip("\n"),
        system=options.system,
        model=next(iter(options.model), None),
        parameters={**parameters_of(options), **told},
        schema=options.schema,
        defaults=given,
    )
    path = prompt_files.save(options.save, file, overwrite=options.yes)
    say(f"Kept as {shown(path)}; %%llm -t {options.save} asks it.")


def _dry_run(call: ChatCall) -> None:
    route, others, estimate = bridge.run(call.plan())
    lines = [f"to {shown_name(route.name)}; nothing was sent"]
    if others:
        lines.append(f"where that fails: {', then '.join(map(shown_name, others))}")
    lines += [f"[{message.role}] {message.content}" for message in call.messages]
    lines += [f"[picture] {image!r}" for image in call.messages[-1].images]
    if call.schema is not None:
        lines.append(f"[schema] {json.dumps(schema_of(call.schema), ensure_ascii=False)}")
    if call.filled:
        lines += ["", "filled in:", *map(_filled, call.filled)]
    lines += ["", _told(estimate)]
    say("\n".join(lines))


def _filled(filled: Filled) -> str:
    names = ", ".join(filled.names) or "an expression"
    return f"  {names}: {filled.kind}, {filled.characters:,} characters"


def _told(estimate: Estimate) -> str:
    cost = "nothing" if estimate.cost_usd == 0 else dollars(estimate.cost_usd)
    return (
        f"about {estimate.input_tokens:,} tokens, and an answer of up to "
        f"{estimate.output_tokens:,}: cost {cost}"
    )
