"""A fake chat service that says whether a statement about a text is true."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

from tests.support.serving import Asked, Says, as_json, chat_stream


class Judge:
    """
    A service of OpenAI's format that answers yes-or-no questions, and counts.

    ``holds`` says whether a statement, the text after the last blank line, is true. Statements with
    a word of ``poison`` are refused; ``odd`` ones have an answer without the field.
    """

    def __init__(self, holds: Callable[[str], bool] = lambda said: "yes" in said) -> None:
        self.holds = holds
        self.paid: list[str] = []
        self.poison: set[str] = set()
        self.delay_s = 0.0
        self.status = 200
        self._lock = threading.Lock()

    def __call__(self, asked: Asked) -> Says:
        if asked.path == "/models":
            return as_json({"data": [{"id": "m"}]})
        if self.status != 200:
            return as_json({"error": {"message": "Not now.", "code": "x"}}, self.status)
        statement = asked.json()["messages"][-1]["content"].partition("\n\n")[2]
        if any(word in statement for word in self.poison):
            return as_json({"error": {"message": "Not that.", "code": "invalid_value"}}, 400)
        self.paid.append(statement)
        return Says(
            chat_stream(json.dumps({"answer": self.holds(statement)})), delay_s=self.delay_s
        )
