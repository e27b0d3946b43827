"""PostgreSQL that hangs or is gone: nobody waits for it, and what was known is said."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection

from sales import database as module
from sales.api import Snapshots
from sales.database import Database, DatabaseAway
from sales.models import Product, Sale
from sales.turnstile import Turnstile

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setattr(module, "QUERY_SECONDS", 0.1)
    monkeypatch.setattr(module, "AWAY_SECONDS", 0.3)
    opened = Database()
    yield opened
    opened.close()


def hang() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(3)")


async def test_an_answer_in_time(database: Database) -> None:
    assert await database.ask(Product.objects.count) == 0


async def test_what_the_query_raises_is_raised(database: Database) -> None:
    with pytest.raises(Product.DoesNotExist):
        await database.ask(lambda: Product.objects.get(pk=0))


async def test_a_query_that_hangs_is_given_up_and_nobody_asks_for_a_moment(database: Database) -> None:
    with pytest.raises(DatabaseAway, match="no answer"):
        await database.ask(hang)
    with pytest.raises(DatabaseAway, match="a moment ago"):
        await database.ask(Product.objects.count)
    await asyncio.sleep(0.35)
    assert await database.ask(Product.objects.count) == 0


async def test_sale_facts_outlive_a_database_that_hangs(
    open_sale: Callable[..., Sale], turnstile: Turnstile, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sales.api.SNAPSHOT_SECONDS", 0)
    sale = open_sale()
    snapshots = Snapshots(turnstile, database)
    known = await snapshots.get(sale.slug)
    assert [facts["slug"] for facts in known] == [sale.slug]
    ask = database.ask

    async def hanging(_: Callable[[], Any]) -> Any:
        return await ask(hang)

    monkeypatch.setattr(database, "ask", hanging)
    assert await snapshots.get(sale.slug) == known
