"""`manage.py demo`, run as a visitor runs it: small, on servers of its own."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from management.embedded import Stack
from tests.management.running import processes_in, wait_for

CHECKOUT = Path(__file__).resolve().parents[2]
SMALL = ("--buyers", "300", "--units", "40", "--countdown", "1", "--connections", "64")

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("a demo") / "stack"
    yield root
    Stack(root).down(wipe=True)


@pytest.fixture
def demo(root: Path) -> Iterator[Start]:
    """Starts `manage.py demo` with these arguments; what is left at the end of the test is ended."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> "subprocess.Popen[str]":
        command = [sys.executable, CHECKOUT / "manage.py", "demo", "--root", root, *arguments]
        process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/"
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def finish(process: "subprocess.Popen[str]") -> str:
    """What it printed to its end."""
    output, _ = process.communicate(timeout=110)
    return output


def running_for(root: Path) -> list[str]:
    """Servers in `root`, and processes of a site that writes into its database."""
    password = (root / "password").read_text()
    found = processes_in(root)
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and password in process.environ().get("FLUXGATE_DATABASE_URL", ""):
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return found


def test_a_small_sale_day_ends_balanced_and_leaves_nothing_running(
    demo: Start, root: Path, tmp_path: Path
) -> None:
    process = demo(*SMALL, "--json", tmp_path / "report.json", "--seed", "7")
    output = finish(process)

    assert process.returncode == 0, output
    assert "balanced: 40 sold, 0 oversold, 0 lost" in output
    for address in ("store front http://", "/admin/ (user admin, password ", "/api/v1/docs"):
        assert address in output
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["verdict"], report["wrong"], report["seed"]) == ("balanced", [], 7)
    assert report["clicks"] == 300 + 60 + 30
    assert (report["sold"], report["durable"], report["orders_accepted"]) == (40, 40, 40)
    assert report["records"] >= 40
    assert (report["double_clicks"], report["double_clicks_apart"]) == (60, 0)
    assert report["customers_above_limit"] == 0
    assert sum(kind["count"] for kind in report["kinds"].values()) == report["clicks"]
    assert report["kinds"]["replayed"]["count"] > 0
    assert report["kinds"]["limit-reached"]["count"] > 0
    assert report["books"]["verdict"] == "balanced"
    assert report["books"]["gate"]["settled"] == 40
    assert running_for(root) == []


@pytest.mark.kafka
def test_a_killed_consumer_is_made_up_for_and_a_stack_that_ran_goes_on(
    demo: Start, root: Path, tmp_path: Path
) -> None:
    kafka = os.environ.get("FLUXGATE_TEST_KAFKA", "tansu")
    Stack(root).up(kafka)
    # Slowly, so that rows are still to come when the first are there.
    slow = ("--units", "150", "--seconds", "6", "--kill-consumer")
    process = demo(*SMALL, *slow, "--json", tmp_path / "report.json")
    output = finish(process)

    assert process.returncode == 0, output
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["verdict"] == "balanced"
    assert report["kill"]["consumer"] in ("consumer 1", "consumer 2")
    assert 0 < report["kill"]["rows"] < 150
    assert report["kill"]["standstill"] > 0
    assert (report["sold"], report["durable"], report["lost"]) == (150, 150, 0)
    assert {row.state for row in Stack(root).status()} == {"running"}
    assert not [command for command in running_for(root) if "gunicorn" in command or "manage.py" in command]

    other = finish(demo("--kafka", "apache" if kafka == "tansu" else "tansu"))
    assert re.fullmatch(r"CommandError: .* runs with --kafka \w+: `manage.py stack down` first\n", other)
    Stack(root).down()


def test_what_stays_can_be_bought_and_ends_with_ctrl_c(demo: Start, root: Path) -> None:
    process = demo("--buyers", "20", "--units", "5", "--countdown", "0", "--seconds", "0.1", "--stay")
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C ends it" in line:
            break
    output = "".join(lines)
    assert "balanced: 5 sold" in output
    found = re.search(r"store front (http://\S+)/\n", output)
    assert found
    url = found[1]

    # Another one would share the log with this one.
    assert finish(demo(*SMALL)) == f"CommandError: another demo runs in {root}\n"

    sales = {sale["name"]: sale for sale in requests.get(f"{url}/api/v1/sales", timeout=10).json()["sales"]}
    assert sales["First print run"]["phase"] == "selling"
    assert sales["Evening edition"]["phase"] == "upcoming"
    assert "First print run" in requests.get(url, timeout=10).text
    token = requests.post(f"{url}/demo/token", timeout=10).json()["token"]
    buyer = {"Authorization": f"Bearer {token}", "Idempotency-Key": "by-hand", "Accept": "application/json"}
    bought = requests.post(
        url + sales["First print run"]["orders_url"], json={"quantity": 1}, headers=buyer, timeout=10
    )
    assert bought.status_code == 202

    def state() -> Any:
        return requests.get(url + bought.json()["status_url"], headers=buyer, timeout=10).json()["state"]

    wait_for(lambda: state() == "confirmed", seconds=20)

    def ticket() -> requests.Response:
        address = sales["By lot"]["orders_url"].replace("orders", "tickets")
        return requests.post(url + address, json={}, headers=buyer, timeout=10)

    wait_for(lambda: ticket().status_code == 200, seconds=20)
    assert ticket().json()["state"] == "prequeue"

    process.send_signal(signal.SIGINT)
    finish(process)
    assert process.returncode == 0
    assert running_for(root) == []


def test_ctrl_c_in_the_middle_ends_everything(demo: Start, root: Path) -> None:
    process = demo(*SMALL)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("site"):
            break
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)  # impatience changes nothing
    output = finish(process)

    assert process.returncode == 130
    assert "Traceback" not in output
    assert running_for(root) == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--buyers", "0"], "argument --buyers: '0' is not a whole number from 1 to 50000"),
        (["--json", "/nowhere/at/all.json"], "--json /nowhere/at/all.json: no file can be written there"),
        (["--root", "/dev/null/here"], "cannot write to /dev/null/here: Not a directory"),
    ],
)
def test_what_cannot_be_run_is_one_line_and_starts_nothing(
    arguments: list[str], complaint: str, demo: Start, root: Path
) -> None:
    process = demo(*arguments)
    output = finish(process)

    assert process.returncode != 0
    assert complaint in output
    assert output.count("\n") == 1
    assert running_for(root) == []
