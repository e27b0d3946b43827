"""Parked records: replayed exactly once by the rules of the log, or dropped for a reason; never deleted.

Each test of a guard has its broken twin beside it.
"""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
import redis
from django.core.management import CommandError, call_command
from django.db import IntegrityError, OperationalError, connection, connections, transaction

from orders import book, claims, fulfillment, parking, settling
from orders.book import Source
from orders.fulfillment import fulfill
from orders.models import Order, OrderEvent, ParkedRecord, ParkedRecordEvent, Position
from orders.parking import Refused, StillUnusable, drop, replay, waiting
from sales import topic
from sales.gate import connect, image
from sales.models import Sale
from tests.orders.records import batch_of, cancel_of, claim_of, reads, take
from tests.running_site import free_port

pytestmark = pytest.mark.django_db(transaction=True)

OTHER_PRICE = "priced 1.00 EUR, the sale says 19.90 EUR"


@pytest.fixture
def park(source: Source) -> Callable[..., ParkedRecord]:
    """Fulfils a message while something is wrong with its sale, so that it is parked; then rights it."""

    def make(sale: Sale, message: claims.Message) -> ParkedRecord:
        Sale.objects.filter(id=sale.id).update(currency="XXX")
        assert fulfill(batch_of(source, message, first=book.position(source)), None) == []
        Sale.objects.filter(id=sale.id).update(currency="EUR")
        return ParkedRecord.objects.get(offset=book.position(source) - 1)

    return make


def sold(sale: Sale) -> int:
    sale.refresh_from_db()
    return sale.sold


def steps(record: ParkedRecord) -> list[tuple[str, str, str]]:
    return list(record.events.values_list("step", "actor", "reason"))


def parked_command(*arguments: str) -> tuple[int, str, str]:
    """Exit code, what it printed, and the line it ended with."""
    out = StringIO()
    try:
        call_command("parked", *arguments, stdout=out)
    except CommandError as error:
        return error.returncode, out.getvalue(), str(error)
    return 0, out.getvalue(), ""


# Replay


def test_a_replay_writes_the_order_and_tells_the_gate(
    open_sale: Callable[..., Sale], park: Callable[..., ParkedRecord], source: Source, gate: redis.Redis
) -> None:
    sale = open_sale(allotment=10)
    [claim] = take(sale, 1, quantity=1)
    record = park(sale, claim)
    assert (record.state, record.attempts, record.cause) == (
        "parked",
        1,
        "priced 19.90 EUR, the sale says 19.90 XXX",
    )
    before = book.position(source)
    done = replay(record.pk, client=gate, actor="olivia", reason="the currency is right now")
    assert (done.line, done.told) == (f"order {claim.order_id} is confirmed", True)
    assert sold(sale) == Order.objects.filter(state="confirmed").count() == OrderEvent.objects.count() == 1
    found = image(gate, sale.id)
    assert found is not None
    assert (found.remaining, found.held, found.settled) == (9, 0, 1)
    assert book.position(source) == before, "the position does not move"
    record.refresh_from_db()
    assert (record.state, record.attempts) == ("replayed", 2)
    assert record.tried_at > record.parked_at
    assert steps(record) == [("replayed", "olivia", "the currency is right now")]


def test_a_second_replay_writes_nothing_and_tells_the_gate_again(
    open_sale: Callable[..., Sale], park: Callable[..., ParkedRecord], gate: redis.Redis
) -> None:
    sale = open_sale(allotment=10)
    [claim] = take(sale)
    record = park(sale, claim)
    away = connect(f"redis://127.0.0.1:{free_port()}/0")
    done = replay(record.pk, client=away, actor="olivia")
    assert (done.line, done.told) == (f"order {claim.order_id} is confirmed", False)
    assert sold(sale) == 1
    again = replay(record.pk, client=gate, actor="olivia")
    assert again == (f"order {claim.order_id} is confirmed", True)
    assert sold(sale) == Order.objects.count() == OrderEvent.objects.count() == 1
    assert len(steps(record)) == 1
    found = image(gate, sale.id)
    assert found is not None
    assert (found.held, found.settled) == (0, 1)


