"""A line of a million people on virtual time: what their pages ask, and whether what these say comes true.

The rules are those of the shipped code: turns by waitingroom.schedule, the draw by waitingroom.draw, the page
by line.js and room.js, which tests hold to the numbers below. No page knows of another, so each is followed
alone from its coming to its leaving. Of all people every `every`-th is followed and stands for so many.

Times are seconds since the opening, schedules are in ms.
"""

import math
import random
from array import array
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from heapq import heapify, heappop, heappush

from waitingroom import draw
from waitingroom.schedule import Segment, number_at, turn_at, turn_ends_at

# secondsToNextLook in line.js: with more than so many seconds left, between so many and so many.
FAR, MIDDLE, NEAR = (600.0, 30.0, 60.0), (120.0, 10.0, 15.0), (30.0, 3.0, 5.0)
SOON, STANDS, IN_TURN = (2.0, 2.5), (4.5, 5.5), (2.0, 2.5)
HIDDEN = 10.0  # a page nobody sees looks no more often
TOGETHER = 0.3  # within so many seconds after the moment that is waited for
GRACE = 0.6  # after the end of a turn
AGAIN = (1.0, 1.5)  # delayMs(1): a ticket that told nothing new is asked for again
SPREAD = (10.0, 0.5, 2000.0)  # drawSpread: at most, at least, and a second for so many tickets
MARGIN = 0.2  # by so much a turn may differ from what the page says: it says a range


@dataclass(frozen=True)
class Plan:
    """A crowd and its line. `paces` are moments and turns a second; the first begins with the draw made.

    `early` of them come before the opening and take part in the draw, the others in the `late_seconds` after
    it. So many are `leaving` before their turn, and `missing` their first one; `hidden` have another
    tab in front. A pace is heard of after `heard_seconds`: keeper, web process and cache.
    """

    people: int = 1_000_000
    every: int = 10
    early: float = 0.8
    early_seconds: int = 600
    late_seconds: int = 1800
    paces: tuple[tuple[int, float], ...] = ((0, 200.0), (1200, 100.0), (2400, 0.0), (2460, 300.0))
    leaving: float = 0.3
    missing: float = 0.05
    hidden: float = 0.5
    turn_seconds: int = 120
    buying: tuple[float, float] = (5.0, 60.0)
    draw_seconds: float = 5.0
    heard_seconds: float = 2.0
    seed: int = 1


@dataclass(slots=True)
class Stay:
    """A page from `came` until `until`, with one place. `fate`: bought, left, or missed (its turn)."""

    came: float
    place: int
    turn: float
    until: float
    fate: str
    hidden: bool
    first: bool


@dataclass(slots=True)
class Said:
    """What a page said with half of the wait over: `left` seconds then, and by how many it was wrong.

    `changed`: the pace has changed since the document it had read; `unheard`: it had by then.
    """

    left: float
    error: float
    changed: bool
    unheard: bool


@dataclass
class Day:
    """What came of it. `looks` and `tickets` are requests by second, from `begins` on, of those followed."""

    plan: Plan
    begins: int
    looks: "array[int]"
    tickets: "array[int]"
    fates: Counter[str] = field(default_factory=Counter)
    said: list[Said] = field(default_factory=list)
    unknown: int = 0  # pages that said, with half of the wait over, that nothing is known


def seconds_to_next_look(left: float | None, chance: float) -> float:
    """Of a page in a line that is not over; `left` is None when nothing can be known."""
    if left is None:
        least, most = STANDS
    elif left > FAR[0]:
        _, least, most = FAR
    elif left > MIDDLE[0]:
        _, least, most = MIDDLE
    elif left > NEAR[0]:
        _, least, most = NEAR
    else:
        least, most = SOON
    return least + (most - least) * chance


def draw_spread(tickets: int) -> float:
    most, least, per_second = SPREAD
    return min(most, least + tickets / per_second)


def segments_of(plan: Plan) -> tuple[Segment, ...]:
    """As the keeper writes them."""
    found: tuple[Segment, ...] = ()
    for at, rate in plan.paces:
        since = int(1000 * max(at, plan.draw_seconds))
        found += (Segment(since, number_at(found, since), rate),)
    return found


def simulate(plan: Plan) -> Day:
    chance, segments = random.Random(plan.seed), segments_of(plan)
    stays = _stays(plan, segments, chance)
    begins = -plan.early_seconds
    seconds = math.ceil(max(stay.until for stay in stays)) - begins + 60
    day = Day(plan, begins, array("L", bytes(8 * seconds)), array("L", bytes(8 * seconds)))
    pages = _Pages(day, segments, chance)
    for stay in stays:
        day.fates["came"] += stay.first
        day.fates[stay.fate] += 1
        pages.follow(stay)
    return day


