"""The shapes of the waiting room's API. Times are UTC; `server_time` stands beside them."""

from datetime import datetime
from typing import Literal

from ninja import Schema
from pydantic import ConfigDict, Field

from sales.phases import UnitsLeft

LineState = Literal["off", "prequeue", "waiting", "sold_out", "paused", "closed"]


class SegmentFacts(Schema):
    """From this moment and this number on, `rate` turns come a second."""

    from_time: datetime
    from_number: float
    rate: float


class OddsFacts(Schema):
    likely_below: int = Field(description="Places below it will find units, if everybody buys one.")
    possible_below: int = Field(description="From this place on there is no hope worth waiting for.")


class DrawFacts(Schema):
    """The draw among those who came before the opening. All but the commitment follows at the opening."""

    commitment: str = Field(description="SHA-256 of the secret, in hex.")
    beacon_name: str = Field(description="Of a value that joins the draw, announced beforehand; or empty.")
    beacon: str = Field(description="That value.")
    entries: int | None
    digest: str | None = Field(description="SHA-256 of the list of entries, in hex.")
    secret: str | None
    seed: str | None = Field(description="SHA-256(secret, digest, beacon), in hex.")


class LineFacts(Schema):
    """A line in public. `off`: the sale has no waiting room."""

    sale: str
    state: LineState
    opens_at: datetime
    closes_at: datetime
    turn_seconds: int
    segments: list[SegmentFacts]
    tickets: int = Field(description="The next number. Numbers nobody came for while it was quiet count too.")
    units_left: UnitsLeft
    units_about: int | None = Field(description="Rounded down to two digits.")
    odds: OddsFacts | None
    draw: DrawFacts | None
    message: str = Field(description="The operator's words to everybody in line; plain text.")
    server_time: datetime


class TicketRequest(Schema):
    model_config = ConfigDict(extra="forbid", strict=True)

    ticket: str | None = Field(
        None, max_length=1024, description="The ticket from before: it keeps the place if we have lost it."
    )


class TicketFacts(Schema):
    """A customer's place. `place` is None until the draw is made, `turn_at` while nobody can know it."""

    sale: str
    ticket: str
    number: int
    entry: str = Field(description="How this customer is listed among the entries of the draw.")
    place: int | None
    state: Literal["prequeue", "waiting", "your_turn"]
    missed: bool = Field(description="The turn of the ticket before was missed: this one is at the end.")
    turn_at: datetime | None
    turn_ends_at: datetime | None
    admission: str | None = Field(description="In your turn: the order's header Fluxgate-Admission.")
    server_time: datetime
