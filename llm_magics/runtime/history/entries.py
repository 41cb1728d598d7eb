"""
Entries of the history: one call, with its prompt and answer, as a line of JSON.

The line is written before the call returns, so that a kernel that is killed afterwards has stored
it. It contains no keys and no headers. Pictures, documents and audio are stored as digests.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_magics.errors import ProviderError
from llm_magics.runtime.storage.run_log import Run
from llm_magics.runtime.storage.serialization import (
    decode_answer,
    encode_answer,
    encode_message,
    encode_parameters,
)
from llm_magics.secrets import may_contain_keys, scrub, scrub_json, strip_credentials
from llm_magics.types import ChatMessage, ModelResponse, StreamChunk, ToolCall

if TYPE_CHECKING:
    from llm_magics.runtime.response import Response
    from llm_magics.runtime.telemetry.attributes import CallDetails

# Longer messages are cut off, and marked: one prompt must not fill the file.
MAX_CHARS = 2_000_000

# The columns of a run that are stored as they are; time and model are converted.
RUN_COLUMNS = tuple(each.name for each in fields(Run) if each.name not in ("time", "model"))

# The parameters that contain no text of the user's; the others are contents.
_FIGURES = ("temperature", "max_tokens", "top_p", "seed", "reasoning", "logprobs", "search")


class Origin(NamedTuple):
    """Where calls are made: an identifier of the process, and the path of its notebook or script."""

    session: str = ""
    notebook: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """
    What is stored of a call in addition to its measurements, prompt and answer.

    Attributes:
        parameters: the parameters of the request, as JSON; without values that are not set.
        cell_id: identifies the cell in all of its runs; empty if unknown.
        template, template_digest: the prompt file and the digest of its content.
        request_id: the service's identifier of a request that has failed.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    cell_id: str = ""
    template: str = ""
    template_digest: str = ""
    request_id: str | None = None

    @classmethod
    def of(cls, call: CallDetails, cell_id: str, error: BaseException | None = None) -> Details:
        """Return what is stored of a call in a cell, which may have ended with an error."""
        return cls(
            parameters=encode_parameters(call.parameters) if call.parameters else {},
            cell_id=cell_id,
            template=call.prompt_name or "",
            template_digest=call.prompt_digest or "",
            request_id=error.request_id if isinstance(error, ProviderError) else None,
        )


_ID = re.compile(r"[0-9a-f]{21}")

# Not the generator that users seed: two kernels with the same seed would make the same identifiers.
_random = random.Random()  # noqa: S311 (identifiers, not secrets)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)


def _masked_text(value: object) -> str:
    """Return the text of a value that is not JSON, such as a date in a parameter."""
    return scrub(str(value))


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_masked_text)

# "2026-01-31 23:59:59.999999", without the offset from UTC.
_MOMENT_LENGTH = 26


def is_id(text: str) -> bool:
    """Return whether ``text`` has the form of an identifier of a run."""
    return _ID.fullmatch(text) is not None


def new_id() -> str:
    """Return a new identifier of a run; identifiers sort by time."""
    return f"{time.time_ns() // 1_000_000:011x}{_random.getrandbits(40):010x}"


def encode_entry(
    run: Run, response: Response, details: Details, origin: Origin, *, with_contents: bool
) -> bytes:
    """Return the line of an entry, with a newline at its end."""
    entry: dict[str, Any] = {name: getattr(run, name) for name in RUN_COLUMNS}
    entry |= {
        "model": f"{run.provider}/{run.model}" if run.provider else run.model,
        "session": origin.session,
        "notebook": origin.notebook,
        "cell_id": details.cell_id,
        "request_id": details.request_id or response.request_id or _answer_id(response),
        "template": details.template or None,
        "template_digest": details.template_digest or None,
    }
    parameters = details.parameters
    if not with_contents:
        parameters = {name: parameters[name] for name in _FIGURES if name in parameters}
        entry["error"] = run.error.partition(":")[0] if run.error else None
    elif response.messages:
        entry["messages"] = [encode_message(each) for each in response.messages]
        entry["answer"] = _encode_answer(response)
    # Each text is masked before it is encoded: afterwards, a key may contain escaped characters.
    if may_contain_keys(entry):
        entry = {name: scrub_json(value) for name, value in entry.items()}
    if may_contain_keys(parameters):
        parameters = _masked_parameters(parameters)
    if "messages" in entry:
        entry["messages"] = [_bounded(each) for each in entry["messages"]]
    moment = run.time.isoformat(" ", "microseconds")[:_MOMENT_LENGTH]
    entry |= {"id": new_id(), "time": moment, "parameters": parameters}
    try:
        line = _ENCODER.encode(entry)
    except RecursionError:  # a value is nested too deeply to be stored
        line = _ENCODER.encode(
            {**entry, "answer": None, "parameters": _masked_parameters(parameters)}
        )
    return f"{line}\n".encode("utf-8", "backslashreplace")


