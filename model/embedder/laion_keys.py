"""The original ``.pt`` checkpoints of LAION-CLAP, renamed into ``transformers.ClapModel``.

Source: the state dict of ``laion_clap`` 1.1.7 (``CLAP`` with ``HTSAT_Swin_Transformer`` and ``RobertaModel``). Every
key is either renamed, or known to be unused by the two embeddings, or an error: nothing is passed over in silence.
Sizes are read off the tensors, so that HTSAT tiny, base and large need no names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

# RobertaModel's; transformers' own default for CLAP is 1e-12.
_TEXT_NORM_EPSILON = 1e-5
_TEXT_HEAD_FEATURES = 64

# Front-end filters and buffers that are made again, the classifier over AudioSet, and the heads of a second loss.
_UNUSED = re.compile(
    r"audio_branch\.(spectrogram_extractor|logmel_extractor|tscam_conv|head)\."
    r"|.*\.(relative_position_index|attn_mask)$"
    r"|(text|audio)_transform\."
    r"|text_branch\.embeddings\.(position_ids|token_type_ids)$"
)
_FUSED = re.compile(r"audio_branch\.(patch_embed\.(fusion_model|mel_conv2d)|fusion_model|mel_conv1d)\.")

_RENAMED = (
    (r"(logit_scale_[at])$", r"\1"),
    (r"text_branch\.(.+)", r"text_model.\1"),
    (r"(text|audio)_projection\.0\.(.+)", r"\1_projection.linear1.\2"),
    (r"(text|audio)_projection\.2\.(.+)", r"\1_projection.linear2.\2"),
    (r"audio_branch\.bn0\.(.+)", r"audio_model.audio_encoder.batch_norm.\1"),
    (r"audio_branch\.(patch_embed\.(?:proj|norm)\..+)", r"audio_model.audio_encoder.\1"),
    (r"audio_branch\.(layers\.\d+\.downsample\.(?:norm|reduction)\..+)", r"audio_model.audio_encoder.\1"),
    (r"audio_branch\.(norm\..+)", r"audio_model.audio_encoder.\1"),
)
_BLOCK = re.compile(r"audio_branch\.(layers\.\d+\.blocks\.\d+)\.(.+)")
_IN_BLOCK = (
    (r"norm1\.(.+)", r"layernorm_before.\1"),
    (r"norm2\.(.+)", r"layernorm_after.\1"),
    (r"attn\.(relative_position_bias_table)", r"attention.self.\1"),
    (r"attn\.proj\.(.+)", r"attention.output.dense.\1"),
    (r"mlp\.fc1\.(.+)", r"intermediate.dense.\1"),
    (r"mlp\.fc2\.(.+)", r"output.dense.\1"),
)
_QKV = re.compile(r"attn\.qkv\.(weight|bias)")


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """State dict of an original checkpoint, without the wrappers training put around it. No code in it is run.

    Raises:
        ValueError: the file is missing, holds anything but tensors and plain values, or no state dict.
    """
    if not path.is_file():
        raise ValueError(f"no checkpoint {path}")
    try:
        # Training kept its metrics beside the weights, as numpy scalars.
        with torch.serialization.safe_globals(_numpy_scalars()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever unpickling what is no checkpoint may raise
        raise ValueError(f"{path}: cannot be read as tensors and plain values alone: {error}") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: holds no state dict")
    return {key.removeprefix("module."): value for key, value in state.items()}


def _numpy_scalars() -> list[Any]:
    # The module's name changed in numpy 2; files written before have the old one.
    scalar = np.float64(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    types = [type(np.dtype(name)) for name in ("float32", "float64", "int64", "bool")]
    return [np.dtype, *types, *((scalar, name) for name in names)]


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An original state dict under ClapModel's names; the joint projection of query, key and value is cut in three.

    Raises:
        ValueError: a key is unknown, or belongs to a fused model.
    """
    renamed: dict[str, Tensor] = {}
    unknown = []
    for key, value in state.items():
        if _FUSED.match(key):
            raise ValueError(f"fused checkpoints are not supported (it has {key}); take an unfused one")
        if _UNUSED.match(key):
            continue
        block = _BLOCK.match(key)
        if block and (joint := _QKV.fullmatch(block[2])):
            for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[f"audio_model.audio_encoder.{block[1]}.attention.self.{part}.{joint[1]}"] = third
        elif block and (name := _apply(_IN_BLOCK, block[2])):
            renamed[f"audio_model.audio_encoder.{block[1]}.{name}"] = value
        elif not block and (name := _apply(_RENAMED, key)):
            renamed[name] = value
        else:
            unknown.append(key)
    if unknown:
        raise ValueError(f"{len(unknown)} keys are not LAION-CLAP's (HTSAT and RoBERTa), the first is {unknown[0]!r}")
    return renamed


def _apply(rules: tuple[tuple[str, str], ...], key: str) -> str | None:
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, key)
        if match:
            return match.expand(replacement)
    return None


def sizes(renamed: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of ``ClapConfig`` that fit a renamed state dict.

    Raises:
        ValueError: a tensor that tells a size is missing.
    """
    encoder = "audio_model.audio_encoder"
    try:
        words = renamed["text_model.embeddings.word_embeddings.weight"]
        patch = renamed[f"{encoder}.patch_embed.proj.weight"]
        depths = tuple(_count(renamed, f"{encoder}.layers.{level}.blocks") for level in range(4))
        heads = tuple(
            renamed[f"{encoder}.layers.{level}.blocks.0.attention.self.relative_position_bias_table"].shape[1]
            for level in range(4)
        )
        text = {
            "vocab_size": words.shape[0],
            "hidden_size": words.shape[1],
            "num_attention_heads": words.shape[1] // _TEXT_HEAD_FEATURES,
            "num_hidden_layers": _count(renamed, "text_model.encoder.layer"),
            "intermediate_size": renamed["text_model.encoder.layer.0.intermediate.dense.weight"].shape[0],
            "max_position_embeddings": renamed["text_model.embeddings.position_embeddings.weight"].shape[0],
            "type_vocab_size": renamed["text_model.embeddings.token_type_embeddings.weight"].shape[0],
            "layer_norm_eps": _TEXT_NORM_EPSILON,
        }
        audio = {
            "patch_embeds_hidden_size": patch.shape[0],
            "hidden_size": renamed[f"{encoder}.norm.weight"].shape[0],
            "depths": depths,
            "num_attention_heads": heads,
            "num_mel_bins": renamed[f"{encoder}.batch_norm.weight"].shape[0],
            "enable_fusion": False,
        }
    except KeyError as error:
        raise ValueError(f"the checkpoint lacks {error.args[0]}") from error
    return {"text_config": text, "audio_config": audio}


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return 1 + max((int(match[1]) for key in state if (match := pattern.match(key))), default=-1)
