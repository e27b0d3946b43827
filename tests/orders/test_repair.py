"""Repairs on real servers: each fault is made, found, repaired, and found no more.

Each test ends as the books must: the same repair once more does nothing, and everything balances.
The twins leave the repair out, or do the wrong one, and do not balance.
"""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
import redis
from django.conf import settings as django_settings

from orders import claims, comparison, lag, partition, repair, repair_book
from orders.book import Source
from orders.consumer import Consumer, LogShorter
from orders.gatekeeper import Gatekeeper
from orders.log import KafkaLog
from orders.memory_log import MemoryLog
from orders.models import Order, Position
from orders.reconciliation import read
from orders.repair import put_right, straighten, wind_back
from sales import fence, topic
from sales.gate import image, mark_queued, pool_keys
from sales.models import Sale, SaleEvent
from tests.orders.records import cancel_of, take
from tests.running_site import eventually

pytestmark = [pytest.mark.kafka, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def a_short_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "SECOND_LOOK_SECONDS", 0.05)


@pytest.fixture
def sale(open_sale: Callable[..., Sale], own_topic: str) -> Sale:
    return open_sale(allotment=10, limit_per_customer=2)


@pytest.fixture
def start(gate: redis.Redis, own_topic: str) -> Iterator[Callable[[], Consumer]]:
    started: list[Consumer] = []

    def begin() -> Consumer:
        started.append(Consumer(gate))
        return started[-1]

    yield begin
    for each in started:
        each.close()


def append(log: KafkaLog, *messages: claims.Message) -> None:
    reports: list[Exception | None] = []
    for message in messages:
        log.append(claims.encode(message, topic.partition_of(claims.sale_in(message))), reports.append)
    eventually(lambda: len(reports) == len(messages))
    assert reports == [None] * len(messages)


def queue(gate: redis.Redis, sale: Sale, *placed: claims.Claim) -> None:
    assert mark_queued(gate, sale.id, 0, sale.epoch, ids(*placed)) == len(placed)


def ids(*placed: claims.Claim) -> list[UUID]:
    return [claim.order_id for claim in placed]


def drain(worker: Consumer) -> None:
    eventually(lambda: (worker.step(0.05), worker.drained())[1], 60)


def verdict(gate: redis.Redis, sale: Sale) -> tuple[str, list[str]]:
    [found] = read(gate, [sale])
    return found.verdict, found.differences


def fix(gate: redis.Redis, log: Any, sale: Sale) -> list[str]:
    """The repairs of one pass, by what they did."""
    [found] = read(gate, [sale])
    return [f"{done.action} {done.times}" for done in put_right(gate, log, sale, found)]


def source(sale: Sale) -> Source:
    return Source(django_settings.FLUXGATE.kafka_topic, topic.incarnation(), topic.partition_of(sale.id))


def events(sale: Sale) -> list[str]:
    told = SaleEvent.objects.filter(sale=sale, actor="reconcile").order_by("id")
    return [event.action for event in told]


# Claims without a row


def test_queued_claims_that_the_log_lost_are_appended_again(
    sale: Sale, gate: redis.Redis, kafka_log: KafkaLog, start: Callable[[], Consumer]
) -> None:
    lost = take(sale, 3)
    queue(gate, sale, *lost)  # acknowledged, and then the broker lost its tail
    worker = start()
    drain(worker)
    assert verdict(gate, sale) == (
        "differs",
        ["I3: without a row in the order book, and nothing is left to read: 3 claims (3 units)"],
    )
    assert fix(gate, kafka_log, sale) == ["append_again 3"]
    drain(worker)
    assert set(Order.objects.values_list("id", flat=True)) == set(ids(*lost))
    assert verdict(gate, sale) == ("balanced", [])
    assert fix(gate, kafka_log, sale) == []
    assert events(sale) == ["append_again"]


