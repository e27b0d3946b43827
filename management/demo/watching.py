"""Looking at the books while the sale runs, from the side: nothing here is on the buy path."""

import http.client
import urllib.request
from dataclasses import dataclass, field
from urllib.error import URLError

import redis
from django.conf import settings

from orders.models import Position
from sales import gate
from sales.models import Sale
from sales.topic import incarnation, partition_of

_FULFILLED = "fluxgate_fulfilled_orders_total{"


@dataclass(frozen=True)
class Moment:
    """The sale at one moment, in units and answers. `seconds` count from the opening."""

    seconds: float
    allotment: int
    granted: int = 0  # by the gate
    under_way: int = 0  # held or queued: granted, and not settled yet
    sold: int = 0  # in the order book
    answers: dict[str, int] = field(default_factory=dict)
    waiting: int = 0  # clicks without their last answer


def look(client: redis.Redis, sale: Sale, seconds: float, answers: dict[str, int], waiting: int) -> Moment:
    """Raises gate.GateUnreachable."""
    sold = Sale.objects.values_list("sold", flat=True).get(pk=sale.pk)
    image = gate.image(client, sale.id)
    if image is None:
        return Moment(seconds, sale.allotment, sold=sold, answers=answers, waiting=waiting)
    granted, under_way = image.loaded - image.remaining, image.held + image.queued
    return Moment(seconds, sale.allotment, granted, under_way, sold, answers, waiting)


def records_fulfilled(sale: Sale) -> int:
    """Records of the sale's partition that fulfillment has passed. It may hold earlier sales' too.

    Raises sales.topic.TopicUnavailable.
    """
    position = Position.objects.filter(
        topic=settings.FLUXGATE.kafka_topic, incarnation=incarnation(), partition=partition_of(sale.id)
    ).first()
    return position.next_offset if position else 0


def written_by(metrics_port: int) -> int:
    """Orders that the consumer behind this port has written; 0 when it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=1) as answer:
            lines = answer.read().decode().splitlines()
    except (URLError, OSError, http.client.HTTPException):
        return 0
    return int(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(_FULFILLED)))
