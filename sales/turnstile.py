"""The gate as a web process uses it: facts of a sale, and attempts on its units in groups.

Made once per process inside its event loop, and passed on through the ASGI lifespan state.
Fails closed and fast: a call that does not return within the timeout makes the next moment's
callers fail at once instead of queueing behind it.
"""

import asyncio
import time
from collections.abc import Awaitable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

import redis.asyncio
from django.conf import settings
from redis.exceptions import NoScriptError, ResponseError

from sales import directory, redis_urls
from sales.batching import GroupCommit, QueueFull
from sales.directory import DIRECTORY, Facts
from sales.gate import (
    ClaimLetter,
    Fenced,
    GateClaim,
    GateUnreachable,
    Verdict,
    connection_options,
    parse_claim,
    pool_keys,
    reaching,
    script,
    settle_arguments,
)

FACTS_SECONDS = 1.0  # how long a process believes the directory; the script decides all that matters
_BREAK_SECONDS = 0.25  # after a failure, how long callers fail at once
_TICKS = 20
_CONNECTIONS = 4  # of each kind; an attempt's group has at most two calls in flight


class Attempt(NamedTuple):
    order_id: UUID
    customer: str
    quantity: int
    admitted: bool = False


class Answer(NamedTuple):
    """A verdict and its details as claim.lua lists them; `now` is the gate's clock in Unix ms."""

    verdict: Verdict
    first: str
    second: str
    now: int


