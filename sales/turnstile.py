"""The gate as a web process uses it: facts of a sale, and attempts on its units in groups.

Made once per process inside its event loop, and passed on through the ASGI lifespan state.
Fails closed and fast: a call that does not return within the timeout makes the next moment's
callers fail at once instead of queueing behind it. What it has been told a moment ago it repeats
(sales/refusals.py).
"""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import repeat
from typing import Any
from uuid import UUID

import redis.asyncio
from django.conf import settings
from redis.exceptions import NoScriptError

from sales import directory, metrics
from sales.batching import GroupCommit, QueueFull
from sales.deadline import CONNECTIONS, connect, look_at, whole_hash, within
from sales.directory import DIRECTORY, Facts
from sales.gate import (
    Answer,
    Attempt,
    ClaimLetter,
    Fenced,
    GateClaim,
    GateUnreachable,
    claim_answers,
    claim_arguments,
    parse_claim,
    pool_keys,
    script,
    settle_arguments,
)
from sales.refusals import Question, Refusals

FACTS_SECONDS = 1.0  # how long a process believes the directory; the script decides all that matters
_BREAK_SECONDS = 0.25  # after a failure, how long callers fail at once


class _Pool:
    """What a process knows of one arming of a sale."""

    def __init__(self, facts: Facts, repeat_seconds: float) -> None:
        self.facts = facts
        self.keys = pool_keys(facts.sale_id, facts.pool)
        self.refusals = Refusals(repeat_seconds)
        self.reading: asyncio.Task[None] | None = None


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
        self._client, self._aside = clients or (connect(address), connect(address))
        self._within = partial(within, fluxgate.gate_timeout_ms / 1000)
        self._repeat_seconds = fluxgate.repeat_ms / 1000
        self._settle = script("settle")
        self._broken_until = 0.0
        self._facts: dict[str, tuple[float, Facts]] = {}
        self._asking: dict[str, asyncio.Future[Facts | None]] = {}
        self._questions = GroupCommit(self._look_up)
        self._published: tuple[float, list[Facts]] = (float("-inf"), [])
        self._reading: asyncio.Task[list[Facts]] | None = None
        self._pools: dict[str, _Pool] = {}  # by the seal: a new epoch begins anew
        # The attempts on all sales share their calls: with many sales small groups would cost the most.
        self._attempts = GroupCommit(self._claim)
        self._marks = GroupCommit(self._mark, most=500, in_flight=1, waiting=200_000)

    async def connect(self) -> None:
        """Opens the connections that attempts will use, so that the first second of a sale does not.

        A Redis that is not there is no reason not to start: every call says so by itself.
        """
        pings = [client.ping() for client in (self._client, self._aside) for _ in range(CONNECTIONS)]
        await asyncio.gather(*map(self._within, pings), return_exceptions=True)

    async def close(self) -> None:
        await self._attempts.drain()
        await self._marks.drain()
        for pool in self._pools.values():
            if pool.reading is not None:
                pool.reading.cancel()
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
        known = self._facts.get(slug)
        if known and known[1].seal != (facts.seal if facts else ""):
            self._pools.pop(known[1].seal, None)  # nobody asks that arming any more
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
            self._reading.add_done_callback(look_at)
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
        pool = self._pool(facts)
        known = pool.refusals.repeat(attempt)
        if known is not None:
            return known
        try:
            return await self._attempts.submit((pool, attempt))
        except QueueFull:
            raise GateUnreachable("too many attempts wait for the gate already") from None

    def repeating(self, facts: Facts, answer: Answer) -> Refusals | None:
        """What this process knows of the sale, when that is what it would answer to others as well."""
        pool = self._pools.get(facts.seal)
        return pool.refusals if pool is not None and pool.refusals.repeats(answer) else None

    def mark_queued(self, facts: Facts, order_id: str) -> None:
        """held -> queued, in groups, off the critical path. What fails here the sweeper makes up for."""
        with suppress(QueueFull):
            self._marks.tell((self._pool(facts), order_id))

    def _pool(self, facts: Facts) -> _Pool:
        pool = self._pools.get(facts.seal)
        if pool is None:
            pool = self._pools[facts.seal] = _Pool(facts, self._repeat_seconds)
        return pool

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
            epochs = zip(armed, answers[1::2], strict=True)
            fenced = fenced or any(epoch != str(facts.epoch) for facts, epoch in epochs)
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

    async def _claim(self, asked: Sequence[tuple[_Pool, Attempt]]) -> list[Answer | Exception]:
        """One script call for each pool that is asked about, all in one round trip."""
        attempts: dict[_Pool, list[Attempt]] = {}
        for pool, attempt in asked:
            attempts.setdefault(pool, []).append(attempt)
        questions = [pool.refusals.ask() for pool in attempts]
        pipeline = self._client.pipeline(transaction=False)
        for pool, among in attempts.items():
            # EVALSHA by the seal and never EVAL: NOSCRIPT is the fence, not a cache miss.
            pipeline.evalsha(pool.facts.seal, 4, *pool.keys, *claim_arguments(among))
        begun = time.monotonic()
        try:
            replies = await self._within(pipeline.execute(raise_on_error=False))
        except GateUnreachable:
            self._broken_until = time.monotonic() + _BREAK_SECONDS
            for pool, among in attempts.items():
                pool.refusals.unanswered(among)
            raise
        finally:
            metrics.gate_call_seconds.observe(time.monotonic() - begun)
        answers: dict[_Pool, Iterator[Answer | Exception]] = {}
        for (pool, among), question, reply in zip(attempts.items(), questions, replies, strict=True):
            broken = isinstance(reply, Exception)
            said = repeat(self._refused(pool, reply)) if broken else self._heard(pool, question, among, reply)
            answers[pool] = iter(said)
        return [next(answers[pool]) for pool, _ in asked]

    def _refused(self, pool: _Pool, error: Exception) -> Exception:
        """What Redis' error to a script call means."""
        gone = isinstance(error, NoScriptError)
        if not (gone or str(error).startswith("FENCED")):  # READONLY, OOM, LOADING: it decides nothing
            return GateUnreachable(str(error))
        self._facts.pop(pool.facts.slug, None)
        self._pools.pop(pool.facts.seal, None)
        return Fenced("the sealed script is gone: Redis is another incarnation" if gone else str(error))

    def _heard(
        self, pool: _Pool, question: Question, attempts: Sequence[Attempt], reply: Sequence[Any]
    ) -> list[Answer]:
        answers = claim_answers(reply)
        pool.refusals.hear(question, attempts, answers)
        if pool.reading is None and pool.refusals.wants_to_read():
            pool.reading = asyncio.ensure_future(self._read_claims(pool))
            pool.reading.add_done_callback(look_at)
        return answers

    async def _read_claims(self, pool: _Pool) -> None:
        """Off the path: who must never be refused without asking."""
        question = pool.refusals.ask()
        try:
            claims = await whole_hash(self._aside, pool.keys.claims, self._within)
            pool.refusals.read(question, claims.values())
        finally:
            pool.reading = None

    async def _mark(self, marks: Sequence[tuple[_Pool, str]]) -> list[None]:
        order_ids: dict[_Pool, list[str]] = {}
        for pool, order_id in marks:
            order_ids.setdefault(pool, []).append(order_id)
        pipeline = self._aside.pipeline(transaction=False)
        for pool, ids in order_ids.items():
            keys, arguments = pool.keys, settle_arguments(pool.facts.epoch, ClaimLetter.QUEUED, ids)
            pipeline.eval(self._settle, 3, keys.gate, keys.claims, keys.pending, *arguments)
        await self._within(pipeline.execute(raise_on_error=False))
        return [None] * len(marks)
