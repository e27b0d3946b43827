"""`manage.py run_fulfillment` as a process: signals, draining, and a SIGKILL at any moment."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import requests
from confluent_kafka import Consumer, TopicPartition
from django.conf import settings as django_settings
from django.db import connection, transaction

from orders import claims
from orders.book import Source, position
from orders.fulfillment import POISON_IN_A_ROW
from orders.log import KafkaLog
from orders.models import Order, OrderEvent, ParkedRecord
from sales import topic
from sales.gate import image
from sales.models import Sale
from tests.orders.records import claim_of, take
from tests.proxy import Proxy
from tests.running_site import CHECKOUT, eventually, free_port

pytestmark = [pytest.mark.kafka, pytest.mark.django_db(transaction=True)]


# `manage.py` with less patience: seconds instead of a minute.
IMPATIENT = """
import sys
from django.core import management
import os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fluxgate_site.settings")
import django
django.setup()
from management.management.commands import run_fulfillment
run_fulfillment.STUCK_SECONDS, run_fulfillment.FROZEN_SECONDS = 6.0, 2.0
management.execute_from_command_line(["manage.py", "run_fulfillment", *sys.argv[1:]])
"""


class Process:
    """One `run_fulfillment`. It prints into a file: a pipe that nobody reads would stop it."""

    def __init__(self, output: Path, *arguments: str, program: str = "", **environment: str) -> None:
        self._output = output
        command = ["-c", program] if program else ["manage.py", "run_fulfillment"]
        with output.open("w") as file:
            self._process = subprocess.Popen(
                [sys.executable, *command, *arguments],
                cwd=CHECKOUT,
                env=os.environ | environment,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self.send_signal, self.kill, self.wait = (
            self._process.send_signal,
            self._process.kill,
            self._process.wait,
        )

    def end(self, seconds: float = 40) -> tuple[int, str]:
        """Exit code and what it printed."""
        return self.wait(seconds), self.printed()

    def end_after(self, number: signal.Signals) -> int:
        self.send_signal(number)
        return self.end()[0]

    def printed(self) -> str:
        return self._output.read_text()


@pytest.fixture
def run(own_topic: str, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts `run_fulfillment` on the topic of this test."""
    started: list[Process] = []

    def start(*arguments: str, program: str = "", **environment: str) -> Process:
        flux = django_settings.FLUXGATE
        own = {
            f"FLUXGATE_{name.upper()}": str(getattr(flux, name))
            for name in ("kafka_topic", "kafka_group", "kafka_partitions", "kafka_session_ms")
        }
        output = tmp_path / f"{len(started)}.log"
        started.append(Process(output, *arguments, program=program, **(own | environment)))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        print(process.printed())  # shown when the test fails


def append(log: KafkaLog, sale: Sale, placed: list[claims.Claim]) -> None:
    reports: list[Exception | None] = []
    for claim in placed:
        log.append(claims.encode(claim, topic.partition_of(sale.id)), reports.append)
    eventually(lambda: len(reports) == len(placed))
    assert set(reports) <= {None}


def reached(sale: Sale) -> tuple[int, int]:
    """The position in the order book, and Kafka's committed offset, of the sale's partition."""
    flux, number = django_settings.FLUXGATE, topic.partition_of(sale.id)
    kafka = Consumer({**topic.client_config(), "group.id": flux.kafka_group})
    [committed] = kafka.committed([TopicPartition(flux.kafka_topic, number)], timeout=10)
    kafka.close()
    return position(Source(flux.kafka_topic, topic.incarnation(), number)), committed.offset


def settled(client: redis.Redis, sale: Sale) -> int:
    found = image(client, sale.id)
    assert found is not None
    return found.settled


def test_drain_ends_with_0_when_the_log_is_fulfilled(
    open_sale: Callable[..., Sale], kafka_log: KafkaLog, run: Callable[..., Process], gate: redis.Redis
) -> None:
    sale = open_sale(allotment=50)
    append(kafka_log, sale, take(sale, 30))
    code, out = run("--drain").end()
    assert (code, Order.objects.count()) == (0, 30), out
    assert settled(gate, sale) == 30
    assert reached(sale) == (30, 30)


