"""The lines that a pull sends, added up."""

from __future__ import annotations

from llm_magics._util.text import read_json
from llm_magics.progress import Progress
from llm_magics.providers.ollama.refusals import classified


class PullSizes:
    """Adds up the layers of a pull: their lines repeat, and come in any order."""

    def __init__(self, provider: str, model: str) -> None:
        self._provider = provider
        self._model = model
        self._done: dict[str, int] = {}
        self._total: dict[str, int] = {}
        self.succeeded = False

    def after(self, line: bytes, elapsed_s: float) -> Progress:
        """How far the pull has come with this line."""
        told = read_json(line)
        if not isinstance(told, dict):
            msg = f"a line that is no object: {line[:40]!r}"
            raise TypeError(msg)
        if "error" in told:
            raise classified(told, None, {}, self._provider, self._model)
        self.succeeded = self.succeeded or told.get("status") == "success"
        digest = told.get("digest")
        if digest:
            self._total[digest] = int(told.get("total") or self._total.get(digest, 0))
            self._done[digest] = int(told.get("completed") or self._done.get(digest, 0))
        done, total = sum(self._done.values()), sum(self._total.values())
        task = f"fetching {self._model}"
        if not total:
            return Progress(f"{task}: {told.get('status', '')}", elapsed_s=elapsed_s)
        return Progress(task, total if self.succeeded else done, total, elapsed_s=elapsed_s)
