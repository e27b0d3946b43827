"""The shapes of the order API. Times are UTC; `server_time` stands beside them."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from ninja import Schema
from pydantic import ConfigDict, Field

from waitingroom import admission

# Where a machine goes from an answer that names an order (OpenAPI's links).
LINKS = {
    name: {"operationId": name, "parameters": {"order_id": "$response.body#/order_id"}}
    for name in ("order_status", "cancel_order")
}


class OrderRequest(Schema):
    """What a buyer asks for. Who buys comes from the token, never from here."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

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


class OrderList(Schema):
    orders: list[OrderStatus]
    server_time: datetime


# What OpenAPI is told of the headers that come with an order; orders/api.py reads them itself.
PLACING_HEADERS = [
    {
        "name": "Idempotency-Key",
        "in": "header",
        "required": True,
        # Bare, or as a structured-field string; orders/idempotency.py reads the same two.
        "schema": {
            "type": "string",
            "pattern": r'^([!#-~][!-~]{0,254}|"([!#-\[\]-~]|\\["\\]){1,255}")$',
        },
        "description": "Of the client's making. The same key always names the same order.",
    },
    {
        "name": admission.HEADER,
        "in": "header",
        "required": False,
        "schema": {"type": "string"},
        "description": "Proof of a turn in the waiting room.",
    },
]