def test_drain_of_an_empty_log_ends_as_well(run: Callable[..., Process]) -> None:
    code, out = run("--drain").end()
    assert code == 0, out


@pytest.fixture
def database() -> Iterator[Proxy]:
    """A way to PostgreSQL that can be taken down; its `url` is for the environment of a process."""
    facts = connection.settings_dict
    proxy = Proxy(free_port(), int(facts["PORT"]))
    login = f"{facts['USER']}:{facts['PASSWORD']}"
    proxy.url = f"postgresql://{login}@127.0.0.1:{proxy.port}/{facts['NAME']}"  # type: ignore[attr-defined]
    proxy.up()
    yield proxy
    proxy.down()


def test_postgresql_away_is_waited_for_as_a_member_of_the_group(
    open_sale: Callable[..., Sale],
    kafka_log: KafkaLog,
    run: Callable[..., Process],
    gate: redis.Redis,
    database: Any,
    tmp_path: Path,
) -> None:
    sale = open_sale(allotment=100)
    health = tmp_path / "health"
    worker = run("--health-file", str(health), FLUXGATE_DATABASE_URL=database.url)
    append(kafka_log, sale, take(sale, 20))
    eventually(lambda: Order.objects.count() == 20)
    eventually(lambda: json.loads(health.read_text())["state"] == "ok")
    database.down()
    away = time.monotonic()
    append(kafka_log, sale, take(sale, 20))
    # Many times as long as the group waits for a member that is silent.
    session = django_settings.FLUXGATE.kafka_session_ms / 1000
    eventually(
        lambda: worker.printed().count("cause=database") >= 4 and time.monotonic() - away > 3 * session, 60
    )
    assert Order.objects.count() == 20
    said = json.loads(health.read_text())
    assert (said["state"], said["waiting"], said["lag_records"]) == ("waiting", {"database": 3}, 20)
    assert said["lag_seconds"] > 1
    database.up()
    eventually(lambda: settled(gate, sale) == 40)
    eventually(lambda: json.loads(health.read_text())["lag_records"] == 0)
    assert worker.end_after(signal.SIGTERM) == 0
    assert worker.printed().count("partitions assigned") == 1, "it never left the group"
    assert Order.objects.count() == 40
    assert not ParkedRecord.objects.exists(), "an outage is not poison"
    assert not health.exists(), "a process that has ended in order leaves no health behind"


def test_a_drain_without_postgresql_gives_up_with_one_line(
    run: Callable[..., Process], own_topic: str, database: Any
) -> None:
    database.down()
    code, out = run("--drain", program=IMPATIENT, FLUXGATE_DATABASE_URL=database.url).end()
    assert code == 1
    assert "Traceback" not in out
    assert (
        out.strip()
        .splitlines()[-1]
        .startswith(
            "CommandError: nothing has moved for 6 s, the drain gives up. The last trouble: database: "
        )
    )


def test_a_drain_with_a_frozen_postgresql_gives_up_as_well(
    open_sale: Callable[..., Sale], kafka_log: KafkaLog, run: Callable[..., Process]
) -> None:
    sale = open_sale(allotment=10)
    append(kafka_log, sale, take(sale, 1))
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")  # ours is meant to stand still
        cursor.execute("LOCK TABLE orders_position IN EXCLUSIVE MODE")  # no answer, as from a frozen server
        code, out = run("--drain", program=IMPATIENT).end()
    assert code == 1
    assert "nothing has moved for 6 s, the drain gives up" in out.strip().splitlines()[-1]
    assert run("--drain").end()[0] == 0
    assert Order.objects.count() == 1


