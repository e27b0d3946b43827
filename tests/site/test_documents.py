"""The documents, held against the code: what a test can keep true, a test keeps true."""

import json
import re
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import yaml
from django.core.management import call_command, get_commands, load_command_class
from prometheus_client import REGISTRY

import orders.metrics  # noqa: F401  # registers what this file looks for
import waitingroom.metrics  # noqa: F401
from fluxgate_site import checks
from fluxgate_site.environment import Environment
from management.demo.options import add_arguments
from orders import claims
from orders.schemas import OrderStatus
from sales.gate import Verdict
from sales.phases import Phase, UnitsLeft
from sales.problems import CATALOGUE

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
API = (DOCS / "api.md").read_text()
ARCHITECTURE = (DOCS / "architecture.md").read_text()
OPERATIONS = (DOCS / "operations.md").read_text()
README = (ROOT / "README.md").read_text()
OURS = {name for name, app in get_commands().items() if app == "management"}


def code_of(text: str) -> str:
    """What a document sets as code: fenced blocks and `spans`, a line each."""
    fenced = re.findall(r"^```.*?\n(.*?)^```", text, re.S | re.M)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))
    return "\n".join([*fenced, *spans])


def rows(text: str, section: str) -> list[list[str]]:
    """The cells of the tables in one section of a document, without head lines."""
    start = re.search(rf"^#+ {re.escape(section)}$", text, re.M)
    assert start, f"there is no section {section!r}"
    body = re.split(r"^#", text[start.end() :], maxsplit=1, flags=re.M)[0]
    lines = [line for line in body.splitlines() if line.startswith("|")]
    divided = [re.split(r"(?<!\\)\|", line.strip("|")) for line in lines]
    heads = {
        i for i, line in enumerate(lines) if i + 1 < len(lines) and re.fullmatch(r"[|\-: ]+", lines[i + 1])
    }
    return [
        [cell.strip() for cell in cells]
        for i, cells in enumerate(divided)
        if i not in heads and not re.fullmatch(r"[|\-: ]+", lines[i])
    ]


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# Settings


def examples() -> dict[str, tuple[str, str]]:
    """Of .env.example: the variable, its reason (the comment above it) and its value."""
    found = {}
    lines = (ROOT / ".env.example").read_text().splitlines()
    for above, line in pairwise(lines):
        if match := re.fullmatch(r"#(FLUXGATE_[A-Z_]+)=(.*)", line):
            assert match[1] not in found, f"{match[1]} stands there twice"
            found[match[1]] = (above, match[2])
    return found


def test_every_setting_is_an_example_and_every_example_a_setting() -> None:
    assert set(examples()) == {f"FLUXGATE_{name.upper()}" for name in Environment.model_fields}


@pytest.mark.parametrize("name", sorted(Environment.model_fields))
def test_an_example_has_the_default_and_a_reason(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reason, value = examples()[f"FLUXGATE_{name.upper()}"]
    assert re.fullmatch(r"# \S.{15,}", reason), f"no reason above FLUXGATE_{name.upper()}"
    monkeypatch.setenv(f"FLUXGATE_{name.upper()}", value)
    read = Environment(_env_file=None)  # type: ignore[call-arg]
    assert getattr(read, name) == Environment.model_fields[name].get_default(call_default_factory=True)


def test_a_copied_example_changes_nothing() -> None:
    # A `.env` is stronger than the stack's own file: an active line would take the stack away.
    assert all(line.startswith("#") for line in (ROOT / ".env.example").read_text().splitlines() if line)


@pytest.mark.parametrize("document", NAMES)
def test_settings_that_a_document_names_exist(document: str) -> None:
    named = set(re.findall(r"FLUXGATE_[A-Z]+(?:_[A-Z]+)*", (ROOT / document).read_text()))
    assert named <= set(examples())


def test_the_checks_are_documented() -> None:
    source = Path(checks.__file__).read_text()
    numbers = set(re.findall(r'id="fluxgate\.([EW]\d+)"', source))
    assert numbers
    assert numbers == set(re.findall(r"`(?:fluxgate\.)?([EW]\d{3})`", OPERATIONS))


# Commands


def test_every_command_of_ours_is_documented() -> None:
    documented = {codes(cells[0])[0].split()[1] for cells in rows(OPERATIONS, "Commands") if codes(cells[0])}
    assert not OURS - documented


@pytest.mark.parametrize("document", NAMES)
def test_commands_that_a_document_names_exist(document: str) -> None:
    code = code_of((ROOT / document).read_text())
    assert set(re.findall(r"manage\.py ([a-z_]+)", code)) <= set(get_commands())
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"\bmake ([a-z-]+)", code)) <= targets


