"""A fake chat service that makes claims about rows, merges claims, and writes answers from them."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from tests.support.serving import Asked, Says, as_json, chat_stream


class Analyst:
    """
    A service of OpenAI's format. Each word with ``#`` in a text is a claim about it.

    It writes a claim differently in each prompt, and merges claims with the same word. Prompts with
    a word of ``poison`` are refused. ``invented`` are claims that it adds, with ids of its own.
    ``forgets`` are words whose claims it does not name when it merges.
    """

    def __init__(self) -> None:
        self.poison: set[str] = set()
        self.invented: list[dict[str, Any]] = []
        self.forgets: set[str] = set()
        self.delay_s = 0.0
        self.extractions: list[list[str]] = []
        self.merges: list[list[dict[str, Any]]] = []
        self.answers: list[list[dict[str, Any]]] = []

    @property
    def paid(self) -> int:
        """The number of prompts with an answer."""
        return len(self.extractions) + len(self.merges) + len(self.answers)

    def __call__(self, asked: Asked) -> Says:
        if asked.path == "/models":
            return as_json({"data": [{"id": "m"}]})
        said = asked.json()["messages"][-1]["content"]
        if any(word in said for word in self.poison):
            return as_json({"error": {"message": "Not that.", "code": "invalid_value"}}, 400)
        listed: list[dict[str, Any]] = json.loads(said[said.rindex(":\n\n[") + 3 :])
        if said.endswith("]") and "response_format" not in asked.json():
            self.answers.append(listed)
            answer = "; ".join(f"{each['text']} ({each['rows']})" for each in listed)
        elif "rows" in listed[0]:
            self.merges.append(listed)
            answer = self._claims(listed, "merged")
        else:
            self.extractions.append([each["text"] for each in listed])
            answer = self._claims(listed, f"said {len(self.extractions)} times:")
        return Says(chat_stream(answer), delay_s=self.delay_s)

    def _claims(self, listed: Sequence[dict[str, Any]], how: str) -> str:
        found = defaultdict(list)
        for each in listed:
            for word in re.findall(r"#\w+", each["text"]):
                if how != "merged" or word not in self.forgets:
                    found[word].append(each["id"])
        claims = [{"claim": f"{how} {word}", "ids": ids} for word, ids in found.items()]
        return json.dumps({"claims": claims + self.invented})
