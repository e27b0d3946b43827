"""The doctor on real servers: what is well is ok, and each illness is found, beside everything else."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import psycopg
import pytest
import redis
from django.core.management import call_command
from django.db import connection

from orders.consumer import Consumer
from orders.doctor import Finding, Level, clocks, examination, examine, kafka, postgres, processes
from orders.doctor import redis_servers as servers
from orders.leadership import Leadership
from orders.models import ParkedRecord, Position
from sales import topic
from sales.models import Sale
from tests.orders import conftest
from tests.running_site import eventually, free_port

pytestmark = [pytest.mark.kafka, pytest.mark.django_db(transaction=True)]
own_topic = conftest.own_topic


def found(check: Callable[[], Iterator[Finding]], word: str) -> Finding:
    """The one finding whose text has this word."""
    [only] = [finding for finding in check() if word in finding.text]
    return only


def changed(settings: Any, **values: Any) -> None:
    settings.FLUXGATE = settings.FLUXGATE.model_copy(update=values)


# The whole


def doctor(*arguments: str) -> tuple[int, str]:
    out = StringIO()
    try:
        call_command("doctor", *arguments, stdout=out)
    except SystemExit as end:
        return int(end.code or 0), out.getvalue()
    return 0, out.getvalue()


def test_a_healthy_house_has_no_failure(own_topic: str) -> None:
    code, text = doctor()
    lines = text.splitlines()
    assert (code, " 0 FAIL" in lines[-1]) == (0, True), text
    assert len(lines) > 20
    for area in examination.CHECKS:
        assert any(f"  {area}" in line for line in lines), area


def test_an_illness_ends_the_command_with_1_and_says_what_to_do(own_topic: str, settings: Any) -> None:
    changed(settings, kafka_topic="not-there")
    code, text = doctor("--json")
    report = json.loads(text)
    assert (code, report["healthy"]) == (1, False)
    [bad] = [finding for finding in report["findings"] if finding["level"] == "FAIL"]
    assert bad == {
        "area": "Kafka",
        "level": "FAIL",
        "text": "topic not-there does not exist",
        "hint": "run `manage.py ensure_topics`",
    }


def test_when_everything_is_away_every_check_says_so_in_time(settings: Any) -> None:
    port = free_port()
    changed(
        settings,
        gate_url=f"redis://127.0.0.1:{port}/0",
        cache_url=f"redis://127.0.0.1:{port}/0",
        kafka_brokers=f"127.0.0.1:{port}",
        database_url=f"postgresql://nobody@127.0.0.1:{port}/nothing",
    )
    begun = time.monotonic()
    findings = examine()
    assert time.monotonic() - begun < examination.SECONDS
    away = {finding.area: finding.level for finding in findings if "does not answer" in finding.text}
    assert away == {
        "PostgreSQL": Level.FAIL,
        "gate": Level.FAIL,
        "cache": Level.WARN,
        "Kafka": Level.FAIL,
    }
    assert len([finding for finding in findings if "was not asked for the time" in finding.text]) == 2


def test_a_check_that_hangs_or_breaks_stops_no_other() -> None:
    release = threading.Event()

    def hangs() -> Iterator[Finding]:
        yield Finding("hangs", Level.OK, "before")
        release.wait(30)

    def breaks() -> Iterator[Finding]:
        yield Finding("breaks", Level.OK, "before")
        raise RuntimeError("no\nmore than the first line")

    def works() -> Iterator[Finding]:
        yield Finding("works", Level.OK, "fine")

    try:
        assert examine({"hangs": hangs, "breaks": breaks, "works": works}, seconds=0.5) == [
            Finding("hangs", Level.OK, "before"),
            Finding("hangs", Level.FAIL, "no answer within 0.5 s"),
            Finding("breaks", Level.OK, "before"),
            Finding("breaks", Level.FAIL, "no"),
            Finding("works", Level.OK, "fine"),
        ]
    finally:
        release.set()


# PostgreSQL


def test_migrations_that_are_missing() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT max(id) FROM django_migrations WHERE app = 'orders'")
        [newest] = cursor.fetchone()
        cursor.execute("DELETE FROM django_migrations WHERE id = %s RETURNING app, name, applied", [newest])
        row = cursor.fetchone()
        try:
            bad = found(postgres.examine, "migration")
        finally:
            cursor.execute("INSERT INTO django_migrations (app, name, applied) VALUES (%s, %s, %s)", row)
    assert bad.level == Level.FAIL
    assert row[1] in bad.text
    assert found(postgres.examine, "migration").level == Level.OK


@pytest.mark.parametrize(("pool", "level"), [(8, Level.OK), (85, Level.WARN), (1000, Level.FAIL)])
def test_connections_against_the_workers(settings: Any, pool: int, level: Level) -> None:
    changed(settings, database_pool_max=pool, web_workers=2)
    assert found(postgres.examine, "web workers").level == level


@contextmanager
def altered(settings: Any, name: str, value: str) -> Iterator[None]:
    """A setting of the tests' PostgreSQL, and back again."""
    with psycopg.connect(settings.FLUXGATE.database_url, autocommit=True) as session:

        def set_to(what: str) -> None:
            session.execute(what)  # type: ignore[call-overload]
            session.execute("SELECT pg_reload_conf()")

        def shown() -> str:
            with psycopg.connect(settings.FLUXGATE.database_url) as fresh:
                row = fresh.execute("SELECT setting FROM pg_settings WHERE name = %s", (name,)).fetchone()
                assert row is not None
                return str(row[0])

        before = shown()
        set_to(f"ALTER SYSTEM SET {name} = {value}")
        try:
            eventually(lambda: shown() == value)
            yield
        finally:
            set_to(f"ALTER SYSTEM RESET {name}")
            eventually(lambda: shown() == before)


