"""A toy LAION-CLAP: random weights at the smallest sizes that keep its shapes, and a tokenizer of its own kind."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn

from model.embedder.laion import LaionEmbedder
from model.export import export_bundle, towers_of
from model.network import build
from model.spec import NetworkSpec
from tests.toy import toy_card, toy_signal

TEXTS = ("dog barking", "a person speaking", "rain on a roof", "violin", "church bells", "water running in a sink")
VOCABULARY = 290
# A second block in a level is one whose windows are shifted. The hidden size of the text is that of the package.
SIZES: dict[str, Any] = {
    "text_config": {
        "vocab_size": VOCABULARY,
        "hidden_size": 768,
        "num_attention_heads": 12,
        "num_hidden_layers": 1,
        "intermediate_size": 64,
        "max_position_embeddings": 96,
        "layer_norm_eps": 1e-5,
    },
    "audio_config": {
        "patch_embeds_hidden_size": 8,
        "hidden_size": 64,
        "depths": (2, 1, 1, 1),
        "num_attention_heads": (1, 2, 4, 8),
    },
}


def write_tokenizer(folder: Path) -> None:
    """RoBERTa's kind, as ``tokenizer.json``: byte-level BPE with <s> <pad> </s> <unk> first and <mask> last."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 1,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens(["<mask>"])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))


def stir(module: nn.Module, seed: int = 0) -> None:
    """Random numbers everywhere, so that no weight is at a value that hides it: norms off one, biases off zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in (*module.named_parameters(), *module.named_buffers()):
            if not value.is_floating_point() or name.startswith("logit_scale"):
                continue
            noise = torch.randn(value.shape, generator=generator)
            if name.endswith("running_var") or (name.endswith("weight") and value.ndim == 1):
                value.copy_(1.0 + 0.2 * noise.clamp(-2, 2))
            elif value.ndim < 2:
                value.copy_(0.2 * noise)
            else:
                value.copy_(noise * value[0].numel() ** -0.5)
        # Decibels go in; published weights have learned their mean and variance.
        for name, value in module.named_buffers():
            if name.endswith("running_mean"):
                value.copy_(-30.0 + 5.0 * torch.randn(value.shape, generator=generator))
            elif name.endswith("running_var"):
                value.mul_(400.0)


def write_folder(folder: Path, seed: int = 0) -> Path:
    """A Hugging Face folder of a toy."""
    from transformers import ClapConfig, ClapModel

    torch.manual_seed(seed)
    clap = ClapModel(ClapConfig(**SIZES))
    stir(clap, seed)
    clap.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@functools.cache
def _written() -> tuple[tempfile.TemporaryDirectory[str], Path]:
    kept = tempfile.TemporaryDirectory(prefix="winnow-laion-")
    return kept, write_folder(Path(kept.name) / "clap")


def toy_folder() -> Path:
    """A folder that tests share; not to be written to."""
    return _written()[1]


def toy_laion() -> LaionEmbedder:
    return LaionEmbedder.load(toy_folder())


def toy_network() -> NetworkSpec:
    """One that attends to LAION-CLAP's tokens."""
    return NetworkSpec(
        channels=(4, 6, 8),
        head_levels=2,
        decoder_channels=(4, 6),
        mask_maps=4,
        attention_heads=2,
        conditioning="attention",
        token_features=768,
        embedding_features=512,
    )


def toy_separator() -> nn.Module:
    torch.manual_seed(0)
    return build(toy_network(), toy_signal()).eval()


@functools.cache
def toy_bundle() -> Path:
    """A bundle of the toy that tests share; not to be written to."""
    path = toy_folder().parent / "bundle"
    export_bundle(path, toy_separator(), toy_network(), toy_signal(), towers_of(toy_laion()), toy_card(), half=False)
    return path


def some_sound(n_samples: int, rate: int = 48_000, batch: int = 2, seed: int = 0) -> Tensor:
    """Tones with overtones over noise ``[B, T]``, other ones in each row."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(n_samples) / rate
    pitch = 200.0 * 2.0 ** (3.0 * torch.rand(batch, 1, generator=generator))
    tones = sum(torch.sin(2.0 * torch.pi * k * pitch * time) / k for k in (1, 2, 3, 5))
    return 0.1 * tones + 0.02 * torch.randn(batch, n_samples, generator=generator)


# The names of the package's own state dict, as printed from laion-clap 1.1.7: ours -> theirs.
_ENCODER = "audio_tower.audio_model.audio_encoder."
_THEIRS = (
    ("text_tower.text_model.", "text_branch."),
    ("text_tower.text_projection.linear1.", "text_projection.0."),
    ("text_tower.text_projection.linear2.", "text_projection.2."),
    ("audio_tower.audio_projection.linear1.", "audio_projection.0."),
    ("audio_tower.audio_projection.linear2.", "audio_projection.2."),
    (_ENCODER + "batch_norm.", "audio_branch.bn0."),
    (_ENCODER, "audio_branch."),
)
_THEIRS_IN_BLOCK = (
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
    (".intermediate.dense.", ".mlp.fc1."),
    (".attention.output.dense.", ".attn.proj."),
    (".attention.self.", ".attn."),
    (".output.dense.", ".mlp.fc2."),
)


def original_state(embedder: LaionEmbedder) -> dict[str, Tensor]:
    """An embedder's weights under the package's names, with what else its checkpoints hold."""
    state: dict[str, Tensor] = {}
    for name, value in embedder.state_dict().items():
        prefix, theirs = next(((ours, new) for ours, new in _THEIRS if name.startswith(ours)), ("", ""))
        key = theirs + name.removeprefix(prefix)
        if ".blocks." in key:
            ours, new = next(pair for pair in _THEIRS_IN_BLOCK if pair[0] in key)
            key = key.replace(ours, new)
        state[key] = value
    state["logit_scale_a"] = state["logit_scale_t"] = state.pop("scale").log()
    for key in [key for key in state if ".attn.query." in key]:
        parts = [state.pop(key.replace("query", part)) for part in ("query", "key", "value")]
        state[key.replace("query", "qkv")] = torch.cat(parts)
    state.pop("text_branch.embeddings.token_type_ids", None)
    for key in (
        "audio_branch.spectrogram_extractor.stft.conv_real.weight",
        "audio_branch.logmel_extractor.melW",
        "audio_branch.layers.0.blocks.1.attn_mask",
        "audio_branch.tscam_conv.weight",
        "audio_branch.head.bias",
        "text_transform.sequential.0.weight",
        "audio_transform.sequential.3.bias",
    ):
        state[key] = torch.zeros(1)
    return state
