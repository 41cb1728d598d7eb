"""How texts are to be embedded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from llm_magics.errors import UsageError, nearest

TooLong = Literal["truncate", "chunk-mean", "error"]


@dataclass(frozen=True, slots=True)
class EmbedOptions:
    """
    Attributes:
        batch_size: texts in one request at most; what suits the provider unless given.
        concurrency: requests at once at most; the same.
        too_long: of a text that is longer than the model reads: ``truncate`` embeds its
            beginning, ``chunk-mean`` the mean of its parts weighted by their lengths and of
            length 1 again, ``error`` nothing.
        dimensions: of each vector, where the service can give fewer than all.
        prefix: stands before each text, as some models want it (``"passage: "``).
    """

    batch_size: int | None = None
    concurrency: int | None = None
    too_long: TooLong = "truncate"
    dimensions: int | None = None
    prefix: str = ""

    def __post_init__(self) -> None:
        for name in ("batch_size", "concurrency", "dimensions"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                msg = f"{name} cannot be {value!r}."
                raise UsageError(msg, hint="Give it a whole number, 1 or more.")
        if self.too_long not in get_args(TooLong):
            msg = f"too_long cannot be {self.too_long!r}."
            raise UsageError(msg, hint=nearest(str(self.too_long), get_args(TooLong)))