def _masked_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: scrub_json(value) for name, value in parameters.items()}


def _answer_id(response: Response) -> str | None:
    """Return the service's identifier of the answer, if its last message has it."""
    found = response.raw.get("id") or response.raw.get("responseId")
    return found if isinstance(found, str) else None


def _bounded(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message of limited length, with the addresses of its files without keys."""
    content = message.get("content")
    if isinstance(content, str) and len(content) > MAX_CHARS:
        message = {**message, "content": content[:MAX_CHARS], "is_cut": True}
    for name in ("images", "attachments"):
        if files := message.get(name):
            addresses = [strip_credentials(each) if "://" in each else each for each in files]
            message = {**message, name: addresses}
    return message


def _encode_answer(response: Response) -> dict[str, Any] | None:
    """Return the answer as JSON, without times, so that equal answers are stored once."""
    chunk = StreamChunk(
        response.text,  # whole, because a part of it would pass for the answer
        response.reasoning,
        elapsed_s=0.0,
        tool_calls=response.tool_calls,
        reasoning_blocks=response.reasoning_blocks,
        citations=response.sources,
        searches=response.searches,
    )
    answer = encode_answer([chunk])
    return answer if any(answer.values()) else None


def decode_entry(line: bytes) -> dict[str, Any] | None:
    """Return an entry; ``None`` if the line is damaged, or not an entry."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict):
        return None
    messages = entry.get("messages") or []
    is_entry = (
        all(isinstance(entry.get(each), str) for each in ("id", "time", "model"))
        and all(isinstance(entry.get(each) or {}, dict) for each in ("answer", "parameters"))
        and isinstance(messages, list)
        and all(isinstance(each, dict) for each in messages)
    )
    return entry if is_entry else None


def text_of_content(content: Mapping[str, Any]) -> str:
    """Return the text in a stored answer or message; empty for parameters."""
    return text_of_answer(content) if "chunks" in content else text_of_message(content)


def text_of_answer(answer: Mapping[str, Any]) -> str:
    """Return the text in a stored answer."""
    chunks = answer.get("chunks")
    return "".join(str(each[1]) for each in chunks) if isinstance(chunks, list) else ""


def text_of_message(message: Mapping[str, Any]) -> str:
    """Return the text of a stored message."""
    return str(message.get("content") or "")


def decode_messages(messages: Sequence[Mapping[str, Any]]) -> tuple[ChatMessage, ...]:
    """Return stored messages; without their pictures and documents, of which digests are stored."""
    return tuple(
        ChatMessage(
            role=each.get("role", "user"),
            content=text_of_message(each),
            tool_calls=tuple(ToolCall(**call) for call in each.get("tool_calls", ())),
            tool_call_id=each.get("tool_call_id", ""),
        )
        for each in messages
    )


def lacks_files(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether messages had pictures, documents or audio, which are not stored."""
    return any(each.get("images") or each.get("attachments") for each in messages)


def is_cut(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a message was too long to be stored entirely."""
    return any(each.get("is_cut") for each in messages)


def decode_stored_answer(answer: Mapping[str, Any] | None) -> ModelResponse:
    """Return a stored answer; an empty one for ``None``."""
    return ModelResponse.of(decode_answer(answer) if answer else ())
