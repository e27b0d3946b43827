"""The frame around every row: a sale with more demand than units, a fault, recovery, drain, the checks."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.chaos import books
from tests.chaos.buyers import Buyers
from tests.chaos.ground import Ground
from tests.chaos.registry import Result
from tests.chaos.site import Site, Unfit, eventually

if TYPE_CHECKING:  # it needs Django's settings
    from tests.sentinel import SentinelCluster

DRAIN_SECONDS = 45.0
SELL_OUT_SECONDS = 45.0
ENOUGH_REFUSALS = 15  # "sold out" so often in a row, and nobody held: there is demand for every unit
_STEP = (
    "from sales import arming; from sales.models import Sale; "
    "arming.{step}(Sale.objects.get(), actor='chaos')"
)
KEPT_BACK = 0.45  # of the units, for after the fault, however long it lasts on a slow machine
MORE = 40  # orders that may be promised while the recovery is waited for
RUSH = 300.0  # buyers a second that come for what is left


class Scenario:
    """What a row's function has in its hands. `finish` ends it with every check."""

    def __init__(self, ground: Ground, logs: Path, *, twin: str = "") -> None:
        self.ground, self.twin = ground, twin
        self._logs = logs
        self.environment = ground.new_row()
        if twin:
            self.environment = self.environment | self.broken(twin)
        self.site = Site(self.environment, ground.front, logs)
        self.buyers: Buyers
        self.sale: Any = None
        self.violations: list[str] = []
        self.recovered: float | None = None
        self.recovered_to = ""
        self.notes: list[str] = []
        self._cluster: SentinelCluster | None = None

    def sell(
        self, units: int, *, limit: int = 2, rate: float = 80, patience: float = 60.0, start: bool = True,
        workers: int = 2, consumers: int = 2, gatekeepers: int = 1, open_now: bool = True,
        opens_in: float = -1,
    ) -> None:  # fmt: skip
        """Opens a sale of so many units and sends buyers; each asks for 1 to `limit` units."""
        from django.utils import timezone

        from sales.models import Product, Sale

        if start:
            self.site.start(workers=workers, consumers=consumers, gatekeepers=gatekeepers)
        now = timezone.now()
        product = Product.objects.create(sku="lamp", name="A lamp", stock=units)
        self.sale = Sale.objects.create(
            slug="lamp", name="Lamp sale", product=product, opens_at=now + timedelta(seconds=opens_in),
            closes_at=now + timedelta(hours=1), allotment=units, unit_price="19.90",
            limit_per_customer=limit, admission_rate=100_000, burst=100_000,
        )  # fmt: skip
        self.operator("arm")
        if open_now:
            self.operator("open_sale")
        self.buyers = Buyers(self.ground.loop, self.ground.front.port, "lamp", min(2, limit), patience)
        self.buyers.rate = rate
        self.buyers.ceiling = (1 - KEPT_BACK) * units / (1 + min(2, limit)) * 2

    def gate_with_replica(self) -> "SentinelCluster":
        """A gate of its own for this row: master, replica and three Sentinels, in front of the site."""
        from tests.sentinel import SentinelCluster

        self._cluster = SentinelCluster()
        self._cluster.start()
        self.ground.use_gate(self._cluster.url)
        self.site.environment["FLUXGATE_GATE_URL"] = self._cluster.url
        return self._cluster

    def broken(self, name: str) -> dict[str, str]:
        """The environment of a process in which this guard is taken out."""
        names = name if self.twin in ("", name) else f"{name},{self.twin}"
        return {"PYTHONPATH": str(Path(__file__).parent / "broken"), "FLUXGATE_TWIN": names}

    @property
    def promised(self) -> int:
        """Orders that buyers have been told `queued` for, so far."""
        return self.buyers.history.promised

    def written(self) -> int:
        """Orders in PostgreSQL, so far."""
        return books.written(self.sale.id)

    def until_promised(self, orders: int, seconds: float = 40.0) -> None:
        """Until so many orders more than now have been promised."""
        wanted = self.promised + orders
        self.let_come(orders)
        eventually(lambda: self.promised >= wanted, seconds, f"{orders} more orders are promised")

    def until(self, question: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
        """The first truthy answer; buyers keep coming meanwhile."""

        def ask() -> Any:
            self.let_come(MORE)
            return question()

        return eventually(ask, seconds, what)

    def let_come(self, orders: float) -> None:
        """New buyers come until so many orders more than now have been promised."""
        self.buyers.ceiling = max(self.buyers.ceiling, self.promised + orders)

    def during(self, seconds: float) -> None:
        """A fault lasts: the time itself is what is tested."""
        time.sleep(seconds)

    def expect(self, holds: bool, otherwise: str) -> None:
        """A check of this row's own; `otherwise` is what a reader is told when it does not hold."""
        if not holds:
            self.violations.append(otherwise)

    def selling_again(self, seconds: float = 40.0) -> None:
        """Waits for the first new promise from now on: the time to recover."""
        healed = time.monotonic()
        self.let_come(MORE)
        if self._comes_true(lambda: self.buyers.history.fresh_asked > healed, seconds):
            self._recovered(self.buyers.history.last_fresh - healed, "to sell")
        else:
            self.violations.append(
                f"I8: nobody is promised a unit {self._patience(seconds):.0f} s after the fault is over"
            )

    def written_again(self, seconds: float = 60.0) -> None:
        """Waits until everything promised by now has its row: the time to recover."""
        healed = time.monotonic()
        wanted = {
            each for attempt in list(self.buyers.history.attempts) if attempt.promised_at is not None
            for each in attempt.order_ids
        }  # fmt: skip
        if self._comes_true(lambda: books.have_rows(wanted), seconds):
            self._recovered(time.monotonic() - healed, "to write")
        else:
            self.violations.append(
                f"I3: promises have no row {self._patience(seconds):.0f} s after the fault is over"
            )

    def _comes_true(self, question: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + self._patience(seconds)
        while not question():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    @contextmanager
    def measured(self) -> Iterator[Callable[[], tuple[float, float]]]:
        """The span of a fault, for questions to the history."""
        start = time.monotonic()
        end = [0.0]
        yield lambda: (start, end[0])
        end[0] = time.monotonic()

    def finish(self, *, sold_out: bool = True) -> Result:
        """Sells what is left, drains, and holds every book against every other."""
        self._make_whole()
        seen = self.buyers.history
        if sold_out:
            self.buyers.ceiling = float("inf")
            self.buyers.rate = max(self.buyers.rate, RUSH)
            deadline = time.monotonic() + self._patience(SELL_OUT_SECONDS)
            while seen.sold_out_in_a_row < ENOUGH_REFUSALS and time.monotonic() < deadline:
                time.sleep(0.05)
        self.buyers.stop(self._patience(20))
        self.violations += self.site.ended_by_themselves()
        self.violations += books.reconciled(self.sale.slug, self._patience(DRAIN_SECONDS))
        found = books.read(self.sale.id)
        self.violations += books.judge(found, seen, sold_out=sold_out)
        self.violations += books.unlike_status(self.site.url, found, list(seen.attempts))
        return self._result(found)

    def close(self) -> None:
        if hasattr(self, "buyers"):
            self.buyers.close()
        self.site.end()
        if self._cluster is not None:
            self._cluster.close()

    def _result(self, found: books.Books) -> Result:
        seen = self.buyers.history
        promised_units = sum(
            each.quantity for each in seen.attempts if each.promised_at is not None and not each.cancelled
        )
        confirmed = sum(row.state == "confirmed" for row in found.rows.values())
        return Result(
            promised=seen.promised,
            confirmed=confirmed,
            lost=len(books.lost(found, seen)),
            oversold=max(0, found.confirmed - found.allotment, promised_units - found.allotment),
            recovered=self.recovered,
            recovered_to=self.recovered_to,
            violations=self.violations,
            notes=self.notes,
        )

    def operator(self, step: str) -> None:
        """A step of the sale's life: arm, open_sale, pause, resume, close."""
        from sales import arming

        if not self.twin:
            getattr(arming, step)(self.sale, actor="chaos")
            return
        # The guard that is taken out may stand here, so it is done in a process without it.
        done = self.site.manage("shell", "-c", _STEP.format(step=step))
        if done.returncode != 0:
            raise Unfit(f"{step} failed: {done.stderr[-500:]}")
        self.sale.refresh_from_db()

    def _patience(self, seconds: float) -> float:
        """A broken twin fails by waiting: shorter, but still longer than the row needs."""
        return seconds / 3 if self.twin else seconds

    def _recovered(self, seconds: float, what: str) -> None:
        if self.recovered is None or seconds > self.recovered:
            self.recovered, self.recovered_to = max(0.0, seconds), what

    def _make_whole(self) -> None:
        """Whatever died is there again, as a supervisor would start it."""
        self.ground.up()
        for wire in (self.ground.gate, self.ground.log, self.ground.postgres):
            wire.heal()
        for name, start in (
            ("run_fulfillment", self.site.start_consumer),
            ("run_gatekeeper", self.site.start_gatekeeper),
        ):
            if any(each.name == name for each in self.site.processes) and not self.site.named(name):
                start()
        if self.site.web.crashed:
            self.site.web = self.site.start_web()
