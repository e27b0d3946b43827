"""The order book's database."""

from collections.abc import Iterator
from functools import partial

import psycopg
from django.conf import settings
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from orders.doctor.finding import Finding, Level, line

_found = partial(Finding, "PostgreSQL")
# Consumers, gatekeepers and commands take one connection each.
OTHERS = 8
NAMES = (
    "server_version",
    "max_connections",
    "superuser_reserved_connections",
    "fsync",
    "full_page_writes",
    "synchronous_commit",
)


def examine() -> Iterator[Finding]:
    try:
        shown = _settings()
    except psycopg.Error as error:
        yield _found(
            Level.FAIL, f"does not answer: {line(error)}", "check FLUXGATE_DATABASE_URL and the server"
        )
        return
    yield _found(Level.OK, f"PostgreSQL {shown['server_version'].split()[0]} answers")
    yield from _migrations()
    yield _connections(shown)
    yield from _durability(shown)


def _settings() -> dict[str, str]:
    # Not from the pool: it would keep trying for longer than anybody wants to wait here.
    with psycopg.connect(
        settings.FLUXGATE.database_url,
        connect_timeout=3,
        options="-c statement_timeout=5000",
        autocommit=True,
    ) as session:
        rows = session.execute("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", (list(NAMES),))
        return dict(rows.fetchall())


def _migrations() -> Iterator[Finding]:
    executor = MigrationExecutor(connection)
    missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if missing:
        names = ", ".join(f"{each.app_label}.{each.name}" for each, _ in missing[:3])
        text = f"{len(missing)} migrations are not applied: {names}{' …' if len(missing) > 3 else ''}"
        yield _found(Level.FAIL, text, "run `manage.py migrate`")
    else:
        yield _found(Level.OK, "migrations applied")


def _connections(shown: dict[str, str]) -> Finding:
    flux = settings.FLUXGATE
    there = int(shown["max_connections"]) - int(shown["superuser_reserved_connections"])
    wanted = flux.web_workers * flux.database_pool_max + OTHERS
    text = (
        f"{flux.web_workers} web workers with {flux.database_pool_max} connections each and {OTHERS} for the "
        f"rest make {wanted}, PostgreSQL gives {there}"
    )
    hint = "lower FLUXGATE_DATABASE_POOL_MAX or raise max_connections; count the workers of every machine"
    if wanted > there:
        return _found(Level.FAIL, text, hint)
    if wanted > 0.8 * there:
        return _found(Level.WARN, text, hint)
    return _found(Level.OK, text)


def _durability(shown: dict[str, str]) -> Iterator[Finding]:
    for name in ("fsync", "full_page_writes"):
        if shown[name] != "on":
            yield _found(
                Level.FAIL, f"{name} is {shown[name]}: a crash may corrupt the order book", f"set {name} = on"
            )
            return
    if shown["synchronous_commit"] == "off":
        yield _found(
            Level.WARN,
            "synchronous_commit is off: a crash loses the last commits",
            "set it on; rows and positions go back together, so the log is read again from there",
        )
    else:
        yield _found(Level.OK, f"fsync on, synchronous_commit {shown['synchronous_commit']}")
