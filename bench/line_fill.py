"""Lines with people in them, without a request: by the shipped script and the shipped keeper."""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from bench import memory
from bench.errors import Unfit
from bench.ground import Ground

# Turns a second, one after the other: the document has the segments of a line that was changed three times.
PACES = (200, 100, 0, 10)
MESSAGE = "We let ten people in every second. Your place is kept, you need not stay on this page."
_TOGETHER = 200  # tickets in one call
_PATIENCE_SECONDS = 10.0


@dataclass(frozen=True)
class Size:
    """`bytes_per_person` is what Redis holds more of each than for the empty line."""

    people: int
    bytes_per_person: float


def set_paces(sales: Iterable[str]) -> None:
    """As an operator would set them, by the shipped keeper of the lines. Raises Unfit."""
    from sales import gate
    from waitingroom.keeping import Keeper
    from waitingroom.models import Pace, Room

    rooms = Room.objects.filter(sale__slug__in=list(sales))
    with gate.connect() as client:
        keeper = Keeper(client)
        keeper.look()
        rooms.update(message=MESSAGE)
        for ordinal, rate in enumerate(PACES):
            rooms.update(turn_rate=rate)
            deadline = time.monotonic() + _PATIENCE_SECONDS
            written = Pace.objects.filter(room__in=rooms, ordinal=ordinal, rate=rate)
            while written.count() < rooms.count():
                if time.monotonic() > deadline:
                    raise Unfit(f"the keeper has not set the lines to {rate} turns a second")
                keeper.look()


def fill(ground: Ground, slug: str, people: int) -> Size:
    """So many people take a ticket, by the script that the web processes call. Raises Unfit."""
    from sales import gate
    from sales.models import Sale
    from waitingroom.line import decode, join_script, line_keys
    from waitingroom.schedule import number_at

    keys, script = line_keys(Sale.objects.get(slug=slug).id), join_script()
    empty = memory.used(ground)
    with gate.connect() as client:
        line = decode(_told(client.hget(keys.line, "image")))
        for first in range(0, people, _TOGETHER):
            some = [customer(number) for number in range(first, min(first + _TOGETHER, people))]
            lowest = math.ceil(number_at(line.segments, int(1000 * time.time())))
            words = [word for each in some for word in (line.tag(each), "", lowest, "")]
            reply: Any = client.eval(script, 2, *keys, *words)
            if len(reply) != 2 + len(some):
                raise Unfit(f"join.lua gave {len(reply) - 2} tickets to {len(some)} people")
    return Size(people, per_person(empty, memory.used(ground), people))


def customer(number: int) -> str:
    """36 characters, as many as an UUID has."""
    return str(UUID(int=number))


def per_person(empty: int, filled: int, people: int) -> float:
    """Bytes, of Redis' used_memory with the empty line and with so many people in it."""
    return (filled - empty) / people


def handed_out(slug: str) -> int:
    from sales import gate
    from sales.models import Sale
    from waitingroom.line import line_keys

    with gate.connect() as client:
        return int(_told(client.hget(line_keys(Sale.objects.get(slug=slug).id).line, "next")))


def write_tickets(slug: str, source: Path, target: Path) -> None:
    """A line per buyer of `source` who has a ticket: customer, token, ticket."""
    from sales import gate
    from sales.models import Sale
    from waitingroom import tickets
    from waitingroom.line import decode, line_keys

    people = [line.split() for line in source.read_text().splitlines()]
    keys = line_keys(Sale.objects.get(slug=slug).id)
    with gate.connect() as client:
        line = decode(_told(client.hget(keys.line, "image")))
        numbers: Any = client.hmget(keys.tickets, [line.tag(name) for name, _ in people])
    with target.open("w") as file:
        for (name, token), number in zip(people, numbers, strict=True):
            if number is not None:
                file.write(f"{name} {token} {tickets.sign(slug, name, int(number))}\n")


def _told(value: Any) -> str:
    if value is None:
        raise Unfit("the line is not published")
    return str(value)
