"""Who works: a gatekeeper, consumers, and how far fulfillment is behind."""

from collections.abc import Iterator
from functools import partial

from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import AdminClient
from django.conf import settings
from django.db import connection

from orders import lag
from orders.doctor.finding import Finding, Level
from orders.leadership import LOCK
from orders.models import ParkedRecord, ParkedState
from sales.directory import GATED
from sales.models import Sale
from sales.topic import ANSWER_SECONDS, client_config

_found = partial(Finding, "processes")
# A consumer writes so many in a second or two.
UNREAD = 20_000


def examine() -> Iterator[Finding]:
    # Without a sale that could sell, nobody has to work yet.
    missing = Level.FAIL if Sale.objects.filter(state__in=GATED).exists() else Level.WARN
    yield _gatekeeper(missing)
    yield _consumers(missing)
    yield from _fulfillment()
    yield _parked()


def _gatekeeper(missing: Level) -> Finding:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 "
            "AND classid = %s AND objid = %s "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            (LOCK >> 32, LOCK & 0xFFFFFFFF),
        )
        leads = cursor.fetchone()[0] > 0
    if leads:
        return _found(Level.OK, "a gatekeeper leads")
    hint = "start `manage.py run_gatekeeper`: a gate that falls stays shut, and held claims stay held"
    return _found(missing, "no gatekeeper runs", hint)


def _consumers(missing: Level) -> Finding:
    group = settings.FLUXGATE.kafka_group
    admin = AdminClient({**client_config(), "log_level": 0})
    try:
        described = admin.describe_consumer_groups([group], request_timeout=ANSWER_SECONDS)[group].result()
    except KafkaException as error:
        text = f"consumers of the group {group}: not told by this broker ({error.args[0].name()})"
        return _found(Level.WARN, text)
    members = len(described.members)
    if members:
        return _found(Level.OK, f"{members} consumer{'s' if members > 1 else ''} in the group {group}")
    if described.state == ConsumerGroupState.STABLE:  # Tansu keeps its members to itself
        return _found(Level.WARN, f"the group {group} is stable; its consumers: not told by this broker")
    hint = "start `manage.py run_fulfillment`: orders stay queued"
    return _found(missing, f"no consumer in the group {group}", hint)


def _fulfillment() -> Iterator[Finding]:
    flux = settings.FLUXGATE
    reaches = lag.reach(set(range(flux.kafka_partitions)))
    for number, reach in sorted(reaches.items()):
        if reach.lost:
            text = (
                f"{flux.kafka_topic}/{number} ends {reach.lost} records before the position: a tail is lost"
            )
            yield _found(Level.FAIL, text, "run `manage.py reconcile --fix`, then start the consumers again")
    silent = flux.kafka_partitions - len(reaches)
    if silent:
        yield _found(Level.WARN, f"{silent} partitions did not tell how far they have been read")
    unread = sum(reach.unread for reach in reaches.values())
    text = f"{unread} records are not in the order book yet"
    if unread > UNREAD:
        yield _found(Level.WARN, text, "orders stay queued meanwhile: start more consumers")
    elif reaches:
        yield _found(Level.OK, text)


def _parked() -> Finding:
    parked = ParkedRecord.objects.filter(state=ParkedState.PARKED).count()
    if parked:
        hint = "look at them in the admin, or with `manage.py parked`"
        return _found(Level.WARN, f"{parked} parked records", hint)
    return _found(Level.OK, "no parked records")
