"""What docs/deploy.md ships: a proxy's configuration that was really run, and Kubernetes manifests that were linted."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.app import create_app
from service.settings import Settings
from tests.reliability.front import HAPROXY_CONFIG
from tests.reliability.rolling_restart import restart_under_load
from tests.service.conftest import required
from tests.service.fakes import fake_engine

ROOT = Path(__file__).parents[1]
MANIFESTS = ROOT / "docker" / "kubernetes"
KUBERNETES = "1.33"


def image_environment() -> dict[str, str]:
    text = (ROOT / "docker" / "Dockerfile").read_text()
    return dict(re.findall(r"\b(WINNOW_\w+)=(\S+)", text[text.index("ENV PATH") :]))


def settings_of_the_image() -> Settings:
    values = {name.removeprefix("WINNOW_").lower(): value for name, value in image_environment().items()}
    return Settings(**values)


def test_haproxy_takes_its_configuration_without_a_warning() -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("WINNOW_")}
    command = [required("haproxy"), "-c", "-f", str(HAPROXY_CONFIG)]
    checked = subprocess.run(command, env=plain, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stderr
    assert "WARNING" not in checked.stderr + checked.stdout


def test_the_proxy_waits_as_long_as_the_service_needs() -> None:
    text = HAPROXY_CONFIG.read_text()
    times = {
        name: int(value) for name, value in re.findall(r"^ *(timeout [\w-]+|.*\binter) (\d+)s", text, re.MULTILINE)
    }
    settings = settings_of_the_image()
    assert times["timeout server"] > settings.deadline_s
    assert times["timeout client"] > settings.stall_s
    (inter,) = (value for name, value in times.items() if name.endswith("inter"))
    assert 2 * inter < settings.pre_stop_s, "the proxy must hear of the end before the port closes"


def test_replicas_restart_behind_haproxy_and_no_request_fails(tmp_path: Path) -> None:
    """It passes bodies on and never repeats one: whoever still sends to a replica that is leaving must be served."""
    required("haproxy")
    result = restart_under_load(tmp_path, 120, 4, delay_s=0.1, pre_stop_s=2.5, proxy="haproxy")
    assert (result.failures, result.n_restarts, set(result.exit_codes)) == ([], 2, {0})
    assert result.n_requests >= 120 and result.left_behind == []


def documents() -> list[dict[str, Any]]:
    names = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text())["resources"]
    assert sorted([*names, "kustomization.yaml"]) == sorted(path.name for path in MANIFESTS.iterdir())
    return [each for name in names for each in yaml.safe_load_all((MANIFESTS / name).read_text())]


def document(kind: str, name: str) -> dict[str, Any]:
    (found,) = (each for each in documents() if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def pods() -> dict[str, dict[str, Any]]:
    """Templates of pods, by the name in their label."""
    templates = [each["spec"]["template"] for each in documents() if each["kind"] in ("Deployment", "StatefulSet")]
    return {template["metadata"]["labels"]["app.kubernetes.io/name"]: template["spec"] for template in templates}


def container() -> dict[str, Any]:
    (one,) = pods()["winnow"]["containers"]
    return dict(one)


def test_manifests_are_what_kubernetes_takes() -> None:
    assert {each["kind"] for each in documents()} >= {"Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget"}
    for each in documents():
        kubernetes_validate.validate(each, KUBERNETES, strict=True)
    wrong = document("Deployment", "winnow")
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_the_environment_is_made_of_settings() -> None:
    given = {entry["name"]: entry["value"] for entry in container()["env"]}
    values = {name.removeprefix("WINNOW_").lower(): value for name, value in given.items()}
    assert set(values) <= set(Settings.model_fields)
    assert Settings(**values).threads == int(container()["resources"]["limits"]["cpu"])


def test_pods_have_the_time_that_the_service_takes_to_stop() -> None:
    settings = settings_of_the_image()
    assert settings.pre_stop_s > 0
    assert pods()["winnow"]["terminationGracePeriodSeconds"] >= settings.pre_stop_s + settings.grace_s
    assert container()["readinessProbe"]["periodSeconds"] < settings.pre_stop_s


def test_probes_ask_for_paths_that_there_are() -> None:
    paths = set(create_app(Settings(), fake_engine()).openapi()["paths"])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container()[probe]["httpGet"]["path"] in paths
    assert container()["livenessProbe"]["httpGet"]["path"] != container()["readinessProbe"]["httpGet"]["path"]


def test_nothing_runs_as_root_or_writes_where_it_need_not() -> None:
    for pod in pods().values():
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["automountServiceAccountToken"] is False
        for one in pod["containers"]:
            secured = one["securityContext"]
            assert secured["readOnlyRootFilesystem"] is True and secured["allowPrivilegeEscalation"] is False
            assert secured["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in one["resources"]["limits"]


def test_names_lead_to_what_is_there() -> None:
    """Selectors to pods, ports to ports, volumes to volumes, the address of Redis to its service."""
    for each in documents():
        spec = each["spec"]
        for selector in (spec.get("selector"), spec.get("podSelector")):
            if selector:
                assert selector.get("matchLabels", selector)["app.kubernetes.io/name"] in pods()
    for name, pod in pods().items():
        for one in pod["containers"]:
            ports = {port["name"] for port in one["ports"]}
            assert {port["targetPort"] for port in document("Service", name)["spec"]["ports"]} <= ports
    volumes = {volume["name"] for volume in pods()["winnow"]["volumes"]}
    assert {mount["name"] for mount in container()["volumeMounts"]} == volumes
    (redis,) = (entry["value"] for entry in container()["env"] if entry["name"] == "WINNOW_REDIS_URL")
    assert document("Service", re.findall(r"//([\w-]+):", redis)[0])
    assert document("HorizontalPodAutoscaler", "winnow")["spec"]["scaleTargetRef"]["name"] == "winnow"


def test_the_autoscaler_reads_a_metric_that_there_is() -> None:
    named = {
        metric["pods"]["metric"]["name"]
        for metric in document("HorizontalPodAutoscaler", "winnow")["spec"]["metrics"]
        if metric["type"] == "Pods"
    }
    text = (ROOT / "service" / "metrics.py").read_text()
    assert named and all(f'"{name.removeprefix("winnow_")}"' in text for name in named)
