"""The buyers: HTTP requests at a rate, each with an Idempotency-Key, as a good shop front end sends them.

After an answer that says "later", and after none at all, a buyer repeats with the same key, a little
later each time. Told `held`, it asks for the order's status until that is `queued` or better. One in
ten clicks twice at once; one in twenty tries a second key, in a second tab.
"""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Coroutine
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import msgspec

from management.demo.connections import Answer, Connections
from tests.chaos import history
from tests.chaos.history import Attempt, History, Said
from tests.chaos.wire import Loop

ANSWER_SECONDS = 10.0
CONNECTIONS = 400
MOST_WAITING = 150  # buyers who ask at the same time: the machine must have time for the shop as well
LONGEST_PAUSE = 4.0
_LATER = {
    "too-busy", "temporarily-unavailable", "all-units-held", "sale-not-open", "sale-paused", "internal-error",
}  # fmt: skip
_STANDING = {"queued": history.QUEUED, "confirmed": history.QUEUED, "held": history.HELD}
_HEADERS = "Accept: application/json\r\nContent-Type: application/json\r\n"


class _Body(msgspec.Struct):
    """Of any answer: order id and state of an order, `type` of a problem."""

    order_id: UUID | None = None
    state: str = ""
    type: str = ""


_decode = msgspec.json.Decoder(_Body).decode


