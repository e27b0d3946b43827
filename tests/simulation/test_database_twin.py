"""Contract: the same calls of the order book's modules on the twin and on PostgreSQL."""

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db import IntegrityError

from orders import book, epochs, repair_book
from orders.book import Read, Source, Zombie
from orders.claims import Claim
from orders.models import Order, OrderEvent, OrderState
from sales.models import Sale, SaleState
from tests.simulation.shipped import inside
from tests.simulation.tables import SaleRow
from tests.simulation.world import World

SOURCE = Source("orders", "an incarnation", 0)
MOMENT = datetime(2027, 1, 15, 8, 0, tzinfo=UTC)
Call = tuple[str, Callable[[], Any]]


def _claim(sale_id: UUID, number: int, quantity: int, customer: str) -> Claim:
    return Claim(
        v=1, order_id=UUID(int=number), sale_id=sale_id, product_id=1, user_id=customer, quantity=quantity,
        unit_price=Decimal("19.90"), currency="EUR", pool=0, epoch=7, claimed_at=MOMENT,
    )  # fmt: skip


def _call(rng: random.Random, sale: Sale) -> Call:
    """One call of the seam, with arguments that often do not fit."""
    ids = [UUID(int=rng.randint(1, 12)) for _ in range(3)]
    unique = list(dict.fromkeys(ids))
    claims = [_claim(sale.id, order.int, rng.randint(1, 2), f"buyer-{rng.randint(0, 3)}") for order in unique]
    customers = [f"buyer-{number}" for number in range(4)]
    expected, following = rng.randint(0, 4), rng.randint(1, 5)
    pool, epoch = (sale.id, 0), rng.randint(1, 9)
    state = rng.choice([OrderState.CONFIRMED, OrderState.CONFIRMED, OrderState.CANCELLED])
    read = Read(following, b"value", b"key", lambda: [("name", b"value")])
    return rng.choice(
        [
            *[("insert", lambda: book.insert(claims, state, [""] * len(claims)))] * 4,
            ("sell", lambda: book.sell(sale.id, rng.randint(1, 4))),
            ("unsell", lambda: book.unsell(sale.id, 1)),
            ("cancel", lambda: sorted(book.cancel(dict.fromkeys(unique, "buyer")))),
            ("refuse", lambda: book.refuse(unique[:1], "sold_out")),
            ("states", lambda: book.states(ids)),
            ("above_limit", lambda: book.above_limit([sale.id], customers)),
            ("position", lambda: book.position(SOURCE)),
            ("move_position", lambda: book.move_position(SOURCE, expected, following)),
            ("events", lambda: book.add_events([(ids[0], OrderState.CONFIRMED, "")])),
            ("lock", lambda: book.lock_in_order([sale.id])),
            ("park", lambda: book.park(SOURCE, read, "a cause")),
            ("parked", lambda: book.parked_offsets(SOURCE, 0, 9)),
            ("sales", lambda: book.sales([sale.id, UUID(int=99)])),
            ("move_to", lambda: epochs.move_to({pool: epoch})),
            ("passed", lambda: epochs.passed([pool, (UUID(int=99), 0)])),
            ("begin", lambda: epochs.begin(sale, epoch, "a reason", "somebody")),
            ("state", lambda: epochs.state(sale.id, 7)),
            ("gated", lambda: [(each.slug, each.epoch, each.state) for each in epochs.gated_sales()]),
            ("public", lambda: [each.slug for each in epochs.public_sales()]),
            ("known", lambda: sorted(order for some in epochs.known(sale.id, 0, epoch, 2) for order in some)),
            ("returned", lambda: sorted(epochs.returned(sale.id, 0))),
            ("summary", lambda: repair_book.summary(sale.id)),
            ("positions", lambda: repair_book.positions("orders", "an incarnation")),
            ("wind_back", lambda: repair_book.wind_back(SOURCE, expected, 1)),
            ("confirmed", lambda: sorted(row for rows in repair_book.confirmed(sale.id, 2) for row in rows)),
            ("confirmed_units", lambda: repair_book.confirmed_units(sale.id, customers)),
        ]
    )  # fmt: skip


class _Stop(Exception):
    pass


def _trace(seed: int, sale: Sale) -> list[Any]:
    """What a random program answers: calls alone, in transactions, in savepoints, some of them given up."""
    rng = random.Random(seed)
    answers: list[Any] = []

    def one() -> None:
        name, call = _call(rng, sale)
        try:
            answer = call()
        except (IntegrityError, Zombie, RuntimeError, epochs.NotPassed) as error:
            answers.append((name, type(error).__name__))
            raise
        answers.append((name, answer))

    for _ in range(40):
        shape, length, give_up = rng.random(), rng.randint(1, 4), rng.random() < 0.3
        with suppress(IntegrityError, Zombie, RuntimeError, epochs.NotPassed, _Stop):
            if shape < 0.4:
                one()
                continue
            with book.transaction():
                for _ in range(length):
                    if rng.random() < 0.3:
                        with suppress(IntegrityError, _Stop), book.savepoint():
                            book.sell(sale.id, 1)
                            if rng.random() < 0.5:
                                raise _Stop
                            book.add_events([(UUID(int=77), OrderState.CONFIRMED, "")])
                    name, call = _call(rng, sale)
                    if name != "known":  # it opens a transaction of its own
                        answers.append((name, call()))
                if give_up:
                    raise _Stop
    return answers


@pytest.fixture
def sale(make_sale: Callable[..., Sale]) -> Iterator[Sale]:
    made = make_sale(allotment=6, limit_per_customer=2, stock=100)
    Sale.objects.filter(pk=made.pk).update(state=SaleState.OPEN, epoch=7)
    made.refresh_from_db()
    yield made
    # Events are append-only, and flushing is done by truncating.
    assert OrderEvent.objects.count() >= 0
    assert Order.objects.count() <= 12


@pytest.mark.parametrize("seed", range(10))
def test_the_same_answers_as_postgresql(sale: Sale, seed: int) -> None:
    expected = _trace(seed, sale)

    world = World("calm", 0)
    world.books.committed.sales = {}
    world.books.committed.put_sale(
        SaleRow(
            sale.id, sale.slug, sale.product_id, 6, Decimal("19.90"), "EUR", 2, sale.opens_at, sale.closes_at,
            1000, 1000, 0, "open", 7,
        )
    )  # fmt: skip
    found: list[Any] = []
    with inside(world):
        world.command("program", lambda: found.extend(_trace(seed, sale)))
        world.scheduler.run(60.0, lambda: bool(found))
    assert world.failures == []
    assert found == expected
