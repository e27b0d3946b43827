"""I1-I8 of docs/architecture.md, from the three books and from what every client was told.

The world has ended: faults over, everything drained, late buyers served. A stated limit relaxes
only the check that it names, only in the mode that has it.
"""

from collections import defaultdict
from typing import TYPE_CHECKING
from uuid import UUID

from orders.models import OrderState
from sales.gate import image, pool_keys
from tests.simulation.redis_clients import Direct
from tests.simulation.web import AGAIN

if TYPE_CHECKING:
    from tests.simulation.simulate import Run

# Refusals of the gate: at that moment the key had no order. A 503 says nothing, 404 is for status.
DEFINITE = {
    "sold-out",
    "limit-reached",
    "sale-closed",
    "all-units-held",
    "too-busy",
    "sale-not-open",
    "sale-paused",
}
HELD_SECONDS = 30.0
_TOLD = {"queued", "confirmed", "refused", "cancelled"}  # from here on the key has its order for good


def violations(run: "Run") -> list[str]:
    found: list[str] = [f"PROCESS {text}" for text in run.world.failures]
    found += run.world.books.committed.wrong
    for check in (_units, _orders, _promises, _refusals, _stops):
        found += check(run)
    return found


def _units(run: "Run") -> list[str]:
    """I1, I2 and I8: the counters of the gate and of the order book, at rest."""
    found = []
    world = run.world
    tables = world.books.committed
    for sale in tables.sales.values():
        rows = [row for row in tables.orders.values() if row.sale_id == sale.id]
        confirmed = sum(row.quantity for row in rows if row.state == OrderState.CONFIRMED)
        if sale.sold > sale.allotment or confirmed > sale.allotment:
            found.append(f"I1 {sale.slug}: {confirmed} units confirmed of {sale.allotment}")
        if confirmed != sale.sold:
            found.append(f"I1 {sale.slug}: sold says {sale.sold}, confirmed orders {confirmed}")
        gate = image(Direct(world.redis.master), sale.id)  # type: ignore[arg-type]
        if gate is None:
            found.append(f"I2 {sale.slug}: no gate")
            continue
        if gate.loaded != gate.remaining + gate.held + gate.queued + gate.settled:
            found.append(f"I2 {sale.slug}: {gate}")
        if gate.remaining != sale.allotment - sale.sold:
            left = sale.allotment - sale.sold
            found.append(f"I2 {sale.slug}: {gate.remaining} units remain in the gate, {left} are not sold")
        if gate.held or gate.queued or world.redis.master.data.get(pool_keys(sale.id).pending):
            found.append(f"I8 {sale.slug}: at rest {gate}")
        if sale.state == "open" and sale.sold != sale.allotment:
            found.append(
                f"I8 {sale.slug}: {sale.sold} of {sale.allotment} units sold, though there was demand"
            )
    if run.held_for > HELD_SECONDS:
        found.append(f"I8 a claim was held for {run.held_for:.1f} s after the faults")
    if not run.at_rest:
        found.append(f"I8 not at rest after {run.world.scheduler.now:.0f} s: {run.unrest}")
    return found


def _orders(run: "Run") -> list[str]:
    """I4 and I6: limits, prices, and a grant behind every row."""
    found = []
    world = run.world
    tables = world.books.committed
    granted = {(order_id, epoch) for _, _, order_id, epoch, _ in world.grants}
    units: dict[tuple[UUID, str], int] = defaultdict(int)
    for row in tables.orders.values():
        sale = tables.sales[row.sale_id]
        if row.state == OrderState.CONFIRMED:
            units[row.sale_id, row.customer] += row.quantity
        if (row.unit_price, row.currency) != (sale.unit_price, sale.currency):
            found.append(f"I6 order {row.id}: price {row.unit_price} {row.currency}")
        if (row.id, row.epoch) not in granted:
            found.append(f"I6 order {row.id}: no gate has granted it in epoch {row.epoch}")
    for wish in run.clients.wishes:
        told = min((call.ended for call in wish.calls if call.answer.word in _TOLD), default=float("inf"))
        again = [
            at for at, _, order_id, _, deluded in world.grants if order_id == wish.order_id and at > told
        ]
        if again and not run.forgiven(wish):
            found.append(f"I4 {wish.customer}/{wish.key}: its key was granted again at {again[0]:.4f}")
    for (sale_id, customer), count in units.items():
        limit = tables.sales[sale_id].limit_per_customer
        if count > limit:
            found.append(f"I4 {customer}: {count} units confirmed, the limit is {limit}")
    wrong = {
        order_id for order_id, row in tables.orders.items() if _events(run, order_id)[-1:] != [row.state]
    }
    found += [f"I6 order {order_id}: its events end otherwise" for order_id in wrong]
    if tables.parked:
        found.append(f"I3 {len(tables.parked)} records were parked")
    return found


