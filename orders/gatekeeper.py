"""The gatekeeper: arms a sale again when its gate has fallen, so that it sells on with balanced books.

Redis may be killed, wiped or failed over in the middle of a sale. Then nothing is decided, until:

1. A new epoch, first in PostgreSQL and then in the gate: whoever armed before cannot go on.
2. A wait, as long as the promise: a claim that was granted before and is promised as `queued` is in
   the log by then.
3. What the gate that was lost still shows as held is appended too: those buyers were told "held".
4. A barrier in the pool's partition. Fulfillment drops claims of earlier epochs that come after it.
5. When fulfillment has passed it, the rows are all there is: they are loaded into a new gate.
6. It opens if it is still the same Redis, in the state the database says at that moment.

Whatever goes wrong in between, the next look finds a gate that does not stand, and all begins
again under a higher epoch. Two gatekeepers at once are harmless for the same reason, only slow.
"""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

import redis
import structlog
from django.conf import settings

from orders import book, claims, epochs, metrics
from orders.log import Log, LogUnavailable
from orders.sweeper import claim_of
from sales import crashpoints, directory, fence, gate
from sales.fence import GATE_STATE, Arming
from sales.gate import POOL
from sales.models import Sale
from sales.topic import partition_of

LOOK_SECONDS = 0.5
# Added to the promise: clocks of several machines do not run at quite the same speed.
MARGIN_SECONDS = 0.5
# A barrier that fulfillment has not met for so long may have been lost with the log's tail.
REPEAT_SECONDS = 10.0
REST_SECONDS = 4.0  # of a gatekeeper that was overtaken: more than an arming takes
LONGEST_PAUSE_SECONDS = 30.0  # between two tries of an arming that goes wrong
_TURNS = 5  # how often an operator may come in between before we start over
logger = structlog.get_logger(__name__)


@dataclass
class _Rearming:
    """One sale on its way; `sale` has the new epoch already."""

    sale: Sale
    arming: Arming
    incarnation: str
    begun_at: float
    held: dict[UUID, gate.Held] | None = None  # not in the log yet; None: the gate has not been asked
    under_way: set[UUID] = field(default_factory=set)  # orders, and the sale for its barrier
    barrier_at: float | None = None
    acknowledged: bool = False
    reports: deque[tuple[UUID, Exception | None]] = field(default_factory=deque)  # by the log's thread


class _Pause(NamedTuple):
    until: float
    seconds: float


_NO_PAUSE = _Pause(0.0, LOOK_SECONDS)


