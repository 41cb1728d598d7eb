"""
Prompts, the messages and parameters built from them, and conversations.

In a conversation (a thread), earlier prompts and answers are sent with the next prompt. A turn
belongs to the cell that sent it. When that cell runs again, its turn is replaced, and later turns
are removed, because they depend on the replaced answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from llm_magics.attachments import Image, load_image
from llm_magics.documents import load_attachment
from llm_magics.errors import LLMError, TemplateError, UsageError, abbreviate
from llm_magics.host import Cell
from llm_magics.parameters import ModelParameters
from llm_magics.runtime.prompts import prompt_files, templates
from llm_magics.sandbox.copies import user_variables
from llm_magics.schemas import parse_schema
from llm_magics.secrets import register_headers
from llm_magics.settings.config import Config
from llm_magics.settings.files import is_project_file
from llm_magics.tools import create_tool
from llm_magics.types import ChatMessage

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """
    A question and its answer.

    Attributes:
        key: identifies this turn.
        cell: the key of the cell that sent the prompt; empty outside of cells.
        run: identifies the run of the cell.
        asked, answered: the messages.
        model: the model that answered.
        is_whole: whether the answer is complete.
    """

    key: str
    cell: str
    run: str
    asked: ChatMessage
    answered: ChatMessage
    model: str
    is_whole: bool = True


@dataclass
class Conversations:
    """The conversations of this session, by name."""

    _turns: dict[str, list[Turn]] = field(default_factory=dict)

    def names(self) -> list[str]:
        """The names of the conversations, in the order in which they began."""
        return list(self._turns)

    def before(self, name: str, cell: str = "", run: str = "") -> list[ChatMessage]:
        """Return the earlier messages that a ``run`` of ``cell`` sends in the thread ``name``."""
        return [
            message
            for turn in self._turns_before(name, cell, run)
            for message in (turn.asked, turn.answered)
        ]

    def add(self, name: str, turn: Turn) -> int:
        """
        Add ``turn``, or replace the one of its cell; return the number of removed later turns.

        An interrupted turn does not replace a turn on which later turns depend.
        """
        turns = self._turns.get(name, [])
        known = [each.key for each in turns]
        if turn.key in known:  # an answer that was corrected in another round
            turns[known.index(turn.key)] = turn
            return 0
        earlier_turns = self._turns_before(name, turn.cell, turn.run)
        dropped = len(turns) - len(earlier_turns) - 1
        if dropped > 0 and not turn.is_whole:
            return 0
        self._turns[name] = [*earlier_turns, turn]
        return max(0, dropped)

    def leave(self, cell: str, but: str | None = None) -> None:
        """Remove the turns of ``cell``, and those after them, from all threads except ``but``."""
        for name in [each for each in self._turns if each != but and cell]:
            self._turns[name] = self._turns_before(name, cell, "")
            if not self._turns[name]:
                del self._turns[name]

    def _turns_before(self, name: str, cell: str, run: str) -> list[Turn]:
        """Return the turns before the first turn of an earlier run of the cell."""
        turns = self._turns.get(name, [])
        earlier = (
            index
            for index, turn in enumerate(turns)
            if cell and turn.cell == cell and turn.run != run
        )
        return turns[: next(earlier, None)]

    def forget(self, name: str | None = None) -> int:
        """End one conversation, or all of them; return the number of their turns."""
        names = self.names() if name is None else [name]
        return sum(len(self._turns.pop(each, ())) for each in names)

    def frame(self, name: str | None = None) -> DataFrame:
        """
        Return the messages that the next prompt will include, one row per message.

        Columns: ``thread``, ``turn`` (from 1), ``role``, ``content``, ``model``, ``whole`` (false
        if the answer was interrupted).
        """
        from llm_magics._util.tables import SafeFrame, display_when_empty

        rows = [
            (thread, number, message.role, message.content, turn.model, turn.is_whole)
            for thread in self.names()
            if name in (None, thread)
            for number, turn in enumerate(self._turns[thread], 1)
            for message in (turn.asked, turn.answered)
        ]
        columns = ["thread", "turn", "role", "content", "model", "whole"]
        hint = "No conversations yet. Start one with: %%llm --thread NAME"
        return display_when_empty(SafeFrame(rows, columns=columns), hint)


# The parameters that are settings too; all others are sent to the service unchanged.
PARAMETER_SETTINGS = ("temperature", "max_tokens", "top_p", "seed", "stop")
# Parameters that are converted to each service's format.
_SHARED = ("tool_choice", "reasoning", "extra_headers", "logprobs", "choices", "search", "tier")
# Parameters of services that resemble misspelled parameters of this package.
_THEIRS = frozenset(
    {
        "logprobs",  # in extra_body, for services that this package does not know to have them
        "min_p",
        "min_tokens",
        "n_predict",
        "stop_token_ids",
        "top_k",
        "top_logprobs",
        "top_n",
        "typical_p",
    }
)
# Settings of providers: as parameters they would have no effect, or reveal a key.
_OF_PROVIDERS = frozenset(
    {
        "api",
        "api_key",
        "api_version",
        "base_url",
        "connect_s",
        "idle_s",
        "max_line_mb",
        "max_response_mb",
        "profile",
        "token_provider",
        "total_s",
    }
)
# The arguments of lm.ask itself.
_ARGUMENTS = ("attachments", "fresh", "images", "mcp", "model", "schema", "system", "template", "thread", "tools", "variables")  # fmt: skip
# The names of these arguments in %%llm, with the Python equivalent.
_FLAGS = {
    "attach": "Use attachments=[…].",
    "dry_run": "In a cell: %%llm --dry-run.",
    "format": "In Python, use the methods of the answer: .json(), .df(), .code",
    "image": "Use images=[…].",
    "output": "In Python, lm.ask returns the answer.",
    "param": "Use variables={…}.",
    "params": "Use variables={…}.",
    "save": "In a cell: %%llm --save NAME.",
    "yes": "lm.ask never asks for confirmation.",
}
_OURS = frozenset({"input", "messages", "prompt", "stream", "stream_options"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """
    A prompt with its model, parameters and options.

    Attributes:
        text: the prompt, with ``{{ names }}`` in it.
        model: the model; by default the setting ``model``.
        system: the system message; by default the setting ``system``.
        parameters: the parameters of this prompt, which override the settings.
        images: the images to send with it.
        attachments: the files to send with it: documents, audio and images.
        schema: the schema that the answer must match; see `llm_magics.schemas`.
        tools: the functions that the model may call.
        variables: the values of ``{{ names }}``; with ``None``, braces are literal text.
        template: the name of a prompt in a file, or the file; ``text`` is its ``{{ input }}``.
        thread: the conversation that the prompt continues.
        before: the messages before the prompt, in place of those of a thread.
        is_fresh: whether to send the prompt even if its answer is cached.
        is_foreign: whether it is from a file, which others may have written.
        is_kept: whether its answer is cached even if the settings disable the cache.
        file_name, file_digest: the name and the digest of the prompt file that it is from.
    """

    text: str
    model: str | None = None
    system: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, Any] | None = None
    images: Sequence[Any] = ()
    attachments: Sequence[Any] = ()
    schema: Any = None
    tools: Sequence[Any] = ()
    template: str | prompt_files.PromptFile | None = None
    thread: str | None = None
    before: Sequence[ChatMessage] = ()
    is_fresh: bool = False
    is_foreign: bool = False
    is_kept: bool = False
    file_name: str | None = None
    file_digest: str | None = None


def apply_template(prompt: Prompt, config: Config) -> Prompt:
    """Return ``prompt`` with the values of its template's file, for those that it does not set."""
    if prompt.template is None:
        return prompt
    file = prompt.template
    if not isinstance(file, prompt_files.PromptFile):
        file = prompt_files.load(file)
    text = file.text
    if "input" not in templates.find_names(f"{text}{file.system or ''}") and prompt.text.strip():
        text = f"{text}\n\n{{{{ input }}}}"
    # The cell's expressions are the user's own, so they are rendered as in any other cell.
    own = "" if prompt.variables is None else templates.render(prompt.text, prompt.variables)
    values = {"input": own or prompt.text}
    try:
        PromptParameters(Prompt(text="", parameters=file.parameters), config).merge()
    except LLMError as error:
        msg = f"The template {file.name}: {error}"
        raise TemplateError(msg, hint=error.hint) from None
    return replace(
        prompt,
        text=text,
        template=None,
        is_foreign=True,
        file_name=file.name,
        file_digest=file.digest,
        model=prompt.model or file.model,
        system=file.system if prompt.system is None else prompt.system,
        parameters={**file.parameters, **_set_parameters(prompt.parameters)},
        schema=file.schema if prompt.schema is None else prompt.schema,
        variables={**file.defaults, **user_variables(prompt.variables or {}), **values},
    )


