"""How an order stands, when one book or the other cannot be asked."""

import asyncio
from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import pytest
import redis
from django.utils import timezone

from orders import status
from orders.models import Order
from orders.status import Standings
from sales.database import Database, DatabaseAway
from sales.gate import Attempt
from sales.models import Sale
from sales.turnstile import Turnstile

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    opened = Database()
    yield opened
    opened.close()


def write(sale: Sale, customer: str = "ann") -> Order:
    return Order.objects.create(
        id=uuid4(),
        sale=sale,
        customer=customer,
        quantity=1,
        unit_price=sale.unit_price,
        currency=sale.currency,
        state="confirmed",
        epoch=sale.epoch,
        claimed_at=timezone.now(),
    )


async def test_a_crowd_of_polls_is_a_few_queries(
    open_sale: Callable[..., Sale],
    turnstile: Turnstile,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sale = open_sale()
    written = [write(sale, f"c{number}") for number in range(20)]
    asked = 0
    ask = database.ask

    async def counted(query: Callable[[], object]) -> object:
        nonlocal asked
        asked += 1
        return await ask(query)

    monkeypatch.setattr(database, "ask", counted)
    standings = Standings(turnstile, database)
    found = await asyncio.gather(*(standings.find(order.id) for order in written * 100))
    assert [standing and standing.order_id for standing in found] == [order.id for order in written] * 100
    assert asked <= 10


async def test_a_buyers_orders_are_the_newest_first_and_nobody_elses(
    open_sale: Callable[..., Sale], turnstile: Turnstile, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "LISTED", 3)
    sale, other = open_sale(), open_sale()
    write(other, "bob")
    written = [write(each) for each in (sale, other, sale, sale)]
    found = await Standings(turnstile, database).of_customer("ann")
    assert [standing.order_id for standing in found] == [order.id for order in reversed(written[1:])]
    assert {standing.customer for standing in found} == {"ann"}
    assert [standing.slug for standing in found] == [sale.slug, sale.slug, other.slug]
    assert await Standings(turnstile, database).of_customer("eve") == []


async def test_a_crowd_that_lists_its_orders_does_not_look_like_a_database_that_is_away(
    open_sale: Callable[..., Sale], turnstile: Turnstile, database: Database
) -> None:
    sale = open_sale()
    standings = Standings(turnstile, database)
    write(sale)
    asked = [standings.of_customer("ann") for _ in range(400)]
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert [len(each) for each in found if isinstance(each, list)] == [1] * 400
    crowd = await asyncio.gather(*(standings.of_customer("ann") for _ in range(1500)), return_exceptions=True)
    assert any(isinstance(each, DatabaseAway) for each in crowd), "the queue has an end"
    assert await standings.find(write(sale).id) is not None


async def test_without_the_order_book_there_is_no_list(
    turnstile: Turnstile, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(query: Callable[[], object]) -> object:
        raise DatabaseAway("gone")

    monkeypatch.setattr(database, "ask", away)
    with pytest.raises(DatabaseAway):
        await Standings(turnstile, database).of_customer("ann")


@pytest.fixture(autouse=True)
def _only_our_sales(gate: redis.Redis) -> None:
    """Gates that other tests have left in pieces would make every unknown order a "nobody can tell"."""
    gate.flushall()


async def test_without_the_order_book_the_gate_answers_or_nobody(
    open_sale: Callable[..., Sale],
    turnstile: Turnstile,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sale = open_sale()
    facts = await turnstile.facts(sale.slug)
    assert facts is not None
    promised, written = uuid4(), write(sale)
    await turnstile.attempt(facts, Attempt(str(promised), "bob", 1))

    async def away(_: Callable[[], object]) -> object:
        raise DatabaseAway("frozen")

    monkeypatch.setattr(database, "ask", away)
    standings = Standings(turnstile, database)
    standing = await standings.find(promised)
    assert standing is not None
    assert (standing.customer, standing.state) == ("bob", "held")
    with pytest.raises(DatabaseAway):  # not "no such order": it stands in the book that is away
        await standings.find(written.id)


async def test_an_order_is_found_before_the_news_of_its_sale(
    open_sale: Callable[..., Sale], turnstile: Turnstile, database: Database
) -> None:
    open_sale()  # a gate that knows no sale at all could not tell
    standings = Standings(turnstile, database)
    assert await standings.find(uuid4()) is None  # the list of sales is known now, for a second
    sale = open_sale()
    facts = await turnstile.facts(sale.slug)
    assert facts is not None
    promised = uuid4()
    await turnstile.attempt(facts, Attempt(str(promised), "ann", 1))
    await asyncio.sleep(0.06)
    assert await standings.find(promised) is not None
