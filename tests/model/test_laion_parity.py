"""LAION-CLAP's embedder against the real ``laion-clap`` package, in a process and environment of that package's own.

``WINNOW_LAION_PYTHON`` names a Python that has it (docs/laion.md); without it these tests are skipped. The package
makes a random model of its own classes, a tiny HTSAT and two layers of RoBERTa, and saves it as the published ones are;
with ``WINNOW_LAION_FULL=1`` the HTSAT is its ``HTSAT-tiny`` as it is, 28 M parameters. ``-s`` shows the differences.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from model.embedder.laion import LaionEmbedder
from tests.toy_laion import TEXTS, some_sound, write_tokenizer

PYTHON = os.environ.get("WINNOW_LAION_PYTHON", "")
FULL = os.environ.get("WINNOW_LAION_FULL", "") == "1"
SCRIPT = Path(__file__).with_name("laion_reference.py")
pytestmark = pytest.mark.skipif(not PYTHON, reason="WINNOW_LAION_PYTHON names no Python with the laion-clap package")
TOLERANCE = 1e-5
ASKED = [*TEXTS, "A dog's bark, twice; then rain.", "violin " * 100]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's ``model.pt`` and what it says of ``asked.npz``."""
    folder = tmp_path_factory.mktemp("laion")
    write_tokenizer(folder / "roberta-base")
    Tokenizer.from_file(str(folder / "roberta-base" / "tokenizer.json")).model.save(str(folder / "roberta-base"))
    sounds = some_sound(480_000, batch=2)
    sounds[1, 200_000:] = 0.0
    np.savez(folder / "asked.npz", texts=np.array(ASKED), sounds=sounds.numpy())
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [PYTHON, str(SCRIPT), "0" if FULL else "1"]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return folder


@pytest.fixture(scope="module")
def said(folder: Path) -> Mapping[str, np.ndarray]:
    return dict(np.load(folder / "said.npz"))


@pytest.fixture(scope="module")
def ours(folder: Path) -> LaionEmbedder:
    return LaionEmbedder.load_original(folder / "model.pt")


def test_texts_are_embedded_as_the_package_does(ours: LaionEmbedder, said: Mapping[str, np.ndarray]) -> None:
    pooled = ours.text(ASKED)[2].numpy()
    assert np.abs(said["text"][0] - said["text"][1]).max() > 100 * TOLERANCE  # else agreeing would mean little
    print(f"text: largest difference {np.abs(pooled - said['text']).max():.1e}")
    np.testing.assert_allclose(pooled, said["text"], atol=TOLERANCE, rtol=0)


def test_sounds_and_their_gradients_are_the_packages(ours: LaionEmbedder, said: Mapping[str, np.ndarray]) -> None:
    sounds = some_sound(480_000, batch=2)
    sounds[1, 200_000:] = 0.0
    sounds.requires_grad_()
    embedded = ours.audio(sounds, 48_000)
    embedded[:, 0].sum().backward()
    assert np.abs(said["audio"][0] - said["audio"][1]).max() > 100 * TOLERANCE
    print(f"audio: largest difference {np.abs(embedded.detach().numpy() - said['audio']).max():.1e}")
    np.testing.assert_allclose(embedded.detach().numpy(), said["audio"], atol=TOLERANCE, rtol=0)
    assert sounds.grad is not None
    largest = np.abs(said["gradient"]).max()
    print(f"gradient: largest difference {np.abs(sounds.grad.numpy() - said['gradient']).max() / largest:.1e} of it")
    np.testing.assert_allclose(sounds.grad.numpy() / largest, said["gradient"] / largest, atol=1e-4, rtol=0)
