"""What the OpenAPI document says beyond what the framework can read off: the form, the answers, an example of each."""

from __future__ import annotations

from typing import Any

from service import errors
from service.ask import OUTPUTS
from service.formats import FORMATS, SUBTYPES, ZIP_TYPE
from service.problems import PROBLEM_SCHEMA, openapi_responses
from service.settings import Settings
from service.suggest import DEFAULT_LIMIT, MOST
from service.upload import FORM_TYPE

_BINARY = {"type": "string", "format": "binary"}
# What any path behind the gate may answer.
GATE: tuple[type[errors.WinnowError], ...] = (errors.Unauthorized, errors.HeadTooLarge)


def _default(setting: str) -> Any:
    """What a setting is unless the operator says otherwise."""
    return Settings.model_fields[setting].default


# No control characters, none that turn the direction of writing, and one that can be seen.
_UNSEEN = r"\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069"
_PHRASE = {
    "type": "string",
    "minLength": 1,
    "maxLength": _default("max_prompt_chars"),
    "pattern": rf"^[^{_UNSEEN}]*[^{_UNSEEN}\s][^{_UNSEEN}]*$",
}
SEPARATE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            FORM_TYPE: {
                "schema": {
                    "type": "object",
                    "required": ["audio", "prompt"],
                    "additionalProperties": False,
                    "not": {
                        "required": ["exhaustive"],
                        "properties": {
                            "exhaustive": {"const": True},
                            "prompt": {"maxItems": 1},
                            "negative": {"maxItems": 0},
                        },
                    },
                    "properties": {
                        "audio": {
                            **_BINARY,
                            "description": "One recording: WAV, FLAC, OGG (Vorbis, Opus), MP3 or AIFF; with ffmpeg "
                            "present also M4A and WebM. 8 to 192 kHz, up to 8 channels; /v1/info has the limits.",
                        },
                        "prompt": {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": _default("max_prompts"),
                            "items": _PHRASE,
                            "description": "A sound, in words. Repeat the field for more stems.",
                        },
                        "negative": {
                            "type": "array",
                            "maxItems": _default("max_prompts"),
                            "items": _PHRASE,
                            "description": "A sound that must not be in any stem, in words. May be repeated.",
                        },
                        "exhaustive": {
                            "type": "boolean",
                            "default": False,
                            "description": "Whether prompts and negatives, two at least, name every sound there is: "
                            "then the recording is shared out among them.",
                        },
                        "output": {"type": "string", "enum": list(OUTPUTS), "default": OUTPUTS[0]},
                        "format": {
                            "type": "string",
                            "enum": list(FORMATS),
                            "description": "Without it the Accept header decides, and without that it is wav.",
                        },
                        "subtype": {
                            "type": "string",
                            "enum": list(SUBTYPES),
                            "description": "Of lossless formats alone; pcm16 unless asked. FLAC has no float32.",
                        },
                    },
                },
                "encoding": {name: {"style": "form", "explode": True} for name in ("prompt", "negative")},
                "example": {"audio": "(the file's bytes)", "prompt": ["dog barking"], "output": "target"},
            }
        },
    },
}


SUGGEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            FORM_TYPE: {
                "schema": {
                    "type": "object",
                    "required": ["audio"],
                    "additionalProperties": False,
                    "properties": {
                        "audio": {**_BINARY, "description": "One recording, as for a separation."},
                        "vocabulary": {
                            "type": "array",
                            "maxItems": _default("max_vocabulary"),
                            "items": _PHRASE,
                            "description": "Phrases to hear for. Without any, a list of everyday sounds.",
                        },
                        "limit": {"type": "integer", "minimum": 1, "maximum": MOST, "default": DEFAULT_LIMIT},
                    },
                },
                "encoding": {"vocabulary": {"style": "form", "explode": True}},
                "example": {"audio": "(the file's bytes)", "limit": 5},
            }
        },
    },
}


def _header(description: str, example: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}, "example": example}


