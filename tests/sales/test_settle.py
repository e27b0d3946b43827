"""closed -> settled: unsold units go back into the product once, and nothing can be sold of them twice."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import redis
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from orders import book, epochs
from orders.book import Source
from orders.closing import finish_settling
from orders.fulfillment import fulfill
from orders.reconciliation import read
from sales import arming, directory, fence, gate
from sales import turnstile as turnstile_module
from sales.arming import Refused
from sales.gate import Attempt
from sales.models import Product, Sale, SaleEvent
from sales.turnstile import Turnstile
from tests.orders.records import batch_of, cancel_of, claim_of

pytestmark = pytest.mark.django_db(transaction=True)
MakeSale = Callable[..., Sale]


@pytest.fixture
def source() -> Source:
    return Source(f"orders-{uuid4().hex[:8]}", "", 0)


@pytest.fixture
def closed(open_sale: MakeSale) -> Sale:
    """Ten units left the product's 25, nobody bought any, and the sale is closed."""
    sale = open_sale(allotment=10, stock=25)
    arming.close(sale, actor="test")
    return sale


def stock(sale: Sale) -> int:
    return Product.objects.get(pk=sale.product_id).stock


def counted(sale: Sale) -> tuple[int, int, int]:
    """Sold, returned, and the product's stock."""
    sale.refresh_from_db()
    return sale.sold, sale.returned, stock(sale)


def sell_three(sale: Sale, source: Source) -> list[Any]:
    """Three orders in both books, as if their claims had come through the gate."""
    claims = [claim_of(sale) for _ in range(3)]
    fulfill(batch_of(source, *claims))
    with gate.connect() as client:
        client.hincrby(gate.pool_keys(sale.id).gate, "remaining", -3)
        client.hincrby(gate.pool_keys(sale.id).gate, "settled", 3)
    return claims


def test_what_nobody_bought_goes_back_into_the_product(
    closed: Sale, source: Source, gate: redis.Redis
) -> None:
    sell_three(closed, source)
    arming.settle(closed, actor="olga", reason="the day is over")
    assert closed.state == "settled"
    assert counted(closed) == (3, 7, 22)
    assert list(gate.scan_iter(match=f"fluxgate:{{{closed.id}*")) == []
    [told] = directory.published(gate, [closed.slug])
    assert told is not None
    assert (told.over, told.seal, told.fenced) == (True, "", False)
    event = SaleEvent.objects.get(sale=closed, action="settle")
    assert (event.actor, event.reason, event.detail["to"]) == ("olga", "the day is over", "settled")
    [found] = read(gate, [closed])
    assert found.verdict == "balanced", found


def test_settling_twice_returns_the_units_once(closed: Sale) -> None:
    def settle(_: int) -> str:
        try:
            arming.settle(Sale.objects.get(pk=closed.pk), actor="test")
            return "settled"
        except Refused as refused:
            return str(refused)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as hands:
        answers = list(hands.map(settle, range(4)))
    assert "settled" in answers
    assert counted(closed) == (0, 10, 25)
    assert SaleEvent.objects.filter(sale=closed, action="settle").count() == 1
    with pytest.raises(Refused, match="not possible now"):
        arming.settle(closed, actor="test")
    assert counted(closed) == (0, 10, 25)


def test_a_claim_that_comes_late_finds_no_unit(closed: Sale, source: Source) -> None:
    late = claim_of(closed)
    arming.settle(closed, actor="test")
    [outcome] = fulfill(batch_of(source, late))
    assert (outcome.state, outcome.reason) == ("refused", "sold_out")
    assert counted(closed) == (0, 10, 25)


