"""What a visitor can do with a sale at a moment: one rule for the store front and for the API."""

from datetime import datetime
from typing import Literal

from sales.models import SaleState

Phase = Literal["upcoming", "selling", "sold_out", "paused", "closed"]
UnitsLeft = Literal["many", "few", "none", "unknown"]

FEW = 0.1  # the share of the allotment from which on only "few" units are left
# From the arming on there is a line that can be joined.
_LINED_UP = (SaleState.ARMED, SaleState.OPEN, SaleState.PAUSED)
_OVER = (SaleState.CLOSING, SaleState.CLOSED, SaleState.SETTLED)


def phase(state: str, opens_at: datetime, closes_at: datetime, *, sold_out: bool, now: datetime) -> Phase:
    """The state and the window together. What has sold out stays so: it says more than "closed"."""
    if sold_out:
        return "sold_out"
    if state in _OVER or now >= closes_at:
        return "closed"
    if state == SaleState.PAUSED:
        return "paused"
    return "selling" if state == SaleState.OPEN and now >= opens_at else "upcoming"


def leads_into_line(state: str, stands: Phase, *, waiting_room: bool) -> bool:
    """Whether the way to buy leads through the line now; the pages have the same rule in `leadsIntoLine`."""
    return waiting_room and state in _LINED_UP and stands in ("upcoming", "selling", "paused")


def units_left(remaining: int | None, allotment: int) -> UnitsLeft:
    """The band in which the units that are left lie; None is a gate that did not tell."""
    if remaining is None:
        return "unknown"
    if remaining == 0:
        return "none"
    return "few" if remaining <= allotment * FEW else "many"
