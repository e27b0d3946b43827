"""The three clocks: this machine's, the gate's (it opens and closes sales) and PostgreSQL's."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import psycopg
import redis
from django.conf import settings

from orders.doctor.finding import Finding, Level, line
from sales import gate

_found = partial(Finding, "clocks")
WARN_SECONDS, FAIL_SECONDS = 0.5, 5.0


def examine() -> Iterator[Finding]:
    for name, compare in (("the gate", _gate), ("PostgreSQL", _database)):
        try:
            yield compare(name)
        except (redis.RedisError, psycopg.Error) as error:
            yield _found(Level.WARN, f"{name} was not asked for the time: {line(error)}")


def _gate(name: str) -> Finding:
    with closing(gate.connect()) as client:
        client.ping()  # connects first: the answer shall come quickly

        def ask() -> float:
            told: Any = client.time()
            return float(told[0]) + float(told[1]) / 1_000_000

        return _compare(name, ask)


def _database(name: str) -> Finding:
    with psycopg.connect(settings.FLUXGATE.database_url, connect_timeout=3, autocommit=True) as session:

        def ask() -> float:
            [told] = session.execute("SELECT extract(epoch FROM clock_timestamp())").fetchall()
            return float(told[0])

        return _compare(name, ask)


def _compare(name: str, ask: Callable[[], float]) -> Finding:
    begun = time.monotonic()
    before = time.time()
    theirs = ask()
    took = time.monotonic() - begun
    # Somewhere on the way it read its clock: in the middle, give or take half of the way.
    skew = theirs - (before + took / 2)
    where = "ahead of" if skew > 0 else "behind"
    text = f"{name} is {abs(skew):.3f} s {where} this machine (± {took / 2:.3f} s)"
    far = abs(skew) - took / 2
    hint = "run NTP on every machine: the gate's clock opens sales, and ids of armings are made of time"
    if far > FAIL_SECONDS:
        return _found(Level.FAIL, text, hint)
    return _found(Level.WARN, text, hint) if far > WARN_SECONDS else _found(Level.OK, text)