def test_twin_without_the_repair_nobody_appends_a_queued_claim(
    sale: Sale, gate: redis.Redis, kafka_log: KafkaLog, start: Callable[[], Consumer]
) -> None:
    queue(gate, sale, *take(sale, 3))
    worker = start()
    drain(worker)
    worker.step(1.0)
    assert verdict(gate, sale)[0] == "differs"
    assert Order.objects.count() == 0


def test_held_claims_are_appended_and_queued(
    sale: Sale, gate: redis.Redis, kafka_log: KafkaLog, start: Callable[[], Consumer], settings: Any
) -> None:
    settings.FLUXGATE = settings.FLUXGATE.model_copy(update={"sweep_after_seconds": 0.0})
    placed = take(sale, 2)
    eventually(lambda: fix(gate, kafka_log, sale) == ["append_again 2"])
    standing = image(gate, sale.id)
    assert standing is not None
    assert (standing.held, standing.queued) == (0, 2)
    drain(start())
    assert set(Order.objects.values_list("id", flat=True)) == set(ids(*placed))
    assert verdict(gate, sale) == ("balanced", [])


def test_a_claim_that_is_in_the_log_already_meets_its_own_row(
    sale: Sale, gate: redis.Redis, kafka_log: KafkaLog, start: Callable[[], Consumer]
) -> None:
    """A repair that was not needed harms nothing: the same order id, once."""
    placed = take(sale, 2)
    append(kafka_log, *placed)
    queue(gate, sale, *placed)
    strays = [
        comparison.Stray(comparison.Kind.WITHOUT_ROW, claim.order_id, 1, found)
        for claim in placed
        if (found := _claim(gate, sale, claim))
    ]
    assert repair.append_again(gate, kafka_log, sale, sale.epoch, strays) == 2
    drain(start())
    sale.refresh_from_db()
    assert (Order.objects.count(), sale.sold) == (2, 2)
    assert verdict(gate, sale) == ("balanced", [])


def test_claims_that_are_still_unread_are_left_alone(
    sale: Sale, gate: redis.Redis, kafka_log: KafkaLog
) -> None:
    placed = take(sale, 2)
    append(kafka_log, *placed)
    queue(gate, sale, *placed)
    assert fix(gate, kafka_log, sale) == []


def test_a_log_that_does_not_acknowledge_is_asked_again_later(
    sale: Sale, gate: redis.Redis, kafka_log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "ACKNOWLEDGED_SECONDS", 0.1)
    queue(gate, sale, *take(sale, 2))
    frozen = MemoryLog(partitions=3)
    frozen.frozen = True
    [done] = straighten(gate, frozen, sale)
    assert (done.times, done.line) == (
        0,
        "not acknowledged by the log: 2 claims without a row. Run this again",
    )
    full = MemoryLog(partitions=3, capacity=0)
    assert [done.times for done in straighten(gate, full, sale)] == [0]
    assert events(sale) == []


def test_settled_claims_whose_rows_are_gone_are_appended_under_the_gates_own_epoch(
    sale: Sale, gate: redis.Redis, kafka_log: KafkaLog, start: Callable[[], Consumer]
) -> None:
    """A database that lost commits, and a log that lost the same records. The gate has the claim from an
    earlier arming: under that epoch it would be dropped, the barrier has been passed."""
    [claim] = take(sale, 1)
    key = pool_keys(sale.id)
    gate.hset(key.claims, str(claim.order_id), f"s1:{int(claim.claimed_at.timestamp() * 1000)}:5:ann")
    gate.zrem(key.pending, str(claim.order_id))
    gate.hincrby(key.gate, "held", -1)
    gate.hincrby(key.gate, "settled", 1)
    gate.hset(key.customers, "ann", f"1:{claim.order_id}")
    gate.hdel(key.customers, claim.user_id)
    append(kafka_log, _barrier(sale))
    worker = start()
    drain(worker)
    assert fix(gate, kafka_log, sale) == ["append_again 1"]
    drain(worker)
    assert Order.objects.get().epoch == sale.epoch
    assert verdict(gate, sale) == ("balanced", [])


# A position beyond the end of the log


