"""Is this one sale ready for its opening: its units, its window, its line, its gate."""

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from uuid import UUID

from django.utils import timezone
from django.utils.timesince import timeuntil

from orders.doctor.finding import Finding, Level
from sales import fence, gate
from sales.directory import GATED
from sales.models import Product, Sale, SaleState
from waitingroom.models import Room

_found = partial(Finding, "sale")
SOON_SECONDS = 600


def examine(sale_id: UUID) -> Iterator[Finding]:
    """Of a sale that has not ended. Raises Sale.DoesNotExist, and what gate and order book raise."""
    sale = Sale.objects.get(pk=sale_id)
    yield _units(sale)
    yield from _window(sale)
    if sale.admission_required:
        yield _line(sale)
    yield _gate(sale)


def _units(sale: Sale) -> Finding:
    if not sale.is_draft:
        return _found(Level.OK, f"{sale.allotment} units have left the product, {sale.sold} of them are sold")
    stock = Product.objects.values_list("stock", flat=True).get(pk=sale.product_id)
    if stock < sale.allotment:
        hint = "add units with Change stock, or make the allotment smaller: arming will be refused"
        return _found(Level.FAIL, f"the product has {stock} units, this sale needs {sale.allotment}", hint)
    return _found(Level.OK, f"the product has {stock} units, this sale takes {sale.allotment}")


def _window(sale: Sale) -> Iterator[Finding]:
    now = timezone.now()
    if sale.closes_at <= now:
        yield _found(Level.FAIL, "the window is over", "nobody can buy: make a sale with a new window")
        return
    if sale.opens_at > now:
        yield _found(Level.OK, f"the window opens in {timeuntil(sale.opens_at, now, depth=2)}")
    elif sale.state != SaleState.OPEN:
        hint = "buyers wait already: arm and open it"
        yield _found(Level.WARN, "the window is open and the sale is not", hint)
    else:
        yield _found(Level.OK, f"the window is open, for another {timeuntil(sale.closes_at, now, depth=2)}")
    soon = (sale.opens_at - now).total_seconds() < SOON_SECONDS
    if sale.state == SaleState.DRAFT and soon:
        yield _found(Level.WARN, "nobody sees this sale yet", "schedule it: the countdown brings the crowd")
    if sale.state == SaleState.ARMED and soon:
        yield _found(Level.WARN, "armed, and not open", "open it: selling starts by itself with the window")


def _line(sale: Sale) -> Finding:
    room = Room.objects.filter(pk=sale.pk).first()
    if room is None:
        return _found(Level.OK, "the line begins with the defaults when the sale is armed")
    if room.passes:
        return _found(Level.WARN, "everybody passes the line", "the waiting room has the switch")
    if room.turn_rate == 0:
        hint = "set turns per second in the waiting room: nobody will get a turn"
        return _found(Level.FAIL, "the line stands still by its setting", hint)
    minutes = sale.allotment / room.turn_rate / 60
    text = f"{room.turn_rate} turns a second: one for each unit within {minutes:.1f} minutes"
    return _found(Level.OK, text)


def _gate(sale: Sale) -> Finding:
    if sale.state not in GATED:
        return _found(Level.OK, "not armed yet: that loads the gate, and takes a second")
    with closing(gate.connect()) as client:
        fallen = fence.fallen(client, [sale])
    if fallen:
        hint = "run_gatekeeper arms it again within seconds; if it does not, look at its log"
        return _found(Level.FAIL, f"its gate does not stand: {fallen[0][1]}", hint)
    return _found(Level.OK, "its gate stands")