def replay_by_two(record: ParkedRecord, gate: redis.Redis) -> list[str]:
    """Two replays at the same moment; what each of them returned or raised."""
    results: list[str] = []
    together = threading.Barrier(2)

    def run() -> None:
        together.wait(10)
        try:
            results.append(replay(record.pk, client=gate, actor="somebody").line)
        except Exception as error:
            results.append(repr(error))
        connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def test_two_replays_at_once_write_once(
    open_sale: Callable[..., Sale], park: Callable[..., ParkedRecord], gate: redis.Redis
) -> None:
    sale = open_sale(allotment=100)
    for claim in take(sale, 8):
        record = park(sale, claim)
        assert replay_by_two(record, gate) == [f"order {claim.order_id} is confirmed"] * 2
        assert len(steps(record)) == 1, "one of them wrote"
    assert sold(sale) == Order.objects.count() == OrderEvent.objects.count() == 8


def test_a_cancel_that_the_log_showed_meanwhile_wins(
    sale: Sale, park: Callable[..., ParkedRecord], source: Source, gate: redis.Redis
) -> None:
    claim = claim_of(sale)
    record = park(sale, claim)
    fulfill(batch_of(source, cancel_of(claim), first=1))
    assert replay(record.pk, client=gate, actor="o").line == f"order {claim.order_id} is cancelled (buyer)"
    assert sold(sale) == 0


def test_a_cancel_is_replayed_as_well(
    open_sale: Callable[..., Sale], park: Callable[..., ParkedRecord], source: Source, gate: redis.Redis
) -> None:
    sale = open_sale(allotment=10)
    [claim] = take(sale)
    settling.settle(gate, fulfill(batch_of(source, claim)))
    record = park(sale, cancel_of(claim))
    assert sold(sale) == 1
    for _ in range(2):
        assert replay(record.pk, client=gate, actor="o").told
        found = image(gate, sale.id)
        assert found is not None
        assert (sold(sale), found.remaining, found.settled, found.released) == (0, 10, 0, 1)


def test_what_is_sold_out_meanwhile_is_refused_and_gives_its_unit_back(
    open_sale: Callable[..., Sale], park: Callable[..., ParkedRecord], source: Source, gate: redis.Redis
) -> None:
    sale = open_sale(allotment=2)
    early, late, over = *take(sale, 2), claim_of(sale)
    record = park(sale, early)
    fulfill(batch_of(source, late, over, first=1))
    assert replay(record.pk, client=gate, actor="o").line == f"order {early.order_id} is refused (sold_out)"
    assert sold(sale) == 2


def barrier_of(sale: Sale, epoch: int) -> claims.Barrier:
    return claims.Barrier(v=1, sale_id=sale.id, pool=0, epoch=epoch, at=datetime.now(UTC))


def test_a_claim_behind_a_barrier_of_a_higher_epoch_loses(
    sale: Sale, park: Callable[..., ParkedRecord], source: Source, gate: redis.Redis
) -> None:
    stale, standing = park(sale, claim_of(sale, epoch=4)), park(sale, claim_of(sale, epoch=5))
    fulfill(batch_of(source, barrier_of(sale, 5), first=2))
    done = replay(stale.pk, client=gate, actor="o")
    assert done.line == "no order comes of it: its pool has been armed anew since"
    assert not Order.objects.exists()
    stale.refresh_from_db()
    assert stale.state == "replayed"
    replay(standing.pk, client=gate, actor="o")
    assert sold(sale) == Order.objects.count() == 1


