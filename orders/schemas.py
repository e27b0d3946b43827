"""The shapes of the order API. Times are UTC; `server_time` stands beside them."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from ninja import Schema
from pydantic import ConfigDict, Field


class OrderRequest(Schema):
    """What a buyer asks for. Who buys comes from the token, never from here."""

    model_config = ConfigDict(extra="forbid", strict=True)

    quantity: int = Field(ge=1, le=1_000_000, description="Units, a whole JSON number.")


class OrderAccepted(Schema):
    """A unit is set aside. `queued` is the promise; `held` means: ask `status_url` again."""

    order_id: UUID
    state: Literal["held", "queued"]
    sale: str
    quantity: int
    status_url: str
    server_time: datetime = Field(description="When the gate granted the unit, on its clock.")


class OrderStatus(Schema):
    order_id: UUID
    state: Literal["held", "queued", "confirmed", "refused", "cancelled"]
    reason: str = Field(description="Why an order was refused or cancelled; else empty.")
    final: bool = Field(description="Whether the engine is done with it. A buyer may still cancel.")
    sale: str
    quantity: int
    unit_price: str
    currency: str
    claimed_at: datetime
    status_url: str
    server_time: datetime


class ProblemBody(Schema):
    """RFC 9457. `type` is stable and documented at /problems."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str


def problems(*statuses: int) -> dict[int, Any]:
    """The refusals of an operation, for its `response` map."""
    return dict.fromkeys(statuses, ProblemBody)