class Turnstile:
    """A process's way through the gate. Opened by `Turnstile(...)`, closed by `close()`.

    `clients` are for attempts and for questions, apart: no crowd of questions may stand in the way
    of the attempts, nor declare the gate broken.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        clients: tuple[redis.asyncio.Redis, redis.asyncio.Redis] | None = None,
    ) -> None:
        fluxgate = settings.FLUXGATE
        address = url or fluxgate.gate_url
        self._client, self._aside = clients or (_connect(address), _connect(address))
        self._timeout = fluxgate.gate_timeout_ms / 1000
        self._settle = script("settle")
        self._broken_until = 0.0
        self._facts: dict[str, tuple[float, Facts]] = {}
        self._asking: dict[str, asyncio.Future[Facts | None]] = {}
        self._questions = GroupCommit(self._look_up, in_flight=1)
        self._published: tuple[float, list[Facts]] = (float("-inf"), [])
        self._reading: asyncio.Task[list[Facts]] | None = None
        self._attempts: dict[str, GroupCommit[Attempt, Answer]] = {}
        self._marks: dict[str, GroupCommit[UUID, None]] = {}

    async def connect(self) -> None:
        """Opens the connections that attempts will use, so that the first second of a sale does not.

        A Redis that is not there is no reason not to start: every call says so by itself.
        """
        pings = [client.ping() for client in (self._client, self._aside) for _ in range(_CONNECTIONS)]
        await asyncio.gather(*map(self._within, pings), return_exceptions=True)

    async def close(self) -> None:
        for attempts in self._attempts.values():
            await attempts.drain()
        for marks in self._marks.values():
            await marks.drain()
        await self._client.aclose()
        await self._aside.aclose()

    async def ping(self) -> None:
        """Raises GateUnreachable when the gate's Redis does not answer."""
        await self._within(self._aside.ping())

    async def now_ms(self) -> int:
        """The gate's clock, in Unix ms. Raises GateUnreachable."""
        seconds, micros = await self._within(self._aside.time())
        return int(seconds * 1000 + micros // 1000)

    async def facts(self, slug: str) -> Facts | None:
        """The sale's facts, about FACTS_SECONDS old at most; None when no such sale is public.

        While they are asked for again, callers get what is known: stale facts are safe, because the
        sealed script decides. Raises GateUnreachable when nothing is known and Redis does not
        answer, Fenced when it has lost the directory.
        """
        known = self._facts.get(slug)
        if known and time.monotonic() - known[0] < FACTS_SECONDS:
            return known[1]
        asking = self._asking.get(slug)
        if asking is None:
            try:
                asking = self._asking[slug] = self._questions.submit(slug)
            except QueueFull:
                raise GateUnreachable("too many questions wait for the gate already") from None
            asking.add_done_callback(partial(self._answered, slug))
        if known:
            return known[1]
        return await asyncio.shield(asking)

    def _answered(self, slug: str, asking: asyncio.Future[Facts | None]) -> None:
        del self._asking[slug]
        if asking.cancelled() or asking.exception() is not None:
            return
        facts = asking.result()
        if facts is None:
            self._facts.pop(slug, None)  # made-up keys must not fill the memory
        else:
            self._facts[slug] = (time.monotonic(), facts)

    async def published(self, *, seconds: float = FACTS_SECONDS) -> list[Facts]:
        """Every public sale's facts, at most so many seconds old. Raises GateUnreachable.

        Whoever asks meanwhile shares the question, and its failure: a queue of questions to a
        Redis that does not answer would wait a timeout each.
        """
        at, published = self._published
        if time.monotonic() - at < seconds:
            return published
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read())
            self._reading.add_done_callback(_look_at)
        return await asyncio.shield(self._reading)

    async def _read(self) -> list[Facts]:
        try:
            values = await self._within(self._aside.hvals(DIRECTORY))
            published = [directory.decode(value) for value in values]
            self._published = (time.monotonic(), published)
            return published
        finally:
            self._reading = None

    async def attempt(self, facts: Facts, attempt: Attempt) -> Answer:
        """One attempt on the sale's units, decided atomically with whatever else leaves in the same call.

        Raises Fenced (nothing was taken) and GateUnreachable (unknown: ask again with the same key).
        """
        if time.monotonic() < self._broken_until:
            raise GateUnreachable("the gate's Redis did not answer a moment ago")
        group = self._attempts.get(facts.seal)
        if group is None:
            group = self._attempts[facts.seal] = GroupCommit(partial(self._claim, facts))
        try:
            return await group.submit(attempt)
        except QueueFull:
            raise GateUnreachable("too many attempts wait for the gate already") from None
        except Fenced:
            self._facts.pop(facts.slug, None)
            self._attempts.pop(facts.seal, None)
            raise

    def mark_queued(self, facts: Facts, order_id: UUID) -> None:
        """held -> queued, in groups, off the critical path. What fails here the sweeper makes up for."""
        group = self._marks.get(facts.seal)
        if group is None:
            group = self._marks[facts.seal] = GroupCommit(
                partial(self._mark, facts), most=500, in_flight=1, waiting=200_000
            )
        with suppress(QueueFull):
            group.submit(order_id).add_done_callback(_look_at)

    async def claim_of(self, order_id: UUID, among: Iterable[Facts]) -> tuple[Facts, GateClaim] | None:
        """The claim with this id and its sale, or None. One round trip for all the sales asked about.

        Raises Fenced when no gate knows it and one of them does not stand: it may have known.
        """
        told = list(among)
        armed = [facts for facts in told if facts.seal]
        fenced = any(facts.fenced for facts in told)
        if armed:
            pipeline = self._aside.pipeline(transaction=False)
            for facts in armed:
                keys = pool_keys(facts.sale_id, facts.pool)
                pipeline.hget(keys.claims, str(order_id))
                pipeline.hget(keys.gate, "epoch")
            pipeline.script_exists(*(facts.seal for facts in armed))
            pipeline.info("replication")
            *answers, loaded, information = await self._within(pipeline.execute())
            for facts, value in zip(armed, answers[::2], strict=True):
                if value is not None:
                    return facts, parse_claim(value)
            now = information["master_replid"]
            fenced = fenced or not all(loaded)
            fenced = fenced or any(facts.incarnation != now for facts in armed)
            fenced = fenced or any(
                epoch != str(facts.epoch) for facts, epoch in zip(armed, answers[1::2], strict=True)
            )
        if fenced or not told:
            raise Fenced("a gate that may have known the order does not stand")
        return None

    async def units_remaining(self, sales: Sequence[Facts]) -> list[int | None]:
        """Units the gate has left of each sale, None where it holds none. One round trip.

        Raises GateUnreachable.
        """
        if not sales:
            return []
        pipeline = self._aside.pipeline(transaction=False)
        for facts in sales:
            pipeline.hget(pool_keys(facts.sale_id, facts.pool).gate, "remaining")
        values = await self._within(pipeline.execute())
        return [None if value is None else int(value) for value in values]

    async def _look_up(self, slugs: Sequence[str]) -> list[Facts | None]:
        pipeline = self._aside.pipeline(transaction=False)
        pipeline.hmget(DIRECTORY, list(slugs))
        pipeline.exists(DIRECTORY)
        values, standing = await self._within(pipeline.execute())
        if not standing:  # a wiped Redis must not turn every sale into a 404
            raise Fenced("the gate knows no sale at all")
        return [None if value is None else directory.decode(value) for value in values]

    async def _claim(self, facts: Facts, attempts: Sequence[Attempt]) -> list[Answer]:
        arguments: list[str | int] = []
        for attempt in attempts:
            admitted = "1" if attempt.admitted else "0"
            arguments += (str(attempt.order_id), attempt.customer, attempt.quantity, admitted)
        keys = pool_keys(facts.sale_id, facts.pool)
        try:
            # EVALSHA by the seal and never EVAL: NOSCRIPT is the fence, not a cache miss.
            reply = await self._within(self._client.evalsha(facts.seal, 4, *keys, *arguments))
        except GateUnreachable:
            self._broken_until = time.monotonic() + _BREAK_SECONDS
            raise
        except NoScriptError:
            raise Fenced("the sealed script is gone: Redis is another incarnation") from None
        except ResponseError as error:
            if str(error).startswith("FENCED"):
                raise Fenced(str(error)) from None
            # READONLY, OOM, LOADING ...: Redis refuses to decide, and so do we.
            raise GateUnreachable(str(error)) from error
        now = int(reply[0])
        return [
            Answer(Verdict(reply[i]), str(reply[i + 1]), str(reply[i + 2]), now)
            for i in range(1, len(reply), 3)
        ]

    async def _mark(self, facts: Facts, order_ids: Sequence[UUID]) -> list[None]:
        keys = pool_keys(facts.sale_id, facts.pool)
        arguments = settle_arguments(facts.epoch, ClaimLetter.QUEUED, order_ids)
        await self._within(
            self._aside.eval(self._settle, 3, keys.gate, keys.claims, keys.pending, *arguments)
        )
        return [None] * len(order_ids)

    async def _within(self, call: Awaitable[Any]) -> Any:
        """The call's result, or GateUnreachable when it takes longer than the timeout.

        The timeout is counted in ticks of the loop: a loop that was busy for a second must look
        at its sockets before it may say that Redis was slow. A call given up is cancelled, which
        makes redis-py drop the connection, so that no later call reads this one's reply.
        """
        task = asyncio.ensure_future(call)
        try:
            for _ in range(_TICKS):
                await asyncio.wait((task,), timeout=self._timeout / _TICKS)
                if task.done():
                    break
            else:
                raise TimeoutError(f"no answer within {self._timeout:g} s")
            with reaching():
                return task.result()
        except TimeoutError as error:
            raise GateUnreachable(str(error)) from error
        finally:
            if not task.done():
                task.cancel()


def _connect(url: str) -> redis.asyncio.Redis:
    options = connection_options() | {"socket_timeout": None}  # the deadline is ours: see _within
    # Bounded: a crowd that asks at once must wait its turn, not open a connection each.
    return redis.asyncio.Redis.from_pool(redis_urls.async_pool(url, _CONNECTIONS, **options))


def _look_at(future: asyncio.Future[Any]) -> None:
    """Reads the outcome, so that asyncio does not warn of an exception that nobody waits for."""
    if not future.cancelled():
        future.exception()
