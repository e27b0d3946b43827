"""The day of a sale as hypothesis makes it up, on the real gate and on the model at once (gate_model.py).

Attempts alone and in batches, acknowledgements, cancels, switches, a clock that jumps, armings at every
step, a server that forgets scripts, data or who it is. After each step the whole gate must be what the
model says, and the invariants must hold.
"""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4, uuid5

import redis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from redis.exceptions import NoScriptError, ResponseError

from sales import fence
from sales import gate as gate_module
from sales.fence import Arming
from sales.gate import ClaimLetter, parse_claim, pool_keys
from sales.models import Sale
from tests.sales.gate_model import BROKEN, NO_SCRIPT, Known, Model, Rules, Try

NOON = 1_800_000_000_000  # ms; the machine's own clock, far from any real one
IDS = [str(uuid5(UUID(int=0), str(number))) for number in range(12)]
CUSTOMERS = ["ann", "bob:1", "x}:{y"]

ids = st.sampled_from(IDS)
tries = st.builds(
    Try, ids, st.sampled_from(CUSTOMERS), st.integers(1, 3), st.sampled_from([True, True, True, False])
)
rules = st.builds(
    Rules,
    units=st.integers(1, 7),
    limit=st.integers(1, 4),
    rate=st.integers(1, 7),
    burst=st.sampled_from([1, 2, 9]),
    opens_at=st.just(NOON),
    closes_at=st.just(NOON + 60_000),
    admission_required=st.sampled_from([False, False, True]),
)
batches = st.lists(tries, min_size=1, max_size=4)
ages = st.sampled_from([0, 0, 0, 0, 0, 1, 2])  # which arming is meant: the newest, or one before it
moments = st.one_of(
    st.integers(1, 900).map(lambda step: ("by", step)),
    st.integers(-900, -1).map(lambda step: ("by", step)),
    st.sampled_from([-3_600_000, -1, 0, 1, 500, 59_999, 60_000, 60_001]).map(lambda at: ("to", NOON + at)),
)


