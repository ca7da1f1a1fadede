"""The command line on a real bundle: ``separate`` without a server, ``serve`` as a process, ``doctor``, ``bench``."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import soundfile

from service import cli
from service.server_process import ServerProcess
from service.settings import Settings
from tests.service.sounds import encode, noise

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def environment(bundle: Path, temp_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WINNOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WINNOW_MODEL", str(bundle))
    monkeypatch.setenv("WINNOW_THREADS", "1")
    monkeypatch.setenv("TMPDIR", str(temp_folder))


@pytest.fixture
def mix(tmp_path: Path) -> Path:
    path = tmp_path / "mix.wav"
    path.write_bytes(encode(noise(44_100, 2), 44_100))
    return path


def test_separate_writes_one_sound(mix: Path, tmp_path: Path) -> None:
    assert cli.main(["separate", str(mix), "dog barking", "-o", str(tmp_path / "dog.wav")]) == 0
    info = soundfile.info(tmp_path / "dog.wav")
    assert (info.samplerate, info.channels, info.frames) == (44_100, 2, 44_100)


def test_separate_takes_the_format_from_the_name(mix: Path, tmp_path: Path) -> None:
    assert cli.main(["separate", str(mix), "dog", "-o", str(tmp_path / "dog.flac"), "--subtype", "pcm24"]) == 0
    assert soundfile.info(tmp_path / "dog.flac").subtype == "PCM_24"


def test_separate_names_the_file_itself(mix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["separate", "mix.wav", "dog barking", "--format", "ogg"]) == 0
    assert (tmp_path / "dog_barking.ogg").is_file()


def test_separate_several_into_a_folder_or_a_zip(mix: Path, tmp_path: Path) -> None:
    command = ["separate", str(mix), "dog", "rain", "--output", "both", "-o"]
    assert cli.main([*command, str(tmp_path / "stems")]) == 0
    assert cli.main([*command, str(tmp_path / "stems.zip")]) == 0
    names = {"manifest.json", "1_dog.wav", "2_rain.wav", "residual.wav"}
    assert {path.name for path in (tmp_path / "stems").iterdir()} == names
    with zipfile.ZipFile(tmp_path / "stems.zip") as archive:
        assert set(archive.namelist()) == names


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.wav", "dog"], "missing.wav"),
        (["mix.wav", ""], "at least one character"),
        (["mix.wav", "dog", "-o", "dog.xyz"], "unknown format"),
        (["text.wav", "dog"], "not audio"),
    ],
)
def test_separate_says_what_is_wrong(
    mix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.wav").write_text("no sound")
    assert cli.main(["separate", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_setting_out_of_range_is_one_line(monkeypatch: pytest.MonkeyPatch, mix: Path, capsys) -> None:
    monkeypatch.setenv("WINNOW_MAX_PROMPTS", "0")
    assert cli.main(["separate", str(mix), "dog"]) == 2
    assert "WINNOW_MAX_PROMPTS" in capsys.readouterr().err


def test_doctor(bundle: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.main(["doctor"]) == 0
    said = capsys.readouterr().out
    found = ("CPUExecutionProvider in force", "decode and encode", "separator.onnx", "WINNOW_REDIS_URL is not set")
    for expected in found:
        assert expected in said
    monkeypatch.setenv("WINNOW_MODEL", str(bundle.parent / "nowhere"))
    assert cli.main(["doctor"]) == 1
    assert "FAIL  bundle" in capsys.readouterr().out


def test_doctor_finds_a_changed_file(bundle: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in bundle.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    data = bytearray((copy / "separator.onnx").read_bytes())
    data[-1] ^= 1
    (copy / "separator.onnx").write_bytes(data)
    monkeypatch.setenv("WINNOW_MODEL", str(copy))
    assert cli.main(["doctor"]) == 1
    assert "separator.onnx: SHA-256" in capsys.readouterr().out
    assert cli.main(["serve"]) == 2


def test_doctor_asks_redis(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_REDIS_URL", "redis://127.0.0.1:1/0")
    assert cli.main(["doctor"]) == 0
    assert "no answer within 0.05 s" in capsys.readouterr().out
    monkeypatch.setenv("WINNOW_REDIS_URL", "http://elsewhere")
    assert cli.main(["doctor"]) == 1


def test_bench_start_up(capsys, tmp_path: Path) -> None:
    assert cli.main(["bench", "--sections", "startup", "--threads", "1", "--json", str(tmp_path / "b.json")]) == 0
    figures = json.loads((tmp_path / "b.json").read_text())["figures"]
    assert [figure["unit"] for figure in figures] == ["s"]
    assert "process start to ready" in capsys.readouterr().out
    assert cli.main(["bench", "--sections", "luck"]) == 2


@pytest.fixture
def server(environment: None) -> Iterator[ServerProcess]:
    with ServerProcess(Settings(threads=1)) as process:
        yield process


def test_serve_and_separate_give_the_same_bytes(server: ServerProcess, mix: Path, tmp_path: Path) -> None:
    out = tmp_path / "dog.wav"
    assert cli.main(["separate", str(mix), "dog barking", "-o", str(out)]) == 0
    response = httpx.post(
        f"http://127.0.0.1:{server.port}/separate",
        files={"audio": mix.read_bytes()},
        data={"prompt": "dog barking"},
        timeout=60,
    )
    assert response.content == out.read_bytes()
    assert 0 <= float(response.headers["x-presence"]) <= 1


def test_silence_through_a_real_model(server: ServerProcess) -> None:
    response = httpx.post(
        f"http://127.0.0.1:{server.port}/separate",
        files={"audio": encode(noise(30_000, level=0.0))},
        data={"prompt": ["dog barking", "rain"], "output": "both"},
        timeout=60,
    )
    assert response.status_code == 200
    assert response.headers["x-presence"] == "0.000, 0.000"


def test_sigterm_lets_a_request_end(server: ServerProcess) -> None:
    url = f"http://127.0.0.1:{server.port}"
    sound = encode(noise(20 * 48_000, 2), 48_000)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(
            httpx.post, f"{url}/separate", files={"audio": sound}, data={"prompt": "dog"}, timeout=120
        )
        time.sleep(0.3)
        server.signal(signal.SIGTERM)
        assert answer.result().status_code == 200
    assert server.wait(20) in (0, -signal.SIGTERM)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", server.port), 1)


def test_serve_refuses_a_device_that_is_not_there() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "service.cli", "serve", "--port", "0"],
        cwd=ROOT,
        env={**os.environ, "WINNOW_DEVICE": "cuda", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 2
    assert "cuda" in run.stderr
    assert "Traceback" not in run.stderr


def test_no_arguments_is_usage() -> None:
    with pytest.raises(SystemExit):
        cli.main([])
