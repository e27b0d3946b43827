"""Running a sale day: each step of a sale's life is one function, for the admin and for commands.

Where both books change, the order of the two is the safety argument. Towards selling, the
database moves first: a crash in between leaves the gate shut, and the step may be repeated.
Towards stopping, the gate moves first: when `pause` has returned there is no new claim (I7).
Every step is a conditional UPDATE whose row count is believed, and writes a SaleEvent.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from sales import directory, fence, gate, topic
from sales.fence import Arming
from sales.gate import POOL, GateUnreachable, Image, connect, image, reaching
from sales.models import Product, Sale, SaleEvent, SaleState

_NOT_ARMED = [SaleState.DRAFT, SaleState.SCHEDULED]
_GATE_GONE = "The gate of this sale does not stand: nothing sells until the gatekeeper has armed it again."


class Refused(Exception):
    """The step cannot be taken. The text is one clear line for the operator; nothing was changed."""


def schedule(sale: Sale, *, actor: str, reason: str = "") -> None:
    """draft -> scheduled: the sale becomes public. Raises Refused."""
    with _gate() as client, transaction.atomic():
        _move(sale, [SaleState.DRAFT], SaleState.SCHEDULED, "schedule", actor, reason)
        _publish(client, sale)


def arm(sale: Sale, *, actor: str, reason: str = "") -> None:
    """draft | scheduled -> armed: takes the allotment out of the product and builds the gate.

    Repeating it after a crash in between finishes the work. Where a gate of this sale stands already,
    what it granted may still be on its way into the order book: the gatekeeper builds the new one,
    behind a barrier. Raises Refused: not enough stock, armed already, Redis or Kafka not there.
    """
    _require(sale, [*_NOT_ARMED, SaleState.ARMING], "arm")
    try:
        topic.check_topic()  # a gate without a log would promise what nobody writes down
    except topic.TopicUnavailable as error:
        raise Refused(f"The log is not ready: {error}") from None
    if sale.closes_at <= timezone.now():
        raise Refused("The window of this sale is over already.")
    with _gate() as client:
        # Above everything either book has seen, and above a database restored from a backup.
        standing = gate.epoch(client, sale.id, POOL)
        epoch = max(sale.epoch, standing, int(time.time() * 1000)) + 1
        with transaction.atomic():
            # The units leave with the very UPDATE that leaves the unarmed states, or not at all.
            sources = _NOT_ARMED if sale.state in _NOT_ARMED else [SaleState.ARMING]
            _move(sale, sources, SaleState.ARMING, "arm", actor, reason, epoch=epoch)
            if sources is _NOT_ARMED:
                _take_allotment(sale)
        if standing:
            _publish(client, sale, fenced=True)
        else:
            _build_gate(client, sale)
    # Only of this very arming: somebody else may have begun another one meanwhile.
    now = timezone.now()
    _move(sale, [SaleState.ARMING], SaleState.ARMED, "armed", actor, "", expected_epoch=epoch, armed_at=now)


def open_sale(sale: Sale, *, actor: str, reason: str = "") -> None:
    """armed -> open. The sale sells as soon as its window is open as well. Raises Refused."""
    _switch_on(sale, [SaleState.ARMED], "open", actor, reason)


def resume(sale: Sale, *, actor: str, reason: str = "") -> None:
    """paused -> open. Raises Refused."""
    _switch_on(sale, [SaleState.PAUSED], "resume", actor, reason)


def pause(sale: Sale, *, actor: str, reason: str = "") -> None:
    """open -> paused. When it has returned no new claim is granted. Raises Refused.

    A sale that is paused already may be a step that was cut off half-way: the gate is told again.
    """
    _require(sale, [SaleState.OPEN, SaleState.PAUSED], "pause")
    with _gate() as client:
        _stop(client, sale, "paused")
        if sale.state != SaleState.PAUSED:
            _move(sale, [SaleState.OPEN], SaleState.PAUSED, "pause", actor, reason)
        _stop(client, sale, "paused")


def close(sale: Sale, *, actor: str, reason: str = "") -> None:
    """armed | open | paused -> closed, by way of closing while claims are still being written down.

    Repeating it on a sale that is closing finishes the work; so does the gatekeeper. Raises Refused.
    """
    stoppable = [SaleState.ARMED, SaleState.OPEN, SaleState.PAUSED]
    _require(sale, [*stoppable, SaleState.CLOSING], "close")
    with _gate() as client:
        _stop(client, sale, "closed")
        if sale.state != SaleState.CLOSING:
            _move(sale, stoppable, SaleState.CLOSING, "close", actor, reason)
        stopped = _stop(client, sale, "closed")
        # Without a gate nobody knows what it granted: the gatekeeper builds it anew and closes the sale.
        if stopped and not _unwritten(image(client, sale.id)):
            _move(sale, [SaleState.CLOSING], SaleState.CLOSED, "closed", actor, "")


def settle(sale: Sale, *, actor: str, reason: str = "") -> None:
    """closed -> settled: the unsold units go back into the product, and the gate goes.

    Only what both books agree on is given back. From then on the order book alone answers for the sale: a
    claim that appears later finds no unit, and one that is cancelled goes back into the product too.
    Raises Refused.
    """
    _require(sale, [SaleState.CLOSED], "settle")
    with _gate() as client:
        standing = image(client, sale.id)
        if standing is None or fence.fallen(client, [sale]):
            raise Refused(_GATE_GONE)
        if _unwritten(standing) or standing.remaining != sale.unsold:
            raise Refused(
                f"The gate has {standing.remaining} units left and the order book {sale.unsold}: see the "
                f"balance, or run “manage.py reconcile --sale {sale.slug}”, and settle then."
            )
        _require_room(sale)
        directory.forget(client)
        # The gate first, so that a crash in between heals: to the gatekeeper it is a closed sale whose gate
        # has fallen.
        withdraw(client, sale)
        with transaction.atomic():
            # The units leave the sale with the very UPDATE that ends it: whoever cancels an order at this
            # moment does so wholly before it or wholly after. Not of an epoch that the gatekeeper has begun.
            unsold, epoch, sources = F("allotment") - F("sold"), sale.epoch, [SaleState.CLOSED]
            _move(sale, sources, SaleState.SETTLED, "settle", actor, reason, epoch, returned=unsold)
            _add_stock(sale, sale.returned)


def withdraw(client: redis.Redis, sale: Sale) -> None:
    """Tells the web processes that the sale is over, and removes its gate. Raises GateUnreachable.

    The directory first: who meets no gate must know that there is none.
    """
    _publish(client, sale, over=True)
    gate.remove(client, sale.id)


def change_stock(product: Product, delta: int, *, actor: str, reason: str = "") -> None:
    """Adds units to the product's stock, or takes them out of it; never an absolute number.

    Two operators who add at the same time both count. Raises Refused below zero.
    """
    if delta == 0:
        raise Refused("A change of 0 units changes nothing.")
    with transaction.atomic():
        moved = Product.objects.filter(pk=product.pk, stock__gte=-delta, stock__lte=2**31 - 1 - delta).update(
            stock=F("stock") + delta, updated_at=timezone.now()
        )
        product.refresh_from_db()
        if not moved:
            raise Refused(
                f"{product.sku} has {product.stock} units of stock; it cannot change by {delta:+d}."
            )
        SaleEvent.objects.create(
            product=product,
            actor=actor,
            action="change_stock",
            reason=reason,
            detail={"delta": delta, "stock": product.stock},
        )


@contextmanager
def _gate() -> Iterator[redis.Redis]:
    """A client of the gate that has answered, or Refused: no step begins without one."""
    client = connect()
    try:
        with reaching():
            client.ping()
        yield client
    except GateUnreachable as error:
        raise Refused(f"Repeat this when the gate is back: {error}") from None
    except redis.RedisError as error:  # full, read-only, loading ...
        raise Refused(f"The gate's Redis refuses, repeat this when it is well again: {error}") from None
    finally:
        client.close()


def _take_allotment(sale: Sale) -> None:
    taken = Product.objects.filter(pk=sale.product_id, stock__gte=sale.allotment).update(
        stock=F("stock") - sale.allotment, updated_at=timezone.now()
    )
    if not taken:
        stock = Product.objects.values_list("stock", flat=True).get(pk=sale.product_id)
        raise Refused(f"The product has {stock} units of stock; this sale needs {sale.allotment}.")


def _room(sale: Sale, units: int) -> QuerySet[Product]:
    """The sale's product, if its stock can take so many units more."""
    return Product.objects.filter(pk=sale.product_id, stock__lte=2**31 - 1 - units)


