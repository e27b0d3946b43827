"""The balance of the three books: the comparison by itself, on real books, and as a command."""

import json
import threading
import time
from collections.abc import Callable
from io import StringIO
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
import redis
from django.core.management import CommandError, call_command
from django.db import connection

from management.management.commands import reconcile as command
from orders import claims, reconciliation
from orders.balance import Balance, ClaimsBook, LogBook, OrderBook, balance
from orders.book import Read, Source
from orders.consumer import Consumer
from orders.fulfillment import Batch, fulfill
from orders.lag import Reach, reach
from orders.log import KafkaLog
from orders.models import Order
from orders.reconciliation import read
from orders.settling import settle
from sales import topic
from sales.gate import Image, mark_queued, pool_keys
from sales.models import Sale, SaleState
from tests.orders.records import claim_of, take
from tests.running_site import eventually, free_port

IMAGE = Image(epoch=5, state="open", loaded=10, remaining=4, held=0, queued=0, settled=6, released=1)
BOOK = OrderBook(
    allotment=10,
    sold=6,
    confirmed=6,
    confirmed_orders=5,
    refused_orders=1,
    cancelled_orders=1,
    customers_above_limit=0,
    orders_at_another_price=0,
)
QUIET = LogBook(unread=0, parked=0)


def compare(
    image: Image | None = IMAGE,
    book: OrderBook = BOOK,
    log: LogBook = QUIET,
    state: str = "open",
    claims: ClaimsBook | None = None,
) -> Balance:
    return balance("summer", state, 5, image, log, book, claims)


def test_books_that_agree_are_balanced() -> None:
    found = compare()
    assert (found.verdict, found.differences, found.under_way) == ("balanced", [], [])


@pytest.mark.parametrize(
    ("books", "line"),
    [
        ({"book": BOOK._replace(sold=11, confirmed=11)}, "I1: 11 units sold of 10"),
        ({"book": BOOK._replace(confirmed=5)}, "I1: the sale says 6 units sold, its confirmed orders 5"),
        ({"book": BOOK._replace(customers_above_limit=2)}, "I4: 2 customers"),
        ({"book": BOOK._replace(orders_at_another_price=1)}, "I6: 1 orders"),
        ({"image": None}, "I2: the gate holds nothing of this sale"),
        ({"image": IMAGE._replace(epoch=4)}, "the gate is of epoch 4, the sale of epoch 5"),
        (
            {"image": IMAGE._replace(settled=5)},
            "I2: 10 units loaded, but 4 remaining, 0 held, 0 queued, 5",
        ),
        ({"image": IMAGE._replace(remaining=-1, settled=11)}, "I2: 10 units loaded, but -1 remaining"),
        (
            {"image": IMAGE._replace(remaining=5, settled=5)},
            "I2: 5 units remain in the gate, the order book has only 4",
        ),
        (
            {"image": IMAGE._replace(remaining=3, settled=7)},
            "I3: granted and not in the order book, and nothing is left to read: 1 unit",
        ),
        # Promised, read to the end of the log, and in no book: nobody will write it down any more.
        (
            {"image": IMAGE._replace(remaining=3, settled=6, queued=1)},
            "I3: granted and not in the order book, and nothing is left to read: 1 unit",
        ),
        # While something is under way the gate may be ahead of the order book, never behind it.
        (
            {"image": IMAGE._replace(remaining=5, settled=4, held=1)},
            "I2: 5 units remain in the gate, the order",
        ),
    ],
)
def test_books_that_contradict_each_other_differ(books: dict[str, Any], line: str) -> None:
    found = compare(**books)
    assert found.verdict == "differs"
    assert any(difference.startswith(line) for difference in found.differences), found.differences


# All that the comparison of each claim with its row adds.
CLAIMS = ClaimsBook(compared=7, settled_units=6)


