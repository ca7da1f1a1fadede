"""From settings to a warm engine: find the runtime, open and verify the bundle, load it, run it once."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path
from typing import Any

from model.bundle import Bundle, BundleError
from model.device import CUDA
from model.runtime import Runtime
from service.breaker import Breaker
from service.engine import Engine
from service.errors import StartError
from service.redis_tier import RedisTier
from service.settings import Settings
from service.text_cache import TextCache

_CUDA_BATCH = 8  # not measured yet: no GPU was at hand; `winnow bench --device cuda` says what pays
ONNXRUNTIME_BUILDS = ("onnxruntime", "onnxruntime-gpu")


def load_engine(settings: Settings) -> Engine:
    """Open the bundle that the settings name, verify it, load it and warm it up.

    Raises:
        StartError: it cannot be; the message says what to mend.
    """
    check_builds(installed_builds())
    stop_telemetry()
    try:
        bundle = Bundle.open(settings.model)
    except (BundleError, OSError) as error:
        raise StartError(f"the bundle at {settings.model} cannot be used: {error}") from error
    cache = TextCache(text_tower(bundle), settings.cache_entries, redis_tier(settings))
    engine = (ray_engine if settings.engine == "ray" else local_engine)(settings, bundle, cache)
    engine.warm_up()
    return engine


def local_engine(settings: Settings, bundle: Bundle, cache: TextCache) -> Engine:
    """An engine of this process.

    Raises:
        StartError: the graphs cannot be loaded where the settings say.
    """
    try:
        network = Runtime(bundle, threads=settings.threads or usable_threads(), device=settings.device)
    except (ValueError, RuntimeError) as error:
        raise StartError(f"the model cannot be loaded on device {settings.device!r}: {error}") from error
    max_batch = settings.max_batch or (_CUDA_BATCH if network.provider == CUDA else 1)
    return Engine(network, bundle.signal, bundle.version, describe(bundle), cache, max_batch)


def ray_engine(settings: Settings, bundle: Bundle, cache: TextCache) -> Engine:
    """An engine whose windows run on Ray; with threads unset, replicas of this machine share its cores.

    Raises:
        StartError: Ray is not installed, or no replica comes up.
    """
    try:
        from service.ray_network import RayNetwork
    except ImportError as error:
        raise StartError("WINNOW_ENGINE=ray needs Ray; mend it with: pip install 'winnow[ray]'") from error
    least, most = settings.ray_min_replicas, settings.ray_max_replicas
    if least > most:
        raise StartError(f"WINNOW_RAY_MIN_REPLICAS must be at most WINNOW_RAY_MAX_REPLICAS, got {least} and {most}")
    threads = settings.threads or max(1, usable_threads() // most)
    network = RayNetwork(bundle, threads, settings.device, (least, most), settings.ray_address)
    return Engine(network, bundle.signal, bundle.version, describe(bundle), cache, settings.max_batch or 1, network)


def redis_tier(settings: Settings) -> RedisTier | None:
    """The second tier of the text cache, when the settings name one.

    Raises:
        StartError: its address is not one.
    """
    if settings.redis_url is None:
        return None
    try:
        return RedisTier(
            settings.redis_url.get_secret_value(),
            settings.redis_timeout_s,
            settings.redis_keep_s,
            Breaker(settings.redis_failures, settings.redis_pause_s),
        )
    except ValueError as error:
        raise StartError("WINNOW_REDIS_URL must be redis://, rediss:// or unix://") from error


def describe(bundle: Bundle) -> dict[str, Any]:
    """What the manifest says that callers may want to know."""
    manifest = bundle.manifest
    return {
        "name": manifest.get("name"),
        "version": bundle.version,
        "created": manifest.get("created"),
        "git_commit": manifest.get("git_commit"),
        "files": manifest.get("files", {}),
        "signal": bundle.signal.to_json(),
        "training_data": manifest.get("training_data", []),
        "evaluation": manifest.get("evaluation", {}),
    }


def text_tower(bundle: Bundle) -> str:
    """Hash of what decides an embedding: the text graph and its tokenizer."""
    files = bundle.manifest["files"]
    return f"{files['text.onnx']['sha256'][:16]}-{files['tokenizer.json']['sha256'][:8]}"


def installed_builds() -> list[str]:
    """Which of ONNX Runtime's builds are installed."""
    found = []
    for name in ONNXRUNTIME_BUILDS:
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found.append(name)
    return found


def check_builds(found: list[str]) -> None:
    """Raise StartError unless exactly one build of ONNX Runtime is installed."""
    if len(found) > 1:
        raise StartError(
            "onnxruntime and onnxruntime-gpu are both installed and hide each other; mend it with: "
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install -e '.[cpu]'   (or '.[gpu]')"
        )
    if not found:
        raise StartError("ONNX Runtime is not installed; mend it with: pip install -e '.[cpu]'   (or '.[gpu]')")


def stop_telemetry() -> None:
    """Keep ONNX Runtime from reporting home; works only before it is first imported.

    From 1.29 on its Linux packages send events to their maker and leave a file in the temporary folder, unless this
    variable is set; its own switch in Python comes too late for either. Whoever wants it sets the variable to 0.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def usable_threads() -> int:
    """Threads this process may use: its CPU affinity, and the quota of its control group where it has one."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return count