class Gatekeeper:
    """Looks after every gate, one `step` at a time. No step waits for the log or for fulfillment."""

    def __init__(self, client: redis.Redis, log: Log) -> None:
        self._client, self._log = client, log
        self._under_way: dict[Arming, _Rearming] = {}
        self._pauses: dict[UUID, _Pause] = {}  # of sales whose arming went wrong
        self._look_at = 0.0

    def step(self) -> bool:
        """One turn. True: a gate is being armed again."""
        try:
            if time.monotonic() >= self._look_at:
                self._look_at = time.monotonic() + LOOK_SECONDS
                self.look()
                metrics.gate_down.set(0)
            for rearming in list(self._under_way.values()):
                with self._one(rearming.sale):
                    self._advance(rearming)
        except (gate.GateUnreachable, redis.RedisError) as error:
            metrics.gate_down.set(1)
            logger.warning("the gate's Redis is away", error=str(error))
        except book.AWAY as error:
            logger.warning("PostgreSQL is away", error=str(error))
            book.disconnect()
        metrics.fenced_gates.set(len(self._under_way))
        return bool(self._under_way)

    def forget(self) -> None:
        """Another gatekeeper leads and publishes from now on: what we know would be counted twice."""
        metrics.gate_down.set(0)
        metrics.fenced_gates.set(0)

    def look(self) -> None:
        """Begins with every gate that has fallen. Raises GateUnreachable and RedisError."""
        begun = {arming.sale_id for arming in self._under_way}
        sales = [sale for sale in epochs.gated_sales() if sale.id not in begun]
        fallen = fence.fallen(self._client, sales)
        if fallen or not directory.exists(self._client):
            directory.restore(self._client, epochs.public_sales())
        down = {sale.id for sale, _ in fallen}
        self._follow([sale for sale in sales if sale.id not in down])
        for sale, reason in fallen:
            if time.monotonic() >= self._pauses.get(sale.id, _NO_PAUSE).until:
                with self._one(sale):
                    self._begin(sale, reason)

    @contextmanager
    def _one(self, sale: Sale) -> Iterator[None]:
        """What goes wrong with one sale, a gate that does not fit into memory, must not keep the others down.

        It begins again after a pause that grows. A server that is away is everybody's trouble.
        """
        try:
            yield
        except (redis.ResponseError, epochs.NotPassed) as error:
            pause = min(2 * self._pauses.get(sale.id, _NO_PAUSE).seconds, LONGEST_PAUSE_SECONDS)
            self._pauses[sale.id] = _Pause(time.monotonic() + pause, pause)
            self._under_way = {a: each for a, each in self._under_way.items() if a.sale_id != sale.id}
            metrics.rearmings_given_up.inc()
            logger.error("arming given up", sale=sale.slug, error=str(error), again_in_seconds=pause)

    def _follow(self, sales: list[Sale]) -> None:
        """Switches gates to what the database says: a step of an operator was cut off between the two."""
        for sale in fence.differing(self._client, sales) if sales else []:
            arming = Arming(sale.id, POOL, sale.epoch)
            turn = fence.turn(self._client, arming)  # before the database is asked again: see switch.lua
            state = epochs.state(sale.id, sale.epoch)
            if turn is not None and state in GATE_STATE:
                switched = fence.switch(self._client, arming, GATE_STATE[state], turn)
                logger.warning("gate follows the sale", sale=sale.slug, state=state, switched=switched)

    def _begin(self, sale: Sale, reason: str) -> None:
        incarnation = fence.incarnation(self._client)
        standing = gate.epoch(self._client, sale.id, POOL)
        passed = epochs.passed([(sale.id, POOL)])[sale.id, POOL]
        # Above everything that any book has seen, and above a database restored from a backup.
        epoch = max(sale.epoch, standing, passed, int(time.time() * 1000)) + 1
        if not epochs.begin(sale, epoch, reason, "gatekeeper"):
            return
        crashpoints.reached("rearm.after-epoch")
        sale.epoch = epoch
        arming = Arming(sale.id, POOL, epoch)
        if not fence.shut(self._client, arming):
            return
        directory.publish(self._client, sale, epochs.public_sales(), fenced=True)
        crashpoints.reached("rearm.after-fence")
        self._under_way[arming] = _Rearming(sale, arming, incarnation, time.monotonic())
        logger.warning("gate fallen, arming it again", sale=sale.slug, epoch=epoch, reason=reason)

    def _advance(self, rearming: _Rearming) -> None:
        waited = time.monotonic() - rearming.begun_at
        if waited < settings.FLUXGATE.promise_seconds + MARGIN_SECONDS:
            return
        self._hear(rearming)
        if rearming.barrier_at is None:
            self._append(rearming)
        pool = (rearming.sale.id, POOL)
        passed = epochs.passed([pool])[pool] if rearming.acknowledged else 0
        if passed >= rearming.sale.epoch:
            del self._under_way[rearming.arming]
            # A higher one is from an arming that a restored database had forgotten, and its barrier
            # would drop our claims. We begin again above it.
            if passed == rearming.sale.epoch and self._build(rearming):
                self._pauses.pop(rearming.sale.id, None)
                metrics.rearming_seconds.observe(time.monotonic() - rearming.begun_at)
                logger.info("gate armed again", sale=rearming.sale.slug, epoch=rearming.sale.epoch)
            elif gate.epoch(self._client, rearming.sale.id, POOL) > rearming.sale.epoch:
                # Somebody else is at it. Two who overtake each other in turns would never end; how long
                # each of them rests depends on its epoch, so that one comes through.
                pause = REST_SECONDS * (1 + rearming.sale.epoch % 100 / 100)
                self._pauses[rearming.sale.id] = _Pause(time.monotonic() + pause, LOOK_SECONDS)
        elif rearming.barrier_at is not None and time.monotonic() - rearming.barrier_at > REPEAT_SECONDS:
            # With all that the gate shows as held: what was lost with the barrier may be among it.
            rearming.held, rearming.barrier_at = None, None

    def _hear(self, rearming: _Rearming) -> None:
        while rearming.reports:
            appended, error = rearming.reports.popleft()
            rearming.under_way.discard(appended)
            barrier = appended == rearming.sale.id
            if error is not None:  # unknown: it is appended again
                rearming.barrier_at = None if barrier else rearming.barrier_at
            elif barrier:
                rearming.acknowledged = True
                crashpoints.reached("rearm.after-barrier")
            elif rearming.held is not None:
                rearming.held.pop(appended, None)

    def _append(self, rearming: _Rearming) -> None:
        """Appends what is held and, when all of it is in the log, the barrier behind it."""
        sale = rearming.sale
        if rearming.held is None:
            rearming.held = {held.order_id: held for held in gate.all_held(self._client, sale.id, POOL)}
        if not self._log.available():
            return
        try:
            for order_id, held in rearming.held.items():
                if order_id not in rearming.under_way:
                    self._send(rearming, order_id, claim_of(sale, held))
            if not rearming.held and sale.id not in rearming.under_way:
                at = datetime.now(UTC)
                barrier = claims.Barrier(
                    v=claims.VERSION, sale_id=sale.id, pool=POOL, epoch=sale.epoch, at=at
                )
                self._send(rearming, sale.id, barrier)
                rearming.barrier_at = time.monotonic()
        except LogUnavailable:
            pass  # the rest follows with the next step

    def _send(self, rearming: _Rearming, appended: UUID, message: claims.Message) -> None:
        record = claims.encode(message, partition_of(rearming.sale.id, POOL))
        rearming.under_way.add(appended)
        try:
            self._log.append(record, lambda error: rearming.reports.append((appended, error)))
        except LogUnavailable:
            rearming.under_way.discard(appended)
            raise

    def _build(self, rearming: _Rearming) -> bool:
        """Loads the new gate and opens it. False: begin again, if nobody else has."""
        sale, arming = rearming.sale, rearming.arming
        if not fence.build(self._client, sale, arming):
            return False
        for orders in epochs.known(*arming):
            if not fence.load(self._client, arming, orders):
                return False
        # A cancel that was fulfilled while we were loading told a gate that did not know the order yet.
        for returned in gate.chunks(epochs.returned(sale.id, POOL)):
            gate.release(self._client, sale.id, POOL, returned)
        crashpoints.reached("rearm.after-load")
        sha = fence.raise_seal(self._client, arming, rearming.incarnation)
        if fence.incarnation(self._client) != rearming.incarnation:
            return False
        if not self._switch_on(arming):
            return False
        crashpoints.reached("rearm.after-switch")
        # Last: a web process must not learn a seal before the gate that it opens stands.
        sealed = {"epoch": sale.epoch, "seal": sha, "incarnation": rearming.incarnation}
        directory.publish(self._client, sale, epochs.public_sales(), **sealed)
        return True

    def _switch_on(self, arming: Arming) -> bool:
        for _ in range(_TURNS):
            turn = fence.turn(self._client, arming)  # before the database is asked: see switch.lua
            state = epochs.state(arming.sale_id, arming.epoch)
            if turn is None or state not in GATE_STATE:
                return False
            switched = fence.switch(self._client, arming, GATE_STATE[state], turn, building=True)
            if switched != "turned":
                return switched == "switched"
        return False
