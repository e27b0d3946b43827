"""What a person who waits costs on the real site: memory in Redis, CPU for a look at the line, for a ticket.

Sales with a waiting room stand side by side, their lines filled to different sizes; then the crowd looks at
one after the other, round by round. The lines are filled by the shipped join.lua in calls of many, as web
processes make them; tickets by HTTP are measured apart.
"""

import json
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from bench import buyers, line_fill, shop, wrk
from bench.errors import Unbalanced
from bench.ground import Ground
from bench.machine import cpu_seconds
from bench.measuring import ENOUGH, OPEN, Knobs
from bench.sides import Side
from bench.stage import slugs

SIZES = {False: (10, 1_000, 10_000, 100_000), True: (10, 1_000, 10_000)}
JOINING = {False: 6_000, True: 2_000}  # people who take a ticket by HTTP, in each round
LOOKING = 20  # connections
_DISTURBED, _REST_SECONDS = 3, 3.0
NEW, KNOWN, AGAIN = "new, the token too", "new, the token known", "shown again"


class Refused(Unbalanced):
    """Something was answered with another status than 200. On a machine that does something else besides,
    Redis may be late, and the line says 503."""


@dataclass(frozen=True)
class Asked:
    """One load. CPU per request in µs, of the web process and of Redis; latencies in µs, at full load."""

    people: int
    what: str
    requests: int
    service_us: float
    gate_us: float
    per_cpu_second: float
    p50: int
    p99: int


@dataclass(frozen=True)
class Written:
    """A line document in bytes, alone and with its head as it goes over the wire."""

    body: int
    wire: int
    segments: int


def measure(ground: Ground, side: Side, knobs: Knobs, rounds: int, *, quick: bool) -> dict[str, Any]:
    """Sizes, looks, tickets and the document, to be kept. Raises Unfit and Unbalanced."""
    sizes = SIZES[quick]
    names = dict(zip(sizes, slugs(len(sizes)), strict=True))
    ground.new_run()
    units = dict.fromkeys(names.values(), ENOUGH)
    shop.open_sales(units, dict.fromkeys(units, OPEN), line=True)
    line_fill.set_paces(units)
    filled = [line_fill.fill(ground, slug, size) for size, slug in names.items()]
    side.start(ground, units, OPEN)
    try:
        document = _written(side.url, names[sizes[-1]], sizes[-1])
        crowd = _Crowd(ground, side, knobs, names, JOINING[quick])
        looks, disturbed = in_rounds(crowd.looks, rounds)
        tickets, more = in_rounds(crowd.tickets, rounds)
    finally:
        side.stop()
    shop.must_balance(units, accepted=0)
    return {
        "sizes": [asdict(each) for each in filled],
        "looks": [asdict(each) for each in looks],
        "tickets": [asdict(each) for each in tickets],
        "document": asdict(document),
        "disturbed": disturbed + more,
    }


def costs(asked: Iterable[Mapping[str, Any]], key: str) -> dict[Any, float]:
    """The median of the µs of the service over all rounds, by what `key` tells apart."""
    found: dict[Any, list[float]] = {}
    for each in asked:
        found.setdefault(each[key], []).append(each["service_us"])
    return {name: median(values) for name, values in found.items()}


def in_rounds(run: Callable[[int], list[Asked]], rounds: int) -> tuple[list[Asked], int]:
    """What so many good rounds have found, and how many were disturbed: run again, because requests were
    refused. Before them goes one for compilers and caches. Raises Refused when too many are."""
    found: list[Asked] = []
    disturbed = done = 0
    while done <= rounds:
        try:
            asked = run(done + disturbed)
        except Refused:
            disturbed += 1
            if disturbed > _DISTURBED:
                raise
            time.sleep(_REST_SECONDS)
            continue
        found += asked if done else []
        done += 1
    return found, disturbed


