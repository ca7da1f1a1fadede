"""The command line: ``winnow serve``, ``separate``, ``suggest``, ``bench``, ``key``, ``doctor``."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import zipfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

# Nothing of numpy may be imported before main() has set this, so the parts are imported where they are used.
_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Settings are the ``WINNOW_`` variables of the environment."""
    # The matrices outside the network are small: BLAS threads wait for each other longer than they work, and on cores
    # that others use too, 40 times longer (measured). The network's threads are ONNX Runtime's own.
    for name in _ONE_THREAD:
        os.environ.setdefault(name, "1")
    from pydantic import ValidationError

    from service.errors import WinnowError

    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except WinnowError as error:
        print(f"winnow: {error.detail}", file=sys.stderr)
    except ValidationError as error:
        for item in error.errors(include_url=False, include_input=False):
            print(f"winnow: WINNOW_{'_'.join(map(str, item['loc'])).upper()}: {item['msg']}", file=sys.stderr)
    except OSError as error:
        print(f"winnow: {error.strerror or error}: {error.filename or ''}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="winnow", description="Take a recording and a phrase; get that sound alone.")
    commands = parser.add_subparsers(required=True, metavar="command")

    serve = commands.add_parser("serve", help="start the HTTP service")
    serve.add_argument("--host", help="address to listen on (WINNOW_HOST)")
    serve.add_argument("--port", type=int, help="TCP port, 0 for any (WINNOW_PORT)")
    serve.add_argument("--workers", type=int, default=1, help="processes on this port, for many cores (default: 1)")
    serve.add_argument("--fd", type=int, help=argparse.SUPPRESS)  # a port that is open already, from Workers
    serve.set_defaults(run=_serve)

    separate = commands.add_parser("separate", help="separate a file, without a server")
    separate.add_argument("audio", type=Path, help="the recording")
    separate.add_argument("prompt", nargs="+", help="a sound, in words; several for several stems")
    separate.add_argument(
        "-o", "--out", type=Path, help="file to write; with several stems a .zip or a folder (default: from the prompt)"
    )
    separate.add_argument(
        "--negative",
        action="append",
        default=[],
        metavar="SOUND",
        help="a sound to lower in every stem; may be repeated",
    )
    separate.add_argument(
        "--exhaustive", action="store_true", help="these are all the sounds that there are: share the recording out"
    )
    separate.add_argument("--output", default="target", choices=("target", "residual", "both"))
    separate.add_argument("--format", help="wav, flac, ogg or mp3 (default: the suffix of --out, else wav)")
    separate.add_argument("--subtype", help="pcm16, pcm24 or float32")
    separate.set_defaults(run=_separate)

    suggest = commands.add_parser("suggest", help="say which sounds are heard in a file, without a server")
    suggest.add_argument("audio", type=Path, help="the recording")
    suggest.add_argument(
        "--vocabulary", action="append", default=[], metavar="SOUND", help="hear for this phrase; may be repeated"
    )
    suggest.add_argument("--limit", default="5", help="how many to name (default: 5)")
    suggest.set_defaults(run=_suggest)

    bench = commands.add_parser("bench", help="measure speed, latency, memory and start-up")
    bench.add_argument("--json", type=Path, help="write the figures to this file as well")
    bench.add_argument("--threads", type=int, default=2, help="threads of one inference (default: 2)")
    bench.add_argument(
        "--sections", nargs="+", metavar="SECTION", help="some of: speed latency http memory startup (default: all)"
    )
    bench.add_argument("--no-hour", action="store_true", help="leave out the one-hour file of the memory section")
    bench.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), help="compare batches, precisions and CUDA's options there instead"
    )
    bench.add_argument("--seconds", type=float, default=3.0, help="of each line of that comparison (default: 3)")
    bench.set_defaults(run=_bench)

    key = commands.add_parser("key", help="make an API key and its line for WINNOW_API_KEYS_FILE")
    key.add_argument("name", help="of the key, for the file and the logs")
    key.set_defaults(run=_key)

    doctor = commands.add_parser("doctor", help="say what is found and what is missing")
    doctor.set_defaults(run=_doctor)
    return parser


