"""Who comes from outside: buyers with their browsers, and the operator of the sale day.

A buyer keeps the key until the answer is final, as docs/api.md asks; some open two tabs, some hang up,
some cancel, some never come back. What each of them was told is remembered, for the checks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

import redis
from django.db import InterfaceError, OperationalError

from management.management.commands import reconcile
from orders.claims import order_id as make_order_id
from sales import arming
from sales.gate import GateUnreachable
from sales.models import Sale
from tests.simulation.faults import HEALED
from tests.simulation.processes import SyncProcess
from tests.simulation.tables import SaleRow, as_sale
from tests.simulation.web import AGAIN, UNKNOWN, Answer

if TYPE_CHECKING:
    from tests.simulation.world import World

CLIENT_SECONDS = (4.0, 4.0, 15.0)  # after which a browser gives an answer up: most are impatient


@dataclass
class Call:
    """One request and what its client saw."""

    what: str
    begun: float
    ended: float = float("inf")
    answer: Answer = UNKNOWN


@dataclass
class Wish:
    """One key of one customer, with everything that was asked and said about it."""

    sale: SaleRow
    customer: str
    key: str
    quantity: int
    calls: list[Call] = field(default_factory=list)
    cancelled: bool = False  # a cancel was sent

    @property
    def order_id(self) -> UUID:
        return UUID(make_order_id(self.sale.id, self.customer, self.key))


class Clients:
    """Everybody outside. `patience` ends with the world's deadline, not with the buyers."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.wishes: list[Wish] = []
        self.running = 0
        self.pauses: list[tuple[UUID, float, float]] = []  # sale, pause returned, resume began
        self._paused_at: dict[UUID, float] = {}
        self.agenda: list[tuple[str, UUID, float]] = []  # what the operator will do, and when

    # Buyers

    def crowd(self, buyers: int, last: float) -> None:
        rng = self._world.rng
        for number in range(buyers):
            sale = self._world.books.committed.sales[rng.choice(self._world.sale_ids)]
            for key in range(rng.choice([1, 1, 1, 2])):
                quantity = 1 if rng.random() < 0.7 else rng.randint(1, sale.limit_per_customer)
                wish = Wish(sale, f"buyer-{number}", f"key-{key}", quantity)
                self.come(wish, rng.uniform(0.3, last), tabs=2 if rng.random() < 0.15 else 1)

    def come(self, wish: Wish, at: float, tabs: int = 1, plan: str = "") -> None:
        rng = self._world.rng
        plan = plan or rng.choice(["stay", "stay", "stay", "cancel", "cancel", "leave", "watch"])
        self.wishes.append(wish)
        for tab in range(tabs):
            self.running += 1
            patience = 1 if plan == "leave" else 10_000

            def main(patience: int = patience) -> None:
                self._world.sleep(max(0.0, at - self._world.scheduler.now))
                self._buy(wish, plan, patience)

            self._world.command(f"{wish.customer}/{wish.key}/tab-{tab}", main, self._left)

    def _left(self) -> None:
        self.running -= 1

    def _buy(self, wish: Wish, plan: str, patience: int) -> None:
        world, rng = self._world, self._world.rng
        answer = UNKNOWN
        for _ in range(patience):
            answer = self.ask(wish, "place")
            if answer.word == "held":
                answer = self._watch(wish, until={"queued", "confirmed", "refused", "cancelled"})
                if answer.status == 404:  # it was held and is gone: the key may be used again
                    continue
            if answer.known and answer.word not in AGAIN:
                break
            world.sleep(rng.uniform(0.2, 1.2))
        if answer.status not in (200, 202):
            return
        if plan == "cancel":
            world.sleep(rng.choice([0.0, rng.uniform(0.0, 4.0)]))
            wish.cancelled = True
            for _ in range(10_000):
                if self.ask(wish, "cancel").status in (200, 202, 404):
                    break
                world.sleep(rng.uniform(0.2, 1.2))
        if plan in ("cancel", "watch"):
            self._watch(wish, until={"confirmed", "refused", "cancelled"})

    def _watch(self, wish: Wish, until: set[str]) -> Answer:
        for _ in range(10_000):
            answer = self.ask(wish, "status")
            if answer.word in until or answer.status == 404:
                return answer
            self._world.sleep(self._world.rng.uniform(0.5, 2.0))
        return UNKNOWN

    def ask(self, wish: Wish, what: str) -> Answer:
        """One request to one of the web processes; UNKNOWN after one of CLIENT_SECONDS."""
        world = self._world
        process = world.scheduler.current
        assert isinstance(process, SyncProcess)
        request: tuple[Any, ...] = (what, wish.sale.slug, wish.key, wish.quantity)
        if what != "place":
            request = (what, str(wish.order_id))
        call = Call(what, world.scheduler.now)
        wish.calls.append(call)
        number = world.rng.randrange(len(world.webs))
        hang_up: list[Callable[[], None]] = []

        def begin(answer: Callable[[Any], None]) -> None:
            web, delay, bad = world.webs[number], world.rng.uniform(0.001, 0.004), world.client_loss

            def reply(value: Answer) -> None:
                if web.process.alive and world.rng.random() >= bad:
                    world.scheduler.after(delay, answer, value)

            def arrive() -> None:
                if not web.process.alive:
                    answer(UNKNOWN)
                elif world.rng.random() >= bad:
                    web.process.on_death.append(lambda: world.scheduler.after(delay, answer, UNKNOWN))
                    hang_up.append(web.receive(wish.customer, request, reply))

            world.scheduler.after(delay, arrive)

        answer = process.wait(begin, world.rng.choice(CLIENT_SECONDS)) or UNKNOWN
        if answer is UNKNOWN:
            for hang in hang_up:
                hang()
        call.ended, call.answer = world.scheduler.now, answer
        name = (
            f"{wish.customer}/{wish.key} {what} {str(wish.order_id)[:8]} x{wish.quantity} at {wish.sale.slug}"
        )
        world.note(
            f"{name} -> {answer.status} {answer.word} {answer.reason} (asked {call.begun:.4f} web-{number})"
        )
        if answer.order_id and answer.order_id != str(wish.order_id):
            world.failed(f"{name}: told of order {answer.order_id}")
        return answer

    # The operator

    def open_the_day(self) -> None:
        for row in list(self._world.books.committed.sales.values()):
            sale = self._fresh(row)
            arming.arm(sale, actor="operator")
            arming.open_sale(sale, actor="operator")
        self._world.note("sales open")

    def pause_now(self, seconds: float) -> None:
        """The operator pauses a sale for so long, unless he has other things to do."""
        if not self.agenda and not self._paused_at:
            sale_id, now = self._world.rng.choice(self._world.sale_ids), self._world.scheduler.now
            self.agenda = [("pause", sale_id, now), ("resume", sale_id, now + seconds)]

    def operate(self) -> None:
        """Works the agenda off, each step until it has succeeded; goes on there after a crash."""
        world = self._world
        while self.agenda:
            what, sale_id, at = self.agenda[0]
            world.sleep(max(0.0, at - world.scheduler.now))
            sale = self._fresh(world.books.committed.sales[sale_id])
            if what == "resume" and sale_id in self._paused_at:
                self.pauses.append((sale_id, self._paused_at.pop(sale_id), world.scheduler.now))
            try:
                getattr(arming, what)(sale, actor="operator")
            except (
                arming.Refused,
                OperationalError,
                InterfaceError,
                GateUnreachable,
                redis.RedisError,
            ) as error:
                world.note(f"operator: {what} {sale.slug} refused: {error}")
                world.database.disconnect()
                world.sleep(world.rng.uniform(0.3, 1.0))
                continue
            world.note(f"operator: {what} {sale.slug} done")
            if what == "pause":
                self._paused_at[sale_id] = world.scheduler.now
            self.agenda.pop(0)
        while True:  # a database that has lost what he did shows it, and he does it again
            world.sleep(0.5)
            for row in list(world.books.committed.sales.values()):
                step = {"paused": "resume", "armed": "open_sale"}.get(row.state)
                if step and world.scheduler.now > HEALED:
                    self.agenda.append((step, row.id, world.scheduler.now))
            if self.agenda:
                self.operate()

    def reconcile(self) -> None:
        """`manage.py reconcile --fix`, until it says that the books balance."""
        world = self._world
        for _ in range(10):
            sales = [self._fresh(row) for row in world.books.committed.sales.values()]
            try:
                balances, repairs = reconcile._run(world.connect(), world.producer(), sales, 5.0, False)  # type: ignore[arg-type]
            except (OperationalError, InterfaceError, GateUnreachable, redis.RedisError) as error:
                world.note(f"reconcile: {error}")
                world.database.disconnect()
                world.sleep(1.0)
                continue
            for repair in repairs:
                world.note(f"reconcile: {repair.sale}: {repair.line}")
            differences = [line for balance in balances for line in balance.differences]
            world.note(f"reconcile: {[balance.verdict for balance in balances]} {differences}")
            if all(balance.verdict == "balanced" for balance in balances):
                break
            world.sleep(2.0)

    def _fresh(self, row: SaleRow) -> Sale:
        sale = as_sale(row)
        self._world.freshen(sale)
        return sale
