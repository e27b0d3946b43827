"""PostgreSQL from an async endpoint: off the loop, within a deadline, the connection back at once.

A database that hangs is worse than one that is gone: nothing refuses, everybody waits. So a query
that takes too long is given up, and for a moment nobody asks again; who has an older answer, or the
gate, says that instead.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import InterfaceError, OperationalError, connection

Found = TypeVar("Found")

QUERY_SECONDS = 1.0
AWAY_SECONDS = 2.0
_THREADS = 8


class DatabaseAway(Exception):
    """PostgreSQL did not answer, or not in time."""


class Database:
    """A process's way to PostgreSQL from its event loop. One per process."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="database")
        self._away_until = 0.0

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def ask(self, query: Callable[[], Found]) -> Found:
        """What the query finds. Raises DatabaseAway, and what else the query raises."""
        if time.monotonic() < self._away_until:
            raise DatabaseAway("it did not answer a moment ago")
        asked = asyncio.get_running_loop().run_in_executor(self._threads, _ask, query)
        await asyncio.wait((asked,), timeout=QUERY_SECONDS)
        try:
            if not asked.done():
                asked.add_done_callback(_look_at)
                raise TimeoutError(f"no answer within {QUERY_SECONDS:g} s")
            return asked.result()
        except (OperationalError, InterfaceError, TimeoutError) as error:
            self._away_until = time.monotonic() + AWAY_SECONDS
            raise DatabaseAway(str(error)) from error


def _ask(query: Callable[[], Found]) -> Found:
    try:
        return query()
    finally:
        connection.close()  # the shop door sends no request signals: nobody else gives it back


def _look_at(late: "asyncio.Future[Found]") -> None:
    """Reads the outcome, so that asyncio does not warn of an exception that nobody waits for."""
    if not late.cancelled():
        late.exception()
