"""PostgreSQL from an async endpoint: off the loop, and the connection back to its pool at once.

The shop door sends none of Django's request signals, so nobody else would give it back.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from django.db import connection

Found = TypeVar("Found")


async def ask(query: Callable[[], Found]) -> Found:
    """What the query finds, run in a thread. Raises what it raises (django.db.DatabaseError and its kin)."""

    def run() -> Found:
        try:
            return query()
        finally:
            connection.close()

    return await asyncio.to_thread(run)