def _set_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value is not None}


class PromptParameters:
    """
    The parameters of a prompt, with its schema and its tools compiled.

    It is created once for all attempts and models, and once for all prompts of a batch that share
    it.

    Attributes:
        schema: the JSON schema that the answer must match.
        tools: the tools that the model may call.
    """

    def __init__(self, prompt: Prompt, config: Config) -> None:
        self.schema = None if prompt.schema is None else parse_schema(prompt.schema)
        self.tools = tuple(create_tool(each) for each in _as_list(prompt.tools))
        self._prompt = prompt
        self._own = _set_parameters(prompt.parameters)
        self._settings = {name: config.get(name) for name in PARAMETER_SETTINGS}
        self._merged: tuple[Mapping[str, Any], ModelParameters] | None = None

    def are_of(self, prompt: Prompt) -> bool:
        """Return whether ``prompt`` has the same parameters, schema and tools."""
        own = self._prompt
        return (
            prompt.parameters is own.parameters
            and prompt.schema is own.schema
            and prompt.tools is own.tools
        )

    def with_reasoning(self, reasoning: bool) -> PromptParameters:
        """Return these parameters with thinking turned on or off."""
        other = copy(self)
        other._own, other._merged = {**self._own, "reasoning": reasoning}, None
        return other

    def merge(self, alias: Mapping[str, Any] = MappingProxyType({})) -> ModelParameters:
        """Return the merged parameters of the prompt, of its ``alias``, and of the settings."""
        if self._merged is None or self._merged[0] != alias:
            self._merged = (alias, self._merge(alias))
        return self._merged[1]

    def _merge(self, alias: Mapping[str, Any]) -> ModelParameters:
        extra = {**alias, **self._own}
        values = {name: extra.pop(name, value) for name, value in self._settings.items()}
        values |= {name: extra.pop(name) for name in _SHARED if name in extra}
        if "extra_headers" in values:
            register_headers(values["extra_headers"])  # masked, because a service may repeat them
        extra |= extra.pop("extra_body", {})
        for name in extra:
            _check_parameter(name)
        return ModelParameters(
            **values, stream=True, extra_body=extra, schema=self.schema, tools=self.tools
        )


