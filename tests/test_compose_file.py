"""docker-compose.yml, Dockerfile and .dockerignore, held against the code and against their own promises.

What they do when they run is proved by `make test-compose`; these tests read them, and need no engine.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.apps import apps
from django.core.management import get_commands

from fluxgate_site.environment import Environment

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()

OURS = {"web", "fulfillment", "gatekeeper", "migrate", "roles", "topics"}
ONE_SHOT = {"migrate", "roles", "topics"}
LASTING = set(SERVICES) - ONE_SHOT
SECRETS = {"FLUXGATE_SECRET_KEY", "FLUXGATE_TOKEN_KEYS", "POSTGRES_PASSWORD"}


def options_of(service: str) -> dict[str, str]:
    """The server options of a command written as a list of `--name`, `value`."""
    command = SERVICES[service]["command"]
    return dict(zip(command[::2], command[1::2], strict=True))


def test_the_file_has_the_services_of_the_ground_plan() -> None:
    assert set(SERVICES) == OURS | {"postgres", "gate", "cache", "kafka"}


@pytest.mark.parametrize("service", sorted(LASTING))
def test_a_lasting_service_has_a_health_check_and_comes_back(service: str) -> None:
    check = SERVICES[service]["healthcheck"]
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert {"interval", "timeout", "retries", "start_period"} <= set(check)
    assert SERVICES[service]["restart"] == "unless-stopped"


@pytest.mark.parametrize("service", sorted(ONE_SHOT))
def test_a_one_shot_runs_once(service: str) -> None:
    assert SERVICES[service]["restart"] == "no"


def test_every_dependency_says_what_it_waits_for() -> None:
    for service in SERVICES.values():
        for needed, how in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if needed in ONE_SHOT else "service_healthy"
            assert how == {"condition": expected}


def test_nothing_that_decides_or_remembers_starts_before_its_schema_and_its_topic() -> None:
    for service in ("web", "fulfillment", "gatekeeper"):
        assert set(SERVICES[service]["depends_on"]) >= {"migrate", "topics"}
    assert "postgres" in SERVICES["migrate"]["depends_on"]
    assert "migrate" in SERVICES["roles"]["depends_on"]
    assert "kafka" in SERVICES["topics"]["depends_on"]


def test_only_web_publishes_a_port_and_only_to_this_machine() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"web"}
    assert SERVICES["web"]["ports"] == ["${WEB_BIND:-127.0.0.1}:${WEB_PORT:-8000}:8000"]


def test_the_books_are_on_a_network_without_an_exit() -> None:
    assert COMPOSE["networks"]["backend"] == {"internal": True}
    for name, service in SERVICES.items():
        assert service["networks"] == (["backend", "edge"] if name == "web" else ["backend"])


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_every_container_is_careful(service: str) -> None:
    described = SERVICES[service]
    assert described["cap_drop"] == ["ALL"]
    assert described["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in described
    assert "cap_add" not in described
    # Kafka's image writes its configuration at the start and brings its own unprivileged user.
    if service != "kafka":
        assert described["read_only"] is True
        assert service in OURS or described["user"] not in {"root", "0"}


def test_every_image_comes_from_a_variable_with_a_public_default() -> None:
    default = re.compile(r"\$\{(\w+):-([\w./-]+:[\w.-]+)\}")
    used = {default.fullmatch(service["image"]) for service in SERVICES.values()}
    base = default.fullmatch(SERVICES["web"]["build"]["args"]["BASE_IMAGE"])
    names = {match[1] for match in used | {base} if match}
    assert None not in used
    assert names == {"FLUXGATE_IMAGE", "POSTGRES_IMAGE", "REDIS_IMAGE", "KAFKA_IMAGE", "BASE_IMAGE"}
    assert f"ARG BASE_IMAGE={base[2]}\n" in DOCKERFILE if base else False


def test_the_broker_is_the_one_the_tests_run_on() -> None:
    pom = (ROOT / "deploy" / "kafka" / "pom.xml").read_text()
    version = re.search(r"<kafka\.version>([\d.]+)</kafka\.version>", pom)
    assert version
    assert SERVICES["kafka"]["image"] == f"${{KAFKA_IMAGE:-apache/kafka:{version[1]}}}"


def test_no_secret_has_a_default() -> None:
    for variable in SECRETS:
        uses = re.findall(r"\$\{" + variable + r"\b([^}]*)\}", TEXT)
        assert uses
        assert all(use.startswith(f":?{variable} is not set") for use in uses)


def test_the_settings_in_the_file_are_settings_of_the_site() -> None:
    known = {f"FLUXGATE_{name.upper()}" for name in Environment.model_fields}
    known |= set(re.findall(r"FLUXGATE_\w+", (ROOT / "fluxgate_site" / "gunicorn.conf.py").read_text()))
    given = SERVICES["web"]["environment"]
    assert set(given) <= known
    assert given["FLUXGATE_ENVIRONMENT"] == "production"
    for service in OURS:
        assert SERVICES[service]["environment"] == given


def test_every_variable_of_the_file_is_explained_at_its_head() -> None:
    head = TEXT[: TEXT.index("\nx-image:")]
    used = set(re.findall(r"\$\{(\w+)", TEXT[len(head) :]))
    settings = {name for name in used if name.startswith("FLUXGATE_")}
    # The settings are explained in .env.example; what only this file knows is explained in it.
    assert {name for name in used - settings if name not in head} == set()


def test_the_commands_in_the_file_exist() -> None:
    commands = [service.get("command") for name, service in SERVICES.items() if name in OURS - {"web"}]
    assert all(command[:2] == ["python", "manage.py"] for command in commands)
    assert {command[2] for command in commands} <= set(get_commands())


def test_gate_and_cache_are_two_servers_with_opposite_promises() -> None:
    given = SERVICES["web"]["environment"]
    assert given["FLUXGATE_GATE_URL"].startswith("redis://gate:")
    assert given["FLUXGATE_CACHE_URL"].startswith("redis://cache:")
    gate, cache = options_of("gate"), options_of("cache")
    assert gate["--appendonly"] == "yes"
    assert gate["--maxmemory-policy"] == "noeviction"
    assert SERVICES["gate"]["volumes"] == ["gate:/data"]
    assert cache["--appendonly"] == "no"
    assert cache["--save"] == ""
    assert cache["--maxmemory-policy"] == "allkeys-lru"
    assert "volumes" not in SERVICES["cache"]


def test_every_volume_has_an_owner() -> None:
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert used == set(COMPOSE["volumes"])


def test_nobody_but_a_proxy_on_this_machine_is_believed_who_the_client_is() -> None:
    """Unless somebody says so: a client whose own address is believed could choose it, guess after guess."""
    default = SERVICES["web"]["environment"]["FLUXGATE_PROXIES"]
    assert default == "${FLUXGATE_PROXIES:-127.0.0.1}"


def test_two_consumers_share_the_partitions_by_default() -> None:
    assert SERVICES["fulfillment"]["deploy"] == {"replicas": "${FULFILLMENT_REPLICAS:-2}"}
    assert "container_name" not in TEXT


def test_the_image_installs_the_lock_by_hash_and_runs_as_nobody_special() -> None:
    final = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    assert "--require-hashes" in DOCKERFILE
    assert re.search(r"^USER \d{4,}:\d{4,}$", final, re.MULTILINE)
    assert re.search(r'^CMD \["gunicorn", ', final, re.MULTILINE)
    assert not re.search(r"^(RUN|ADD) ", final, re.MULTILINE)


def test_the_image_gets_our_code_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    admitted = {rule[1:] for rule in rules if rule.startswith("!")}
    our_apps = {Path(app.path).name for app in apps.get_app_configs() if Path(app.path).parent == ROOT}
    assert admitted == our_apps | {"manage.py", "requirements.lock", "templates"}
