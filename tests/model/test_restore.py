from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import model
from model.bundle import Bundle
from model.export import export_bundle, prepare
from model.restore import FixedNorm, restore, store
from model.runtime import Runtime
from tests.toy import toy_bundle, toy_card, toy_separator, toy_towers

SHIPPED = Bundle.open(Path(model.__file__).parent / "default")


def difference(bundle: Bundle, separator: nn.Module, phrases: list[str], n_frames: int) -> float:
    """Largest difference of the masks of a module and of its bundle's graph, on random bands."""
    runtime = Runtime(bundle, threads=1, device="cpu")
    rng = np.random.default_rng(0)
    bands = (0.1 * rng.uniform(size=(bundle.signal.n_bands, n_frames)) ** 2).astype(np.float32)
    embedding = runtime.embed(phrases)
    expected = runtime.mask(bands, embedding)
    tokens, padding, pooled = (torch.from_numpy(value)[None] for value in embedding)
    prompts = (pooled, tokens, padding) if bundle.network.conditioning == "attention" else (pooled,)
    with torch.inference_mode():
        mask = separator(torch.from_numpy(bands)[None], *prompts)[0].numpy()
    assert mask.shape == expected.shape
    return float(np.abs(mask - expected).max())


@pytest.mark.parametrize(
    "conditioning",
    ["film", "attention", *(pytest.param(how, marks=pytest.mark.slow) for how in ("concatenation", "gate"))],
)
def test_masks_are_those_of_the_graph(tmp_path: Path, conditioning: str) -> None:
    bundle = toy_bundle(tmp_path, conditioning)
    assert difference(bundle, restore(bundle), ["dog barking", "violin"], 64) < 1e-5


def test_the_shipped_bundle_comes_back() -> None:
    assert difference(SHIPPED, restore(SHIPPED), ["dog barking", "a violin", "rain"], 128) < 1e-4


@pytest.mark.slow
def test_what_is_restored_can_be_exported_again(bundle: Bundle, tmp_path: Path) -> None:
    separator = restore(bundle)
    again = export_bundle(tmp_path / "again", separator, bundle.network, bundle.signal, toy_towers(), toy_card())
    assert difference(again, separator, ["dog barking", "rain"], 64) < 1e-5
    assert difference(again, restore(again), ["dog barking", "rain"], 64) < 1e-5


def test_stored_weights_are_served(bundle: Bundle, tmp_path: Path) -> None:
    other = toy_separator(seed=7)  # with statistics of its own, which are folded on the way
    shutil.copytree(bundle.path, tmp_path / "b")
    store(other, bundle, tmp_path / "b" / "separator.onnx")
    changed = replace(bundle, path=tmp_path / "b")
    assert difference(changed, prepare(other, half=True), ["dog barking", "rain"], 64) < 1e-5
    assert difference(changed, restore(bundle), ["dog barking", "rain"], 64) > 1e-2


def test_storing_what_was_restored_changes_nothing(tmp_path: Path) -> None:
    store(restore(SHIPPED), SHIPPED, tmp_path / "separator.onnx")
    one, other = (
        {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(str(path)).graph.initializer}
        for path in (SHIPPED.file("separator.onnx"), tmp_path / "separator.onnx")
    )
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.dtype == other[name].dtype
        np.testing.assert_allclose(value, other[name], rtol=0 if value.dtype == np.float16 else 1e-6)


def test_weights_that_do_not_fit_are_not_stored(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not the module's graph: unknown .*cross.*, missing \[\]"):
        store(toy_separator("attention"), bundle, tmp_path / "s.onnx")
    loud = restore(SHIPPED)
    with torch.no_grad():
        loud.get_parameter("gate.weight")[0, 0] = 1e6
    with pytest.raises(ValueError, match=r"gate\.weight\.half: 1e\+06 is beyond half precision"):
        store(loud, SHIPPED, tmp_path / "s.onnx")


def test_statistics_stay_while_all_else_learns(bundle: Bundle) -> None:
    separator = restore(bundle)
    separator.train()
    before = {name: value.clone() for name, value in separator.state_dict().items()}
    optimiser = torch.optim.SGD(separator.parameters(), lr=0.1)
    bands, pooled = torch.rand(2, bundle.signal.n_bands, 64), torch.randn(2, 1, bundle.network.embedding_features)
    separator(bands, pooled).mean().backward()
    optimiser.step()
    after = separator.state_dict()
    norms = [name for name, module in separator.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(isinstance(separator.get_submodule(name), FixedNorm) for name in norms)
    for name in norms:
        for buffer in ("running_mean", "running_var", "num_batches_tracked"):
            assert torch.equal(before[f"{name}.{buffer}"], after[f"{name}.{buffer}"])
    assert sum(not torch.equal(before[f"{name}.bias"], after[f"{name}.bias"]) for name in norms) > len(norms) / 2


def test_in_training_it_answers_as_in_service(bundle: Bundle) -> None:
    separator = restore(bundle)
    bands, pooled = torch.rand(2, bundle.signal.n_bands, 64), torch.randn(2, 1, bundle.network.embedding_features)
    with torch.no_grad():
        served = separator(bands, pooled)
        assert torch.equal(separator.train()(bands, pooled), served)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conditioning": "gate"}, "not the weights of the manifest's network: unknown .*film"),
        ({"mask_maps": 8}, r"another shape .*maps\.weight \[16, 4, 1, 1\] for \[32, 4, 1, 1\]"),
    ],
)
def test_another_network_is_refused(bundle: Bundle, change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        restore(replace(bundle, network=replace(bundle.network, **change)))  # type: ignore[arg-type]


def test_a_lost_weight_and_a_broken_graph_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(bundle.path, tmp_path / "b")
    path = tmp_path / "b" / "separator.onnx"
    graph = onnx.load(str(path))
    lost = next(tensor for tensor in graph.graph.initializer if tensor.name == "gate.bias")
    graph.graph.initializer.remove(lost)
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(ValueError, match=r"missing \['gate\.bias'\]"):
        restore(replace(bundle, path=tmp_path / "b"))
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match="cannot be read as ONNX"):
        restore(replace(bundle, path=tmp_path / "b"))