def test_twin_without_the_sifting_it_would_be_sold_behind_the_barrier(
    sale: Sale,
    park: Callable[..., ParkedRecord],
    source: Source,
    gate: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stale = park(sale, claim_of(sale, epoch=4))
    fulfill(batch_of(source, barrier_of(sale, 5), first=1))
    real = parking.sift

    def without(records: Any, *, patient: bool) -> Any:
        [read] = records
        message: Any = claims.decode(read.value)
        return real(records, patient=patient)._replace(usable=[(read, message)])

    monkeypatch.setattr(parking, "sift", without)
    replay(stale.pk, client=gate, actor="o")
    assert sold(sale) == 1, "a unit the new gate was loaded with is sold twice"


def barrier_while_replaying(
    sale: Sale, record: ParkedRecord, source: Source, gate: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> int:
    """Sold units as the consumer sees them in the moment in which it has passed a barrier, while a replay
    of a claim before it is in the middle of its transaction."""
    decided, seen = threading.Event(), []
    real = parking.sift

    def slow(records: Any, *, patient: bool) -> Any:
        sifted = real(records, patient=patient)
        decided.set()
        consumer.join(1)  # only the twin's consumer ends in this time
        return sifted

    def pass_the_barrier() -> None:
        decided.wait(10)
        fulfill(batch_of(source, barrier_of(sale, record_epoch + 1), first=book.position(source)))
        seen.append(Sale.objects.get(id=sale.id).sold)
        connections.close_all()

    record_epoch = json.loads(bytes(record.value))["epoch"]
    consumer = threading.Thread(target=pass_the_barrier)
    consumer.start()
    with monkeypatch.context() as patched:
        patched.setattr(parking, "sift", slow)
        replay(record.pk, client=gate, actor="o")
    consumer.join(30)
    return seen[0]


def test_no_barrier_is_passed_in_the_middle_of_a_replay(
    sale: Sale,
    park: Callable[..., ParkedRecord],
    source: Source,
    gate: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = park(sale, claim_of(sale))
    assert barrier_while_replaying(sale, record, source, gate, monkeypatch) == 1
    assert sold(sale) == 1


def test_twin_without_holding_the_position_a_new_gate_would_miss_the_order(
    sale: Sale,
    park: Callable[..., ParkedRecord],
    source: Source,
    gate: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = park(sale, claim_of(sale))
    monkeypatch.setattr(parking, "_hold_position", lambda topic, partition: None)
    assert barrier_while_replaying(sale, record, source, gate, monkeypatch) == 0, (
        "passed, and loaded without it"
    )
    assert sold(sale) == 1


def test_the_position_of_the_topic_of_today_is_held_for_records_of_an_old_one(
    sale: Sale, park: Callable[..., ParkedRecord], gate: redis.Redis, settings: Any
) -> None:
    record = park(sale, claim_of(sale))
    today = Position.objects.create(
        topic=settings.FLUXGATE.kafka_topic,
        incarnation="new",
        partition=topic.partition_of(sale.id),
        next_offset=7,
    )
    waits: list[bool] = []

    def consumer_comes() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '300ms'")
            try:
                cursor.execute("UPDATE orders_position SET next_offset = 8 WHERE id = %s", (today.pk,))
                waits.append(False)
            except OperationalError:
                waits.append(True)
        connections.close_all()

    real = fulfillment.write

    def meanwhile(messages: Any) -> Any:
        thread = threading.Thread(target=consumer_comes)
        thread.start()
        thread.join(10)
        return real(messages)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fulfillment, "write", meanwhile)
        replay(record.pk, client=gate, actor="o")
    assert waits == [True]
    today.refresh_from_db()
    assert today.next_offset == 7


# What cannot be used still


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        (b"{", "Input data was truncated"),
        (b'{"v":9,"type":"claim"}', "version 9, this release reads version 1"),
    ],
)
def test_what_cannot_be_read_stays_parked_and_the_attempt_counts(
    source: Source, gate: redis.Redis, value: bytes, cause: str
) -> None:
    fulfill(batch_of(source, value), None)
    record = ParkedRecord.objects.get()
    for attempt in (2, 3):
        with pytest.raises(StillUnusable, match=cause):
            replay(record.pk, client=gate, actor="olivia", reason="try")
        record.refresh_from_db()
        assert (record.state, record.attempts, bytes(record.value)) == ("parked", attempt, value)
        assert cause in record.cause
    assert steps(record) == [("tried", "olivia", "try")] * 2
    assert waiting(*source) == 1


def test_the_last_cause_replaces_the_first_and_the_trace_keeps_it(
    sale: Sale, park: Callable[..., ParkedRecord], gate: redis.Redis
) -> None:
    record = park(sale, claim_of(sale))
    Sale.objects.filter(id=sale.id).update(currency="YYY")
    with pytest.raises(StillUnusable):
        replay(record.pk, client=gate, actor="o")
    record.refresh_from_db()
    assert record.cause == record.events.get().outcome == "priced 19.90 EUR, the sale says 19.90 YYY"
    assert not Order.objects.exists()


def test_what_only_the_database_refuses_stays_parked(sale: Sale, source: Source, gate: redis.Redis) -> None:
    too_many = claim_of(sale, pool=40_000)  # beyond a smallint
    fulfill(batch_of(source, too_many, claim_of(sale)), None)
    record = ParkedRecord.objects.get()
    with pytest.raises(StillUnusable, match="out of range"):
        replay(record.pk, client=gate, actor="o")
    record.refresh_from_db()
    assert (record.state, record.attempts, sold(sale)) == ("parked", 2, 1)


def test_a_replay_that_dies_before_its_commit_has_done_nothing(
    sale: Sale, park: Callable[..., ParkedRecord], gate: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = park(sale, claim_of(sale))

    def die(*arguments: Any) -> None:
        raise OperationalError("the connection is lost")

    with monkeypatch.context() as patched:
        patched.setattr(parking, "_remember", die)
        with pytest.raises(OperationalError):
            replay(record.pk, client=gate, actor="o")
    record.refresh_from_db()
    assert (record.state, record.attempts) == ("parked", 1)
    assert not Order.objects.exists()
    replay(record.pk, client=gate, actor="o")
    assert sold(sale) == 1


# Drop, and what is never deleted


def test_a_drop_keeps_everything_and_is_final(
    sale: Sale, park: Callable[..., ParkedRecord], source: Source, gate: redis.Redis
) -> None:
    record = park(sale, claim_of(sale))
    with pytest.raises(Refused, match="for a reason"):
        drop(record.pk, actor="olivia", reason="  ")
    assert waiting(*source) == 1
    drop(record.pk, actor="olivia", reason="a test of the shop")
    with pytest.raises(Refused, match=f"record {record.pk} is dropped: only a parked one can be dropped"):
        drop(record.pk, actor="olivia", reason="again")
    with pytest.raises(Refused, match=f"record {record.pk} is dropped: only a parked one can be replayed"):
        replay(record.pk, client=gate, actor="olivia")
    after = ParkedRecord.objects.get()
    assert (after.state, bytes(after.value), after.headers) == (
        "dropped",
        bytes(record.value),
        record.headers,
    )
    assert steps(record) == [("dropped", "olivia", "a test of the shop")]
    assert waiting(*source) == 0
    assert not Order.objects.exists()


def test_what_was_replayed_cannot_be_dropped(
    sale: Sale, park: Callable[..., ParkedRecord], gate: redis.Redis
) -> None:
    record = park(sale, claim_of(sale))
    replay(record.pk, client=gate, actor="o")
    with pytest.raises(Refused, match="is replayed: only a parked one can be dropped"):
        drop(record.pk, actor="o", reason="too late")


@pytest.mark.parametrize(
    "step", [lambda gate: replay(77, client=gate, actor="o"), lambda gate: drop(77, actor="o", reason="r")]
)
def test_a_record_that_is_not_there(db: None, gate: redis.Redis, step: Callable[..., Any]) -> None:
    with pytest.raises(Refused, match="there is no parked record 77"):
        step(gate)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM orders_parkedrecord",
        "UPDATE orders_parkedrecord SET value = 'x'",
        'UPDATE orders_parkedrecord SET "offset" = 5',
        "UPDATE orders_parkedrecord SET headers = '[]'",
        "UPDATE orders_parkedrecord SET state = 'parked'",
        "UPDATE orders_parkedrecord SET state = 'replayed'",
        "UPDATE orders_parkedrecordevent SET reason = 'x'",
        "DELETE FROM orders_parkedrecordevent",
    ],
)
def test_the_database_keeps_what_was_parked(
    sale: Sale, park: Callable[..., ParkedRecord], statement: str
) -> None:
    record = park(sale, claim_of(sale))
    drop(record.pk, actor="o", reason="why")
    before = ParkedRecord.objects.values().get(), ParkedRecordEvent.objects.values().get()
    with (
        pytest.raises(IntegrityError, match="is append-only"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)
    assert (ParkedRecord.objects.values().get(), ParkedRecordEvent.objects.values().get()) == before


def test_waiting_counts_one_partition_of_one_incarnation(source: Source) -> None:
    for offset, at in enumerate(
        (source, source, source._replace(incarnation="old"), source._replace(partition=2))
    ):
        book.park(at, reads(b"?", first=offset)[0], "why")
    assert waiting(*source) == 2


# The command


def test_the_list_of_the_command(sale: Sale, park: Callable[..., ParkedRecord]) -> None:
    assert parked_command("list") == (0, "Nothing is parked.\n", "")
    record = park(sale, claim := claim_of(sale))
    code, out, _ = parked_command("list")
    assert code == 0
    assert f"{record.topic}/0@0" in out
    code, out, _ = parked_command("list", "--json")
    found = json.loads(out)
    assert (found["state"], found["count"]) == ("parked", 1)
    [shown] = found["records"]
    assert (shown["id"], shown["offset"], shown["attempts"], shown["state"]) == (record.pk, 0, 1, "parked")
    assert json.loads(shown["value"])["order_id"] == str(claim.order_id)
    assert ["ce_type", "com.fluxgate.order.claimed.v1"] in shown["headers"]
    parked_command("drop", str(record.pk), "--reason", "a test")
    assert parked_command("list")[1] == "Nothing is parked.\n"
    [shown] = json.loads(parked_command("list", "--json", "--state", "dropped")[1])["records"]
    assert [(event["step"], event["reason"]) for event in shown["events"]] == [("dropped", "a test")]


def test_the_list_shows_bytes_and_ends_somewhere(source: Source) -> None:
    fulfill(batch_of(source, *[b"\xff"] * 5), None)
    found = json.loads(parked_command("list", "--json", "--limit", "2")[1])
    assert (found["count"], len(found["records"])) == (5, 2)
    assert found["records"][0]["value"] == {"base64": "/w=="}
    assert "… and 2 more" in parked_command("list", "--limit", "3")[1]


def test_the_command_replays_everything_in_the_order_of_the_log(
    open_sale: Callable[..., Sale], park: Callable[..., ParkedRecord], source: Source
) -> None:
    sale = open_sale(allotment=10)
    bought, given_back = take(sale, 2)
    records = [park(sale, message) for message in (bought, given_back, cancel_of(given_back))]
    fulfill(batch_of(source, b"{", first=3), None)
    code, out, last = parked_command("replay", "--all", "--reason", "the price was corrected")
    assert (code, last) == (1, "1 of 4 were not replayed")
    lines = out.splitlines()
    assert lines[0] == f"{records[0].pk}: {records[0]} replayed: order {bought.order_id} is confirmed"
    assert lines[2].endswith(f"order {given_back.order_id} is cancelled (buyer)")
    assert "is still parked: Input data was truncated" in lines[3]
    assert sold(sale) == 1
    assert waiting(*source) == 1
    event = records[0].events.get()
    assert (event.reason, event.actor.endswith("(shell)")) == ("the price was corrected", True)
    parked_command("drop", str(ParkedRecord.objects.get(offset=3).pk), "--reason", "rubbish")
    assert parked_command("replay", "--all") == (0, "0 replayed\n", "")
    assert parked_command("replay", str(records[0].pk))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["replay"], "which records? `manage.py parked list` shows their ids"),
        (["replay", "x"], "'x' is not an id: `manage.py parked list` shows them"),
        (["replay", "-1"], None),
        (["replay", "9" * 30], f"'{'9' * 30}' is not an id: `manage.py parked list` shows them"),
        (["replay", "{there}", "77"], "there is no parked record 77: nothing was done"),
        (["replay", "--all", "77"], "either ids or --all"),
        (["drop", "77", "--reason", "x"], "there is no parked record 77: nothing was done"),
        (["drop", "{there}", "--reason", "  "], "1 of 1 were not dropped"),
        (["drop", "{there}", "--reason", "x" * 501], "a reason has at most 500 characters"),
        (["drop", "{there}"], None),
        ([], None),
    ],
)
def test_what_the_command_refuses(
    sale: Sale, park: Callable[..., ParkedRecord], arguments: list[str], line: str | None
) -> None:
    record = park(sale, claim_of(sale))
    code, _, last = parked_command(*(text.format(there=record.pk) for text in arguments))
    assert code != 0
    if line is not None:
        assert last == line
    record.refresh_from_db()
    assert (record.state, record.attempts, sold(sale)) == ("parked", 1, 0)


def test_the_command_says_that_the_gate_was_not_told(
    sale: Sale, park: Callable[..., ParkedRecord], settings: Any
) -> None:
    record = park(sale, claim_of(sale))
    reachable = settings.FLUXGATE
    settings.FLUXGATE = reachable.model_copy(update={"gate_url": f"redis://127.0.0.1:{free_port()}/0"})
    code, _, last = parked_command("replay", str(record.pk))
    assert (code, last) == (1, "the gate was not told of 1: replay them again when it answers")
    assert sold(sale) == 1
    settings.FLUXGATE = reachable
    assert parked_command("replay", str(record.pk))[0] == 0
    assert sold(sale) == 1
