"""
A sentence-transformers BERT, as published, into a Q8_0 GGUF that llama.cpp can load.

The layout follows llama.cpp's ``convert_hf_to_gguf.py``: word pieces get the phantom space
of the BERT tokenizer there, matrices are quantised to 8 bits, all else stays float32.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# Tables that are looked up, not multiplied: small, and kept exact.
_EXACT = ("position_embd", "token_types")


def convert_bert(source: Path, target: Path) -> None:
    """
    Write the model in the folder ``source`` to the file ``target``.

    Reads ``model.safetensors``, ``config.json`` and ``vocab.txt``; pooling is by mean.
    ``target`` is there whole or not at all.
    """
    import gguf

    config = json.loads((source / "config.json").read_text("utf-8"))
    # Not splitlines(): U+2028 and its like are tokens of some vocabularies.
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
