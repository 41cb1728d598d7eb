"""Check the arguments of ``lm.evaluate`` and prepare its run, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llm_magics._util import validation
from llm_magics._util.validation import check_integer
from llm_magics.benchmarking import evaluation, measure
from llm_magics.errors import UsageError, nearest
from llm_magics.evaluations import stored
from llm_magics.evaluations.code_digests import score_digests
from llm_magics.evaluations.datasets import EvaluationSet
from llm_magics.evaluations.evaluation_run import AnyJob, EvaluationRun
from llm_magics.evaluations.frame_calls import FrameCall, frame_calls
from llm_magics.evaluations.items import digest_of
from llm_magics.evaluations.tasks import PromptTask, Requests, Task, parse_task
from llm_magics.host import current_host
from llm_magics.runtime.prompts.prompt import PARAMETER_SETTINGS
from llm_magics.runtime.session import session

_EXPECTED_HINT = (
    'Add a column "expected" to the data, or name it: lm.EvaluationSet(…, expected="answer")'
)
_NOTHING_TO_RESUME = (
    "No incomplete run has the same task, data, models and parameters: all items are asked."
)
# Names of tasks that say nothing about them.
_GENERIC_NAMES = ("prompt", "function")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The arguments of ``lm.evaluate``, as passed by the user."""

    task: Any
    data: Any
    models: Any
    score: Any
    split: str | None
    cluster: str | None
    repeat: int
    system: str | None
    concurrency: int
    name: str | None
    resume: bool
    yes: bool
    parameters: Mapping[str, Any]


def prepare(options: Options, function: Callable[..., Any]) -> EvaluationRun:
    """
    Return the run of an evaluation.

    Args:
        options: the arguments.
        function: the function whose arguments they are, to find misspelled ones.

    Raises:
        UsageError: an argument or the data are invalid.
    """
    validation.check_misspelled(options.parameters, function)
    data = options.data if isinstance(options.data, EvaluationSet) else EvaluationSet(options.data)
    data = data if options.split is None else data.split(options.split)
    task = parse_task(options.task, data)
    models = None if options.models is None else validation.check_model_names(options.models)
    requests = Requests(
        items=data.items,
        models=task.models(models),
        repeat=check_integer("repeat", options.repeat),
        has_models=models is not None,
        has_expected=data.has_expected,
        cluster=_check_cluster(data, options.cluster),
        system=options.system,
        parameters=options.parameters,
    )
    known = True if data.has_expected else None
    evaluation.check_scorers(options.score, known, len(requests.models), _EXPECTED_HINT)
    at_once = check_integer("concurrency", options.concurrency)
    jobs: list[AnyJob] = []
    calls: list[FrameCall] = []
    if isinstance(task, PromptTask):
        jobs += task.jobs(requests)
    elif task.is_of_frame:
        calls = frame_calls(task, data, requests)
    else:
        jobs += task.jobs(requests)
    about = _describe(task, data, requests, options)
    run = EvaluationRun(
        jobs=jobs,
        frame_calls=calls,
        data=data,
        about=about,
        score=options.score,
        at_once=at_once,
        yes=options.yes,
    )
    if options.resume:
        earlier = stored.find_incomplete(about["key"])
        if earlier is None:
            current_host().note(_NOTHING_TO_RESUME)
        else:
            run.resume(earlier.rows)
    return run


def _check_cluster(data: EvaluationSet, cluster: str | None) -> str | None:
    """Return the column of clusters, if it exists; otherwise raise `UsageError`."""
    known = list(data.frame.columns)
    if cluster is not None and cluster not in known:
        msg = f"The data has no column {cluster!r:.60}."
        raise UsageError(msg, hint=nearest(str(cluster), known))
    return cluster


def _describe(
    task: Task, data: EvaluationSet, requests: Requests, options: Options
) -> dict[str, Any]:
    """Return the attributes of the results, as JSON values without secrets."""
    about = task.about
    own_name = None if about["name"] in _GENERIC_NAMES else about["name"]
    if isinstance(task, PromptTask) and own_name:  # versions of a prompt are runs of one name
        own_name = own_name.partition("@")[0]
    name = options.name or own_name or data.name or "evaluation"
    settings = measure.request_settings(options.system, options.parameters)
    digests = sorted(f"{item.id} {item.digest}" for item in data)
    short = {**session.config.aliases, **session.config.routes}
    models = [[name, repr(short.get(name))] for name in requests.models]
    default = str(session.config.model)  # which a function may ask
    own = task.own_settings(options.system, options.parameters)
    shared = {
        name: repr(session.config.get(name))
        for name in ("system", *PARAMETER_SETTINGS)
        if name not in own
    }
    key = [about["digest"], digests, models, default, requests.repeat, settings, shared]
    return {
        "name": str(name),
        "id": stored.create_id(str(name), stored.utc_now()),
        **measure.describe_environment(requests.models),
        "task": about,
        "data": data.name,
        "digest": data.digest,
        "items": len(data),
        "models": requests.models,
        "repeat": requests.repeat,
        "split": options.split,
        "cluster": options.cluster,
        "scores": score_digests(options.score),
        "key": digest_of(key),
        **settings,
    }
