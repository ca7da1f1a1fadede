"""Everything that may be wrong with a request: each is a problem with its type, field and limit, never a 500."""

from __future__ import annotations

import json

import httpx
import numpy as np
import pytest

from tests.service.conftest import Running
from tests.service.sounds import encode, noise, raw_wav, silence

GOOD = encode(noise(1_600))


def problem(response: httpx.Response, status: int, kind: str, field: str | None = None) -> dict:
    """Check that the response is a whole problem, and return it."""
    body = json.loads(response.content)
    assert (response.status_code, body.get("type")) == (status, f"/problems/{kind}"), body
    assert response.headers["content-type"] == "application/problem+json"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert body["instance"] == response.headers["x-request-id"]
    assert body.get("field") == field
    assert "Traceback" not in response.text
    assert (field is None) == ("limit" not in body)
    return body


def post(service: Running, files: list, data: dict | None = None) -> httpx.Response:
    return service.client.post("/separate", files=files, data={"prompt": "dog"} if data is None else data)


def test_no_file(service: Running) -> None:
    response = service.client.post("/separate", files=[("prompt", (None, "dog"))])
    problem(response, 422, "missing-field", "audio")


def test_no_body_at_all(service: Running) -> None:
    problem(service.client.post("/separate"), 422, "missing-field", "audio")


def test_two_files(service: Running) -> None:
    response = post(service, [("audio", ("a.wav", GOOD)), ("audio", ("b.wav", GOOD))])
    assert problem(response, 400, "too-many-files", "audio")["limit"] == 1


def test_many_files(service: Running) -> None:
    problem(post(service, [("audio", ("a.wav", GOOD))] * 5), 400, "malformed-request")


def test_audio_as_text(service: Running) -> None:
    response = service.client.post("/separate", files=[("audio", (None, "mix.wav")), ("prompt", (None, "dog"))])
    problem(response, 422, "invalid-field", "audio")


def test_prompt_as_file(service: Running) -> None:
    response = post(service, [("audio", ("a.wav", GOOD)), ("prompt", ("p.txt", b"dog"))], {})
    problem(response, 422, "invalid-field", "prompt")


def test_not_a_form(service: Running) -> None:
    response = service.client.post("/separate", json={"prompt": "dog"})
    problem(response, 415, "not-multipart", "Content-Type")
    problem(service.client.post("/separate", data={"prompt": "dog"}), 415, "not-multipart", "Content-Type")