class _Crowd:
    """What it asks, a round at a time."""

    def __init__(
        self, ground: Ground, side: Side, knobs: Knobs, names: Mapping[int, str], joining: int
    ) -> None:
        self._ground, self._side, self._knobs = ground, side, knobs
        self._names, self._joining = names, joining
        self._nobody, self._new, self._again = (
            ground.logs / f"line-{name}" for name in ("nobody", "new", "again")
        )
        self._nobody.write_text("anybody\n")

    def looks(self, number: int) -> list[Asked]:
        """At the line of each size in turn, and the next time the other way round.

        Of 200 connections that ask at once the last one is let in after a second, since libuv accepts one
        in each turn of its loop: that second would be the p99.
        """
        knobs, sizes = replace(self._knobs, connections=LOOKING), list(self._names)[:: (-1) ** number]
        if not number:
            knobs = replace(knobs, seconds=1)
        return [self._asked("line", size, self._nobody, "look", knobs) for size in sizes]

    def tickets(self, number: int) -> list[Asked]:
        """In the longest line: new ones by customers whose tokens are new as well, and shown again; in
        between the same customers take one in the second longest."""
        second, first = sorted(self._names)[-2:]
        name = f"{number:012}-late-person-{{:011}}"
        buyers.write(self._new, tokens=True, count=self._joining, name=name)
        found = []
        for what, size, form, most in (
            (NEW, first, "tickets", self._joining),
            (KNOWN, second, "tickets", self._joining),
            (AGAIN, first, "again", 0),
        ):
            slug, crowd = self._names[size], self._again if form == "again" else self._new
            if form == "again":
                line_fill.write_tickets(slug, self._new, crowd)
            before = line_fill.handed_out(slug)
            found.append(self._asked(form, size, crowd, what, self._knobs))
            grown = line_fill.handed_out(slug) - before
            must_match(found[-1].requests, grown, most, self._knobs.connections)
        return found

    def _asked(self, form: str, people: int, crowd: Path, what: str, knobs: Knobs) -> Asked:
        """One load on the line with so many people. Raises Refused when anything was answered but 200."""
        side, ground = self._side, self._ground
        gate, used = ground.server_seconds()["gate"], cpu_seconds(side.pid)
        figures = wrk.run(
            wrk.Load(
                url=side.url,
                form=form,
                buyers=crowd,
                sales=[self._names[people]],
                prefix="",
                seconds=knobs.seconds,
                connections=knobs.connections,
                core=ground.cores.load,
            )
        )
        cpu, gate = cpu_seconds(side.pid) - used, ground.server_seconds()["gate"] - gate
        if figures.refused or not figures.requests:
            raise Refused(f"{figures.refused} of {figures.requests} requests ({what}) were refused")
        return Asked(
            people=people,
            what=what,
            requests=figures.requests,
            service_us=1e6 * cpu / figures.requests,
            gate_us=1e6 * gate / figures.requests,
            per_cpu_second=figures.requests / cpu,
            p50=figures.p50,
            p99=figures.p99,
        )


def must_match(requests: int, grown: int, most: int, connections: int) -> None:
    """New tickets and numbers handed out go together, up to `most`; with 0 of them there is none.

    At its end wrk leaves an answer per connection unread, or begins anew on it. Raises Unbalanced.
    """
    if grown > most or (most and requests > grown + connections):
        raise Unbalanced(f"{requests} tickets were answered, and {grown} numbers handed out")


def _written(url: str, slug: str, people: int) -> Written:
    """Raises Unbalanced when the document is not of a line that moves, with so many people in it."""
    parts = urlsplit(url)
    question = f"GET /api/v1/sales/{slug}/line HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=30) as connection:
        connection.sendall(question.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    told = json.loads(body)
    found = (told.get("state"), len(told.get("segments", ())), told.get("tickets", 0) >= people)
    if b" 200 " not in head.split(b"\r\n")[0] or found != ("waiting", len(line_fill.PACES), True):
        raise Unbalanced(f"the line document is not that of {people} people: {body[:300].decode()}")
    return Written(len(body), len(answer), len(told["segments"]))
