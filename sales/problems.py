"""Refusals as clients see them: RFC 9457 `application/problem+json`, with stable types.

The lowest layer holds them because every layer refuses with them. `/problems` documents each
type for people; a test holds that page, the OpenAPI document and this catalogue together.
"""

from dataclasses import dataclass
from typing import Any

import msgspec
from django.http import HttpResponse
from ninja import Schema
from pydantic import ConfigDict

from sales.refusals import Refusals
from sales.reply import Reply

CONTENT_TYPE = "application/problem+json"


@dataclass(frozen=True)
class ProblemType:
    """One kind of refusal. `slug` is for ever; `title` and `meaning` may be reworded."""

    slug: str
    status: int
    title: str
    meaning: str

    @property
    def uri(self) -> str:
        return f"/problems#{self.slug}"


CATALOGUE = [
    ProblemType(
        "unauthorized",
        401,
        "No valid identity",
        "The bearer token is missing, forged, expired or not meant for this service. "
        "Get a fresh one from the shop.",
    ),
    ProblemType(
        "idempotency-key-missing",
        400,
        "Idempotency-Key is missing",
        "Send a header Idempotency-Key of your own making, and the same one whenever you repeat the order.",
    ),
    ProblemType(
        "idempotency-key-invalid",
        400,
        "Idempotency-Key is malformed",
        "The key is 1 to 255 visible ASCII characters, bare or as a quoted structured-field string.",
    ),
    ProblemType(
        "unsupported-media-type",
        415,
        "The body is not JSON",
        "Send Content-Type: application/json.",
    ),
    ProblemType(
        "malformed-request",
        400,
        "The request cannot be read",
        "The body is not one JSON value in UTF-8, or the request is broken in another way.",
    ),
    ProblemType(
        "invalid-request",
        422,
        "The request has wrong values",
        "A field is missing, unknown, of the wrong type or out of range; `errors` says which. "
        'Quantities are whole JSON numbers: true, "3" and 3.0 are not.',
    ),
    ProblemType("body-too-large", 413, "The body is too large", "A body has 4,096 bytes at most."),
    ProblemType("body-timeout", 408, "The body did not arrive", "Send the whole body within a few seconds."),
    ProblemType(
        "method-not-allowed", 405, "This address has no such method", "The header Allow lists the methods."
    ),
    ProblemType(
        "not-found", 404, "There is nothing here", "The address is wrong, or names what is not yours."
    ),
    ProblemType("sale-not-found", 404, "No such sale", "There is no public sale of this key."),
    ProblemType(
        "order-not-found", 404, "No such order", "There is no such order, or it belongs to somebody else."
    ),
    ProblemType(
        "admission-invalid",
        403,
        "The admission is not valid",
        "The header Fluxgate-Admission was forged or belongs to another sale or customer.",
    ),
    ProblemType(
        "temporarily-unavailable",
        503,
        "The sale cannot answer right now",
        "Part of the engine is down, so nothing is promised. Whether an order was placed is told by "
        "repeating it with the same Idempotency-Key after Retry-After seconds.",
    ),
    ProblemType(
        "idempotency-key-reused",
        422,
        "The key was used for another order",
        "This Idempotency-Key came with another quantity before. Make a new key for a new order.",
    ),
    ProblemType(
        "sale-not-open",
        403,
        "The sale has not opened yet",
        "Ask again at `opens_at`, after Retry-After seconds, on the clock of `server_time`.",
    ),
    ProblemType("sale-closed", 410, "The sale is over", "No further orders are taken."),
    ProblemType(
        "sale-paused",
        503,
        "The sale is paused",
        "The merchant paused it. Repeat after Retry-After seconds.",
    ),
    ProblemType(
        "admission-required",
        403,
        "Please go through the waiting room",
        "The waiting room is on, and this buyer has no live admission. `room_url` is its address.",
    ),
    ProblemType(
        "no-waiting-room",
        409,
        "This sale has no waiting room",
        "Nobody waits in line for it, or not yet. Place the order at once.",
    ),
    ProblemType(
        "too-busy",
        429,
        "More traffic than the sale admits",
        "Wait in the room at `room_url`, and repeat with the same key after Retry-After seconds.",
    ),
    ProblemType(
        "limit-reached",
        409,
        "The limit per customer is reached",
        "This customer has ordered already; `order_url` is the existing order.",
    ),
    ProblemType(
        "all-units-held",
        409,
        "Every unit is set aside",
        "Units that are being written down may still come back. Repeat after Retry-After seconds.",
    ),
    ProblemType("sold-out", 409, "Sold out", "No unit is left."),
    ProblemType(
        "internal-error",
        500,
        "Something broke here",
        "It is logged. Repeat with the same Idempotency-Key.",
    ),
]

BY_SLUG = {problem.slug: problem for problem in CATALOGUE}


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


class Problem(Exception):
    """Raised anywhere behind the API to refuse. `extensions` join the JSON object.

    `retry_after` is whole seconds. The status is the type's own. `refusals` as in Reply.
    """

    def __init__(
        self,
        slug: str,
        detail: str = "",
        *,
        retry_after: int | None = None,
        headers: dict[str, str] | None = None,
        refusals: Refusals | None = None,
        **extensions: Any,
    ) -> None:
        super().__init__(slug)
        self.type = BY_SLUG[slug]
        self.detail = detail
        self.extensions = extensions
        self.refusals = refusals
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)

    def body(self) -> bytes:
        kind = self.type
        detail = self.detail or kind.meaning
        return msgspec.json.encode(
            {"type": kind.uri, "title": kind.title, "status": kind.status, "detail": detail} | self.extensions
        )

    def response(self) -> HttpResponse:
        headers = {"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"} | self.headers
        return Reply(self.type.status, self.body(), headers, self.refusals)
