"""The lines as a web process sees them: what is published, about half a second old, and joining.

What everybody asks costs the same for ten people in line as for a million; joining is one entry of a hash,
in calls that many share. Its connections are its own: no crowd in line stands in the way of the attempts.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import redis.asyncio
from django.conf import settings
from redis.exceptions import RedisError

from sales.batching import GroupCommit, QueueFull
from sales.deadline import connect, look_at, within
from sales.directory import Facts
from sales.gate import GateUnreachable, pool_keys
from waitingroom.line import Line, decode, join_script, line_keys

SEEN_SECONDS = 0.5
LATE_SECONDS = 1.0
MOST_SALES = 4096


class Seen(NamedTuple):
    """A line at a moment: `now` is the gate's clock in Unix ms, `at` that moment on the monotonic one.

    `line` is None when nothing is published; `required` says whether the gate asks for admissions.
    `entries` is that of the draw once it is frozen, which may be before it is published; `tickets` is how
    many numbers have been handed out, `remaining` and `loaded` are units.
    """

    at: float
    now: int
    line: Line | None
    tickets: int
    entries: int | None
    required: bool
    state: str
    remaining: int
    loaded: int

    def clock(self) -> int:
        """The gate's clock now, in Unix ms."""
        return self.now + int(1000 * (time.monotonic() - self.at))


class _Joining(NamedTuple):
    facts: Facts
    tag: str
    missed: str
    lowest: int
    shown: str


class Lines:
    """One process's. Opened inside its loop, closed by `close()`."""

    def __init__(self, client: redis.asyncio.Redis | None = None) -> None:
        fluxgate = settings.FLUXGATE
        self._client = client or connect(fluxgate.gate_url)
        self._within = partial(within, fluxgate.gate_timeout_ms / 1000)
        self._script = join_script()
        self._seen: dict[str, Seen] = {}
        self._looking: dict[str, asyncio.Future[Seen]] = {}
        self._joins: GroupCommit[_Joining, tuple[int, int | None]] = GroupCommit(self._join)

    async def close(self) -> None:
        await self._joins.drain()
        await self._client.aclose()

    async def see(self, facts: Facts) -> Seen:
        """The line of an armed sale, about SEEN_SECONDS old. Raises GateUnreachable.

        While one looks again the others are shown what was seen before, for LATE_SECONDS at most: a Redis
        that is slow for a moment must not make a whole line wait.
        """
        seen = self._seen.get(facts.slug)
        age = time.monotonic() - seen.at if seen else math.inf
        if seen and age < SEEN_SECONDS:
            return seen
        looking = self._looking.get(facts.slug)
        if looking is None:  # one of many looks, the others wait for what it sees
            looking = self._looking[facts.slug] = asyncio.ensure_future(self._look(facts))
            looking.add_done_callback(look_at)
        if seen and age < LATE_SECONDS:
            return seen
        return await asyncio.shield(looking)

    async def join(
        self, facts: Facts, tag: str, *, lowest: int, missed: int | None, shown: int | None
    ) -> tuple[int, int | None]:
        """The customer's number, and the entries of the draw when they are frozen.

        The number is a new one, `lowest` or above, if there is none yet or its turn was `missed`; `shown`
        is that of a signed ticket, for a line that was lost. Raises GateUnreachable.
        """
        joining = _Joining(facts, tag, _text(missed), lowest, _text(shown))
        try:
            return await self._joins.submit(joining)
        except QueueFull:
            raise GateUnreachable("too many wait for a ticket already") from None

    async def _look(self, facts: Facts) -> Seen:
        try:
            pipeline = self._client.pipeline(transaction=False)
            pipeline.time()
            pipeline.hmget(line_keys(facts.sale_id).line, ["image", "next", "entries"])
            gate = pool_keys(facts.sale_id, facts.pool).gate
            pipeline.hmget(gate, ["admission_required", "state", "remaining", "loaded"])
            try:
                (seconds, micros), told, standing = await self._within(pipeline.execute())
            except RedisError as error:  # full, loading ...
                raise GateUnreachable(str(error)) from error
            image, following, entries = told
            required, state, remaining, loaded = standing
            if required is None:  # it is being armed again: what it asks for is not known
                raise GateUnreachable("the gate of this sale does not stand")
            seen = Seen(
                time.monotonic(),
                int(seconds) * 1000 + int(micros) // 1000,
                None if image is None else decode(image),
                int(following or 0),
                None if entries is None else int(entries),
                required == "1",
                state or "arming",
                int(remaining or 0),
                int(loaded or 0),
            )
            if len(self._seen) >= MOST_SALES:
                self._seen.clear()
            if seen.line is not None or not seen.required:  # what is missing comes any moment
                self._seen[facts.slug] = seen
            return seen
        finally:
            del self._looking[facts.slug]

    async def _join(self, joinings: Sequence[_Joining]) -> list[tuple[int, int | None] | Exception]:
        arguments: dict[Facts, list[str | int]] = {}
        for facts, tag, missed, lowest, shown in joinings:
            arguments.setdefault(facts, []).extend((tag, missed, lowest, shown))
        pipeline = self._client.pipeline(transaction=False)
        for facts, words in arguments.items():
            pipeline.eval(self._script, 2, *line_keys(facts.sale_id), *words)
        replies = await self._within(pipeline.execute(raise_on_error=False))
        said = dict(zip(arguments, map(_read, replies), strict=True))
        return [next(said[joining.facts]) for joining in joinings]


def _read(reply: Any) -> Any:
    """An iterator over what a customer each is told."""
    if isinstance(reply, RedisError):
        return _always(GateUnreachable(str(reply)))
    if not reply:
        return _always(GateUnreachable("the line is being published anew"))
    _, entries, *numbers = reply
    frozen = None if entries == "" else int(entries)
    return iter([(int(number), frozen) for number in numbers])


def _always(error: Exception) -> Any:
    while True:
        yield error


def _text(number: int | None) -> str:
    return "" if number is None else str(number)
