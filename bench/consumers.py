"""So many processes of `manage.py run_fulfillment`, each with its share of the partitions."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.errors import Unfit
from bench.machine import family_seconds
from bench.processes import Process

_PATIENCE_SECONDS = 240.0
_END_SECONDS = 30.0
_POLL_SECONDS = 0.05


@contextmanager
def running(count: int, environment: Mapping[str, str], folder: Path) -> Iterator[list[Process]]:
    """They have begun all partitions. What they print is in `folder`. At the end each has to end well.

    Raises Unfit.
    """
    from django.conf import settings

    files = [folder / f"consumer-{number}.health" for number in range(count)]
    command = [sys.executable, "manage.py", "run_fulfillment", "--health-file"]
    processes = [
        Process(file.stem, [*command, str(file)], environment, file.with_suffix(".log")) for file in files
    ]
    try:
        wait_until(lambda: sum(map(_begun, files)) == settings.FLUXGATE.kafka_partitions, processes)
        yield processes
        for process in processes:
            process.ask_to_end()
        for process in processes:
            process.wait(_END_SECONDS)
    finally:
        for process in processes:
            process.stop()


@contextmanager
def standing_still(processes: list[Process]) -> Iterator[None]:
    for process in processes:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process.pid, signal.SIGCONT)


def wait_until(done: Callable[[], bool], processes: list[Process]) -> None:
    """Raises Unfit when one of them ends before, or the time does."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not done():
        for process in processes:
            process.check()
        if time.monotonic() > deadline:
            raise Unfit(f"the consumers do not get there: see {processes[0].log}")
        time.sleep(_POLL_SECONDS)


def cpu_seconds(processes: list[Process], servers: Mapping[str, int]) -> dict[str, float]:
    """So far, of all consumers together and of each server by its name."""
    own = sum(family_seconds(process.pid) for process in processes)
    return {"consumers": own} | {name: family_seconds(pid) for name, pid in servers.items()}


def _begun(health: Path) -> int:
    """How many partitions the consumer that writes there has begun, and still has."""
    try:
        said = json.loads(health.read_text())
    except (OSError, ValueError):
        return 0
    return len(said["partitions"]) if said["state"] == "ok" else 0