def _require_room(sale: Sale) -> None:
    if not _room(sale, sale.unsold).exists():
        raise Refused(f"The product's stock cannot take {sale.unsold} units more.")


def _add_stock(sale: Sale, units: int) -> None:
    if not _room(sale, units).update(stock=F("stock") + units, updated_at=timezone.now()):
        raise Refused(f"The product's stock cannot take {units} units more. The gate is armed again.")


def _build_gate(client: redis.Redis, sale: Sale) -> None:
    """Builds the gate under the sale's new epoch and publishes its seal. The order matters: a web
    process must not learn a seal before the gate that it opens stands."""
    arming = Arming(sale.id, POOL, sale.epoch)
    now = fence.incarnation(client)
    if not fence.build(client, sale, arming):
        raise Refused("The gate holds a later arming of this sale; look at its history.")
    sha = fence.raise_seal(client, arming, now)
    if fence.switch(client, arming, "armed", building=True) != "switched":
        raise Refused("Somebody else is arming this sale; look at its history.")
    _publish(client, sale, epoch=sale.epoch, seal=sha, incarnation=now)


def _publish(client: redis.Redis, sale: Sale, **sealed: Any) -> None:
    directory.publish(client, sale, directory.public_sales().exclude(pk=sale.pk), **sealed)