def options_of(command: str) -> set[str]:
    """Every option of a command, those of its actions included."""
    found: set[str] = set()
    waiting: list[ArgumentParser] = [
        load_command_class(get_commands()[command], command).create_parser("manage.py", command)
    ]
    while waiting:
        for action in waiting.pop()._actions:
            found |= set(action.option_strings)
            if isinstance(action, _SubParsersAction):
                waiting += action.choices.values()
    return found


def test_options_that_are_documented_exist() -> None:
    command, seen = "", 0
    for cells in rows(OPERATIONS, "Commands"):
        command = codes(cells[0])[0].split()[1] if codes(cells[0]) else command
        named = {part for code in codes(" ".join(cells)) for part in code.split() if part.startswith("--")}
        seen += len(named)
        assert named <= options_of(command), command
    assert seen > 10


def test_options_of_examples_exist() -> None:
    for name, text in zip(NAMES, map(Path.read_text, DOCUMENTS), strict=True):
        for command, rest in re.findall(r"manage\.py ([a-z_]+)([^\n`|#)]*)", code_of(text)):
            assert set(re.findall(r"--[a-z-]+", rest)) <= options_of(command), f"{name}: {command}"


# The API


def test_every_problem_is_documented_with_its_status_and_no_other() -> None:
    documented = [(int(status), slug) for status, slug in re.findall(r"\| (\d{3}) \| `([a-z-]+)` \|", API)]
    assert sorted(documented) == sorted((problem.status, problem.slug) for problem in CATALOGUE)


def test_verdicts_are_the_gates_words() -> None:
    verdicts = {str(verdict) for verdict in Verdict}
    [row] = [cells for cells in rows(ARCHITECTURE, "Words") if cells[0].startswith("attempt, verdict")]
    assert set(codes(row[1])) == verdicts
    [words] = re.findall(r"its words for them are (.*?)\. A definite", API, re.S)
    assert set(codes(words)) == verdicts


def test_states_phases_and_bands() -> None:
    states = get_args(OrderStatus.model_fields["state"].annotation)
    documented = [codes(cells[0])[0] for cells in rows(API, "Following an order")]
    assert sorted(documented) == sorted(states)
    facts = API.partition("## Sale facts")[2].partition("## ")[0]
    for word in (*get_args(Phase), *get_args(UnitsLeft)):
        assert f"`{word}`" in facts


def test_openapi_json_is_the_codes() -> None:
    written = StringIO()
    call_command(
        "export_openapi_schema", api="fluxgate_site.api.api", indent=2, sort_keys=True, stdout=written
    )
    assert (ROOT / "openapi.json").read_text().strip() == written.getvalue().strip(), "run `make openapi`"


def test_every_call_is_documented() -> None:
    paths: dict[str, Any] = json.loads((ROOT / "openapi.json").read_text())["paths"]
    calls = {
        f"{method.upper()} {re.sub('{order_id}', '{id}', path)}" for path in paths for method in paths[path]
    }
    documented = {code for cells in rows(API, "Calls") for code in codes(cells[0])}
    assert calls == {call for call in documented if "/api/" in call}


# The log


def bare(schema: Any) -> Any:
    """A schema without what is only said to people."""
    if isinstance(schema, dict):
        return {
            name: bare(part)
            for name, part in schema.items()
            if not (name in ("title", "description") and isinstance(part, str))
        }
    return [bare(part) for part in schema] if isinstance(schema, list) else schema


def test_asyncapi_describes_the_records() -> None:
    document = yaml.safe_load((DOCS / "asyncapi.yaml").read_text())
    described = document["components"]["schemas"]
    _, schemas = msgspec.json.schema_components(
        [claims.Claim, claims.Cancel, claims.Barrier], ref_template="#/components/schemas/{name}"
    )
    assert {name: bare(described[name]) for name in schemas} == bare(schemas)
    for kind in ("claim", "cancel", "barrier"):
        golden = json.loads((ROOT / f"tests/orders/golden/{kind}.v1.json").read_text())
        headers = described["Headers"]
        assert set(golden["headers"]) == set(headers["properties"])
        assert set(headers["required"]) == set(golden["headers"]) - {"traceparent"}
        for name, rule in headers["properties"].items():
            allowed = rule.get("enum") or [rule.get("const", golden["headers"][name])]
            assert golden["headers"][name] in allowed
    channel = document["channels"]["orders"]
    assert channel["address"] == Environment.model_fields["kafka_topic"].default
    assert channel["bindings"]["kafka"]["partitions"] == Environment.model_fields["kafka_partitions"].default


# Metrics


def test_every_metric_is_documented_with_its_labels() -> None:
    registered = {}
    for collector in set(REGISTRY._collector_to_names):
        for metric in collector.describe() if hasattr(collector, "describe") else ():
            if metric.name.startswith("fluxgate_"):
                name = metric.name + ("_total" if metric.type == "counter" else "")
                registered[name] = set(collector._labelnames)  # type: ignore[attr-defined]
    assert registered
    documented = {codes(cells[0])[0]: set(codes(cells[1])) for cells in rows(OPERATIONS, "Metrics")}
    assert documented == registered