def _events(run: "Run", order_id: UUID) -> list[str]:
    return [state for of, state, _ in run.world.books.committed.events if of == order_id]


def _promises(run: "Run") -> list[str]:
    """I3: what was answered `queued` is confirmed, unless its buyer cancels; final answers stay."""
    found = []
    for wish in run.clients.wishes:
        row = run.world.books.committed.orders.get(wish.order_id)
        state, reason = (row.state, row.reason) if row else ("none", "")
        name = f"{wish.customer}/{wish.key} ({str(wish.order_id)[:8]})"
        promised = [call for call in wish.calls if call.answer.word in ("queued", "confirmed")]
        kept = state == "confirmed" or (state == "cancelled" and wish.cancelled)
        if promised and not kept and not run.forgiven(wish):
            found.append(f"I3 {name}: promised at {promised[0].ended:.4f}, and is {state} {reason}")
        for told in ("refused", "cancelled"):
            if (
                any(call.answer.word == told for call in wish.calls)
                and state != told
                and not run.forgiven(wish)
            ):
                found.append(f"I3 {name}: told {told}, and is {state}")
        since = min((call.ended for call in promised), default=float("inf"))
        for call in wish.calls:
            if call.begun < since or run.forgiven(wish):
                continue
            if call.what != "place" and call.answer.status == 404:
                found.append(f"I3 {name}: unknown at {call.ended:.4f}, after the promise")
            if call.what == "place" and call.answer.word in DEFINITE:
                found.append(f"I5 {name}: {call.answer.word} at {call.ended:.4f}, after the promise")
        # With the log's tail a cancel is lost: no other book has heard of it.
        if (
            state == "confirmed"
            and _acknowledged_cancel(wish)
            and not (run.forgiven(wish) or run.world.tails_lost)
        ):
            found.append(f"I3 {name}: its cancel was acknowledged, and it is confirmed")
    return found


def _acknowledged_cancel(wish: object) -> bool:
    return any(call.what == "cancel" and call.answer.status in (200, 202) for call in wish.calls)  # type: ignore[attr-defined]


def _refusals(run: "Run") -> list[str]:
    """I5: a definite refusal means that the key had no order then."""
    found = []
    grants: dict[UUID, list[tuple[float, int]]] = defaultdict(list)
    for at, _, order_id, epoch, _ in run.world.grants:
        grants[order_id].append((at, epoch))
    for wish in run.clients.wishes:
        row = run.world.books.committed.orders.get(wish.order_id)
        places = [call for call in wish.calls if call.what == "place"]
        refused = [call for call in places if call.answer.word in DEFINITE]
        name = f"{wish.customer}/{wish.key} ({str(wish.order_id)[:8]})"
        if row and places and len(refused) == len(places) and wish.calls == places:
            found.append(f"I5 {name}: every answer was a refusal, and there is an order")
        for call in refused:
            had_one = row and any(
                at < call.begun and epoch == row.epoch for at, epoch in grants[wish.order_id]
            )
            if had_one and not run.forgiven(wish):
                found.append(f"I5 {name}: {call.answer.word} at {call.ended:.4f}, though it had been granted")
        for call in places:
            if call.answer.word and call.answer.status in (400, 404, 422, 500):
                found.append(f"I5 {name}: {call.answer.status} {call.answer.word} at {call.ended:.4f}")
    return found


def _stops(run: "Run") -> list[str]:
    """I7: between the return of `pause` and the beginning of `resume` nothing is claimed."""
    if run.world.commits_lost:
        return []  # a failover of PostgreSQL that loses the pause loses it for a gate built afterwards
    found = []
    for sale_id, begun, ended in run.clients.pauses:
        orders = {wish.order_id for wish in run.clients.wishes if wish.sale.id == sale_id}
        for at, node, order_id, _, deluded in run.world.grants:
            if begun < at < ended and order_id in orders and not deluded:
                found.append(f"I7 {order_id} was claimed at {at:.4f} by {node}, paused since {begun:.4f}")
    return found


__all__ = ["AGAIN", "violations"]
