"""The consumer, step by step, on a real broker, gate and PostgreSQL.

"Killed" is a BaseException at a named step, after which the consumer object is left as it is and
another one takes over: nothing of the first one's memory survives. tests/orders/test_run_fulfillment.py
kills real processes.
"""

import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from django.db import OperationalError, connection

from orders import book, consumer, settling
from orders import partition as partition_module
from orders.book import Source
from orders.consumer import Consumer, LogShorter
from orders.fulfillment import POISON_IN_A_ROW, Poisoned, fulfill
from orders.log import KafkaLog
from orders.models import Order, ParkedRecord, Position
from sales import topic
from sales.gate import connect
from sales.models import Sale
from tests.orders.records import batch_of, cancel_of, claim_of, reads, take
from tests.orders.stepping import append, committed, drain, kill, position, sold, units
from tests.orders.test_log import KafkaRig
from tests.proxy import Proxy
from tests.running_site import eventually, free_port

pytestmark = [pytest.mark.kafka, pytest.mark.django_db(transaction=True)]


class Killed(BaseException):
    """A SIGKILL at this very line: no handler of ours may see it."""


@pytest.fixture
def sale_on(open_sale: Callable[..., Sale], own_topic: str) -> Callable[..., Sale]:
    """An open sale on the topic of this test."""
    return open_sale


def test_claims_go_all_the_way(
    sale_on: Callable[..., Sale], kafka_log: KafkaLog, start: Callable[..., Consumer], gate: redis.Redis
) -> None:
    sales = [sale_on(allotment=200) for _ in range(3)]
    placed = {sale: take(sale, 40) for sale in sales}
    for of_sale in placed.values():
        append(kafka_log, *of_sale)
    worker = start()
    drain(worker)
    for sale in sales:
        assert sold(sale) == 40
        assert units(gate, sale) == (160, 0, 0, 40, 0)
    at = topic.partition_of(sales[0].id)
    expected = sum(40 for sale in sales if topic.partition_of(sale.id) == at)
    assert position(at) == expected
    worker.close()
    assert committed(at) == expected


def test_a_batch_is_settled_in_calls_that_let_the_gate_decide_in_between(
    sale_on: Callable[..., Sale],
    kafka_log: KafkaLog,
    start: Callable[..., Consumer],
    gate: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settling, "CALL", 20)
    sale = sale_on(allotment=100)
    append(kafka_log, *take(sale, 70))
    calls: list[int] = []
    settle = settling.gate.settle
    monkeypatch.setattr(
        settling.gate,
        "settle",
        lambda client, at, pool, ids: calls.append(len(ids)) or settle(client, at, pool, ids),
    )
    drain(start())
    assert units(gate, sale) == (30, 0, 0, 70, 0)
    assert max(calls) == 20
    assert sum(calls) == 70


def test_one_call_settles_more_claims_than_the_script_takes_in_one_group(
    sale_on: Callable[..., Sale], gate: redis.Redis
) -> None:
    sale = sale_on(allotment=2500)
    ids = [claim.order_id for claim in take(sale, 2500)]
    assert settling.gate.settle(gate, sale.id, 0, [*ids, *ids[:10]]) == 2500
    assert units(gate, sale) == (0, 0, 0, 2500, 0)


@pytest.mark.parametrize("looks", [True, False])
def test_an_order_book_that_forgot_its_last_orders_gets_them_back_without_any_news(
    sale_on: Callable[..., Sale],
    kafka_log: KafkaLog,
    start: Callable[..., Consumer],
    monkeypatch: pytest.MonkeyPatch,
    looks: bool,
) -> None:
    """A failover of PostgreSQL that lost commits. The broken twin waits for a record that never comes."""
    monkeypatch.setattr(consumer, "BOOKS_SECONDS", 0.2 if looks else 60.0)
    sale = sale_on(allotment=2)
    append(kafka_log, *take(sale, 2))
    worker = start()
    drain(worker)
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE orders_order, orders_orderevent, orders_position")
    Sale.objects.filter(pk=sale.pk).update(sold=0)
    for _ in range(20):
        worker.step(0.05)
    assert Order.objects.count() == (2 if looks else 0)


