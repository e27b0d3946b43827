"""Arrivals that do not wait for answers: a process that sends orders at moments set beforehand.

`python -m bench.arrivals` reads one Order (JSON) and prints one Seen. A latency runs from the moment at which
the request was meant to be sent, so that a service which stalls is not asked less (coordinated omission). On
loopback, keep-alive connections, at about 15 µs of CPU a request.
"""

import asyncio
import random
import re
import sys
from collections import Counter, deque
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import msgspec
import uvloop

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_GRACE_SECONDS = 15.0


class Order(msgspec.Struct, frozen=True):
    """What to send: `rate` requests a second for so many seconds, at random moments (Poisson)."""

    url: str
    form: str  # "ours" or "reference", as in load.lua
    buyers: str  # the file
    sales: list[str]
    prefix: str
    rate: float
    seconds: float
    connections: int
    seed: int


class Seen(msgspec.Struct, frozen=True):
    """Counts by status; percentiles in microseconds from the intended start. `late` is the client's own."""

    answers: dict[str, int]
    p50: int
    p95: int
    p99: int
    most: int
    late_p99: int
    unanswered: int


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, crowd: "_Crowd") -> None:
        self._crowd, self._buffer, self.due = crowd, b"", 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._crowd.idle.append(self)

    def send(self, due: float, request: bytes) -> None:
        self.due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        end = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data, 0, end + 2) if end >= 0 else None
        if end < 0 or (length and len(data) < end + 4 + int(length[1])):
            self._buffer = data
            return
        self._buffer = b""
        self._crowd.answered(self, data[9:12])

    def connection_lost(self, error: Exception | None) -> None:
        self._crowd.lost += 1

    def close(self) -> None:
        self._transport.abort()


class _Crowd:
    def __init__(self, order: Order) -> None:
        self._order = order
        self.idle: deque[_Connection] = deque()
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._answers: Counter[str] = Counter()
        self._latencies: list[float] = []
        self._late: list[float] = []
        self.lost = 0
        self._heads, self._tails = requests(order)

    async def run(self) -> Seen:
        self._loop = asyncio.get_running_loop()
        parts = urlsplit(self._order.url)
        host, port = parts.hostname or "", parts.port or 0
        for _ in range(self._order.connections):
            await self._loop.create_connection(lambda: _Connection(self), host, port)
        chance = random.Random(self._order.seed)
        now = self._loop.time
        begun = due = now()
        count, end = 0, begun + self._order.seconds
        while (due := due + chance.expovariate(self._order.rate)) < end:
            if (ahead := due - now()) > 0.0005:
                await asyncio.sleep(ahead)
            else:
                # Behind its time it must still let answers in.
                if ahead < -0.005 and count % 32 == 0:
                    await asyncio.sleep(0)
            self._ask(due, count)
            count += 1
        give_up = now() + _GRACE_SECONDS
        while len(self._latencies) < count and not self.lost and now() < give_up:
            await asyncio.sleep(0.02)
        for connection in self.idle:
            connection.close()
        return self._seen(count)

    def answered(self, connection: _Connection, status: bytes) -> None:
        self._latencies.append(self._loop.time() - connection.due)
        self._answers[status.decode()] += 1
        if self._waiting:
            connection.send(*self._waiting.popleft())
        else:
            self.idle.append(connection)

    def _ask(self, due: float, count: int) -> None:
        place = count % len(self._heads)
        request = b"%s%d%s" % (self._heads[place], count, self._tails[place])
        self._late.append(self._loop.time() - due)
        if self.idle:
            self.idle.popleft().send(due, request)
        else:
            self._waiting.append((due, request))

    def _seen(self, count: int) -> Seen:
        found = sorted(self._latencies) or [0.0]
        late = sorted(self._late) or [0.0]
        return Seen(
            answers=dict(self._answers),
            p50=percentile(found, 50),
            p95=percentile(found, 95),
            p99=percentile(found, 99),
            most=percentile(found, 100),
            late_p99=percentile(late, 99),
            unanswered=count - len(self._latencies),
        )


def percentile(ordered: list[float], share: float) -> int:
    """Of sorted seconds, in microseconds: the smallest one that `share` percent do not exceed."""
    place = max(0, -(-len(ordered) * share // 100) - 1)
    return round(1e6 * ordered[int(place)])


def requests(order: Order) -> tuple[list[bytes], list[bytes]]:
    """Of every buyer's request what stands before its key's number, and what after it (see load.lua)."""
    heads, tails = [], []
    for number, line in enumerate(Path(order.buyers).read_text().splitlines()):
        customer, _, token = line.partition(" ")
        sale = order.sales[number % len(order.sales)]
        body = '{"quantity":1}' if order.form == "ours" else f'{{"user_id":"{customer}","quantity":1}}'
        lines = [
            f"POST /api/v1/sales/{sale}/orders HTTP/1.1",
            "Host: 127.0.0.1",
            "User-Agent: bench",
            "Accept: */*",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *([f"Authorization: Bearer {token}"] if token else []),
            f"Idempotency-Key: {order.prefix}",
        ]
        heads.append("\r\n".join(lines).encode())
        tails.append(f"\r\n\r\n{body}".encode())
    return heads, tails


def main() -> None:
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    seen = uvloop.run(_Crowd(order).run())
    sys.stdout.buffer.write(msgspec.json.encode(seen))


if __name__ == "__main__":
    main()
