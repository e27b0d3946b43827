"""The site of one row: gunicorn behind a wire, consumers, gatekeeper, each a process that may be killed."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from management.embedded.ports import free_port
from management.embedded.processes import last_lines
from tests.chaos.wire import Wire

CHECKOUT = Path(__file__).resolve().parents[2]
WEB = ("-m", "gunicorn", "-c", "fluxgate_site/gunicorn.conf.py", "fluxgate_site.asgi:application")


class Unfit(Exception):
    """The scene could not be set, or a process ended that nobody had ended: the row proves nothing."""


def eventually(question: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first truthy answer. Raises Unfit when there is none before the deadline."""
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        if time.monotonic() > deadline:
            raise Unfit(f"{what}: not within {seconds:g} s")
        time.sleep(0.02)
    return answer


class Process:
    """One process of the site, in a session of its own."""

    def __init__(self, name: str, arguments: tuple[str, ...], environment: Mapping[str, str], log: Path):
        self.name, self.log = name, log
        self.killed = False
        with log.open("wb") as output:
            self._child = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=CHECKOUT,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._child.poll() is None

    @property
    def crashed(self) -> bool:
        """Whether it has ended by SIGKILL, as its crash point does."""
        return self._child.poll() == -signal.SIGKILL

    @property
    def stopped(self) -> bool:
        """Whether it stands still after SIGSTOP."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def signal(self, number: signal.Signals) -> None:
        """To the process alone: a gunicorn passes what matters on to its workers."""
        self._child.send_signal(number)

    def stop(self) -> None:
        """SIGSTOP: it lives, and does nothing."""
        self.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """kill -9, with its children. Returns when it is gone."""
        self.killed = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._child.wait()

    def end(self, patience: float = 30.0) -> bool:
        """SIGTERM and the wait for its drain. False: it had to be killed."""
        self.killed = True
        if self.alive:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
        try:
            self._child.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        return True

    def printed(self) -> str:
        return self.log.read_text(errors="replace")


class Site:
    """Opened by `start`, ended by `end`. Buyers reach it through the wire `front`."""

    def __init__(self, environment: Mapping[str, str], front: Wire, logs: Path) -> None:
        self.environment, self.front, self._logs = dict(environment), front, logs
        self.processes: list[Process] = []
        self.web: Process
        self._ports: set[int] = set()
        self._started = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.front.port}"

    def start(self, *, workers: int = 2, consumers: int = 2, gatekeepers: int = 1) -> None:
        """Returns when the web process answers that it is ready."""
        for _ in range(consumers):
            self.start_consumer()
        for _ in range(gatekeepers):
            self.start_gatekeeper()
        self.web = self.start_web(workers=workers)

    def start_web(self, *, workers: int = 2, ready: bool = True, **changed: str) -> Process:
        """Another gunicorn, to which new connections are led once it is ready."""
        port, metrics = self._free_port(), self._free_port()
        own = {
            "FLUXGATE_BIND": f"127.0.0.1:{port}",
            "FLUXGATE_METRICS_PORT": str(metrics),
            "FLUXGATE_WEB_WORKERS": str(workers),
        }
        web = self._start("web", WEB, own | changed)
        path = "/readyz" if ready else "/livez"
        eventually(lambda: self._answers(web, port, path), 40, f"the web process is ready ({web.log})")
        self.front.lead_new_to(port)
        return web

    def start_consumer(self, arguments: str = "", **changed: str) -> Process:
        command = ("manage.py", "run_fulfillment", *arguments.split())
        return self._start("run_fulfillment", command, changed)

    def start_gatekeeper(self, **changed: str) -> Process:
        return self._start("run_gatekeeper", ("manage.py", "run_gatekeeper"), changed)

    def named(self, name: str) -> list[Process]:
        """Those that run and nobody has ended."""
        return [each for each in self.processes if each.name == name and each.alive and not each.killed]

    def manage(self, *arguments: str, **changed: str) -> "subprocess.CompletedProcess[str]":
        """Runs a command of the shell to its end."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=CHECKOUT, env=self.environment | changed, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    def ended_by_themselves(self) -> list[str]:
        """A line per process that ended without being killed, with what it printed last."""
        return [
            f"{each.name} ended by itself; {each.log} ends with:\n{last_lines(each.log, count=4)}"
            for each in self.processes
            if not each.alive and not each.killed and not each.crashed
        ]

    def end(self) -> None:
        """Kills what is left: by now everything has been checked, and the next row waits."""
        for process in self.processes:
            if process.alive:
                process.kill()

    def _start(self, name: str, arguments: tuple[str, ...], changed: Mapping[str, str]) -> Process:
        self._started += 1
        log = self._logs / f"{self._started:02}-{name}.log"
        process = Process(name, arguments, self.environment | dict(changed), log)
        self.processes.append(process)
        return process

    def _answers(self, web: Process, port: int, path: str) -> bool:
        import urllib.request

        if not web.alive:
            raise Unfit(f"the web process ended at once; {web.log} ends with:\n{last_lines(web.log)}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _free_port(self) -> int:
        port = free_port(self._ports)
        self._ports.add(port)
        return port


def crashes(web: Process) -> int:
    """How many workers of this gunicorn have been killed so far: it logs each."""
    return len(re.findall(r"was sent SIGKILL", web.printed()))
