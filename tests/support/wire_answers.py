"""Recorded answers, chosen by what they hold."""

from __future__ import annotations

import json
from typing import Any

from tests.support.recorded import events, records

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)


def good(*names: str, endpoint: str = "") -> list[dict[str, Any]]:
    """The recorded answers with status 200 that hold one."""
    return [
        record
        for record in records(*names)
        if record["status"] == 200
        and record["kind"] in ("json", "sse", "ndjson")
        and endpoint in record["endpoint"]
    ]


def holds_error(record: dict[str, Any]) -> bool:
    """Whether it is an error, or no answer at all, for all its status 200."""
    if record["kind"] == "json":
        return "choices" not in json.loads(record["body"])
    return record["kind"] == "sse" and any(event.get("error") for event in events(record["body"]))
