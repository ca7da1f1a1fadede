"""Taking known mixtures apart: the parts add up, the right ones are kept, and the work is done once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.toy_parts import FEATURES, SIGNAL, TONES, ToneEar, batch_of, tone, toy_parts
from training.ear import Ear
from training.extract import Extraction, compete, extract, main
from training.rendered import RenderedMixtures, RenderedWriter


def extraction(table: torch.Tensor | None = None, *, sharpness: float = 4.0) -> Extraction:
    parts = toy_parts(batch_of([[[0, 3], [6]]]), table=table)
    return Extraction(parts, Ear(ToneEar(), parts.analysis, bf16=False), sharpness=sharpness)


def recordings(folder: Path, rows: list[list[int]]) -> RenderedMixtures:
    with RenderedWriter(folder, 32_000) as writer:
        for row in rows:
            writer.add(np.sum([tone(number) for number in row], axis=0), "a caption", [TONES[number] for number in row])
    return RenderedMixtures(folder)


@pytest.mark.parametrize("sharpness", [1.0, 4.0])
def test_masks_that_compete_add_up_to_one_and_the_larger_wins(sharpness: float) -> None:
    torch.manual_seed(0)
    mask = torch.rand(2, 3, 5, 7)
    shared = compete(mask, sharpness)
    assert torch.allclose(shared.sum(dim=1), torch.ones(2, 5, 7), atol=1e-6)
    assert torch.equal(shared.argmax(dim=1), mask.argmax(dim=1))
    assert torch.allclose(compete(torch.zeros(1, 4, 2, 2), sharpness), torch.full((1, 4, 2, 2), 0.25))


def test_the_parts_of_a_recording_add_up_to_it() -> None:
    torch.manual_seed(1)
    vague = extraction(torch.rand(FEATURES, SIGNAL.n_bands))
    audio = tone(0) + tone(3) + tone(6)
    parts = vague.take_apart(audio, [TONES[0], TONES[3], TONES[6]])
    assert np.abs(np.sum([part.audio for part in parts], axis=0) - audio).max() < 1e-4


def test_a_teacher_that_knows_takes_the_tones_out_and_the_ear_agrees() -> None:
    parts = extraction().take_apart(tone(0) + tone(6), [TONES[0], TONES[6]])
    for part, number in zip(parts, (0, 6), strict=True):
        error = part.audio - tone(number)
        assert np.square(error[3200:-3200]).sum() < 1e-2 * np.square(tone(number)).sum()
        assert part.margin > 0.5


def test_a_mixed_up_teacher_has_negative_margins_and_its_worst_parts_are_left_out(tmp_path: Path) -> None:
    table = extraction().parts.separator.table.detach().clone()  # type: ignore[union-attr]
    table[[0, 6]] = table[[6, 0]]
    wrong = extraction(table)
    assert all(part.margin < -0.5 for part in wrong.take_apart(tone(0) + tone(6), [TONES[0], TONES[6]]))
    heard = recordings(tmp_path / "heard", [[0, 6], [0, 6], [0, 6], [0, 3]])
    kept = extract(heard, wrong, tmp_path / "kept", keep=0.5, limit=4)
    result = RenderedMixtures(tmp_path / "kept")
    assert kept == len(result) == 2 + 2 + 1  # half of tone 0's four, of tone 6's three, and of tone 3's one
    assert sorted(result.captions) == sorted([TONES[0]] * 2 + [TONES[6]] * 2 + [TONES[3]])
    assert all(list(result.phrases(index)) == [result.caption(index)] for index in range(kept))
    assert not (tmp_path / "kept.all").exists()
    loudest = [np.abs(np.fft.rfft(result.audio(index))).argmax() * 2.5 for index in range(kept)]
    own = [loudest[index] for index in range(kept) if result.caption(index) == TONES[0]]
    assert 400.0 in own  # beside tone 3 the teacher is right about tone 0, so that part is kept first


def test_recordings_of_one_sound_are_not_taken_apart(tmp_path: Path) -> None:
    heard = recordings(tmp_path / "heard", [[0], [0, 6]])
    assert extract(heard, extraction(), tmp_path / "kept", keep=1.0, limit=9) == 2


def test_bad_arguments_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recordings(tmp_path / "heard", [[0, 6]])
    common = ["--recordings", str(tmp_path / "heard"), "--embedder", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main([*common, "--checkpoint", "x.pt", "--keep", "0"]) == 2
    assert "keep must be over 0 and at most 1, got 0.0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert json.loads((tmp_path / "heard" / "mixtures.json").read_text())["sample_rate"] == 32_000