@pytest.mark.parametrize(
    ("books", "lines"),
    [
        ({}, []),
        (
            {"image": IMAGE._replace(queued=1, settled=5)},
            [
                "I2: the gate counts 1 units queued, its claims make 0",
                "I2: the gate counts 5 units settled, its claims make 6",
            ],
        ),
        (
            {
                "image": IMAGE._replace(queued=2, remaining=2),
                "claims": CLAIMS._replace(queued_units=2, without_row=1, without_row_units=2),
            },
            ["I3: without a row in the order book, and nothing is left to read: 1 claim (2 units)"],
        ),
        (
            {
                "image": IMAGE._replace(held=2, remaining=2),
                "claims": CLAIMS._replace(held_units=2, late=2, late_units=2),
            },
            ["I8: held for too long, and the log is up: 2 claims (2 units)"],
        ),
        (
            {
                "image": IMAGE._replace(queued=1, remaining=3),
                "claims": CLAIMS._replace(queued_units=1, to_release=1, to_release_units=1),
            },
            ["I2: not released, and their orders are refused or cancelled: 1 claim (1 unit)"],
        ),
        (
            {
                "image": IMAGE._replace(settled=5, queued=1),
                "claims": CLAIMS._replace(settled_units=5, queued_units=1, to_settle=1, to_settle_units=1),
            },
            ["I2: not settled, and their orders are confirmed: 1 claim (1 unit)"],
        ),
        (
            {
                "image": IMAGE._replace(settled=5, remaining=5),
                "claims": CLAIMS._replace(settled_units=5, unknown=1, unknown_units=1),
            },
            [
                "I2: confirmed, and not known to the gate: 1 order (1 unit)",
                "I2: 5 units remain in the gate, the order book has only 4 left",
            ],
        ),
        (
            {"claims": CLAIMS._replace(customers_above=1, customers_below=2)},
            [
                "I4: more units in the gate than in the order book, refused below the limit: 1 customer",
                "I4: fewer units in the gate than in the order book, granted above the limit: 2 customers",
            ],
        ),
        # What the claims do not explain stays a difference of its own.
        (
            {
                "image": IMAGE._replace(queued=3, remaining=1),
                "claims": CLAIMS._replace(queued_units=3, without_row=2, without_row_units=2),
            },
            [
                "I3: without a row in the order book, and nothing is left to read: 2 claims (2 units)",
                "I3: granted and not in the order book, and nothing is left to read: 1 unit",
            ],
        ),
        (
            {"log": QUIET._replace(lost=48)},
            ["I3: the log ends 48 records before the position: an acknowledged"],
        ),
    ],
)
def test_a_fault_between_claims_and_rows_is_one_line(books: dict[str, Any], lines: list[str]) -> None:
    found = compare(**{"claims": CLAIMS, **books})
    assert len(found.differences) == len(lines), found.differences
    for difference, line in zip(found.differences, lines, strict=True):
        assert difference.startswith(line)


def test_claims_that_were_not_all_compared_are_under_way() -> None:
    found = compare(claims=ClaimsBook(compared=3, complete=False, settled_units=3))
    assert (found.verdict, found.under_way) == (
        "under way",
        ["only 3 claims compared with their rows in time"],
    )


@pytest.mark.parametrize(
    ("books", "differs"),
    [
        ({}, False),
        ({"image": None}, True),
        ({"image": None, "state": "settled"}, False),
        ({"image": IMAGE._replace(epoch=4)}, True),
        ({"image": IMAGE._replace(state="arming", loaded=0)}, False),  # the gatekeeper is at it
        ({"image": IMAGE._replace(loaded=9)}, True),
        ({"claims": CLAIMS._replace(unknown=1)}, True),
        ({"claims": CLAIMS._replace(customers_below=1)}, True),
        ({"claims": CLAIMS._replace(settled_units=5)}, True),
        ({"claims": CLAIMS._replace(without_row=1)}, False),
    ],
)
def test_when_only_a_new_arming_helps(books: dict[str, Any], differs: bool) -> None:
    assert compare(**{"claims": CLAIMS, **books}).gate_differs is differs


@pytest.mark.parametrize(
    ("books", "line"),
    [
        ({"image": IMAGE._replace(remaining=1, held=2, queued=1)}, "2 units are held, 1 queued"),
        ({"log": LogBook(unread=7, parked=0)}, "7 records of the log are not in the order book yet"),
        ({"state": SaleState.ARMING, "image": None}, "the sale is being armed"),
    ],
)
def test_what_is_between_two_books_is_under_way(books: dict[str, Any], line: str) -> None:
    found = compare(**books)
    assert (found.verdict, found.differences, found.under_way) == ("under way", [], [line])


