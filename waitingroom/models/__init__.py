"""What PostgreSQL has of the waiting room and of the pages' brand."""

from waitingroom.models.brands import Brand
from waitingroom.models.rooms import Pace, Room

__all__ = ["Brand", "Pace", "Room"]