class GateMachine(RuleBasedStateMachine):
    """One day of one sale. `client` and `reached` are set by `run`."""

    client: redis.Redis
    reached: set[str]

    @initialize(drawn=rules)
    def make(self, drawn: Rules) -> None:
        self.client.flushall()
        self.client.script_flush()
        self.sale = Sale(
            id=uuid4(),
            allotment=drawn.units,
            burst=drawn.burst,
            limit_per_customer=drawn.limit,
            admission_rate=drawn.rate,
            admission_required=drawn.admission_required,
            opens_at=datetime.fromtimestamp(drawn.opens_at // 1000, UTC),
            closes_at=datetime.fromtimestamp(drawn.closes_at // 1000, UTC),
        )
        self.keys = pool_keys(self.sale.id)
        self.model = Model(drawn, NOON)
        self.incarnations = [fence.incarnation(self.client)]
        self.epochs = [7]
        self.book: dict[str, Known] = {}
        self._tell_the_time()
        self._rearm()

    # --- attempts

    @rule(batch=batches)
    def attempt(self, batch: list[Try]) -> None:
        """On a gate that sells: without help, most of a day would pass before closed doors."""
        self._sell()
        self._attempt(batch, 0)

    @rule(batch=batches, moment=moments)
    def attempt_later(self, batch: list[Try], moment: tuple[str, int]) -> None:
        self._sell()
        self.wait(moment)
        self._attempt(batch, 0)

    @rule(batch=batches, age=ages)
    def attempt_whatever_stands(self, batch: list[Try], age: int) -> None:
        self._attempt(batch, age)

    @rule(other=st.booleans(), age=ages, data=st.data())
    def replay(self, other: bool, age: int, data: st.DataObject) -> None:
        for order_id in self._some_claims(data, 1):
            claim = self.model.gate.claims[order_id]  # type: ignore[union-attr]
            self._attempt([Try(order_id, claim.customer, claim.quantity + other, False)], age)

    # --- what becomes of claims

    @rule(age=ages, data=st.data())
    def acknowledge(self, age: int, data: st.DataObject) -> None:
        epoch, order_ids = self._epoch(age), self._some_claims(data)
        moved = gate_module.mark_queued(self.client, self.sale.id, 0, epoch, map(UUID, order_ids))
        assert moved == self.model.move(epoch, "q", order_ids)

    @rule(data=st.data())
    def fulfil(self, data: st.DataObject) -> None:
        order_ids = self._some_claims(data)
        self._write_down(order_ids, "s")
        moved = gate_module.settle(self.client, self.sale.id, 0, map(UUID, order_ids))
        assert moved == self.model.move(None, "s", order_ids)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        order_ids = self._some_claims(data)
        self._write_down(order_ids, "r")
        released = gate_module.release(self.client, self.sale.id, 0, map(UUID, order_ids))
        assert released == self.model.release(order_ids)

    def _some_claims(self, data: st.DataObject, most: int = 3) -> list[str]:
        """Ids the gate knows, mostly: one that it does not know, now and then, and one twice."""
        known = sorted(self.model.gate.claims) if self.model.gate else []
        if most == 1:
            return [data.draw(st.sampled_from(known))] if known else []
        return data.draw(st.lists(st.sampled_from([*known, *known, IDS[0]]), min_size=1, max_size=most))

    # --- operators and the clock

    @rule(
        state=st.sampled_from(["open", "open", "open", "paused", "armed", "closed"]),
        turn=st.sampled_from(["", "", "seen", "old"]),
        building=st.sampled_from([False, False, False, True]),
        age=ages,
    )
    def switch(self, state: str, turn: str, building: bool, age: int) -> None:
        now = self.model.gate.turn if self.model.gate else 0
        seen = {"": "", "seen": str(now), "old": str(now - 1)}[turn]
        epoch = self._epoch(age)
        told = fence.switch(self.client, self._arming(epoch), state, seen, building=building)
        assert told == self.model.switch(epoch, state, seen, building)
        self.reached.add(f"switch {told}")

    @rule(state=st.sampled_from(["paused", "closed"]))
    def stop(self, state: str) -> None:
        told = fence.stop(self.client, self.sale.id, 0, state)
        assert told == self.model.switch(None, state, "", False)

    @rule(moment=moments)
    def wait(self, moment: tuple[str, int]) -> None:
        how, amount = moment
        self.model.now = amount if how == "to" else self.model.now + amount
        self._tell_the_time()

    # --- armings, at every step of which something may come in between

    @rule(step=st.sampled_from(["shut", "build", "load", "seal"]), age=ages, data=st.data())
    def arming(self, step: str, age: int, data: st.DataObject) -> None:
        gate, epoch = self.model.gate, self._epoch(age)
        if step == "shut":
            self._shut(data.draw(st.sampled_from([epoch, self._epoch(-1)])))
        elif step == "build":
            self._build(epoch)
        elif step == "load" and (gate is None or gate.built):
            orders = list(self.book.values())
            self._load(epoch, data.draw(st.permutations(orders)) if orders else [])
        elif step == "seal" and gate is not None and gate.built:
            self._seal(epoch)

    @rule(state=st.sampled_from(["open", "open", "open", "armed"]), again=st.booleans())
    def rearm(self, state: str, again: bool) -> None:
        self._rearm(state, again)

    # --- the server

    @rule(what=st.sampled_from(["scripts", "data", "failover", "restart", "another pool"]), one=tries)
    def lose(self, what: str, one: Try) -> None:
        if what in ("scripts", "restart"):
            self.client.script_flush()
            self.model.flush_scripts()
        if what in ("failover", "restart"):
            # A promotion makes a new replication id; data and scripts stay as they are.
            self.client.execute_command("REPLICAOF", "127.0.0.1", "1")
            self.client.execute_command("REPLICAOF", "NO", "ONE")
            self.model.fail_over()
            self.incarnations.append(fence.incarnation(self.client))
            assert len(set(self.incarnations)) == len(self.incarnations)
        if what == "data":
            self.client.flushall()
            self.model.wipe()
            self._tell_the_time()
        self._attempt([one], 0, foreign=what == "another pool")

    # --- after every step

    @invariant()
    def the_gate_is_what_the_model_says(self) -> None:
        if not hasattr(self, "model"):
            return
        gate = self.model.gate
        pipeline = self.client.pipeline(transaction=False)
        pipeline.hgetall(self.keys.gate)
        pipeline.hgetall(self.keys.claims)
        pipeline.hgetall(self.keys.customers)
        pipeline.zrange(self.keys.pending, 0, -1, withscores=True)
        real, claims, customers, pending = pipeline.execute()
        if gate is None:
            assert (real, claims, customers, pending) == ({}, {}, {}, [])
            return
        assert (int(real["epoch"]), real["state"], int(real["turn"])) == (gate.epoch, gate.state, gate.turn)
        assert {name: int(real[name]) for name in gate.units} == gate.units
        if gate.built:
            assert (float(real["tokens"]), int(real["tokens_at"])) == (gate.tokens, gate.tokens_at)
        assert claims == {order_id: claim.text() for order_id, claim in gate.claims.items()}
        assert customers == {name: f"{units}:{last}" for name, (units, last) in gate.customers.items()}
        assert dict(pending) == gate.pending

        if gate.built:
            nothing_is_lost_or_sold_twice(real, claims, customers, pending)

    def teardown(self) -> None:
        """What production reads of the gate is what stands there."""
        gate = getattr(self, "model", None) and self.model.gate
        if gate and gate.built:
            image = gate_module.image(self.client, self.sale.id)
            assert image is not None
            assert image._asdict() == gate.units | {"epoch": gate.epoch, "state": gate.state}
            held = gate_module.all_held(self.client, self.sale.id, 0)
            assert {str(each.order_id): gate_module.to_ms(each.claimed_at) for each in held} == gate.pending

    # --- the steps' own steps

    def _epoch(self, age: int) -> int:
        """The epoch of the newest arming (0), of one before it (1, 2), or of a new one (-1)."""
        if age < 0:
            self.epochs.append(self.epochs[-1] + 1)
        return self.epochs[max(-len(self.epochs), -1 - max(0, age))]

    def _arming(self, epoch: int) -> Arming:
        return Arming(self.sale.id, 0, epoch)

    def _tell_the_time(self) -> None:
        seconds, milliseconds = divmod(self.model.now, 1000)
        self.client.mset({"clock:seconds": seconds, "clock:micros": milliseconds * 1000})

    def _write_down(self, order_ids: list[str], letter: str) -> None:
        """The order book: an order's first row is for good, but for a confirmed one that is cancelled."""
        for order_id in order_ids:
            claim = self.model.gate.claims.get(order_id) if self.model.gate else None
            before = self.book.get(order_id)
            if claim is None or (before is not None and (before.letter, letter) != ("s", "r")):
                continue
            self.book[order_id] = Known(
                order_id, letter, claim.quantity, claim.claimed_at, claim.epoch, claim.customer
            )

    def _shut(self, epoch: int) -> None:
        told = fence.shut(self.client, self._arming(epoch))
        assert told == (self.model.fence(epoch) == "fenced")
        self.reached.add(f"fence {told}")

    def _load(self, epoch: int, orders: list[Known]) -> None:
        # The book never holds more than the allotment (I1), whatever the gate has granted twice.
        confirmed = 0
        kept = []
        for known in orders:
            confirmed += known.quantity if known.letter == "s" else 0
            if known.letter == "r" or confirmed <= self.sale.allotment:
                kept.append(known)
        told = fence.load(
            self.client,
            self._arming(epoch),
            [fence.Known(UUID(each.order_id), ClaimLetter(each.letter), *each[2:]) for each in kept],
        )
        assert told == (self.model.load(epoch, kept) == "loaded")
        self.reached.add(f"load {told}")

    def _seal(self, epoch: int) -> None:
        fence.raise_seal(self.client, self._arming(epoch), self.incarnations[-1])
        self.model.raise_seal(epoch)

    def _sell(self) -> None:
        gate, rules = self.model.gate, self.model.rules
        if (
            gate is None
            or gate.state != "open"
            or (gate.epoch, self.model.incarnation) not in self.model.scripts
        ):
            self._rearm()
        if not rules.opens_at <= self.model.now < rules.closes_at:
            self.wait(("to", NOON))

    def _build(self, epoch: int) -> None:
        told = fence.build(self.client, self.sale, self._arming(epoch))
        assert told == (self.model.arm(epoch) == "armed")
        self.reached.add(f"arm {told}")

    def _rearm(self, state: str = "open", again: bool = False) -> None:
        epoch = self._epoch(-1)
        self._shut(epoch)
        self._build(epoch)
        for _ in range(1 + again):  # a chunk may come twice
            self._load(epoch, list(self.book.values()))
        self._seal(epoch)
        told = fence.switch(self.client, self._arming(epoch), state, building=True)
        assert told == self.model.switch(epoch, state, "", True)

    def _attempt(self, batch: list[Try], age: int, *, foreign: bool = False) -> None:
        epoch = self._epoch(age)
        # The newest seal of that epoch: web processes learn it from the directory.
        seals = [known for known in self.model.scripts if known[0] == epoch]
        incarnation = max(seals)[1] if seals else self.model.incarnation
        _, sha = fence.seal(self.keys, epoch, self.incarnations[incarnation])
        keys = pool_keys(uuid4()) if foreign else self.keys
        arguments = [item for each in batch for item in (*each[:3], int(each.admitted))]
        reply: Any
        try:
            reply = self.client.evalsha(sha, 4, *keys, *arguments)
        except NoScriptError:
            reply = NO_SCRIPT
        except ResponseError as error:
            reply = str(error) if str(error).startswith("FENCED") else BROKEN
        expected = self.model.attempt((epoch, incarnation), batch, foreign=foreign)
        if isinstance(reply, list):
            self.reached |= set(reply[1::3])
            reply = [reply[0], *map(str, reply[1:])]
        else:
            self.reached.add(reply)
        assert reply == expected


def nothing_is_lost_or_sold_twice(
    real: dict[str, str], claims: dict[str, str], customers: dict[str, str], pending: list[tuple[str, float]]
) -> None:
    """I2 and its like, of what the gate itself holds, whatever the model thinks."""
    names = dict(zip(ClaimLetter, ("held", "queued", "settled", "released"), strict=True))
    counted, bought = dict.fromkeys(names.values(), 0), dict.fromkeys(customers, 0)
    for claim in map(parse_claim, claims.values()):
        counted[names[claim.letter]] += claim.quantity
        if claim.letter is not ClaimLetter.RELEASED:
            bought[claim.customer] = bought.get(claim.customer, 0) + claim.quantity
    assert {name: int(real[name]) for name in counted} == counted
    assert {name: int(count.partition(":")[0]) for name, count in customers.items()} == bought
    assert {order_id for order_id, _ in pending} == {i for i, text in claims.items() if text[0] == "h"}
    taken = counted["held"] + counted["queued"] + counted["settled"]
    assert int(real["loaded"]) == int(real["remaining"]) + taken
    assert int(real["remaining"]) >= 0
