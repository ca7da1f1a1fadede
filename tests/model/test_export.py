from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn

from model.bundle import Bundle
from model.embedder.audio import AudioConfig
from model.embedder.compact import CompactEmbedder
from model.embedder.text import TextConfig, TextTokenizer
from model.export import export_bundle, prepare
from model.graph import store_halves
from model.network import build
from model.runtime import Runtime
from model.spec import NetworkSpec, SignalSpec
from tests.toy import (
    FEATURES,
    PHRASES,
    toy_card,
    toy_network,
    toy_separator,
    toy_signal,
    toy_towers,
)
from training import checkpoint, export
from training.card import model_card, training_data


def test_a_bundle_says_what_is_in_it(attention_bundle: Bundle) -> None:
    manifest = attention_bundle.manifest
    assert manifest["tensors"]["separator.onnx"] == {
        "inputs": {
            "bands": ["B", 64, "N"],
            "pooled": ["B", "P", FEATURES],
            "tokens": ["B", "P", "L", FEATURES],
            "padding": ["B", "P", "L"],
        },
        "outputs": {"mask": ["B", "P", 64, "N"]},
    }
    for name, tensors in manifest["tensors"].items():
        graph = onnx.load(attention_bundle.file(name)).graph
        for kind, values in (("inputs", graph.input), ("outputs", graph.output)):
            found = {
                value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
                for value in values
            }
            assert found == tensors[kind]
    assert (manifest["name"], manifest["training_data"][0]["licence"]) == ("toy", "CC0")
    assert attention_bundle.file("README.md").read_text() == "# toy\n"


def test_graphs_tell_nothing_of_the_machine_that_made_them(bundle: Bundle) -> None:
    for name in ("separator.onnx", "text.onnx", "audio.onnx"):
        content = bundle.file(name).read_bytes()
        assert str(Path(__file__).resolve().parents[2]).encode() not in content
        assert b"site-packages" not in content
        assert b".py" not in content


def test_the_head_runs_once_however_many_prompts(bundle: Bundle) -> None:
    """Once a window, not once a prompt: the first convolution is fed before prompts come in."""
    graph = onnx.load(bundle.file("separator.onnx")).graph
    after_prompts, convolutions = {"pooled"}, []
    for node in graph.node:
        if after_prompts & set(node.input):
            after_prompts |= set(node.output)
        if node.op_type == "Conv":
            convolutions.append(bool(after_prompts & set(node.input)))
    head_levels = toy_network().head_levels
    assert convolutions[: 1 + 3 * (head_levels - 1)] == [False] * (1 + 3 * (head_levels - 1))
    assert any(convolutions)


