"""The admin of the waiting room and of the pages' brand."""

from waitingroom.admin import brands, rooms

__all__ = ["brands", "rooms"]
