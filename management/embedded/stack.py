"""The stack: a folder that holds running servers.

`up` may be called at any time: what is healthy stays, what has died comes back on its port with its data.
"""

import fcntl
import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from management.embedded import apache_kafka, postgres, record, starting, tansu, valkey
from management.embedded.ports import assign
from management.embedded.processes import StackError, end, is_running
from management.embedded.record import Record
from management.embedded.server import Broker, Server

CHECKOUT = Path(__file__).resolve().parents[2]
ROOT = CHECKOUT / ".fluxgate"
JARS = ROOT / "kafka"


class ServerStatus(NamedTuple):
    server: str
    state: str  # running, not answering, dead or stopped
    address: str
    pid: int | None


class Stack:
    """Servers under the folder `root`, made on demand. `jars` is where Apache Kafka is fetched to, once."""

    def __init__(self, root: Path = ROOT, jars: Path = JARS) -> None:
        self.root = root.absolute()
        self.jars = jars.absolute()

    def up(
        self,
        kafka: str = "tansu",
        brokers: int = 1,
        ports: Mapping[str, int] | None = None,
        advertised: int | None = None,
    ) -> dict[str, str]:
        """Start what does not run and return the variables of stack.env.

        `kafka` is "tansu" or "apache", `brokers` 1, or 3 with apache. `ports` insists on a port by
        label: gate, cache, postgres, kafka (Tansu), kafka-1 (Apache)... `advertised` is the port of
        a proxy in front of Tansu, which the broker then names to its clients: a test that cuts or
        freezes their connections needs it. Raises StackError, after ending whatever this call had
        started.
        """
        self._make_root()
        with self._alone():
            state = record.load(self.root)
            password = record.password(self.root)
            broker = self._broker(kafka, brokers, advertised)
            servers = self._servers(broker, password)
            changed = (state.kafka, state.brokers) != (kafka, brokers)
            missing = [
                server
                for server in servers
                if (changed and server in broker.servers) or not starting.is_healthy(server, state)
            ]
            new_log = any(server in broker.servers for server in missing)
            if new_log:
                broker.prepare()  # before anything is ended: here it says what it lacks
            ending = [server.name for server in missing]
            if changed:
                ending += [
                    name for name in state.processes if name.startswith("kafka") and name not in ending
                ]
            starting.end_servers(self.root, state, ending)
            state.kafka, state.brokers = kafka, brokers
            assign(state.ports, servers, missing, ports or {})
            if new_log:
                state.log = broker.log()
            starting.start_servers(self.root, state, missing)
            environment = _environment(state, broker, password)
            record.save_environment(self.root, environment)
            return environment

    def status(self) -> list[ServerStatus]:
        """A row per server of the last `up`; none before the first."""
        with self._explained():
            state = record.load(self.root)
            if not state.ports:
                return []
            broker = self._broker(state.kafka, state.brokers)
            return [_row(server, state) for server in self._servers(broker, record.password(self.root))]

    def kill(self, server: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a server with its children, as a fault would: SIGKILL, or SIGSTOP and SIGCONT.

        Raises StackError when it does not run. A killed one is dead on return; `up` starts it again.
        """
        process = record.load(self.root).processes.get(server)
        if process is None or not is_running(process):
            raise StackError(f"{server} does not run")
        os.killpg(process.pid, number)  # its session is its process group
        if number == signal.SIGKILL:
            end(process)

    def down(self, wipe: bool = False) -> None:
        """End the servers; with `wipe` delete their data too. Ports are remembered for the next `up`."""
        with self._explained():
            if not self.root.exists():
                return
        with self._alone():
            state = record.load(self.root)
            starting.end_servers(self.root, state, list(state.processes))
            (self.root / "stack.env").unlink(missing_ok=True)  # it would point at servers that are gone
            if wipe:
                postgres.wipe(self.root)
                for name in ("gate", "cache", "tansu", "apache", "logs"):
                    shutil.rmtree(self.root / name, ignore_errors=True)
                for name in ("stack.json", "password"):
                    (self.root / name).unlink(missing_ok=True)

    def _broker(self, kafka: str, brokers: int, advertised: int | None = None) -> Broker:
        if kafka == "tansu" and brokers == 1:
            return tansu.tansu(self.root, advertised)
        if kafka == "apache" and brokers in (1, 3):
            return apache_kafka.apache_kafka(self.root, self.jars, brokers)
        raise StackError(f"there is no stack of {brokers} {kafka} brokers: tansu runs 1, apache 1 or 3")

    def _servers(self, broker: Broker, password: str) -> list[Server]:
        return [
            postgres.postgres(self.root, password),
            valkey.valkey("gate", valkey.GATE, self.root, password),
            valkey.valkey("cache", valkey.CACHE, self.root, password),
            *broker.servers,
        ]

    def _make_root(self) -> None:
        try:
            (self.root / "logs").mkdir(parents=True, exist_ok=True)
            (self.root / "lock").touch()
        except OSError as error:
            raise StackError(f"cannot write to {self.root}: {error.strerror}") from None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One `up` or `down` at a time in one folder; a second one waits for the first."""
        with self._explained(), (self.root / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """A full disk, a file of another user: a line for the operator, who can do something about it."""
        try:
            yield
        except OSError as error:
            raise StackError(f"cannot work in {self.root}: {error}") from error


def _environment(state: Record, broker: Broker, password: str) -> dict[str, str]:
    brokers = ",".join(f"127.0.0.1:{state.ports[server.name]}" for server in broker.servers)
    return {
        "FLUXGATE_DATABASE_URL": postgres.url(state.ports["postgres"], password),
        "FLUXGATE_GATE_URL": valkey.url(state.ports["gate"], password),
        "FLUXGATE_CACHE_URL": valkey.url(state.ports["cache"], password),
        "FLUXGATE_KAFKA_BROKERS": brokers,
        "FLUXGATE_KAFKA_TOPIC": f"orders-{state.log}",
        **broker.settings,
    }


def _row(server: Server, state: Record) -> ServerStatus:
    process = state.processes.get(server.name)
    address = f"127.0.0.1:{state.ports.get(server.name, 0)}"
    if process is None:
        return ServerStatus(server.name, "stopped", address, None)
    if not is_running(process):
        return ServerStatus(server.name, "dead", address, None)
    answers = starting.is_healthy(server, state)
    return ServerStatus(server.name, "running" if answers else "not answering", address, process.pid)
