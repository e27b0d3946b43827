"""The bare loops: what PostgreSQL takes of rows alone, without foreign keys, events and positions.

Into a table of the same columns, checks and indexes as the orders', each batch in a transaction of its own.
"""

import io
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import psycopg

COLUMNS = "id, sale_id, customer, quantity, unit_price, currency, state, reason, pool, epoch, claimed_at"


def claims_of_nobody(count: int) -> list[tuple[Any, ...]]:
    sale, now = uuid4(), datetime.now(UTC).isoformat()
    facts = 1, "19.90", "EUR", "confirmed", "", 0, 1
    return [(uuid4(), sale, f"customer-{number:08d}", *facts, now) for number in range(count)]


def rows_per_second(claims: list[tuple[Any, ...]], batch: int, write: Callable[[Any, Any], None]) -> int:
    """Rows a second, each batch in a transaction of its own; no foreign keys, events or positions."""
    url = os.environ["FLUXGATE_DATABASE_URL"]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE bare (LIKE orders_order INCLUDING ALL)")
        try:
            begun = time.monotonic()
            for first in range(0, len(claims), batch):
                with connection.cursor() as cursor:
                    write(cursor, claims[first : first + batch])
            return round(len(claims) / (time.monotonic() - begun))
        finally:
            connection.execute("DROP TABLE bare")


def unnest(cursor: Any, claims: list[tuple[Any, ...]]) -> None:
    types = (
        "uuid",
        "uuid",
        "text",
        "bigint",
        "numeric",
        "text",
        "text",
        "text",
        "int",
        "bigint",
        "timestamptz",
    )
    rows = "unnest(" + ", ".join(f"%s::{name}[]" for name in types) + ")"
    values = ["{" + ",".join(f'"{item}"' for item in column) + "}" for column in zip(*claims, strict=True)]
    cursor.execute(
        f"INSERT INTO bare ({COLUMNS}) SELECT * FROM {rows} ON CONFLICT (id) DO NOTHING RETURNING id",
        values,
    )
    cursor.fetchall()


def copy(cursor: Any, claims: list[tuple[Any, ...]]) -> None:
    text = io.StringIO()
    for claim in claims:
        text.write("\t".join(map(str, claim)) + "\n")
    with cursor.copy(f"COPY bare ({COLUMNS}) FROM STDIN") as rows:
        rows.write(text.getvalue())
