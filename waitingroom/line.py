"""The running image of a line in the gate's Redis: its keys, what is published of it, and its one script.

PostgreSQL has the same but for the tickets, so a line that was lost is published anew
(waitingroom/keeping.py); whoever shows a signed ticket then keeps the number.
"""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import msgspec

from waitingroom import draw
from waitingroom.schedule import Segment, turn_at, turn_ends_at

_LUA = Path(__file__).parent / "lua"


class LineKeys(NamedTuple):
    """In the order in which join.lua names them. They share the hash tag of the sale's first pool."""

    line: str
    tickets: str


def line_keys(sale_id: UUID) -> LineKeys:
    tag = f"fluxgate:{{{sale_id}:0}}"
    return LineKeys(f"{tag}:line", f"{tag}:tickets")


class Drawn(msgspec.Struct, frozen=True):
    """The draw as it is published. `entries` and what follows are None until they are frozen, and
    the seed also while a beacon that was announced is awaited."""

    commitment: str
    beacon_name: str = ""
    beacon: str = ""
    entries: int | None = None
    digest: str | None = None
    secret: str | None = None
    seed: str | None = None


class Line(msgspec.Struct, frozen=True):
    """What everybody may know of a line, but for `salt` (hex), which only the web processes see."""

    salt: str
    opens_at: int
    closes_at: int
    turn_seconds: int
    segments: tuple[Segment, ...]
    message: str
    draw: Drawn

    def tag(self, customer: str) -> str:
        """How the customer is listed."""
        return draw.tag(bytes.fromhex(self.salt), customer)

    def place(self, number: int, entries: int | None) -> int | None:
        """Where a number stands in line; None for one that is in the draw until that is made.

        `entries` is what the script says of the draw, which is ahead of what is published.
        """
        if entries is None:
            return None
        if number >= entries:
            return number
        if self.draw.seed is None or self.draw.entries is None or number >= self.draw.entries:
            return None
        return draw.place(bytes.fromhex(self.draw.seed), number, self.draw.entries)

    def turn(self, number: int, entries: int | None) -> "Turn":
        """When the turn of a number comes, and ends."""
        place = self.place(number, entries)
        begins = None if place is None else turn_at(self.segments, place)
        ends = None if begins is None else turn_ends_at(self.segments, begins, self.turn_seconds)
        return Turn(place, begins, ends)


class Turn(NamedTuple):
    """Of a number: Unix ms, None while nobody can know it. `ends` is None while the line stands still."""

    place: int | None
    begins: int | None
    ends: int | None

    def is_over(self, now: int) -> bool:
        return self.ends is not None and now >= self.ends

    def has_begun(self, now: int) -> bool:
        return self.begins is not None and self.begins <= now


@lru_cache(maxsize=1024)
def decode(image: str) -> Line:
    """Web processes read the same image every second."""
    return msgspec.json.decode(image, type=Line)


def encode(line: Line) -> str:
    return msgspec.json.encode(line).decode()


def join_script() -> str:
    return (_LUA / "join.lua").read_text()
