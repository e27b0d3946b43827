"""The epochs of the order book: which arming of a pool the log has reached. SQL, as in `book`.

A pool that is armed again must not take in claims of an earlier arming once its new gate has been
loaded from the rows. The barrier decides: a record in the pool's own partition. What stands before
it in the log was written before the gate was loaded, and what comes after it is dropped.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from orders.models import Barrier, Order, OrderState
from sales import directory
from sales.fence import GATED, Known
from sales.gate import ClaimLetter, to_ms
from sales.models import Sale, SaleEvent

Pool = tuple[UUID, int]  # sale, number


class NotPassed(Exception):
    """Fulfillment has not passed the barrier of this epoch."""


def public_sales() -> list[Sale]:
    """Every sale the web processes must know of."""
    return list(directory.public_sales())


def gated_sales() -> list[Sale]:
    """Every sale that must have a gate, because it sells or because its buyers may ask."""
    return list(Sale.objects.filter(state__in=GATED))


def begin(sale: Sale, epoch: int, reason: str, actor: str) -> bool:
    """Gives the sale the epoch of a new arming. False: somebody else has begun one, or it has ended."""
    with transaction.atomic():
        moved = Sale.objects.filter(pk=sale.pk, epoch=sale.epoch, state__in=GATED).update(
            epoch=epoch, updated_at=timezone.now()
        )
        if moved:
            SaleEvent.objects.create(
                sale_id=sale.pk,
                actor=actor,
                action="rearm",
                reason=reason,
                detail={"from": sale.epoch, "epoch": epoch},
            )
    return bool(moved)


def state(sale_id: UUID, epoch: int) -> str | None:
    """The sale's state, or None when this epoch is not its own any more."""
    return Sale.objects.filter(pk=sale_id, epoch=epoch).values_list("state", flat=True).first()


def passed(pools: Iterable[Pool]) -> dict[Pool, int]:
    """The epoch of the last barrier of each of these pools that is in the order book."""
    wanted = set(pools)
    rows = Barrier.objects.filter(sale_id__in={sale_id for sale_id, _ in wanted})
    found = {(row.sale_id, row.pool): row.epoch for row in rows}
    return {pool: found.get(pool, 0) for pool in wanted}


def move_to(barriers: dict[Pool, int]) -> None:
    """Writes down that barriers have been passed, inside the batch's transaction. Never backwards."""
    for (sale_id, pool), epoch in barriers.items():
        moved = Barrier.objects.filter(sale_id=sale_id, pool=pool, epoch__lt=epoch).update(
            epoch=epoch, passed_at=timezone.now()
        )
        if not moved:
            Barrier.objects.get_or_create(sale_id=sale_id, pool=pool, defaults={"epoch": epoch})


def known(sale_id: UUID, pool: int, epoch: int, size: int = 500) -> Iterator[list[Known]]:
    """Every order of a pool, in lists of at most `size`, as the gate shall remember it.

    Raises NotPassed: claims of an earlier epoch may still be in front of the barrier.
    """
    with transaction.atomic():
        # First the question, then the reading: a barrier that has been passed stays passed.
        if passed([(sale_id, pool)])[sale_id, pool] < epoch:
            raise NotPassed
        rows = Order.objects.filter(sale_id=sale_id, pool=pool).values_list(
            "id", "state", "quantity", "claimed_at", "epoch", "customer"
        )
        orders = (
            Known(
                order_id,
                ClaimLetter.SETTLED if order_state == OrderState.CONFIRMED else ClaimLetter.RELEASED,
                quantity,
                to_ms(claimed_at),
                of,
                customer,
            )
            for order_id, order_state, quantity, claimed_at, of, customer in rows.iterator(size)
        )
        while chunk := list(islice(orders, size)):
            yield chunk


def returned(sale_id: UUID, pool: int) -> list[UUID]:
    """Orders of a pool whose units are not sold (any more)."""
    return list(
        Order.objects.filter(sale_id=sale_id, pool=pool)
        .exclude(state=OrderState.CONFIRMED)
        .values_list("id", flat=True)
    )
