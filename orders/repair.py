"""Repairs: what `manage.py reconcile --fix` does about a difference. Each may be repeated at any time.

They go forward only, as everything does: a claim without a row is appended again under its own
order id, and meets its row where it has one; units come back only where the row says so; a position
is wound back, never on. So a repair that was not needed, or that dies half-way, harms nothing.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

import redis
from django.conf import settings

from orders import claims, lag, repair_book
from orders.balance import Balance, many
from orders.book import Source
from orders.comparison import Comparison, Kind, Stray
from orders.log import Log, LogUnavailable
from orders.reconciliation import comparable, read_to_the_end
from orders.sweeper import claim_of
from sales import fence, gate
from sales.fence import Arming
from sales.gate import POOL
from sales.models import Sale
from sales.topic import TopicUnavailable, incarnation, partition_of

# How long the log may take to acknowledge a chunk of claims.
ACKNOWLEDGED_SECONDS = 10.0
_WITHOUT_ROW = (Kind.LATE, Kind.WITHOUT_ROW)


class Repair(NamedTuple):
    """What was done for a sale, in one line."""

    sale: str
    action: str
    times: int
    line: str


def put_right(client: redis.Redis, log: Log, sale: Sale, found: Balance) -> list[Repair]:
    """Every repair that this balance asks for, in the order that makes them count: what the log has is
    read before anything is appended, and what is appended is there before the gate is built anew.

    Raises gate.GateUnreachable, and what the order book raises.
    """
    wound_back = wind_back(sale) if found.log.lost else None
    if wound_back is not None:
        return [wound_back]  # whatever is in the log comes by itself now
    done = straighten(client, log, sale) if comparable(found) else []
    if found.gate_differs and not done:
        done = [shut] if (shut := shut_for_rearming(client, sale)) is not None else []
    return done


def straighten(client: redis.Redis, log: Log, sale: Sale) -> list[Repair]:
    """Compares every claim with its row, and puts right what stays wrong.

    Claims without a row are appended again, units of refused and cancelled orders released,
    claims of confirmed orders settled. Raises gate.GateUnreachable and what the order book raises.
    """
    # The gate that is compared vouches for its claims. Whatever is built meanwhile does not know them.
    epoch = gate.epoch(client, sale.id, POOL)
    comparison = Comparison(
        client, sale, partial(read_to_the_end, sale), late_seconds=settings.FLUXGATE.sweep_after_seconds
    )
    appended = unknown = released = settled = 0
    for strays in comparison.strays():
        without_row = [stray for stray in strays if stray.kind in _WITHOUT_ROW]
        if without_row:
            acknowledged = append_again(client, log, sale, epoch, without_row)
            appended += acknowledged
            unknown += len(without_row) - acknowledged
        if to_release := _ids(strays, Kind.TO_RELEASE):
            released += gate.release(client, sale.id, POOL, to_release)
        if to_settle := _ids(strays, Kind.TO_SETTLE):
            settled += gate.settle(client, sale.id, POOL, to_settle)
    done = []
    if appended:
        done.append(
            _done(sale, "append_again", appended, f"{many(appended, 'claim')} without a row appended again")
        )
    if unknown:
        line = f"not acknowledged by the log: {many(unknown, 'claim')} without a row. Run this again"
        done.append(Repair(sale.slug, "append_again", 0, line))
    if released:
        line = f"units given back of {many(released, 'refused or cancelled order')}"
        done.append(_done(sale, "release_units", released, line))
    if settled:
        done.append(
            _done(sale, "settle_claims", settled, f"{many(settled, 'claim')} of confirmed orders settled")
        )
    return done


def append_again(client: redis.Redis, log: Log, sale: Sale, epoch: int, strays: Sequence[Stray]) -> int:
    """Appends these claims once more, in the order in which they were granted. Returns how many the log
    has acknowledged; what it has not is unknown, and may be appended again like any other.

    `epoch` is of the gate that holds them. A settled claim may be of an earlier arming, and under that
    epoch it would be dropped: the pool's barrier has been passed.
    """
    granted = sorted(
        (
            gate.Held(each.order_id, each.claim.customer, each.quantity, each.claim.claimed_at, epoch)
            for each in strays
            if each.claim is not None
        ),
        key=lambda held: held.claimed_at,
    )
    partition = partition_of(sale.id, POOL)
    reports: deque[tuple[UUID, Exception | None]] = deque()  # filled by the log's thread
    taken = 0
    for held in granted:
        record = claims.encode(claim_of(sale, held), partition)
        try:
            log.append(record, partial(_report, reports, held.order_id))
        except LogUnavailable:
            break
        taken += 1
    deadline = time.monotonic() + ACKNOWLEDGED_SECONDS
    while len(reports) < taken and time.monotonic() < deadline:
        time.sleep(0.01)
    acknowledged = [order_id for order_id, error in list(reports) if error is None]
    if acknowledged:
        gate.mark_queued(client, sale.id, POOL, epoch, acknowledged)
    return len(acknowledged)


def wind_back(sale: Sale, *, always: bool = False, kafka: lag.Kafka | None = None) -> Repair | None:
    """Winds the position of the sale's partition back to the beginning of the log, when it lies beyond
    the end (`always`: wherever it lies). None: there was nothing to do, or a consumer was quicker.

    Back to the end would not do: what has been appended since the tail was lost stands below the
    position, and nobody can say where it begins. Everything is read once more; what has its row
    changes nothing. A consumer that runs meanwhile meets its fence, the position, and begins anew.
    """
    partition = partition_of(sale.id, POOL)
    topic = settings.FLUXGATE.kafka_topic
    try:
        source = Source(topic, incarnation(), partition)
    except TopicUnavailable:
        return None
    reach = lag.reach({partition}, kafka).get(partition)
    if reach is None or not (reach.lost or always):
        return None
    first = lag.beginning(partition, kafka)
    if first is None or not repair_book.wind_back(source, reach.position, first):
        return None
    line = (
        f"position of {topic}/{partition} wound back from {reach.position} to {first}, "
        f"the log ends at {reach.end}: run_fulfillment reads it once more"
    )
    return _done(sale, "wind_back", reach.position - first, line)


def shut_for_rearming(client: redis.Redis, sale: Sale) -> Repair | None:
    """Shuts a gate that differs, so that the gatekeeper builds it anew from the rows.

    None: it is down or being armed already, and the gatekeeper knows. Raises gate.GateUnreachable.
    """
    if fence.fallen(client, [sale]):
        return None
    if not fence.shut(client, Arming(sale.id, POOL, sale.epoch + 1)):
        return None
    return _done(sale, "shut", 1, "gate shut: the gatekeeper arms it again from the order book")


def rearm(
    client: redis.Redis, sales: Sequence[Sale], step: Callable[[], Any], seconds: float
) -> list[Repair]:
    """Takes turns of a gatekeeper (`step`) until the gates of these sales stand, for so long at most."""
    begun = time.monotonic()
    waiting = {sale.id: sale for sale, _ in fence.fallen(client, sales)}
    done = []
    while waiting:
        step()
        for sale in waiting.values():
            repair_book.refresh(sale)  # its epoch moves
        fallen = {sale.id: reason for sale, reason in fence.fallen(client, list(waiting.values()))}
        for sale in [sale for sale in waiting.values() if sale.id not in fallen]:
            del waiting[sale.id]
            done.append(Repair(sale.slug, "rearm", 1, "gate armed again from the order book"))
        if waiting and time.monotonic() - begun > seconds:
            return done + [
                Repair(sale.slug, "rearm", 0, f"gate not armed again yet: {fallen[sale.id]}")
                for sale in waiting.values()
            ]
        time.sleep(0.05)
    return done


def _report(reports: deque[tuple[UUID, Exception | None]], order_id: UUID, error: Exception | None) -> None:
    reports.append((order_id, error))


def _ids(strays: Sequence[Stray], kind: Kind) -> list[UUID]:
    return [stray.order_id for stray in strays if stray.kind == kind]


def _done(sale: Sale, action: str, count: int, line: str) -> Repair:
    repair_book.note(sale.id, action, line, {"count": count})
    return Repair(sale.slug, action, count, line)