@pytest.mark.parametrize(
    "body", [b"", b"--x\r\n", b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--\r\n", b"nonsense", b"\0" * 1000]
)
def test_broken_form(service: Running, body: bytes) -> None:
    response = service.client.post(
        "/separate", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert response.status_code in (400, 422)
    assert response.headers["content-type"] == "application/problem+json"


def test_form_without_boundary(service: Running) -> None:
    response = service.client.post("/separate", content=b"x", headers={"Content-Type": "multipart/form-data"})
    problem(response, 400, "malformed-request")


AUDIO = {
    "empty file": (b"", 422, "empty-audio"),
    "text named .wav": (b"this is not a sound, whatever its name says\n" * 100, 415, "unsupported-audio"),
    "text in UTF-16": ("this is not a sound".encode("utf-16"), 415, "unsupported-audio"),
    "RIFF and nothing": (b"RIFF\x24\0\0\0WAVE", 422, "truncated-audio"),
    "WAV cut in its samples": (encode(noise(16_000))[:9_000], 422, "truncated-audio"),
    "WAV cut in its header": (encode(noise(16_000))[:30], 422, "truncated-audio"),
    "AIFF cut in its samples": (encode(noise(16_000), format="AIFF")[:9_000], 422, "truncated-audio"),
    "WAV of zero samples": (raw_wav(1, 16_000, b""), 422, "empty-audio"),
    "FLAC magic, then text": (b"fLaC" + b"not at all " * 50, 415, "unsupported-audio"),
    "Ogg magic, then text": (b"OggS" + b"not at all " * 50, 415, "unsupported-audio"),
    "ID3 magic, then text": (b"ID3\x04\0\0\0\0\0\0" + b"not at all " * 50, 415, "unsupported-audio"),
    "ADPCM in WAV": (raw_wav(1, 16_000, bytes(1_000), codec=0x11), 415, "unsupported-audio"),
    "ADPCM in AIFF": (encode(noise(1_600), format="AIFF", subtype="IMA_ADPCM"), 415, "unsupported-audio"),
    "9 channels": (raw_wav(9, 16_000, bytes(18 * 160)), 422, "too-many-channels"),
    "255 channels": (raw_wav(255, 16_000, bytes(510 * 160)), 422, "too-many-channels"),
    "4 kHz": (encode(noise(400), 4_000), 422, "sample-rate"),
    "384 kHz": (encode(noise(400), 384_000), 422, "sample-rate"),
    "NaN": (encode(np.full((1, 1_600), np.nan, np.float32), subtype="FLOAT"), 422, "not-finite"),
    "infinity": (encode(np.full((1, 1_600), -np.inf, np.float32), subtype="FLOAT"), 422, "not-finite"),
    "1e30": (encode(np.full((1, 1_600), 1e30, np.float32), subtype="FLOAT"), 422, "not-finite"),
}


@pytest.mark.parametrize("name", AUDIO)
def test_bad_audio(service: Running, name: str) -> None:
    data, status, kind = AUDIO[name]
    response = service.separate(data)
    problem(response, status, kind, "audio")


def test_flac_cut_in_its_samples(service: Running) -> None:
    """The decoder either stops with an error or gives fewer samples than stated: both are refused."""
    response = service.separate(encode(noise(160_000), format="FLAC")[:100_000])
    if response.status_code == 415:
        problem(response, 415, "corrupt-audio", "audio")
    else:
        problem(response, 422, "truncated-audio", "audio")


def test_truncated_wav_says_how_much_is_missing(service: Running) -> None:
    body = problem(service.separate(encode(noise(16_000))[: 44 + 9_000]), 422, "truncated-audio", "audio")
    assert body["limit"] == 32_000
    assert "32000" in body["detail"]
    assert "9000" in body["detail"]


def test_a_wav_of_unknown_length_is_read_to_its_end(service: Running) -> None:
    body = np.zeros(16_000, "<i2").tobytes()
    assert service.separate(raw_wav(1, 16_000, body, stated=0xFFFF_FFFF)).status_code == 200


def test_two_hours(service: Running) -> None:
    data = encode(silence(2 * 3_600 * 8_000), 8_000, "FLAC")
    assert problem(service.separate(data), 413, "audio-too-long", "audio")["limit"] == 3_600


def test_two_hours_whose_header_does_not_say_so(service: Running, start) -> None:
    """Frames are counted while decoding: a FLAC header may leave its length open."""
    short = start(max_audio_s=2.0)
    data = bytearray(encode(silence(3 * 8_000), 8_000, "FLAC"))
    data[21] &= 0xF0  # the 36 bits of the number of samples
    data[22:26] = bytes(4)
    problem(short.separate(bytes(data)), 413, "audio-too-long", "audio")
    assert service.separate(bytes(data)).status_code == 200


def test_ogg_too_long_is_counted(start) -> None:
    short = start(max_audio_s=1.0)
    data = encode(silence(32_000), 16_000, "OGG", "VORBIS")
    problem(short.separate(data), 413, "audio-too-long", "audio")


def test_51_mb_of_silence_in_a_small_flac_counts_by_its_length(start) -> None:
    data = encode(silence(51_000_000 // 4, 2), 48_000, "FLAC")
    assert len(data) < 200_000
    strict = start(max_audio_s=60)
    problem(strict.separate(data), 413, "audio-too-long", "audio")


def test_decoded_bytes_are_limited(start) -> None:
    small = start(max_decoded_bytes=1024 * 1024)
    body = problem(small.separate(encode(silence(270_000))), 413, "audio-too-long", "audio")
    assert body["limit"] == 1024 * 1024


def test_upload_too_large_by_its_stated_length(start) -> None:
    small = start(max_upload_bytes=10_000)
    body = problem(small.separate(bytes(2_000_000)), 413, "upload-too-large", "audio")
    assert body["limit"] == 10_000 + 1024 * 1024


def test_upload_too_large_counted_as_it_comes(start) -> None:
    small = start(max_upload_bytes=10_000)

    def body():
        yield b'--x\r\nContent-Disposition: form-data; name="audio"; filename="a.wav"\r\n\r\n'
        for _ in range(40):
            yield bytes(65_536)

    response = small.client.post(
        "/separate", content=body(), headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    problem(response, 413, "upload-too-large", "audio")


PROMPTS = {
    "empty": ("", 1),
    "space": ("   ", 1),
    "300 characters": ("a" * 300, 256),
    "a megabyte": ("a" * 60_000, 256),
    "NUL": ("dog\0barking", "printable characters"),
    "escape": ("dog \x1b[31m barking", "printable characters"),
    "new line": ("dog\nbarking", "printable characters"),
    "reversal": ("dog \u202e barking", "printable characters"),
    "nine": (["dog"] * 9, 8),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_bad_prompt(service: Running, name: str) -> None:
    prompt, limit = PROMPTS[name]
    assert problem(service.separate(GOOD, prompt), 422, "invalid-field", "prompt")["limit"] == limit


def test_no_prompt(service: Running) -> None:
    problem(post(service, [("audio", ("a.wav", GOOD))], {}), 422, "missing-field", "prompt")


@pytest.mark.parametrize("field", ["format", "subtype", "output"])
def test_unknown_value(service: Running, field: str) -> None:
    body = problem(service.separate(GOOD, **{field: "nonsense"}), 422, "invalid-field", field)
    assert isinstance(body["limit"], list)
    assert "nonsense" not in json.dumps(body)


def test_unknown_field(service: Running) -> None:
    body = problem(service.separate(GOOD, overlap="3"), 422, "invalid-field", "overlap")
    assert "prompt" in body["limit"]


def test_unknown_field_with_a_name_not_to_be_shown(service: Running) -> None:
    problem(service.separate(GOOD, **{"<script>": "3"}), 422, "invalid-field", "?")


@pytest.mark.parametrize("negative", ["", " ", "a" * 257, "ra\tin", ["rain"] * 9])
def test_a_negative_is_checked_as_a_prompt_is(service: Running, negative: str | list[str]) -> None:
    response = post(service, [("audio", ("a.wav", GOOD))], {"prompt": "dog", "negative": negative})
    problem(response, 422, "invalid-field", "negative")


def test_repeated_single_field(service: Running) -> None:
    response = post(service, [("audio", ("a.wav", GOOD))], {"prompt": "dog", "format": ["wav", "flac"]})
    problem(response, 422, "invalid-field", "format")


@pytest.mark.parametrize(("format", "subtype"), [("flac", "float32"), ("ogg", "pcm16"), ("mp3", "pcm24")])
def test_subtype_that_the_format_does_not_carry(service: Running, format: str, subtype: str) -> None:
    problem(service.separate(GOOD, format=format, subtype=subtype), 422, "invalid-field", "subtype")


def test_more_channels_than_mp3_has(service: Running) -> None:
    response = service.separate(encode(noise(1_600, 3)), format="mp3")
    assert problem(response, 422, "invalid-field", "format")["limit"] == 2


def test_nothing_acceptable(service: Running) -> None:
    problem(service.separate(GOOD, accept="application/json"), 406, "not-acceptable", "Accept")
    problem(service.separate(GOOD, accept="audio/wav;q=0"), 406, "not-acceptable", "Accept")


def test_path_and_method(service: Running) -> None:
    problem(service.client.get("/nothing"), 404, "not-found")
    response = service.client.get("/separate")
    problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "POST"


def test_every_refusal_leaves_the_service_well(service: Running) -> None:
    for data, _, _ in AUDIO.values():
        service.separate(data)
    assert service.separate(GOOD).status_code == 200
