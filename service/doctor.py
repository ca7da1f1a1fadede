"""``winnow doctor``: what the service finds here, line by line, and whether it would start."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable

from model.bundle import Bundle
from service.errors import StartError
from service.loading import check_builds, installed_builds, load_engine, redis_tier, stop_telemetry, usable_threads
from service.nursery import Nursery
from service.settings import Settings


def run(write: Callable[[str], None] = print) -> int:
    """Print the findings; returns 0 when the service would start and 1 when it would not."""
    settings = Settings()
    failures = 0

    def report(name: str, check: Callable[[], str]) -> None:
        nonlocal failures
        try:
            write(f"ok    {name:<12}{check()}")
        except (StartError, ValueError, OSError) as error:
            failures += 1
            write(f"FAIL  {name:<12}{error}")

    report("python", lambda: f"{platform.python_version()} on {sys.platform}, {usable_threads()} threads")
    report("runtime", _runtime)
    report("bundle", lambda: _bundle(settings))
    report("children", lambda: _children(settings))
    report("provider", lambda: _provider(settings))
    report_line, starts = _redis(settings)
    write(report_line)
    failures += not starts
    found = shutil.which(settings.ffmpeg)
    write(f"{'ok   ' if found else 'note '} {'ffmpeg':<12}{found or 'not found: M4A and WebM are refused'}")
    return 1 if failures else 0


def _runtime() -> str:
    found = installed_builds()
    check_builds(found)
    stop_telemetry()
    import onnxruntime

    return f"{found[0]} {onnxruntime.__version__}, offers {', '.join(onnxruntime.get_available_providers())}"


def _bundle(settings: Settings) -> str:
    bundle = Bundle.open(settings.model)
    lines = [f"{bundle.manifest['name']} version {bundle.version} at {settings.model}"]
    for name, facts in sorted(bundle.manifest["files"].items()):
        lines.append(f"      {'':<12}{facts['sha256'][:16]}  {facts['bytes']:>10} bytes  {name}")
    return "\n".join(lines)


def _provider(settings: Settings) -> str:
    engine = load_engine(settings)
    try:
        return f"{engine.network.provider} in force (asked for: {settings.device})"
    finally:
        engine.close()


def _children(settings: Settings) -> str:
    nursery = Nursery()
    try:
        found = nursery.warm_up()
    finally:
        nursery.close()
    network = "without network" if found["isolated"] else "WITH NETWORK (namespaces are not permitted)"
    files = "without files" if found["landlock"] else "WITH FILES (the kernel has no Landlock)"
    return f"decode and encode {network}, {files}, with {settings.child_memory_bytes >> 20} MiB each"


def _redis(settings: Settings) -> tuple[str, bool]:
    """A line, and whether the service would start: without an answer it does, with an address that is none not."""
    try:
        tier = redis_tier(settings)
    except StartError as error:
        return f"FAIL  {'redis':<12}{error}", False
    if tier is None:
        return f"note  {'redis':<12}off: WINNOW_REDIS_URL is not set", True
    try:
        if tier.ping():
            return f"ok    {'redis':<12}answers within {settings.redis_timeout_s:g} s", True
        return f"note  {'redis':<12}no answer within {settings.redis_timeout_s:g} s: the cache does without", True
    finally:
        tier.close()
