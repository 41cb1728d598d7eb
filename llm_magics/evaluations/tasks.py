"""
Tasks of evaluations: what is evaluated.

| task | a run of it |
|---|---|
| a text with ``{{ column }}`` | one request for each item |
| the name of a prompt file | one request for each item |
| a function of a row | a call for each item; it may send any requests |
| a function whose first parameter is ``df`` | one call for all items |

Functions get the model, and whether answers must not come from a cache, if they have parameters
``model`` and ``fresh`` (or ``**options``).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llm_magics.benchmarking.analysis import CLUSTER_COLUMN, ITEM_COLUMN, MODEL_COLUMN
from llm_magics.benchmarking.measure import Job
from llm_magics.errors import TemplateError, UsageError, nearest
from llm_magics.evaluations.code_digests import function_digest, function_name, source_of
from llm_magics.evaluations.datasets import EvaluationSet
from llm_magics.evaluations.items import Item, canonical_json, digest_of
from llm_magics.runtime.chat import ChatCall
from llm_magics.runtime.prompts import prompt_files, templates
from llm_magics.runtime.prompts.prompt import Prompt
from llm_magics.runtime.session import session

# The name of the mapping of all columns in a template, for names with spaces.
_ROW = "row"
# The parameter that makes a function one of all items.
_FRAME = "df"
_INPUT = "input"


@dataclass(frozen=True, kw_only=True)
class FunctionJob:
    """
    One call of a function.

    Attributes:
        position: the sort key of its row among all rows.
        model: the name of the model as passed by the caller, or of the function.
        columns: the first columns of its row.
        function: the function without arguments.
    """

    position: tuple[int, ...]
    model: str
    columns: dict[str, Any]
    function: Callable[[], Any]


@dataclass(frozen=True, kw_only=True)
class Requests:
    """
    The items, the models and the number of repeats of a task.

    Attributes:
        items: the items.
        models: the names of the models, or the name of a function that chooses its own.
        repeat: how often each item is asked.
        has_models: whether the user has named the models.
        has_expected: whether the rows have a column of expected answers.
        cluster: the column with the clusters of the items.
        system, parameters: as for ``lm.ask``.
    """

    items: Sequence[Item]
    models: Sequence[str]
    repeat: int
    has_models: bool
    has_expected: bool
    cluster: str | None
    system: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_fresh(self) -> bool:
        """Whether answers must not come from a cache, because repeats would be copies."""
        return self.repeat > 1

    def columns(self, item: Item, model: str, repeat: int, prompt: str) -> dict[str, Any]:
        """Return the first columns of a row."""
        columns = {ITEM_COLUMN: item.id, MODEL_COLUMN: model, "repeat": repeat, "prompt": prompt}
        columns |= {"expected": item.expected} if self.has_expected else {}
        if self.cluster is not None:
            value = item.columns[self.cluster]
            columns[CLUSTER_COLUMN] = value if value is None else str(value)
        return columns


@dataclass(frozen=True, kw_only=True)
class PromptTask:
    """
    A prompt with ``{{ column }}`` in it.

    Attributes:
        text: the prompt.
        name: the name of its file, if it is from one.
        file: the other values of its file.
    """

    text: str
    name: str = "prompt"
    file: prompt_files.PromptFile | None = None

    @property
    def about(self) -> dict[str, Any]:
        """What identifies the task, as JSON values."""
        kind = "prompt file" if self.file else "prompt"
        digest = digest_of([self.text, *([self.file.digest] if self.file else [])])
        return {"kind": kind, "name": self.name, "text": self.text, "digest": digest}

    def own_settings(self, system: str | None, parameters: Mapping[str, Any]) -> set[str]:
        """Return the names of the settings that the caller or the file replaces."""
        file = self.file or prompt_files.PromptFile(text=self.text)
        has_system = (system if file.system is None else file.system) is not None
        return {*parameters, *file.parameters, *(["system"] if has_system else [])}

    def models(self, models: Sequence[str] | None) -> list[str]:
        """Return the models to ask: those of the caller, the one of the file, or the setting."""
        own = self.file.model if self.file else None
        return list(models or [own or str(session.config.model)])

    def jobs(self, requests: Requests) -> list[Job]:
        """
        Return one job for each item, model and repeat, in the order of the rows.

        Raises:
            TemplateError: the prompt cannot be rendered.
        """
        jobs = []
        for repeat in range(requests.repeat):
            for row, item in enumerate(requests.items):
                for column, model in enumerate(requests.models):
                    prompt = self._prompt(item, model, requests)
                    call = ChatCall(session, prompt)
                    text = call.messages[-1].content
                    columns = requests.columns(item, model, repeat, text)
                    jobs.append(
                        Job(
                            position=(repeat, row, column),
                            prompt=prompt,
                            columns=columns,
                            call=call,
                        )
                    )
        return jobs

    def _prompt(self, item: Item, model: str, requests: Requests) -> Prompt:
        values = {name: "" if value is None else value for name, value in item.inputs.items()}
        variables = {_ROW: values, **values}
        file = self.file
        if file is None:  # rendered here, where it is compiled once for all items
            system = requests.system
            return Prompt(
                text=templates.render(self.text, variables),
                model=model,
                system=None if system is None else templates.render(system, variables),
                parameters=requests.parameters,
                is_fresh=requests.is_fresh,
            )
        only = next(iter(values.values())) if len(values) == 1 else ""
        return Prompt(
            text=self.text,
            model=model,
            system=file.system if requests.system is None else requests.system,
            parameters={**file.parameters, **requests.parameters},
            schema=file.schema,
            variables={**file.defaults, _INPUT: only, **variables},
            is_fresh=requests.is_fresh,
            is_foreign=True,
            file_name=file.name,
            file_digest=file.digest,
        )


@dataclass(frozen=True, kw_only=True)
class FunctionTask:
    """
    A function of the user.

    Attributes:
        function: the function.
        name: its name.
        is_of_frame: whether it is a function of all items, as a DataFrame.
    """

    function: Callable[..., Any]
    name: str
    is_of_frame: bool

    @property
    def about(self) -> dict[str, Any]:
        """What identifies the task, as JSON values; its code, if that can be read."""
        kind = "function of a table" if self.is_of_frame else "function"
        code = source_of(self.function)
        digest = function_digest(self.function)
        return {"kind": kind, "name": self.name, "text": code, "digest": digest}

    def own_settings(self, system: str | None, parameters: Mapping[str, Any]) -> set[str]:
        """Return no names, because a function may send requests without these arguments."""
        return set()

    def models(self, models: Sequence[str] | None) -> list[str]:
        """
        Return the models of the caller; without any, the name of the function stands for them.

        Raises:
            UsageError: the function has no parameter ``model``.
        """
        if models is None:
            return [self.name]
        if not _takes(self.function, "model"):
            msg = f"The function {self.name} has no parameter model, but models are given."
            raise UsageError(msg, hint="Add it: def task(row, model): …  Or pass no models.")
        return list(models)

    def options(self, model: str, requests: Requests) -> dict[str, Any]:
        """
        Return the arguments by keyword of the function.

        Raises:
            UsageError: the function has no such parameter, or answers for all items come from a
                cache, and the function cannot change it.
        """
        system = {} if requests.system is None else {"system": requests.system}
        options = {**requests.parameters, **system}
        unknown = [name for name in options if not _takes(self.function, name)]
        if unknown:
            msg = f"The function {self.name} has no parameter {unknown[0]}."
            raise UsageError(msg, hint="Set it inside the function, or add the parameter.")
        if requests.has_models:
            options["model"] = model
        if _takes(self.function, "fresh"):
            options["fresh"] = requests.is_fresh
        elif requests.is_fresh and self.is_of_frame:
            msg = "Repeats would be copies of the first answers, which DataFrame methods store."
            hint = "Pass **options on: lambda df, **options: df.llm.classify(…, **options)"
            raise UsageError(msg, hint=hint)
        return options

    def jobs(self, requests: Requests) -> list[FunctionJob]:
        """Return one job for each item, model and repeat, in the order of the rows."""
        jobs = []
        for repeat in range(requests.repeat):
            for row, item in enumerate(requests.items):
                for column, model in enumerate(requests.models):
                    options = self.options(model, requests)
                    columns = requests.columns(item, model, repeat, question_of(item))
                    jobs.append(
                        FunctionJob(
                            position=(repeat, row, column),
                            model=model,
                            columns=columns,
                            function=_Bound(self.function, item, options),
                        )
                    )
        return jobs


class _Bound:
    """A function with its row, which it cannot change for other calls."""

    def __init__(
        self, function: Callable[..., Any], item: Item, options: Mapping[str, Any]
    ) -> None:
        self._function = function
        self._item = item
        self._options = options

    def __call__(self) -> Any:
        return self._function(self._item.series, **self._options)


Task = PromptTask | FunctionTask


def parse_task(task: Any, data: EvaluationSet) -> Task:
    """
    Return the task that the user means.

    Raises:
        UsageError: it is not a prompt, a prompt file or a function, or it names a column that
            the data does not have.
        TemplateError: the prompt file does not exist.
    """
    if isinstance(task, str):
        return _parse_prompt(task, data)
    if callable(task):
        first = next(iter(_parameters(task)), "")
        return FunctionTask(function=task, name=function_name(task), is_of_frame=first == _FRAME)
    msg = f"Invalid task: got {type(task).__name__}."
    raise UsageError(msg, hint="Pass a prompt with {{ column }}, a prompt file or a function.")


def _parse_prompt(text: str, data: EvaluationSet) -> PromptTask:
    is_template = "{{" in text or "{%" in text
    task = PromptTask(text=text) if is_template else _parse_file(text, data)
    known = {*data.inputs, _ROW, *([_INPUT, *task.file.defaults] if task.file else [])}
    system = (task.file.system or "") if task.file else ""
    unknown = sorted(templates.find_names(f"{task.text}{system}") - known)
    if unknown:
        msg = f"The prompt uses {{{{ {unknown[0]} }}}}, which is not an input of the data."
        raise UsageError(msg, hint=nearest(unknown[0], data.inputs))
    return task


def _parse_file(name: str, data: EvaluationSet) -> PromptTask:
    try:
        file = prompt_files.load(name.strip())
    except TemplateError:
        if len(name.split()) == 1:  # it cannot be a prompt
            raise
        msg = "The prompt has no {{ column }}, and no prompt file has this name."
        hint = f"Use an input of the data: {{{{ {data.inputs[0]} }}}}"
        raise UsageError(msg, hint=hint) from None
    text = file.text
    if not templates.find_names(text) & {*data.inputs, _ROW, _INPUT} and len(data.inputs) == 1:
        text = f"{text}\n\n{{{{ {_INPUT} }}}}"
    return PromptTask(text=text, name=name.strip(), file=file)


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C
        return {}


def _takes(function: Callable[..., Any], name: str) -> bool:
    """Return whether ``function`` has a parameter ``name``, or takes any by keyword."""
    parameters = _parameters(function)
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    return name in parameters or takes_any


def question_of(item: Item) -> str:
    """Return the inputs of an item as a text."""
    if len(item.inputs) == 1:
        value = next(iter(item.inputs.values()))
        return value if isinstance(value, str) else canonical_json(value)
    return canonical_json(item.inputs)
