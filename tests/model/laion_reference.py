"""What the real ``laion-clap`` package says, for test_laion_parity: a script for a Python that has it, not a test.

    cd FOLDER && PYTHON laion_reference.py TINY

FOLDER holds ``roberta-base`` (a tokenizer) and ``asked.npz`` (``texts``, ``sounds [B, T]`` at 48 kHz). A random model
is made, of a tiny HTSAT unless TINY is 0, and saved as ``model.pt`` in the form of the published checkpoints; its
embeddings go to ``said.npz``.
"""

from __future__ import annotations

import functools
import importlib.machinery
import sys
import types
from typing import Any

import numpy as np
import torch
import transformers

TINY = {"embed_dim": 8, "depths": [2, 2, 1, 2], "num_heads": [1, 2, 4, 8]}


def stub_torchvision() -> None:
    """The package imports it without saying so and uses none of it here; its wheel needs CUDA."""
    for name in ("torchvision", "torchvision.transforms", "torchvision.datasets", "torchvision.ops"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
    misc: Any = types.ModuleType("torchvision.ops.misc")
    misc.FrozenBatchNorm2d = torch.nn.BatchNorm2d
    misc.__spec__ = importlib.machinery.ModuleSpec("torchvision.ops.misc", None)
    sys.modules["torchvision.ops.misc"] = misc
    names = ("Normalize", "Compose", "RandomResizedCrop", "InterpolationMode", "ToTensor", "Resize", "CenterCrop")
    for name in names:
        setattr(sys.modules["torchvision.transforms"], name, object)


def main(tiny: bool) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = transformers.RobertaConfig(
        vocab_size=290,
        num_hidden_layers=2,
        intermediate_size=64,
        max_position_embeddings=96,
        layer_norm_eps=1e-5,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    transformers.RobertaModel(config).save_pretrained("roberta-base")
    # Asked for at import, for text towers that are not used.
    unused = types.SimpleNamespace(from_pretrained=lambda *_: None)
    transformers.BertTokenizer = transformers.BartTokenizer = unused
    from transformers import RobertaModel  # noqa: F401  before torchvision is pretended

    stub_torchvision()
    import laion_clap
    from clap_module import factory, htsat

    if tiny:
        resize(htsat.HTSAT_Swin_Transformer)
        factory._MODEL_CONFIGS["HTSAT-tiny"]["embed_dim"] = 8 * TINY["embed_dim"]
    clap = laion_clap.CLAP_Module(enable_fusion=False, device="cpu", amodel="HTSAT-tiny")
    stir(clap.model)
    state = {f"module.{name}": value for name, value in clap.model.state_dict().items()}
    state["module.text_branch.embeddings.position_ids"] = torch.arange(96)[None]  # as published ones have
    torch.save({"epoch": 15, "name": "toy", "best": np.float64(0.5), "state_dict": state}, "model.pt")
    clap.load_ckpt("model.pt", verbose=False)

    asked = np.load("asked.npz")
    sounds = torch.from_numpy(asked["sounds"]).requires_grad_()
    audio = clap.get_audio_embedding_from_data(sounds, use_tensor=True)
    audio[:, 0].sum().backward()
    text = clap.get_text_embedding([str(text) for text in asked["texts"]])
    np.savez("said.npz", audio=audio.detach().numpy(), text=text, gradient=sounds.grad.numpy())


def resize(htsat: Any) -> None:
    """Give the package's own class the sizes of TINY, whatever it is asked for."""
    original = htsat.__init__

    @functools.wraps(original)
    def init(self: Any, **arguments: Any) -> None:
        original(self, **{**arguments, **TINY})

    htsat.__init__ = init


@torch.no_grad()
def stir(model: torch.nn.Module) -> None:
    """Random numbers in every weight; the front end's fixed filters, which are parameters too, stay."""
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if not value.is_floating_point() or "_extractor" in name or "logit_scale" in name or "attn_mask" in name:
            continue
        noise = torch.randn(value.shape)
        if name.endswith("running_mean"):
            value.copy_(-30.0 + 5.0 * noise)
        elif name.endswith("running_var"):
            value.copy_(400.0 + 50.0 * noise.clamp(-2, 2))
        elif name.endswith("weight") and value.ndim == 1:
            value.copy_(1.0 + 0.2 * noise)
        elif value.ndim < 2:
            value.copy_(0.2 * noise)
        else:
            value.copy_(noise * value[0].numel() ** -0.5)


if __name__ == "__main__":
    main(tiny=sys.argv[1] != "0")