def test_a_position_beyond_the_end_goes_back_and_nothing_below_it_is_lost(
    sale: Sale,
    gate: redis.Redis,
    kafka_log: KafkaLog,
    start: Callable[[], Consumer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(partition, "QUIET_SECONDS", 1.0)
    since = take(sale, 2)
    append(kafka_log, *since)  # appended after the tail was lost, below the old position
    queue(gate, sale, *since)
    Position.objects.create(**source(sale)._asdict(), next_offset=50)
    stopped = start()
    with pytest.raises(LogShorter):
        eventually(lambda: (stopped.step(0.05), False)[1])
    assert verdict(gate, sale) == (
        "differs",
        ["I3: the log ends 48 records before the position: an acknowledged tail is lost"],
    )
    stopped.close()
    assert fix(gate, kafka_log, sale) == ["wind_back 50"]
    drain(start())
    assert set(Order.objects.values_list("id", flat=True)) == set(ids(*since))
    assert verdict(gate, sale) == ("balanced", [])
    assert wind_back(sale) is None
    assert events(sale) == ["wind_back"]


def test_twin_back_to_the_end_loses_what_was_appended_since(
    sale: Sale, gate: redis.Redis, kafka_log: KafkaLog, start: Callable[[], Consumer]
) -> None:
    since = take(sale, 2)
    append(kafka_log, *since, cancel_of(since[0]))
    queue(gate, sale, *since)
    Position.objects.create(**source(sale)._asdict(), next_offset=50)
    Position.objects.update(next_offset=3)  # the wrong repair
    worker = start()
    drain(worker)
    assert verdict(gate, sale)[0] == "differs"
    # Appending the claims again brings them back, and not the cancel of one.
    assert fix(gate, kafka_log, sale) == ["append_again 2"]
    eventually(lambda: (worker.step(0.05), Order.objects.count() == 2)[1])
    assert set(Order.objects.values_list("state", flat=True)) == {"confirmed"}
    # The right one does: no later than the next record, which is the consumer's fence.
    assert wind_back(sale, always=True) is not None
    append(kafka_log, *take(sale, 1))
    eventually(lambda: (worker.step(0.05), Order.objects.count() == 3)[1])
    assert Order.objects.get(id=since[0].order_id).state == "cancelled"


def test_a_lost_tail_that_new_records_have_overgrown_is_read_again(
    sale: Sale, gate: redis.Redis, kafka_log: KafkaLog, start: Callable[[], Consumer]
) -> None:
    """The log lost its records from 1 on, and had grown beyond the position 3 before anybody looked."""
    placed = take(sale, 4)
    append(kafka_log, *placed[:3], cancel_of(placed[1]), placed[3])
    queue(gate, sale, *placed)
    Position.objects.create(**source(sale)._asdict(), next_offset=3)
    worker = start()
    drain(worker)
    worker.close()
    assert verdict(gate, sale)[0] == "differs"
    assert wind_back(sale) is None  # the position lies within the log: only `always` reads it again
    assert wind_back(sale, always=True) is not None
    drain(start())
    states = dict(Order.objects.values_list("id", "state"))
    assert states == dict.fromkeys(ids(*placed), "confirmed") | {placed[1].order_id: "cancelled"}
    assert verdict(gate, sale) == ("balanced", [])


def test_a_consumer_that_runs_meets_its_fence_and_begins_anew(
    sale: Sale, gate: redis.Redis, kafka_log: KafkaLog, start: Callable[[], Consumer]
) -> None:
    first = take(sale, 2)
    append(kafka_log, *first)
    queue(gate, sale, *first)
    worker = start()
    drain(worker)
    assert wind_back(sale, always=True) is not None
    second = take(sale, 2)
    append(kafka_log, *second)
    queue(gate, sale, *second)
    drain(worker)
    eventually(lambda: (worker.step(0.05), Position.objects.get().next_offset == 4)[1])
    sale.refresh_from_db()
    assert (Order.objects.count(), sale.sold) == (4, 4)
    eventually(lambda: (worker.step(0.05), verdict(gate, sale) == ("balanced", []))[1])


def test_a_consumer_that_was_quicker_keeps_its_position(
    sale: Sale, kafka_log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(kafka_log, *take(sale, 2))
    Position.objects.create(**source(sale)._asdict(), next_offset=50)
    beginning = lag.beginning

    def meanwhile(*arguments: Any) -> int | None:
        Position.objects.update(next_offset=51)
        return beginning(*arguments)

    monkeypatch.setattr(lag, "beginning", meanwhile)
    assert wind_back(sale) is None
    assert Position.objects.get().next_offset == 51
    assert repair_book.wind_back(source(sale), 51, 60) is False  # never on


# Units of orders that are cancelled or refused


def settled_then(
    state: str, sale: Sale, gate: redis.Redis, log: KafkaLog, worker: Consumer
) -> list[claims.Claim]:
    """Two confirmed orders; one of them is then cancelled or refused, and the gate is not told."""
    placed = take(sale, 2)
    append(log, *placed)
    queue(gate, sale, *placed)
    drain(worker)
    Order.objects.filter(id=placed[0].order_id).update(state=state)
    Sale.objects.filter(pk=sale.pk).update(sold=1)
    return placed


@pytest.mark.parametrize("state", ["cancelled", "refused"])
def test_units_of_orders_that_are_not_sold_come_back(
    sale: Sale, gate: redis.Redis, kafka_log: KafkaLog, start: Callable[[], Consumer], state: str
) -> None:
    placed = settled_then(state, sale, gate, kafka_log, start())
    assert verdict(gate, sale) == (
        "differs",
        ["I2: not released, and their orders are refused or cancelled: 1 claim (1 unit)"],
    )
    assert fix(gate, kafka_log, sale) == ["release_units 1"]
    standing = image(gate, sale.id)
    assert standing is not None
    assert (standing.remaining, standing.settled, standing.released) == (9, 1, 1)
    assert gate.hget(pool_keys(sale.id).customers, placed[0].user_id) is None
    assert fix(gate, kafka_log, sale) == []
    assert verdict(gate, sale) == ("balanced", [])


def test_twin_releasing_what_has_no_row_would_sell_a_unit_twice(
    sale: Sale, gate: redis.Redis, kafka_log: KafkaLog, start: Callable[[], Consumer]
) -> None:
    """Why a claim without a row is appended and never released: its record may be in the log."""
    placed = take(sale, 1)
    append(kafka_log, *placed)
    queue(gate, sale, *placed)
    repair.gate.release(gate, sale.id, 0, ids(*placed))  # the wrong repair
    drain(start())
    assert verdict(gate, sale)[0] == "differs"


def test_claims_of_confirmed_orders_are_settled(
    sale: Sale, gate: redis.Redis, kafka_log: KafkaLog, start: Callable[[], Consumer]
) -> None:
    placed = take(sale, 2)
    append(kafka_log, *placed)
    queue(gate, sale, *placed)
    drain(start())
    key = pool_keys(sale.id)
    gate.hset(key.claims, str(placed[0].order_id), f"q1:1:{sale.epoch}:{placed[0].user_id}")
    gate.hincrby(key.gate, "settled", -1)
    gate.hincrby(key.gate, "queued", 1)
    assert verdict(gate, sale) == (
        "differs",
        ["I2: not settled, and their orders are confirmed: 1 claim (1 unit)"],
    )
    assert fix(gate, kafka_log, sale) == ["settle_claims 1"]
    assert fix(gate, kafka_log, sale) == []
    assert verdict(gate, sale) == ("balanced", [])
    assert events(sale) == ["settle_claims"]


# A gate that differs


def lose_everything(gate: redis.Redis, sale: Sale, placed: list[claims.Claim]) -> None:
    gate.flushdb()


def forget_an_order(gate: redis.Redis, sale: Sale, placed: list[claims.Claim]) -> None:
    """As a failover to a replica that had fallen behind, and back, would leave it."""
    gate.hdel(pool_keys(sale.id).claims, str(placed[0].order_id))
    gate.hdel(pool_keys(sale.id).customers, placed[0].user_id)
    gate.hincrby(pool_keys(sale.id).gate, "settled", -1)
    gate.hincrby(pool_keys(sale.id).gate, "remaining", 1)


def miscount(gate: redis.Redis, sale: Sale, placed: list[claims.Claim]) -> None:
    gate.hincrby(pool_keys(sale.id).gate, "remaining", -1)


def forget_a_customer(gate: redis.Redis, sale: Sale, placed: list[claims.Claim]) -> None:
    gate.hset(pool_keys(sale.id).customers, placed[0].user_id, f"0:{placed[0].order_id}")


@pytest.mark.parametrize("fault", [lose_everything, forget_an_order, miscount, forget_a_customer])
def test_a_gate_that_differs_is_armed_again(
    sale: Sale,
    gate: redis.Redis,
    kafka_log: KafkaLog,
    start: Callable[[], Consumer],
    fault: Callable[..., None],
) -> None:
    placed = take(sale, 2)
    append(kafka_log, *placed)
    queue(gate, sale, *placed)
    worker = start()
    drain(worker)
    epoch = sale.epoch
    fault(gate, sale, placed)
    assert verdict(gate, sale)[0] == "differs"
    fix(gate, kafka_log, sale)
    keeper = Gatekeeper(gate, kafka_log)
    done = repair.rearm(gate, [sale], lambda: (keeper.step(), worker.step(0.02)), 60)
    assert [(each.action, each.times) for each in done] == [("rearm", 1)]
    sale.refresh_from_db()
    assert sale.epoch > epoch
    eventually(lambda: (worker.step(0.05), verdict(gate, sale) == ("balanced", []))[1])
    take(sale, 1)  # and it sells


def test_a_gate_that_stands_is_not_touched(sale: Sale, gate: redis.Redis, kafka_log: KafkaLog) -> None:
    assert fix(gate, kafka_log, sale) == []
    assert repair.rearm(gate, [sale], lambda: None, 0) == []
    assert fence.fallen(gate, [sale]) == []


def test_a_gate_that_nobody_arms_again_is_said_to_be_down(
    sale: Sale, gate: redis.Redis, kafka_log: KafkaLog
) -> None:
    assert repair.shut_for_rearming(gate, sale) is not None
    assert repair.shut_for_rearming(gate, sale) is None  # the gatekeeper knows already
    [done] = repair.rearm(gate, [sale], lambda: None, 0)
    assert (done.times, done.line) == (0, "gate not armed again yet: an arming has not ended")
    assert events(sale) == ["shut"]


# Everything at once, while the sale goes on


def test_a_running_sale_is_repaired_without_selling_twice(
    sale: Sale, gate: redis.Redis, kafka_log: KafkaLog, start: Callable[[], Consumer]
) -> None:
    lost = take(sale, 2)
    queue(gate, sale, *lost)
    running = take(sale, 8)  # sold out
    worker, stop = start(), threading.Event()
    append(kafka_log, *running[:4])

    def consume() -> None:
        while not stop.is_set():
            worker.step(0.02)

    thread = threading.Thread(target=consume)
    thread.start()
    try:
        append(kafka_log, *running[4:])
        mark_queued(gate, sale.id, 0, sale.epoch, ids(*running))
        eventually(lambda: (fix(gate, kafka_log, sale), verdict(gate, sale) == ("balanced", []))[1], 60)
    finally:
        stop.set()
        thread.join()
    sale.refresh_from_db()
    assert (sale.sold, Order.objects.filter(state="confirmed").count()) == (10, 10)


def _claim(gate: redis.Redis, sale: Sale, claim: claims.Claim) -> Any:
    value: Any = gate.hget(pool_keys(sale.id).claims, str(claim.order_id))
    return repair.gate.parse_claim(value) if value else None


def _barrier(sale: Sale) -> claims.Barrier:
    return claims.Barrier(v=1, sale_id=sale.id, pool=0, epoch=sale.epoch, at=datetime.now(UTC))
