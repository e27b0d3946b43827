"""The parking table: records that fulfillment could not use, and what becomes of them.

`parked -> replayed | dropped`, both final. Each step is one conditional UPDATE that believes its row
count, with its event in the same transaction, and the payload stays whatever happens.

A replay fulfils that very record again, by the code the consumer uses and under the same rules: a
row that is there already wins, a barrier that was passed meanwhile outranks the claim's epoch. The
position does not move, but it is held until the commit, as a batch of that partition would hold it:
without that a claim could slip in between a barrier and the snapshot that rearming takes behind it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import redis
import structlog
from django.conf import settings
from django.db import DataError, IntegrityError
from django.db.models import F
from django.db.models.functions import Now

from orders import book, claims, epochs, fulfillment, settling
from orders.book import Read
from orders.fulfillment import Outcome
from orders.models import ParkedRecord, ParkedRecordEvent, ParkedState, ParkedStep, Position
from orders.sifting import names_in, one_line, sift
from sales import gate
from sales.topic import partition_of

logger = structlog.get_logger(__name__)


class Refused(Exception):
    """One clear line for whoever asked. Nothing has changed."""


class StillUnusable(Exception):
    """A replay could not use the record either: the cause. It stays parked, and the attempt counts."""


class Replayed(NamedTuple):
    """`line` says what the order book says now. `told` is False when the gate did not answer."""

    line: str
    told: bool


def waiting(topic: str, incarnation: str, partition: int) -> int:
    """Records of this partition, of this incarnation of the topic, that are still parked."""
    return ParkedRecord.objects.filter(
        topic=topic, incarnation=incarnation, partition=partition, state=ParkedState.PARKED
    ).count()


def still_parked() -> int:
    """Records of any topic that nobody has replayed or dropped."""
    return ParkedRecord.objects.filter(state=ParkedState.PARKED).count()


def replay(record_id: int, *, client: redis.Redis, actor: str, reason: str = "") -> Replayed:
    """Fulfils a parked record again, once; then tells the gate.

    Of a record that was replayed before, only the gate is told again: that is the remedy for a gate
    that did not answer the first time. Raises Refused, StillUnusable, and django.db.OperationalError
    or InterfaceError: then whether it was written is unknown, and asking again tells.
    """
    try:
        outcomes = _fulfill_once(record_id, actor, reason)
    except StillUnusable as error:
        _count_attempt(record_id, actor, reason, str(error))
        raise
    except (DataError, IntegrityError, UnicodeError) as error:  # of the data, not of the connection
        cause = one_line(error)
        _count_attempt(record_id, actor, reason, cause)
        raise StillUnusable(cause) from None
    try:
        settling.settle(client, outcomes)
    except (gate.GateUnreachable, redis.RedisError) as error:
        logger.warning("gate not told", error=str(error), parked_record=record_id, **_order_of(outcomes))
        return Replayed(_line_of(outcomes), told=False)
    return Replayed(_line_of(outcomes), told=True)


def drop(record_id: int, *, actor: str, reason: str) -> None:
    """Nobody will replay it any more. The record stays, with the reason. Raises Refused."""
    if not reason.strip():
        raise Refused("a record is dropped for a reason: say which")
    with book.transaction():
        moved = ParkedRecord.objects.filter(pk=record_id, state=ParkedState.PARKED).update(
            state=ParkedState.DROPPED
        )
        if not moved:
            raise Refused(f"record {record_id} is {_state_of(record_id)}: only a parked one can be dropped")
        _remember(record_id, ParkedStep.DROPPED, actor, reason)
        named = names_in(bytes(ParkedRecord.objects.values_list("value", flat=True).get(pk=record_id)))
    logger.info("parked record dropped", parked_record=record_id, actor=actor, reason=reason, **named)


def _fulfill_once(record_id: int, actor: str, reason: str) -> list[Outcome]:
    with book.transaction():
        # First of all: a second replay waits here for the first one's commit, and then moves nothing.
        moved = ParkedRecord.objects.filter(pk=record_id, state=ParkedState.PARKED).update(
            state=ParkedState.REPLAYED, attempts=F("attempts") + 1, tried_at=Now()
        )
        state = _state_of(record_id)
        if state != ParkedState.REPLAYED:
            raise Refused(f"record {record_id} is {state}: only a parked one can be replayed")
        record = ParkedRecord.objects.get(pk=record_id)
        read = Read(record.offset, bytes(record.value), bytes(record.key))
        if not moved:
            return fulfillment.recall([read])
        outcomes = _write(record, read)
        _remember(record_id, ParkedStep.REPLAYED, actor, reason, _line_of(outcomes))
    known = {"outcome": _line_of(outcomes)} | _order_of(outcomes)
    logger.info("parked record replayed", parked_record=record_id, actor=actor, **known)
    return outcomes


def _write(record: ParkedRecord, read: Read) -> list[Outcome]:
    """One message through the code of a batch. Raises StillUnusable."""
    try:
        message = claims.decode(read.value)
    except claims.BadRecord as error:
        raise StillUnusable(str(error)) from None
    now_at = partition_of(claims.sale_in(message), claims.pool_in(message))
    for topic, partition in sorted(
        {(record.topic, record.partition), (settings.FLUXGATE.kafka_topic, now_at)}
    ):
        _hold_position(topic, partition)
    sifted = sift([read], patient=False)
    if sifted.parked:
        raise StillUnusable(sifted.parked[0].cause)
    epochs.move_to(sifted.barriers)
    return fulfillment.write([message for _, message in sifted.usable])


def _hold_position(topic: str, partition: int) -> None:
    """Keeps consumers of the partition out until the commit; theirs is the same conditional UPDATE."""
    for key in Position.objects.filter(topic=topic, partition=partition).order_by("pk").values_list("pk"):
        Position.objects.filter(pk=key[0]).update(next_offset=F("next_offset"))


def _count_attempt(record_id: int, actor: str, reason: str, cause: str) -> None:
    """The replay was rolled back; that somebody tried is written by itself."""
    with book.transaction():
        cause = cause.replace("\0", "\\0")[:500]
        if ParkedRecord.objects.filter(pk=record_id, state=ParkedState.PARKED).update(
            attempts=F("attempts") + 1, tried_at=Now(), cause=cause
        ):
            _remember(record_id, ParkedStep.TRIED, actor, reason, cause)


def _remember(record_id: int, step: ParkedStep, actor: str, reason: str, outcome: str = "") -> None:
    ParkedRecordEvent.objects.create(
        record_id=record_id, step=step, actor=actor, reason=reason, outcome=outcome[:500]
    )


def _state_of(record_id: int) -> str:
    state = ParkedRecord.objects.filter(pk=record_id).values_list("state", flat=True).first()
    if state is None:
        raise Refused(f"there is no parked record {record_id}")
    return state


def _order_of(outcomes: Sequence[Outcome]) -> dict[str, str]:
    return {"order_id": str(outcomes[0].order_id)} if outcomes else {}


def _line_of(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return "no order comes of it: its pool has been armed anew since"
    [outcome] = outcomes
    return f"order {outcome.order_id} is {outcome.state}" + (f" ({outcome.reason})" if outcome.reason else "")
