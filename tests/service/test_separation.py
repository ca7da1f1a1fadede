"""The contract of an answer: what comes back is what went in, split, and adds up."""

from __future__ import annotations

import io
import json
import subprocess
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from service.formats import FORMATS
from tests.service.conftest import PATIENCE_S, Running, required
from tests.service.sounds import decode, encode, noise

STEP = {"pcm16": 2**-15, "pcm24": 2**-23, "float32": 2**-22}


def unzip(data: bytes) -> tuple[dict, dict[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
        names = archive.namelist()
        files = {name: archive.read(name) for name in names}
    assert names[0] == "manifest.json"
    return json.loads(files.pop("manifest.json")), files


@pytest.mark.parametrize("sample_rate", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("n_channels", [1, 2])
def test_rate_channels_and_length_come_back(service: Running, sample_rate: int, n_channels: int) -> None:
    mixture = noise(sample_rate // 5 + 17, n_channels)
    response = service.separate(encode(mixture, sample_rate))
    assert response.status_code == 200
    assert response.headers["content-type"] == "audio/wav"
    stem, rate = decode(response.content)
    assert (rate, stem.shape) == (sample_rate, mixture.shape)
    assert np.abs(stem - service.network.gain * mixture).max() < 1.5 * STEP["pcm16"]


def test_eight_channels(service: Running) -> None:
    mixture = noise(4_000, 8)
    for name in ("wav", "flac", "ogg"):
        stem, _ = decode(service.separate(encode(mixture), format=name).content)
        assert stem.shape == mixture.shape


@pytest.mark.parametrize("n_samples", [1, 2, 159, 160, 1_000, 65_536, 65_537, 90_001])
def test_any_length_from_one_sample(service: Running, n_samples: int) -> None:
    stem, _ = decode(service.separate(encode(noise(n_samples))).content)
    assert stem.shape == (1, n_samples)


@pytest.mark.parametrize(("name", "subtype"), [(f.name, s) for f in FORMATS.values() for s in f.subtypes])
@pytest.mark.parametrize("prompts", [["dog"], ["dog", "rain", "nothing"]])
def test_stems_and_residual_add_up_within_a_step(service: Running, name: str, subtype: str, prompts: list[str]) -> None:
    mixture = noise(30_000, 2, level=0.3)
    response = service.separate(encode(mixture, subtype="FLOAT"), prompts, output="both", format=name, subtype=subtype)
    _, files = unzip(response.content)
    parts = [decode(data)[0] for data in files.values()]
    assert len(parts) == len(prompts) + 1
    if subtype != "float32":  # floats carry what is over full scale, integers clip it
        mixture = mixture.clip(-1, 1 - STEP[subtype])
    assert np.abs(sum(parts) - mixture).max() <= STEP[subtype]


def test_residual_alone_is_the_residual_of_both(service: Running) -> None:
    sound = encode(noise(5_000))
    alone = service.separate(sound, output="residual")
    assert alone.headers["content-disposition"] == 'attachment; filename="residual.wav"'
    assert alone.content == unzip(service.separate(sound, output="both").content)[1]["residual.wav"]


def test_zip_in_the_order_of_the_prompts(service: Running) -> None:
    prompts = ["Dog barking!", "nothing", "дождь", "residual"]
    response = service.separate(encode(noise(5_000, 2), 22_050), prompts, output="both", format="flac")
    assert response.headers["content-type"] == "application/zip"
    manifest, files = unzip(response.content)
    assert list(files) == ["1_dog_barking.flac", "2_nothing.flac", "3_sound.flac", "4_residual.flac", "residual.flac"]
    assert [stem["prompt"] for stem in manifest["stems"]] == prompts
    assert [stem["file"] for stem in manifest["stems"]] == list(files)[:-1]
    assert [stem["presence"] for stem in manifest["stems"]] == [0.9, 0.0, 0.9, 0.9]
    assert manifest["residual"] == {"file": "residual.flac"}
    assert (manifest["sample_rate"], manifest["channels"], manifest["subtype"]) == (22_050, 2, "pcm16")
    assert response.headers["x-presence"] == "0.900, 0.000, 0.900, 0.900"


def test_a_sound_that_is_not_there_is_silence(service: Running) -> None:
    stem, _ = decode(service.separate(encode(noise(5_000)), "nothing").content)
    assert not stem.any()


def test_silence_stays_silence(service: Running) -> None:
    stem, _ = decode(service.separate(encode(np.zeros((2, 5_000), np.float32))).content)
    assert not stem.any()


@pytest.mark.parametrize("source", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "WAVEX", "RF64"])
def test_reads(service: Running, source: str) -> None:
    mixture = noise(20_000, 2)
    response = service.separate(encode(mixture, 44_100, source))
    assert response.status_code == 200, response.text
    assert decode(response.content)[0].shape == mixture.shape


def test_reads_opus(service: Running) -> None:
    response = service.separate(encode(noise(24_000), 48_000, "OGG", "OPUS"))
    assert decode(response.content)[0].shape == (1, 24_000)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW"])
def test_reads_wav_codecs(service: Running, subtype: str) -> None:
    assert service.separate(encode(noise(2_000), subtype=subtype)).status_code == 200


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW"])
def test_reads_aiff_codecs(service: Running, subtype: str) -> None:
    assert service.separate(encode(noise(2_000), format="AIFF", subtype=subtype)).status_code == 200


@pytest.mark.parametrize(("suffix", "codec"), [("m4a", "aac"), ("webm", "libopus")])
def test_reads_through_ffmpeg(service: Running, tmp_path: Path, suffix: str, codec: str) -> None:
    source, target = tmp_path / "mix.wav", tmp_path / f"mix.{suffix}"
    clock = np.arange(48_000) / 48_000
    mixture = 0.3 * np.sin(2 * np.pi * np.array([[440.0], [660.0]]) * clock).astype(np.float32)
    source.write_bytes(encode(mixture, 48_000))
    subprocess.run(
        [required("ffmpeg"), "-v", "error", "-i", source, "-c:a", codec, "-strict", "-2", target], check=True
    )
    response = service.separate(target.read_bytes())
    assert response.status_code == 200, response.text
    stem, rate = decode(response.content)
    assert (rate, len(stem)) == (48_000, 2)
    assert abs(stem.shape[1] - 48_000) < 2_500  # these containers round to a frame of their codec
    middle = stem[:, 12_000:36_000]
    assert np.allclose(middle.std(axis=1), service.network.gain * mixture.std(axis=1), rtol=0.1)
    spectrum = np.abs(np.fft.rfft(middle))  # of half a second: bins are 2 Hz apart
    assert spectrum.argmax(axis=1).tolist() == [220, 330]


def test_without_ffmpeg_its_kinds_are_refused(start) -> None:
    response = start(ffmpeg="no-such-program").separate(b"\0\0\0\x20ftypM4A " + bytes(100))
    assert response.status_code == 415
    assert "ffmpeg" in response.json()["detail"]


def test_broken_m4a(service: Running) -> None:
    required("ffmpeg")
    response = service.separate(b"\0\0\0\x20ftypM4A " + bytes(1_000))
    assert (response.status_code, response.json()["type"]) == (415, "/problems/corrupt-audio")


@pytest.mark.parametrize("name", FORMATS)
def test_writes(service: Running, name: str) -> None:
    response = service.separate(encode(noise(48_000, 2), 48_000), format=name)
    assert response.headers["content-type"] == FORMATS[name].media_type
    assert response.headers["content-disposition"] == f'attachment; filename="dog_barking.{name}"'
    assert int(response.headers["content-length"]) == len(response.content)
    assert soundfile.info(io.BytesIO(response.content)).format == name.upper()
    stem, rate = decode(response.content)
    assert (rate, stem.shape) == (48_000, (2, 48_000))


def test_mp3_of_a_high_rate_is_resampled(service: Running) -> None:
    stem, rate = decode(service.separate(encode(noise(96_000), 96_000), format="mp3").content)
    assert (rate, stem.shape) == (48_000, (1, 48_000))


@pytest.mark.parametrize(
    ("name", "subtype"), [("wav", "pcm16"), ("wav", "float32"), ("flac", "pcm24"), ("ogg", None), ("mp3", None)]
)
def test_the_same_request_gives_the_same_bytes(service: Running, name: str, subtype: str | None) -> None:
    sound = encode(noise(30_000, 2), 44_100)
    fields = {"format": name, **({"subtype": subtype} if subtype else {})}
    first = service.separate(sound, ["dog", "rain"], output="both", **fields)
    time.sleep(1.1)  # what writers take from the clock, they take in seconds
    assert service.separate(sound, ["dog", "rain"], output="both", **fields).content == first.content


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "audio/wav"),
        ("audio/*", "audio/wav"),
        ("audio/flac", "audio/flac"),
        ("audio/x-wav", "audio/wav"),
        ("audio/wav;q=0.2, audio/ogg;q=0.9, */*;q=0.1", "audio/ogg"),
        ("audio/wav;q=0, audio/*", "audio/flac"),
        ("text/html, audio/mp3", "audio/mpeg"),
        ("application/zip", "application/zip"),
    ],
)
def test_accept(service: Running, accept: str, media_type: str) -> None:
    assert service.separate(encode(noise(2_000)), accept=accept).headers["content-type"] == media_type