def republish(sale: Sale) -> None:
    """Tells the web processes that a scheduled sale's facts have changed. Raises Refused."""
    if sale.state == SaleState.SCHEDULED:
        with _gate() as client:
            _publish(client, sale)


def _switch_on(sale: Sale, sources: list[SaleState], action: str, actor: str, reason: str) -> None:
    with _gate() as client:
        turn = fence.turn(client, Arming(sale.id, POOL, sale.epoch))  # before anything is decided
        # A sale that is open already may be a step that crashed half-way: the gate is told again.
        _require(sale, [*sources, SaleState.OPEN], action)
        standing = image(client, sale.id)
        if turn is None or standing is None or standing.epoch != sale.epoch or standing.state == "arming":
            raise Refused(_GATE_GONE)
        if sale.state != SaleState.OPEN:
            _move(sale, sources, SaleState.OPEN, action, actor, reason)
        switched = fence.switch(client, Arming(sale.id, POOL, sale.epoch), "open", turn)
        if switched in ("stale", "arming"):
            raise Refused(
                "The sale is open in the books, and its gate has fallen: it sells when it is armed again."
            )
        if switched != "switched":
            raise Refused(
                "Somebody else has switched this gate meanwhile, and it stays as it is. Look again."
            )


def _stop(client: redis.Redis, sale: Sale, state: str) -> bool:
    """Whether a gate stands, and has been stopped.

    Called before the database is changed, so that nothing is sold from here on, and again behind it:
    a gate that was being built, or has been built anew meanwhile, has asked the database too early.
    If it is still being built its turn moves on, and it asks once more.
    """
    switched = fence.stop(client, sale.id, POOL, state)
    if switched == "closed":
        raise Refused("This gate is closed already, and that is for good.")
    return switched == "switched"


def _unwritten(standing: Image | None) -> int:
    """Units that are granted but not yet in the order book."""
    return standing.held + standing.queued if standing else 0


def _require(sale: Sale, sources: list[SaleState], action: str) -> None:
    sale.refresh_from_db()
    if sale.state not in sources:
        raise Refused(_not_now(sale, action))


def _not_now(sale: Sale, action: str) -> str:
    return f"“{sale.slug}” is {sale.get_state_display().lower()}: “{action}” is not possible now."


def _move(
    sale: Sale,
    sources: list[SaleState],
    target: SaleState,
    action: str,
    actor: str,
    reason: str,
    expected_epoch: int | None = None,
    **values: Any,
) -> None:
    """One conditional UPDATE along the state machine, with its event. Raises Refused when no row moved."""
    before = sale.state
    with transaction.atomic():
        movable = Sale.objects.filter(pk=sale.pk, state__in=sources)
        if expected_epoch is not None:
            movable = movable.filter(epoch=expected_epoch)
        moved = movable.update(state=target, updated_at=timezone.now(), **values)
        if not moved:
            sale.refresh_from_db()
            raise Refused(_not_now(sale, action))
        sale.refresh_from_db()
        SaleEvent.objects.create(
            sale=sale,
            actor=actor,
            action=action,
            reason=reason,
            detail={"from": before, "to": str(target), "epoch": sale.epoch},
        )
