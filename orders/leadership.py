"""Leadership: of several gatekeepers one works, and the others stand by.

A session-level advisory lock of PostgreSQL: it ends with the connection, so a leader that dies
is followed at once. Nothing unsafe happens when two believe they lead; it only saves work.
Behind a pooler that shares sessions between transactions the lock says nothing.
"""

from typing import Any

from django.db import connection

LOCK = 0x666C7578  # "flux"; of the database this site uses, so two sites never meet


class Leadership:
    def __init__(self) -> None:
        self._session: Any = None

    def held(self) -> bool:
        """Whether we lead. Raises OperationalError and InterfaceError."""
        if self._session is None or connection.connection is not self._session:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_try_advisory_lock(%s)", [LOCK])
                self._session = connection.connection if cursor.fetchone()[0] else None
        return self._session is not None