def _stays(plan: Plan, segments: tuple[Segment, ...], chance: random.Random) -> list[Stay]:
    """Everybody's, in the order of their numbers: who missed a turn has a second one."""
    early = round(plan.people * plan.early)
    seed = draw.seed(sha256(str(plan.seed).encode()).digest(), "00" * 32)
    stays: list[Stay] = []
    coming: list[tuple[float, bool, bool]] = []  # when, hidden, first

    def stay(came: float, place: int, hidden: bool, first: bool) -> None:
        begins = turn_at(segments, place)
        ends = None if begins is None else turn_ends_at(segments, begins, plan.turn_seconds)
        if begins is None or ends is None:
            raise ValueError("the last pace of a plan is one at which the line moves")
        turn, fate = max(begins / 1000, came), "bought"
        if first and chance.random() < plan.leaving:
            fate, until = "left", chance.uniform(came, turn)
        elif first and chance.random() < plan.missing:
            fate, until = "missed", max(ends / 1000, came) + GRACE + TOGETHER * chance.random()
            heappush(coming, (until, hidden, False))
        else:
            until = turn + chance.uniform(*plan.buying)
        stays.append(Stay(came, place, turn, until, fate, hidden, first))

    for number in range(0, early, plan.every):
        came = -plan.early_seconds * (1 - number / early)
        stay(came, draw.place(seed, number, early), chance.random() < plan.hidden, True)
    for _ in range(early, plan.people, plan.every):
        coming.append((plan.late_seconds * chance.random(), chance.random() < plan.hidden, True))
    heapify(coming)
    following = early
    while coming:
        came, hidden, first = heappop(coming)
        number = max(following, math.ceil(number_at(segments, int(1000 * came))))  # as join.lua does
        following = number + plan.every
        stay(came, number, hidden, first)
    return stays


class _Pages:
    """Follows pages, and counts what they ask."""

    def __init__(self, day: Day, segments: tuple[Segment, ...], chance: random.Random) -> None:
        self._plan, self._day, self._random = day.plan, day, chance.random
        self._spread = draw_spread(round(day.plan.people * day.plan.early))
        self._known = [segments[:count] for count in range(1, len(segments) + 1)]
        self._written = [segment.from_time / 1000 for segment in segments] + [math.inf]
        self._heard = [moment + day.plan.heard_seconds for moment in self._written]
        self._heard[0] = self._written[0]  # the draw and the first pace are told in one document

    def follow(self, stay: Stay) -> None:
        self._look(stay.came)
        self._ticket(stay.came)
        placed = self._before_the_draw(stay) if stay.came < 0 else (stay.came, stay.came)
        if placed is None:
            return
        at = self._in_line(stay, *placed)
        if at is not None:
            self._in_turn(stay, at)

    def _look(self, at: float) -> None:
        self._day.looks[math.floor(at) - self._day.begins] += 1

    def _ticket(self, at: float) -> None:
        self._day.tickets[math.floor(at) - self._day.begins] += 1

    def _before_the_draw(self, stay: Stay) -> tuple[float, float] | None:
        """Until the page knows its place: when that is, and when it had looked at the line before.

        None: its person has left.
        """
        at = read = stay.came
        while at < 0:
            at += self._pause(-at, stay.hidden)
            if at >= stay.until:
                return None
            self._look(at)
            read = at
        while True:
            at += self._spread * self._random()
            if at >= stay.until:
                return None
            self._ticket(at)
            if at >= self._plan.draw_seconds:
                return at, read
            at += AGAIN[0] + (AGAIN[1] - AGAIN[0]) * self._random()
            if at >= stay.until:
                return None
            self._look(at)
            read = at

    def _in_line(self, stay: Stay, at: float, read: float) -> float | None:
        """Until the page knows that its turn has come. None: its person has left."""
        looks, begins, until, hidden = self._day.looks, self._day.begins, stay.until, stay.hidden
        known = self._version(read)
        turn = self._turn(known, stay.place)
        half = (at + stay.turn) / 2 if stay.fate != "left" and stay.turn > at else math.inf
        while not (turn is not None and at >= turn and at >= stay.turn):
            pause = self._pause(None if turn is None else turn - at, hidden)
            if turn is not None and at >= turn:  # it slows down just now, and the ticket has said so
                pause = min(pause, AGAIN[0] + (AGAIN[1] - AGAIN[0]) * self._random())
            at += pause
            if at > half:
                self._say(stay, half, turn, known)
                half = math.inf
            if at >= until:
                return None
            looks[int(at) - begins] += 1
            if at >= self._heard[known + 1]:
                known = self._version(at)
                turn = self._turn(known, stay.place)
            if turn is not None and at >= turn:
                self._ticket(at)
        return at

    def _in_turn(self, stay: Stay, at: float) -> None:
        while True:
            pause = IN_TURN[0] + (IN_TURN[1] - IN_TURN[0]) * self._random()
            at += max(pause, HIDDEN) if stay.hidden and stay.fate == "missed" else pause
            if at >= stay.until:
                return
            self._look(at)

    def _pause(self, left: float | None, hidden: bool) -> float:
        pause = seconds_to_next_look(left, self._random())
        if hidden and pause < HIDDEN:
            pause = HIDDEN
        if left is not None and 0 < left < pause:
            pause = min(pause, left + TOGETHER * self._random())
        return pause

    def _version(self, at: float) -> int:
        """Of the schedule, that a look at this moment finds; -1 is none."""
        known = -1
        while at >= self._heard[known + 1]:
            known += 1
        return known

    def _turn(self, known: int, place: int) -> float | None:
        found = turn_at(self._known[known], place) if known >= 0 else None
        return None if found is None else found / 1000

    def _say(self, stay: Stay, at: float, turn: float | None, known: int) -> None:
        if turn is None:
            self._day.unknown += 1
            return
        changed = self._written[known + 1] < stay.turn
        unheard = self._written[known + 1] <= at
        self._day.said.append(Said(stay.turn - at, stay.turn - turn, changed, unheard))
