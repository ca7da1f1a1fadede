"""Every number that an operator may set, in one place: ``WINNOW_<NAME>`` in the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

import model

SHIPPED_BUNDLE = Path(model.__file__).parent / "default"

MIB = 1024 * 1024
GIB = 1024 * MIB


class Settings(BaseSettings):
    """Settings of the service and the command line, read once at the composition root.

    Limits that belong to the model (sample rates, window lengths) are not here: the bundle's manifest has them.
    """

    model_config = SettingsConfigDict(env_prefix="WINNOW_", frozen=True, extra="ignore", env_ignore_empty=True)

    host: Annotated[
        str, Field(description="Address to listen on; loopback unless asked, for there are no keys yet.")
    ] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535, description="TCP port; 0 lets the system choose.")] = 8_000
    model: Annotated[Path, Field(description="Bundle directory; the one that ships unless set.")] = SHIPPED_BUNDLE
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        Field(description="Where the network runs. `cuda` refuses to start without one; `auto` falls back to the CPU."),
    ] = "auto"
    threads: Annotated[
        int, Field(ge=0, le=256, description="Threads of one inference; 0 takes as many as this process may use.")
    ] = 0

    redis_url: Annotated[
        SecretStr | None,
        Field(description="Second tier of the text cache, redis://…; without it the first does alone."),
    ] = None
    redis_timeout_s: Annotated[
        float,
        Field(
            gt=0,
            le=5,
            description="Seconds Redis may take to connect or answer: longer than that, computing is faster.",
        ),
    ] = 0.05
    redis_failures: Annotated[
        int, Field(ge=1, le=1_000, description="Failures in a row after which Redis is left alone for a while.")
    ] = 5
    redis_pause_s: Annotated[
        float, Field(gt=0, le=600, description="Seconds Redis is left alone before one call tries it again.")
    ] = 5.0
    redis_keep_s: Annotated[
        int, Field(ge=1, description="Seconds an embedding stays in Redis; its key carries the text tower's hash.")
    ] = 30 * 86_400
    cache_entries: Annotated[
        int, Field(ge=0, le=1_000_000, description="Prompts kept in process; about 2 to 20 kB each.")
    ] = 1_024

    max_upload_bytes: Annotated[
        int, Field(ge=1, description="Bytes of a request's body; the default holds an hour of 48 kHz stereo, 16 bit.")
    ] = GIB
    max_audio_s: Annotated[
        float,
        Field(gt=0, description="Seconds of decoded audio; counted while decoding, for a small file may hold days."),
    ] = 3_600.0
    max_decoded_bytes: Annotated[
        int,
        Field(ge=MIB, description="Bytes of decoded audio as float32 on disk: length, rate and channels multiply."),
    ] = 4 * GIB
    max_channels: Annotated[
        int, Field(ge=1, le=8, description="Channels of a recording; FLAC and WAV here end at 8.")
    ] = 8
    max_prompts: Annotated[
        int, Field(ge=1, le=64, description="Prompts of one request; each costs a decoder pass.")
    ] = 8
    max_prompt_chars: Annotated[
        int,
        Field(ge=1, le=4_096, description="Characters of one prompt, after NFC; the text tower reads no more tokens."),
    ] = 256

    running: Annotated[
        int,
        Field(
            ge=1,
            le=64,
            description="Requests worked on at once; their windows take turns, so short ones are not stuck.",
        ),
    ] = 3
    waiting: Annotated[
        int,
        Field(ge=0, le=10_000, description="Requests that may wait for their turn; further ones are refused at once."),
    ] = 24
    ffmpeg: Annotated[
        str, Field(description="Program that decodes M4A and WebM; when it is not found, those formats are refused.")
    ] = "ffmpeg"
    ffmpeg_timeout_s: Annotated[float, Field(gt=0, le=3_600, description="Seconds ffmpeg may take for one file.")] = (
        120.0
    )
    log_level: Annotated[
        Literal["critical", "error", "warning", "info", "debug"], Field(description="Least level logged.")
    ] = "info"
