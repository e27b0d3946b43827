"""Settling: telling the gate what became of its claims, after the order book has committed."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple
from uuid import UUID

import redis

from orders import metrics
from orders.fulfillment import Outcome
from orders.models import OrderState
from sales import gate


class Call(NamedTuple):
    """One call to the gate: the same step for orders of one pool and epoch."""

    released: bool
    sale_id: UUID
    pool: int
    epoch: int
    order_ids: list[UUID]


def settle(client: redis.Redis, outcomes: Sequence[Outcome]) -> None:
    """Settles confirmed claims and gives the units of refused and cancelled ones back.

    Repeating it changes nothing. Raises gate.GateUnreachable and redis.RedisError; then part of it
    may have been done.
    """
    for call in calls(outcomes):
        move = gate.release if call.released else gate.settle
        moved = move(client, call.sale_id, call.pool, call.epoch, call.order_ids)
        metrics.settled_claims.labels("released" if call.released else "settled").inc(moved)


def calls(outcomes: Sequence[Outcome]) -> Iterator[Call]:
    """Each order once, by the last outcome the log gave it; settled before released."""
    last: Iterable[Outcome] = {outcome.order_id: outcome for outcome in outcomes}.values()
    for (released, sale_id, pool, epoch), group in groupby(sorted(last, key=_step), key=_step):
        yield Call(released, sale_id, pool, epoch, [outcome.order_id for outcome in group])


def _step(outcome: Outcome) -> tuple[bool, UUID, int, int]:
    return outcome.state != OrderState.CONFIRMED, outcome.sale_id, outcome.pool, outcome.epoch
