"""How many stand in a line, told to its operator: by the arithmetic that tells everybody their turn."""

from bisect import bisect_left
from typing import NamedTuple
from uuid import UUID

import redis

from sales.gate import pool_keys, reaching
from waitingroom.line import Line, decode, line_keys
from waitingroom.schedule import turn_at


class Crowd(NamedTuple):
    """A line at a moment of the gate's clock. `tickets` have been handed out, the turn of `waiting` of them
    has not come; `rate` is turns per second. Who has left is not known, and counts. `passes`: nobody needs a
    turn."""

    tickets: int
    waiting: int
    rate: float
    passes: bool


def crowd(client: redis.Redis, sale_id: UUID) -> Crowd | None:
    """One round trip. None: no line is published, by now. Raises GateUnreachable."""
    with reaching():
        pipeline = client.pipeline(transaction=False)
        pipeline.time()
        pipeline.hmget(line_keys(sale_id).line, ["image", "next"])
        pipeline.hget(pool_keys(sale_id).gate, "admission_required")
        (seconds, micros), (image, following), required = pipeline.execute()
    if image is None:
        return None
    now = int(seconds) * 1000 + int(micros) // 1000
    return standing(decode(image), int(following or 0), now, passes=required == "0")


def standing(line: Line, tickets: int, now: int, *, passes: bool) -> Crowd:
    """Pure. `now` is Unix ms."""

    def has_come(place: int) -> bool:
        begins = turn_at(line.segments, place)
        return begins is not None and begins <= now

    # Places go in the order of their turns: behind the first whose turn has not come, no other's has.
    turns = bisect_left(range(tickets), True, key=lambda place: not has_come(place))
    rates = [segment.rate for segment in line.segments if segment.from_time <= now]
    return Crowd(tickets, 0 if passes else tickets - turns, rates[-1] if rates else 0.0, passes)