class TwoFaced(nn.Module):
    """Gives one thing to torch and another to the exporter."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, bands: Tensor, pooled: Tensor) -> Tensor:
        mask: Tensor = self.inner(bands, pooled)
        return mask + 0.01 if torch.compiler.is_exporting() else mask


def test_a_graph_that_differs_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"separator.onnx: torch and ONNX Runtime differ by 1\.0\de-02, more than 1e-04"
    ):
        export_bundle(
            tmp_path / "bundle", TwoFaced(toy_separator()), toy_network(), toy_signal(), toy_towers(), toy_card()
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("conditioning", ["gate", "concatenation"])
def test_every_conditioning_is_exported(tmp_path: Path, conditioning: str) -> None:
    lines: list[str] = []
    bundle = export_bundle(
        tmp_path / "bundle",
        toy_separator(conditioning),
        toy_network(conditioning),
        toy_signal(),
        toy_towers(),
        toy_card(),
        half=False,
        progress=lines.append,
    )
    assert [line.split(":")[0] for line in lines[:3]] == ["separator.onnx", "text.onnx", "audio.onnx"]
    runtime = Runtime(bundle, threads=1, device="cpu")
    bands, embedding = np.ones((64, 96), np.float32), runtime.embed(["violin", "dog barking"])
    with torch.inference_mode():
        expected = toy_separator(conditioning)(torch.from_numpy(bands)[None], torch.from_numpy(embedding[2])[None])[0]
    np.testing.assert_allclose(runtime.mask(bands, embedding), expected.numpy(), atol=1e-4)


def test_preparing_changes_a_network_by_no_more_than_half_precision() -> None:
    network = build(NetworkSpec(channels=(8, 12, 16, 16, 16), decoder_channels=(8, 12, 16, 16)), SignalSpec()).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    bands, pooled = torch.rand(1, 128, 64), torch.randn(1, 2, 384)
    with torch.inference_mode():
        expected = network(bands, pooled)
        folded = prepare(network, half=False)(bands, pooled)
        halved = prepare(network, half=True)
        rounded = halved(bands, pooled)
    torch.testing.assert_close(folded, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(rounded, expected, atol=2e-3, rtol=0)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in halved.modules())
    for parameter in halved.parameters():
        if parameter.numel() >= 1024:
            torch.testing.assert_close(parameter.half().float(), parameter, atol=0, rtol=0)
    for name, value in network.state_dict().items():  # the one that was given is untouched
        torch.testing.assert_close(value, before[name], atol=0, rtol=0)


def test_halves_are_stored_only_where_nothing_is_lost() -> None:
    exact, fine = np.full(8, 0.5, np.float32), np.full(8, 0.1, np.float32)
    huge, small = np.full(8, 1e6, np.float32), np.full(2, 0.5, np.float32)
    names = ("exact", "fine", "huge", "small")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Concat", list(names), ["out"], axis=0)],
        "graph",
        [],
        [onnx.helper.make_tensor_value_info("out", TensorProto.FLOAT, [26])],
        [
            onnx.numpy_helper.from_array(value, name)
            for name, value in zip(names, (exact, fine, huge, small), strict=True)
        ],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    store_halves(model, min_numbers=4)
    onnx.checker.check_model(model)
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert stored == {
        "exact.half": TensorProto.FLOAT16,
        "fine": TensorProto.FLOAT,
        "huge": TensorProto.FLOAT,
        "small": TensorProto.FLOAT,
    }
    assert [node.op_type for node in model.graph.node] == ["Cast", "Concat"]


def test_weights_take_half_the_room(tmp_path: Path) -> None:
    network = dataclasses.replace(toy_network(), channels=(4, 8, 16, 32, 48), decoder_channels=(4, 8, 8, 16))
    separator = build(network, toy_signal()).eval()
    sizes = {}
    for half in (False, True):
        path = tmp_path / str(half)
        made = export_bundle(path, separator, network, toy_signal(), toy_towers(), toy_card(), half=half)
        sizes[half] = made.manifest["files"]["separator.onnx"]["bytes"]
    n_bytes = 4 * sum(value.numel() for value in separator.parameters())
    assert sizes[False] - sizes[True] > 0.4 * n_bytes


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a separator's checkpoint, an embedder and a sound pack's papers."""
    folder = tmp_path_factory.mktemp("checkpoints")
    separator = toy_separator()
    state = separator.state_dict()
    specs = {"network": toy_network().to_json(), "signal": toy_signal().to_json()}
    checkpoint.save(folder / "separator.pt", {"step": 7, "model": state, "ema": state, **specs})
    tokenizer = TextTokenizer.train(PHRASES, vocabulary=120, max_tokens=12)
    text = TextConfig(
        vocabulary=len(tokenizer),
        table_features=8,
        features=16,
        layers=1,
        heads=2,
        max_tokens=12,
        embedding_features=16,
    )
    audio = AudioConfig(n_bands=64, channels=(4, 4, 8, 8, 8), hidden=16, pooling_heads=2, embedding_features=16)
    CompactEmbedder(tokenizer, text, audio, toy_signal()).save(folder / "embedder")
    other = AudioConfig(n_bands=32, channels=(4, 4, 8, 8, 8), hidden=16, pooling_heads=2, embedding_features=16)
    CompactEmbedder(tokenizer, text, other, SignalSpec(n_bands=32)).save(folder / "deaf")
    (folder / "sounds").mkdir()
    (folder / "sounds" / "manifest.csv").write_text(
        "path,label,source,split,seconds,recording,part\n"
        "a.opus,dog,farm,train,1.0,r1,separator\nb.opus,cat,farm,train,1.0,r2,embedder\n"
        "c.opus,cat,farm,valid,1.0,r3,separator\nd.opus,rain,sky,train,2.0,r4,separator\n"
    )
    (folder / "sounds" / "README.md").write_text(
        "# Pack\n\n| file | what |\n| --- | --- |\n| x | y |\n\n"
        "| source | what | licence |\n| --- | --- | --- |\n| farm | beasts | CC BY 4.0 |\n"
    )
    (folder / "figures.json").write_text(json.dumps({"valid-2": {"sdri_db": 8.512}}))
    return folder


