"""Fulfillment: one batch, one transaction, on a real PostgreSQL.

Each test of a guard has its broken twin beside it: the same scene with the guard taken away, where
the violation appears.
"""

import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import Error, IntegrityError, OperationalError, connection, connections
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from orders import book, claims, epochs, fulfillment
from orders.book import Source, Zombie
from orders.fulfillment import POISON_IN_A_ROW, Batch, NewerVersion, Poisoned, fulfill, recall
from orders.models import Barrier, Order, OrderEvent, OrderState, ParkedRecord, Position
from sales.models import Sale
from tests.orders.records import batch_of, cancel_of, claim_of, kill_this_connection, reads

pytestmark = pytest.mark.django_db(transaction=True)

CONFIRMED, REFUSED, CANCELLED = OrderState.CONFIRMED, OrderState.REFUSED, OrderState.CANCELLED


def sold(sale: Sale) -> int:
    sale.refresh_from_db()
    return sale.sold


def states(*messages: claims.Claim) -> list[str]:
    """The rows' states, in the order of the claims; "" where there is no row."""
    found = {order.id: order.state for order in Order.objects.all()}
    return [found.get(claim.order_id, "") for claim in messages]


def barrier_of(sale: Sale, epoch: int, **facts: Any) -> claims.Barrier:
    return claims.Barrier(
        **{"v": 1, "sale_id": sale.id, "pool": 0, "epoch": epoch, "at": datetime.now(UTC)} | facts
    )


def assert_nothing_written(source: Source) -> None:
    assert book.position(source) == 0
    assert not Order.objects.exists()
    assert not OrderEvent.objects.exists()
    assert not ParkedRecord.objects.exists()


# A batch


def test_claims_become_orders_events_and_sold_units(make_sale: Callable[..., Sale], source: Source) -> None:
    sale = make_sale(limit_per_customer=2)
    one, two = claim_of(sale, user_id="ann", quantity=2), claim_of(sale, user_id="bob")
    outcomes = fulfill(batch_of(source, one, two))
    assert [(o.order_id, o.sale_id, o.pool, o.state, o.reason, o.new) for o in outcomes] == [
        (claim.order_id, sale.id, 0, CONFIRMED, "", True) for claim in (one, two)
    ]
    assert sold(sale) == 3
    order = Order.objects.get(id=one.order_id)
    assert (order.sale, order.customer, order.quantity, order.unit_price, order.currency) == (
        sale,
        "ann",
        2,
        Decimal("19.90"),
        "EUR",
    )
    assert (order.pool, order.epoch, order.reason) == (0, one.epoch, "")
    assert order.claimed_at == one.claimed_at
    assert order.written_at >= one.claimed_at
    events = list(OrderEvent.objects.values_list("order_id", "state", "reason"))
    assert sorted(events) == sorted((claim.order_id, "confirmed", "") for claim in (one, two))
    assert Position.objects.get().next_offset == 2


ODD_CUSTOMERS = ['a"b', "a\\b", "a\nb", "{,}", "NULL", " ", "grün", "'; --", "%s"]


def test_customers_are_written_as_they_call_themselves(sale: Sale, source: Source) -> None:
    fulfill(batch_of(source, *(claim_of(sale, user_id=name) for name in ODD_CUSTOMERS)))
    assert sorted(Order.objects.values_list("customer", flat=True)) == sorted(ODD_CUSTOMERS)
    for name in ODD_CUSTOMERS:  # and are found again
        [outcome] = fulfill(batch_of(source, claim_of(sale, user_id=name), first=book.position(source)))
        assert (outcome.state, outcome.reason) == (REFUSED, "limit_reached")


def test_twin_customers_as_json_would_write_them_lose_their_line_breaks(
    sale: Sale, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book, "_texts", book._array)
    fulfill(batch_of(source, claim_of(sale, user_id="a\nb")))
    assert Order.objects.get().customer == "anb"


