"""Reconciliation: reads the three books of a sale, so that `orders.balance` can compare them.

First the counters, which takes milliseconds, until they agree or the difference stays; then each
claim beside its row (`orders.comparison`), and the counters once more.
"""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple
from uuid import UUID

import redis
from django.conf import settings

from orders import lag, parking, repair_book
from orders.balance import REARMING, Balance, ClaimsBook, LogBook, balance
from orders.comparison import Comparison
from sales import fence, gate
from sales.directory import GATED
from sales.models import Sale
from sales.topic import TopicUnavailable, incarnation, partition_of

# A batch between its two books is no difference: what stays for so long is one.
RETRIES, RETRY_SECONDS = 4, 0.25


class _Compared(NamedTuple):
    """The claims of a sale, compared, and its gate before that."""

    image: gate.Image | None
    book: ClaimsBook


def read(
    client: redis.Redis, sales: Sequence[Sale], *, claims: bool = True, seconds: float | None = None
) -> list[Balance]:
    """The balances of these sales, read until they agree or the difference stays.

    `claims=False` compares the counters only; `seconds` bounds the comparison of each sale's claims.
    Raises gate.GateUnreachable. A broker that does not answer leaves `log.unread` at None.
    """
    counted = _until_it_stays(client, sales, {})
    if not claims:
        return counted
    compared = {
        sale.id: _compare(client, sale, found, seconds)
        for sale, found in zip(sales, counted, strict=True)
        if comparable(found)
    }
    return _until_it_stays(client, sales, compared) if compared else counted


def comparable(found: Balance) -> bool:
    """Whether the gate's claims are this sale's, and all there."""
    image = found.gate
    return (
        found.state in GATED and image is not None and image.epoch == found.epoch and image.state != REARMING
    )


def read_to_the_end(sale: Sale) -> bool:
    """Whether the order book has every record that the log has of this sale's partition, now."""
    partition = partition_of(sale.id)
    found = lag.reach({partition}).get(partition)
    return found is not None and found.position == found.end


def _compare(client: redis.Redis, sale: Sale, found: Balance, seconds: float | None) -> _Compared:
    comparison = Comparison(client, sale, partial(read_to_the_end, sale), seconds=seconds)
    for _ in comparison.strays():
        pass
    return _Compared(found.gate, comparison.book)


def _until_it_stays(
    client: redis.Redis, sales: Sequence[Sale], compared: Mapping[UUID, _Compared]
) -> list[Balance]:
    for attempt in range(RETRIES):
        before = [gate.image(client, sale.id) for sale in sales]
        reaches = lag.reach({partition_of(sale.id) for sale in sales})
        found = [
            _read(client, sale, image, reaches, compared.get(sale.id))
            for sale, image in zip(sales, before, strict=True)
        ]
        if attempt + 1 == RETRIES or not any(each.differences for each in found):
            break
        time.sleep(RETRY_SECONDS)
    return found


def _read(
    client: redis.Redis,
    sale: Sale,
    before: gate.Image | None,
    reaches: Mapping[int, lag.Reach],
    compared: _Compared | None,
) -> Balance:
    # The book before the gate: what reaches the book in between has left the gate before.
    book = repair_book.summary(sale.id)
    image = gate.image(client, sale.id)
    repair_book.refresh(sale)
    return balance(
        sale.slug,
        sale.state,
        sale.epoch,
        image,
        _log(sale, reaches),
        book,
        compared.book if compared else None,
        fallen=next((why for _, why in fence.fallen(client, [sale])), ""),
        quiet=image == before and (compared is None or image == compared.image),
    )


def _log(sale: Sale, reaches: Mapping[int, lag.Reach]) -> LogBook:
    partition = partition_of(sale.id)
    reach = reaches.get(partition)
    try:
        parked = parking.waiting(settings.FLUXGATE.kafka_topic, incarnation(), partition)
    except TopicUnavailable:  # then the reach is not known either
        return LogBook(None, 0)
    return LogBook(reach.unread, parked, reach.lost) if reach else LogBook(None, parked)