# The demo's output in README


def defaults() -> dict[str, Any]:
    parser = ArgumentParser()
    add_arguments(parser)
    return vars(parser.parse_args([]))


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found, pattern
    return int(found[1].replace(",", ""))


def test_the_demos_output_is_one_whole_run_with_the_defaults() -> None:
    [output] = re.findall(r"^```text\n\$ make demo\n(.*?)^```", README, re.S | re.M)
    knobs = defaults()
    buyers, units = knobs["buyers"], knobs["units"]
    clicks = round(buyers * (1 + knobs["double_clicks"] / 100 + knobs["greedy"] / 100))
    assert f"{buyers:,} buyers, {units:,} units, {clicks:,} clicks" in output
    assert f"balanced: {units:,} sold, 0 oversold, 0 lost" in output
    table = output.partition("last answer")[2].partition("from the opening")[0]
    kinds = {
        kind.strip(): int(count.replace(",", ""))
        for kind, count in re.findall(r"│ ([a-z, ]+?) {2,}([\d,]+) ", table)
        if not kind.startswith(("all ", "asked"))
    }
    assert sum(kinds.values()) == clicks
    accepted = sum(kinds.get(kind, 0) for kind in ("accepted", "accepted, held", "replayed"))
    assert number(r"all accepted +([\d,]+)", output) == accepted
    assert number(r"log +([\d,]+) records appended, 0 unread, 0 parked", output) >= units
    assert number(r"order book +([\d,]+) confirmed", output) == units
    assert number(r"([\d,]+) of them in PostgreSQL", output) == units


def test_the_demo_still_prints_these_lines() -> None:
    [output] = re.findall(r"^```text\n\$ make demo\n(.*?)^```", README, re.S | re.M)
    labels = set(re.findall(r"^([a-z][a-z ]*?) {2,}", output, re.M))
    labels |= set(re.findall(r"^│ ([a-z][a-z, ]*?) {2,}", output, re.M)) & {"from the opening", "log", "gate"}
    assert len(labels) > 8
    text = source()
    assert [label for label in labels if f'"{label}' not in text] == []


# Logs and messages


def source() -> str:
    packages = ("fluxgate_site", "management", "orders", "sales", "waitingroom")
    return "".join(path.read_text() for package in packages for path in (ROOT / package).rglob("*.py"))


def test_events_that_are_documented_are_logged() -> None:
    events = [event for cells in rows(OPERATIONS, "Logs") for event in codes(cells[0])]
    assert len(events) > 5
    text = source()
    assert [event for event in events if f'"{event}"' not in text] == []


# Links, files, tests


def anchors(document: Path) -> set[str]:
    """As GitHub makes them of headings."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.S | re.M)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(document: Path) -> Iterator[str]:
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.S | re.M)
    yield from re.findall(r"\]\(([^)\s]+)\)", text)
    yield from re.findall(r'(?:src|srcset|href)="([^"]+)"', text)


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_links_and_images_lead_somewhere(document: Path) -> None:
    for link in links(document):
        if link.startswith("https://"):
            continue
        address, _, anchor = link.partition("#")
        target = (document.parent / address).resolve() if address else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", NAMES)
def test_files_and_tests_that_a_document_names_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    sources = {path.name: path for path in (ROOT / "tests").rglob("test_*.py")}
    assert set(re.findall(r"\btest_\w+\.py", text)) <= set(sources)
    functions = {
        name for path in sources.values() for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    for name in re.findall(r"`(test_\w+)`", text):
        assert name in functions, name
    folders = r"(?:sales|orders|waitingroom|fluxgate_site|management|tests|docs|templates|deploy)"
    for path in re.findall(rf"`({folders}/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path


def test_every_test_file_of_a_promise_is_in_the_architecture() -> None:
    tested = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    missing = tested - set(re.findall(r"\[(test_\w+\.py)\]", ARCHITECTURE))
    assert not missing, "name them in docs/architecture.md, “What is tested where”"


def test_every_decision_is_in_the_index() -> None:
    pages = {path.name: path.read_text().splitlines()[0] for path in (DOCS / "adr").glob("0*.md")}
    index = {
        address: f"# {number}. {title}"
        for number, address, title in re.findall(
            r"\| \[(\d{4})\]\(([^)]+)\) \| (.+) \|", (DOCS / "adr" / "README.md").read_text()
        )
    }
    assert index == pages
    numbers = sorted(int(name[:4]) for name in pages)
    assert numbers == list(range(1, len(numbers) + 1))
