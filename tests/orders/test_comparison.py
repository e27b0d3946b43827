"""Each claim of the gate beside its row: what stays wrong is found, and what is on its way is not."""

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
import redis
from django.utils import timezone

from orders import comparison
from orders.balance import ClaimsBook
from orders.comparison import Comparison, Kind, Stray
from orders.models import Order, OrderState
from sales.gate import mark_queued, pool_keys, release, settle
from sales.models import Sale
from tests.orders.records import take

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("waits")]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """What happens while the comparison waits for its second look: nothing, unless a test says so."""
    meanwhile: list[Callable[[], object]] = []

    def sleep(seconds: float) -> None:
        while meanwhile:
            meanwhile.pop(0)()

    clock = SimpleNamespace(sleep=sleep, monotonic=time.monotonic)
    monkeypatch.setattr(comparison, "time", clock)
    return meanwhile


@pytest.fixture
def sale(open_sale: Callable[..., Sale]) -> Sale:
    return open_sale(allotment=100, limit_per_customer=2)


def write(sale: Sale, *placed: Any, state: str = "confirmed") -> None:
    """Puts rows of claims into the order book, and nothing else."""
    for claim in placed:
        Order.objects.create(
            id=claim.order_id,
            sale=sale,
            customer=claim.user_id,
            quantity=claim.quantity,
            unit_price=claim.unit_price,
            currency=claim.currency,
            state=state,
            epoch=claim.epoch,
            claimed_at=claim.claimed_at,
        )


def compare(
    gate: redis.Redis, sale: Sale, read_to_the_end: bool = True, **options: Any
) -> tuple[ClaimsBook, dict[Kind, set[Any]]]:
    made = Comparison(gate, sale, lambda: read_to_the_end, **options)
    found: dict[Kind, set[Any]] = {}
    for strays in made.strays():
        for stray in strays:
            found.setdefault(stray.kind, set()).add(stray.order_id)
    return made.book, found


def ids(*placed: Any) -> set[Any]:
    return {claim.order_id for claim in placed}


def queue(gate: redis.Redis, sale: Sale, *placed: Any) -> None:
    assert mark_queued(gate, sale.id, 0, sale.epoch, ids(*placed)) == len(placed)


def test_claims_with_their_rows_are_no_strays(gate: redis.Redis, sale: Sale) -> None:
    placed = take(sale, 3)
    write(sale, *placed)
    settle(gate, sale.id, 0, ids(*placed))
    book, found = compare(gate, sale)
    assert (book, found) == (ClaimsBook(3, settled_units=3), {})


def test_every_kind_of_stray_is_found_once(gate: redis.Redis, sale: Sale) -> None:
    held, queued, settled, cancelled, refused, unsettled, unknown, returned = take(sale, 8)
    old = "h1:1000:1:ann"  # held since 1970
    gate.hset(pool_keys(sale.id).claims, str(held.order_id), old)
    queue(gate, sale, queued, cancelled, unsettled)
    settle(gate, sale.id, 0, ids(settled, refused))
    write(sale, cancelled, state="cancelled")
    write(sale, refused, state="refused")
    write(sale, unsettled, unknown, returned)
    gate.hdel(pool_keys(sale.id).claims, str(unknown.order_id))
    release(gate, sale.id, 0, ids(returned))
    book, found = compare(gate, sale)
    assert found == {
        Kind.LATE: ids(held),
        Kind.WITHOUT_ROW: ids(queued, settled),
        Kind.TO_RELEASE: ids(cancelled, refused),
        Kind.TO_SETTLE: ids(unsettled),
        Kind.UNKNOWN: ids(unknown, returned),
    }
    assert (book.late, book.without_row, book.to_release, book.to_settle, book.unknown) == (1, 2, 2, 1, 2)
    assert book.without_row_units == 2
    assert (book.compared, book.held_units, book.queued_units, book.settled_units) == (7, 1, 3, 2)


