"""
A Transformers model in this process: streamed text generation and pooled embeddings.

Importing torch and transformers takes seconds, so this module is imported on first use. Everything
here blocks and is meant to run in a thread.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    StoppingCriteria,
    StoppingCriteriaList,
    TextStreamer,
)
from transformers.utils import logging

from llm_magics.errors import ContextLengthError, UnsupportedError
from llm_magics.parameters import ModelParameters

if TYPE_CHECKING:
    from numpy.typing import NDArray

# llm_magics shows its own progress; a second bar would be drawn into the notebook.
logging.disable_progress_bar()

_NO_BOUND = 10**9

# The interval, in seconds, at which a thread that waits for the model checks for cancellation.
_POLL_S = 0.05

# The number of texts in a batch, padded to the longest.
_BATCH = 32


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """The finish reason of a generated text, and its token counts."""

    finish_reason: Literal["stop", "length"]
    input_tokens: int
    output_tokens: int


class TextGenerator:
    """A model that generates text."""

    def __init__(self, folder: Path, gguf_file: str | None) -> None:
        """Load it from ``folder``, or from a GGUF file in it. Code in the folder is not run."""
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, gguf_file=gguf_file)
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, gguf_file=gguf_file).eval()
        self._lock = threading.Lock()

    @property
    def context(self) -> int | None:
        """The limit of prompt plus answer, in tokens."""
        longest = getattr(self._model.config, "max_position_embeddings", None)
        return int(longest) if longest else None

    @property
    def chat_template(self) -> str:
        """The model's chat template; empty if it has none."""
        return str(self._tokenizer.chat_template or "")

    def chat_tokens(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Any = None,
        options: Mapping[str, Any] = MappingProxyType({}),
    ) -> Any:
        """
        Return the tokens of a conversation, formatted with the model's chat template.

        ``options`` are passed to the template.
        """
        if not self.chat_template:
            msg = "This model has no chat template; it can only complete text."
            raise UnsupportedError(msg, hint="Use an instruction-tuned model for chat.")
        return self._tokenizer.apply_chat_template(
            list(messages),
            tools=tools,
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
            **options,
        )

    def text_tokens(self, text: str) -> Any:
        """Return the tokens of a raw text."""
        return self._tokenizer(text, return_tensors="pt")

    def write(
        self,
        tokens: Any,
        parameters: ModelParameters,
        say: Callable[[str], None],
        stopped: threading.Event,
    ) -> GenerationResult:
        """
        Generate text after ``tokens``, and call ``say`` with each piece of it.

        Ends at an end-of-sequence token, at ``max_tokens``, before a stop sequence, or at the next
        token after ``stopped`` is set.
        """
        read = int(tokens["input_ids"].shape[1])
        if self.context and read >= self.context:
            msg = f"The prompt has {read} tokens, but the context of the model is {self.context}."
            raise ContextLengthError(msg, hint="Shorten the prompt.")
        streamer = _PieceStreamer(self._tokenizer, say, parameters.stop)
        halt = _StopOnRequest(stopped, streamer)
        with _hold(self._lock, stopped), torch.inference_mode():
            if parameters.seed is not None:
                torch.manual_seed(parameters.seed)
            output = self._model.generate(
                **tokens,
                streamer=streamer,
                stopping_criteria=StoppingCriteriaList([halt]),
                **self._how(parameters, read),
            )
        written = int(output.shape[1]) - read
        ended = streamer.has_stopped or int(output[0, -1]) in self._ends()
        return GenerationResult("stop" if ended else "length", read, written)

    def _how(self, parameters: ModelParameters, read: int) -> dict[str, Any]:
        longest = (self.context or _NO_BOUND) - read
        options: dict[str, Any] = {
            "max_new_tokens": min(parameters.max_tokens or longest, longest),
            "pad_token_id": self._tokenizer.pad_token_id or min(self._ends(), default=0),
            **parameters.extra_body,
        }
        temperature = parameters.temperature
        if temperature == 0:
            # Transformers warns about the model's sampling settings if sampling is disabled.
            return {
                **options,
                "do_sample": False,
                "temperature": None,
                "top_p": None,
                "top_k": None,
            }
        if temperature is not None or parameters.top_p is not None or parameters.seed is not None:
            sampling = {"temperature": temperature, "top_p": parameters.top_p}
            options |= {name: value for name, value in sampling.items() if value is not None}
            options["do_sample"] = True
        return options

    def _ends(self) -> set[int]:
        ends = self._model.generation_config.eos_token_id
        if ends is None:
            ends = self._tokenizer.eos_token_id
        return set(ends) if isinstance(ends, list) else set() if ends is None else {int(ends)}