def test_refused_and_cancelled_claims_give_their_units_back_to_the_gate(
    sale_on: Callable[..., Sale], kafka_log: KafkaLog, start: Callable[..., Consumer], gate: redis.Redis
) -> None:
    sale = sale_on(allotment=4)
    placed = take(sale, 4)
    Sale.objects.filter(id=sale.id).update(allotment=3)  # the gate has granted one too many
    append(kafka_log, *placed, cancel_of(placed[0]))
    drain(start())
    assert [Order.objects.get(id=claim.order_id).state for claim in placed] == [
        "cancelled",
        "confirmed",
        "confirmed",
        "refused",
    ]
    assert sold(sale) == 2
    assert units(gate, sale) == (2, 0, 0, 2, 2)


def test_the_gate_is_told_each_order_once_by_its_last_outcome(sale: Sale, source: Source) -> None:
    one, two, three = claim_of(sale), claim_of(sale), claim_of(sale, epoch=2)
    outcomes = fulfill(batch_of(source, one, two, three, cancel_of(one)))
    found = [(call.released, set(call.order_ids)) for call in settling.calls(outcomes)]
    assert found == [(False, {two.order_id, three.order_id}), (True, {one.order_id})]


# Killed between two books


def kill_at(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, *, before: bool = False) -> None:
    real = getattr(where, name)

    def killed(*arguments: Any, **options: Any) -> Any:
        if not before:
            real(*arguments, **options)
        raise Killed

    monkeypatch.setattr(where, name, killed)


def step_until(error: type[BaseException], worker: Consumer) -> None:
    def run() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            worker.step(0.05)

    with pytest.raises(error):
        run()
    kill(worker)


KILLS = {
    "before the transaction": (partition_module, "fulfill", True, 0),
    "in the transaction": (book, "add_events", False, 0),
    "between database and gate": (settling, "settle", True, 5),
    "between gate and offsets": (Consumer, "_commit", True, 5),
}