def test_claims_without_a_row_are_on_their_way_while_the_log_is_ahead(gate: redis.Redis, sale: Sale) -> None:
    placed = take(sale, 2)
    queue(gate, sale, *placed)
    assert compare(gate, sale, read_to_the_end=False) == (ClaimsBook(2, queued_units=2), {})
    # Broken twin: as if everything had been read.
    assert compare(gate, sale)[1] == {Kind.WITHOUT_ROW: ids(*placed)}


def test_a_claim_is_late_only_after_a_while(gate: redis.Redis, sale: Sale) -> None:
    placed = take(sale, 1)
    assert compare(gate, sale)[1] == {}
    assert compare(gate, sale, late_seconds=-1)[1] == {Kind.LATE: ids(*placed)}


@pytest.mark.parametrize("kind", ["row", "release", "settle", "cancel"])
def test_what_the_consumer_does_meanwhile_is_no_stray(
    gate: redis.Redis, sale: Sale, waits: list[Callable[[], object]], kind: str
) -> None:
    [claim] = take(sale, 1)
    queue(gate, sale, claim)
    if kind == "row":
        waits += [lambda: write(sale, claim), lambda: settle(gate, sale.id, 0, ids(claim))]
    elif kind == "settle":
        write(sale, claim)
        waits.append(lambda: settle(gate, sale.id, 0, ids(claim)))
    elif kind == "release":
        write(sale, claim, state="cancelled")
        waits.append(lambda: release(gate, sale.id, 0, ids(claim)))
    else:
        write(sale, claim)
        release(gate, sale.id, 0, ids(claim))
        waits.append(lambda: Order.objects.update(state=OrderState.CANCELLED))
    assert compare(gate, sale)[1] == {}
    assert waits == []  # it did happen in between


def test_chunks_and_second_looks_lose_nothing(
    gate: redis.Redis, sale: Sale, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "CHUNK", 7)
    monkeypatch.setattr(comparison, "SUSPECTS", 10)
    keys = pool_keys(sale.id)
    made = {str(uuid4()): f"q1:1:{sale.epoch}:ann" for _ in range(1500)}
    gate.hset(keys.claims, mapping=made)
    book, found = compare(gate, sale)
    assert {str(each) for each in found[Kind.WITHOUT_ROW]} == made.keys()
    assert book.compared >= 1500


def test_the_time_may_be_up_before_the_end(
    gate: redis.Redis, sale: Sale, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "CHUNK", 50)
    gate.hset(pool_keys(sale.id).claims, mapping={str(uuid4()): "r1:1:1:ann" for _ in range(2000)})
    book, _ = compare(gate, sale, seconds=0)
    assert book.complete is False
    assert 0 < book.compared < 2000
    assert compare(gate, sale, seconds=60)[0].complete is True


def test_customers_are_counted_in_both_books(gate: redis.Redis, sale: Sale) -> None:
    placed = take(sale, 3)
    write(sale, *placed)
    settle(gate, sale.id, 0, ids(*placed))
    keys = pool_keys(sale.id)
    gate.hset(keys.customers, placed[0].user_id, f"2:{placed[0].order_id}")  # refused below the limit
    gate.hset(keys.customers, placed[1].user_id, f"0:{placed[1].order_id}")  # granted above it
    gate.hset(keys.customers, "nobody", f"1:{uuid4()}")
    book, _ = compare(gate, sale)
    assert (book.customers_above, book.customers_below) == (2, 1)
    # With a claim between the books the gate may count more, never less.
    take(sale, 1)
    book, _ = compare(gate, sale)
    assert (book.customers_above, book.customers_below) == (0, 1)


def test_a_stray_says_what_the_gate_knows(gate: redis.Redis, sale: Sale) -> None:
    [claim] = take(sale, 1, quantity=2)
    queue(gate, sale, claim)
    [[stray]] = list(Comparison(gate, sale, lambda: True).strays())
    assert stray.claim is not None
    assert stray[:3] == Stray(Kind.WITHOUT_ROW, claim.order_id, 2, None)[:3]
    assert (stray.claim.customer, stray.claim.epoch) == (claim.user_id, sale.epoch)
    assert stray.claim.claimed_at <= timezone.now()