@contextmanager
def _hold(lock: threading.Lock, stopped: threading.Event) -> Iterator[None]:
    """Hold ``lock``; raise `RuntimeError` if ``stopped`` is set while waiting for it."""
    while not (has_it := lock.acquire(timeout=_POLL_S)) and not stopped.is_set():
        pass
    try:
        if not has_it:
            msg = "interrupted while another answer was being generated"
            raise RuntimeError(msg)
        yield
    finally:
        if has_it:
            lock.release()


class _PieceStreamer(TextStreamer):
    """Pass text to ``say``, except characters at the end that may begin a stop sequence."""

    def __init__(self, tokenizer: Any, say: Callable[[str], None], stops: Sequence[str]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._say = say
        self._stops = stops
        self._held = ""
        self.has_stopped = False

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if self.has_stopped:
            return
        text = self._held + text
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.has_stopped = True
            text = text[: min(found)]
        keep = 0 if stream_end or self.has_stopped else self._may_begin_a_stop(text)
        self._held = text[len(text) - keep :]
        if keep < len(text):
            self._say(text[: len(text) - keep])

    def _may_begin_a_stop(self, text: str) -> int:
        """Return the number of characters at the end that may begin a stop sequence."""
        longest = max(map(len, self._stops), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0


class _StopOnRequest(StoppingCriteria):
    """Stop the generation on request, or after a stop sequence."""

    def __init__(self, stopped: threading.Event, streamer: _PieceStreamer) -> None:
        self._stopped = stopped
        self._streamer = streamer

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        halt = self._stopped.is_set() or self._streamer.has_stopped
        return torch.full((input_ids.shape[0],), halt, dtype=torch.bool, device=input_ids.device)


Pooling = Literal["mean", "cls", "last"]


class Embedder:
    """A model that embeds texts."""

    def __init__(self, folder: Path, pooling: Pooling | None = None) -> None:
        """Load it from ``folder``. By default, pool as the model was trained to."""
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModel.from_pretrained(folder).eval()
        self._pooling = pooling or read_pooling(folder)
        self._longest = read_max_length(folder) or self._model.config.max_position_embeddings
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], int]:
        """Return unit vectors of ``texts`` as an array of shape (n, d), and the token count."""
        # Sorted by length, because all texts of a batch are padded to the longest.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]), reverse=True)
        parts, tokens = [], 0
        for start in range(0, len(texts), _BATCH):
            selected = [texts[index] for index in order[start : start + _BATCH]]
            batch = self._tokenizer(selected, padding=True, return_tensors="pt")
            read = int(batch["attention_mask"].sum(1).max())
            if read > self._longest:
                msg = f"A text has {read} tokens, but the model reads at most {self._longest}."
                raise ContextLengthError(msg, hint='Shorten it, or use too_long="chunk-mean".')
            tokens += int(batch["attention_mask"].sum())
            with self._lock, torch.inference_mode():
                states = self._model(**batch).last_hidden_state
            pooled = _pool(states, batch["attention_mask"], self._pooling)
            parts.append(torch.nn.functional.normalize(pooled, dim=1).float().numpy())
        ordered = np.concatenate(parts)
        vectors = np.empty_like(ordered)
        vectors[order] = ordered
        return vectors, tokens


def _pool(states: Any, mask: Any, pooling: Pooling) -> Any:
    if pooling == "cls":
        return states[:, 0]
    if pooling == "last":
        last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
        return states[torch.arange(len(states)), last]
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


def read_pooling(folder: Path) -> Pooling:
    """Return the pooling of a sentence-transformers model from its files; by default the mean."""
    config = _read_json(folder / "1_Pooling" / "config.json")
    if config.get("pooling_mode_cls_token"):
        return "cls"
    return "last" if config.get("pooling_mode_lasttoken") else "mean"


def read_max_length(folder: Path) -> int | None:
    """Return the maximum text length of a sentence-transformers model, in tokens, if known."""
    longest = _read_json(folder / "sentence_bert_config.json").get("max_seq_length")
    return int(longest) if longest else None


def _read_json(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}
