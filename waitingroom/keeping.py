"""The keeper of the lines: sets their pace, freezes the entries of a draw, and publishes what is so.

One process of several does it (run_gatekeeper). Two at once are harmless: a pace is written once, and what is
published says the same. Nobody waits for it: while it is away, the line goes on as it was last published.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import redis
import structlog
from django.db import DatabaseError, IntegrityError, InterfaceError, connection, transaction
from django.db.models import Q
from django.utils import timezone

from sales.directory import GATED
from sales.gate import GateUnreachable, Image, image, reaching, require_admission, to_ms
from sales.models import Sale, SaleState
from waitingroom import draw, metrics
from waitingroom.line import Drawn, Line, encode, join_script, line_keys
from waitingroom.models import Pace, Room
from waitingroom.schedule import Segment, number_at
from waitingroom.steering import STEER_SECONDS, Look, bounded, steered

LOOK_SECONDS = 0.5
REST_SECONDS = 2.0  # after something was away
MOST_SEGMENTS = 1000  # published; a line whose pace changes so often in one turn has other troubles
AHEAD = 100  # numbers that are kept in mind before they are handed out
FREEZING_SECONDS = 0.05  # of a step, for reading the entries of a draw
OVER = timedelta(hours=1)
_SCANNED = 2000  # entries of a draw read at a time

logger = structlog.get_logger(__name__)


class Keeper:
    """Looks after every line, one `step` at a time."""

    def __init__(self, client: redis.Redis, log_takes: Callable[[], bool] = lambda: True) -> None:
        """`log_takes` says whether the log takes records: without it every order would be refused."""
        self._client = client
        self._log_takes = log_takes
        self._look_at = 0.0
        self._frozen: dict[UUID, Iterator[None]] = {}  # draws whose entries are being read
        self._looks: dict[UUID, Look] = {}  # of lines that are steered

    def step(self) -> None:
        """One turn. What is away is tried again later."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_SECONDS
        try:
            self.look()
        except (DatabaseError, InterfaceError) as error:
            self._put_off(error)

    def look(self) -> None:
        """Every line once; one that goes wrong keeps no other waiting. Raises Django's database errors."""
        # What is over was published for the last time when it closed.
        over = Q(state=SaleState.CLOSED, updated_at__lt=timezone.now() - OVER)
        seen = []
        for sale in Sale.objects.filter(admission_required=True, state__in=GATED).exclude(over):
            try:
                room, _ = Room.objects.defer("entries").get_or_create(sale=sale)  # the list may be long
                seen.append(self._keep(sale, room))
            except (GateUnreachable, redis.RedisError, DatabaseError, InterfaceError) as error:
                self._put_off(error, sale.slug)
        metrics.publish(seen)

    def _keep(self, sale: Sale, room: Room) -> metrics.Seen:
        if require_admission(self._client, sale.id, not room.passes):
            logger.info("everybody passes" if room.passes else "admissions are needed", sale=sale.slug)
        begun = time.monotonic()
        with reaching():
            seconds, micros = self._client.time()
            following: Any = self._client.hget(line_keys(sale.id).line, "next")
        gate = image(self._client, sale.id)
        gate_seconds = (time.monotonic() - begun) / 3
        now, tickets = int(seconds) * 1000 + int(micros) // 1000, int(following or 0)
        _keep_in_mind(room, tickets)
        drawing = now >= to_ms(sale.opens_at) and room.entered is None and not self._is_frozen(sale, room)
        last = room.paces.last()
        turns, rate = int(number_at(_as_segments([last] if last else []), now)), 0.0
        if not drawing and (room.entered is None or room.is_drawn):  # else nobody has a place yet
            rate, reason = _pace(sale, room, gate, now, self._log_takes())
            if rate and gate and room.steers:
                look = Look(begun, gate, min(tickets, turns), max(0, tickets - turns), gate_seconds)
                before = last.rate if last else 0
                rate, reason = self._steer(room, before, look) or (before, "")
            if rate != (last.rate if last else 0):
                logger.info("line changes its pace", sale=sale.slug, rate=rate, reason=reason)
                _write(room, last, now, rate, reason)
        self._publish(sale, room, now)
        people = max(0, tickets - turns)
        if rate:
            return metrics.Seen("moving", people, rate)
        has_units = gate is None or gate.remaining > 0
        stalled = people > 0 and not room.passes and has_units and _is_selling(sale, now)
        return metrics.Seen("stalled" if stalled else "standing", people, 0)

    def _steer(self, room: Room, rate: float, look: Look) -> tuple[float, str] | None:
        """The new pace of a line that moves, and why; None: it goes on as it does."""
        before = self._looks.setdefault(room.pk, look)
        if rate == 0:
            self._looks[room.pk] = look
            return bounded(room, 0, room.turn_rate, "as set by the operator, who lets the engine steer")
        if look.at - before.at < STEER_SECONDS:
            return None
        self._looks[room.pk] = look
        return steered(room, rate, before, look)

    def _is_frozen(self, sale: Sale, room: Room) -> bool:
        """Reads the entries piece by piece: nobody else may wait for a million of them."""
        reading = self._frozen.setdefault(sale.pk, self._freeze(sale, room))
        until = time.monotonic() + FREEZING_SECONDS
        try:
            while time.monotonic() < until:
                next(reading)
        except StopIteration:
            del self._frozen[sale.pk]
            room.refresh_from_db(fields=["entered", "digest"])
            return room.entered is not None
        except BaseException:
            del self._frozen[sale.pk]
            raise
        self._look_at = 0.0
        return False

    def _freeze(self, sale: Sale, room: Room) -> Iterator[None]:
        keys = line_keys(sale.id)
        with reaching():
            reply: Any = self._client.eval(join_script(), 2, *keys)
        if not reply or reply[1] == "":
            return  # not published yet, or the gate's clock is a moment behind
        tags = [""] * int(reply[1])
        cursor = -1
        while cursor != 0:
            with reaching():
                found: Any = self._client.hscan(keys.tickets, max(cursor, 0), count=_SCANNED)
            cursor, some = int(found[0]), found[1]
            for tag, number in some.items():
                if int(number) < len(tags):
                    tags[int(number)] = tag
            yield
        with reaching():
            standing: Any = self._client.hget(keys.line, "entries")
        if standing != str(len(tags)):
            return  # lost while it was read: the next look begins again with what is there then
        entries = draw.listed(tags)
        Room.objects.filter(pk=room.pk, entered__isnull=True).update(
            entries=entries, entered=len(tags), digest=draw.digest(entries)
        )
        logger.info("draw made", sale=sale.slug, entries=len(tags))

    def _publish(self, sale: Sale, room: Room, now: int) -> None:
        keys = line_keys(sale.id)
        line = _line(sale, room, now)
        told = encode(line)
        # After a loss the numbers go on behind everybody who has been given one, as far as is known here.
        least = max(room.handed, line.draw.entries or 0, math.ceil(number_at(line.segments, now)))
        with reaching():
            pipeline = self._client.pipeline(transaction=True)
            pipeline.hsetnx(keys.line, "next", str(least))
            if line.draw.entries is not None:
                pipeline.hsetnx(keys.line, "entries", str(line.draw.entries))
            pipeline.hset(keys.line, mapping={"image": told, "opens_at": line.opens_at})
            pipeline.execute()

    def _put_off(self, error: Exception, sale: str = "") -> None:
        logger.warning("lines not looked after", sale=sale, error=str(error))
        if isinstance(error, DatabaseError | InterfaceError):
            connection.close()
        self._look_at = time.monotonic() + REST_SECONDS


