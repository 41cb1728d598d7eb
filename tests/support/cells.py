"""The outputs of a cell as a frontend stores them."""

from __future__ import annotations


class Cell:
    """The outputs of a cell as a frontend keeps them."""

    def __init__(self) -> None:
        self.outputs: list[dict[str, object]] = []
        self._by_id: dict[str, int] = {}
        self.sent = 0

    def publish(self, data: object, metadata: object, transient: dict[str, str] | None = None, update: bool = False) -> None:  # fmt: skip
        self.sent += 1
        output = {"data": data, "metadata": metadata}
        if update and transient:
            self.outputs[self._by_id[transient["display_id"]]] = output
            return
        if transient:
            self._by_id[transient["display_id"]] = len(self.outputs)
        self.outputs.append(output)