class Buyers:
    """Opened by `Buyers(...)`, which starts at rate 0; closed by `close()`. For use from the row's thread."""

    def __init__(self, loop: Loop, port: int, slug: str, most_units: int, patience: float) -> None:
        from sales.identity import mint

        # Longer than the hour by which a shop's clock may be wrong.
        self._mint = partial(mint, lifetime=timedelta(hours=3))
        self.history = History()
        self.rate = 0.0  # new buyers a second
        self.keep_alive = True  # False: a new connection for each request
        self.ceiling = float("inf")  # orders promised, at which nobody new comes
        self._loop, self._port, self._slug = loop, port, slug
        self._most_units, self._patience = most_units, patience
        self._numbers = itertools.count(1)
        self._chance = random.Random(slug)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._connections = Connections("127.0.0.1", port, CONNECTIONS)
        self._coming = asyncio.run_coroutine_threadsafe(self._come(), loop.loop)

    @property
    def waiting(self) -> int:
        """Buyers who still ask."""
        return len(self._tasks)

    def post(self, customer: str, key: str, quantity: int = 1) -> Attempt:
        """One buyer beside the crowd, at once, until an answer is final."""
        return self._loop.run(self._one(customer, key, quantity))

    def again(self, attempt: Attempt) -> None:
        """The buyer of an attempt asks once more with its key, until an answer is final."""
        self._loop.run(self._buy(attempt, 1))

    def at_once(self, customer: str, key: str, times: int, quantity: int = 1) -> Attempt:
        """So many parallel requests with one key, each on a connection of its own, each until its own end."""
        return self._loop.run(self._many(customer, key, times, quantity))

    def hang_up(self, customer: str, key: str, after: float) -> Attempt:
        """A buyer who hangs up so many seconds after the request, and asks again a second later."""
        return self._loop.run(self._impatient(customer, key, after))

    def stop(self, seconds: float) -> None:
        """No new ones come; returns when the others have their answers, or after so many seconds."""
        self.rate, self._stopped = 0.0, True
        deadline = time.monotonic() + seconds
        while self._tasks and time.monotonic() < deadline:
            time.sleep(0.05)

    def close(self) -> None:
        self._loop.run(self._close())

    async def _close(self) -> None:
        self._coming.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._connections.close()

    async def _come(self) -> None:
        """New buyers, every 20 ms as many as the rate asks for."""
        owed, before = 0.0, time.monotonic()
        while True:
            await asyncio.sleep(0.02)
            now = time.monotonic()
            owed, before = owed + self.rate * min(now - before, 0.2), now
            while owed >= 1:
                owed -= 1
                if not self._stopped and self._have_room():
                    self._arrive()

    def _have_room(self) -> bool:
        return len(self._tasks) < MOST_WAITING and self.history.promised < self.ceiling

    def _arrive(self) -> None:
        number = next(self._numbers)
        customer, luck = f"buyer-{number}", self._chance.random()
        quantity = self._chance.randint(1, self._most_units)
        tries = 2 if luck < 0.10 else 1
        self._start(self._buy(self.history.open(customer, f"key-{number}", quantity), tries))
        if luck > 0.95:
            self._start(self._buy(self.history.open(customer, f"key-{number}-b", quantity), 1))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _one(self, customer: str, key: str, quantity: int) -> Attempt:
        attempt = self.history.open(customer, key, quantity)
        await self._buy(attempt, 1)
        return attempt

    async def _many(self, customer: str, key: str, times: int, quantity: int) -> Attempt:
        attempt = self.history.open(customer, key, quantity)
        await self._buy(attempt, times)
        return attempt

    async def _impatient(self, customer: str, key: str, after: float) -> Attempt:
        attempt = self.history.open(customer, key, 1)
        _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        asked = time.monotonic()
        writer.write(self._request(attempt))
        await asyncio.sleep(after)
        writer.transport.abort()
        self.history.add(attempt, Said(asked, time.monotonic(), history.UNKNOWN, "hung up"))
        self._start(self._again(attempt, 1.0))
        return attempt

    async def _again(self, attempt: Attempt, pause: float) -> None:
        await asyncio.sleep(pause)
        await self._buy(attempt, 1)

    async def _buy(self, attempt: Attempt, clicks: int) -> None:
        request = self._request(attempt)
        deadline = time.monotonic() + self._patience
        await asyncio.gather(*(self._insist(attempt, request, deadline) for _ in range(clicks)))
        attempt.settled = True

    async def _insist(self, attempt: Attempt, request: bytes, deadline: float) -> None:
        """Asks until an answer is final or the patience is over."""
        backing_off = 0.25
        while True:
            said, pause = await self._ask(request)
            self.history.add(attempt, said)
            if said.kind == history.HELD and said.order_id:
                final = await self._follow(attempt, said.order_id, deadline)
                if final:
                    return
                pause = 0.5
            elif said.kind in (history.QUEUED, history.REFUSED):
                return
            backing_off = min(LONGEST_PAUSE, 1.5 * backing_off)
            pause = min(pause, LONGEST_PAUSE) + self._chance.uniform(0, backing_off)
            if time.monotonic() + pause > deadline:
                return
            await asyncio.sleep(pause)

    async def _follow(self, attempt: Attempt, order_id: UUID, deadline: float) -> bool:
        """Polls the status of a held order. True: it is queued or has ended. False: nobody knows it."""
        request = (
            f"GET /api/v1/orders/{order_id} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
            f"Authorization: Bearer {self._mint(attempt.customer)}\r\n{_HEADERS}\r\n"
        ).encode()
        while time.monotonic() < deadline:
            await asyncio.sleep(self._chance.uniform(0.7, 1.3))
            said, _ = await self._ask(request, order_id)
            self.history.add(attempt, said)
            if said.kind in (history.QUEUED, history.REFUSED):
                return said.what != "order-not-found"
        return True

    async def _ask(self, request: bytes, known: UUID | None = None) -> tuple[Said, float]:
        asked = time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await self._connections.ask(request)
        except TimeoutError:
            return Said(asked, time.monotonic(), history.UNKNOWN, "timeout"), 0.5
        except OSError:
            return Said(asked, time.monotonic(), history.UNKNOWN, "connection lost"), 0.5
        return _understand(asked, answer, known)

    def _request(self, attempt: Attempt) -> bytes:
        body = b'{"quantity":%d}' % attempt.quantity
        connection = "" if self.keep_alive else "Connection: close\r\n"
        return (
            f"POST /api/v1/sales/{self._slug}/orders HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
            f"Authorization: Bearer {self._mint(attempt.customer)}\r\nIdempotency-Key: {attempt.key}\r\n"
            f"{_HEADERS}{connection}Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body


def _understand(asked: float, answer: Answer, known: UUID | None) -> tuple[Said, float]:
    """The answer in the words of the history, and the seconds to wait before asking again."""
    now = time.monotonic()
    said = _Body()
    with contextlib.suppress(msgspec.DecodeError):
        said = _decode(answer.body)
    replayed = b"idempotency-replayed" in answer.headers
    if answer.status == 202:
        kind = history.HELD if said.state == "held" else history.QUEUED
        return Said(asked, now, kind, "", said.order_id, replayed), 0.0
    if answer.status == 200:
        kind = _STANDING.get(said.state, history.REFUSED)
        return Said(asked, now, kind, f"is {said.state}", known, True), 0.0
    what = said.type.rpartition("#")[2] or f"HTTP {answer.status}"
    wait = answer.headers.get(b"retry-after", b"")
    pause = float(wait) if wait.isdigit() else 0.5
    if answer.status >= 500 and answer.status != 503:
        return Said(asked, now, history.BROKEN, what), pause
    return Said(asked, now, history.LATER if what in _LATER else history.REFUSED, what), pause
