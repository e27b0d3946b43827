"""Following a master by the word of its Sentinels.

redis-py's Sentinel does most of it. What it leaves to us: it asks one Sentinel after the other with
retries of its own, believes the first, and keeps a connection to a server that was the master as
long as that answers. Here every question has a share of the gate's time, the newest word counts,
who answers like a replica or like a gate that has fallen is left, and no connection is used for
longer than a second without asking whether it still leads to the master: one that was cut off, or
stood still, does not know that it was replaced, and whoever only reads there would never find out.

Nothing is repeated here: a call that fails is its caller's to judge, because it may have taken a unit.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import redis
import redis.asyncio
from redis.asyncio import sentinel as redis_asyncio_sentinel
from redis.backoff import NoBackoff
from redis.exceptions import MasterDownError, NoScriptError, ResponseError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, SentinelConnectionPool, SentinelManagedConnection
from redis.utils import str_if_bytes

LOOK_SECONDS = 1.0
_TICKS = 20
_QUESTIONS = ("SENTINEL GET-MASTER-ADDR-BY-NAME", "SENTINEL MASTER")

Address = tuple[str, int]


class Watched(NamedTuple):
    """A master behind Sentinels. `master` and `sentinel` are options of redis-py's connections."""

    sentinels: tuple[Address, ...]
    name: str
    master: dict[str, Any]
    sentinel: dict[str, Any]


class _Word(NamedTuple):
    """Who is the master by one Sentinel. `epoch` numbers the failovers."""

    epoch: int
    address: Address


def sync_pool(watched: Watched, **options: Any) -> SentinelConnectionPool:
    asked = _Sentinels(watched, options["socket_connect_timeout"])
    options = watched.master | options | {"connection_class": _Connection}
    return SentinelConnectionPool(watched.name, asked, **options)


class AsyncPool(redis_asyncio_sentinel.SentinelConnectionPool, redis.asyncio.BlockingConnectionPool):
    """Bounded, and callers wait for a connection: as the gate's pool without Sentinel."""

    def __init__(self, watched: Watched, **options: Any) -> None:
        asked = _AsyncSentinels(watched, options["socket_connect_timeout"])
        options = watched.master | options | {"connection_class": _AsyncConnection}
        super().__init__(watched.name, asked, **options)

    async def release(self, connection: Any) -> None:
        if (connection.host, connection.port) != self.master_address:
            await connection.disconnect()  # it was in use when the others of the old master were dropped
        await super().release(connection)


class _Look:
    """When it is time to ask again, though nothing has failed."""

    def __init__(self) -> None:
        self._asked_at = float("-inf")

    def asking(self) -> None:
        self._asked_at = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self._asked_at > LOOK_SECONDS


class _Sentinels(_Look):
    """Asks one Sentinel after the other, until most of them have answered.

    Together they have the time that one connection has (seconds).
    """

    def __init__(self, watched: Watched, seconds: float) -> None:
        super().__init__()
        share = seconds / len(watched.sentinels)
        self._options = _options(watched, share)
        self._order = list(watched.sentinels)

    def discover_master(self, name: str) -> Address:
        self.asking()
        words: list[_Word] = []
        failures: list[str] = []
        for address in tuple(self._order):
            host, port = address
            try:
                with redis.Redis(host=host, port=port, **self._options) as sentinel:
                    pipeline = sentinel.pipeline(transaction=False)
                    for question in _QUESTIONS:
                        pipeline.execute_command(question, name)
                    words.append(_word(*pipeline.execute()))
            except (redis.RedisError, OSError) as error:
                failures.append(f"{host}:{port}: {error}")
                self._order.remove(address)
                self._order.append(address)  # the next question is not kept waiting by it
            if 2 * len(words) > len(self._order):
                break
        return _believed(name, words, failures)


class _AsyncSentinels(_Look):
    """Asks all Sentinels at once, until most have answered or a third of the time (seconds) is over."""

    def __init__(self, watched: Watched, seconds: float) -> None:
        super().__init__()
        # Its time is counted in ticks of the loop: see Turnstile._within.
        self._options = _options(watched, None)
        self._sentinels = watched.sentinels
        self._tick = seconds / 3 / _TICKS

    async def discover_master(self, name: str) -> Address:
        self.asking()
        waiting = {asyncio.ensure_future(self._ask(address, name)) for address in self._sentinels}
        words: list[_Word] = []
        failures: list[str] = []
        try:
            for _ in range(_TICKS):
                done, waiting = await asyncio.wait(
                    waiting, timeout=self._tick, return_when=asyncio.FIRST_COMPLETED
                )
                answers = [question.result() for question in done]
                words += [answer for answer in answers if isinstance(answer, _Word)]
                failures += [answer for answer in answers if isinstance(answer, str)]
                if not waiting or 2 * len(words) > len(self._sentinels):
                    break
        finally:
            for question in waiting:
                question.cancel()
        return _believed(name, words, failures)

    async def _ask(self, address: Address, name: str) -> _Word | str:
        host, port = address
        try:
            async with redis.asyncio.Redis(host=host, port=port, **self._options) as sentinel:
                pipeline = sentinel.pipeline(transaction=False)
                for question in _QUESTIONS:
                    pipeline.execute_command(question, name)
                return _word(*await pipeline.execute())
        except (redis.RedisError, OSError) as error:
            return f"{host}:{port}: {error}"