def test_format_field_goes_before_accept(service: Running) -> None:
    response = service.separate(encode(noise(2_000)), format="flac", accept="audio/ogg")
    assert response.headers["content-type"] == "audio/flac"


def test_headers(service: Running) -> None:
    response = service.client.post(
        "/v1/separate",
        files={"audio": ("mix.wav", encode(noise(16_000)))},
        data={"prompt": ["new sound", "new sound", "newer sound"]},
        headers={"X-Request-ID": "abc-1"},
    )
    assert response.headers["x-request-id"] == "abc-1"
    assert response.headers["x-model-version"] == "fake"
    assert response.headers["x-embedding-cache"] == "miss, hit-local, miss"
    assert response.headers["x-audio-duration"] == "1.000000"
    assert "server" not in response.headers
    stages = [stage.partition(";")[0] for stage in response.headers["server-timing"].split(", ")]
    assert stages == ["upload", "queue", "decode", "embed", "encode", "turn", "infer", "separate", "pack"]


def test_a_request_id_that_is_no_plain_word_is_replaced(service: Running) -> None:
    response = service.client.get("/healthz", headers={"X-Request-ID": "a b" * 30})
    assert response.headers["x-request-id"].isalnum()


def test_both_paths_are_one(service: Running) -> None:
    files, data = {"audio": ("mix.wav", encode(noise(3_000)))}, {"prompt": "dog"}
    first = service.client.post("/separate", files=files, data=data)
    assert service.client.post("/v1/separate", files=files, data=data).content == first.content


def test_a_failing_model_is_a_problem_and_the_next_request_is_fine(service: Running) -> None:
    sound = encode(noise(2_000))
    service.network.fail = RuntimeError("secret detail")
    response = service.separate(sound)
    assert (response.status_code, response.json()["type"]) == (500, "/problems/internal")
    assert "secret" not in response.text
    service.network.fail = None
    service.network.not_a_number = True
    assert service.separate(sound).json()["type"] == "/problems/model-error"
    service.network.not_a_number = False
    assert service.separate(sound).status_code == 200


def test_curl(service: Running, tmp_path: Path) -> None:
    """The line of the README, with the port that the test has."""
    (tmp_path / "mix.wav").write_bytes(encode(noise(44_100, 2), 44_100))
    command = [required("curl"), "-sS", "-F", "audio=@mix.wav", "-F", "prompt=dog barking"]
    subprocess.run([*command, f"{service.url}/separate", "-o", "dog.wav"], cwd=tmp_path, check=True, timeout=PATIENCE_S)
    assert soundfile.info(tmp_path / "dog.wav").frames == 44_100
