"""The sweeper: appends claims again that stayed `held`, under the same order id.

Whatever happened to the web process between the gate and the acknowledgement, its claim stands
in the gate's pending set. A timeout is unknown, not failed, so the sweeper never releases: it
goes forward until the log has acknowledged the claim. A claim that was in the log already meets
its own row, so several sweepers at once are harmless.
"""

import time
from collections import deque
from functools import partial
from typing import NamedTuple
from uuid import UUID

import redis
import structlog
from django.conf import settings

from orders import book, claims, epochs, metrics
from orders.log import Log, LogUnavailable
from sales import crashpoints, gate
from sales.gate import POOL
from sales.models import Sale
from sales.topic import partition_of

EVERY_SECONDS = 1.0
# Per pool and sweep; a bigger backlog is worked off without waiting in between.
LIMIT = 1000
logger = structlog.get_logger(__name__)


class _Appended(NamedTuple):
    sale_id: UUID
    pool: int
    epoch: int
    order_id: UUID


class Sweeper:
    """Sweeps about once a second. No step waits for the log."""

    def __init__(self, client: redis.Redis, log: Log) -> None:
        self._gate, self._log = client, log
        self._due = 0.0
        self._under_way: set[UUID] = set()
        self._reports: deque[tuple[_Appended, Exception | None]] = deque()

    def step(self) -> bool:
        """One turn: marks what has been acknowledged, and sweeps when it is due. True: it appended."""
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + EVERY_SECONDS
        try:
            self.mark_queued()
            found = self.sweep()
        except (gate.GateUnreachable, redis.RedisError) as error:
            logger.warning("sweep put off", error=str(error))
            return False
        except book.AWAY as error:
            logger.warning("sweep put off", error=str(error))
            book.disconnect()
            return False
        if found >= LIMIT:
            self._due = now
        return found > 0

    def sweep(self) -> int:
        """Appends every claim that has been held too long; returns how many. Raises GateUnreachable."""
        if not self._log.available():
            return 0  # they stay held, and safe
        appended = 0
        # A sale that is closed may still have claims that nobody has written down.
        for sale in epochs.gated_sales():
            older_than = settings.FLUXGATE.sweep_after_seconds
            for held in gate.held(self._gate, sale.id, POOL, older_than, LIMIT):
                if held.order_id in self._under_way:
                    continue
                try:
                    self._append(sale, held)
                except LogUnavailable:
                    break  # they stay held, and safe
                appended += 1
        if appended:
            logger.info("held claims appended again", claims=appended)
        return appended

    def mark_queued(self) -> None:
        """Tells the gate which claims the log has acknowledged. Raises GateUnreachable."""
        acknowledged: dict[tuple[UUID, int, int], list[UUID]] = {}
        while self._reports:
            appended, error = self._reports.popleft()
            self._under_way.discard(appended.order_id)
            if error is None:
                acknowledged.setdefault(appended[:3], []).append(appended.order_id)
            # else: unknown; it is still held, and the next sweep appends it again
        for (sale_id, pool, epoch), order_ids in acknowledged.items():
            gate.mark_queued(self._gate, sale_id, pool, epoch, order_ids)

    def _append(self, sale: Sale, held: gate.Held) -> None:
        appended = _Appended(sale.id, POOL, held.epoch, held.order_id)
        record = claims.encode(claim_of(sale, held), partition_of(sale.id, POOL))
        self._log.append(record, partial(self._reported, appended))
        self._under_way.add(held.order_id)
        metrics.swept_claims.inc()
        logger.debug("claim swept", order_id=str(held.order_id), sale=sale.slug)
        crashpoints.reached("sweep.after-append")

    def _reported(self, appended: _Appended, error: Exception | None) -> None:
        self._reports.append((appended, error))  # from the log's thread: `mark_queued` takes it


def claim_of(sale: Sale, held: gate.Held) -> claims.Claim:
    """The claim as the web process would have appended it, from what the gate remembers of it."""
    return claims.Claim(
        v=claims.VERSION,
        order_id=held.order_id,
        sale_id=sale.id,
        product_id=sale.product_id,
        user_id=held.customer,
        quantity=held.quantity,
        unit_price=sale.unit_price,
        currency=sale.currency,
        pool=POOL,
        epoch=held.epoch,
        claimed_at=held.claimed_at,
    )