@pytest.mark.parametrize(
    ("name", "level"),
    [("fsync", Level.FAIL), ("full_page_writes", Level.FAIL), ("synchronous_commit", Level.WARN)],
)
def test_commits_that_a_crash_may_lose(settings: Any, name: str, level: Level) -> None:
    with altered(settings, name, "off"):
        assert found(postgres.examine, f"{name} is off").level == level
    assert found(postgres.examine, "fsync on").level == Level.OK


# The gate and the cache


@contextmanager
def configured(client: redis.Redis, name: str, value: str) -> Iterator[None]:
    """A setting of the tests' Valkey, and back again."""
    [before] = dict(client.config_get(name)).values()  # type: ignore[arg-type]
    client.config_set(name, value)
    try:
        yield
    finally:
        client.config_set(name, before)


def test_a_gate_that_evicts(gate: redis.Redis) -> None:
    with configured(gate, "maxmemory-policy", "allkeys-lru"):
        bad = found(servers.examine_gate, "maxmemory-policy")
    assert (bad.level, bad.text) == (Level.FAIL, "maxmemory-policy is allkeys-lru")
    assert found(servers.examine_gate, "maxmemory-policy").level == Level.OK


def test_a_gate_without_its_file(gate: redis.Redis) -> None:
    with configured(gate, "appendfsync", "no"):
        assert found(servers.examine_gate, "appendfsync").level == Level.WARN
    assert found(servers.examine_gate, "appendfsync").level == Level.OK
    with configured(gate, "appendonly", "no"):
        assert found(servers.examine_gate, "appendonly is no").level == Level.WARN


def test_a_gate_whose_memory_ends(gate: redis.Redis, open_sale: Callable[..., Sale]) -> None:
    used = int(gate.info("memory")["used_memory"])  # type: ignore[index]
    with configured(gate, "maxmemory", str(used)):
        assert found(servers.examine_gate, "used").level == Level.FAIL
    with configured(gate, "maxmemory", str(100 * 2**20)):
        assert found(servers.examine_gate, "used").level == Level.OK
        open_sale(allotment=1_000_000)
        coming = found(servers.examine_gate, "used")
        assert (coming.level, "381 MiB more" in coming.text) == (Level.WARN, True)
    assert "no maxmemory" in found(servers.examine_gate, "used").text


def test_a_gate_that_is_also_the_cache_whatever_it_is_called(settings: Any) -> None:
    changed(
        settings, cache_url=settings.FLUXGATE.gate_url.replace("/0", "/1").replace("127.0.0.1", "localhost")
    )
    bad = found(servers.examine_gate, "one instance")
    assert (bad.level, "FLUSHDB" in bad.hint) == (Level.FAIL, True)