def _options(watched: Watched, seconds: float | None) -> dict[str, Any]:
    return watched.sentinel | {
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": True,
        "protocol": 2,
        "driver_info": None,  # asked anew for each connection: no introductions
    }


def _word(address: Address, state: Mapping[str, Any]) -> _Word:
    # In the middle of a failover a Sentinel names the new master, and still describes the old one.
    # Whether it believes that the master is down does not count: who is master and answers, is up.
    return _Word(state["config-epoch"], address)


def _believed(name: str, words: list[_Word], failures: list[str]) -> Address:
    """The newest word counts: a Sentinel that was cut off still names the master before."""
    if not words:
        why = "; ".join(failures) or "none answers in time"
        raise MasterNotFoundError(f"no Sentinel names the master {name!r}: {why}")
    return max(words, key=lambda word: word.epoch).address


class _Connection(SentinelManagedConnection):
    def connect(self) -> None:
        """The pool calls this before each use."""
        if self.is_connected and self.connection_pool.sentinel_manager.due():
            with suppress(MasterNotFoundError):  # without any Sentinel the sale goes on where it is
                if self.connection_pool.get_master_address() != (self.host, self.port):
                    self.disconnect()
        super().connect()

    def connect_to(self, address: Address) -> None:
        """Raises ConnectionError when the server is not the master that the Sentinels say it is."""
        # An introduction is short: whoever may wait long for its calls need not wait long for it.
        patience, self.socket_timeout = self.socket_timeout, self.socket_connect_timeout
        try:
            super().connect_to(address)
            self.send_command("ROLE")
            role = self.read_response()
            if not _is_master(role):
                self.disconnect()
                raise redis.ConnectionError(_not_the_master(address))
        finally:
            self.socket_timeout = patience
        self.update_current_socket_timeout(-1)  # to what it was

    def read_response(
        self, disable_decoding: bool = False, *, disconnect_on_error: bool | None = True, **options: Any
    ) -> Any:
        # Of redis-py's connections only this one would stay open after a reply that came too late.
        options["disconnect_on_error"] = disconnect_on_error
        try:
            return super().read_response(disable_decoding, **options)
        except ResponseError as error:
            if _may_be_another(error):
                self.disconnect()
            if _cannot_write(error):
                raise redis.ConnectionError(str(error)) from error
            raise


class _AsyncConnection(redis_asyncio_sentinel.SentinelManagedConnection):
    async def connect(self) -> None:
        if self.is_connected and self.connection_pool.sentinel_manager.due():
            with suppress(MasterNotFoundError):
                if await self.connection_pool.get_master_address() != (self.host, self.port):
                    await self.disconnect()
        await super().connect()

    async def connect_to(self, address: Address) -> None:
        """Raises ConnectionError when the server is not the master that the Sentinels say it is."""
        await super().connect_to(address)
        await self.send_command("ROLE")
        role = await self.read_response()
        if not _is_master(role):
            await self.disconnect()
            raise redis.ConnectionError(_not_the_master(address))

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*arguments, **options)
        except ResponseError as error:
            if _may_be_another(error):
                await self.disconnect()
            if _cannot_write(error):
                raise redis.ConnectionError(str(error)) from error
            raise


def _is_master(role: list[Any]) -> bool:
    return str_if_bytes(role[0]) == "master"


def _not_the_master(address: Address) -> str:
    return f"{address[0]}:{address[1]} is not the master, or not yet"


def _cannot_write(error: ResponseError) -> bool:
    """A master that has lost its replicas, or a replica that has lost its master."""
    return isinstance(error, MasterDownError) or str(error).startswith("NOREPLICAS")


def _may_be_another(error: ResponseError) -> bool:
    """Answers of a server that was the master, or is a new one: the Sentinels are asked again.

    A demoted master that is still connected says READONLY to most calls (redis-py leaves it then),
    but to an attempt FENCED, because claim.lua looks at the replication id before it writes.
    """
    fenced = isinstance(error, NoScriptError) or str(error).startswith("FENCED")
    return fenced or _cannot_write(error)
