"""`manage.py stack`, run as an operator runs it: what it starts outlives it."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from management.embedded import Stack
from tests.management.running import processes_in

CHECKOUT = Path(__file__).resolve().parents[2]


def manage(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, CHECKOUT / "manage.py", "stack", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "a stack"
    yield root
    Stack(root).down(wipe=True)


def test_up_status_down(root: Path) -> None:
    nothing = manage("status", "--root", root)
    assert nothing.stdout == f"No servers in {root}: `manage.py stack up` starts them.\n"

    up = manage("up", "--root", root)
    assert (up.returncode, up.stderr) == (0, "")
    assert up.stdout.count(" running ") == 4
    assert "keeps its log in memory" in up.stdout
    assert len(processes_in(root)) >= 4

    # From another process: it knows them.
    assert manage("status", "--root", root).stdout == up.stdout

    down = manage("down", "--root", root)
    assert (down.returncode, down.stdout, down.stderr) == (0, "", "")
    assert processes_in(root) == []
    assert manage("status", "--root", root).stdout.count(" stopped ") == 4


def test_what_cannot_be_done_is_one_line_and_an_exit_code(root: Path) -> None:
    answer = manage("up", "--brokers", 3, "--root", root)
    assert answer.returncode == 1
    assert (
        answer.stderr == "CommandError: there is no stack of 3 tansu brokers: tansu runs 1, apache 1 or 3\n"
    )
    assert processes_in(root) == []


@pytest.mark.parametrize(
    ("port", "complaint"),
    [
        ("shop=8000", "there is no server shop: ports can be given to cache, gate, kafka, postgres"),
        ("gate=99999", "'gate=99999' is not SERVER=PORT"),
        ("gate", "'gate' is not SERVER=PORT"),
    ],
)
def test_a_port_that_makes_no_sense_is_named(root: Path, port: str, complaint: str) -> None:
    with pytest.raises(CommandError, match=f"{re.escape(complaint)}$"):
        call_command("stack", "up", "--port", port, "--root", str(root))
    assert processes_in(root) == []
