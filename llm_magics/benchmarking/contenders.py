"""What a comparison compares: models, prompt files and their versions, or each with each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llm_magics._util import validation
from llm_magics.errors import UsageError
from llm_magics.runtime.prompts import prompt_files
from llm_magics.runtime.prompts.prompt_files import PromptFile
from llm_magics.runtime.session import session


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """
    A model with a prompt file, or without one.

    Attributes:
        label: its name in the column of models.
        model: the name of the model as passed by the caller.
        shown: the name of the prompt file as passed by the caller.
        template: the prompt file, which is read once for all prompts.
    """

    label: str
    model: str
    shown: str = ""
    template: PromptFile | None = None

    @property
    def columns(self) -> dict[str, str]:
        """The columns about the prompt file in the results."""
        if self.template is None:
            return {}
        return {"template": self.shown, "template_digest": self.template.digest}


def find_contenders(
    models: str | Iterable[str] | None, templates: str | Iterable[str]
) -> list[Contender]:
    """
    Return each model, or each model with each of the prompt files ``templates``.

    Without ``models``, a prompt file is used with its own model, or with the setting ``model``.

    Raises:
        UsageError: neither is given, or a name is repeated.
        TemplateError: a prompt file or its version cannot be read.
    """
    shown = validation.check_texts("templates", templates) if templates else []
    if len(set(shown)) < len(shown):
        twice = next(each for each in shown if shown.count(each) > 1)
        raise UsageError(f"The template {twice} is listed twice.", hint="Remove one of them.")
    if models is None and not shown:
        msg = "lm.compare needs a list of models."
        raise UsageError(msg, hint='Use: lm.compare(prompts, ["openai/gpt-5", "ollama/llama3.2"])')
    names = [None] if models is None else validation.check_model_names(models)
    if not shown:
        return [Contender(label=str(name), model=str(name)) for name in names]
    files = {each: prompt_files.load(each) for each in shown}
    return [
        Contender(
            label=each if len(names) == 1 else f"{name}, {each}",
            model=name or file.model or str(session.config.model),
            shown=each,
            template=file,
        )
        for name in names
        for each, file in files.items()
    ]
