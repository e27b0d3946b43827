"""The crowd: buyers as real HTTP requests, from a process of their own.

Open loop: every click has its moment, whether or not the shop keeps up, and its latency counts from
that moment. So neither a slow shop nor a slow crowd can make the figures look better than they
were for the buyer. An honest client: it repeats with the same key when it is asked to come back.
"""

import asyncio
import contextlib
import gc
import random
import sys
import time
from collections import Counter

import msgspec
import uvloop

from management.demo.connections import Connections
from management.demo.messages import Opening, Orders, Outcome, Said, line
from management.demo.plan import Click

# Kinds of answers. The others are the slugs of sales.problems, which this process does not import.
ACCEPTED, SET_ASIDE, REPLAYED = "accepted", "accepted, held", "replayed"
TIMEOUT, BROKEN = "timeout", "connection lost"

# After these the contract says: ask again with the same key. Nothing has been bought, or nobody knows.
_ASK_AGAIN = frozenset(
    {
        "too-busy", "temporarily-unavailable", "all-units-held", "sale-not-open", "sale-paused",
        "internal-error", TIMEOUT, BROKEN,
    }
)  # fmt: skip
_SAY_EVERY_SECONDS = 0.25


class _Body(msgspec.Struct):
    """Of any answer: `order_id` of a 202, `type` of a problem."""

    order_id: str = ""
    state: str = ""
    type: str = ""


_decode = msgspec.json.Decoder(_Body).decode


class Crowd:
    """The buyers of one process. Made before the opening; `run` returns with the last answer."""

    def __init__(self, orders: Orders, connections: Connections) -> None:
        self._orders = orders
        self._connections = connections
        self._chance = random.Random(orders.seed)  # noqa: S311  # jitter
        self._opened: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._answers: Counter[str] = Counter()
        self._late = 0.0
        self._outcomes: list[Outcome] = []
        self._tasks = [asyncio.create_task(self._buy(click)) for click in orders.clicks]

    async def knock(self) -> None:
        """Opens the connections, as the countdown page of each buyer has done by the opening."""
        orders = self._orders
        request = f"GET {orders.knock} HTTP/1.1\r\nHost: {orders.host}:{orders.port}\r\n\r\n".encode()
        # Started together, so that none of them finds another one's connection idle.
        knocks = [self._connections.ask(request) for _ in range(min(orders.connections, len(self._tasks)))]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(orders.answer_seconds):
                await asyncio.gather(*knocks, return_exceptions=True)

    async def run(self, opening: Opening) -> None:
        loop = asyncio.get_running_loop()
        self._opened.set_result(loop.time() + opening.at - time.time())
        await asyncio.wait(self._tasks)
        for task in self._tasks:
            task.result()

    def said(self, *, finally_: bool = False) -> Said:
        waiting = len(self._tasks) - len(self._outcomes)
        return Said(dict(self._answers), waiting, self._late, self._outcomes if finally_ else None)

    async def _buy(self, click: Click) -> None:
        loop = asyncio.get_running_loop()
        request = self._request(click)
        opened = await self._opened
        intended = opened + click.at
        await asyncio.sleep(intended - loop.time())
        self._late = max(self._late, loop.time() - intended)
        tries, first = 0, 0.0
        while True:
            kind, order_id, pause = await self._ask(request)
            tries += 1
            first = first or loop.time() - intended
            self._answers[kind] += 1
            if kind not in _ASK_AGAIN:
                break
            pause += self._chance.uniform(0, 1)
            if loop.time() + pause - opened > self._orders.patience_seconds:
                break
            await asyncio.sleep(pause)
        self._outcomes.append(Outcome(click, kind, loop.time() - intended, first, tries, order_id))

    async def _ask(self, request: bytes) -> tuple[str, str, float]:
        """Kind of the answer, the order's id, and the seconds to wait before asking again."""
        try:
            async with asyncio.timeout(self._orders.answer_seconds):
                answer = await self._connections.ask(request)
        except TimeoutError:
            return TIMEOUT, "", 1.0
        except OSError:
            return BROKEN, "", 1.0
        try:
            said = _decode(answer.body)
        except msgspec.DecodeError:
            said = _Body()
        if answer.status == 202:
            if b"idempotency-replayed" in answer.headers:
                return REPLAYED, said.order_id, 0.0
            return (SET_ASIDE if said.state == "held" else ACCEPTED), said.order_id, 0.0
        kind = said.type.rpartition("#")[2] or f"HTTP {answer.status}"
        return kind, "", _seconds(answer.headers.get(b"retry-after", b""))

    def _request(self, click: Click) -> bytes:
        body = b'{"quantity":%d}' % click.quantity
        lines = (
            f"POST {self._orders.path} HTTP/1.1",
            f"Host: {self._orders.host}:{self._orders.port}",
            f"Authorization: Bearer {self._orders.tokens[click.buyer]}",
            f"Idempotency-Key: {click.key}",
            "Accept: application/json",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        )
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _seconds(retry_after: bytes) -> float:
    return float(retry_after) if retry_after.isdigit() else 1.0


async def main() -> None:
    loop = asyncio.get_running_loop()
    orders = msgspec.json.decode(await loop.run_in_executor(None, sys.stdin.buffer.readline), type=Orders)
    connections = Connections(orders.host, orders.port, orders.connections)
    crowd = Crowd(orders, connections)
    await crowd.knock()
    gc.collect()
    gc.freeze()
    _say(crowd.said())
    opening = msgspec.json.decode(await loop.run_in_executor(None, sys.stdin.buffer.readline), type=Opening)
    running = asyncio.create_task(crowd.run(opening))
    while not running.done():
        await asyncio.wait((running,), timeout=_SAY_EVERY_SECONDS)
        _say(crowd.said(finally_=running.done()))
    running.result()
    connections.close()


def _say(said: Said) -> None:
    sys.stdout.buffer.write(line(said))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    uvloop.run(main())
