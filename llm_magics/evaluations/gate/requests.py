"""The requests of a gate: each item's prompt, and a digest of everything that is sent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from llm_magics._util.filesystem import display_path
from llm_magics.errors import LLMError, UsageError, nearest
from llm_magics.evaluations.datasets import EvaluationSet
from llm_magics.evaluations.gate.specification import Gate
from llm_magics.evaluations.items import Item
from llm_magics.runtime.chat import ChatCall
from llm_magics.runtime.prompts.prompt import Prompt, PromptParameters
from llm_magics.runtime.prompts.templates import find_names
from llm_magics.runtime.session import session
from llm_magics.runtime.storage.serialization import chat_request, digest_request

# The names under which a prompt finds all columns, and the only one.
_ROW, _INPUT = "row", "input"


@dataclass(frozen=True, kw_only=True)
class Request:
    """
    A prompt for an item and a model.

    Attributes:
        label: the label of the model in the gate file.
        item: the id of the item.
        expected: the expected answer.
        digest: the digest of the item's inputs.
        key: the digest of the model, the messages and the parameters.
        prompt: the prompt.
        parameters: its parameters, shared by all requests of a model.
    """

    label: str
    item: str
    expected: Any
    digest: str
    key: str
    prompt: Prompt
    parameters: PromptParameters

    def call(self) -> ChatCall:
        """Return a new call."""
        return ChatCall(session, self.prompt, parameters=self.parameters)


@dataclass(frozen=True, kw_only=True)
class GateRequests:
    """
    All requests of a gate, and what determines them.

    Attributes:
        gate: the gate file.
        requests: the requests by label, and then by item in the order of the waves.
        about: the digest of the data, the prompt and the parameters, for the baseline.
    """

    gate: Gate
    requests: Mapping[str, Mapping[str, Request]]
    about: Mapping[str, Any]


def build_requests(gate: Gate) -> GateRequests:
    """
    Return the requests of a gate. The items are in an order that does not depend on their file.

    Raises:
        UsageError: the data has no items, or a prompt cannot be built; the message names the item.
    """
    data = EvaluationSet(gate.data)
    if gate.rules.split is not None:
        data = data.split(gate.rules.split)
    items = sorted(data.items, key=lambda item: _digest([gate.name, item.id]))
    if not items:
        msg = f"{display_path(gate.data)} has no items."
        raise UsageError(msg, hint="Add items, or check the field split of the gate file.")
    prompt = _with_input(gate, data)
    by_label: dict[str, dict[str, Request]] = {}
    for label, model in gate.rules.models.items():
        of_model = replace(prompt, model=model)
        parameters = PromptParameters(of_model, session.config)
        by_label[label] = {}
        for item in items:
            values = {**(prompt.variables or {}), **_variables(item)}
            own = replace(of_model, variables=values)
            try:
                messages = ChatCall(session, own, parameters=parameters).messages
            except LLMError as error:
                msg = f"{display_path(gate.path)}, item {item.id}: {error}"
                raise UsageError(msg, hint=error.hint) from error
            by_label[label][item.id] = Request(
                label=label,
                item=item.id,
                expected=item.expected,
                digest=_digest(dict(item.inputs))[:16],
                key=digest_request(chat_request(model, messages, parameters.merge()))[:32],
                prompt=own,
                parameters=parameters,
            )
    schema = [] if prompt.schema is None else [prompt.schema]
    about = {
        "data": data.digest[:16],
        "prompt": _digest([prompt.text, prompt.system, *schema])[:16],
        "parameters": _digest(dict(prompt.parameters))[:16],
        "models": dict(gate.rules.models),
    }
    return GateRequests(gate=gate, requests=by_label, about=about)


def _with_input(gate: Gate, data: EvaluationSet) -> Prompt:
    """
    Return the prompt of the gate, whose variables are columns of the data or have defaults.

    As in ``lm.evaluate``, ``row`` has all columns, and ``input`` is the only column, which is
    appended to a prompt file that does not use it.

    Raises:
        UsageError: the prompt uses another variable, or no column.
    """
    prompt = gate.prompt()
    columns = {*data.inputs, _ROW, *([_INPUT] if len(data.inputs) == 1 else [])}
    used = find_names(f"{prompt.text}{prompt.system or ''}")
    shown = display_path(gate.path)
    if unknown := sorted(used - columns - {*(prompt.variables or {})}):
        msg = (
            f"{shown}: the prompt uses {{{{ {unknown[0]} }}}}, which is not a column of the data."
        )
        raise UsageError(msg, hint=nearest(unknown[0], data.inputs))
    if used & columns:
        return prompt
    if gate.rules.prompt_file is not None and len(data.inputs) == 1:
        return replace(prompt, text=f"{prompt.text}\n\n{{{{ {_INPUT} }}}}")
    msg = f"{shown}: the prompt has no {{{{ column }}}}, so that it is the same for all items."
    raise UsageError(msg, hint=f"Use a column of the data: {{{{ {data.inputs[0]} }}}}.")


def _variables(item: Item) -> dict[str, Any]:
    """Return the values for the prompt; missing ones are empty."""
    values = {name: "" if value is None else value for name, value in item.inputs.items()}
    only = {_INPUT: next(iter(values.values()))} if len(values) == 1 else {}
    return {**only, _ROW: values, **values}


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