def test_a_gate_that_moves_while_the_books_are_read_is_under_way() -> None:
    moving = IMAGE._replace(remaining=3, settled=6, queued=1)
    found = balance("summer", "open", 5, moving, QUIET, BOOK, quiet=False)
    assert (found.verdict, found.differences) == ("under way", [])


@pytest.mark.parametrize(
    ("state", "verdict"), [("open", "differs"), ("paused", "differs"), ("closed", "balanced")]
)
def test_a_fenced_gate_sells_nothing_and_says_so(state: str, verdict: str) -> None:
    found = balance(
        "summer", state, 5, IMAGE._replace(state=state), QUIET, BOOK, fallen="an arming has not ended"
    )
    assert found.verdict == verdict


@pytest.mark.parametrize(
    ("state", "returned"), [(SaleState.DRAFT, 0), (SaleState.SCHEDULED, 0), (SaleState.SETTLED, 4)]
)
def test_a_sale_without_a_gate_is_balanced_by_its_order_book(state: SaleState, returned: int) -> None:
    assert compare(image=None, state=state, book=BOOK._replace(returned=returned)).verdict == "balanced"


def test_a_settled_sale_has_each_unit_sold_or_returned() -> None:
    found = compare(image=None, state=SaleState.SETTLED, book=BOOK._replace(returned=3))
    assert found.differences == ["I2: settled, and 1 unit neither sold nor back in the product"]
    found = compare(image=None, state=SaleState.SETTLED, book=BOOK._replace(returned=5))
    assert found.differences[0] == "I1: 6 units sold of 10, 5 of which went back into the product"


def test_a_log_that_did_not_answer_is_no_difference() -> None:
    assert compare(log=LogBook(unread=None, parked=3)).verdict == "under way"


# On real books


@pytest.fixture
def day(
    open_sale: Callable[..., Sale], own_topic: str, kafka_log: KafkaLog, gate: redis.Redis
) -> tuple[Sale, list[claims.Claim]]:
    """A sale of ten with four orders, in all three books."""
    sale = open_sale(allotment=10, limit_per_customer=2)
    placed = take(sale, 4)
    write(kafka_log, gate, sale, placed)
    return sale, placed


def write(log: KafkaLog, gate: redis.Redis, sale: Sale, placed: list[claims.Claim], first: int = 0) -> None:
    """Log, order book, gate: what a web process and a consumer do."""
    reports: list[Exception | None] = []
    records = [claims.encode(claim, topic.partition_of(sale.id)) for claim in placed]
    for record in records:
        log.append(record, reports.append)
    eventually(lambda: len(reports) == len(placed))
    source = Source(log._topic, topic.incarnation(), topic.partition_of(sale.id))
    reads = [Read(n, record.value, record.key) for n, record in enumerate(records, first)]
    settle(gate, fulfill(Batch(source, first, reads)))


Day = tuple[Sale, list[claims.Claim]]
real = pytest.mark.django_db(transaction=True)
kafka = pytest.mark.kafka


def verdict(gate: redis.Redis, sale: Sale) -> tuple[str, list[str]]:
    [found] = read(gate, [sale])
    return found.verdict, found.differences + found.under_way


@real
@kafka
def test_a_whole_day_balances(day: Day, gate: redis.Redis) -> None:
    sale, _ = day
    [found] = read(gate, [sale])
    assert (found.verdict, found.differences, found.under_way) == ("balanced", [], [])
    assert found.gate is not None
    assert (found.gate.remaining, found.gate.settled, found.log.unread) == (6, 4, 0)
    assert (found.book.sold, found.book.confirmed_orders) == (4, 4)


@real
@kafka
def test_units_that_are_held_are_under_way(day: Day, gate: redis.Redis) -> None:
    sale, _ = day
    take(sale, 2)
    assert verdict(gate, sale) == ("under way", ["2 units are held, 0 queued"])


@real
@kafka
def test_records_that_nobody_has_read_are_under_way(day: Day, gate: redis.Redis, kafka_log: KafkaLog) -> None:
    sale, _ = day
    reports: list[Exception | None] = []
    for claim in take(sale, 3):
        kafka_log.append(claims.encode(claim, topic.partition_of(sale.id)), reports.append)
    eventually(lambda: len(reports) == 3)
    assert verdict(gate, sale) == (
        "under way",
        ["3 records of the log are not in the order book yet", "3 units are held, 0 queued"],
    )