@pytest.mark.parametrize("moment", KILLS)
def test_a_consumer_killed_between_two_books(
    sale_on: Callable[..., Sale],
    kafka_log: KafkaLog,
    start: Callable[..., Consumer],
    gate: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    where, name, before, written = KILLS[moment]
    sale = sale_on(allotment=10)
    append(kafka_log, *take(sale, 5))
    with monkeypatch.context() as patched:
        kill_at(patched, where, name, before=before)
        step_until(Killed, start())
    assert sold(sale) == written
    drain(start())
    assert sold(sale) == Order.objects.count() == 5
    assert units(gate, sale) == (5, 0, 0, 5, 0), "no claim may stay unsettled"


def test_twin_without_settling_again_a_kill_leaves_claims_unsettled(
    sale_on: Callable[..., Sale],
    kafka_log: KafkaLog,
    start: Callable[..., Consumer],
    gate: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sale = sale_on(allotment=10)
    append(kafka_log, *take(sale, 5))
    with monkeypatch.context() as patched:
        kill_at(patched, settling, "settle", before=True)
        step_until(Killed, start())
    monkeypatch.setattr(partition_module, "recall", lambda records: [])
    drain(start())
    assert sold(sale) == 5
    assert units(gate, sale) == (5, 5, 0, 0, 0), "sold, and held for ever"


def test_twin_starting_at_the_position_alone_leaves_them_as_well(
    sale_on: Callable[..., Sale],
    kafka_log: KafkaLog,
    start: Callable[..., Consumer],
    gate: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sale = sale_on(allotment=10)
    append(kafka_log, *take(sale, 1))
    first = start()
    drain(first)
    eventually(lambda: committed(topic.partition_of(sale.id)) == 1)
    kill(first)
    append(kafka_log, *take(sale, 5))
    with monkeypatch.context() as patched:
        kill_at(patched, settling, "settle", before=True)
        step_until(Killed, start())
    monkeypatch.setattr(consumer, "min", lambda position, committed: position, raising=False)
    drain(start())
    assert units(gate, sale) == (4, 5, 0, 1, 0)


# Zombies, and a database that is not there


def test_a_zombie_drops_its_batch_and_goes_back_to_the_books(
    sale_on: Callable[..., Sale],
    kafka_log: KafkaLog,
    start: Callable[..., Consumer],
    gate: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sale = sale_on(allotment=10)
    worker = start()
    drain(worker)
    placed = take(sale, 3)
    at = Source(kafka_log._topic, topic.incarnation(), topic.partition_of(sale.id))
    fulfill(batch_of(at, *placed))  # another consumer was quicker; it has not settled yet
    append(kafka_log, *placed, *take(sale, 1))
    drain(worker)
    assert sold(sale) == Order.objects.count() == 4
    assert units(gate, sale) == (6, 0, 0, 4, 0)


@pytest.mark.parametrize("answer_lost", [False, True])
def test_postgresql_that_is_not_there_is_waited_for(
    sale_on: Callable[..., Sale],
    kafka_log: KafkaLog,
    start: Callable[..., Consumer],
    gate: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    answer_lost: bool,
) -> None:
    sale = sale_on(allotment=10)
    append(kafka_log, *take(sale, 5))
    failures: list[int] = []

    def failing(*arguments: Any) -> Any:
        if answer_lost:
            fulfill(*arguments)
        failures.append(1)
        raise OperationalError("the connection is lost")

    worker = start()
    with monkeypatch.context() as patched:
        patched.setattr(partition_module, "fulfill", failing)
        deadline = time.monotonic() + 30
        while len(failures) < (1 if answer_lost else 3):
            worker.step(0.05)
            assert time.monotonic() < deadline
    assert not ParkedRecord.objects.exists(), "never poison"
    assert sold(sale) == (5 if answer_lost else 0)
    drain(worker)
    assert sold(sale) == Order.objects.count() == 5
    assert units(gate, sale) == (5, 0, 0, 5, 0)


def test_a_database_that_is_down_at_the_start_is_waited_for(
    sale_on: Callable[..., Sale],
    kafka_log: KafkaLog,
    start: Callable[..., Consumer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sale = sale_on(allotment=10)
    append(kafka_log, *take(sale, 1))
    worker = start()
    asked: list[int] = []

    def failing(source: Source) -> int:
        asked.append(1)
        raise OperationalError("starting up")

    with monkeypatch.context() as patched:
        patched.setattr(book, "position", failing)
        deadline = time.monotonic() + 30
        while len(asked) < 2:
            worker.step(0.05)
            assert not worker.drained()
            assert time.monotonic() < deadline
    drain(worker)
    assert sold(sale) == 1


# A gate that is not there


def test_fulfillment_goes_on_without_the_gate_and_settles_when_it_is_back(
    sale_on: Callable[..., Sale], kafka_log: KafkaLog, start: Callable[..., Consumer], gate: redis.Redis
) -> None:
    sale = sale_on(allotment=10)
    placed = take(sale, 5)
    address = gate.connection_pool.connection_kwargs
    proxy = Proxy(free_port(), address["port"])
    password = f":{address['password']}@" if address.get("password") else ""
    worker = start(connect(f"redis://{password}127.0.0.1:{proxy.port}/0"))
    append(kafka_log, *placed[:3])
    deadline = time.monotonic() + 30
    while sold(sale) < 3:
        worker.step(0.05)
        assert time.monotonic() < deadline
    append(kafka_log, *placed[3:])
    while sold(sale) < 5:
        worker.step(0.05)
        assert time.monotonic() < deadline
    assert not worker.drained(), "there is still something to tell the gate"
    assert units(gate, sale) == (5, 5, 0, 0, 0)
    assert committed(topic.partition_of(sale.id)) < 0, "committed would mean settled"
    proxy.up()
    try:
        drain(worker)
    finally:
        proxy.down()
    assert units(gate, sale) == (5, 0, 0, 5, 0)
    assert sold(sale) == Order.objects.count() == 5


def test_a_drain_without_the_gate_ends_and_a_later_run_settles(
    sale_on: Callable[..., Sale],
    kafka_log: KafkaLog,
    start: Callable[..., Consumer],
    gate: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(consumer, "GATE_PATIENCE_SECONDS", 0.5)
    sale = sale_on(allotment=10)
    append(kafka_log, *take(sale, 5))
    worker = start(connect(f"redis://127.0.0.1:{free_port()}/0"))
    drain(worker)
    assert (sold(sale), units(gate, sale)) == (5, (5, 5, 0, 0, 0))
    kill(worker)
    drain(start())
    assert units(gate, sale) == (5, 0, 0, 5, 0)


# Poison


def test_a_poisoned_partition_stops_the_consumer_and_the_next_one_begins_there_again(
    sale_on: Callable[..., Sale], kafka_log: KafkaLog, start: Callable[..., Consumer]
) -> None:
    sale = sale_on(allotment=10)
    at = topic.partition_of(sale.id)
    append(kafka_log, *[b"?"] * POISON_IN_A_ROW, partition=at)
    append(kafka_log, *take(sale, 1))

    for _ in range(2):
        step_until(Poisoned, start())
        assert sold(sale) == 0
        assert position(at) == ParkedRecord.objects.count() < POISON_IN_A_ROW
    drain(start(poison_in_a_row=None))
    assert ParkedRecord.objects.count() == POISON_IN_A_ROW
    assert sold(sale) == 1


# The log


def test_a_hole_is_read_again_once_and_then_believed(
    sale_on: Callable[..., Sale], start: Callable[..., Consumer], own_topic: str
) -> None:
    sale = sale_on()
    worker = start()
    drain(worker)
    holed = reads(claim_of(sale), first=0) + reads(claim_of(sale), first=4)
    assert not worker._take(worker._partitions[0], holed)
    assert not Order.objects.exists(), "perhaps we have missed something: read again"
    assert worker._take(worker._partitions[0], holed)
    assert Order.objects.count() == 2
    assert position(0) == 5


def test_records_of_before_a_seek_are_dropped(
    sale_on: Callable[..., Sale], start: Callable[..., Consumer], own_topic: str
) -> None:
    sale = sale_on()
    worker = start()
    drain(worker)
    partition = worker._partitions[0]
    assert worker._take(partition, reads(claim_of(sale), claim_of(sale)))
    assert not worker._take(partition, reads(claim_of(sale), claim_of(sale)))
    assert Order.objects.count() == 2


def test_a_log_that_is_shorter_than_the_books_stops_the_consumer(
    sale_on: Callable[..., Sale],
    kafka_log: KafkaLog,
    start: Callable[..., Consumer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(partition_module, "QUIET_SECONDS", 1.0)
    sale = sale_on()
    append(kafka_log, *take(sale, 2))
    Position.objects.create(
        topic=kafka_log._topic,
        incarnation=topic.incarnation(),
        partition=topic.partition_of(sale.id),
        next_offset=50,
    )
    step_until(LogShorter, start())


def test_a_broker_that_freezes_is_waited_for(
    settings: Any, open_sale: Callable[..., Sale], start: Callable[..., Consumer], gate: redis.Redis
) -> None:
    rig = KafkaRig(settings)
    try:
        sale = open_sale(allotment=10)
        placed = take(sale, 6)
        append(rig.log, *placed[:3])
        worker = start()
        drain(worker)
        rig.freeze()
        frozen = time.monotonic()
        while time.monotonic() < frozen + 1.5 * settings.FLUXGATE.kafka_session_ms / 1000:
            assert not worker.step(0.05)
        rig.thaw()
        append(rig.log, *placed[3:])
        deadline = time.monotonic() + 40
        while sold(sale) < 6:
            worker.step(0.05)
            assert time.monotonic() < deadline
        drain(worker)
        assert units(gate, sale) == (4, 0, 0, 6, 0)
        worker.close()
    finally:
        rig.close()


def test_a_commit_that_is_refused_is_made_up_for(
    sale_on: Callable[..., Sale],
    kafka_log: KafkaLog,
    start: Callable[..., Consumer],
    gate: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sale = sale_on()
    append(kafka_log, *take(sale, 2))
    worker = start()
    refusals: list[int] = []

    def refused(partitions: Any) -> None:
        refusals.append(1)
        raise KafkaException(KafkaError(KafkaError.REBALANCE_IN_PROGRESS))

    with monkeypatch.context() as patched:
        patched.setattr(worker, "_commit", refused)
        deadline = time.monotonic() + 30
        while not refusals:
            worker.step(0.05)
            assert time.monotonic() < deadline
    drain(worker)
    worker.close()
    assert committed(topic.partition_of(sale.id)) == 2
    assert (sold(sale), units(gate, sale)) == (2, (8, 0, 0, 2, 0))


def make_topic_anew(name: str) -> None:
    admin = AdminClient(topic.client_config())
    admin.delete_topics([name])[name].result()
    eventually(lambda: name not in admin.list_topics(timeout=5).topics)
    topic.ensure_topic()


@pytest.mark.parametrize("guarded", [True, False])
def test_a_topic_that_was_made_anew_is_read_from_its_beginning(
    sale_on: Callable[..., Sale],
    own_topic: str,
    start: Callable[..., Consumer],
    monkeypatch: pytest.MonkeyPatch,
    guarded: bool,
) -> None:
    if not guarded:  # the twin: positions that do not know which log they are of
        monkeypatch.setattr(consumer, "incarnation", lambda: "")
    sale = sale_on(allotment=10)
    for _ in range(2):
        log = KafkaLog()
        append(log, *take(sale, 3))
        log.close()
        worker = start()
        drain(worker)
        kill(worker)
        make_topic_anew(own_topic)
    assert sold(sale) == (6 if guarded else 3), "claims of the new log counted as written"


# Several consumers


def test_two_consumers_share_and_the_other_takes_over_when_one_is_killed(
    sale_on: Callable[..., Sale], kafka_log: KafkaLog, start: Callable[..., Consumer], gate: redis.Redis
) -> None:
    sale = sale_on(allotment=100)
    append(kafka_log, *take(sale, 20))
    one, two = start(), start()
    deadline = time.monotonic() + 40
    while not (one._partitions and two._partitions):
        one.step(0.05)
        two.step(0.05)
        assert time.monotonic() < deadline
    drain(one, two)
    assert sorted([*one._partitions, *two._partitions]) == [0, 1, 2], "each partition has one owner"
    owner, other = (one, two) if topic.partition_of(sale.id) in one._partitions else (two, one)
    kill(owner)
    append(kafka_log, *take(sale, 20))
    while sold(sale) < 40:
        other.step(0.05)
        assert time.monotonic() < deadline
    drain(other)
    assert Order.objects.count() == 40
    assert units(gate, sale) == (60, 0, 0, 40, 0)


def test_a_consumer_without_partitions_is_drained(
    settings: Any, own_topic: str, start: Callable[..., Consumer], db: None
) -> None:
    settings.FLUXGATE = settings.FLUXGATE.model_copy(
        update={"kafka_topic": f"{own_topic}-one", "kafka_partitions": 1}
    )
    topic.ensure_topic()
    one, two = start(), start()
    deadline = time.monotonic() + 40
    while one._assigned is None or two._assigned is None or len(one._assigned) + len(two._assigned) != 1:
        one.step(0.05)
        two.step(0.05)
        assert time.monotonic() < deadline
    drain(one, two)


def test_a_consumer_that_has_not_joined_is_not_drained(
    start: Callable[..., Consumer], own_topic: str
) -> None:
    assert not start().drained()
