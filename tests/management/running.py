"""What runs, asked of the machine and not of the stack's own record."""

import time
from collections.abc import Callable
from pathlib import Path

import psutil


def processes_in(root: Path) -> list[str]:
    """Command lines of the processes that work below `root`, or below what its symbolic links point at."""
    places = [root.resolve(), *(path.resolve() for path in root.glob("*") if path.is_symlink())]
    found = []
    for process in psutil.process_iter():
        try:
            where = Path(process.cwd())
            if process.status() != psutil.STATUS_ZOMBIE and any(
                where.is_relative_to(place) for place in places
            ):
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return found


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1].split("/")[0])


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Until `condition` holds. Raises AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)