def test_a_drain_gives_up_before_a_record_of_a_newer_release(
    open_sale: Callable[..., Sale], kafka_log: KafkaLog, run: Callable[..., Process]
) -> None:
    sale = open_sale(allotment=10)
    append(kafka_log, sale, take(sale, 1))
    at = topic.partition_of(sale.id)
    kafka_log.append(claims.Record(at, b"k", b'{"v":2,"type":"claim"}', []), lambda error: None)
    code, out = run("--drain", program=IMPATIENT).end()
    assert code == 1
    assert "The last trouble: version: " in out.strip().splitlines()[-1]
    assert "version 2, this release reads version 1" in out.strip().splitlines()[-1]
    assert (Order.objects.count(), ParkedRecord.objects.count()) == (1, 0)
    assert reached(sale)[0] == 1


def test_a_health_file_that_cannot_be_written_ends_the_start(
    run: Callable[..., Process], tmp_path: Path
) -> None:
    path = tmp_path / "nowhere" / "health"
    code, out = run("--health-file", str(path)).end()
    assert code == 1
    assert out.strip().splitlines()[-1] == f"CommandError: health file {path}: No such file or directory"


def test_metrics_are_served_where_the_port_is_free(
    open_sale: Callable[..., Sale], kafka_log: KafkaLog, run: Callable[..., Process]
) -> None:
    sale = open_sale()
    append(kafka_log, sale, take(sale, 3))
    port = free_port()
    worker = run("--metrics-port", str(port))
    eventually(lambda: Order.objects.count() == 3)
    page = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    assert 'fluxgate_fulfilled_orders_total{state="confirmed"} 3.0' in page
    assert "fluxgate_fulfillment_lag_records 0.0" in page
    code, out = run("--metrics-port", str(port)).end()
    assert code == 1
    assert out.strip().splitlines()[-1] == f"CommandError: metrics port {port}: Address already in use"
    assert worker.end_after(signal.SIGTERM) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_between_two_batches(
    open_sale: Callable[..., Sale],
    kafka_log: KafkaLog,
    run: Callable[..., Process],
    gate: redis.Redis,
    number: signal.Signals,
) -> None:
    sale = open_sale(allotment=5000)
    placed = [claim_of(sale) for _ in range(2000)]
    append(kafka_log, sale, placed)
    worker = run(FLUXGATE_FULFILLMENT_BATCH="20")
    eventually(Order.objects.exists)
    worker.send_signal(number)
    code, out = worker.end()
    assert code == 0, out
    written = Order.objects.count()
    assert 0 < written < 2000, "it ended in the middle of the log"
    assert reached(sale) == (written, written), "and between two batches"
    sale.refresh_from_db()
    assert sale.sold == OrderEvent.objects.count() == written
    assert run("--drain").end()[0] == 0
    assert Order.objects.count() == 2000


def test_a_second_signal_kills(
    open_sale: Callable[..., Sale], kafka_log: KafkaLog, run: Callable[..., Process]
) -> None:
    sale = open_sale(allotment=10)
    append(kafka_log, sale, take(sale, 1))
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE orders_position IN EXCLUSIVE MODE")  # the batch cannot be finished
        worker = run()
        eventually(lambda: _waits_for_a_lock(cursor))
        worker.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(1)
        assert worker.end_after(signal.SIGTERM) == -signal.SIGTERM
    assert not Order.objects.exists()
    assert run("--drain").end()[0] == 0
    assert Order.objects.count() == 1


def _waits_for_a_lock(cursor: Any) -> bool:
    cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
    return bool(cursor.fetchone()[0])


def test_three_thousand_orders_and_five_sigkills(
    open_sale: Callable[..., Sale], kafka_log: KafkaLog, run: Callable[..., Process], gate: redis.Redis
) -> None:
    """No duplicate, no loss, no partition that stays stuck, nothing left unsettled."""
    seed = random.randrange(10**6)
    dice = random.Random(seed)
    sale = open_sale(allotment=3000)
    append(kafka_log, sale, take(sale, 3000))
    stops = sorted(dice.sample(range(1, 2900), 5))
    for stop in stops:
        worker = run(FLUXGATE_FULFILLMENT_BATCH="50")
        eventually(lambda stop=stop: Order.objects.count() >= stop, 60)
        worker.kill()
        assert worker.end()[0] == -signal.SIGKILL, seed
    assert run("--drain").end()[0] == 0, seed
    sale.refresh_from_db()
    assert (sale.sold, Order.objects.count(), OrderEvent.objects.count()) == (3000, 3000, 3000), seed
    assert Order.objects.filter(state="confirmed").count() == 3000, seed
    found = image(gate, sale.id)
    assert found is not None
    assert (found.remaining, found.held, found.queued, found.settled) == (0, 0, 0, 3000), seed


