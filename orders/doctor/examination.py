"""Runs the checks beside each other, each for a bounded time: one that hangs or breaks stops no other."""

import threading
import time
from collections.abc import Mapping

from django.db import connections

from orders.doctor import clocks, kafka, postgres, processes, redis_servers
from orders.doctor.finding import Check, Finding, Level, line

# Longer than the sum of what one check waits for in its servers.
SECONDS = 25.0

CHECKS: Mapping[str, Check] = {
    "PostgreSQL": postgres.examine,
    "gate": redis_servers.examine_gate,
    "cache": redis_servers.examine_cache,
    "Kafka": kafka.examine,
    "clocks": clocks.examine,
    "processes": processes.examine,
}


def examine(checks: Mapping[str, Check] = CHECKS, seconds: float = SECONDS) -> list[Finding]:
    """What every check has found, in their order. Never raises, and takes `seconds` at most."""
    found: dict[str, list[Finding]] = {area: [] for area in checks}
    threads = {
        area: threading.Thread(target=_run, args=(area, check, found[area]), daemon=True)
        for area, check in checks.items()
    }
    deadline = time.monotonic() + seconds
    for thread in threads.values():
        thread.start()
    for area, thread in threads.items():
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            # A list of its own: what comes later is not told.
            found[area] = [*found[area], Finding(area, Level.FAIL, f"no answer within {seconds:g} s")]
    return [finding for findings in found.values() for finding in findings]


def _run(area: str, check: Check, found: list[Finding]) -> None:
    try:
        for finding in check():
            found.append(finding)
    except Exception as error:  # whatever it is, the other checks go on
        found.append(Finding(area, Level.FAIL, line(error)))
    finally:
        connections.close_all()  # of this thread
