"""Health, metrics, the doors, and the public facts of sales."""

import re
import runpy
from datetime import UTC, datetime, timedelta

import pytest
import requests

from fluxgate_site import checks
from fluxgate_site.environment import INSECURE_SECRET, Environment
from sales.phases import phase, units_left
from tests.running_site import Site, eventually


def test_alive_and_ready(site: Site) -> None:
    assert site.get("/livez").json() == {"status": "alive"}
    assert site.get("/readyz").json() == {"status": "ready", "failing": []}


@pytest.mark.parametrize(
    ("broken", "failing"),
    [
        ({"FLUXGATE_GATE_URL": "redis://127.0.0.1:1/0"}, ["gate"]),
        ({"FLUXGATE_KAFKA_BROKERS": "127.0.0.1:1"}, ["log"]),
    ],
    ids=["without the gate", "without the log"],
)
def test_not_ready_and_refusing(site: Site, broken: dict[str, str], failing: list[str]) -> None:
    sale = site.sell()
    web = site.another_web(**broken)
    web.wait("/livez")
    answer = web.get("/readyz")
    assert (answer.status_code, answer.json()["failing"]) == (503, failing)
    refused = web.buy(sale.slug, "ann")
    assert (refused.status_code, refused.json()["type"]) == (503, "/problems#temporarily-unavailable")
    assert int(refused.headers["Retry-After"]) >= 1


def test_metrics_only_on_the_internal_port(site: Site) -> None:
    sale = site.sell(allotment=1)
    for customer in ("ann", "bob"):
        site.buy(sale.slug, customer)
    assert site.get("/metrics").status_code == 404
    address = f"http://127.0.0.1:{site.metrics_port}/metrics"
    # What was counted reaches the metrics a tenth of a second later.
    eventually(lambda: 'fluxgate_answers_total{verdict="sold_out"}' in requests.get(address, timeout=10).text)
    metrics = requests.get(address, timeout=10).text
    assert 'fluxgate_answers_total{verdict="claimed"}' in metrics
    assert 'fluxgate_answers_total{verdict="sold_out"}' in metrics
    assert "fluxgate_acknowledgement_seconds_count" in metrics
    assert float(re.findall(r"^fluxgate_gate_call_seconds_count (.+)$", metrics, re.M)[0]) >= 2
    assert re.findall(r"^fluxgate_log_down (.+)$", metrics, re.M) == ["0.0"]
    assert re.findall(r"^fluxgate_build_info.* (.+)$", metrics, re.M) == ["1.0"], "of both workers"
    assert "pid=" not in metrics


