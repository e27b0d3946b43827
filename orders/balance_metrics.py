"""The balance as metrics: the counters of the sales that are not over, read every few seconds.

Not every claim, as `reconcile` does: that would cost a running gate too much. Runs beside the
gatekeeper, which is one of its kind, so that no sale is counted twice.
"""

import time
from collections import Counter
from collections.abc import Sequence
from typing import get_args
from uuid import UUID

import redis
import structlog
from django.db import InterfaceError, OperationalError

from orders import book, epochs, metrics, parking
from orders.balance import Verdict, glance
from sales import fence, gate
from sales.models import Sale, SaleState

EVERY_SECONDS = 10.0
logger = structlog.get_logger(__name__)


class BalanceMetrics:
    """Reads about every ten seconds, one public `step` at a time."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._due = 0.0
        self._differed: set[UUID] = set()

    def step(self) -> bool:
        """One turn; True: the books have been read. Never raises for a server that is away: then the
        metrics stay as they were, and the timestamp says how old they are."""
        if time.monotonic() < self._due:
            return False
        self._due = time.monotonic() + EVERY_SECONDS
        try:
            self.read()
        except (gate.GateUnreachable, redis.RedisError) as error:
            logger.warning("balance not read", away="gate", error=str(error))
            return False
        except (OperationalError, InterfaceError) as error:
            logger.warning("balance not read", away="database", error=str(error))
            book.disconnect()
            return False
        return True

    def read(self) -> None:
        """Reads the counters and publishes them. Raises what the gate and the order book raise."""
        # The order book before the gate: what reaches the book in between has left the gate before.
        sales = [sale for sale in epochs.gated_sales() if sale.state != SaleState.CLOSED]
        fallen = {sale.id: reason for sale, reason in fence.fallen(self._client, sales)}
        images = [gate.image(self._client, sale.id) for sale in sales]
        found = {
            sale.id: glance(sale.epoch, sale.allotment - sale.sold, image, fallen.get(sale.id, ""))
            for sale, image in zip(sales, images, strict=True)
        }
        differing = {sale_id for sale_id, verdict in found.items() if verdict == "differs"}
        metrics.parked_waiting_records.set(parking.still_parked())
        # A batch between its two books differs for a moment: what differs twice is a difference.
        passing = differing - self._differed
        self._differed = differing
        _publish(
            sales,
            images,
            ["under way" if sale_id in passing else verdict for sale_id, verdict in found.items()],
        )

    def forget(self) -> None:
        """Another gatekeeper leads and publishes from now on: what we know would be counted twice."""
        self._differed = set()
        metrics.balance_sales.clear()
        metrics.balance_units.clear()
        metrics.parked_waiting_records.set(0)


def _publish(sales: Sequence[Sale], images: Sequence[gate.Image | None], verdicts: Sequence[Verdict]) -> None:
    count = Counter(verdicts)
    for verdict in get_args(Verdict):
        metrics.balance_sales.labels(verdict).set(count[verdict])
    for kind in ("remaining", "held", "queued", "settled"):
        units = sum(getattr(image, kind) for image in images if image is not None)
        metrics.balance_units.labels("gate", kind).set(units)
    metrics.balance_units.labels("order_book", "sold").set(sum(sale.sold for sale in sales))
    metrics.balance_units.labels("order_book", "left").set(sum(sale.allotment - sale.sold for sale in sales))
    metrics.balance_read.set(time.time())
