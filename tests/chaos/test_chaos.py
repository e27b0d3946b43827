"""A few rows of `make chaos` in every test run, and two of its broken twins. All of them: `make chaos`."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running_site import eventually

CHECKOUT = Path(__file__).resolve().parents[2]
ROWS = ["web-after-gate", "consumer-fulfill.after-rows", "gate-empty"]
TWINS = ["new-id-per-request", "stock-before-key"]
pytestmark = pytest.mark.timeout(300)  # on a machine that does other things as well


def chaos(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.chaos", *arguments],
        cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def report() -> tuple[int, str]:
    """The code with which the selection ended, and what it printed."""
    with chaos("--rows", ",".join(ROWS), "--twins", ",".join(TWINS)) as running:
        printed, _ = running.communicate()
        return running.returncode, printed


@pytest.mark.parametrize("name", ROWS)
def test_row_holds(report: tuple[int, str], name: str) -> None:
    _, printed = report
    line = re.search(rf"^{re.escape(name)} .*$", printed, re.M)
    assert line, printed
    assert line[0].endswith("held"), printed
    promised, confirmed, lost, oversold = map(int, re.findall(r" (\d+)(?= )", line[0])[-4:])
    assert promised > 50
    assert (confirmed >= promised, lost, oversold) == (True, 0, 0)


@pytest.mark.parametrize("name", TWINS)
def test_twin_fails(report: tuple[int, str], name: str) -> None:
    code, printed = report
    line = re.search(rf"^{re.escape(name)} .*$", printed, re.M)
    assert line, printed
    assert "NOT CAUGHT" not in line[0]
    assert code == 0, printed


def test_every_row_and_twin_has_a_name_and_a_line() -> None:
    with chaos("--list") as running:
        printed, _ = running.communicate()
    lines = printed.splitlines()
    assert len([line for line in lines if not line.startswith("twin ")]) >= 40
    assert len([line for line in lines if line.startswith("twin ")]) >= 12


def test_an_unknown_row_is_an_error() -> None:
    with chaos("--rows", "no-such-row") as running:
        printed, _ = running.communicate()
    assert (running.returncode, "no-such-row" in printed) == (1, True)


def test_ctrl_c_leaves_nothing_behind() -> None:
    with chaos("--rows", "one-key-200-times", "--lanes", "1") as running:
        eventually(lambda: len(_descendants(running.pid)) > 8, 60)  # lane, servers, site
        started = _descendants(running.pid)
        os.killpg(running.pid, signal.SIGINT)
        running.communicate()
    assert running.returncode != 0
    eventually(lambda: not [pid for pid in started if _runs(pid)], 30)


def _descendants(root: int) -> set[int]:
    """Every process below this one; servers have sessions of their own, and stay its descendants."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = status.read_text().split(" ", 1)
        except OSError:
            continue
        parents[int(pid)] = int(rest.rpartition(")")[2].split()[1])
    found, before = {root}, -1
    while len(found) != before:
        before = len(found)
        found |= {pid for pid, parent in parents.items() if parent in found}
    return found


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
