"""A fake chat service that says whether a statement about a text is true."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

from tests.support.serving import Asked, Says, as_json, chat_stream

Answers = list[dict[str, Any]]


class Judge:
    """
    A service of OpenAI's format that answers questions about rows, and counts.

    ``holds`` is the answer to a statement, the text after the first blank line. Statements with a
    word of ``poison`` are refused. A prompt about several rows has all of their answers, unless
    ``spoil`` changes them.
    """

    def __init__(self, holds: Callable[[str], Any] = lambda said: "yes" in said) -> None:
        self.holds = holds
        self.spoil: Callable[[Answers], Answers] = lambda answers: answers
        self.paid: list[str] = []
        self.packs: list[list[str]] = []
        self.poison: set[str] = set()
        self.delay_s = 0.0
        self.status = 200

    def __call__(self, asked: Asked) -> Says:
        if asked.path == "/models":
            return as_json({"data": [{"id": "m"}]})
        if self.status != 200:
            return as_json({"error": {"message": "Not now.", "code": "x"}}, self.status)
        body = asked.json()
        asking = next(each for each in body["messages"] if each["role"] == "user")
        statement = asking["content"].partition("\n\n")[2]
        if any(word in statement for word in self.poison):
            return as_json({"error": {"message": "Not that.", "code": "invalid_value"}}, 400)
        fields = body["response_format"]["json_schema"]["schema"]["properties"]
        if "answers" in fields:
            answer = {"answers": self._answers(json.loads(statement))}
        else:
            self.paid.append(statement)
            answer = {"answer": self.holds(statement)}
        return Says(chat_stream(json.dumps(answer)), delay_s=self.delay_s)

    def interrupt_at(self, count: int) -> None:
        """Interrupt this process with the answer number ``count``; later ones take five seconds."""

        def interrupt(_: str) -> bool:
            if len(self.paid) == count:
                os.kill(os.getpid(), signal.SIGINT)
                self.delay_s = 5.0
            return True

        self.holds = interrupt

    def _answers(self, rows: list[dict[str, str]]) -> Answers:
        self.packs.append([row["text"] for row in rows])
        return self.spoil([{"id": row["id"], "answer": self.holds(row["text"])} for row in rows])
