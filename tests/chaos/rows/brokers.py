"""Real Apache Kafka: brokers die, and a log loses what it had acknowledged."""

from pathlib import Path

from tests.chaos import books
from tests.chaos.registry import row
from tests.chaos.scenario import Scenario


@row("brokers-leader", "Kafka, 3 brokers: the sale's leader kill -9, twice", stack="apache-3", seconds=40)
def brokers_leader(chaos: Scenario) -> None:
    chaos.sell(1500, rate=40)
    for _ in range(2):
        chaos.until_promised(40)
        broker = _leader(chaos)
        chaos.ground.kill(broker)
        chaos.selling_again()
        chaos.ground.up()
    chaos.written_again()


@row("brokers-two", "Kafka, 3 brokers: two of them kill -9, 8 s away", stack="apache-3", seconds=45)
def brokers_two(chaos: Scenario) -> None:
    """One broker of three may not acknowledge anything (min.insync.replicas 2)."""
    chaos.sell(1500, rate=40)
    chaos.until_promised(40)
    leader = _leader(chaos)
    others = [f"kafka-{number}" for number in (1, 2, 3) if f"kafka-{number}" != leader]
    for broker in others:
        chaos.ground.kill(broker)
    chaos.during(8)
    chaos.ground.up()
    chaos.selling_again(60)
    chaos.written_again()


@row("broker-loses-tail", "Kafka, 1 broker: kill -9, the acknowledged tail of its log is gone",
     stack="apache-1", seconds=50)  # fmt: skip
def broker_loses_tail(chaos: Scenario) -> None:
    """The machine loses power with its page cache: nobody has read that tail yet."""
    chaos.sell(1500, rate=40)
    chaos.until_promised(60)
    chaos.written_again()
    for consumer in chaos.site.named("run_fulfillment"):
        consumer.stop()
    chaos.until_promised(80)
    chaos.ground.kill("kafka-1")
    lost = _cut_tail(chaos, keep=0.6)
    chaos.ground.up()
    for consumer in chaos.site.named("run_fulfillment"):
        consumer.go_on()
    chaos.expect(lost > 0, "the log has lost nothing: nothing was tested")
    chaos.selling_again(60)
    chaos.buyers.rate = 0
    chaos.until(lambda: books.read_to_the_end(chaos.sale.id), "what is left of the log is written", 60)
    done = chaos.site.manage("reconcile", "--fix", "--wait", "20")
    chaos.expect(done.returncode == 0, f"reconcile --fix: {(done.stdout + done.stderr)[-300:]}")
    chaos.written_again()


def _leader(chaos: Scenario) -> str:
    """The server that leads the sale's partition."""
    from confluent_kafka.admin import AdminClient
    from django.conf import settings

    from sales.topic import client_config, partition_of

    admin = AdminClient(client_config())
    topic = admin.list_topics(timeout=10).topics[settings.FLUXGATE.kafka_topic]
    return f"kafka-{topic.partitions[partition_of(chaos.sale.id)].leader}"


def _cut_tail(chaos: Scenario, keep: float) -> int:
    """Cuts the file of the sale's partition. Returns how many bytes are gone."""
    from django.conf import settings

    from sales.topic import partition_of

    name = f"{settings.FLUXGATE.kafka_topic}-{partition_of(chaos.sale.id)}"
    folder: Path = chaos.ground.root / "apache" / "1" / "node-1" / "data" / name
    segment = max(folder.glob("*.log"))
    size = segment.stat().st_size
    with segment.open("r+b") as file:
        file.truncate(int(size * keep))
    for index in (*folder.glob("*.index"), *folder.glob("*.timeindex"), *folder.glob("*.snapshot")):
        index.unlink()
    return size - int(size * keep)
