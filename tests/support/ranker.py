"""A fake chat service that scores and compares statements by the numbers in them."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from typing import Any

from tests.support.serving import Asked, Says, as_json, chat_stream


class Ranker:
    """
    A service of OpenAI's format to which a statement is as true as its last number is high.

    Statements with a word of ``poison`` are refused. With ``biased``, close comparisons go to the
    first position. ``score_of`` gives the score of a number; ``None`` leaves the row out of a pack.
    In prompts about more than ``most_rows``, all scores are 0.
    """

    def __init__(self) -> None:
        self.poison: set[str] = set()
        self.biased = 0.0
        self.most_rows = 1000
        self.score_of: Callable[[float], float | None] = lambda number: min(100, max(0, number))
        self.delay_s = 0.0
        self.scorings: list[list[str]] = []
        self.comparisons: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    @property
    def paid(self) -> int:
        """The number of prompts with an answer."""
        return len(self.scorings) + len(self.comparisons)

    def __call__(self, asked: Asked) -> Says:
        if asked.path == "/models":
            return as_json({"data": [{"id": "m"}, {"id": "cheap"}]})
        body = asked.json()
        said = body["messages"][-1]["content"]
        if any(word in said for word in self.poison):
            return as_json({"error": {"message": "Not that.", "code": "invalid_value"}}, 400)
        schema = body["response_format"]["json_schema"]["schema"]
        if "answers" in schema["properties"]:
            answer = self._scores(json.loads(said.partition(":\n\n")[2]))
        elif schema["properties"]["answer"]["type"] == "number":
            (only,) = self._scores([{"id": "", "text": said.partition("\n\n")[2]}])["answers"]
            answer = {"answer": only["answer"]}
        else:
            answer = self._better(said)
        return Says(chat_stream(json.dumps(answer)), delay_s=self.delay_s)

    def _scores(self, rows: list[dict[str, str]]) -> Any:
        self.scorings.append([each["text"] for each in rows])
        scores = [(each["id"], self.score_of(_number(each["text"]))) for each in rows]
        if len(rows) > self.most_rows:
            scores = [(row, 0) for row, _ in scores]
        is_alone = len(rows) == 1
        return {
            "answers": [
                {"id": row, "answer": score}
                for row, score in scores
                if score is not None or is_alone
            ]
        }

    def _better(self, said: str) -> Any:
        lines = {line[0]: json.loads(line[3:]) for line in said.splitlines() if line[1:3] == ": "}
        self.comparisons.append((lines["A"], lines["B"]))
        first, second = _number(lines["A"]), _number(lines["B"])
        return {"answer": "A" if first + self.biased > second else "B"}


def _number(statement: str) -> float:
    return float(re.findall(r"-?\d+(?:\.\d+)?", statement)[-1])
