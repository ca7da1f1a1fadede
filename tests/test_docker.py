"""The image and the compose file, as text: what must hold before anyone builds them. `docker/try.sh` runs them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_every_service_is_confined(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("user", "") not in ("root", "0", "0:0")
    if "WINNOW_API_KEYS_FILE" not in service.get("environment", {}):
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), "no keys: loopback alone"


@pytest.mark.parametrize("name", ["winnow", "winnow-gpu"])
def test_the_compose_file_says_on_purpose_that_there_are_no_keys(name: str) -> None:
    assert "WINNOW_HOST=0.0.0.0" in DOCKERFILE and "ALLOW_ANONYMOUS=" not in DOCKERFILE.rsplit("ENV", 1)[1]
    environment = COMPOSE["services"][name]["environment"]
    assert environment.get("WINNOW_ALLOW_ANONYMOUS") == "1" or "WINNOW_API_KEYS_FILE" in environment
    assert (
        int(COMPOSE["services"][name]["stop_grace_period"].removesuffix("s"))
        > Settings().grace_s
        > Settings().deadline_s
    )


def test_every_setting_named_is_one_of_the_services() -> None:
    known = {f"WINNOW_{name.upper()}" for name in Settings.model_fields}
    named = set(re.findall(r"WINNOW_[A-Z_]+", DOCKERFILE))
    for service in COMPOSE["services"].values():
        named |= {name for name in service.get("environment", {}) if not name.startswith("GF_")}
    assert named and named <= known


def test_the_image_ends_as_a_user_without_rights_and_with_a_health_check() -> None:
    last = DOCKERFILE.rsplit("FROM ", 1)[1]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert "HEALTHCHECK" in last and "healthcheck.py" in last
    assert "torch" not in DOCKERFILE and "pip install" not in last


def test_what_the_dockerfile_copies_is_there_and_not_ignored() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        for path in line.split()[:-1]:
            name = path.removeprefix("./")
            assert (ROOT / name).exists() and name in allowed, name


def test_the_redis_of_the_compose_file_is_a_bounded_cache() -> None:
    command = COMPOSE["services"]["redis"]["command"]
    assert "--maxmemory 64mb" in command and "volatile-lru" in command and '--save ""' in command
    assert COMPOSE["services"]["winnow"]["environment"]["WINNOW_REDIS_URL"] == "redis://redis:6379/0"


def test_the_scripts_parse() -> None:
    subprocess.run(["bash", "-n", str(ROOT / "docker" / "try.sh")], check=True)
    compile((ROOT / "docker" / "healthcheck.py").read_text(), "healthcheck.py", "exec")
