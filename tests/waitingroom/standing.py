"""A line of people in front of a sale, and what a test may ask of it."""

import re
from itertools import count
from typing import Any

import requests
from playwright.sync_api import expect

from sales.identity import mint
from sales.models import Sale
from tests.running_site import Site, eventually
from tests.waitingroom.visitor import PAGES, Visitor
from waitingroom.models import Room

_names = count()


def queue_up(shop: Site, people: int = 0, room: dict[str, Any] | None = None, **facts: Any) -> Sale:
    """A sale whose line is published; `people` stand in it already. Facts of the room: see `Room`."""
    sale = shop.sell(admission_required=True, **facts)
    Room.objects.update_or_create(sale=sale, defaults=room or {})
    published = {"turn_seconds": Room.objects.get(sale=sale).turn_seconds}
    eventually(lambda: published.items() <= line(shop, sale).items())
    join(shop, sale, people)
    return sale


def line(shop: Site, sale: Sale) -> dict[str, Any]:
    answer: dict[str, Any] = shop.get(f"/api/v1/sales/{sale.slug}/line").json()
    return answer


def join(shop: Site, sale: Sale, people: int) -> None:
    with requests.Session() as session:
        for _ in range(people):
            answer = session.post(
                f"{shop.url}/api/v1/sales/{sale.slug}/tickets",
                json={},
                headers={"Authorization": f"Bearer {mint(f'someone-{next(_names)}')}"},
                timeout=30,
            )
            assert answer.status_code == 200, answer.text


def win(shop: Site, sale: Sale, customer: str, quantity: int = 1) -> None:
    """The customer waits for the turn, and buys in it."""

    def admission() -> str | None:
        answer = requests.post(
            f"{shop.url}/api/v1/sales/{sale.slug}/tickets",
            json={},
            headers={"Authorization": f"Bearer {mint(customer)}"},
            timeout=30,
        )
        told: str | None = answer.json()["admission"]
        return told

    headers = {"Fluxgate-Admission": eventually(admission)}
    answer = shop.buy(sale.slug, customer, quantity=quantity, **headers)
    assert answer.status_code == 202, answer.text


def stands(visitor: Visitor, sale: Sale) -> None:
    visitor.goes_to(f"{PAGES}/room.html?sale={sale.slug}")


def ticket_of(visitor: Visitor) -> str:
    number = visitor.page.locator("[data-number]")
    expect(number).to_have_text(re.compile(r"^[\d,]+$"))
    return number.inner_text()
