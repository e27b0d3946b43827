"""Shares the jobs out to lanes, each a process with servers of its own, and collects the results."""

import itertools
import json
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from management.embedded import JARS, Stack
from tests.chaos.registry import Result, Row, Twin

MOST_SECONDS = 240.0  # for one row; then its lane is given up
CHECKOUT = Path(__file__).resolve().parents[2]
COMPLAINTS = CHECKOUT / ".fluxgate" / "chaos"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Job:
    row: Row
    twin: Twin | None = None


class Lanes:
    """At most `count` lanes at a time. A lane is of one kind of stack; a new kind replaces it."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._jobs: list[Job] = []
        self._lock = threading.Lock()
        self._results: queue.Queue[tuple[Job, Result] | None] = queue.Queue()
        self._lanes: list[_Lane] = []
        self._stopped = False

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Result]]:
        """Each job with its result, as they come. Whatever happens, no lane is left behind."""
        # The longest first, so that the lanes end together; the twins after the rows.
        self._jobs = sorted(jobs, key=lambda job: (job.twin is not None, -job.row.seconds))
        threads = [
            threading.Thread(target=self._work, daemon=True) for _ in range(min(self._count, len(jobs)))
        ]
        for thread in threads:
            thread.start()
        try:
            for _ in jobs:
                yield self._results.get()  # type: ignore[misc]
        finally:
            self._stopped = True
            for lane in list(self._lanes):
                lane.close()
            for thread in threads:
                thread.join(30)

    def _work(self) -> None:
        lane: _Lane | None = None
        try:
            while not self._stopped and (job := self._next(lane.stack if lane else "")):
                if lane is None or lane.stack != job.row.stack or not lane.alive:
                    if lane is not None:
                        self._close(lane)
                    lane = _Lane(job.row.stack)
                    self._lanes.append(lane)
                self._results.put((job, lane.run(job)))
        finally:
            if lane is not None:
                self._close(lane)

    def _next(self, stack: str) -> Job | None:
        """The longest job for a lane of this stack, else of any."""
        with self._lock:
            for job in self._jobs:
                if job.row.stack == stack:
                    break
            else:
                if not self._jobs:
                    return None
                job = self._jobs[0]
            self._jobs.remove(job)
            return job

    def _close(self, lane: "_Lane") -> None:
        lane.close()
        if lane in self._lanes:
            self._lanes.remove(lane)


class _Lane:
    """One lane's process, spoken to in lines of JSON."""

    def __init__(self, stack: str) -> None:
        self.stack = stack
        self._root: Path | None = None
        COMPLAINTS.mkdir(parents=True, exist_ok=True)
        complaints = (COMPLAINTS / f"lane-{stack}-{next(_numbers)}.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.lane", stack],
            cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True,
        )  # fmt: skip
        complaints.close()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def run(self, job: Job) -> Result:
        if self._root is None:
            hello = self._line()
            if hello is None:
                return Result(violations=[f"unfit: the {self.stack} stack does not start"])
            self._root = Path(hello["root"])
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(
                json.dumps({"row": job.row.name, "twin": job.twin.name if job.twin else ""}) + "\n"
            )
            self._process.stdin.flush()
        except OSError:
            return Result(violations=["unfit: the lane has ended"])
        answer = self._line()
        if answer is None:
            self.close()
            return Result(violations=[f"unfit: the lane ended, or took more than {MOST_SECONDS:.0f} s"])
        return Result(**answer)

    def close(self) -> None:
        """Lets it end what it has started; what a lane leaves that had to be killed is ended here."""
        if self.alive:
            self._process.terminate()
            try:
                self._process.wait(40)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._root is not None and self._root.exists():
            Stack(root=self._root, jars=JARS).down(wipe=True)
            shutil.rmtree(self._root, ignore_errors=True)

    def _line(self) -> dict[str, Any] | None:
        """The next line it says, or None when it ends or says nothing for too long."""
        killer = threading.Timer(MOST_SECONDS, self._process.terminate)
        killer.start()
        try:
            assert self._process.stdout is not None
            line = self._process.stdout.readline()
        finally:
            killer.cancel()
        return json.loads(line) if line else None
