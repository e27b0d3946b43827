"""A gate with a replica, and the Sentinels that watch it: real servers of a test's own.

    cluster = SentinelCluster()
    cluster.start()
    port = cluster.kill_master()      # SIGKILL; or stop_master() and continue_stopped()
    cluster.wait_for_failover()
    cluster.restart_old()             # with the data it had
    cluster.close()

Everything listens on loopback, lives in a folder that `close` removes, and is ended by its pid.
"""

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from management.embedded.valkey import GATE, locate
from tests.running_site import eventually, free_port

NAME = "gate"
PASSWORD = "the-gates"
SENTINEL_PASSWORD = "the-sentinels"

_DOWN_AFTER_MS = 500
# A replica is fed at once, not after the five seconds in which others might ask as well.
_REPLICATION = ("repl-diskless-sync-delay 0",)
# Sentinel looks around every ten seconds and waits eight before it demotes a master that came
# back. And it refuses to act for half a minute after a pause of two seconds, which a busy machine
# makes by itself.
_IMPATIENT = {
    "info-period": 300,
    "ask-period": 200,
    "publish-period": 300,
    "tilt-trigger": 20_000,
    "tilt-period": 500,
}


class SentinelCluster:
    """A master, a replica and as many Sentinels. Opened by `start`, closed by `close`.

    `rules` are lines of configuration for master and replica, beside those of the embedded gate.
    """

    def __init__(self, *, sentinels: int = 3, rules: Iterable[str] = ()) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="fluxgate-sentinel-"))
        self._rules = (*GATE, *_REPLICATION, *rules)
        self.gates = (free_port(), free_port())
        self.sentinels = tuple(free_port() for _ in range(sentinels))
        self._quorum = sentinels // 2 + 1
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._left: int | None = None  # the master that was killed, stopped or asked to step down

    @property
    def url(self) -> str:
        """What FLUXGATE_GATE_URL says in front of this cluster."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinels)
        return f"redis+sentinel://:{PASSWORD}@{hosts}/{NAME}?sentinel_password={SENTINEL_PASSWORD}"

    def start(self) -> None:
        """Returns when every Sentinel knows the master, its replica and the other Sentinels."""
        try:
            master, replica = self.gates
            self._configure(master)
            self._configure(replica, f"replicaof 127.0.0.1 {master}")
            for port in self.gates:
                self._run(port)
            self.wait_for_replica()
            for port in self.sentinels:
                self._configure_sentinel(port, master)
                self._run(port, "--sentinel")
            for port in self.sentinels:
                eventually(partial(_answer, port, "PING", sentinel=True))
                arguments = [str(part) for pair in _IMPATIENT.items() for part in pair]
                _ask(port, "SENTINEL DEBUG", *arguments, sentinel=True)
            eventually(lambda: all(self._sees_all(port) for port in self.sentinels))
        except BaseException:
            self.close()
            raise

    def master_port(self) -> int:
        """The master by the word of the first Sentinel that answers."""
        for port in self.sentinels:
            found = self._master_by(port)
            if found:
                return found
        raise AssertionError("no Sentinel answers")

    def client(self, port: int) -> "redis.Redis":
        """Straight to one of `gates`, whoever is the master. Close it yourself."""
        return _client(port, sentinel=False)

    def kill_master(self) -> int:
        """SIGKILL. Returns the port of the dead."""
        self._left = self.master_port()
        process = self._processes.pop(self._left)
        process.kill()
        process.wait()
        return self._left

    def stop_master(self) -> int:
        """SIGSTOP: the sockets stay, nothing answers. Returns its port; see `continue_stopped`."""
        self._left = self.master_port()
        self.stop(self._left)
        return self._left

    def continue_stopped(self) -> None:
        assert self._left is not None
        self.go_on(self._left)

    def stop_replica(self) -> int:
        """SIGSTOP: what the master grants from now on is on no other server. Returns its port."""
        master = self.master_port()
        [port] = [port for port in self.gates if port != master]
        self.stop(port)
        # What is sent over its connection would wait in its socket, and be read when it goes on.
        _ask(master, "CLIENT KILL", "TYPE", "replica")
        return port

    def stop(self, port: int) -> None:
        """SIGSTOP of any server, also of a Sentinel: it takes connections then and never answers."""
        self._processes[port].send_signal(signal.SIGSTOP)

    def go_on(self, port: int) -> None:
        self._processes[port].send_signal(signal.SIGCONT)

    def restart_old(self) -> None:
        """Starts the killed master again with its data. Sentinel makes a replica of it by and by."""
        assert self._left is not None
        self._run(self._left)

    def fail_over(self) -> int:
        """A planned failover: the master is well and steps down. Returns its port."""
        self.wait_for_replica()
        self._left = self.master_port()
        # Refused while the last failover is still being finished.
        eventually(lambda: _answer(self.sentinels[0], "SENTINEL FAILOVER", NAME, sentinel=True))
        return self._left

    def wait_for_failover(self, seconds: float = 30) -> int:
        """Until a majority of the Sentinels names another master, and it is one. Returns its port."""

        def moved() -> int | None:
            named = [self._master_by(port) for port in self.sentinels]
            others = [port for port in named if port and port != self._left]
            if len(others) < self._quorum:
                return None
            [port] = set(others)
            return port if _role(port) == "master" else None

        found: int = eventually(moved, seconds)
        return found

    def wait_for_replica(self, seconds: float = 30) -> None:
        """Until both servers are up, one of them a replica in step that every Sentinel would promote."""
        eventually(lambda: set(map(_role, self.gates)) == {"master", "slave"}, seconds)
        watching = [port for port in self.sentinels if port in self._processes]
        eventually(lambda: all(map(self._sees_a_replica, watching)), seconds)

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()  # also what is stopped
        for process in self._processes.values():
            process.wait()
        self._processes.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _configure(self, port: int, *rules: str) -> None:
        self._write(
            port, *self._rules, f"requirepass {PASSWORD}", f"masterauth {PASSWORD}", 'save ""', *rules
        )

    def _configure_sentinel(self, port: int, master: int) -> None:
        self._write(
            port,
            f"requirepass {SENTINEL_PASSWORD}",
            f"sentinel monitor {NAME} 127.0.0.1 {master} {self._quorum}",
            f"sentinel auth-pass {NAME} {PASSWORD}",
            f"sentinel down-after-milliseconds {NAME} {_DOWN_AFTER_MS}",
            f"sentinel failover-timeout {NAME} 2000",
        )

    def _write(self, port: int, *rules: str) -> None:
        folder = self._folder / str(port)
        folder.mkdir()
        lines = ("bind 127.0.0.1", f"port {port}", f"dir {folder}", *rules, "")
        (folder / "valkey.conf").write_text("\n".join(lines))

    def _run(self, port: int, *options: str) -> None:
        folder = self._folder / str(port)
        with (folder / "log").open("ab") as output:
            self._processes[port] = subprocess.Popen(
                [locate(), folder / "valkey.conf", *options], stdout=output, stderr=output
            )

    def _master_by(self, sentinel: int) -> int | None:
        if sentinel not in self._processes:
            return None
        found = _answer(sentinel, "SENTINEL GET-MASTER-ADDR-BY-NAME", NAME, sentinel=True)
        return int(found[1]) if found else None

    def _sees_all(self, sentinel: int) -> bool:
        state = _answer(sentinel, "SENTINEL MASTER", NAME, sentinel=True)
        others = len(self.sentinels) - 1
        return bool(state) and (state["num-slaves"], state["num-other-sentinels"]) == (1, others)

    def _sees_a_replica(self, sentinel: int) -> bool:
        found = _answer(sentinel, "SENTINEL SLAVES", NAME, sentinel=True)
        return bool(found) and any(
            state["flags"] == "slave" and state.get("master-link-status") == "ok" for state in found
        )


def _client(port: int, *, sentinel: bool) -> "redis.Redis":
    return redis.Redis(
        port=port,
        password=SENTINEL_PASSWORD if sentinel else PASSWORD,
        decode_responses=True,
        socket_timeout=1,
        socket_connect_timeout=1,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )


def _ask(port: int, *command: str, sentinel: bool = False) -> Any:
    with _client(port, sentinel=sentinel) as client:
        return client.execute_command(*command)


def _answer(port: int, *command: str, sentinel: bool = False) -> Any:
    """The answer, or None from a server that is not there or does not want to."""
    try:
        return _ask(port, *command, sentinel=sentinel)
    except redis.RedisError:
        return None


def _role(port: int) -> str | None:
    """`master`, `slave` (in step with its master), `loading`, or None when nothing answers."""
    answer = _answer(port, "ROLE")
    if not answer:
        return None
    if answer[0] == "slave" and answer[3] != "connected":
        return "loading"
    return str(answer[0])