def test_sale_facts(site: Site) -> None:
    sale = site.sell(allotment=10, limit=3, name="Lamp <b>drop</b>")
    answer = site.get(f"/api/v1/sales/{sale.slug}")
    facts = answer.json()
    assert answer.headers["Cache-Control"] == "public, max-age=1"
    assert {name: facts[name] for name in ("slug", "name", "phase", "units_left", "allotment")} == {
        "slug": sale.slug,
        "name": "Lamp <b>drop</b>",
        "phase": "selling",
        "units_left": "many",
        "allotment": 10,
    }
    assert facts["limit_per_customer"] == 3
    assert facts["opens_at"].endswith("Z")
    assert abs(datetime.fromisoformat(facts["server_time"]) - datetime.now(UTC)) < timedelta(seconds=30)
    unchanged = site.get(f"/api/v1/sales/{sale.slug}", **{"If-None-Match": answer.headers["ETag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert sale.slug in [listed["slug"] for listed in site.get("/api/v1/sales").json()["sales"]]
    for number in range(10):
        assert site.buy(sale.slug, f"buyer-{number}").status_code == 202
    eventually(lambda: site.get(f"/api/v1/sales/{sale.slug}").json()["phase"] == "sold_out")


@pytest.mark.parametrize("slug", ["no-such", "%00", "..%2f", "{}", "a" * 3000])
def test_unknown_sales_are_404(site: Site, slug: str) -> None:
    answer = site.get(f"/api/v1/sales/{slug}")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/static/waitingroom/room.html?sale=x", "/", "/problems", "/admin/login/"])
def test_no_page_can_be_framed(site: Site, path: str) -> None:
    answer = site.get(path)
    assert answer.status_code == 200
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_api_page_is_all_our_own(site: Site) -> None:
    page = site.get("/api/v1/docs").text
    assert "openapi.json" in page
    assert "https://" not in page.replace("https://shop.example", "")
    assert site.get("/api/v1/openapi.json").json()["openapi"].startswith("3.1")


@pytest.mark.parametrize(
    ("remaining", "band"), [(None, "unknown"), (0, "none"), (1, "few"), (10, "few"), (11, "many")]
)
def test_bands_of_units(remaining: int | None, band: str) -> None:
    assert units_left(remaining, 100) == band


@pytest.mark.parametrize(
    ("state", "hours", "sold_out", "expected"),
    [
        ("scheduled", -1, False, "upcoming"),
        ("armed", 1, False, "upcoming"),
        ("open", -1, False, "upcoming"),
        ("open", 0, False, "selling"),
        ("open", 1, True, "sold_out"),
        ("open", 2, False, "closed"),
        ("paused", 1, False, "paused"),
        ("closing", 1, False, "closed"),
        ("closed", 1, False, "closed"),
        ("closed", 1, True, "sold_out"),
    ],
)
def test_phases(state: str, hours: int, sold_out: bool, expected: str) -> None:
    opens = datetime(2026, 1, 1, tzinfo=UTC)
    closes = opens + timedelta(hours=2)
    now = opens + timedelta(hours=hours)
    assert phase(state, opens, closes, sold_out=sold_out, now=now) == expected


SAFE = {
    "environment": "production",
    "secret_key": "s" * 50,
    "token_keys": {"shop": "k" * 32},
    "gate_url": "redis://gate:6379/0",
    "cache_url": "redis://cache:6379/0",
    "second_factor": "required",
}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, []),
        ({"secret_key": INSECURE_SECRET}, ["fluxgate.E001"]),
        ({"secret_key": "short"}, ["fluxgate.E001"]),
        ({"token_keys": {"development": INSECURE_SECRET}}, ["fluxgate.E002"]),
        ({"token_keys": {"shop": "short"}}, ["fluxgate.E002"]),
        ({"cache_url": "redis://gate:6379/1"}, ["fluxgate.E003"]),
        ({"cache_url": "redis://gate"}, ["fluxgate.E003"]),
        ({"sweep_after_seconds": 1.0}, ["fluxgate.E004"]),
        ({"crash_at": "place.after-gate"}, ["fluxgate.E005"]),
        ({"second_factor": "off"}, ["fluxgate.W001"]),
        ({"second_factor": "off", "environment": "development"}, []),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_system_checks(settings: object, changed: dict[str, object], expected: list[str]) -> None:
    settings.FLUXGATE = Environment(_env_file=None, **(SAFE | changed))  # type: ignore[attr-defined, call-arg, arg-type]
    every = (
        checks.secrets_are_ours,
        checks.gate_is_alone,
        checks.promise_fits,
        checks.nothing_crashes_on_purpose,
        checks.the_admin_asks_for_more_than_a_password,
    )
    found = [message for check in every for message in check()]
    assert [message.id for message in found] == expected
    assert all(message.hint for message in found)


def test_a_web_process_with_default_secrets_does_not_start_in_production(site: Site) -> None:
    web = site.another_web(FLUXGATE_ENVIRONMENT="production")
    assert web.process.wait(30) != 0
    assert "fluxgate.E001" in web.printed.read_text()


@pytest.mark.parametrize("command", ["run_fulfillment", "run_gatekeeper", "ensure_roles"])
@pytest.mark.parametrize(
    ("given", "refused"),
    [({}, "fluxgate.E001"), ({"FLUXGATE_SECRET_KEY": "s" * 50}, "fluxgate.E002")],
    ids=["default secrets", "default keys of tokens"],
)
def test_a_command_with_default_secrets_does_not_start_in_production(
    site: Site, command: str, given: dict[str, str], refused: str
) -> None:
    ended = site.manage(command, check=False, FLUXGATE_ENVIRONMENT="production", **given)
    assert ended.returncode != 0
    assert refused in ended.stderr


def test_the_recommended_settings_are_not_warned_about_and_a_password_alone_is(site: Site) -> None:
    production = {
        "FLUXGATE_ENVIRONMENT": "production",
        "FLUXGATE_HTTPS": "true",
        "FLUXGATE_ALLOWED_HOSTS": "shop.example",
        "FLUXGATE_SECRET_KEY": "0123456789abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJKLMNOP",
        "FLUXGATE_TOKEN_KEYS": '{"shop":"0123456789abcdefghijklmnopqrstuvwxyz"}',
    }
    check = ("check", "--deploy", "--fail-level", "WARNING")
    clean = site.manage(*check, check=False, FLUXGATE_SECOND_FACTOR="required", **production)
    assert (clean.returncode, "0 silenced" in clean.stdout) == (0, True), clean.stderr
    warned = site.manage(*check, check=False, **production)
    assert warned.returncode != 0
    assert "fluxgate.W001" in warned.stderr
    assert warned.stderr.count("WARNINGS") == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KAFKA_PARTITIONS", "none"),
        ("KAFKA_PARTITIONS", "99999999999"),
        ("KAFKA_GROUP", ""),
        ("FULFILLMENT_BATCH", "2000000"),
        ("GATE_URL", "http://x"),
        ("DATABASE_URL", "garbage"),
        ("DATABASE_URL", "postgresql://host-only"),
        ("TOKEN_KEYS", "nope"),
        ("TOKEN_KEYS", "{}"),
        ("SECOND_FACTOR", "yes"),
        ("PROXIES", "*"),
        ("PROXIES", "a-name"),
    ],
)
def test_wrong_settings_are_named_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"FLUXGATE_{name}", value)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path("fluxgate_site/settings.py")
    assert name.lower() in str(ended.value).lower()
