"""The keeper of the lines: sets their pace, freezes the entries of a draw, and publishes what is so.

One process of several does it (run_gatekeeper). Two at once are harmless: a pace is written once, and what is
published says the same. Nobody waits for it: while it is away, the line goes on as it was last published.
"""

import math
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import redis
import structlog
from django.db import IntegrityError, InterfaceError, InternalError, OperationalError, connection, transaction
from django.db.models import Q
from django.utils import timezone

from sales.directory import GATED
from sales.gate import GateUnreachable, Image, image, reaching, require_admission, to_ms
from sales.models import Sale, SaleState
from waitingroom import draw
from waitingroom.line import Drawn, Line, encode, join_script, line_keys
from waitingroom.models import Room
from waitingroom.schedule import Segment, number_at
from waitingroom.steering import STEER_SECONDS, Look, bounded, steered

LOOK_SECONDS = 0.5
REST_SECONDS = 2.0  # after something was away
# Published of a line's past. A place before them has had its turn.
MOST_SEGMENTS = 64
OVER = timedelta(hours=1)
_SCANNED = 2000  # entries of a draw read at a time

logger = structlog.get_logger(__name__)


class Keeper:
    """Looks after every line, one `step` at a time."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
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
        except (GateUnreachable, redis.RedisError) as error:
            self._put_off(error)
        except (OperationalError, InterfaceError, InternalError) as error:
            connection.close()
            self._put_off(error)

    def look(self) -> None:
        """Every line once. Raises GateUnreachable and Django's database errors."""
        # What is over was published for the last time when it closed.
        over = Q(state=SaleState.CLOSED, updated_at__lt=timezone.now() - OVER)
        for sale in Sale.objects.filter(admission_required=True, state__in=GATED).exclude(over):
            room, _ = Room.objects.defer("entries").get_or_create(sale=sale)  # the list may be long
            self._keep(sale, room)

    def _keep(self, sale: Sale, room: Room) -> None:
        if require_admission(self._client, sale.id, not room.passes):
            logger.info("everybody passes" if room.passes else "admissions are needed", sale=sale.slug)
        begun = time.monotonic()
        with reaching():
            seconds, micros = self._client.time()
            following: Any = self._client.hget(line_keys(sale.id).line, "next")
        gate = image(self._client, sale.id)
        gate_seconds = (time.monotonic() - begun) / 3
        now = int(seconds) * 1000 + int(micros) // 1000
        if now >= to_ms(sale.opens_at) and room.entered is None and not self._is_frozen(sale, room):
            return self._publish(sale, room, now)
        if room.entered is not None and not room.is_drawn:
            return self._publish(sale, room, now)  # nobody has a place yet, so no turn comes
        last = room.paces.last()
        segments = [Segment(last.from_time, last.from_number, last.rate)] if last else []
        rate, reason = _pace(sale, room, gate, now)
        if rate and gate and room.steers:
            tickets, turns = int(following or 0), int(number_at(segments, now))
            look = Look(begun, gate, min(tickets, turns), max(0, tickets - turns), gate_seconds)
            rate, reason = self._steer(room, last.rate if last else 0, look) or (last.rate if last else 0, "")
        if rate != (last.rate if last else 0):
            since = max(now, last.from_time if last else 0)
            ordinal = last.ordinal + 1 if last else 0
            logger.info("line changes its pace", sale=sale.slug, rate=rate, reason=reason)
            try:
                with transaction.atomic():
                    room.paces.create(
                        ordinal=ordinal,
                        from_time=since,
                        from_number=number_at(segments, since),
                        rate=rate,
                        reason=reason,
                    )
            except IntegrityError:
                return None  # another keeper was faster; the next look sees what it did
        return self._publish(sale, room, now)

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
        try:
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
        entries = draw.listed(tags)
        Room.objects.filter(pk=room.pk, entered__isnull=True).update(
            entries=entries, entered=len(tags), digest=draw.digest(entries), frozen_at=timezone.now()
        )
        logger.info("draw made", sale=sale.slug, entries=len(tags))

    def _publish(self, sale: Sale, room: Room, now: int) -> None:
        keys = line_keys(sale.id)
        line = _line(sale, room)
        told = encode(line)
        # After a loss the numbers go on behind everybody who has been given one, as far as is known here.
        least = max(line.draw.entries or 0, math.ceil(number_at(line.segments, now)))
        with reaching():
            pipeline = self._client.pipeline(transaction=True)
            pipeline.hsetnx(keys.line, "next", str(least))
            if line.draw.entries is not None:
                pipeline.hsetnx(keys.line, "entries", str(line.draw.entries))
            pipeline.hset(keys.line, mapping={"image": told, "opens_at": line.opens_at})
            pipeline.execute()

    def _put_off(self, error: Exception) -> None:
        logger.warning("lines not looked after", error=str(error))
        self._look_at = time.monotonic() + REST_SECONDS


def _pace(sale: Sale, room: Room, gate: Image | None, now: int) -> tuple[float, str]:
    """Turns per second from now on, and why."""
    if gate is None or gate.state == "arming":
        return 0, "the gate is being armed again"
    if sale.state == SaleState.PAUSED:
        return 0, "the sale is paused"
    if sale.state != SaleState.OPEN or not to_ms(sale.opens_at) <= now < to_ms(sale.closes_at):
        return 0, "the sale is not open"
    # Turns that come while nothing can be bought would be lost to those who waited for them.
    if gate.remaining == 0:
        return 0, "no unit is left"
    return room.turn_rate, "as set by the operator" if room.turn_rate else "stopped by the operator"


def _line(sale: Sale, room: Room) -> Line:
    paces = list(room.paces.order_by("-ordinal")[:MOST_SEGMENTS])[::-1]
    return Line(
        salt=bytes(room.salt).hex(),
        opens_at=to_ms(sale.opens_at),
        closes_at=to_ms(sale.closes_at),
        turn_seconds=room.turn_seconds,
        segments=tuple(Segment(pace.from_time, pace.from_number, pace.rate) for pace in paces),
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
