"""Lines of the log that are about one order say which."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
import redis

from orders import book, parking
from orders.book import Source
from orders.fulfillment import fulfill
from orders.log import Acknowledgements
from orders.models import ParkedRecord
from orders.placing import place
from sales.gate import Attempt
from sales.models import Sale
from sales.request_id import asking
from sales.turnstile import Turnstile
from tests.orders.records import batch_of, cancel_of, claim_of
from tests.orders.test_placing import ScriptedLog, until

pytestmark = pytest.mark.django_db(transaction=True)
Lines = Callable[[str], list[dict[str, Any]]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """What has been logged under an event."""
    caplog.set_level("INFO")

    def of(event: str) -> list[dict[str, Any]]:
        found = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
        return [line for line in found if line["event"] == event]

    return of


def test_a_parked_record_names_order_and_sale_as_far_as_they_can_be_read(
    open_sale: Callable[..., Sale], source: Source, lines: Lines
) -> None:
    sale = open_sale()
    claim, cancelled = (claim_of(sale, unit_price=Decimal("1.00")) for _ in range(2))
    unreadable = b'{"order_id": "%s", "v": 1}' % str(claim.order_id).encode()
    fulfill(batch_of(source, claim, cancel_of(cancelled), unreadable, b"rubbish", None, b'{"claim": []}'))
    found = {line["offset"]: (line.get("order_id"), line.get("sale_id")) for line in lines("record parked")}
    assert found == {
        0: (str(claim.order_id), str(sale.id)),
        1: (str(cancelled.order_id), str(sale.id)),
        2: (str(claim.order_id), None),
        3: (None, None),
        4: (None, None),
        5: (None, None),
    }


def test_what_becomes_of_a_parked_record_names_the_order(
    open_sale: Callable[..., Sale], source: Source, gate: redis.Redis, lines: Lines
) -> None:
    sale = open_sale()
    Sale.objects.filter(id=sale.id).update(currency="XXX")
    replayed, dropped = claim_of(sale), claim_of(sale)
    fulfill(batch_of(source, replayed, dropped, first=book.position(source)))
    Sale.objects.filter(id=sale.id).update(currency="EUR")
    first, second = ParkedRecord.objects.order_by("offset")
    parking.replay(first.pk, client=gate, actor="test")
    parking.drop(second.pk, actor="test", reason="planted")
    [line] = lines("parked record replayed")
    assert line["order_id"] == str(replayed.order_id)
    [line] = lines("parked record dropped")
    assert line["order_id"] == str(dropped.order_id)


async def test_an_append_that_was_not_acknowledged_names_order_and_request(
    open_sale: Callable[..., Sale], turnstile: Turnstile, lines: Lines
) -> None:
    sale, log, order_id = open_sale(), ScriptedLog(), str(uuid4())
    facts = await turnstile.facts(sale.slug)
    assert facts is not None
    before = asking.set({b"x-request-id": b"proxy-1"})
    placing = asyncio.ensure_future(
        place(turnstile, Acknowledgements(log), facts, Attempt(order_id, "ann", 1))
    )
    asking.reset(before)  # the report comes from the log, when the request may be over
    await until(lambda: log.reports)
    log.reports[0](TimeoutError("unknown"))
    await placing
    [line] = lines("append not acknowledged")
    assert (line["order_id"], line["request_id"]) == (order_id, "proxy-1")