def test_twin_without_the_returned_units_in_the_condition_a_late_claim_would_be_sold_twice(
    closed: Sale, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unit is the product's again; the database's CHECK is the last line of defence."""
    arming.settle(closed, actor="test")
    statement = "UPDATE sales_sale SET sold = sold + 1 WHERE id = %s AND 1 <= allotment - sold"
    with connection.cursor() as cursor:
        with pytest.raises(IntegrityError, match="sale_never_oversold"), transaction.atomic():
            cursor.execute(statement, [closed.id])
        cursor.execute("ALTER TABLE sales_sale DROP CONSTRAINT sale_never_oversold")
        try:
            cursor.execute(statement, [closed.id])
            sold, _, units = counted(closed)
            assert sold + units > 25, "the same unit stands in two places"
        finally:
            cursor.execute("UPDATE sales_sale SET sold = 0 WHERE id = %s", [closed.id])
            cursor.execute(
                "ALTER TABLE sales_sale ADD CONSTRAINT sale_never_oversold"
                " CHECK (returned >= 0 AND sold >= 0 AND sold <= allotment - returned)"
            )


def test_an_order_cancelled_after_settling_goes_back_into_the_product(closed: Sale, source: Source) -> None:
    first, second, _ = sell_three(closed, source)
    fulfill(batch_of(source, cancel_of(first), first=3))
    with gate.connect() as client:  # as the consumer does
        client.hincrby(gate.pool_keys(closed.id).gate, "remaining", 1)
        client.hincrby(gate.pool_keys(closed.id).gate, "settled", -1)
    arming.settle(closed, actor="test")
    assert counted(closed) == (2, 8, 23)
    fulfill(batch_of(source, cancel_of(second), cancel_of(second, "operator"), first=4))
    assert counted(closed) == (1, 9, 24)


@pytest.mark.parametrize("state", ["draft", "armed", "open"])
def test_only_a_closed_sale_is_settled(open_sale: MakeSale, make_sale: MakeSale, state: str) -> None:
    sale = make_sale() if state == "draft" else open_sale(until=state)
    before = stock(sale)
    with pytest.raises(Refused, match="not possible now"):
        arming.settle(sale, actor="test")
    assert (sale.state, stock(sale)) == (state, before)


def test_books_that_differ_are_not_settled(closed: Sale, gate: redis.Redis) -> None:
    keys = f"fluxgate:{{{closed.id}:0}}:gate"
    gate.hincrby(keys, "remaining", -1)
    with pytest.raises(Refused, match="9 units left and the order book 10"):
        arming.settle(closed, actor="test")
    gate.delete(keys)
    with pytest.raises(Refused, match="does not stand"):
        arming.settle(closed, actor="test")
    assert counted(closed) == (0, 0, 15)


def test_a_gate_that_falls_at_this_very_moment_is_not_settled(
    closed: Sale, gate: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gatekeeper would publish the sale as fenced, and its gate would stand for ever."""
    looked = fence.fallen

    def falls(client: redis.Redis, sales: list[Sale]) -> list[tuple[Sale, str]]:
        found = looked(client, sales)
        assert epochs.begin(Sale.objects.get(pk=closed.pk), closed.epoch + 1, "lost", "gatekeeper")
        return found

    monkeypatch.setattr(fence, "fallen", falls)
    with pytest.raises(Refused, match="not possible now"):
        arming.settle(closed, actor="test")
    assert counted(closed) == (0, 0, 15)
    assert closed.state == "closed"


def test_a_stock_that_cannot_take_them_changes_nothing(closed: Sale, gate: redis.Redis) -> None:
    Product.objects.filter(pk=closed.product_id).update(stock=2**31 - 5)
    with pytest.raises(Refused, match="cannot take 10 units more"):
        arming.settle(closed, actor="test")
    closed.refresh_from_db()
    assert (closed.state, closed.returned) == ("closed", 0)
    assert fence.fallen(gate, [closed]) == []


def test_two_who_need_a_product_and_its_sales_take_them_in_one_order(
    open_sale: MakeSale, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that cancels in two sales of one product, while the second of them is settled."""
    first, second = sorted((open_sale(allotment=2), open_sale(allotment=2)), key=lambda sale: sale.pk)
    Sale.objects.filter(pk=second.pk).update(product_id=first.product_id)
    sold = [claim_of(first), claim_of(second, product_id=first.product_id)]
    fulfill(batch_of(source, *sold))
    Sale.objects.filter(pk=first.pk).update(state="settled", returned=1)
    locked, unsold = [], book.unsell

    def unsell(sale_id: Any, units: int) -> int | None:
        locked.append(("sale", sale_id))
        return unsold(sale_id, units)

    def restock(product_id: int, units: int) -> None:
        locked.append(("product", product_id))
        restocked(product_id, units)

    restocked = book.restock
    monkeypatch.setattr(book, "unsell", unsell)
    monkeypatch.setattr(book, "restock", restock)
    before = stock(first)
    fulfill(batch_of(source, *map(cancel_of, sold), first=2))
    assert locked == [("sale", first.pk), ("sale", second.pk), ("product", first.product_id)]
    assert stock(first) == before + 1


def test_a_directory_that_was_lost_knows_that_the_sale_is_over(closed: Sale, gate: redis.Redis) -> None:
    arming.settle(closed, actor="test")
    gate.delete(directory.DIRECTORY)
    directory.restore(gate, directory.public_sales())
    [told] = directory.published(gate, [closed.slug])
    assert told is not None
    assert (told.over, told.fenced) == (True, False)


def test_what_redis_brings_back_of_a_settled_sale_is_taken_out_again(closed: Sale, gate: redis.Redis) -> None:
    """It has lost its last moments: the entry of the directory is as it was before, and so is the gate."""
    before = gate.hget(directory.DIRECTORY, closed.slug)
    standing: Any = gate.hgetall(f"fluxgate:{{{closed.id}:0}}:gate")
    arming.settle(closed, actor="test")
    assert finish_settling(gate) == 0
    gate.hset(directory.DIRECTORY, closed.slug, before)
    gate.hset(f"fluxgate:{{{closed.id}:0}}:gate", mapping=standing)
    assert finish_settling(gate) == 1
    [told] = directory.published(gate, [closed.slug])
    assert told is not None
    assert (told.over, told.seal) == (True, "")
    assert list(gate.scan_iter(match=f"fluxgate:{{{closed.id}*")) == []
    gate.delete(directory.DIRECTORY)
    assert finish_settling(gate) == 1
    assert finish_settling(gate) == 0


def test_a_settled_sale_whose_units_are_nowhere_differs(closed: Sale, gate: redis.Redis) -> None:
    arming.settle(closed, actor="test")
    Sale.objects.filter(pk=closed.pk).update(returned=9)
    closed.refresh_from_db()
    [found] = read(gate, [closed])
    assert found.differences == ["I2: settled, and 1 unit neither sold nor back in the product"]


def test_what_was_settled_long_ago_is_forgotten(closed: Sale, open_sale: MakeSale, gate: redis.Redis) -> None:
    arming.settle(closed, actor="test")
    past = timezone.now() - directory.KEPT_SETTLED - timedelta(hours=1)
    window = {"opens_at": past - timedelta(hours=1), "closes_at": past}
    Sale.objects.filter(pk=closed.pk).update(**window)
    assert closed in directory.public_sales(), "its window is long over, but it was settled just now"
    Sale.objects.filter(pk=closed.pk).update(updated_at=past)
    other = open_sale(allotment=1)
    arming.close(other, actor="test")
    arming.settle(other, actor="test")
    forgotten, known = directory.published(gate, [closed.slug, other.slug])
    assert forgotten is None
    assert known is not None
    assert closed not in directory.public_sales()
    assert finish_settling(gate) == 0


async def test_a_process_forgets_what_it_knew_of_the_gate(
    closed: Sale, turnstile: Turnstile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turnstile_module, "FACTS_SECONDS", 0)
    facts = await turnstile.facts(closed.slug)
    assert facts is not None
    await turnstile.attempt(facts, Attempt(str(uuid4()), "ann", 1, True))
    assert len(turnstile._pools) == 1
    arming.settle(closed, actor="test")
    for _ in range(100):
        facts = await turnstile.facts(closed.slug)
        if facts is not None and facts.over:
            break
        await asyncio.sleep(0.05)
    assert facts is not None
    assert facts.over
    assert turnstile._pools == {}
