"""Windows run on replicas of Ray Serve: the front, its scheduler and its cache stay as they are.

Only Ray's handle is used, none of its HTTP. A window is a pure function of what is sent, so one whose replica dies is
sent to another, and the answer is the same to the bit.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Any

# Before Ray is imported, which reads them then: nothing is reported to its makers, nobody is asked.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray import serve
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError
from ray.serve.config import AutoscalingConfig, ProxyLocation

from model.bundle import Bundle
from model.calibration import Calibration
from service.errors import EngineStuck, StartError
from service.inference import Task
from service.network import Features
from service.ray_replica import Replica

log = logging.getLogger("winnow.ray")

_PER_REPLICA = 2  # windows: one runs, the next is there
_PATIENCE_S = 45.0  # in which a window finds a replica, or has none
_PAUSE_S = 0.1
_START_S = 120.0
_STORE_BYTES = 256 * 1024 * 1024  # of a cluster of our own; a window and its masks are under 10 MB
_LOST = (RayActorError, ActorUnavailableError)


class RayNetwork:
    """A bundle on a cluster: what the engine needs of a network, and what runs its batches.

    Attributes:
        lost: always false: a device that is lost is a replica that Ray replaces.
        lanes: batches that may be out at once; more than run, so that the autoscaler sees who waits.
    """

    lost = False

    def __init__(
        self, bundle: Bundle, threads: int, device: str, replicas: tuple[int, int], address: str | None = None
    ) -> None:
        """Connect to a cluster, and start the replicas where another front has not.

        Args:
            bundle: every node has it at this path.
            threads: of a replica, which holds as many of its node's cores.
            device: as of :class:`model.runtime.Runtime`; on ``cuda`` a replica holds one GPU.
            replicas: how many at least and at most; between them Ray decides.
            address: of the cluster; one of our own on this machine without.

        Raises:
            StartError: there is no cluster, or no replica comes up on it.
        """
        least, most = replicas
        self.lanes = _PER_REPLICA * most
        self._bundle = bundle
        self._own = address is None
        try:
            self._connect(address, most * threads)
            self._handle = self._application(f"winnow-{bundle.version}", threads, device, least, most)
            self.provider: str = self._handle.provider.remote().result(timeout_s=_START_S)
        except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
            self.close()
            raise StartError(f"the engine cannot run on Ray: {str(error).strip().splitlines()[-1]}") from error

    def _connect(self, address: str | None, n_cpus: int) -> None:
        if address is not None:
            ray.init(address, log_to_driver=False, namespace="winnow")
            return
        ray.init(
            num_cpus=n_cpus,
            object_store_memory=_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            namespace="winnow",
            _node_ip_address="127.0.0.1",
        )

    def _application(self, name: str, threads: int, device: str, least: int, most: int) -> Any:
        serve.start(proxy_location=ProxyLocation.Disabled)
        if name in serve.status().applications:
            return serve.get_app_handle(name)
        deployment = serve.deployment(
            Replica,
            name="model",
            ray_actor_options={"num_cpus": threads, "num_gpus": int(device == "cuda")},
            max_ongoing_requests=_PER_REPLICA,
            autoscaling_config=AutoscalingConfig(
                min_replicas=least, max_replicas=most, initial_replicas=least, target_ongoing_requests=1.5
            ),
            health_check_period_s=2.0,
        )
        application = deployment.bind(str(self._bundle.path.resolve()), self._bundle.version, threads, device)
        return serve.run(application, name=name, route_prefix=None)

    @property
    def audio_rate(self) -> int | None:
        """As of the bundle's embedder."""
        return self._bundle.embedder.audio_sample_rate or None

    @property
    def audio_samples(self) -> int:
        """As of the bundle's embedder."""
        return self._bundle.embedder.audio_samples

    @property
    def calibration(self) -> Calibration | None:
        """As of the bundle."""
        return self._bundle.calibration

    def embed(self, prompts: list[str]) -> Features:
        """As :meth:`model.runtime.Runtime.embed`, on any replica."""
        features: Features = self._anywhere(lambda: self._handle.embed.remote(prompts))
        return features

    def run(self, tasks: list[Task]) -> list[Any]:
        """As :meth:`service.inference.Inference.run`, on any replica.

        Raises:
            EngineStuck: no replica has answered for long.
        """
        works = [(task.sound, task.embedding, task.masked) for task in tasks]
        began_s = time.perf_counter()
        try:
            answers: list[Any] = self._anywhere(lambda: self._handle.infer.remote(works))
            return answers
        finally:
            for task in tasks:
                task.began_s, task.ended_s = began_s, time.perf_counter()

    def _anywhere(self, send: Callable[[], Any]) -> Any:
        deadline_s = time.monotonic() + _PATIENCE_S
        while (left_s := deadline_s - time.monotonic()) > 0:
            try:
                answer = send().result(timeout_s=left_s)
            except _LOST as error:
                log.warning("a replica was lost, its windows go to another: %s", type(error).__name__)
            except (GetTimeoutError, TimeoutError):
                break
            else:
                if not (isinstance(answer, list) and any(isinstance(each, EngineStuck) for each in answer)):
                    return answer
                log.warning("a replica lost its device, its windows go to another")
            time.sleep(_PAUSE_S)
        raise EngineStuck(f"no replica has answered for {_PATIENCE_S:g} s", retry_after_s=30)

    def close(self) -> None:
        """Leave the cluster; one of our own ends."""
        if self._own and ray.is_initialized():
            serve.shutdown()
        ray.shutdown()
