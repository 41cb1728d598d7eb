r"""
Gate files: a YAML file has a prompt, scores, and the drop that must be found.

    data: support.jsonl
    prompt: "Which team answers this? billing, technical or sales.\n\n{{ text }}"
    models: openai/gpt-5-mini
    scores:
      exact: {drop: 0.05}

Paths are relative to the file. All fields are described in `GateFile`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from llm_magics._util.filesystem import display_path, load_yaml
from llm_magics._util.text import reason_of
from llm_magics.errors import UsageError, nearest
from llm_magics.runtime.prompts import prompt_files
from llm_magics.runtime.prompts.prompt import Prompt
from llm_magics.runtime.prompts.prompt_files import PromptFile

# The names of scores are those of `llm_magics.benchmarking.scorers`.
Drop = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class ScoreRule(BaseModel):
    """
    A score and the drop that the gate must find.

    Attributes:
        drop: the drop of the mean score that is found with a probability of 80 %.
        options: arguments of the scorer, such as ``pattern`` of ``regex``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    drop: Drop = 0.05
    options: dict[str, Any] = Field(default_factory=dict)


class BaselineRule(BaseModel):
    """
    Where the answers of the baseline are, and how many each item has.

    Attributes:
        file: the file; by default ``NAME.baseline.jsonl`` in the folder of the gate file.
        repeats: the number of answers per item.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Path | None = None
    repeats: int = Field(default=8, ge=1, le=100)


def _as_models(value: Any) -> Any:
    """Return models by label: a single model is called ``model``, so that it can be replaced."""
    if isinstance(value, str):
        return {"model": value}
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return {each: each for each in value}
    return value


def _as_scores(value: Any) -> Any:
    """Return the rules by score: a name or a list of names has the default drop."""
    names = [value] if isinstance(value, str) else value
    if isinstance(names, list) and all(isinstance(each, str) for each in names):
        return {each: ScoreRule() for each in names}
    if isinstance(names, dict):
        return {name: ScoreRule() if rule is None else rule for name, rule in names.items()}
    return value


class GateFile(BaseModel):
    """
    The contents of a gate file.

    Attributes:
        name: the name in reports; by default the name of the file.
        data: the evaluation set: JSON lines, CSV or Parquet.
        split: the split of the items; by default all items.
        prompt: the prompt, with ``{{ column }}`` for values of an item.
        prompt_file: a file with the prompt, in place of ``prompt``.
        system: the system message.
        models: a model, a list of models, or models by a label, under which the baseline has
            their answers.
        parameters: parameters of the model, such as ``temperature``.
        scores: the names of scorers, each with the ``drop`` that must be found.
        repeats: new answers per item.
        baseline: the file and the number of answers per item of the baseline.
        recording: a file with recorded answers, for runs without a key; by default
            ``NAME.answers.jsonl`` in the same folder, if it exists.
        flaky: whether flaky items are left out (``exclude``) or only listed (``list``).
        max_cost_usd: no request is sent that may exceed this cost of a run.
        concurrency: concurrent requests to each provider.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(default="", max_length=100)
    data: Path
    split: str | None = None
    prompt: str | None = None
    prompt_file: Path | None = None
    system: str | None = None
    models: Annotated[dict[str, str], BeforeValidator(_as_models), Field(min_length=1)]
    parameters: dict[str, Any] = Field(default_factory=dict)
    scores: Annotated[dict[str, ScoreRule], BeforeValidator(_as_scores), Field(min_length=1)]
    repeats: int = Field(default=1, ge=1, le=100)
    baseline: BaselineRule = BaselineRule()
    recording: Path | None = None
    flaky: Literal["exclude", "list"] = "exclude"
    max_cost_usd: float = Field(default=5.0, ge=0, allow_inf_nan=False)
    concurrency: int = Field(default=4, ge=1, le=1000)

    @field_validator("baseline", mode="before")
    @classmethod
    def _baseline_file(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value

    @field_validator("scores")
    @classmethod
    def _known_scores(cls, value: dict[str, ScoreRule]) -> dict[str, ScoreRule]:
        from llm_magics.benchmarking.scorers import SCORERS

        for name in value:
            if name not in SCORERS:
                msg = f'unknown score "{name}". {_hint_for_score(name, SCORERS)}'
                raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _one_prompt(self) -> GateFile:
        if (self.prompt is None) == (self.prompt_file is None):
            msg = "give either prompt or prompt_file"
            raise ValueError(msg)
        return self


class Gate:
    """
    A gate file and the paths in it.

    Attributes:
        path: the path of the file.
        rules: its contents.
        name: its name in reports.
    """

    def __init__(self, path: Path, rules: GateFile) -> None:
        self.path = path
        self.rules = rules
        self.name = rules.name or path.stem

    @property
    def data(self) -> Path:
        """The path of the evaluation set."""
        return self._resolve(self.rules.data)

    @property
    def baseline(self) -> Path:
        """The path of the baseline."""
        return self._resolve(self.rules.baseline.file or Path(f"{self.path.stem}.baseline.jsonl"))

    @property
    def recording(self) -> Path:
        """The path of the recorded answers."""
        return self._resolve(self.rules.recording or Path(f"{self.path.stem}.answers.jsonl"))

    def prompt(self) -> Prompt:
        """
        Return the prompt with its system message and parameters, which override those of its file.

        Raises:
            TemplateError: the file of the prompt cannot be read.
        """
        rules = self.rules
        file = (
            PromptFile(text=rules.prompt or "")
            if rules.prompt_file is None
            else prompt_files.read(self._resolve(rules.prompt_file))
        )
        return Prompt(
            text=file.text,
            system=file.system if rules.system is None else rules.system,
            parameters={**file.parameters, **rules.parameters},
            schema=file.schema,
            variables=file.defaults,
            is_fresh=True,
        )

    def _resolve(self, path: Path) -> Path:
        return self.path.parent / path.expanduser()


def load_gate(path: Path | str) -> Gate:
    """
    Return the gate in the file ``path``.

    Raises:
        UsageError: it cannot be read or is invalid; the message names the field.
    """
    path = Path(path)
    shown = display_path(path)
    text = _read(path, "the gate file")
    try:
        values = load_yaml(text, unique_keys=True)
    except ValueError as error:
        msg = f"{shown} is not valid YAML: {error}."
        raise UsageError(msg, hint="See docs/how-to/gate-in-ci.md for an example.") from None
    if not isinstance(values, dict):
        msg = f"{shown} has no fields."
        raise UsageError(msg, hint="It needs at least data, prompt, models and scores.")
    try:
        return Gate(path, GateFile.model_validate(values))
    except ValidationError as error:
        raise _usage_error(shown, error) from None


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        msg = f"Could not read {display_path(path)}: {reason_of(error)}."
        raise UsageError(msg, hint=f"Check the path of {what}.") from None


def _hint_for_score(name: str, known: Iterable[str]) -> str:
    if name == "judge":
        return "A judge compares answers of several models: use lm.evaluate"
    return nearest(name, known)


# What to write in place of a value of a wrong type, by the type of the error.
_EXPECTED = {
    "path_type": "must be a path",
    "dict_type": "must be a mapping",
    "float_parsing": "must be a number, such as 0.05",
    "int_parsing": "must be a whole number",
    "too_short": "must not be empty",
}
# The fields of the parts of a gate file; those of a score have its name before them.
_PARTS: dict[str, type[BaseModel]] = {"scores": ScoreRule, "baseline": BaselineRule}


def _usage_error(shown: str, error: ValidationError) -> UsageError:
    """Return the first mistakes with the names of their fields, and what to do."""
    problems, hint = [], "See docs/how-to/gate-in-ci.md for all fields."
    for each in error.errors(include_url=False)[:3]:
        place = each["loc"]
        field = ".".join(map(str, place))
        if each["type"] == "extra_forbidden":
            problems.append(f"unknown field {field}")
            part = _PARTS.get(str(place[0]), GateFile) if len(place) > 1 else GateFile
            hint = nearest(str(place[-1]), part.model_fields)
        elif each["type"] == "missing":
            problems.append(f"the field {field} is missing")
        else:
            reason = _EXPECTED.get(each["type"], each["msg"].removeprefix("Value error, "))
            problems.append(f"{field}: {reason[:1].lower()}{reason[1:]}" if field else reason)
    text = "; ".join(each.rstrip(".") for each in problems)
    return UsageError(f"{shown}: {text}{'' if text.endswith('?') else '.'}", hint=hint)
