"""What an answer can be written as, and which of it the caller asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

from service.errors import InvalidField, NotAcceptable

ZIP_TYPE = "application/zip"
PCM_BITS = {"pcm16": 16, "pcm24": 24}


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        name: value of the form field, and the file's suffix.
        media_type: of the answer.
        aliases: other media types that name it in an Accept header.
        major: libsndfile's name.
        subtypes: the contract's subtypes it carries, with libsndfile's name of each; empty when it is lossy.
        lossy_subtype: libsndfile's name of its codec, when it is lossy.
        rates: sample rates in hertz it can carry; empty when any.
        max_channels: channels it can carry.
    """

    name: str
    media_type: str
    aliases: tuple[str, ...]
    major: str
    subtypes: dict[str, str] = field(default_factory=dict)
    lossy_subtype: str = ""
    rates: tuple[int, ...] = ()
    max_channels: int = 8

    def carried_rate(self, sample_rate: int) -> int:
        """Sample rate in hertz at which audio of ``sample_rate`` is written: its own, or else the next that fits."""
        if not self.rates or sample_rate in self.rates:
            return sample_rate
        return min((rate for rate in self.rates if rate >= sample_rate), default=max(self.rates))


FORMATS = {
    item.name: item
    for item in (
        Format(
            "wav",
            "audio/wav",
            ("audio/x-wav", "audio/wave", "audio/vnd.wave"),
            "WAV",
            {"pcm16": "PCM_16", "pcm24": "PCM_24", "float32": "FLOAT"},
        ),
        Format("flac", "audio/flac", ("audio/x-flac",), "FLAC", {"pcm16": "PCM_16", "pcm24": "PCM_24"}),
        Format("ogg", "audio/ogg", ("audio/vorbis", "application/ogg"), "OGG", lossy_subtype="VORBIS"),
        Format(
            "mp3",
            "audio/mpeg",
            ("audio/mp3", "audio/x-mp3"),
            "MP3",
            lossy_subtype="MPEG_LAYER_III",
            rates=(8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
            max_channels=2,
        ),
    )
}
DEFAULT_FORMAT = FORMATS["wav"]
SUBTYPES = ("pcm16", "pcm24", "float32")


@dataclass(frozen=True)
class Encoding:
    """A format and, in lossless ones, what its samples are."""

    format: Format
    subtype: str | None

    @property
    def pcm_bits(self) -> int | None:
        """Bits of an integer sample; None when samples are written from floats."""
        return PCM_BITS.get(self.subtype) if self.subtype else None

    def check_carries(self, n_channels: int) -> None:
        """Raise InvalidField when the format cannot carry ``n_channels``."""
        if n_channels > self.format.max_channels:
            raise InvalidField(
                f"{self.format.name} carries {self.format.max_channels} channels, the recording has {n_channels}",
                field="format",
                limit=self.format.max_channels,
            )


def choose_encoding(format_name: str | None, subtype: str | None, accept: str | None) -> tuple[Encoding, bool]:
    """Decide what to write: the ``format`` field, else the Accept header, else WAV.

    Returns:
        The encoding, and whether a single stem is wanted in a zip too (Accept names a zip and no audio).

    Raises:
        InvalidField: unknown format or subtype, or a format that does not carry the subtype.
        NotAcceptable: nothing here is in the Accept header.
    """
    zip_wanted = False
    if format_name is None:
        chosen, zip_wanted = negotiate(accept)
    elif format_name in FORMATS:
        chosen = FORMATS[format_name]
    else:
        raise InvalidField("unknown format", field="format", limit=list(FORMATS))
    if subtype is None:
        return Encoding(chosen, "pcm16" if chosen.subtypes else None), zip_wanted
    if subtype not in SUBTYPES:
        raise InvalidField("unknown subtype", field="subtype", limit=list(SUBTYPES))
    if subtype not in chosen.subtypes:
        carries = ", ".join(chosen.subtypes) or "none, for it is lossy"
        raise InvalidField(
            f"{chosen.name} does not carry {subtype}; subtypes it carries: {carries}",
            field="subtype",
            limit=list(chosen.subtypes),
        )
    return Encoding(chosen, subtype), zip_wanted


def negotiate(accept: str | None) -> tuple[Format, bool]:
    """Choose by an Accept header (RFC 9110, section 12.5.1).

    The most specific range that matches a type gives its quality; the highest quality wins, then the order of FORMATS.
    """
    if accept is None or not accept.strip():
        return DEFAULT_FORMAT, False
    ranges = _ranges(accept)
    best = max(FORMATS.values(), key=lambda item: _quality(ranges, item))
    if _quality(ranges, best) > 0:
        return best, False
    if _range_quality(ranges, ZIP_TYPE) > 0:
        return DEFAULT_FORMAT, True
    offered = [item.media_type for item in FORMATS.values()] + [ZIP_TYPE]
    raise NotAcceptable("nothing in the Accept header can be sent", field="Accept", limit=offered)


def _quality(ranges: dict[str, float], item: Format) -> float:
    """Quality of a format: of its names where the header has any, else of the ranges that hold its media type."""
    named = [ranges[name] for name in (item.media_type, *item.aliases) if name in ranges]
    return max(named) if named else _range_quality(ranges, item.media_type)


def _range_quality(ranges: dict[str, float], media_type: str) -> float:
    for candidate in (media_type, media_type.partition("/")[0] + "/*", "*/*"):
        if candidate in ranges:
            return ranges[candidate]
    return 0.0


def _ranges(accept: str) -> dict[str, float]:
    """Media ranges with their quality; a parameter other than q is ignored, a q that is no number counts as 0."""
    ranges: dict[str, float] = {}
    for part in accept.split(","):
        media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if not media_range:
            continue
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                try:
                    quality = min(max(float(value), 0.0), 1.0)
                except ValueError:
                    quality = 0.0
        ranges[media_range] = max(quality, ranges.get(media_range, 0.0))
    return ranges
