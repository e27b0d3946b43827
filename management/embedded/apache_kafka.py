"""Real Apache Kafka in KRaft mode: 1 or 3 nodes, each broker and controller in one process.

A cluster of three keeps every record on three nodes and acknowledges it when two have it.
"""

import base64
import uuid
from pathlib import Path

from management.embedded.accounts import run_as
from management.embedded.kafka_protocol import speaks_kafka
from management.embedded.maven import fetch, find_java
from management.embedded.processes import Launch, StackError
from management.embedded.server import Broker, Ports, Server

# A small heap and a quick start rather than peak speed: three of these share a laptop with the shop.
JAVA_OPTIONS = (
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)


def apache_kafka(root: Path, jars: Path, count: int) -> Broker:
    """A cluster of `count` nodes. Its data are in `<root>/apache/<count>`: each size has its own."""
    home = root / "apache" / str(count)

    def prepare() -> None:
        find_java()
        fetch(jars)
        home.mkdir(parents=True, exist_ok=True)
        identity = home / "cluster.id"
        if not identity.exists():
            identity.write_text(_new_cluster_id())

    return Broker(
        servers=[_node(number, home, jars, count) for number in range(1, count + 1)],
        settings={
            "FLUXGATE_KAFKA_LINGER_MS": "1",
            "FLUXGATE_KAFKA_FETCH_WAIT_MS": "500",
            "FLUXGATE_KAFKA_SESSION_MS": "6000",
            "FLUXGATE_KAFKA_LEAVE_GROUP": "true",
            "FLUXGATE_KAFKA_REPLICATION": str(count),
        },
        # It lives as long as the cluster's data.
        log=lambda: uuid.uuid5(uuid.NAMESPACE_OID, (home / "cluster.id").read_text()).hex[:6],
        prepare=prepare,
    )


def _node(number: int, home: Path, jars: Path, count: int) -> Server:
    name = f"kafka-{number}"

    def prepare(ports: Ports) -> Launch:
        folder = home / f"node-{number}"
        folder.mkdir(exist_ok=True)
        configuration = folder / "server.properties"
        configuration.write_text(_properties(number, count, folder / "data", ports))
        java: list[str | Path] = [find_java(), *JAVA_OPTIONS, "-cp", f"{fetch(jars)}/*"]
        formatted = folder / "formatted"
        if not formatted.exists():
            cluster = (home / "cluster.id").read_text()
            command = [*java, "kafka.tools.StorageTool", "format", "--ignore-formatted"]
            answer = run_as(None, *command, "--cluster-id", cluster, "--config", configuration)
            if answer.returncode != 0:
                lines = (answer.stderr or answer.stdout).strip().splitlines() or ["it did not say why"]
                raise StackError(f"Kafka could not format {folder}: {lines[-1][:400]}")
            formatted.touch()
        return Launch([*java, "kafka.Kafka", configuration], folder)

    return Server(
        name,
        prepare,
        # A broker answers only when it has joined the quorum and caught up with it.
        lambda ports: speaks_kafka(ports[name]),
        further_ports=(_controller(number),),
        patience=60.0,
    )


def _controller(number: int) -> str:
    return f"kafka-{number}-controller"


def _properties(number: int, count: int, data: Path, ports: Ports) -> str:
    voters = ",".join(f"{n}@127.0.0.1:{ports[_controller(n)]}" for n in range(1, count + 1))
    broker = f"BROKER://127.0.0.1:{ports[f'kafka-{number}']}"
    in_sync = 2 if count == 3 else 1
    lines = {
        "process.roles": "broker,controller",
        "node.id": number,
        "controller.quorum.voters": voters,
        "listeners": f"{broker},CONTROLLER://127.0.0.1:{ports[_controller(number)]}",
        "advertised.listeners": broker,
        "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "BROKER",
        "controller.listener.names": "CONTROLLER",
        "log.dir": data,
        "auto.create.topics.enable": "false",  # `manage.py ensure_topics` makes them
        "default.replication.factor": count,
        "min.insync.replicas": in_sync,
        # The broker's own topics. They have 50 partitions by default, which a single machine only pays for.
        "offsets.topic.num.partitions": 3,
        "offsets.topic.replication.factor": count,
        "transaction.state.log.num.partitions": 3,
        "transaction.state.log.replication.factor": count,
        "transaction.state.log.min.isr": in_sync,
        # The first member of a group need not wait three seconds for a second one.
        "group.initial.rebalance.delay.ms": 0,
        # A killed broker is given up after 6 s rather than 9.
        "broker.session.timeout.ms": 6000,
        "broker.heartbeat.interval.ms": 1000,
    }
    return "".join(f"{key}={_escaped(str(value))}\n" for key, value in lines.items())


def _escaped(text: str) -> str:
    """For Java's properties: a backslash escapes, and what is not ASCII is written as UTF-16 units."""
    units = text.replace("\\", "\\\\").encode("utf-16-be")
    codes = [int.from_bytes(units[i : i + 2], "big") for i in range(0, len(units), 2)]
    return "".join(chr(code) if 32 <= code < 127 else f"\\u{code:04x}" for code in codes)


def _new_cluster_id() -> str:
    """A UUID as Kafka writes it; one that begins with a dash would read as an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text
