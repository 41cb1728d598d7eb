"""A fake chat service that answers each row by its text."""

from __future__ import annotations

import json
import threading

from tests.support.serving import Asked, Says, as_json, chat_stream


class Chatter:
    """A service of OpenAI's format that says back what it is asked, and counts."""

    def __init__(self) -> None:
        self.paid: list[str] = []
        self.poison: set[str] = set()
        self.delay_s = 0.0
        self.running = self.most_at_once = 0
        self._lock = threading.Lock()

    def __call__(self, asked: Asked) -> Says:
        body = asked.json()
        said = body["messages"][-1]["content"]
        if any(word in said for word in self.poison):
            return as_json({"error": {"message": "Not that.", "code": "invalid_value"}}, 400)
        self.paid.append(said)
        if "response_format" in body:
            properties = body["response_format"]["json_schema"]["schema"]["properties"]
            answer = json.dumps({name: _value(spec, said) for name, spec in properties.items()})
        else:
            answer = f"said: {said}"
        return Says(chat_stream(answer), delay_s=self.delay_s)


def _value(spec: dict[str, object], said: str) -> object:
    if "enum" in spec:
        labels: list[str] = spec["enum"]  # type: ignore[assignment]
        return next((label for label in labels if said.endswith(label[:2])), labels[0])
    return len(said.split()) if spec.get("type") == "integer" else said.rsplit(maxsplit=1)[-1]
