"""The health file: one line of JSON that says what a process without a port is doing.

Its age tells whether the loop turns, its text what it is busy with: a consumer that waits for
PostgreSQL is well and says so, one whose loop hangs lets the file grow old. Replaced in one step, so
that a reader never sees half of it; gone when the process has ended in order.
"""

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog

EVERY_SECONDS = 1.0
# A step that waits for PostgreSQL's pool and for the broker takes some ten seconds: older is not well.
STALE_SECONDS = 30

logger = structlog.get_logger(__name__)


class HealthFile:
    """Opened with the process, closed with it. Raises OSError where the first line cannot be written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._new = path.with_name(f".{path.name}.{os.getpid()}")
        self._due = 0.0
        self._write({"state": "starting"})

    def say(self, what: Callable[[], dict[str, Any]]) -> None:
        """Once a second at most. A disk that is full is no reason to end: the file grows old."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + EVERY_SECONDS
        try:
            self._write(what())
        except OSError as error:
            logger.warning("health file not written", path=str(self._path), error=str(error))

    def close(self) -> None:
        for path in (self._path, self._new):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def __enter__(self) -> "HealthFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, what: dict[str, Any]) -> None:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._new.write_text(json.dumps({**what, "at": at, "pid": os.getpid()}) + "\n")
        self._new.replace(self._path)