def run(folder: Path, out: Path, *more: str, embedder: str = "embedder") -> int:
    return export.main(
        [
            *("--separator", str(folder / "separator.pt"), "--embedder", str(folder / embedder)),
            *("--out", str(out), "--sounds", str(folder / "sounds"), *more),
        ]
    )


def test_the_command_writes_a_bundle_that_works(
    checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "export.toml"
    config.write_text('name = "toy"\nhalf = false\n')
    assert run(checkpoints, tmp_path / "out", str(config), "--evaluation", str(checkpoints / "figures.json")) == 0
    bundle = Bundle.open(tmp_path / "out")
    assert bundle.manifest["name"] == "toy"
    assert bundle.manifest["evaluation"] == {"valid-2": {"sdri_db": 8.512}}
    assert bundle.manifest["training_data"] == [
        {"name": "farm", "licence": "CC BY 4.0", "clips": 2},
        {"name": "sky", "licence": "not stated", "clips": 1},
    ]
    card = bundle.file("README.md").read_text()
    assert "| farm | 2 | CC BY 4.0 |" in card
    assert "| valid-2.sdri_db | 8.51 |" in card
    assert "differ by" in capsys.readouterr().out
    stems = Runtime(bundle, threads=1, device="cpu").separate(np.ones((1, 4_000), np.float32), 16_000, ["violin"])
    assert stems.shape == (1, 1, 4_000)


def test_a_bundle_draws_prompts_to_the_phrases_it_was_trained_on(checkpoints: Path, tmp_path: Path) -> None:
    (tmp_path / "phrases.json").write_text(json.dumps({"dog": [PHRASES[0]], "rain": [PHRASES[2]]}))
    assert run(checkpoints, tmp_path / "out", "--anchors", str(tmp_path / "phrases.json")) == 0
    bundle = Bundle.open(tmp_path / "out")
    assert (bundle.embedder.anchors, bundle.embedder.anchor_temperature) == (2, 0.05)
    pooled = Runtime(bundle, threads=1, device="cpu").embed(["hail on a tent", *PHRASES])[2]
    with torch.inference_mode():
        anchors = CompactEmbedder.load(checkpoints / "embedder").text([PHRASES[0], PHRASES[2]])[2].numpy()
    # What lies in the plane of the two has no component beside it.
    beside = pooled - pooled @ np.linalg.pinv(anchors) @ anchors
    assert np.abs(beside).max() < 2e-3
    np.testing.assert_allclose(np.linalg.norm(pooled, axis=1), 1.0, atol=1e-3)


@pytest.mark.parametrize(
    ("more", "embedder", "message"),
    [
        (("--anchors", "nowhere.json"), "embedder", "nowhere.json"),
        (("--anchors", "pyproject.toml"), "embedder", "must be a JSON object"),
        (("--separator", "nowhere.pt"), "embedder", "no checkpoint nowhere.pt"),
        ((), "nothing", "no embedder at"),
        ((), "deaf", "n_bands is 64 and 32"),
        (("--card", "nowhere.md"), "embedder", "nowhere.md"),
        (("--evaluation", "nowhere.json"), "embedder", "nowhere.json"),
        (("nowhere.toml",), "embedder", "no config file nowhere.toml"),
    ],
)
def test_the_command_says_what_is_wrong(
    checkpoints: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    embedder: str,
    message: str,
) -> None:
    assert run(checkpoints, tmp_path / "out", *more, embedder=embedder) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_help_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        export.main(["--help"])
    assert stop.value.code == 0
    assert "--separator" in capsys.readouterr().out


def test_the_card_lists_the_pack_that_ships(tmp_path: Path) -> None:
    sounds = Path(__file__).resolve().parents[3] / "shared" / "sounds"
    if not (sounds / "manifest.csv").is_file():
        pytest.skip(f"the sound pack is not at {sounds}")
    data = training_data(sounds)
    assert len(data) == 6
    assert all(item["clips"] > 0 and item["licence"] != "not stated" for item in data)
    card = model_card("winnow", {}, data, {})
    assert "CC BY 4.0" in card
    assert "None was given" in card
