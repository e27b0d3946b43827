"""Turns as arithmetic: who may go when follows from a few published segments, for everybody alike.

A segment says: from this moment on, beginning with this number, so many turns come a second. A change
of the rate, or a stop, is one more segment. The page computes the same in static/waitingroom/line.js.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import msgspec


class Segment(msgspec.Struct, frozen=True):
    """`from_time` is Unix ms, `rate` turns per second; with 0 the line stands still."""

    from_time: int
    from_number: float
    rate: float


def number_at(segments: Sequence[Segment], now: int) -> float:
    """The number whose turn comes at this moment (Unix ms); 0 before the first segment."""
    number = 0.0
    for segment in segments:
        if segment.from_time > now:
            break
        number = segment.from_number + (now - segment.from_time) / 1000 * segment.rate
    return number


def turn_at(segments: Sequence[Segment], place: int) -> int | None:
    """When the turn of this place comes, in Unix ms; None while nobody can know it.

    Segments that are over may be left out at the front: their places have had their turn.
    """
    if not segments:
        return None
    if place < segments[0].from_number:
        return segments[0].from_time
    last = segments[-1]
    for segment, following in pairwise(segments):
        if place < following.from_number:
            last = segment
            break
    if last.rate == 0:
        return None
    return last.from_time + math.ceil((place - last.from_number) * 1000 / last.rate)


def turn_ends_at(segments: Sequence[Segment], begins: int, seconds: int) -> int | None:
    """When a turn that begins at `begins` is over, in Unix ms: the time in which the line stands still
    does not count. None while it stands."""
    left = seconds * 1000
    for segment, following in pairwise(segments):
        moved = following.from_time - max(begins, segment.from_time)
        if segment.rate == 0 or moved <= 0:
            continue
        if moved >= left:
            return following.from_time - moved + left
        left -= moved
    last = segments[-1]
    return None if last.rate == 0 else max(begins, last.from_time) + left