@real
@kafka
def test_a_unit_that_the_gate_lost_differs(day: Day, gate: redis.Redis) -> None:
    sale, _ = day
    gate.hincrby(pool_keys(sale.id).gate, "remaining", -1)
    kind, lines = verdict(gate, sale)
    assert kind == "differs"
    assert any(line.startswith("I2: 10 units loaded") for line in lines)


@real
@kafka
def test_a_gate_that_was_wiped_differs(day: Day, gate: redis.Redis) -> None:
    sale, _ = day
    gate.flushdb()
    assert verdict(gate, sale) == ("differs", ["I2: the gate holds nothing of this sale"])


@real
@kafka
def test_a_row_that_somebody_changed_by_hand_differs(day: Day, gate: redis.Redis) -> None:
    sale, placed = day
    Order.objects.filter(id=placed[0].order_id).update(state="refused")
    kind, lines = verdict(gate, sale)
    assert (kind, lines) == (
        "differs",
        [
            "I1: the sale says 4 units sold, its confirmed orders 3",
            "I2: not released, and their orders are refused or cancelled: 1 claim (1 unit)",
        ],
    )


@real
@kafka
def test_a_customer_above_the_limit_differs(day: Day, gate: redis.Redis, kafka_log: KafkaLog) -> None:
    sale, _ = day
    write(kafka_log, gate, sale, [claim_of(sale, user_id="greedy", quantity=2)], first=4)
    [bought] = Order.objects.filter(customer="greedy")
    bought.pk = uuid4()
    bought.save(force_insert=True)
    kind, lines = verdict(gate, sale)
    assert kind == "differs"
    assert "I4: 1 customers have more confirmed units than the limit" in lines