def _serve(options: argparse.Namespace) -> int:
    from service.keys import require_keys_or_loopback
    from service.loading import load_engine
    from service.logs import configure_logging
    from service.server import serve
    from service.settings import Settings

    given = {name: value for name in ("host", "port") if (value := getattr(options, name)) is not None}
    settings = Settings(**given)
    configure_logging(settings)
    require_keys_or_loopback(settings)
    if options.workers != 1:
        from service.loading import usable_threads
        from service.workers import Workers

        return Workers(settings, options.workers, usable_threads()).run()
    # Loaded before the port opens: what cannot start says so in one line, and whoever connects is answered at once.
    engine = load_engine(settings)
    try:
        return serve(settings, engine, options.fd)
    finally:
        engine.close()


def _separate(options: argparse.Namespace) -> int:
    from service.ask import PromptLimits, read_ask
    from service.call import Call
    from service.loading import load_engine
    from service.separation import Separator
    from service.settings import Settings
    from service.workspace import Workspace

    settings = Settings()
    out: Path | None = options.out
    fields = {"prompt": options.prompt, "negative": options.negative, "output": [options.output]}
    if options.exhaustive:
        fields["exhaustive"] = ["true"]
    suffix = out.suffix.removeprefix(".").lower() if out is not None else ""
    chosen = options.format or (suffix if suffix not in ("", "zip") else None)
    if chosen:
        fields["format"] = [chosen]
    if options.subtype:
        fields["subtype"] = [options.subtype]
    ask = read_ask(fields, None, PromptLimits(settings.max_prompts, settings.max_prompt_chars))
    with options.audio.open("rb") as file, Workspace() as workspace:
        engine = load_engine(settings)
        separator = Separator.of(engine, settings)
        try:
            answer = separator.run(file, ask, workspace.path, Call())
        finally:
            separator.close()
            engine.close()
        written = _deliver(answer.path, out or Path(answer.filename))
    for prompt, presence in zip(ask.prompts, answer.presence, strict=True):
        print(f"{prompt}: presence {presence.probability:.3f}{_when(presence.spans)}")
    print(written)
    return 0


def _when(spans: Sequence[tuple[float, float]]) -> str:
    return "".join(f"{', ' if index else ' at '}{begin:.2f}-{end:.2f} s" for index, (begin, end) in enumerate(spans))


def _suggest(options: argparse.Namespace) -> int:
    from service.ask import PromptLimits, read_phrases
    from service.call import Call
    from service.loading import load_engine
    from service.separation import Separator
    from service.settings import Settings
    from service.suggest import Suggester, read_limit
    from service.timings import Timings
    from service.vocabulary import SHIPPED, read_vocabulary
    from service.workspace import Workspace

    settings = Settings()
    limits = PromptLimits(settings.max_vocabulary, settings.max_prompt_chars)
    phrases, limit = read_phrases(options.vocabulary, "vocabulary", limits), read_limit([options.limit])
    vocabulary = read_vocabulary(settings.vocabulary or SHIPPED, settings.max_prompt_chars)
    with options.audio.open("rb") as file, Workspace() as workspace:
        engine = load_engine(settings)
        with closing(engine), closing(Separator.of(engine, settings)) as separator:
            found = Suggester(separator, vocabulary).run(file, phrases, limit, workspace.path, Call(), Timings())
    for item in found.items:
        print(f"{item.probability:.3f}  {item.phrase}")
    return 0


def _deliver(result: Path, out: Path) -> Path:
    """Put the answer where it is wanted: a zip is unpacked unless a zip is asked for."""
    if result.suffix == ".zip" and out.suffix != ".zip":
        out.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(result) as archive:
            archive.extractall(out)
        return out
    shutil.move(result, out)
    return out


def _bench(options: argparse.Namespace) -> int:
    if options.device is not None:
        from service.device_bench import compare

        return compare(options.device, options.seconds, options.json, options.threads)
    from service.bench import run

    return run(options.sections, options.threads, not options.no_hour, options.json)


def _key(options: argparse.Namespace) -> int:
    from service.keys import line_of, new_secret

    secret = new_secret()
    line = line_of(options.name, secret)
    print(secret)
    print(line)
    print("The first line is the key, shown this once; the second goes into WINNOW_API_KEYS_FILE.", file=sys.stderr)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from service.doctor import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
