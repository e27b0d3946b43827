"""The gate's Redis from inside an event loop: a bounded client, and calls with a deadline."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio
from redis.connection import HiredisRespSerializer

from sales import redis_urls
from sales.gate import GateUnreachable, connection_options, reaching

CONNECTIONS = 4  # of one client; an attempt's group has at most two calls in flight
_TICKS = 20
_SCANNED = 1000  # entries at a time


_serializer = HiredisRespSerializer()


class _Packed:
    """A connection that packs its commands in C, as redis-py's synchronous ones do.

    A call of 128 attempts has 518 arguments, which cost as much to pack in Python as to decide in Redis.
    """

    def pack_command(self, *arguments: Any) -> list[bytes]:
        packed: list[bytes] = _serializer.pack(*arguments)
        return packed


def connect(url: str) -> redis.asyncio.Redis:
    options = connection_options() | {"socket_timeout": None}  # the deadline is ours: see `within`
    # Bounded: a crowd that asks at once must wait its turn, not open a connection each.
    pool = redis_urls.async_pool(url, CONNECTIONS, **options)
    pool.connection_class = type("PackedConnection", (_Packed, pool.connection_class), {})
    return redis.asyncio.Redis.from_pool(pool)


async def within(seconds: float, call: Awaitable[Any]) -> Any:
    """The call's result, or GateUnreachable when it takes longer than so many seconds.

    They are counted in ticks of the loop: a loop that was busy for a second must look at its
    sockets before it may say that Redis was slow. A call given up is cancelled, which makes
    redis-py drop the connection, so that no later call reads this one's reply.
    """
    task = asyncio.ensure_future(call)
    try:
        for _ in range(_TICKS):
            await asyncio.wait((task,), timeout=seconds / _TICKS)
            if task.done():
                break
        else:
            raise TimeoutError(f"no answer within {seconds:g} s")
        with reaching():
            return task.result()
    except TimeoutError as error:
        raise GateUnreachable(str(error)) from error
    finally:
        if not task.done():
            task.cancel()


async def whole_hash(
    client: redis.asyncio.Redis, key: str, limited: Callable[[Awaitable[Any]], Awaitable[Any]]
) -> dict[str, str]:
    """A large hash in pieces, each within its own deadline, which is `limited`'s."""
    found: dict[str, str] = {}  # a scan may show an entry twice
    cursor = -1
    while cursor != 0:
        cursor, some = await limited(client.hscan(key, max(cursor, 0), count=_SCANNED))
        found |= some
    return found


def look_at(future: asyncio.Future[Any]) -> None:
    """Reads the outcome, so that asyncio does not warn of an exception that nobody waits for."""
    if not future.cancelled():
        future.exception()