def test_a_gate_that_is_a_replica(gate: redis.Redis, settings: Any) -> None:
    gate.replicaof("127.0.0.1", free_port())
    try:
        assert found(servers.examine_gate, "it takes no claims").level == Level.FAIL
    finally:
        gate.replicaof("NO", "ONE")
    assert found(servers.examine_gate, "no replica").level == Level.OK


def test_a_gate_that_has_forgotten_its_scripts(gate: redis.Redis, open_sale: Callable[..., Sale]) -> None:
    sale, other = open_sale(), open_sale()
    assert "2 of 2 armed sales" in found(servers.examine_gate, "armed sales").text
    gate.script_flush()
    fallen = [finding for finding in servers.examine_gate() if "does not stand" in finding.text]
    assert {finding.level for finding in fallen} == {Level.FAIL}
    assert {finding.text.split()[3] for finding in fallen} == {sale.slug, other.slug}


@pytest.mark.parametrize(
    ("told", "level"),
    [
        ({"redis_version": "6.2.14"}, Level.FAIL),
        ({"redis_version": "7.0.15"}, Level.OK),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "9.1.0"}, Level.OK),
    ],
)
def test_versions(told: dict[str, str], level: Level) -> None:
    assert servers._version(told).level == level


@pytest.mark.parametrize(
    ("told", "level"),
    [
        ({"role": "slave"}, Level.FAIL),
        ({"role": "master", "connected_slaves": 0}, Level.OK),
        ({"role": "master", "connected_slaves": 1}, Level.WARN),
        ({"role": "master", "connected_slaves": 1, "min_slaves_good_slaves": 1}, Level.OK),
    ],
)
def test_replicas(told: dict[str, Any], level: Level) -> None:
    assert servers._role(told).level == level


def test_a_file_that_could_not_be_written() -> None:
    told = {"aof_enabled": 1, "aof_last_write_status": "err"}
    assert [each.level for each in servers._persistence(told, {"appendfsync": "always"})] == [
        Level.FAIL,
        Level.OK,
    ]
    # A hosted server does not let us ask.
    [finding] = servers._persistence({"aof_enabled": 1}, {})
    assert (finding.level, "not told" in finding.text) == (Level.WARN, True)


def test_a_cache_that_would_rather_refuse(settings: Any) -> None:
    client = redis.Redis.from_url(settings.FLUXGATE.cache_url, decode_responses=True)
    with client, configured(client, "maxmemory-policy", "noeviction"):
        assert found(servers.examine_cache, "noeviction").level == Level.WARN
        assert found(servers.examine_cache, "maxmemory-policy").level == Level.WARN
    assert found(servers.examine_cache, "answers").level == Level.OK


# Kafka


def test_partitions_that_are_not_those_of_the_settings(own_topic: str, settings: Any) -> None:
    changed(settings, kafka_partitions=4)
    bad = found(kafka.examine, "partitions,")
    assert (bad.level, "set it to 3" in bad.hint) == (Level.FAIL, True)


def test_fewer_copies_than_the_settings_say(own_topic: str, settings: Any) -> None:
    changed(settings, kafka_replication=3)
    assert found(kafka.examine, "copies of each record").level == Level.FAIL


GOOD = {
    "min.insync.replicas": "2",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "cleanup.policy": "delete",
    "unclean.leader.election.enable": "false",
}


class Partition:
    def __init__(self, copies: int = 3, in_sync: int = 3, leader: int = 1) -> None:
        self.replicas, self.isrs, self.leader = [0] * copies, [0] * in_sync, leader


@pytest.mark.parametrize(
    ("told", "partition", "level"),
    [
        ({}, Partition(), Level.OK),
        ({"min.insync.replicas": "1"}, Partition(), Level.FAIL),
        ({"min.insync.replicas": "2"}, Partition(in_sync=1), Level.FAIL),
        ({"min.insync.replicas": "1"}, Partition(1, 1), Level.WARN),
    ],
)
def test_how_many_brokers_acknowledge(told: dict[str, str], partition: Partition, level: Level) -> None:
    assert kafka._in_sync(GOOD | told, [partition]).level == level


@pytest.mark.parametrize(
    ("told", "level"),
    [
        ({}, Level.OK),
        ({"retention.ms": str(3 * 86_400_000)}, Level.FAIL),
        ({"retention.ms": str(30 * 86_400_000)}, Level.WARN),
        ({"retention.bytes": "1000000"}, Level.FAIL),
    ],
)
def test_how_long_records_last(told: dict[str, str], level: Level) -> None:
    assert kafka._retention(GOOD | told).level == level