def test_no_order_is_ever_deleted(sale: Sale, source: Source) -> None:
    """Its events have no foreign key that would keep it."""
    claim = claim_of(sale)
    fulfill(batch_of(source, claim))
    with pytest.raises(IntegrityError, match="append-only"), connection.cursor() as cursor:
        cursor.execute("DELETE FROM orders_order WHERE id = %s", [claim.order_id])
    assert states(claim) == ["confirmed"]


def test_several_sales_share_a_batch(make_sale: Callable[..., Sale], source: Source) -> None:
    first, second = make_sale(), make_sale()
    fulfill(batch_of(source, *(claim_of(sale) for sale in (first, second, first, second, first))))
    assert (sold(first), sold(second)) == (3, 2)


def test_the_next_batch_begins_where_the_last_one_ended(sale: Sale, source: Source) -> None:
    fulfill(batch_of(source, claim_of(sale), claim_of(sale)))
    fulfill(batch_of(source, claim_of(sale), first=2))
    assert book.position(source) == 3
    assert sold(sale) == 3


def test_positions_of_partitions_and_of_incarnations_are_apart(sale: Sale, source: Source) -> None:
    for other in (source, source._replace(partition=1), source._replace(incarnation="made anew")):
        fulfill(batch_of(other, claim_of(sale)))
    assert sold(sale) == 3
    assert Position.objects.count() == 3


# Redelivery: a claim that has its row changes nothing


def test_a_claim_that_comes_again_changes_nothing(sale: Sale, source: Source) -> None:
    claim = claim_of(sale)
    fulfill(batch_of(source, claim))
    [outcome] = fulfill(batch_of(source, claim, first=1))
    assert (outcome.state, outcome.new) == (CONFIRMED, False)
    assert sold(sale) == 1
    assert Order.objects.count() == OrderEvent.objects.count() == 1


def test_a_claim_that_comes_twice_in_one_batch_counts_once(sale: Sale, source: Source) -> None:
    claim, other = claim_of(sale), claim_of(sale)
    outcomes = fulfill(batch_of(source, claim, other, claim))
    assert [(o.order_id, o.new) for o in outcomes] == [
        (claim.order_id, True),
        (other.order_id, True),
        (claim.order_id, False),
    ]
    assert sold(sale) == 2
    assert OrderEvent.objects.count() == 2


