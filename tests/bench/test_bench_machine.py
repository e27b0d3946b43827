"""What /proc and sysconfig say about the machine."""

import os
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench import machine

GNU = {"PGO_PROF_GEN_FLAG": "-fprofile-generate", "PGO_PROF_USE_FLAG": "-fprofile-use -fprofile-correction"}
PATIENCE_SECONDS = 60.0


def counted(seconds: Callable[[], float], enough: float) -> float:
    """How much CPU time has come on top, once it is enough or the patience has ended."""
    before, deadline = seconds(), time.monotonic() + PATIENCE_SECONDS
    while (more := seconds() - before) < enough and time.monotonic() < deadline:
        time.sleep(0.01)
    return more


@contextmanager
def parent_of(program: str) -> Iterator[int]:
    """A process that does nothing but wait for its one child, which runs `program`."""
    waiting = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {program!r}])"
    with subprocess.Popen([sys.executable, "-c", waiting], start_new_session=True) as parent:
        try:
            while not machine.children(parent.pid):
                assert parent.poll() is None
            yield parent.pid
        finally:
            os.killpg(parent.pid, 9)


# CPU time


def test_cpu_time_is_user_and_system_whatever_the_program_is_called() -> None:
    fields = "S 1 2 3 4 5 6 7 8 9 10 250 50 98 1 20 0 4 0 1234"
    assert machine.parse_cpu(f"4711 (a ) (b) {fields}") == 300 / machine.TICKS
    assert machine.parse_cpu(f"4711 (a ) (b) {fields}", ended=True) == 399 / machine.TICKS


def test_cpu_time_of_a_process_counts_its_threads() -> None:
    enough = threading.Event()

    def work() -> None:
        while not enough.is_set():
            sum(range(1000))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert counted(lambda: machine.cpu_seconds(os.getpid()), 0.1) >= 0.1
    finally:
        enough.set()
        thread.join()


def test_cpu_time_of_a_family_counts_the_child_that_works() -> None:
    with parent_of("while True: pass") as parent:
        alone = machine.cpu_seconds(parent)
        assert counted(lambda: machine.family_seconds(parent), 0.3) >= 0.3
        assert machine.cpu_seconds(parent) - alone < 0.3


def test_the_worker_is_the_only_child() -> None:
    with parent_of("import time; time.sleep(600)") as parent:
        assert Path(f"/proc/{machine.only_child(parent)}/stat").exists()


# The Python that serves


@pytest.mark.parametrize(
    ("variables", "optimized"),
    [
        (GNU | {"CONFIG_ARGS": "'--prefix=/usr' '--enable-optimizations' '--with-lto'"}, True),
        (GNU | {"CONFIG_ARGS": "'--prefix=/usr'", "PY_CORE_CFLAGS": "-O3 -Wall"}, False),
        (GNU | {"CONFIG_ARGS": "'--enable-shared'", "PGO_PROF_USE_FLAG": ""}, True),  # Debian 12
        (GNU | {"CONFIG_ARGS": "", "PY_CORE_CFLAGS": "-O3 -fprofile-use -fprofile-correction"}, True),
        ({"CONFIG_ARGS": "", "PY_CORE_LDFLAGS": "-fprofile-instr-use=code.profclangd"}, True),
        ({}, False),
    ],
)
def test_a_build_with_a_profile_is_told_from_a_plain_one(variables: dict[str, Any], optimized: bool) -> None:
    assert machine.optimized(variables) is optimized


def test_the_machine_is_described_with_the_build_of_this_python() -> None:
    described = machine.describe()
    assert described["python_optimized"] is machine.optimized(sysconfig.get_config_vars())
    assert machine.python(described).startswith(f"{sys.version.split()[0]} (")
