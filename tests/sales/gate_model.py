"""The gate's rules once more, in plain Python: what the Lua under sales/lua/ must do, said another way.

Nothing is shared with the code under test but the words. `tests/sales/test_gate_model.py` drives both.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

NO_SCRIPT = "NOSCRIPT"
BROKEN = "ERROR"  # a gate without its fields: the script fails, which is closed enough
NAMES = {"h": "held", "q": "queued", "s": "settled"}
RANK = {"h": 1, "q": 2, "s": 3, "r": 9}


class Rules(NamedTuple):
    """What an operator has set for the sale."""

    units: int
    limit: int
    rate: int
    burst: int
    opens_at: int
    closes_at: int
    admission_required: bool


class Try(NamedTuple):
    order_id: str
    customer: str
    quantity: int
    admitted: bool


class Known(NamedTuple):
    """An order of the book, as it is loaded."""

    order_id: str
    letter: str
    quantity: int
    claimed_at: int
    epoch: int
    customer: str


@dataclass
class Claim:
    letter: str
    quantity: int
    claimed_at: int
    epoch: int
    customer: str

    def text(self) -> str:
        return f"{self.letter}{self.quantity}:{self.claimed_at}:{self.epoch}:{self.customer}"


REPEATED_MS = 51  # how long processes may still say "sold out" after a unit has come back


@dataclass
class Gate:
    """One pool. `built` is false for a gate that was lost and has only been fenced since."""

    epoch: int
    state: str
    turn: int
    built: bool = False
    units: dict[str, int] = field(default_factory=dict)
    tokens: float = 0.0
    tokens_at: int = 0
    back_at: int = 0  # when units came back after the last was gone
    claims: dict[str, Claim] = field(default_factory=dict)
    customers: dict[str, tuple[int, str]] = field(default_factory=dict)
    pending: dict[str, int] = field(default_factory=dict)


class Model:
    """A Redis with at most one gate in it, and the scripts it has been given."""

    def __init__(self, rules: Rules, now: int) -> None:
        self.rules, self.now = rules, now
        self.gate: Gate | None = None
        self.incarnation = 0  # counts what the real one calls replication ids
        self.scripts: set[tuple[int, int]] = set()  # (epoch, incarnation) of each seal that is loaded

    # --- what happens to the server

    def flush_scripts(self) -> None:
        self.scripts.clear()

    def fail_over(self) -> None:
        """And back: data and scripts are there, the replication id is another."""
        self.incarnation += 1

    def wipe(self) -> None:
        self.gate = None

    # --- arming

    def fence(self, epoch: int) -> str:
        gate = self.gate
        if gate is None:
            self.gate = Gate(epoch, "arming", 1)
            return "fenced"
        if gate.epoch > epoch:
            return "stale"
        gate.epoch, gate.state, gate.turn = epoch, "arming", gate.turn + 1
        return "fenced"

    def arm(self, epoch: int) -> str:
        gate = self.gate
        if gate is not None and (gate.epoch > epoch or (gate.epoch == epoch and gate.state != "arming")):
            return "stale"
        units = dict.fromkeys(("held", "queued", "settled", "released"), 0)
        turn = 1 if gate is None else gate.turn + 1
        self.gate = Gate(epoch, "arming", turn, built=True, units=units, tokens=self.rules.burst)
        units["loaded"] = units["remaining"] = self.rules.units
        return "armed"

    def load(self, epoch: int, orders: list[Known]) -> str:
        gate = self.gate
        if gate is None or gate.epoch != epoch or gate.state != "arming":
            return "stale"
        for known in orders:
            if known.order_id in gate.claims:
                continue
            gate.claims[known.order_id] = Claim(*known[1:])
            if known.letter == "r":
                gate.units["released"] += known.quantity
                continue
            gate.units["remaining"] -= known.quantity
            gate.units["settled"] += known.quantity
            taken, _ = gate.customers.get(known.customer, (0, ""))
            gate.customers[known.customer] = (taken + known.quantity, known.order_id)
        return "loaded"

    def raise_seal(self, epoch: int) -> None:
        self.scripts.add((epoch, self.incarnation))

    def switch(self, epoch: int | None, state: str, turn: str, building: bool) -> str:
        """`epoch` None for a stop, which is meant for whichever gate stands."""
        gate = self.gate
        if gate is None or epoch not in (None, gate.epoch):
            return "stale"
        if building != (gate.state == "arming"):
            gate.turn += 1
            return "arming"
        if gate.state == "closed" != state:
            return "closed"
        if turn and turn != str(gate.turn):
            return "turned"
        gate.state, gate.turn = state, gate.turn + 1
        return "switched"

    # --- what becomes of claims

    def move(self, epoch: int | None, target: str, order_ids: list[str]) -> int:
        """Settling and queueing: forward only; `epoch` None for claims of whichever."""
        moved = 0
        for order_id in order_ids:
            claim = self._claim(order_id)
            if claim is None or RANK[claim.letter] >= RANK[target] or epoch not in (None, claim.epoch):
                continue
            self._take(order_id, claim, target)
            self._units[NAMES[target]] += claim.quantity
            moved += 1
        return moved

    def release(self, order_ids: list[str]) -> int:
        released = 0
        none_left = self.gate is not None and self.gate.units.get("remaining") == 0
        for order_id in order_ids:
            claim = self._claim(order_id)
            if claim is None or claim.letter == "r":
                continue
            self._take(order_id, claim, "r")
            self._units["remaining"] += claim.quantity
            self._units["released"] += claim.quantity
            customers = self.gate.customers  # type: ignore[union-attr]
            units, last = customers.pop(claim.customer)
            if units > claim.quantity:
                customers[claim.customer] = (units - claim.quantity, last)
            released += 1
        if none_left and released:
            self.gate.back_at = self.now  # type: ignore[union-attr]
        return released

    def _claim(self, order_id: str) -> Claim | None:
        return self.gate.claims.get(order_id) if self.gate else None

    @property
    def _units(self) -> dict[str, int]:
        return self.gate.units  # type: ignore[union-attr]

    def _take(self, order_id: str, claim: Claim, letter: str) -> None:
        self._units[NAMES[claim.letter]] -= claim.quantity
        claim.letter = letter
        self.gate.pending.pop(order_id, None)  # type: ignore[union-attr]

    # --- attempts

    def attempt(
        self, seal: tuple[int, int], tries: list[Try], *, foreign: bool = False
    ) -> str | list[object]:
        """The reply of one call: its clock, then three per try; or the word of its failure."""
        epoch, incarnation = seal
        if seal not in self.scripts:
            return NO_SCRIPT
        if foreign:
            return "FENCED gate"
        if incarnation != self.incarnation:
            return "FENCED incarnation"
        gate = self.gate
        if gate is None or gate.epoch != epoch:
            return "FENCED epoch"
        if not gate.built:
            return BROKEN
        elapsed = max(0, self.now - gate.tokens_at)
        tokens = min(float(self.rules.burst), gate.tokens + elapsed * self.rules.rate / 1000)
        spent = self.now < gate.tokens_at  # a clock that has stepped back: counting starts anew from here
        reply: list[object] = [self.now]
        for each in tries:
            verdict, *details = self._decide(gate, each, tokens)
            reply += [verdict, *map(str, details), *[""] * (2 - len(details))]
            if verdict in ("claimed", "limit_reached", "sold_out"):
                tokens, spent = tokens - 1, True
        if spent:
            gate.tokens, gate.tokens_at = float(f"{tokens:.6f}"), self.now
        return reply

    def _decide(self, gate: Gate, each: Try, tokens: float) -> tuple[object, ...]:
        rules, now = self.rules, self.now
        known = gate.claims.get(each.order_id)
        if known is not None:
            if known.quantity != each.quantity:
                return ("key_reused",)
            return "replayed", known.claimed_at, known.letter
        if gate.state == "closed" or now >= rules.closes_at:
            return "closed", rules.closes_at
        if gate.state == "armed" or now < rules.opens_at:
            return "not_open", rules.opens_at
        if gate.state != "open":
            return ("paused",)
        if rules.admission_required and not each.admitted:
            return ("admission_required",)
        if tokens < 1:
            return "busy", math.ceil((1 - tokens) * 1000 / rules.rate), len(gate.claims)
        units, last = gate.customers.get(each.customer, (0, ""))
        if units + each.quantity > rules.limit:
            return "limit_reached", last
        if 0 <= now - gate.back_at < REPEATED_MS:
            return "sold_out", max(gate.units["held"], 1), ""
        if each.quantity > gate.units["remaining"]:
            return "sold_out", gate.units["held"], "" if gate.units["remaining"] else len(gate.claims)
        gate.units["remaining"] -= each.quantity
        gate.units["held"] += each.quantity
        gate.claims[each.order_id] = Claim("h", each.quantity, now, gate.epoch, each.customer)
        gate.customers[each.customer] = (units + each.quantity, each.order_id)
        gate.pending[each.order_id] = now
        return "claimed", now, "h"
