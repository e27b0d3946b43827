"""Settling: telling the gate what became of its claims, after the order book has committed.

Best effort: fulfillment goes on without the gate. What it was not told stands in the log, above
Kafka's committed offset, and is told when the consumer begins there again.
"""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

import redis
import structlog

from orders import metrics
from orders.fulfillment import Outcome
from orders.models import OrderState
from sales import gate

# How often a gate that is down is asked again, in seconds: the first pause, and the longest.
PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 5.0
# Claims in one call: the gate decides nothing meanwhile, and at 4 µs a claim this keeps a buyer 2 ms.
CALL = 500
logger = structlog.get_logger(__name__)


class Settling:
    """One consumer's line to the gate. Once it has failed it stays silent, until `gate_is_back`."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._pause = PAUSE_SECONDS
        self._ask_at = 0.0
        self.behind_since: float | None = None  # on the monotonic clock; None: the gate knows everything

    def begin(self) -> None:
        """The log is being read from the committed offset: whatever the gate missed comes again."""
        self.behind_since = None

    def tell(self, outcomes: Sequence[Outcome]) -> bool:
        """False: the gate has not been told, and the offset of these records must not be committed."""
        if self.behind_since is not None:
            return False
        try:
            settle(self._client, outcomes)
        except (gate.GateUnreachable, redis.RedisError) as error:
            self.behind_since = time.monotonic()
            self._wait(error)
            return False
        self._pause = PAUSE_SECONDS
        return True

    def gate_is_back(self) -> bool:
        """Asks, when it is time to, a gate that did not answer. True: begin again from the books."""
        if self.behind_since is None or time.monotonic() < self._ask_at:
            return False
        try:
            with gate.reaching():
                self._client.ping()
        except (gate.GateUnreachable, redis.RedisError) as error:
            self._wait(error)
            return False
        return True

    def _wait(self, error: Exception) -> None:
        logger.warning("gate not told", error=str(error), again_in_seconds=self._pause)
        self._ask_at = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)


class Call(NamedTuple):
    """One call to the gate: the same step for orders of one pool."""

    released: bool
    sale_id: UUID
    pool: int
    order_ids: list[UUID]


def settle(client: redis.Redis, outcomes: Sequence[Outcome]) -> None:
    """Settles confirmed claims and gives the units of refused and cancelled ones back.

    Repeating it changes nothing. Raises gate.GateUnreachable and redis.RedisError; then part of it
    may have been done.
    """
    for call in calls(outcomes):
        move = gate.release if call.released else gate.settle
        moved = move(client, call.sale_id, call.pool, call.order_ids)
        metrics.settled_claims.labels("released" if call.released else "settled").inc(moved)


def calls(outcomes: Sequence[Outcome]) -> Iterator[Call]:
    """Each order once, by the last outcome the log gave it; settled before released, at most CALL at once."""
    last = {outcome.order_id: outcome for outcome in outcomes}
    steps: dict[tuple[bool, UUID, int], list[UUID]] = {}
    for order_id, outcome in last.items():
        released = outcome.state is not OrderState.CONFIRMED
        steps.setdefault((released, outcome.sale_id, outcome.pool), []).append(order_id)
    for step, order_ids in sorted(steps.items()):
        for first in range(0, len(order_ids), CALL):
            yield Call(*step, order_ids[first : first + CALL])
