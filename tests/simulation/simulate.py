"""Runs one seed: a sale day with faults, the healing, the last buyers, and the checks."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from management.management.commands import run_fulfillment, run_gatekeeper
from sales.fence import GATE_STATE
from sales.gate import pool_keys
from tests.simulation import checks, faults
from tests.simulation.clients import Clients, Wish
from tests.simulation.shipped import inside
from tests.simulation.world import World

WEBS, CONSUMERS, GATEKEEPERS = 2, 2, 2
DEADLINE = 120.0  # virtual seconds after the healing, within which everything must be at rest
Bug = Callable[[World], AbstractContextManager[Any]]


class Run:
    """One seed of one mode, with what the checks need to know about it."""

    def __init__(self, mode: str, seed: int, bug: Bug | None = None, *, verbose: bool = False) -> None:
        self.mode, self.seed, self._bug = mode, seed, bug
        self.world = World(mode, seed, verbose=verbose)
        self.clients = Clients(self.world)
        self.world.pause_now = self.clients.pause_now
        self.at_rest, self.unrest, self.held_for = False, "", 0.0
        self._held: dict[str, float] = {}
        self.violations: list[str] = []

    def go(self) -> "Run":
        world = self.world
        with inside(world), self._bug(world) if self._bug else nullcontext():
            try:
                self._day()
                if self.at_rest:
                    self._last_buyers()
                self.violations = checks.violations(self)
            finally:
                world.abandon()
        return self

    def _day(self) -> None:
        world, rng = self.world, self.world.rng
        opened: list[bool] = []
        world.command("operator-opens", self.clients.open_the_day, lambda: opened.append(True))
        world.scheduler.run(5.0, lambda: bool(opened), 0.02)
        world.books.commits.clear()  # what was done a day before is on every disk
        for number in range(WEBS):
            world.start_web(number)
        for number in range(CONSUMERS):
            world.start_daemon(f"consumer-{number}", consume)
        for number in range(GATEKEEPERS):
            world.start_daemon(f"gatekeeper-{number}", keep_the_gates)
        self.clients.crowd(rng.randint(5, 11), rng.choice([2.0, 9.0]))
        if rng.random() < 0.4:
            at = rng.uniform(0.5, 6)
            sale_id = rng.choice(world.sale_ids)
            self.clients.agenda = [("pause", sale_id, at), ("resume", sale_id, at + rng.uniform(0.5, 6))]
        world.start_daemon("operator", self.clients.operate)
        faults.plan(world)
        world.scheduler.run(faults.HEALED)
        if world.tails_lost:
            self._reconcile()
        self._rest()

    def _reconcile(self) -> None:
        """What the operator does when consumers say that the log has lost records."""
        world = self.world
        done: list[bool] = []
        world.scheduler.run(world.scheduler.now + 8.0)  # until the consumers have noticed
        world.command("operator-reconciles", self.clients.reconcile, lambda: done.append(True))
        world.scheduler.run(world.scheduler.now + DEADLINE, lambda: bool(done))

    def _rest(self) -> None:
        world = self.world
        self.at_rest = world.scheduler.run(world.scheduler.now + DEADLINE, self._quiet)
        if not self.at_rest:
            self._quiet()
            world.note(f"WRONG not at rest: {self.unrest}")

    def _last_buyers(self) -> None:
        """Whatever units are left find a buyer, and whoever was promised one asks again."""
        world = self.world
        tables = world.books.committed
        now = world.scheduler.now
        world.note("the last buyers come")
        for wish in list(self.clients.wishes)[:3]:
            if any(call.answer.word == "queued" for call in wish.calls):
                again = Wish(wish.sale, wish.customer, wish.key, wish.quantity, wish.calls, wish.cancelled)
                self.clients.come(again, now, plan="stay")
        for sale in tables.sales.values():
            for number in range(sale.allotment - sale.sold + 1):
                self.clients.come(
                    Wish(sale, f"late-{number}", "key", 1), now + 0.5 + 0.05 * number, plan="stay"
                )
        self._rest()

    def _quiet(self) -> bool:
        """Nothing is under way any more. Says in `unrest` what is."""
        self.unrest = self._under_way()
        return not self.unrest

    def _under_way(self) -> str:
        world = self.world
        self._watch_held()
        if self.clients.running:
            return f"{self.clients.running} clients wait"
        if self.clients.agenda:
            return f"the operator has still to {self.clients.agenda[0][0]}"
        for number, entries in enumerate(world.broker.partitions):
            position = max(
                (at for source, at in world.books.committed.positions.items() if source.partition == number),
                default=0,
            )
            if position != len(entries):
                return f"partition {number} is fulfilled up to {position} of {len(entries)}"
        return next(filter(None, map(self._gate_under_way, world.sale_ids)), "")

    def _gate_under_way(self, sale_id: UUID) -> str:
        node = self.world.redis.master
        sale = self.world.books.committed.sales[sale_id]
        keys = pool_keys(sale_id)
        gate = node.data.get(keys.gate, {})
        if gate.get("epoch") != str(sale.epoch) or gate.get("state") != GATE_STATE.get(sale.state):
            return f"the gate of {sale.slug} is {gate.get('state')}, the sale {sale.state}"
        if node.data.get(keys.pending) or int(gate["held"]) or int(gate["queued"]):
            return f"{sale.slug}: {gate['held']} held, {gate['queued']} queued"
        if int(gate["remaining"]) != sale.allotment - sale.sold:
            return f"{sale.slug}: {gate['remaining']} units remain in the gate, {sale.sold} are sold"
        return ""

    def _watch_held(self) -> None:
        now = self.world.scheduler.now
        held = {
            order_id for sale_id in self.world.sale_ids
            for order_id in self.world.redis.master.data.get(pool_keys(sale_id).pending, ())
        }  # fmt: skip
        self._held = {order_id: self._held.get(order_id, now) for order_id in held}
        self.held_for = max(self.held_for, *(now - since for since in self._held.values()), 0.0)

    def forgiven(self, wish: Wish) -> bool:
        """The stated limits: split brain; the gate and an acknowledged tail lost at once."""
        return self.mode == "splitbrain"


def consume() -> None:
    """`manage.py run_fulfillment`."""
    run_fulfillment.Command()._run(_stop(), False, 20)  # type: ignore[arg-type]


def keep_the_gates() -> None:
    """`manage.py run_gatekeeper`."""
    run_gatekeeper.Command()._run(_stop())  # type: ignore[arg-type]


def _stop() -> Any:
    clock = run_gatekeeper.gate.connect.__self__  # type: ignore[attr-defined]  # the world
    return SimpleNamespace(is_set=lambda: False, wait=clock.sleep)
