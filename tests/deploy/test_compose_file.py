"""docker-compose.yml, the Dockerfile and the mounted files, read without Docker. scripts/test-compose runs them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.compose import PORTS, ROOT

DEPLOY = ROOT / "deploy"
FILE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
NODES = ("head", "worker", "coordinator")
OURS = {"coordinator": {7070, 7071}, "prometheus": {9090}, "grafana": {3000}}
"""The ports that may be published. Ray's ports may not."""
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


def test_all_services_are_there() -> None:
    assert set(SERVICES) == {*NODES, "prometheus", "grafana"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_watched_bounded_and_comes_back(name: str) -> None:
    service = SERVICES[name]
    check = service["healthcheck"]
    assert check["test"][0] == "CMD", "no shell between the engine and the check"
    assert {"interval", "timeout", "retries", "start_period"} <= set(check)
    assert re.fullmatch(r"(\$\{\w+:-)?\d+[mg]\}?", service["mem_limit"])
    assert service["restart"] == "unless-stopped"
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_rights_that_it_does_not_need(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    for key in ("privileged", "cap_add", "network_mode", "pid", "ipc", "devices"):
        assert key not in service
    assert str(service.get("user", "")) not in ("0", "root", "0:0", "root:root")


def test_ports_are_published_on_loopback_and_none_of_rays() -> None:
    published: dict[str, set[int]] = {}
    variables = []
    for name, service in SERVICES.items():
        for port in service.get("ports", ()):
            found = re.fullmatch(r"127\.0\.0\.1:\$\{(\w+):-(\d+)\}:(\d+)", port)
            assert found is not None, f"{name}: {port}"
            assert found[2] == found[3], "the default published port is the container's port"
            variables.append(found[1])
            published.setdefault(name, set()).add(int(found[3]))
        assert "expose" not in service
    assert published == OURS
    assert tuple(variables) == PORTS, "scripts/test-compose chooses each of them"


def test_a_service_waits_until_what_it_needs_is_healthy() -> None:
    needs = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    assert all(
        condition == {"condition": "service_healthy"} for waits in needs.values() for condition in waits.values()
    )
    assert {name: set(waits) for name, waits in needs.items()} == {
        "head": set(),
        "worker": {"head"},
        "coordinator": {"head"},
        "prometheus": {"coordinator"},
        "grafana": {"prometheus"},
    }


def test_one_image_has_every_role() -> None:
    assert len({SERVICES[name]["image"] for name in NODES}) == 1
    script = (DEPLOY / "node").read_text()
    for name in NODES:
        assert SERVICES[name]["command"][0] == name
        assert SERVICES[name]["healthcheck"]["test"] == ["CMD", "pipetrain-node", "healthy", name]
        assert re.search(rf"^{name}\)", script, re.MULTILINE)
        assert (ROOT / SERVICES[name]["build"]["context"] / SERVICES[name]["build"]["dockerfile"]).samefile(
            DEPLOY / "Dockerfile"
        )


def test_other_images_are_pinned() -> None:
    others = {name: service["image"] for name, service in SERVICES.items() if name not in NODES}
    bases = [line.split()[1] for line in DOCKERFILE.splitlines() if line.startswith("FROM")]
    stages = set(re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE))
    for image in [*others.values(), *(base for base in bases if base not in stages)]:
        assert re.search(r":v?\d+\.\d+", image), f"{image} names no version"


def test_volumes_are_named_and_used() -> None:
    used = set()
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            source, target, *mode = volume.split(":")
            assert target.startswith("/")
            if source.startswith("."):
                assert mode == ["ro"], f"{name}: {source} is the checkout's"
                assert (ROOT / source).is_dir()
            else:
                used.add(source)
    assert used == set(FILE["volumes"])


def test_only_the_head_makes_the_token_that_rays_nodes_share() -> None:
    mounts = {name: [v for v in SERVICES[name]["volumes"] if v.startswith("ray-token:")] for name in NODES}
    assert mounts == {
        "head": ["ray-token:/var/lib/ray-token"],
        "worker": ["ray-token:/var/lib/ray-token:ro"],
        "coordinator": ["ray-token:/var/lib/ray-token:ro"],
    }
    environment = _environment()
    assert environment["RAY_AUTH_MODE"] == "token"
    assert Path(environment["RAY_AUTH_TOKEN_PATH"]).parent == Path("/var/lib/ray-token")
    assert environment["RAY_USAGE_STATS_ENABLED"] == environment["RAY_worker_niceness"] == "0"
    for service in SERVICES.values():
        assert not any(name.startswith("RAY_AUTH") for name in service.get("environment", ()))


def test_the_image_does_not_run_as_root() -> None:
    final = DOCKERFILE[DOCKERFILE.rindex("\nFROM") :]
    users = re.findall(r"^USER (\S+)$", final, re.MULTILINE)
    assert users == ["pipetrain"]
    assert f"useradd --uid 10001 --create-home {users[0]}" in final
    home = _environment()["PIPETRAIN_HOME"]
    assert f"home:{home}" in SERVICES["coordinator"]["volumes"]
    assert re.search(rf"install -d .*{home}", final), "a new volume gets its owner from the image"


def test_shared_memory_holds_rays_object_store() -> None:
    found = re.search(r"--object-store-memory \$\(\((\d+) \* 2 \*\* 20\)\)", (DEPLOY / "node").read_text())
    assert found is not None
    for name in NODES:
        shared = re.fullmatch(r"(\d+)m", SERVICES[name]["shm_size"])
        assert shared is not None
        assert int(shared[1]) > int(found[1])


def test_prometheus_asks_the_coordinator_by_a_name_that_it_answers_to() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (scrape,) = config["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": ["coordinator:7071"]}]
    command = SERVICES["coordinator"]["command"]
    assert command[command.index("--http-name") + 1] == "coordinator"
    assert "./deploy/prometheus:/etc/prometheus:ro" in SERVICES["prometheus"]["volumes"]
    for rules in config["rule_files"]:
        assert (DEPLOY / "prometheus" / rules).is_file()


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "pipetrain.yml").read_text())["providers"]
    folder = provider["options"]["path"]
    grafana = SERVICES["grafana"]
    assert f"./deploy/grafana/dashboards:{folder}:ro" in grafana["volumes"]
    first = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert first.parent == Path(folder)
    assert (DEPLOY / "grafana" / "dashboards" / first.name).is_file()


def test_grafana_can_be_looked_at_and_not_changed() -> None:
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "true"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true", "else the password of admin is admin"


def test_what_the_image_is_made_of_is_not_ignored() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert next(line for line in lines if line and line[0] not in "#!") == "*"
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE):
        for source in sources.split():
            assert f"!{source}" in lines
            assert (ROOT / source).exists()


def test_a_role_that_there_is_not_is_refused() -> None:
    done = subprocess.run(["bash", DEPLOY / "node", "leader"], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert "pipetrain-node head " in done.stderr


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed")
def test_docker_compose_takes_the_file() -> None:
    done = subprocess.run(
        ["docker-compose", "config", "--services"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == set(SERVICES)


def _environment() -> dict[str, str]:
    """Return the variables that the image sets by ENV."""
    joined = DOCKERFILE[DOCKERFILE.rindex("\nFROM") :].replace("\\\n", " ")
    (line,) = re.findall(r"^ENV (.+)$", joined, re.MULTILINE)
    return dict(part.split("=", 1) for part in line.split())
