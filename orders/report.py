"""What became of a sale: one report of plain facts, the same as a page, as JSON and as CSV.

Every figure is read from the order book, so the report can be made at any time after the arming, also when
the gate is gone. It carries a digest of its own text and a signature of this site, so that a report that
was passed on can be checked: `manage.py report --verify FILE`.
"""

import hashlib
import hmac
import json
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import redis
from django.core.signing import Signer
from django.db import connection
from django.utils import timezone

from orders.reconciliation import read
from sales import gate
from sales.models import Sale, SaleState
from sales.strict_json import each_name_once
from waitingroom.models import Room

VERSION = 1
NOT_ARMED = (SaleState.DRAFT, SaleState.SCHEDULED)
# The comparison of a sale's claims may take a while; the report says so where it was cut short.
COMPARE_SECONDS = 3.0
_PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
_signer = Signer(salt="fluxgate.report")


class Unverified(Exception):
    """The text is not a report that this site has made. One clear line for people."""


def report(sale: Sale) -> dict[str, Any]:
    """The report of a sale that has been armed, as JSON values. Times are UTC in ISO 8601, money is text.

    Shape: docs/operations.md, "After the sale". Raises ValueError for a sale that was never armed, and what
    the order book raises; a gate that does not answer makes the balance "not known".
    """
    if sale.state in NOT_ARMED:
        raise ValueError(f"“{sale.slug}” was never armed: there is nothing to report")
    written = {
        "version": VERSION,
        "made_at": _text(timezone.now()),
        "sale": _facts(sale),
        "units": {
            "allotment": sale.allotment,
            "sold": sale.sold,
            "returned": sale.returned,
            "unsold": sale.unsold,
            "revenue": str(sale.sold * Decimal(sale.unit_price)),
        },
        **_orders(sale),
        "line": _line(sale),
        "balance": _balance(sale),
        "steps": [
            {"at": _text(event.at), "actor": event.actor, "step": event.action, "reason": event.reason}
            for event in sale.events.order_by("id")
        ],
    }
    return written | {"digest": (digest := _digest(written)), "signature": _signer.signature(digest)}


def verify(text: str) -> dict[str, Any]:
    """The report in this text. Raises Unverified unless this site has made it, and nobody has changed it."""
    try:
        told: Any = json.loads(text, object_pairs_hook=each_name_once)
    except (ValueError, RecursionError) as error:
        raise Unverified(f"not JSON: {error}") from None
    if not isinstance(told, dict) or not {"digest", "signature"} <= told.keys():
        raise Unverified("not a report: it has no digest and no signature")
    written = {name: value for name, value in told.items() if name not in ("digest", "signature")}
    try:
        digest = _digest(written)
    except UnicodeEncodeError:
        digest = ""
    if digest != told["digest"]:
        raise Unverified("it has been changed: its digest is of another text")
    if not hmac.compare_digest(_signer.signature(digest).encode(), str(told["signature"]).encode()):
        raise Unverified("it was not made here: the signature is of another secret key")
    return told


def rows(told: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The report as lines of a table: section, name, value. Only the JSON can be verified."""
    found: list[tuple[str, str, str]] = []
    for section, value in told.items():
        if section in ("digest", "signature"):
            continue
        if isinstance(value, dict):
            found += [(section, name, _cell(each)) for name, each in value.items()]
        elif isinstance(value, list):
            found += [(section, str(number), _cell(each)) for number, each in enumerate(value, 1)]
        else:
            found.append(("report", section, _cell(value)))
    return found


def _facts(sale: Sale) -> dict[str, Any]:
    return {
        "key": sale.slug,
        "name": sale.name,
        "product": sale.product.name,
        "sku": sale.product.sku,
        "state": sale.state,
        "opens_at": _text(sale.opens_at),
        "closes_at": _text(sale.closes_at),
        "unit_price": str(sale.unit_price),
        "currency": sale.currency,
        "limit_per_customer": sale.limit_per_customer,
        "waiting_room": sale.admission_required,
    }


def _orders(sale: Sale) -> dict[str, Any]:
    """Everything that is counted over the orders, in two statements."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT state, reason, count(*), sum(quantity) FROM orders_order WHERE sale_id = %s"
            " GROUP BY state, reason ORDER BY state, reason",
            [sale.pk],
        )
        states = [
            {"state": state, "reason": reason, "orders": orders, "units": int(units)}
            for state, reason, orders, units in cursor.fetchall()
        ]
        cursor.execute(
            "SELECT count(DISTINCT customer) FILTER (WHERE state = 'confirmed'), min(claimed_at),"
            " max(claimed_at), percentile_disc(%s::float[]) WITHIN GROUP"
            " (ORDER BY extract(epoch FROM written_at - claimed_at)),"
            " (SELECT ARRAY[count(*), extract(epoch FROM date_trunc('second', claimed_at))] FROM orders_order"
            "  WHERE sale_id = %s GROUP BY date_trunc('second', claimed_at) ORDER BY 1 DESC LIMIT 1)"
            " FROM orders_order WHERE sale_id = %s",
            [list(_PERCENTILES.values()), sale.pk, sale.pk],
        )
        customers, first, last, seconds, busiest = cursor.fetchone()
    return {
        "orders": states,
        "customers": customers,
        "claims": {
            "first_at": _text(first),
            "last_at": _text(last),
            "busiest_second_at": _text(busiest and datetime.fromtimestamp(int(busiest[1]), UTC)),
            "busiest_second_orders": int(busiest[0]) if busiest else 0,
        },
        # From the gate's decision to the row: two clocks, so it may be off by their difference.
        "written_after_seconds": {
            name: None if seconds is None else round(float(value), 3)
            for name, value in zip(_PERCENTILES, seconds or [None] * len(_PERCENTILES), strict=True)
        },
    }


def _line(sale: Sale) -> dict[str, Any] | None:
    room = Room.objects.filter(pk=sale.pk).first()
    if room is None:
        return None
    return {
        "draw_entries": room.entered,
        "draw_commitment": room.commitment,
        "draw_digest": room.digest or None,
        "paces": [
            {
                "at": _text(datetime.fromtimestamp(pace.from_time / 1000, UTC)),
                "turns_per_second": pace.rate,
                "reason": pace.reason,
            }
            for pace in room.paces.order_by("ordinal")
        ],
    }


def _balance(sale: Sale) -> dict[str, Any]:
    try:
        with closing(gate.connect()) as client:
            [found] = read(client, [sale], seconds=COMPARE_SECONDS)
    except (gate.GateUnreachable, redis.RedisError) as error:
        return {"verdict": "not known", "differences": [], "under_way": [f"the gate was not asked: {error}"]}
    return {
        "verdict": found.verdict,
        "differences": found.differences,
        "under_way": found.under_way,
        "parked_records": found.log.parked,
    }


def _digest(written: dict[str, Any]) -> str:
    """SHA-256, in hex, of the JSON with sorted names and without blanks (the idea of RFC 8785)."""
    text = json.dumps(written, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _text(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _cell(value: Any) -> str:
    """Text stays text; a cell that a spreadsheet would take for a formula is made one that it does not."""
    if isinstance(value, str):
        return f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
    return json.dumps(value, ensure_ascii=False)
