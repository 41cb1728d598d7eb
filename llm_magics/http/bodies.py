"""Bodies of requests that are not JSON: forms, and bodies that are produced while they are sent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Form:
    """
    A request body of the type ``multipart/form-data``.

    ``files`` contains ``(file name, content, media type)`` by field. The content is bytes, or the
    path of a file that is read while it is sent.
    """

    fields: Mapping[str, str | list[str]]
    files: Mapping[str, tuple[str, bytes | Path, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamBody:
    """
    A request body that is produced while it is sent.

    Attributes:
        blocks: returns the blocks of the body; called again if the request is sent again.
        length: the size of the body in bytes.
        content_type: its media type.
    """

    blocks: Callable[[], Iterable[bytes]]
    length: int
    content_type: str = "application/json"


@contextmanager
def open_body(
    body: Form | StreamBody, headers: Mapping[str, str] | None
) -> Generator[dict[str, Any], None, None]:
    """Yield the arguments of httpx for ``body``; files that it names are open until the end."""
    if isinstance(body, StreamBody):
        own = {"Content-Type": body.content_type, "Content-Length": str(body.length)}
        yield {"content": _iterate(body.blocks()), "headers": {**own, **(headers or {})}}
        return
    with ExitStack() as stack:
        files = {}
        for field, (name, content, kind) in body.files.items():
            opened: Any = content
            if isinstance(content, Path):
                opened = stack.enter_context(content.open("rb"))
            files[field] = (name, opened, kind)
        yield {"data": dict(body.fields), "files": files, "headers": headers}


async def _iterate(blocks: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    for block in blocks:
        yield block
