"""The frozen lists of entries, for everybody who checks a draw."""

import asyncio
import time

from sales.database import Database
from sales.deadline import look_at
from waitingroom.models import Room

MOST_REMEMBERED = 4  # lists of some megabytes each; a frozen list never changes
UNFROZEN_SECONDS = 1.0  # how long it is believed that there is none yet


class Draws:
    """One process's. A crowd that asks for the same list shares one reading of it, and its bytes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, bytes] = {}
        self._none_at: dict[str, float] = {}
        self._reading: dict[str, asyncio.Future[bytes | None]] = {}

    async def entries(self, sale: str) -> bytes | None:
        """The list of the public sale of this key, None before it is frozen. Raises DatabaseAway."""
        if sale in self._known:
            return self._known[sale]
        if time.monotonic() - self._none_at.get(sale, float("-inf")) < UNFROZEN_SECONDS:
            return None
        reading = self._reading.get(sale)
        if reading is None:
            reading = self._reading[sale] = asyncio.ensure_future(self._read(sale))
            reading.add_done_callback(look_at)
        return await asyncio.shield(reading)

    async def _read(self, sale: str) -> bytes | None:
        try:
            frozen = Room.objects.filter(sale__slug=sale, entered__isnull=False)
            found = await self._database.ask(lambda: frozen.values_list("entries", flat=True).first())
        finally:
            del self._reading[sale]
        if found is None:
            self._none_at[sale] = time.monotonic()
            return None
        self._none_at.pop(sale, None)
        if len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
        self._known[sale] = found.encode()
        return self._known[sale]
