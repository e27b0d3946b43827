"""The frozen lists of entries, for everybody who checks a draw."""

from sales.database import Database
from waitingroom.models import Room

MOST_REMEMBERED = 4  # lists of some megabytes each; a frozen list never changes


class Draws:
    """One process's. Raises sales.database.DatabaseAway."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, str] = {}

    async def entries(self, sale: str) -> str | None:
        """The list of the sale of this key, None before it is frozen."""
        if sale in self._known:
            return self._known[sale]
        frozen = Room.objects.filter(sale__slug=sale, entered__isnull=False)
        found = await self._database.ask(lambda: frozen.values_list("entries", flat=True).first())
        if found is not None:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            self._known[sale] = found
        return found
