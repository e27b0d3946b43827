"""The brand for the static pages."""

from typing import Any

import msgspec
from django.http import HttpRequest, HttpResponse
from ninja import Router, Schema
from pydantic import Field

from sales.database import DatabaseAway
from sales.problems import Problem, problems
from sales.reply import Reply
from waitingroom.brand import FRESH_SECONDS, Brands

router = Router(tags=["pages"])

# A logo may be SVG: opened by itself it must not run anything in the shop's name.
SANDBOX = "default-src 'none'; style-src 'unsafe-inline'; sandbox"


class BrandDocument(Schema):
    name: str
    headline: str
    lede: str
    accent: str = Field(description="#rrggbb, in light mode.")
    accent_dark: str = Field(description="#rrggbb, in dark mode.")
    logo_url: str | None


@router.get("/brand", response=BrandDocument, operation_id="get_brand", summary="The merchant's brand")
async def get_brand(request: HttpRequest) -> HttpResponse:
    """Name, words, colours and logo of the pages."""
    facts = await _brands(request).facts()
    headers = {"Content-Type": "application/json", "Cache-Control": f"public, max-age={FRESH_SECONDS}"}
    return Reply(200, msgspec.json.encode(facts), headers)


@router.get(
    "/brand/logo",
    response={200: None, **problems(404, 503)},
    operation_id="get_logo",
    summary="The merchant's logo",
    openapi_extra={
        "responses": {200: {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}}
    },
)
async def get_logo(request: HttpRequest) -> HttpResponse:
    """The image that was uploaded in the admin."""
    try:
        logo = await _brands(request).logo()
    except DatabaseAway as error:
        raise Problem("temporarily-unavailable", retry_after=1) from error
    if logo is None:
        raise Problem("not-found", "There is no logo.")
    headers = {
        "Content-Type": logo["media_type"],
        "Cache-Control": "public, max-age=86400",
        "Content-Security-Policy": SANDBOX,
    }
    return Reply(200, logo["content"], headers)


def _brands(request: HttpRequest) -> Brands:
    state: dict[str, Any] = request.scope["state"]  # type: ignore[attr-defined]
    brands: Brands = state["brands"]
    return brands
