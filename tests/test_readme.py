"""The README is executed: its commands run, on the bundle that ships."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]
CURLS = [command for command in COMMANDS if command.startswith("curl ")]
RATE = 44_100


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
    command = [sys.executable, "-m", "service.cli", "serve", "--port", str(free)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WINNOW_")}
    with subprocess.Popen(command, cwd=ROOT, env=environment) as server:
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{free}/readyz", timeout=5):
                        break
                except OSError:
                    assert server.poll() is None and time.monotonic() < deadline, "the service did not start"
                    time.sleep(0.1)
            yield free
        finally:
            server.terminate()
            server.wait(30)


@pytest.fixture
def mix(tmp_path: Path) -> np.ndarray:
    time_s = np.arange(int(2.5 * RATE)) / RATE
    rng = np.random.default_rng(0)
    tone = 0.2 * np.sin(2 * np.pi * 440 * time_s)
    sound = np.stack([tone, 0.5 * tone], axis=1) + rng.normal(size=(len(time_s), 2)) * 0.02
    soundfile.write(tmp_path / "mix.wav", sound, RATE, subtype="PCM_16")
    audio, _ = soundfile.read(tmp_path / "mix.wav")
    return audio


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("command", CURLS)
def test_a_curl_gives_audio_of_the_recordings_rate_channels_and_length(
    command: str, port: int, mix: np.ndarray, tmp_path: Path
) -> None:
    run = subprocess.run(
        ["sh", "-c", command.replace(":8000", f":{port}") + " --fail-with-body -sS"], cwd=tmp_path, capture_output=True
    )
    assert run.returncode == 0, run.stderr
    out = tmp_path / command.rsplit("-o ", 1)[1].split()[0]
    if out.suffix == ".zip":
        with zipfile.ZipFile(out) as archive:
            names = archive.namelist()
            archive.extractall(tmp_path / "stems")
        files = [tmp_path / "stems" / name for name in names if not name.endswith(".json")]
        assert "manifest.json" in names and len(files) == 3
    else:
        files = [out]
    for file in files:
        audio, rate = soundfile.read(file)
        assert rate == RATE and audio.shape == mix.shape
    if out.suffix == ".zip":
        total = sum(soundfile.read(file)[0] for file in files)
        assert np.abs(total - mix).max() < 2.5 / 32768


def test_the_readme_has_the_curl_that_users_know() -> None:
    assert CURLS[0] == 'curl -F audio=@mix.wav -F prompt="dog barking" http://127.0.0.1:8000/separate -o dog.wav'


def test_the_command_line_separates_as_the_readme_says(mix: np.ndarray, tmp_path: Path) -> None:
    command = next(command for command in COMMANDS if "winnow separate" in command)
    line = command.replace(".venv/bin/winnow", f"{sys.executable} -m service.cli")
    run = subprocess.run(
        ["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert run.returncode == 0, run.stderr
    audio, rate = soundfile.read(tmp_path / "dog.wav")
    assert rate == RATE and audio.shape == mix.shape


@pytest.mark.parametrize("module", sorted(set(re.findall(r"-m (training\.\w+)", README))))
def test_each_training_command_has_help(module: str) -> None:
    run = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0 and "usage:" in run.stdout, run.stderr


def test_every_make_target_config_and_document_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)`", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for path in re.findall(r"(?:docs|training/configs|docker)/[\w.]+", README):
        assert (ROOT / path).is_file(), path
    for command in re.findall(r"winnow (\w+)", "\n".join(COMMANDS)):
        run = subprocess.run([sys.executable, "-m", "service.cli", command, "--help"], cwd=ROOT, capture_output=True)
        assert run.returncode == 0, command