def _keep_in_mind(room: Room, tickets: int) -> None:
    """Writes down a number above all that are handed out, for the day on which Redis has lost them.

    It is ahead by as much as may be handed out before the next look: those numbers stay empty then.
    """
    if tickets > room.handed - AHEAD:
        Room.objects.filter(pk=room.pk).update(handed=tickets + 2 * max(AHEAD, tickets - room.handed))


def _write(room: Room, last: Pace | None, now: int, rate: float, reason: str) -> None:
    """The next segment. When another keeper was faster, the next look sees what it did."""
    # A clock that was set back begins anew where the line stood: nothing waits for it to catch up.
    number = number_at(_as_segments([last]), max(now, last.from_time)) if last else 0.0
    with contextlib.suppress(IntegrityError), transaction.atomic():
        room.paces.create(
            ordinal=last.ordinal + 1 if last else 0,
            from_time=now,
            from_number=number,
            rate=rate,
            reason=reason,
        )


def _as_segments(paces: Iterable[Pace]) -> list[Segment]:
    return [Segment(pace.from_time, pace.from_number, pace.rate) for pace in paces]


def _told(room: Room, now: int) -> tuple[Segment, ...]:
    """The newest segments, back to where every turn that came before them is over by now."""
    found: list[Segment] = []
    moved = 0.0
    for segment in _as_segments(room.paces.order_by("-ordinal")[:MOST_SEGMENTS]):
        until = found[-1].from_time if found else now
        if found and segment.from_time > until:
            continue  # written while the clock was ahead
        found.append(segment)
        moved += max(0, until - segment.from_time) / 1000 if segment.rate else 0
        if moved > room.turn_seconds:
            break
    return tuple(reversed(found))


def _pace(sale: Sale, room: Room, gate: Image | None, now: int, log_takes: bool) -> tuple[float, str]:
    """Turns per second from now on, and why."""
    if gate is None or gate.state == "arming":
        return 0, "the gate is being armed again"
    if room.passes:
        return 0, "everybody passes"
    if sale.state == SaleState.PAUSED:
        return 0, "the sale is paused"
    if not _is_selling(sale, now):
        return 0, "the sale is not open"
    # Turns that come while nothing can be bought would be lost to those who waited for them.
    if gate.remaining == 0:
        return 0, "no unit is left"
    if not log_takes:
        return 0, "orders cannot be written down"
    return room.turn_rate, "as set by the operator" if room.turn_rate else "stopped by the operator"


def _is_selling(sale: Sale, now: int) -> bool:
    return sale.state == SaleState.OPEN and to_ms(sale.opens_at) <= now < to_ms(sale.closes_at)


def _line(sale: Sale, room: Room, now: int) -> Line:
    return Line(
        salt=bytes(room.salt).hex(),
        opens_at=to_ms(sale.opens_at),
        closes_at=to_ms(sale.closes_at),
        turn_seconds=room.turn_seconds,
        segments=_told(room, now),
        message=room.message,
        draw=drawn(room),
    )


def drawn(room: Room) -> Drawn:
    """The draw as far as it may be known."""
    if room.entered is None:
        return Drawn(room.commitment, room.beacon_name)
    secret = bytes(room.secret)
    return Drawn(
        room.commitment,
        room.beacon_name,
        room.beacon,
        entries=room.entered,
        digest=room.digest,
        secret=secret.hex(),
        seed=draw.seed(secret, room.digest, room.beacon).hex() if room.is_drawn else None,
    )
