from __future__ import annotations

import pytest
from pydantic import ValidationError

from service.settings import Settings


def test_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_PORT", "9000")
    monkeypatch.setenv("WINNOW_MAX_AUDIO_S", "60")
    monkeypatch.setenv("WINNOW_REDIS_URL", "")
    settings = Settings()
    assert (settings.port, settings.max_audio_s, settings.redis_url) == (9_000, 60, None)


@pytest.mark.parametrize(("name", "value"), [("PORT", "70000"), ("DEVICE", "tpu"), ("MAX_CHANNELS", "9")])
def test_out_of_bounds(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"WINNOW_{name}", value)
    with pytest.raises(ValidationError):
        Settings()


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description and field.description.endswith(".") for field in Settings.model_fields.values())


def test_the_default_upload_holds_an_hour_of_stereo() -> None:
    settings = Settings()
    assert settings.max_upload_bytes > 3_600 * 48_000 * 2 * 2
    assert settings.max_decoded_bytes > 3_600 * 48_000 * 2 * 4