@pytest.mark.parametrize(
    ("partition", "level"),
    [
        (Partition(1, 1), Level.OK),
        (Partition(3, 2), Level.WARN),
        (Partition(1, 1, leader=-1), Level.FAIL),
    ],
)
def test_brokers_that_are_behind_or_away(partition: Partition, level: Level) -> None:
    assert kafka._replicas([partition]).level == level


def test_compaction_and_unclean_elections() -> None:
    assert kafka._cleanup(GOOD).level == Level.OK
    assert kafka._cleanup(GOOD | {"cleanup.policy": "compact,delete"}).level == Level.FAIL
    assert kafka._elections(GOOD, [Partition()]).level == Level.OK
    unclean = GOOD | {"unclean.leader.election.enable": "true"}
    assert kafka._elections(unclean, [Partition()]).level == Level.FAIL
    assert kafka._elections(unclean, [Partition(1, 1)]).level == Level.OK


def test_what_a_broker_does_not_tell_is_a_warning() -> None:
    findings = [
        kafka._in_sync({}, [Partition()]),
        kafka._retention({}),
        kafka._cleanup({}),
        kafka._elections({}, [Partition()]),
    ]
    assert {finding.level for finding in findings} == {Level.WARN}
    assert all("not told" in finding.text for finding in findings)


# Clocks


@pytest.mark.parametrize(("seconds", "level"), [(0, Level.OK), (2, Level.WARN), (-60, Level.FAIL)])
def test_clocks_that_differ(monkeypatch: pytest.MonkeyPatch, seconds: float, level: Level) -> None:
    class Clock:
        monotonic = staticmethod(time.monotonic)

        @staticmethod
        def time() -> float:
            return time.time() + seconds

    monkeypatch.setattr(clocks, "time", Clock)
    findings = list(clocks.examine())
    assert [finding.level for finding in findings] == [level, level]
    if seconds:
        assert all(("behind" if seconds > 0 else "ahead of") in finding.text for finding in findings)


# Processes


def test_nobody_works(own_topic: str, open_sale: Callable[..., Sale]) -> None:
    assert found(processes.examine, "gatekeeper").level == Level.WARN  # no sale is armed yet
    open_sale()
    assert found(processes.examine, "no gatekeeper runs").level == Level.FAIL


def test_somebody_leads(own_topic: str, open_sale: Callable[..., Sale]) -> None:
    open_sale()
    taken, done = threading.Event(), threading.Event()

    def lead() -> None:
        leadership = Leadership()
        if leadership.held():
            taken.set()
        done.wait(60)
        leadership.close()

    thread = threading.Thread(target=lead)
    thread.start()
    try:
        assert taken.wait(30)
        assert found(processes.examine, "gatekeeper").level == Level.OK
    finally:
        done.set()
        thread.join()


def test_a_consumer_is_a_member(
    own_topic: str, gate: redis.Redis, open_sale: Callable[..., Sale], settings: Any
) -> None:
    open_sale()
    assert found(processes.examine, "no consumer").level == Level.FAIL
    worker = Consumer(gate)
    try:
        eventually(lambda: (worker.step(0.05), worker.drained())[1])
        # Apache Kafka names its members, Tansu only says that there are some.
        told = Level.OK if settings.FLUXGATE.kafka_leave_group else Level.WARN
        assert found(processes.examine, "consumer").level == told
    finally:
        worker.close()


def test_a_tail_that_is_lost_and_records_that_are_parked(own_topic: str) -> None:
    source = {"topic": own_topic, "incarnation": topic.incarnation(), "partition": 1}
    assert found(processes.examine, "parked").level == Level.OK
    Position.objects.create(**source, next_offset=7)
    ParkedRecord.objects.create(**source, offset=3, cause="not JSON")
    bad = found(processes.examine, "a tail is lost")
    assert (bad.level, "reconcile --fix" in bad.hint) == (Level.FAIL, True)
    assert found(processes.examine, "parked").level == Level.WARN


def test_records_that_nobody_has_read(own_topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(processes.examine, "not in the order book").level == Level.OK
    monkeypatch.setattr(processes, "UNREAD", -1)
    assert found(processes.examine, "not in the order book").level == Level.WARN
