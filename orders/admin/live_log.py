"""How far the log is ahead of the order book, for pages that ask every two seconds.

Asking the broker takes a tenth of a second or several seconds, and a connection. So it is asked in a thread
that nobody waits for any longer than a moment, at most once in FRESH_SECONDS for all pages and web processes
together: the cache holds what it said, and who asks.
"""

import threading
import time
from typing import NamedTuple

from django.conf import settings
from django.core.cache import cache
from django.db import DatabaseError, InterfaceError, connection

from orders import lag
from sales.topic import ANSWER_SECONDS

FRESH_SECONDS = 1.5
WAIT_SECONDS = 0.4
# What was said longer ago is not shown any more; nobody asks for longer than the broker may take twice.
OLD_SECONDS = 6.0
ASKING_SECONDS = 2 * ANSWER_SECONDS + 2


class Unread(NamedTuple):
    """Records of a partition that are not in the order book, and the age of the oldest in seconds, 0 without
    one. None: the broker does not tell, or tells too late."""

    records: int | None
    seconds: float | None


class _Said(NamedTuple):
    at: float  # Unix seconds
    unread: Unread


def unread(partition: int) -> Unread:
    """At most OLD_SECONDS old. Waits WAIT_SECONDS at most; without a cache nothing is known."""
    key = f"fluxgate:unread:{settings.FLUXGATE.kafka_topic}:{partition}"
    said: _Said | None = cache.get(key)
    if said and time.time() - said.at < FRESH_SECONDS:
        return said.unread
    if cache.add(f"{key}:asking", 1, ASKING_SECONDS):  # one asks, the others take what was said before
        asking = threading.Thread(target=_ask, args=(partition, key), name="live-log")
        asking.start()
        asking.join(WAIT_SECONDS)
        said = cache.get(key)
    return said.unread if said else Unread(None, None)


def _ask(partition: int, key: str) -> None:
    try:
        found = lag.reach({partition}).get(partition)
        if found is None:
            told = Unread(None, None)
        elif found.oldest_at is None:
            told = Unread(found.unread, 0.0)
        else:
            told = Unread(found.unread, max(0.0, time.time() - found.oldest_at))
        cache.set(key, _Said(time.time(), told), OLD_SECONDS)
    except (DatabaseError, InterfaceError):
        pass  # the page says so itself
    finally:
        connection.close()  # this thread's own
        cache.delete(f"{key}:asking")
