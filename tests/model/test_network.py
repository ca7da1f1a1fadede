"""The base network: what its mask must not depend on, what its Head costs, and how a prompt gets in."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from model.layers import BandAnalysis
from model.network import ConditionalUNet, build, compress
from model.spec import NetworkSpec, SignalSpec
from training.time_network import inputs

SIGNAL = SignalSpec()
TINY = NetworkSpec(
    channels=(4, 6, 8, 12, 16),
    decoder_channels=(4, 6, 8, 12),
    mask_maps=3,
    token_features=10,
    embedding_features=12,
)


def network(conditioning: str) -> ConditionalUNet:
    """A tiny network in which nothing is zero: several weights start there and would hide what they multiply."""
    torch.manual_seed(0)
    module = build(replace(TINY, conditioning=conditioning), SIGNAL)
    assert isinstance(module, ConditionalUNet)
    for parameter in module.parameters():
        if not parameter.detach().any():
            nn.init.normal_(parameter, std=0.3)
    return module.eval()


def made(module: ConditionalUNet, n_batch: int = 1, n_prompts: int = 1, n_frames: int = 64) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return inputs(module.spec, SIGNAL, n_batch=n_batch, n_prompts=n_prompts, n_frames=n_frames)


@pytest.fixture(params=NetworkSpec.CONDITIONINGS)
def module(request: pytest.FixtureRequest) -> ConditionalUNet:
    return network(request.param)


@torch.no_grad()
def test_the_head_runs_once_however_many_prompts(module: ConditionalUNet) -> None:
    calls: list[tuple[int, ...]] = []
    with module.head.register_forward_hook(lambda _, given, __: calls.append(tuple(given[0].shape))):
        mask = module(*made(module, n_batch=2, n_prompts=5).values())
    assert calls == [(2, 128, 64)]
    assert mask.shape == (2, 5, 128, 64)


@torch.no_grad()
def test_prompts_asked_together_equal_each_asked_alone(module: ConditionalUNet) -> None:
    arguments = made(module, n_batch=2, n_prompts=3)
    together = module(*arguments.values())
    bands = arguments.pop("bands")
    for prompt in range(3):
        alone = module(bands, *(value[:, prompt : prompt + 1] for value in arguments.values()))
        torch.testing.assert_close(alone[:, 0], together[:, prompt], atol=1e-5, rtol=0)
    assert (together[:, 0] - together[:, 1]).abs().max() > 1e-4


@torch.no_grad()
def test_a_batch_of_three_equals_three_of_one(module: ConditionalUNet) -> None:
    arguments = made(module, n_batch=3)
    together = module(*arguments.values())
    for item in range(3):
        alone = module(*(value[item : item + 1] for value in arguments.values()))
        torch.testing.assert_close(alone[0], together[item], atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("gain", [1e-3, 30.0])
def test_a_louder_recording_has_the_same_mask(module: ConditionalUNet, gain: float) -> None:
    arguments = made(module)
    mask = module(*arguments.values())
    arguments["bands"] = gain * arguments["bands"]
    torch.testing.assert_close(module(*arguments.values()), mask, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_mask_is_a_share_of_anything(module: ConditionalUNet) -> None:
    arguments = made(module)
    for bands in (arguments["bands"], torch.zeros_like(arguments["bands"]), 1e4 * arguments["bands"]):
        mask = module(*{**arguments, "bands": bands}.values())
        assert torch.isfinite(mask).all()
        assert mask.min() >= 0.0 and mask.max() <= 1.0


def test_every_parameter_learns(module: ConditionalUNet) -> None:
    module.train()
    module(*made(module, n_batch=2, n_prompts=2).values()).square().mean().backward()
    still = [name for name, value in module.named_parameters() if value.grad is None or not value.grad.any()]
    assert still == []


@torch.no_grad()
def test_padding_is_not_attended_to_and_tokens_are() -> None:
    module = network("attention")
    arguments = made(module)
    mask = module(*arguments.values())
    padding = arguments["padding"]
    other = {**arguments, "tokens": torch.where(padding[..., None], 99.0, arguments["tokens"])}
    torch.testing.assert_close(module(*other.values()), mask, atol=1e-6, rtol=0)
    other = {**arguments, "tokens": torch.where(padding[..., None], arguments["tokens"], -arguments["tokens"])}
    assert (module(*other.values()) - mask).abs().max() > 1e-5


@torch.no_grad()
def test_appended_padding_changes_nothing() -> None:
    module = network("attention")
    arguments = made(module)
    mask = module(*arguments.values())
    arguments["tokens"] = nn.functional.pad(arguments["tokens"], (0, 0, 0, 5), value=7.0)
    arguments["padding"] = nn.functional.pad(arguments["padding"], (0, 5), value=True)
    torch.testing.assert_close(module(*arguments.values()), mask, atol=1e-6, rtol=0)


def test_gradients_reach_the_waveform_through_the_bands() -> None:
    module = network("film")
    waveform = (0.1 * torch.randn(1, 63 * 320, generator=torch.Generator().manual_seed(0))).requires_grad_()
    spectrum, bands = BandAnalysis(SIGNAL)(waveform)
    assert bands.shape[-1] == 64
    mask = module(bands, made(module)["pooled"])
    BandAnalysis(SIGNAL).synthesise(spectrum, mask[:, 0], waveform.shape[1]).square().sum().backward()
    assert waveform.grad is not None
    assert torch.isfinite(waveform.grad).all()
    assert (waveform.grad != 0).float().mean() > 0.99


def test_the_level_is_the_whole_windows_and_each_items_own() -> None:
    bands = torch.rand(2, 128, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(compress(bands * torch.tensor([1.0, 100.0])[:, None, None]), compress(bands))
    assert not compress(torch.zeros(1, 128, 32)).any()