def test_twin_believing_that_every_claim_is_new_counts_it_twice(
    sale: Sale, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = book.insert

    def believing(written: Sequence[claims.Claim], *rest: Any) -> set[UUID]:
        insert(written, *rest)
        return {claim.order_id for claim in written}

    monkeypatch.setattr(book, "insert", believing)
    claim = claim_of(sale)
    fulfill(batch_of(source, claim))
    fulfill(batch_of(source, claim, first=1))
    assert sold(sale) == 2, "one order, two units: what the returned rows guard against"


# Zombies: the position is the fence


def test_a_zombies_batch_writes_nothing(sale: Sale, source: Source) -> None:
    fulfill(batch_of(source, claim_of(sale), claim_of(sale)))
    with pytest.raises(Zombie):
        fulfill(batch_of(source, claim_of(sale), claim_of(sale)))  # of another consumer, from 0 as well
    with pytest.raises(Zombie):
        fulfill(batch_of(source, claim_of(sale), first=5))
    assert (sold(sale), Order.objects.count(), book.position(source)) == (2, 2, 2)


def test_twin_a_position_that_is_simply_set_goes_back(
    sale: Sale, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    def simply_set(at: Source, expected: int, following: int) -> None:
        Position.objects.update_or_create(
            topic=at.topic,
            incarnation=at.incarnation,
            partition=at.partition,
            defaults={"next_offset": following},
        )

    monkeypatch.setattr(book, "move_position", simply_set)
    fulfill(batch_of(source, claim_of(sale), claim_of(sale)))
    fulfill(batch_of(source, claim_of(sale)))
    assert book.position(source) == 1, "the zombie has moved the true consumer's position back"


def test_of_two_first_comers_one_writes(sale: Sale, source: Source) -> None:
    results: list[str] = []
    start = threading.Barrier(2)

    def consumer(batch: Batch) -> None:
        try:
            start.wait(10)
            fulfill(batch)
            results.append("written")
        except Zombie:
            results.append("zombie")
        finally:
            connections.close_all()

    batches = [batch_of(source, claim_of(sale), claim_of(sale)) for _ in range(2)]
    threads = [threading.Thread(target=consumer, args=(batch,)) for batch in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(results) == ["written", "zombie"]
    assert (sold(sale), Order.objects.count(), book.position(source)) == (2, 2, 2)


# Excess: I1


def test_claims_beyond_the_allotment_are_refused_in_log_order(
    make_sale: Callable[..., Sale], source: Source
) -> None:
    sale = make_sale(allotment=5, limit_per_customer=2)
    placed = [claim_of(sale, quantity=quantity) for quantity in (2, 2, 2, 1, 1)]
    outcomes = fulfill(batch_of(source, *placed))
    assert [(o.state, o.reason) for o in outcomes] == [
        (CONFIRMED, ""),
        (CONFIRMED, ""),
        (REFUSED, "sold_out"),
        (CONFIRMED, ""),
        (REFUSED, "sold_out"),
    ]
    assert states(*placed) == [o.state for o in outcomes]
    assert sold(sale) == 5
    events = Counter(OrderEvent.objects.values_list("state", "reason"))
    assert events == {("confirmed", ""): 3, ("refused", "sold_out"): 2}


def test_a_refused_order_stays_refused(make_sale: Callable[..., Sale], source: Source) -> None:
    sale = make_sale(allotment=1)
    first, second = claim_of(sale), claim_of(sale)
    fulfill(batch_of(source, first, second))
    fulfill(batch_of(source, cancel_of(first), first=2))
    [outcome] = fulfill(batch_of(source, second, first=3))
    assert (outcome.state, outcome.new) == (REFUSED, False), "a terminal state never changes"
    assert sold(sale) == 0


def test_an_excess_in_one_sale_does_not_touch_another(make_sale: Callable[..., Sale], source: Source) -> None:
    small, big = make_sale(allotment=1), make_sale(allotment=100)
    fulfill(batch_of(source, *(claim_of(sale) for sale in (small, big, small, big))))
    assert (sold(small), sold(big)) == (1, 2)


def test_twin_without_the_condition_the_constraint_still_holds_but_the_excess_is_lost_to_parking(
    make_sale: Callable[..., Sale], source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unconditional(sale_id: UUID, units: int) -> bool:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE sales_sale SET sold = sold + %s WHERE id = %s", (units, sale_id))
        return True

    monkeypatch.setattr(book, "sell", unconditional)
    sale = make_sale(allotment=1)
    fulfill(batch_of(source, claim_of(sale), claim_of(sale)))
    assert sold(sale) == 1, "the CHECK constraint is the last line of defence"
    assert ParkedRecord.objects.count() == 1, "its claim has no outcome: its unit would stay held for ever"


# Cancels: whichever the log shows first wins


def test_a_cancel_gives_the_units_of_a_confirmed_order_back_once(
    make_sale: Callable[..., Sale], source: Source
) -> None:
    sale = make_sale(limit_per_customer=3)
    claim = claim_of(sale, quantity=3)
    fulfill(batch_of(source, claim))
    [outcome] = fulfill(batch_of(source, cancel_of(claim), first=1))
    assert (outcome.state, outcome.reason, outcome.new) == (CANCELLED, "buyer", True)
    again = fulfill(batch_of(source, cancel_of(claim), cancel_of(claim, "operator"), first=2))
    assert [(o.state, o.reason, o.new) for o in again] == [(CANCELLED, "buyer", False)] * 2
    assert sold(sale) == 0
    assert list(OrderEvent.objects.values_list("state", "reason")) == [
        ("confirmed", ""),
        ("cancelled", "buyer"),
    ]


def test_a_cancel_before_its_claim_makes_the_claim_lose(sale: Sale, source: Source) -> None:
    claim = claim_of(sale)
    fulfill(batch_of(source, cancel_of(claim, "operator")))
    [outcome] = fulfill(batch_of(source, claim, first=1))
    assert (outcome.state, outcome.reason, outcome.new) == (CANCELLED, "operator", False)
    assert sold(sale) == 0
    assert OrderEvent.objects.count() == 1


@pytest.mark.parametrize("cancel_first", [True, False])
def test_claim_and_cancel_in_one_batch(sale: Sale, source: Source, cancel_first: bool) -> None:
    claim = claim_of(sale)
    messages = [cancel_of(claim), claim] if cancel_first else [claim, cancel_of(claim)]
    outcomes = fulfill(batch_of(source, *messages))
    assert outcomes[-1].state == CANCELLED
    assert states(claim) == ["cancelled"]
    assert sold(sale) == 0


def test_a_cancel_of_a_refused_order_leaves_it_refused(
    make_sale: Callable[..., Sale], source: Source
) -> None:
    sale = make_sale(allotment=1)
    first, second = claim_of(sale), claim_of(sale)
    outcomes = fulfill(batch_of(source, first, second, cancel_of(second)))
    assert [o.state for o in outcomes] == [CONFIRMED, REFUSED, REFUSED]
    assert sold(sale) == 1


def test_a_cancelled_unit_is_there_for_the_claims_after_it_and_not_before(
    make_sale: Callable[..., Sale], source: Source
) -> None:
    sale = make_sale(allotment=1)
    first, before, after = claim_of(sale), claim_of(sale), claim_of(sale)
    fulfill(batch_of(source, first, before, cancel_of(first), after))
    assert states(first, before, after) == ["cancelled", "refused", "confirmed"]
    assert sold(sale) == 1


def test_twin_claims_before_cancels_whatever_the_log_says(
    make_sale: Callable[..., Sale], source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = fulfillment.write

    def cancels_last(messages: Sequence[claims.Message]) -> list[fulfillment.Outcome]:
        return write(sorted(messages, key=lambda message: isinstance(message, claims.Cancel)))

    monkeypatch.setattr(fulfillment, "write", cancels_last)
    sale = make_sale(allotment=1)
    first, after = claim_of(sale), claim_of(sale)
    fulfill(batch_of(source, first, cancel_of(first), after))
    assert states(after) == ["refused"], "a claim the gate has granted rightly is refused"


# Epochs: a pool that is armed again leaves late claims behind


@pytest.mark.parametrize("cut", [5, 3, 2, 1])
def test_claims_of_an_epoch_before_the_barrier_are_dropped_behind_it(
    sale: Sale, source: Source, cut: int
) -> None:
    before, late, new = (claim_of(sale, epoch=epoch) for epoch in (4, 4, 7))
    log = reads(before, barrier_of(sale, 7), late, new, cancel_of(before))
    for first in range(0, len(log), cut):
        fulfill(Batch(source, first, log[first : first + cut]))
    assert states(before, late, new) == ["cancelled", "", "confirmed"]
    assert Barrier.objects.get(sale=sale, pool=0).epoch == 7
    assert not ParkedRecord.objects.exists()
    again = claims.Claim(**{**{f: getattr(late, f) for f in late.__struct_fields__}, "epoch": 7})
    fulfill(Batch(source, len(log), reads(again, first=len(log))))
    assert states(late) == ["confirmed"], "its key could be granted again, and was"


def test_twin_without_the_barrier_a_late_claim_is_confirmed(
    sale: Sale, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epochs, "passed", lambda pools: dict.fromkeys(pools, 0))
    late = claim_of(sale, epoch=4)
    fulfill(batch_of(source, barrier_of(sale, 7)))
    fulfill(batch_of(source, late, first=1))
    assert states(late) == ["confirmed"]


def test_another_pool_and_another_sale_have_barriers_of_their_own(
    make_sale: Callable[..., Sale], source: Source
) -> None:
    one, other = make_sale(), make_sale()
    elsewhere, beside = claim_of(other, epoch=4), claim_of(one, epoch=4, pool=1)
    fulfill(batch_of(source, barrier_of(one, 7), elsewhere, beside))
    assert states(elsewhere, beside) == ["confirmed", "confirmed"]


# The limit per customer, which the gate keeps and the order book proves


def test_what_is_above_the_limit_is_refused_in_log_order(
    make_sale: Callable[..., Sale], source: Source
) -> None:
    sale = make_sale(allotment=10, limit_per_customer=2)
    first, second, third = (claim_of(sale, user_id="ann") for _ in range(3))
    bob = claim_of(sale, user_id="bob", quantity=2)
    outcomes = fulfill(batch_of(source, first, bob, second, third))
    assert [(o.state, o.reason) for o in outcomes] == [(CONFIRMED, "")] * 3 + [(REFUSED, "limit_reached")]
    fourth = claim_of(sale, user_id="ann")
    fulfill(batch_of(source, cancel_of(first), fourth, claim_of(sale, user_id="ann"), first=4))
    assert states(fourth) == ["confirmed"], "a cancelled order does not count"
    assert sold(sale) == 4


@pytest.mark.parametrize("cut", [4, 3, 2, 1])
@pytest.mark.parametrize(
    ("allotment", "quantities", "outcome"),
    [
        (9, (1, 2, 1), ["", "limit_reached", ""]),
        (1, (2, 1), ["sold_out", ""]),
        (2, (1, 1, 1), ["", "", "limit_reached"]),
    ],
)
def test_what_is_refused_does_not_depend_on_the_batches(
    make_sale: Callable[..., Sale],
    source: Source,
    allotment: int,
    quantities: tuple[int, ...],
    outcome: list[str],
    cut: int,
) -> None:
    """A gate that has granted too much: after a failover of PostgreSQL the log is cut otherwise."""
    sale = make_sale(allotment=allotment, limit_per_customer=2)
    log = reads(*(claim_of(sale, user_id="ann", quantity=quantity) for quantity in quantities))
    found = []
    for first in range(0, len(log), cut):
        found += fulfill(Batch(source, first, log[first : first + cut]))
    assert [each.reason for each in found] == outcome


def test_twin_without_the_limit_one_customer_has_everything(
    sale: Sale, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book, "above_limit", lambda *arguments: {})
    fulfill(batch_of(source, *(claim_of(sale, user_id="ann") for _ in range(5))))
    assert sold(sale) == 5


# A newer release has written


def test_a_record_of_a_newer_release_waits_and_nothing_is_written(sale: Sale, source: Source) -> None:
    newer = changed(sale, b'"v":1', b'"v":2')
    with pytest.raises(NewerVersion, match="version 2") as waiting:
        fulfill(batch_of(source, claim_of(sale), newer))
    assert waiting.value.offset == 1
    assert_nothing_written(source)
    fulfill(batch_of(source, claim_of(sale), newer), poison_in_a_row=None)
    assert ParkedRecord.objects.get().cause == "version 2, this release reads version 1"


# Poison: parked, whole, and on it goes


def changed(sale: Sale, old: bytes, new: bytes) -> bytes:
    value = claims.encode(claim_of(sale), 0).value
    assert old in value
    return value.replace(old, new)


POISON: dict[str, Callable[[Sale], claims.Message | bytes | None]] = {
    "the value is empty": lambda sale: None,
    "Input data was truncated": lambda sale: b"{",
    "Expected `int` >= 1": lambda sale: claims.Barrier(
        v=1, sale_id=sale.id, pool=0, epoch=0, at=datetime.now(UTC)
    ),
    "there is no sale 00000000-0000-0000-0000-000000000001": lambda sale: barrier_of(
        sale, 7, sale_id=UUID(int=1)
    ),
    "there is no sale": lambda sale: claim_of(sale, sale_id=uuid4()),
    "there is no sale 0": lambda sale: cancel_of(claim_of(sale, sale_id=UUID(int=0))),
    "priced 0.01 EUR": lambda sale: claim_of(sale, unit_price=Decimal("0.01")),
    "priced 19.90 USD": lambda sale: claim_of(sale, currency="USD"),
    "unit_price is not a number": lambda sale: changed(sale, b'"19.90"', b'"sNaN"'),
    "claimed_at is not of our time": lambda sale: changed(sale, b'at":"2026', b'at":"0026'),
    "product 999999": lambda sale: claim_of(sale, product_id=999999),
    "a NUL byte in the customer": lambda sale: claim_of(sale, user_id="an\0n"),
    # What only PostgreSQL refuses: the batch falls back to one by one.
    "smallint out of range": lambda sale: claim_of(sale, pool=70_000),
    "out of range for type bigint": lambda sale: claim_of(sale, epoch=2**63),
    "order_pool": lambda sale: claim_of(sale, pool=-1),
    "JSON is malformed": lambda sale: changed(sale, b"customer-", b"\\ud800"),
}


@pytest.mark.parametrize("cause", POISON)
def test_a_record_that_cannot_be_used_is_parked_and_the_rest_goes_on(
    sale: Sale, source: Source, cause: str
) -> None:
    before, after = claim_of(sale), claim_of(sale)
    batch = batch_of(source, before, POISON[cause](sale), after)
    outcomes = fulfill(batch)
    assert [o.order_id for o in outcomes] == [before.order_id, after.order_id]
    assert states(before, after) == ["confirmed", "confirmed"]
    assert (sold(sale), book.position(source)) == (2, 3)
    parked = ParkedRecord.objects.get()
    assert cause in parked.cause
    assert (parked.topic, parked.incarnation, parked.partition, parked.offset) == (*source, 1)
    bad = batch.records[1]
    assert (bytes(parked.key), bytes(parked.value)) == (bad.key, bad.value or b"")
    assert [name for name, _ in parked.headers] == [name for name, _ in bad.headers() or ()]


def test_headers_are_kept_whole(source: Source) -> None:
    headers = [("text", "grün".encode()), ("binary", b"\xff\0"), ("nul", b"a\0b"), ("none", None)]
    fulfill(Batch(source, 0, [book.Read(0, b"?", None, lambda: headers)]))
    parked = ParkedRecord.objects.get()
    assert parked.headers == [
        ["text", "grün"],
        ["binary", {"base64": "/wA="}],
        ["nul", {"base64": "YQBi"}],
        ["none", None],
    ]
    assert bytes(parked.key) == b""


def test_a_long_cause_is_cut_to_the_column(source: Source) -> None:
    fulfill(batch_of(source, json.dumps({"v": 1, "type": "x" * 2000}).encode()))
    assert len(ParkedRecord.objects.get().cause) <= 500


def test_twin_without_the_fallback_one_record_stops_the_partition(
    sale: Sale, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fulfillment, "_POISON", ())
    with pytest.raises(Error):
        fulfill(batch_of(source, claim_of(sale), claim_of(sale, pool=70_000)))
    assert_nothing_written(source)


def test_where_everything_is_poison_it_stops_and_parks_nothing(source: Source) -> None:
    with pytest.raises(Poisoned, match=f"{POISON_IN_A_ROW} records in a row"):
        fulfill(batch_of(source, *[b"?"] * POISON_IN_A_ROW))
    assert_nothing_written(source)


def test_poison_that_trickles_in_stops_as_well(sale: Sale, source: Source) -> None:
    fulfill(batch_of(source, claim_of(sale)))
    for offset in range(1, POISON_IN_A_ROW):
        fulfill(batch_of(source, b"?", first=offset))
    with pytest.raises(Poisoned):
        fulfill(batch_of(source, b"?", first=POISON_IN_A_ROW))
    assert book.position(source) == POISON_IN_A_ROW
    assert ParkedRecord.objects.count() == POISON_IN_A_ROW - 1
    # A usable record in between breaks the row; an operator may also insist.
    fulfill(batch_of(source, b"?", claim_of(sale), first=POISON_IN_A_ROW), poison_in_a_row=None)
    fulfill(batch_of(source, b"?", first=POISON_IN_A_ROW + 2))
    assert ParkedRecord.objects.count() == POISON_IN_A_ROW + 1


def test_a_row_of_poison_stops_wherever_it_lies_in_a_batch(sale: Sale, source: Source) -> None:
    row = [b"?"] * POISON_IN_A_ROW
    with pytest.raises(Poisoned, match=f"@{POISON_IN_A_ROW};"):
        fulfill(batch_of(source, claim_of(sale), *row, claim_of(sale)))
    assert_nothing_written(source)


def test_some_poison_in_a_big_batch_is_only_parked(sale: Sale, source: Source) -> None:
    fulfill(batch_of(source, *[b"?"] * (POISON_IN_A_ROW - 1), claim_of(sale), *[b"?"] * 10))
    assert ParkedRecord.objects.count() == POISON_IN_A_ROW + 9
    assert sold(sale) == 1


# PostgreSQL goes away in the middle: not poison, and nothing half written


@pytest.mark.parametrize("step", ["move_position", "insert", "sell", "add_events", "park"])
def test_a_batch_cut_off_at_any_step_is_written_whole_the_next_time(
    sale: Sale, source: Source, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    batch = batch_of(source, claim_of(sale), b"?", claim_of(sale))
    real = getattr(book, step)

    def cut_off(*arguments: Any) -> Any:
        result = real(*arguments)
        kill_this_connection()
        return result

    with monkeypatch.context() as patched:
        patched.setattr(book, step, cut_off)
        with pytest.raises(OperationalError):
            fulfill(batch)
    connection.close()
    assert_nothing_written(source)
    fulfill(batch)
    assert (sold(sale), book.position(source), ParkedRecord.objects.count()) == (2, 3, 1)


def test_twin_without_one_transaction_a_cut_leaves_half_a_batch(
    sale: Sale, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book, "transaction", nullcontext)
    monkeypatch.setattr(book, "sell", lambda *arguments: kill_this_connection())
    with pytest.raises(OperationalError):
        fulfill(batch_of(source, claim_of(sale)))
    connection.close()
    assert (sold(sale), Order.objects.count(), book.position(source)) == (0, 1, 1)


# Several consumers at once


def interleave(batches: Sequence[Batch], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Fulfills two batches at once, each waiting after its first run until the other is there too.

    Returns what PostgreSQL complained of.
    """
    both_have_locked = threading.Barrier(2)
    add_events = book.add_events

    def wait_for_the_other(changes: Any) -> None:
        add_events(changes)
        # Broken when the other one waits for a lock of ours, as it should.
        with suppress(threading.BrokenBarrierError):
            both_have_locked.wait(1)

    monkeypatch.setattr(book, "add_events", wait_for_the_other)
    errors: list[str] = []

    def consumer(batch: Batch) -> None:
        try:
            fulfill(batch)
        except OperationalError as error:
            errors.append(str(error))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=consumer, args=(batch,)) for batch in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return errors


def crossing(make_sale: Callable[..., Sale], source: Source) -> list[Batch]:
    """Two batches that touch two sales in opposite order, in two runs each."""
    one, two = make_sale(), make_sale()
    old = [claim_of(one), claim_of(two)]
    fulfill(batch_of(source, *old))
    return [
        batch_of(source._replace(partition=1), claim_of(one), cancel_of(old[1])),
        batch_of(source._replace(partition=2), claim_of(two), cancel_of(old[0])),
    ]


def test_consumers_that_touch_the_same_sales_do_not_deadlock(
    make_sale: Callable[..., Sale], source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = interleave(crossing(make_sale, source), monkeypatch)
    assert errors == []
    assert [sale.sold for sale in Sale.objects.all()] == [1, 1]


def test_twin_without_the_lock_order_they_do(
    make_sale: Callable[..., Sale], source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book, "lock_in_order", lambda sale_ids: None)
    errors = interleave(crossing(make_sale, source), monkeypatch)
    assert len(errors) == 1
    assert "deadlock" in errors[0]


# What was fulfilled before can be told again


def test_recall_tells_what_the_book_says_and_writes_nothing(
    make_sale: Callable[..., Sale], source: Source
) -> None:
    sale = make_sale(allotment=1)
    confirmed, refused, unknown = claim_of(sale), claim_of(sale), claim_of(sale)
    fulfill(batch_of(source, confirmed, refused, b"?"))
    told = recall(reads(confirmed, refused, b"?", None, unknown, cancel_of(refused)))
    assert [(o.order_id, o.state, o.new) for o in told] == [
        (confirmed.order_id, CONFIRMED, False),
        (refused.order_id, REFUSED, False),
        (refused.order_id, REFUSED, False),
    ]
    assert Order.objects.count() == 2


# Any log, cut into any batches, with any restarts, gives the same book


@st.composite
def logs(draw: st.DrawFn) -> tuple[int, list[tuple[str, int, int]], list[int]]:
    """An allotment; claims and cancels of a few orders in any order; where the batches end."""
    message = st.tuples(st.sampled_from(["claim", "cancel"]), st.integers(0, 7), st.integers(1, 3))
    messages = draw(st.lists(message, min_size=1, max_size=25))
    cuts = draw(st.lists(st.integers(1, len(messages)), max_size=6))
    return draw(st.integers(1, 8)), messages, cuts


def model(allotment: int, messages: list[tuple[str, int, int]]) -> tuple[dict[int, str], int]:
    """The rules, one message at a time: states by order, and the units sold."""
    orders: dict[int, tuple[str, int]] = {}
    left = allotment
    for kind, number, quantity in messages:
        state, units = orders.get(number, ("", quantity))
        if kind == "claim" and not state:
            confirmed = units <= left
            orders[number] = ("confirmed" if confirmed else "refused", units)
            left -= units if confirmed else 0
        elif kind == "cancel" and state in ("", "confirmed"):
            orders[number] = ("cancelled", units)
            left += units if state else 0
    return {number: state for number, (state, _) in orders.items()}, allotment - left


@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(scene=logs())
def test_the_book_is_the_same_however_the_log_is_cut(
    make_sale: Callable[..., Sale], scene: tuple[int, list[tuple[str, int, int]], list[int]]
) -> None:
    allotment, messages, cuts = scene
    sale = make_sale(allotment=allotment, limit_per_customer=100)
    source = Source(f"orders-{uuid4().hex[:8]}", "", 0)
    ids = [uuid4() for _ in range(8)]
    at = datetime.now(UTC)
    log = reads(
        *(
            claim if kind == "claim" else cancel_of(claim)
            for kind, number, quantity in messages
            for claim in [claim_of(sale, order_id=ids[number], quantity=quantity, claimed_at=at)]
        )
    )
    edges = sorted({0, *cuts, len(log)})
    for first, following in pairwise(edges):
        fulfill(Batch(source, first, log[first:following]))
        with pytest.raises(Zombie):  # the same batch again, as after a crash before the commit of offsets
            fulfill(Batch(source, first, log[first:following]))
    expected, units = model(allotment, messages)
    found = dict(Order.objects.filter(sale=sale).values_list("id", "state"))
    assert found == {ids[number]: state for number, state in expected.items()}
    assert sold(sale) == units
    for order_id in found:
        last = OrderEvent.objects.filter(order_id=order_id).last()
        assert last is not None
        assert last.state == found[order_id]