@pytest.mark.parametrize(
    ("place", "in_the_book", "in_the_gate"),
    [
        ("consume.after-read", 0, 0),
        ("fulfill.after-rows", 0, 0),
        ("consume.after-commit", 5, 0),
        ("consume.after-settle", 5, 5),
    ],
)
def test_killed_at_a_named_place_the_next_one_finishes(
    open_sale: Callable[..., Sale],
    kafka_log: KafkaLog,
    run: Callable[..., Process],
    gate: redis.Redis,
    place: str,
    in_the_book: int,
    in_the_gate: int,
) -> None:
    sale = open_sale(allotment=10)
    append(kafka_log, sale, take(sale, 5))
    assert run(FLUXGATE_CRASH_AT=place).end()[0] == -signal.SIGKILL
    assert (Order.objects.count(), settled(gate, sale)) == (in_the_book, in_the_gate)
    assert run("--drain").end()[0] == 0
    assert (Order.objects.count(), settled(gate, sale), reached(sale)) == (5, 5, (5, 5))


def test_two_processes_share_the_partitions_and_one_takes_over(
    open_sale: Callable[..., Sale], kafka_log: KafkaLog, run: Callable[..., Process]
) -> None:
    sales = [open_sale(allotment=1000) for _ in range(6)]
    victim, other = run(), run()
    for sale in sales:
        append(kafka_log, sale, [claim_of(sale) for _ in range(100)])
    eventually(lambda: Order.objects.count() == 600, 60)
    victim.kill()
    for sale in sales:
        append(kafka_log, sale, [claim_of(sale) for _ in range(100)])
    eventually(lambda: Order.objects.count() == 1200, 60)
    assert other.end_after(signal.SIGTERM) == 0
    assert [Sale.objects.get(id=sale.id).sold for sale in sales] == [200] * 6


def test_poison_ends_it_with_one_clear_line_and_park_all_goes_on(
    open_sale: Callable[..., Sale], kafka_log: KafkaLog, run: Callable[..., Process]
) -> None:
    sale = open_sale(allotment=10)
    at = topic.partition_of(sale.id)
    for _ in range(POISON_IN_A_ROW):
        kafka_log.append(claims.Record(at, b"k", b'{"v":1,"type":"claim"}', []), lambda error: None)
    append(kafka_log, sale, take(sale, 1))
    code, out = run("--drain").end()
    assert code == 1
    last = out.strip().splitlines()[-1]
    assert last.startswith(f"CommandError: {POISON_IN_A_ROW} records in a row cannot be used")
    assert "missing required field" in last
    assert ParkedRecord.objects.count() < POISON_IN_A_ROW
    assert run("--drain", "--park-all").end()[0] == 0
    assert (ParkedRecord.objects.count(), Order.objects.count()) == (POISON_IN_A_ROW, 1)


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"FLUXGATE_KAFKA_TOPIC": "nowhere"}, "topic nowhere does not exist: run `manage.py ensure_topics`"),
        ({"FLUXGATE_KAFKA_PARTITIONS": "7"}, "has 3 partitions, FLUXGATE_KAFKA_PARTITIONS says 7"),
        ({"FLUXGATE_KAFKA_BROKERS": "127.0.0.1:{port}"}, "Kafka does not answer at 127.0.0.1:{port}"),
    ],
)
def test_a_log_that_is_not_right_ends_the_start(
    run: Callable[..., Process], environment: dict[str, str], line: str
) -> None:
    port = str(free_port())
    code, out = run(**{name: value.format(port=port) for name, value in environment.items()}).end()
    assert code == 1
    assert "Traceback" not in out
    assert line.format(port=port) in out
