"""A process of the bench: started on its core, waited for, ended."""

import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.errors import Unfit
from management.embedded.processes import last_lines

CHECKOUT = Path(__file__).resolve().parents[1]
READY_SECONDS = 60.0
END_SECONDS = 40.0


class Process:
    """Runs from its making to `stop`. What it prints is in `log`."""

    def __init__(
        self,
        name: str,
        command: list[str],
        environment: Mapping[str, str],
        log: Path,
        folder: Path = CHECKOUT,
    ) -> None:
        self.name, self.log = name, log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._asked = False

    def wait_until(self, ready: Callable[[], bool], seconds: float = READY_SECONDS) -> None:
        """Raises Unfit when the process ends before, or the time does."""
        deadline = time.monotonic() + seconds
        while not ready():
            if (code := self._process.poll()) is not None:
                raise self._unfit(f"ended by itself with code {code}")
            if time.monotonic() > deadline:
                raise self._unfit(f"is not ready after {seconds:g} s")
            time.sleep(0.05)

    def wait(self, seconds: float) -> None:
        """Until it has ended well. Raises Unfit."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise self._unfit(f"has not ended after {seconds:g} s") from None
        if code:
            raise self._unfit(f"ended with code {code}")

    def check(self) -> None:
        """Raises Unfit when it has ended by itself."""
        if (code := self._process.poll()) is not None:
            raise self._unfit(f"ended by itself with code {code}")

    def ask_to_end(self) -> None:
        """SIGTERM once, without waiting."""
        if not self._asked and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        self._asked = True

    def stop(self) -> None:
        self.ask_to_end()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _unfit(self, what: str) -> Unfit:
        return Unfit(f"{self.name} {what}; {self.log} ends with:\n{last_lines(self.log)}")


def fetch(url: str) -> str | None:
    """The body of a 200, else None."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # our own http URL
            return answer.read().decode() if answer.status == 200 else None
    except (urllib.error.URLError, OSError):
        return None