# What can stand in the place of a separation's sounds.
SEPARATE_KINDS: tuple[type[errors.WinnowError], ...] = (
    errors.MalformedRequest,
    errors.TooManyFiles,
    *GATE,
    errors.RequestStalled,
    errors.TooLongToWait,
    errors.NotAcceptable,
    errors.UploadTooLarge,
    errors.AudioTooLong,
    errors.NotMultipart,
    errors.UnsupportedAudio,
    errors.CorruptAudio,
    errors.MissingField,
    errors.InvalidField,
    errors.EmptyAudio,
    errors.TruncatedAudio,
    errors.NotFinite,
    errors.RateOutOfRange,
    errors.TooManyChannels,
    errors.ModelError,
    errors.ChildError,
    errors.QuotaExceeded,
    errors.Draining,
    errors.Busy,
    errors.NotReady,
    errors.EngineStuck,
    errors.StorageFull,
    errors.DeadlinePassed,
)


def separate_responses(*more: type[errors.WinnowError]) -> dict[int | str, dict[str, Any]]:
    """The answers of a separation: the sounds, and every problem that can stand in their place, ``more`` among them."""
    content = {
        item.media_type: {"schema": _BINARY, "example": f"(the bytes of dog_barking.{item.name})"}
        for item in FORMATS.values()
    }
    content[ZIP_TYPE] = {
        "schema": _BINARY,
        "example": "(the bytes of a zip: manifest.json, 1_dog_barking.wav, 2_rain.wav, residual.wav)",
    }
    success = {
        "description": "The sound, or a zip of several with manifest.json",
        "content": content,
        "headers": {
            "X-Request-ID": _header("the caller's, or a new one", "4f1c9a7e2b"),
            "Server-Timing": _header("milliseconds by stage", "upload;dur=3.1, decode;dur=8.2, separate;dur=201.0"),
            "X-Model-Version": _header("of the bundle", "0f3a1b2c4d5e"),
            "X-Embedding-Cache": _header(
                "for each prompt, then each negative: hit-local, hit-redis or miss", "hit-local, miss"
            ),
            "X-Presence": _header("for each prompt: the probability that its sound is there, 0 to 1", "0.931, 0.020"),
            "X-Audio-Duration": _header("seconds", "10.000000"),
        },
    }
    return {200: success, **openapi_responses(*SEPARATE_KINDS, *more)}


def json_responses(example: dict[str, Any], *kinds: type[errors.WinnowError]) -> dict[int | str, dict[str, Any]]:
    """The answers of a path that says something in JSON, and the problems that can stand in their place."""
    success = {
        "description": "",
        "content": {"application/json": {"schema": {"type": "object"}, "example": example}},
    }
    return {200: success, **openapi_responses(*kinds)}


def suggest_responses() -> dict[int | str, dict[str, Any]]:
    """The answers of a request for suggestions: what it reads goes wrong as for a separation, what it says is JSON."""
    problems = {status: answer for status, answer in separate_responses().items() if status not in (200, 406)}
    return {**json_responses(SUGGESTIONS), **problems}


def add_schemas(document: dict[str, Any], **schemas: dict[str, Any]) -> dict[str, Any]:
    """Put in the schemas that the responses refer to, ``schemas`` among them."""
    document.setdefault("components", {}).setdefault("schemas", {}).update({"Problem": PROBLEM_SCHEMA, **schemas})
    return document


HEALTH = {"status": "alive"}
READY = {"status": "ready"}
SUGGESTIONS = {
    "model_version": "0f3a1b2c4d5e",
    "presence": "calibrated",
    "duration_s": 10.0,
    "suggestions": [
        {"phrase": "dog barking", "probability": 0.942},
        {"phrase": "rain falling", "probability": 0.713},
    ],
}
INFO = {
    "model": "winnow-base",
    "model_version": "0f3a1b2c4d5e",
    "provider": "CPUExecutionProvider",
    "engine": "local",
    "jobs": "volatile",
    "cache": {"entries": 3, "max_entries": 1024, "redis": "closed"},
    "limits": {"max_audio_s": 3600.0, "max_channels": 8, "max_prompts": 8},
}
MODELS = {"models": [{"name": "winnow-base", "version": "0f3a1b2c4d5e"}]}
