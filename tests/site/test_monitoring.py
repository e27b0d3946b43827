"""deploy/monitoring/ held against the code: what an alert or the dashboard asks for exists.

That the rules are valid and fire when they should is promtool's to say: `make check-alerts`.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import yaml
from prometheus_client import REGISTRY

import orders.metrics  # noqa: F401  # registers what this file looks for
from orders.balance import Verdict as BalanceVerdict
from sales.gate import Verdict
from tests.site.test_documents import DOCS, ROOT, anchors
from waitingroom.metrics import State

FOLDER = ROOT / "deploy" / "monitoring"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
SCRAPES = {
    each["job_name"]: each
    for each in yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
}
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
CASES = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
PANELS = DASHBOARD["panels"]
ASKED = {name: rule["expr"] for name, rule in ALERTS.items()} | {
    f"{panel['title']} {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]
}
WORDS = {
    ("fluxgate_answers_total", "verdict"): {*map(str, Verdict), "unavailable"},
    ("fluxgate_balance_sales", "verdict"): set(get_args(BalanceVerdict)),
    ("fluxgate_balance_units", "book"): {"gate", "order_book"},
    ("fluxgate_balance_units", "kind"): {"remaining", "held", "queued", "settled", "sold", "left"},
    ("fluxgate_lines", "state"): set(get_args(State)),
}
OF_PROMETHEUS = {"up": {"job", "instance"}, "ALERTS": {"alertname", "alertstate", "severity"}}
AROUND = {"job", "instance"}


def samples() -> dict[str, tuple[str, set[str]]]:
    """Every series of ours: whether it is to be rated (`counter`) or not (`gauge`), and its labels."""
    found = {}
    for collector in set(REGISTRY._collector_to_names):
        for metric in collector.describe() if hasattr(collector, "describe") else ():
            labels = set(collector._labelnames) if metric.name.startswith("fluxgate_") else set()  # type: ignore[attr-defined]
            if metric.type == "histogram":
                found[f"{metric.name}_bucket"] = ("counter", labels | {"le"})
            elif metric.type == "counter":
                found[f"{metric.name}_total"] = ("counter", labels)
            else:
                found[metric.name] = ("gauge", labels)
    return found


def selectors(expression: str) -> Iterator[tuple[str, list[tuple[str, str, str]], bool]]:
    """The series it asks for: name, matchers (label, operator, value), and whether it is rated."""
    for match in re.finditer(r"\b(fluxgate_\w+|up|ALERTS)\b(?:\{([^}]*)\})?(\[\w+\])?", expression):
        name, matchers, rated = match.groups()
        yield name, re.findall(r'(\w+)(=~|=|!=|!~)"([^"]*)"', matchers or ""), rated is not None


@pytest.mark.parametrize("what", ASKED)
def test_what_is_asked_for_exists(what: str) -> None:
    known, expression = samples(), ASKED[what]
    asked = list(selectors(expression))
    assert asked, "asks for nothing"
    possible: set[str] = set()
    for name, matchers, rated in asked:
        kind, labels = known.get(name) or ("gauge", OF_PROMETHEUS[name])
        assert rated == (kind == "counter"), f"{name} is a {kind}"
        possible |= labels | AROUND
        for label, operator, value in matchers:
            assert label in labels | AROUND, f"{name} has no label {label}"
            if label == "job":
                assert value in SCRAPES
            elif operator == "=" and name not in OF_PROMETHEUS:
                assert value in WORDS[name, label], f"{name} is never {label}={value}"
    for labels_by in re.findall(r"\bby \(([^)]*)\)", expression):
        assert {label.strip() for label in labels_by.split(",")} <= possible


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["labels"]["severity"] in {"page", "ticket"}
    document, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert (ROOT / document, anchor) == (DOCS / "operations.md", name.lower())
    assert anchor in anchors(DOCS / "operations.md")
    for label in re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])):
        assert re.search(rf"by \([^)]*\b{label}\b", rule["expr"]), f"its series have no label {label}"


def test_every_runbook_belongs_to_an_alert() -> None:
    headings = re.findall(r"^#+ (Fluxgate\w+)$", (DOCS / "operations.md").read_text(), re.M)
    assert headings == list(dict.fromkeys(headings))
    assert set(headings) == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_case_that_fires_and_one_that_does_not(name: str) -> None:
    expected = f'ALERTS{{alertname="{name}",alertstate="firing"}}'
    fires = {
        bool(asked["exp_samples"])
        for case in CASES
        for asked in case["promql_expr_test"]
        if asked["expr"] == expected
    }
    assert fires == {True, False}


def test_each_service_that_has_metrics_is_scraped_on_its_port() -> None:
    assert set(SCRAPES) == {"web", "fulfillment", "gatekeeper"}
    port = int(COMPOSE["web"]["environment"]["FLUXGATE_METRICS_PORT"])
    for job, scrape in SCRAPES.items():
        [found] = scrape["dns_sd_configs"]
        assert found["names"] == [job]
        assert found["port"] == port
        assert COMPOSE[job]["networks"][0] == "backend"
        if job != "web":
            assert COMPOSE[job]["command"][3:5] == ["--metrics-port", str(port)]


def test_the_dashboard_is_one_screen_of_panels_that_do_not_overlap() -> None:
    ids = [panel["id"] for panel in PANELS]
    assert len(ids) == len(set(ids)) > 10
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not taken & cells, panel["title"]
        taken |= cells
    # Grafana's grid is 24 wide; 22 rows of it fit on a screen of 1080 lines without scrolling.
    assert taken == {(x, y) for x in range(24) for y in range(22)}


def test_the_dashboard_asks_the_data_source_that_is_chosen() -> None:
    [variable] = DASHBOARD["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    chosen = {"type": "prometheus", "uid": "${datasource}"}

    def sources(part: Any) -> Iterator[Any]:
        if isinstance(part, dict):
            for name, value in part.items():
                yield from [value] if name == "datasource" else sources(value)
        elif isinstance(part, list):
            for value in part:
                yield from sources(value)

    found = list(sources(DASHBOARD))
    assert len(found) >= 2 * len(PANELS)
    assert all(source == chosen for source in found)


def test_a_dashboard_that_grafana_has_never_seen_can_be_imported() -> None:
    """The fields that Grafana needs; an `id` would be that of somebody else's database."""
    assert "id" not in DASHBOARD
    assert {"uid", "title", "schemaVersion", "panels", "templating", "time", "refresh"} <= set(DASHBOARD)
    assert all(
        {"id", "type", "title", "gridPos", "targets", "fieldConfig", "options"} <= set(p) for p in PANELS
    )
    assert {panel["type"] for panel in PANELS} <= {"stat", "timeseries", "table"}
