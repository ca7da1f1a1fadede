"""Every number that an operator may set, in one place: ``WINNOW_<NAME>`` in the environment."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

import model
from service.quota import Quota

SHIPPED_BUNDLE = Path(model.__file__).parent / "default"

MIB = 1024 * 1024
GIB = 1024 * MIB


class Settings(BaseSettings):
    """Settings of the service and the command line, read once at the composition root.

    Limits that belong to the model (sample rates, window lengths) are not here: the bundle's manifest has them.
    """

    model_config = SettingsConfigDict(env_prefix="WINNOW_", frozen=True, extra="ignore", env_ignore_empty=True)

    host: Annotated[
        str, Field(description="Address to listen on; beyond loopback only with keys, or when told so.")
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
    engine: Annotated[
        Literal["local", "ray"],
        Field(description="Where windows run: in this process, or on replicas of Ray Serve (extra `ray`)."),
    ] = "local"
    ray_address: Annotated[
        str | None, Field(description="Of a Ray cluster, host:port; without it one of its own on this machine.")
    ] = None
    ray_min_replicas: Annotated[int, Field(ge=1, le=256, description="Replicas that are kept when nobody asks.")] = 1
    ray_max_replicas: Annotated[
        int, Field(ge=1, le=256, description="Replicas at most; Ray adds them as windows wait.")
    ] = 2
    max_batch: Annotated[
        int,
        Field(ge=0, le=16, description="Windows inferred at once; 0 is 8 on CUDA and 1 on a CPU, which gains nothing."),
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
    vocabulary: Annotated[
        Path | None,
        Field(
            description="File of phrases, one a line, that suggestions are heard for; the one that ships unless set."
        ),
    ] = None
    max_vocabulary: Annotated[
        int, Field(ge=1, le=120, description="Phrases that a request for suggestions may bring; each is embedded.")
    ] = 100
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
    deadline_s: Annotated[
        float,
        Field(
            gt=0,
            le=86_400,
            description="Seconds a caller waits from the end of its upload; X-Request-Timeout may lower it.",
        ),
    ] = 120.0

    spool: Annotated[
        Path | None,
        Field(description="Folder of the jobs' files; with Redis and one folder for all, replicas share their jobs."),
    ] = None
    job_workers: Annotated[
        int, Field(ge=0, le=64, description="Jobs worked on at once; with 0 a replica leaves them to the others.")
    ] = 1
    job_weight: Annotated[
        float, Field(gt=0, le=1, description="Share of the engine of a job beside a request that somebody waits for.")
    ] = 0.25
    job_lease_s: Annotated[
        float,
        Field(ge=0.2, le=3_600, description="Seconds after which the jobs of a silent replica are another's."),
    ] = 15.0
    job_keep_s: Annotated[
        float, Field(gt=0, le=31 * 86_400, description="Seconds that results are kept after a job has ended.")
    ] = 3_600.0
    job_remember_s: Annotated[
        float, Field(gt=0, le=31 * 86_400, description="Seconds more in which its results are 410 and not 404.")
    ] = 86_400.0
    max_job_audio_s: Annotated[
        float, Field(gt=0, description="Seconds of decoded audio of a job, which nobody holds a connection for.")
    ] = 7_200.0
    max_jobs_waiting: Annotated[
        int, Field(ge=0, le=100_000, description="Jobs that may wait; further ones are refused before they are read.")
    ] = 100
    max_spool_bytes: Annotated[
        int, Field(ge=MIB, description="Bytes of all jobs' files, uploads and results, in all replicas together.")
    ] = 32 * GIB

    api_keys_file: Annotated[
        Path | None,
        Field(description="File of `id sha256-hex [quota]` lines, read again when it changes; without it, no keys."),
    ] = None
    allow_anonymous: Annotated[
        bool, Field(description="Whether to listen beyond loopback without keys: only where something else guards.")
    ] = False
    key_quota: Annotated[
        str, Field(description="Of a key: requests a minute/in a second/at once, or `none`; a key's line may differ.")
    ] = "60/10/4"
    address_quota: Annotated[
        str,
        Field(description="Of a client address where there are no keys; `none`, for behind a proxy all have one."),
    ] = "none"
    trusted_proxies: Annotated[
        str, Field(description="Addresses, by commas, whose X-Forwarded-For is believed; nobody's unless set.")
    ] = ""
    cors_origins: Annotated[
        str, Field(description="Origins, by commas, whose pages may call from a browser; none unless set, never `*`.")
    ] = ""

    head_s: Annotated[
        float, Field(gt=0, le=600, description="Seconds in which a request's line and headers must have come.")
    ] = 15.0
    stall_s: Annotated[
        float, Field(gt=0, le=600, description="Seconds without a byte of a body, up or down, after which it is cut.")
    ] = 15.0
    min_rate: Annotated[
        int,
        Field(
            ge=1,
            description="Bytes a second that a body must come or go at, on average; slower ones make place for others.",
        ),
    ] = 4_096
    pre_stop_s: Annotated[
        float,
        Field(ge=0, le=600, description="Seconds between SIGTERM and the closed port, so that a proxy learns of it."),
    ] = 0.0
    grace_s: Annotated[
        float,
        Field(ge=0, le=86_400, description="Seconds that requests in flight then have; more than the deadline."),
    ] = 130.0
    ffmpeg: Annotated[
        str, Field(description="Program that decodes M4A and WebM; when it is not found, those formats are refused.")
    ] = "ffmpeg"
    child_memory_bytes: Annotated[
        int,
        Field(ge=64 * MIB, description="Memory that the process which decodes or encodes one file may take."),
    ] = 512 * MIB
    child_cpu_s: Annotated[
        int, Field(ge=1, le=86_400, description="Seconds of processor time it may take; more where a stem is long.")
    ] = 120
    child_wall_s: Annotated[
        float, Field(gt=0, le=86_400, description="Seconds it may take to decode, or to take one block to encode.")
    ] = 180.0
    min_free_bytes: Annotated[
        int, Field(ge=0, description="Bytes free in the temporary folder below which requests are refused.")
    ] = 256 * MIB
    log_level: Annotated[
        Literal["critical", "error", "warning", "info", "debug"], Field(description="Least level logged.")
    ] = "info"
    log_format: Annotated[
        Literal["json", "text"], Field(description="Form of the log's lines: objects for programs, text for people.")
    ] = "text"
    log_prompts: Annotated[
        bool, Field(description="Whether a request's line has its prompts in words; else a short hash of each.")
    ] = False
    metrics_port: Annotated[
        int | None,
        Field(
            ge=0,
            le=65_535,
            description="Port of /metrics alone, 0 for any; unset, the service's own port has it for those next to it.",
        ),
    ] = None
    metrics_host: Annotated[
        str, Field(description="Address of that port; it asks for no key, so no wider than scrapers need.")
    ] = "127.0.0.1"
    otlp_endpoint: Annotated[
        str | None,
        Field(
            pattern=r"^https?://",
            description="OTLP collector for spans, http://host:4318; unset, none are made. Needs the extra `otel`.",
        ),
    ] = None

    @field_validator("key_quota", "address_quota")
    @classmethod
    def _is_a_quota(cls, text: str) -> str:
        Quota.parse(text)
        return text

    @field_validator("cors_origins")
    @classmethod
    def _is_a_list_of_origins(cls, text: str) -> str:
        for origin in listed(text):
            if not re.fullmatch(r"https?://[^/*\s]+", origin):
                raise ValueError("origins are https://host[:port], by commas; never *")
        return text


def listed(text: str) -> list[str]:
    """The items of a setting that is written with commas."""
    return [item.strip() for item in text.split(",") if item.strip()]