@real
@kafka
def test_a_batch_between_two_books_is_read_again(
    day: Day, gate: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate is told a moment after the order book: what goes away by itself is no difference."""
    sale, _ = day
    gate.hincrby(pool_keys(sale.id).gate, "remaining", -1)
    slept: list[float] = []

    def meanwhile(seconds: float) -> None:
        slept.append(seconds)
        gate.hincrby(pool_keys(sale.id).gate, "remaining", 1)

    monkeypatch.setattr(reconciliation, "time", SimpleNamespace(sleep=meanwhile))
    assert verdict(gate, sale) == ("balanced", [])
    assert len(slept) == 1


@real
@kafka
def test_the_lag_of_a_partition(day: Day, settings: Any) -> None:
    sale, _ = day
    mine = topic.partition_of(sale.id)
    others = {0, 1, 2} - {mine}
    assert reach({0, 1, 2}) == {mine: Reach(4, 4)} | dict.fromkeys(others, Reach(0, 0))
    assert reach(set()) == {}
    settings.FLUXGATE = settings.FLUXGATE.model_copy(update={"kafka_brokers": f"127.0.0.1:{free_port()}"})
    assert reach({0}) == {}


# The command


def reconcile(*arguments: str) -> tuple[int, str]:
    """Exit code and output."""
    out = StringIO()
    try:
        call_command("reconcile", *arguments, stdout=out)
    except SystemExit as end:
        return int(end.code or 0), out.getvalue()
    return 0, out.getvalue()


@real
@kafka
def test_the_command_says_balanced_and_ends_with_0(day: Day) -> None:
    sale, _ = day
    code, text = reconcile()
    assert code == 0
    assert f"{sale.slug}: balanced" in text
    assert "remaining 6" in text
    assert "settled 4" in text
    assert "sold 4" in text


@real
@kafka
def test_the_command_lists_what_differs_and_ends_with_1(day: Day, gate: redis.Redis) -> None:
    sale, _ = day
    gate.flushdb()
    code, text = reconcile("--sale", sale.slug)
    assert code == 1
    assert f"{sale.slug}: differs" in text
    assert "the gate holds nothing of this sale" in text


@real
@kafka
def test_the_command_speaks_json(day: Day, gate: redis.Redis) -> None:
    sale, _ = day
    code, text = reconcile("--json")
    report = json.loads(text)
    assert code == 0
    assert report["balanced"] is True
    [found] = report["sales"]
    assert (found["sale"], found["verdict"]) == (sale.slug, "balanced")
    assert found["gate"]["settled"] == found["book"]["sold"] == 4
    assert found["log"] == {"unread": 0, "parked": 0, "lost": 0}
    take(sale, 1)
    code, text = reconcile("--json")
    report = json.loads(text)
    assert (code, report["balanced"], report["sales"][0]["verdict"]) == (1, False, "under way")
    assert report["sales"][0]["under_way"] == ["1 units are held, 0 queued"]


@real
@kafka
def test_the_command_waits_for_what_is_under_way(
    day: Day, gate: redis.Redis, kafka_log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    sale, _ = day
    late = take(sale, 1)
    assert reconcile()[0] == 1
    clock = SimpleNamespace(
        monotonic=time.monotonic, sleep=lambda seconds: write(kafka_log, gate, sale, late, first=4)
    )
    monkeypatch.setattr(command, "time", clock)
    assert reconcile("--wait", "30")[0] == 0


@real
def test_without_an_armed_sale_there_is_nothing_to_compare() -> None:
    assert reconcile() == (0, "No sale has been armed yet: there is nothing to compare.\n")


@real
def test_an_unknown_sale_is_one_clear_line() -> None:
    with pytest.raises(CommandError, match=r"^there is no sale 'nope'$"):
        call_command("reconcile", "--sale", "nope")


@real
@kafka
def test_a_gate_that_is_down_is_one_clear_line(day: Day, settings: Any) -> None:
    settings.FLUXGATE = settings.FLUXGATE.model_copy(
        update={"gate_url": f"redis://127.0.0.1:{free_port()}/0"}
    )
    with pytest.raises(CommandError, match=r"^the gate's Redis does not answer"):
        call_command("reconcile")


# Repairs, by command


def consuming(work: Consumer, stop: threading.Event) -> threading.Thread:
    def consume() -> None:
        while not stop.is_set():
            work.step(0.02)
        connection.close()

    thread = threading.Thread(target=consume)
    thread.start()
    return thread


@real
@kafka
def test_the_command_repairs_on_request_and_ends_with_0_when_all_is_written(
    open_sale: Callable[..., Sale], own_topic: str, gate: redis.Redis, start: Callable[..., Consumer]
) -> None:
    sale = open_sale(allotment=10)
    lost = take(sale, 2)
    mark_queued(gate, sale.id, 0, sale.epoch, [claim.order_id for claim in lost])
    assert reconcile()[0] == 1
    assert Order.objects.count() == 0  # nothing is repaired unless it is asked for
    stop = threading.Event()
    thread = consuming(start(), stop)
    try:
        code, text = reconcile("--fix", "--wait", "60")
    finally:
        stop.set()
        thread.join()
    assert (code, text.splitlines()[0]) == (0, f"{sale.slug}: 2 claims without a row appended again"), text
    assert Order.objects.filter(state="confirmed").count() == 2


@real
@kafka
def test_the_command_arms_again_where_no_gatekeeper_runs(
    open_sale: Callable[..., Sale], own_topic: str, gate: redis.Redis, start: Callable[..., Consumer]
) -> None:
    sale = open_sale(allotment=10)
    gate.flushdb()
    stop = threading.Event()
    thread = consuming(start(), stop)
    try:
        code, text = reconcile("--sale", sale.slug, "--fix", "--json")
    finally:
        stop.set()
        thread.join()
    report = json.loads(text)
    assert (code, report["balanced"]) == (0, True), text
    assert [(done["action"], done["times"]) for done in report["repairs"]] == [("rearm", 1)]
    take(sale, 1)  # and it sells


@real
@kafka
def test_without_a_consumer_the_command_says_what_it_waits_for(
    day: Day, gate: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "REARMED_SECONDS", 0.0)
    sale, _ = day
    gate.flushdb()
    code, text = reconcile("--fix")
    assert code == 1
    assert f"{sale.slug}: gate not armed again yet: " in text


@real
@kafka
def test_the_whole_log_is_read_again_on_request(
    day: Day, gate: redis.Redis, start: Callable[..., Consumer]
) -> None:
    sale, _ = day
    with pytest.raises(CommandError, match="--read-again goes with --fix"):
        call_command("reconcile", "--read-again")
    code, text = reconcile("--fix", "--read-again")
    assert code == 1
    assert f"{sale.slug}: position of " in text
    assert "4 records of the log are not in the order book yet" in text
    worker = start()
    eventually(lambda: (worker.step(0.05), worker.drained())[1])
    assert reconcile()[0] == 0
    assert Order.objects.count() == 4
