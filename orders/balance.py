"""The balance of one sale: its three books side by side, and one verdict. A pure comparison.

`orders.reconciliation` reads what is compared here, `orders.repair` puts right what differs.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from sales import gate
from sales.directory import GATED
from sales.fence import GATE_STATE
from sales.models import SaleState

Verdict = Literal["balanced", "under way", "differs"]

_SELLING = frozenset({SaleState.ARMED, SaleState.OPEN, SaleState.PAUSED})
REARMING = "arming"  # the state of a gate that is being built, for the first time or again


class OrderBook(NamedTuple):
    """One snapshot of the order book of one sale. Units, except where it says orders or customers."""

    allotment: int
    sold: int
    confirmed: int
    confirmed_orders: int
    refused_orders: int
    cancelled_orders: int
    customers_above_limit: int
    orders_at_another_price: int
    returned: int = 0  # back in the product, since the sale was settled


class LogBook(NamedTuple):
    """The partition of the sale: records. None: the broker did not tell."""

    unread: int | None
    parked: int
    lost: int = 0  # the position lies so far beyond the end of the log


class ClaimsBook(NamedTuple):
    """The gate's claims, each beside its row. Claims and orders, except where it says units or customers.

    What is counted as without a row, to release, to settle or unknown has stayed so for a moment,
    with nothing left to read in the log. `complete` is False where the time was up before the end.
    """

    compared: int
    complete: bool = True
    held_units: int = 0
    queued_units: int = 0
    settled_units: int = 0
    late: int = 0  # held for too long
    late_units: int = 0
    without_row: int = 0  # queued or settled
    without_row_units: int = 0
    to_release: int = 0  # their order is refused or cancelled, and they still take units
    to_release_units: int = 0
    to_settle: int = 0  # their order is confirmed, and the gate has not been told
    to_settle_units: int = 0
    unknown: int = 0  # confirmed orders that the gate does not know, or counts as released
    unknown_units: int = 0
    customers_above: int = 0  # with more units in the gate than in the order book
    customers_below: int = 0


@dataclass(frozen=True)
class Balance:
    """What the books say, what is still between them, and what they contradict each other in."""

    sale: str
    state: str
    epoch: int
    gate: gate.Image | None
    log: LogBook
    book: OrderBook
    claims: ClaimsBook | None = None  # not compared
    fallen: str = ""  # why the gate does not stand: then nothing sells until it is armed again
    quiet: bool = True  # the gate has not moved while the books were read
    under_way: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        if self.differences:
            return "differs"
        return "under way" if self.under_way else "balanced"

    @property
    def gate_differs(self) -> bool:
        """Only a new arming puts it right: the gate is gone, another one, or does not know what was sold."""
        if self.state not in GATED or (self.gate is not None and self.gate.state == REARMING):
            return False
        if self.gate is None or self.gate.epoch != self.epoch or not _adds_up(self.gate):
            return True
        if self.fallen:
            return True
        found = self.claims
        if found is None:
            return False
        return bool(
            found.unknown
            or found.customers_above
            or found.customers_below
            or (self.quiet and found.complete and _miscounted(self.gate, found))
        )

    @property
    def repairable(self) -> bool:
        """Whether `orders.repair` has a remedy for any of it."""
        found = self.claims
        strays = found and (found.late or found.without_row or found.to_release or found.to_settle)
        return bool(self.log.lost or strays or self.gate_differs)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "verdict": self.verdict,
            "gate": self.gate._asdict() if self.gate else None,
            "log": self.log._asdict(),
            "book": self.book._asdict(),
            "claims": self.claims._asdict() if self.claims else None,
        }


def balance(
    sale: str,
    state: str,
    epoch: int,
    image: gate.Image | None,
    log: LogBook,
    book: OrderBook,
    claims: ClaimsBook | None = None,
    *,
    fallen: str = "",
    quiet: bool = True,
) -> Balance:
    """Compares the books. Pure: the same books, the same balance."""
    result = Balance(sale, state, epoch, image, log, book, claims, fallen, quiet)
    differ = result.differences.append
    if book.sold > book.allotment - book.returned:
        returned = f", {book.returned} of which went back into the product" if book.returned else ""
        differ(f"I1: {book.sold} units sold of {book.allotment}{returned}")
    unsold = book.allotment - book.sold - book.returned
    if state == SaleState.SETTLED and unsold:
        differ(f"I2: settled, and {many(unsold, 'unit')} neither sold nor back in the product")
    if book.sold != book.confirmed:
        differ(f"I1: the sale says {book.sold} units sold, its confirmed orders {book.confirmed}")
    if book.customers_above_limit:
        differ(f"I4: {book.customers_above_limit} customers have more confirmed units than the limit")
    if book.orders_at_another_price:
        differ(f"I6: {book.orders_at_another_price} orders at a price that is not the sale's")
    if log.lost:
        differ(f"I3: the log ends {log.lost} records before the position: an acknowledged tail is lost")
    if state == SaleState.ARMING:
        result.under_way.append("the sale is being armed")
    if log.unread is None:
        result.under_way.append("the broker did not tell how far the log has been read")
    elif log.unread:
        result.under_way.append(f"{log.unread} records of the log are not in the order book yet")
    if state in GATED:
        _compare_gate(result)
    return result


def glance(epoch: int, left: int, image: gate.Image | None, fallen: str = "") -> Verdict:
    """The counters of one moment, without the log: what a running sale should not be asked more for.

    `left` is what the order book has not sold, in units, read before the image. "differs" may go away by
    itself: units move between the two readings.
    """
    if image is None or fallen or image.epoch != epoch:
        return "under way" if image is not None and image.state == REARMING else "differs"
    if not _adds_up(image) or image.remaining > left:
        return "differs"
    if image.held or image.queued:
        return "under way"
    return "balanced" if image.remaining == left else "differs"


def _compare_gate(result: Balance) -> None:
    image, book = result.gate, result.book
    differ = result.differences.append
    if image is None:
        differ("I2: the gate holds nothing of this sale")
        return
    if image.state == REARMING:
        result.under_way.append("the gate is being armed again")
        return
    if image.epoch != result.epoch:
        differ(f"the gate is of epoch {image.epoch}, the sale of epoch {result.epoch}")
        return
    if image.state != GATE_STATE.get(result.state, image.state):
        differ(f"I7: the gate is {image.state}, the sale is {result.state}")
    if not _adds_up(image):
        text = ", ".join(f"{units} {name}" for name, units in _counters(image).items())
        differ(f"I2: {image.loaded} units loaded, but {text}")
    if image.held or image.queued:
        result.under_way.append(f"{image.held} units are held, {image.queued} queued")
    if result.claims is not None:
        _compare_claims(result, image, result.claims)
    left = book.allotment - book.sold
    # Units that left the gate may be on their way to the order book, never the other way round.
    if image.remaining > left:
        differ(f"I2: {image.remaining} units remain in the gate, the order book has only {left} left")
    nothing_comes = result.log.unread == 0 and not image.held and result.quiet
    lost = left - image.remaining
    if result.claims is not None and result.claims.complete:
        # What the comparison of each claim has found already needs no second line.
        found = result.claims
        lost -= found.late_units + found.without_row_units + found.to_release_units - found.unknown_units
    if lost > 0 and not result.log.lost and (nothing_comes or not result.under_way):
        what = many(lost, "unit")
        differ(f"I3: granted and not in the order book, and nothing is left to read: {what}")
    if result.fallen and result.state in _SELLING:
        differ(f"the gate is fenced, nothing sells: {result.fallen}")


def _compare_claims(result: Balance, image: gate.Image, found: ClaimsBook) -> None:
    differ = result.differences.append
    if not found.complete:
        result.under_way.append(f"only {many(found.compared, 'claim')} compared with their rows in time")
    elif result.quiet:
        for name, counted, units in _miscounted(image, found):
            differ(f"I2: the gate counts {counted} units {name}, its claims make {units}")
    if found.late:
        differ(f"I8: held for too long, and the log is up: {_units(found.late, found.late_units)}")
    if found.without_row:
        what = _units(found.without_row, found.without_row_units)
        differ(f"I3: without a row in the order book, and nothing is left to read: {what}")
    if found.to_release:
        what = _units(found.to_release, found.to_release_units)
        differ(f"I2: not released, and their orders are refused or cancelled: {what}")
    if found.to_settle:
        what = _units(found.to_settle, found.to_settle_units)
        differ(f"I2: not settled, and their orders are confirmed: {what}")
    if found.unknown:
        what = _units(found.unknown, found.unknown_units, "order")
        differ(f"I2: confirmed, and not known to the gate: {what}")
    if found.customers_above:
        what = many(found.customers_above, "customer")
        differ(f"I4: more units in the gate than in the order book, refused below the limit: {what}")
    if found.customers_below:
        what = many(found.customers_below, "customer")
        differ(f"I4: fewer units in the gate than in the order book, granted above the limit: {what}")


def _counters(image: gate.Image) -> dict[str, int]:
    return {name: getattr(image, name) for name in ("remaining", "held", "queued", "settled")}


def _adds_up(image: gate.Image) -> bool:
    """I2 of one moment."""
    counters = _counters(image).values()
    return image.loaded == sum(counters) and min(counters) >= 0


def _miscounted(image: gate.Image, found: ClaimsBook) -> list[tuple[str, int, int]]:
    """Where a counter of the gate is not the sum of its claims: its name, what it says, the sum."""
    return [
        (name, counted, units)
        for name, counted, units in (
            ("held", image.held, found.held_units),
            ("queued", image.queued, found.queued_units),
            ("settled", image.settled, found.settled_units),
        )
        if counted != units
    ]


def _units(claims: int, units: int, name: str = "claim") -> str:
    return f"{many(claims, name)} ({many(units, 'unit')})"


def many(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"
