"""The numbers of the live page, one plain function per source.

Of this sale: its gate, its line, its row, its parked records, its partition of the log. Of this host: what
the web processes that answered have counted, for all sales; metrics have no ids as labels.

Costs five queries by a key or of a short table (user, sale, steps, parked, pace), the read of the workers'
metric files, and a dozen short calls of the gate: measured with two workers on a busy machine some 20 ms of
CPU, and 15 more when it is this request that has the broker asked (`live_log`).
"""

import os
import socket
import time
from contextlib import closing
from typing import Any

import redis
from django.conf import settings
from django.contrib import admin
from django.db.models import Count, Q
from django.http import HttpRequest
from django.urls import reverse

from orders import readings
from orders.admin.live_log import unread
from orders.balance import glance
from orders.claims import pool_key
from orders.models import ParkedRecord, ParkedState
from sales import gate, redis_urls
from sales.admin.live import live
from sales.admin.sale_windows import STATE_COLOURS
from sales.directory import GATED
from sales.gate import POOL, to_ms
from sales.models import Sale, SaleState
from sales.topic import partition_of
from waitingroom.crowd import crowd
from waitingroom.models import Pace


def numbers(request: HttpRequest, sale: Sale) -> dict[str, Any]:
    """Everything the page shows. What could not be asked is None; raises what PostgreSQL raises."""
    now = live(sale)
    return now | {
        "colour": STATE_COLOURS[SaleState(sale.state)],
        "opens_at": to_ms(sale.opens_at),
        "closes_at": to_ms(sale.closes_at),
        "balance": balance(sale, now),
        "line": line(sale) if sale.admission_required and now["gate"] else None,
        "has_line": sale.admission_required,
        "log": log(sale),
        "parked": parked(sale),
        "host": host(),
        "steps": steps(request, sale),
    }


def balance(sale: Sale, now: dict[str, Any]) -> str | None:
    """The word of one look at the counters; `differs` may go away by itself (orders.balance.glance).
    None: the sale has no gate, or it did not answer."""
    if sale.state not in GATED or not now["reachable"]:
        return None
    image = gate.Image(**now["gate"]) if now["gate"] else None
    return glance(sale.epoch, sale.unsold, image, "" if now["sealed"] else "fenced")


def line(sale: Sale) -> dict[str, Any] | None:
    """The crowd in front of the sale, with the reason of the pace; None: the gate did not answer, or nothing
    is published."""
    client = redis_urls.sync_client(settings.FLUXGATE.gate_url, **gate.connection_options())
    try:
        with closing(client):
            found = crowd(client, sale.pk)
    except (gate.GateUnreachable, redis.RedisError):
        return None
    if found is None:
        return None
    paces = Pace.objects.filter(room_id=sale.pk).order_by("-ordinal").values_list("reason", flat=True)
    return found._asdict() | {"reason": paces.first() or "nobody has a turn yet"}


def log(sale: Sale) -> dict[str, Any]:
    """The partition of the sale, which others may share."""
    partition = partition_of(sale.pk)
    return {"partition": partition} | unread(partition)._asdict()


def parked(sale: Sale) -> dict[str, int]:
    """Records that are parked: those with the key of this sale, and all."""
    of_sale = Q(key=pool_key(sale.pk, POOL))
    waiting = ParkedRecord.objects.filter(state=ParkedState.PARKED).order_by()
    return waiting.aggregate(sale=Count("pk", filter=of_sale), all=Count("pk"))


def host() -> dict[str, Any]:
    """What this gunicorn's web processes have counted since they began. Whoever compares two of these holds
    `name` and `master` against each other first: the next answer may come from another host."""
    found = readings.read()
    return {
        "name": socket.gethostname(),
        "master": os.getppid(),
        "at": time.time_ns() // 1_000_000,
        "answers": readings.counts(found.get("fluxgate_answers"), "verdict"),
        "gate_seconds": readings.buckets(found.get("fluxgate_gate_call_seconds")),
        "acknowledgement_seconds": readings.buckets(found.get("fluxgate_acknowledgement_seconds")),
    }


def steps(request: HttpRequest, sale: Sale) -> list[dict[str, str]]:
    """The steps that make sense now, and that this operator may take."""
    sales: Any = admin.site.get_model_admin(Sale)  # unfold's, who filters by permission
    return [
        {
            "name": action.description,
            "icon": action.icon or "",
            "variant": str(action.variant.value),
            "url": reverse(f"admin:{action.action_name}", args=[sale.pk]) + "?from=live",
        }
        for action in sales.get_actions_detail(request, sale.pk)
    ]
