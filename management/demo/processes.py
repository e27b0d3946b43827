"""The site's processes, as a supervisor would run them: gunicorn, consumers, the gatekeeper."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from management.embedded.processes import last_lines

CHECKOUT = Path(__file__).resolve().parents[2]
READY_SECONDS = 60.0
# Longer than gunicorn's graceful_timeout, after which it ends its workers itself.
DRAIN_SECONDS = 35.0


class Broken(Exception):
    """A process of the site ended by itself or never became ready. One line, then its log's last lines."""


@dataclass
class Running:
    name: str
    log: Path
    process: "subprocess.Popen[bytes]"

    def ending(self, what: str) -> Broken:
        return Broken(f"{self.name} {what}; {self.log} ends with:\n{last_lines(self.log)}")


class Processes:
    """Starts them, watches them, ends them. Logs go to the folder `logs`."""

    def __init__(self, environment: Mapping[str, str], logs: Path) -> None:
        self._environment = os.environ | dict(environment)
        self._logs = logs
        self._running: list[Running] = []
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, *command: str) -> Running:
        """Runs a command of Python in the checkout, in a session of its own: Ctrl-C is for the demo alone,
        which ends things in their order."""
        log = self._logs / f"demo-{name.replace(' ', '-')}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, *command],
                cwd=CHECKOUT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running = Running(name, log, process)
        self._running.append(running)
        return running

    def check(self) -> None:
        """Raises Broken when a process has ended that nobody has ended."""
        for running in self._running:
            if (code := running.process.poll()) is not None:
                raise running.ending(f"ended by itself with code {code}")

    def wait_until_answers(self, running: Running, url: str) -> None:
        """Returns when a GET says 200. Raises Broken."""
        deadline = time.monotonic() + READY_SECONDS
        while not _says_ok(url):
            self.check()
            if time.monotonic() > deadline:
                raise running.ending(f"does not answer {url} after {READY_SECONDS:.0f} s")
            time.sleep(0.05)

    def kill(self, running: Running) -> None:
        """kill -9: no handler runs, nothing is finished."""
        running.process.kill()
        running.process.wait()
        self._running.remove(running)

    def stop(self, name: str | None = None) -> list[str]:
        """SIGTERM to the one of this name, or to all, and the wait for their drain.

        Returns the names of those that had to be killed.
        """
        ending = [running for running in self._running if name in (None, running.name)]
        for running in ending:
            if running.process.poll() is None:
                running.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + DRAIN_SECONDS
        killed = []
        for running in ending:
            try:
                running.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                killed.append(running.name)
                os.killpg(running.process.pid, signal.SIGKILL)  # its session is its process group
                running.process.wait()
            self._running.remove(running)
        return killed


def _says_ok(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  # our own http URL
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
