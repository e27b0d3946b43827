"""The sweeper on a real gate: forward only, under the same order id, harmless when there are several."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from django.db import OperationalError, connection

from orders import claims, sweeper
from orders.book import Read, Source
from orders.fulfillment import Batch, fulfill
from orders.memory_log import MemoryLog
from orders.models import Order, OrderState
from orders.sweeper import Sweeper
from sales import arming
from sales.gate import connect, image, mark_queued, release
from sales.models import Sale
from sales.topic import partition_of
from tests.orders.records import kill_this_connection, take
from tests.running_site import eventually, free_port

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def at_once(settings: Any) -> None:
    """A claim is late as soon as the gate's clock has moved on."""
    settings.FLUXGATE = settings.FLUXGATE.model_copy(update={"sweep_after_seconds": 0.001})


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(partitions=64)


def held(client: redis.Redis, sale: Sale) -> tuple[int, int, int]:
    """The gate's held, queued and released units."""
    found = image(client, sale.id)
    assert found is not None
    return found.held, found.queued, found.released


def sweep_of(sale: Sale, count: int = 1) -> list[claims.Claim]:
    """Claims whose web process died between the gate and the log."""
    found = take(sale, count)
    time.sleep(0.005)  # the gate measures age in milliseconds
    return found


def values(log: MemoryLog, sale: Sale) -> list[claims.Message]:
    return [claims.decode(record.value) for record in log.partitions[partition_of(sale.id)]]


def test_a_claim_that_stayed_held_is_appended_as_it_was_granted(
    open_sale: Callable[..., Sale], gate: redis.Redis, log: MemoryLog
) -> None:
    sale = open_sale()
    lost = sweep_of(sale, 3)
    each = Sweeper(gate, log)
    assert each.sweep() == 3
    # Oldest first. Claims of one millisecond have no order between them: Redis goes by the id then.
    expected = sorted(lost, key=lambda claim: (claim.claimed_at, str(claim.order_id)))
    assert values(log, sale) == expected, "same order ids, customers, prices, epoch and times"
    assert log.partitions[partition_of(sale.id)][0].key == claims.pool_key(sale.id, 0)
    assert held(gate, sale) == (3, 0, 0)
    each.mark_queued()
    assert held(gate, sale) == (0, 3, 0)
    assert each.sweep() == 0


def test_a_young_claim_is_left_alone(
    open_sale: Callable[..., Sale], gate: redis.Redis, log: MemoryLog, settings: Any
) -> None:
    settings.FLUXGATE = settings.FLUXGATE.model_copy(update={"sweep_after_seconds": 60})
    sweep_of(open_sale())
    assert Sweeper(gate, log).sweep() == 0


def test_a_queued_claim_is_left_alone(
    open_sale: Callable[..., Sale], gate: redis.Redis, log: MemoryLog
) -> None:
    sale = open_sale()
    [claim] = sweep_of(sale)
    mark_queued(gate, sale.id, 0, sale.epoch, [claim.order_id])
    assert Sweeper(gate, log).sweep() == 0


@pytest.mark.parametrize("step", ["pause", "close"])
def test_a_sale_that_sells_no_more_is_swept_as_well(
    open_sale: Callable[..., Sale], gate: redis.Redis, log: MemoryLog, step: str
) -> None:
    sale = open_sale()
    lost = sweep_of(sale)
    getattr(arming, step)(sale, actor="test")
    Sweeper(gate, log).sweep()
    assert values(log, sale) == lost


def test_a_claim_under_way_is_not_appended_again_until_its_report(
    open_sale: Callable[..., Sale], gate: redis.Redis, log: MemoryLog
) -> None:
    sale = open_sale()
    sweep_of(sale)
    log.frozen = True
    each = Sweeper(gate, log)
    assert [each.sweep(), each.sweep(), each.sweep()] == [1, 0, 0]
    log.frozen = False
    log.deliver()
    each.mark_queued()
    assert held(gate, sale) == (0, 1, 0)
    assert len(values(log, sale)) == 1


def test_an_unknown_outcome_is_tried_again_and_never_released(
    open_sale: Callable[..., Sale], gate: redis.Redis, log: MemoryLog
) -> None:
    sale = open_sale()
    [claim] = sweep_of(sale)
    log.frozen = True
    each = Sweeper(gate, log)
    assert each.sweep() == 1
    log.close()  # reports "unknown"
    each.mark_queued()
    assert held(gate, sale) == (1, 0, 0)
    again = MemoryLog(partitions=64)
    each._log = again
    assert each.sweep() == 1
    each.mark_queued()
    assert (held(gate, sale), values(again, sale)) == ((0, 1, 0), [claim])


def test_a_log_that_is_down_leaves_claims_held(
    open_sale: Callable[..., Sale], gate: redis.Redis, log: MemoryLog
) -> None:
    sale = open_sale()
    sweep_of(sale)
    log.reachable = False
    each = Sweeper(gate, log)
    assert each.step() is False
    assert held(gate, sale) == (1, 0, 0)


def test_a_log_that_fills_up_ends_the_sweep(open_sale: Callable[..., Sale], gate: redis.Redis) -> None:
    sale = open_sale()
    sweep_of(sale, 5)
    log = MemoryLog(partitions=64, capacity=3)
    log.frozen = True
    each = Sweeper(gate, log)
    assert each.sweep() == 3
    log.frozen = False
    log.deliver()
    each.mark_queued()
    assert held(gate, sale) == (2, 3, 0)
    assert each.sweep() == 2


