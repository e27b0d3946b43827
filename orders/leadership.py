"""Leadership: of several gatekeepers one works, and the others stand by.

A session-level advisory lock of PostgreSQL, on a connection of its own: it ends with the session, so
a leader that dies is followed at once. One that stands still, or whose machine is gone, says nothing
for `SILENCE_SECONDS`, and PostgreSQL ends its session. Nothing unsafe happens when two believe they
lead; the lock only saves work. Behind a pooler that shares sessions between transactions it says nothing.
"""

import time
from contextlib import suppress
from typing import Any

import psycopg
from django.db import connection

LOCK = 0x666C7578  # "flux"; of the database this site uses, so two sites never meet
SILENCE_SECONDS = 10  # must be well above what one turn of a leader takes
_ASK_SECONDS = 1.0


class Leadership:
    def __init__(self) -> None:
        self._session: Any = None
        self._leads = False
        self._ask_at = 0.0

    def held(self) -> bool:
        """Whether we lead; asked of PostgreSQL about once a second. False while it is away."""
        if time.monotonic() >= self._ask_at:
            self._ask_at = time.monotonic() + _ASK_SECONDS
            try:
                self._leads = self._ask()
            except psycopg.Error:
                self.close()
        return self._leads

    def close(self) -> None:
        session, self._session, self._leads = self._session, None, False
        if session is not None:
            with suppress(psycopg.Error):
                session.close()

    def _ask(self) -> bool:
        if self._session is None:
            self._session = psycopg.connect(**connection.get_connection_params(), autocommit=True)
            self._session.execute(f"SET idle_session_timeout = '{SILENCE_SECONDS}s'")
        if self._leads:
            self._session.execute("SELECT 1")  # we are still here, and so is the session
            return True
        return bool(self._session.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone()[0])