# Parameters of other libraries, with their equivalents in this package.
_ELSEWHERE = {
    "timeout": "Set it per provider: %llm config providers.NAME.total_s 30",
    "max_retries": "Set it for all prompts: %llm config retries 3",
    "messages": 'Pass the prompt as text; thread="NAME" continues a conversation.',
}


def _check_parameter(name: str) -> None:
    """Raise `UsageError` for a parameter that is misspelled, or that the call itself sets."""
    if name in _OURS:
        msg = f"{name} is not a model parameter."
        raise UsageError(msg, hint=f"It is set by the call itself: {', '.join(sorted(_OURS))}.")
    if name in _OF_PROVIDERS:
        msg = f"{name} is a setting of a provider, not of a prompt."
        raise UsageError(msg, hint=f"Set it for all prompts: %llm config providers.NAME.{name} …")
    if name in _THEIRS:
        return
    if name in _FLAGS:
        msg = f"{name} is a flag of %%llm, not a parameter."
        raise UsageError(msg, hint=_FLAGS[name])
    if name in _ARGUMENTS:
        msg = f"{name} is not supported here."
        raise UsageError(msg, hint="It is an argument of lm.ask.")
    if name in _ELSEWHERE:
        msg = f"Unknown parameter: {name}."
        raise UsageError(msg, hint=_ELSEWHERE[name])
    meant = get_close_matches(name, (*PARAMETER_SETTINGS, *_SHARED, *_ARGUMENTS), n=1, cutoff=0.75)
    if meant:
        msg = f"Unknown parameter: {name}."
        raise UsageError(msg, hint=f"Did you mean {meant[0]}?")


def has_foreign_system(prompt: Prompt, config: Config) -> bool:
    """Return whether the system message is the default, and from a settings file of the project."""
    is_default = prompt.system is None and config.system is not None
    return is_default and is_project_file(config.source("system"))


def build_messages(
    prompt: Prompt,
    default_system: str | None,
    before: Sequence[ChatMessage] = (),
    note: Callable[[templates.Substitution], None] | None = None,
    *,
    is_default_foreign: bool = False,
) -> tuple[ChatMessage, ...]:
    """
    Return the system message, the messages in ``before``, and the rendered prompt.

    ``is_default_foreign`` means that the default system message is from a file of the project; it
    is then rendered like a prompt file.
    """
    for what, value in (("prompt", prompt.text), ("model", prompt.model)):
        if not isinstance(value, str | None) or (what == "prompt" and value is None):
            msg = f"The {what} must be a string, got {type(value).__name__}."
            raise UsageError(
                msg, hint="Pass one prompt at a time; use lm.compare or lm.prompt for several."
            )
    system = prompt.system if prompt.system is not None else default_system
    text = prompt.text
    if prompt.variables is not None:
        fill = partial(templates.render, variables=prompt.variables, note=note)
        text = fill(text, is_foreign=prompt.is_foreign)
        is_default = prompt.system is None and is_default_foreign
        if is_default:
            fill = partial(fill, variables=user_variables(prompt.variables))
        system = system and fill(system, is_foreign=prompt.is_foreign or is_default)
    if not text.strip():
        msg = "The prompt is empty."
        raise UsageError(msg, hint="Pass the text of the prompt.")
    attached = [load_attachment(each) for each in _as_list(prompt.attachments)]
    images = [load_image(each) for each in _as_list(prompt.images)]
    message = ChatMessage(
        "user",
        text,
        images=(*images, *(each for each in attached if isinstance(each, Image))),
        attachments=tuple(each for each in attached if not isinstance(each, Image)),
    )
    first = (ChatMessage("system", system),) if system else ()
    return (*first, *before, message)


def _as_list(values: Any) -> Iterable[Any]:
    """Return a list unchanged, and a single value in a tuple."""
    return values if isinstance(values, list | tuple) else (values,)


def previous_messages(threads: Conversations, prompt: Prompt, cell: Cell) -> list[ChatMessage]:
    """Return the earlier messages in the thread of the prompt, if it has one."""
    if prompt.thread is None:
        return list(prompt.before)
    if not isinstance(prompt.thread, str) or not prompt.thread:
        msg = f"The thread must be a string, got {abbreviate(prompt.thread)}."
        raise UsageError(msg, hint='Use thread="main".')
    return threads.before(prompt.thread, cell.key, cell.run)