def test_a_long_backlog_is_worked_off_without_waiting(
    open_sale: Callable[..., Sale], gate: redis.Redis, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "LIMIT", 2)
    monkeypatch.setattr(sweeper, "EVERY_SECONDS", 3600)
    sale = open_sale()
    sweep_of(sale, 5)
    each = Sweeper(gate, log)
    assert [each.step() for _ in range(4)] == [True, True, True, False]
    assert len(values(log, sale)) == 5


def test_it_sweeps_when_it_is_due(
    open_sale: Callable[..., Sale], gate: redis.Redis, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "EVERY_SECONDS", 0.2)
    sale = open_sale()
    each = Sweeper(gate, log)
    assert each.step() is False
    sweep_of(sale)
    assert each.step() is False, "not due yet"
    assert eventually(each.step)


def test_without_gate_or_database_a_sweep_is_put_off(
    open_sale: Callable[..., Sale], log: MemoryLog, gate: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_sale()
    away = connect(f"redis://127.0.0.1:{free_port()}/0")
    assert Sweeper(away, log).step() is False

    class Database:
        def filter(self, **conditions: Any) -> Any:
            raise OperationalError("starting up")

    monkeypatch.setattr(sweeper.Sale, "objects", Database())
    assert Sweeper(gate, log).step() is False


def test_a_connection_that_postgresql_has_ended_is_not_kept(
    open_sale: Callable[..., Sale], gate: redis.Redis, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart of PostgreSQL nobody else may touch the connection: the sale is sold out, and idle."""
    monkeypatch.setattr(sweeper, "EVERY_SECONDS", 0)
    sale = open_sale()
    sweep_of(sale)
    each = Sweeper(gate, log)
    kill_this_connection()
    assert [each.step(), each.step()] == [False, True]


def test_a_gate_that_is_full_puts_a_sweep_off(
    open_sale: Callable[..., Sale], gate: redis.Redis, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep_of(open_sale())
    each = Sweeper(gate, log)

    def full(*arguments: Any) -> int:
        raise redis.OutOfMemoryError("command not allowed when used memory > 'maxmemory'")

    monkeypatch.setattr(sweeper.gate, "held", full)
    assert each.step() is False


# Together with fulfillment


def fulfill_all(log: MemoryLog, sale: Sale) -> None:
    number = partition_of(sale.id)
    records = [Read(offset, record.value, record.key) for offset, record in enumerate(log.partitions[number])]
    fulfill(Batch(Source("orders", "of this test", number), 0, records))


def test_several_sweepers_and_the_web_process_append_and_one_order_comes_of_it(
    open_sale: Callable[..., Sale], gate: redis.Redis, log: MemoryLog
) -> None:
    sale = open_sale()
    [claim] = sweep_of(sale)
    log.append(
        claims.encode(claim, partition_of(sale.id)), lambda error: None
    )  # its acknowledgement was lost
    sweepers = [Sweeper(gate, log) for _ in range(3)]
    assert [each.sweep() for each in sweepers] == [1, 1, 1]
    for each in sweepers:
        each.mark_queued()
    assert len(values(log, sale)) == 4
    fulfill_all(log, sale)
    sale.refresh_from_db()
    assert (sale.sold, Order.objects.count()) == (1, 1)
    assert held(gate, sale) == (0, 1, 0)


@pytest.mark.parametrize("released_on_timeout", [False, True])
def test_a_timeout_is_unknown_and_the_twin_that_releases_breaks_a_promise(
    open_sale: Callable[..., Sale], gate: redis.Redis, log: MemoryLog, released_on_timeout: bool
) -> None:
    """I3. The log took the claim of the first buyer and its acknowledgement did not come in time."""
    sale = open_sale(allotment=1)
    [first] = sweep_of(sale)
    log.append(claims.encode(first, partition_of(sale.id)), lambda error: None)
    if released_on_timeout:
        release(gate, sale.id, 0, [first.order_id])
        time.sleep(0.06)  # claim.lua waits until nobody repeats that there is none
        [second] = take(sale)  # the same unit once more, acknowledged: promised
        log.append(claims.encode(second, partition_of(sale.id)), lambda error: None)
    else:
        with pytest.raises(AssertionError, match="sold_out"):
            take(sale)
        Sweeper(gate, log).sweep()
    fulfill_all(log, sale)
    refused = Order.objects.filter(state=OrderState.REFUSED).count()
    assert refused == (1 if released_on_timeout else 0), "two buyers were promised one unit"


def test_a_broken_database_connection_stops_it_for_one_step_only(
    open_sale: Callable[..., Sale], gate: redis.Redis, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL was restarted while nothing was read: the last held claims depend on the sweeper alone."""
    monkeypatch.setattr(sweeper, "EVERY_SECONDS", 0)
    sale = open_sale()
    sweep_of(sale)
    steady = Sweeper(gate, log)
    with connection.cursor() as cursor, pytest.raises(OperationalError):
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert not steady.step()
    assert steady.step()
    assert len(values(log, sale)) == 1
