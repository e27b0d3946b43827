"""The page on which anybody checks a draw: it calculates as the server does, and sees what is wrong."""

import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from playwright.sync_api import Page, Route, ViewportSize, expect

from sales import arming
from sales.identity import mint
from sales.models import Sale
from tests.running_site import Site, eventually
from tests.waitingroom.visitor import DESKTOP, PAGES, PHONE, Visitor
from waitingroom import draw
from waitingroom.models import Room

pytestmark = [pytest.mark.browser, pytest.mark.timeout(100), pytest.mark.usefixtures("closed_afterwards")]

STEPS = ["secret", "list", "seed", "entry", "place"]
EARLY = 8


@pytest.fixture(scope="module")
def shop(site: Site) -> Site:
    """The site with a keeper of the lines, who makes the draws."""
    site.gatekeeper()
    return site


@pytest.fixture
def closed_afterwards(drawn: Sale) -> Iterator[None]:
    yield
    left = Sale.objects.filter(admission_required=True, state__in=["open", "paused", "armed"])
    for sale in left.exclude(pk=drawn.pk):  # the keeper has nothing to do with them any more
        arming.close(sale, actor="test")


@pytest.fixture(scope="module")
def drawn(shop: Site) -> Sale:
    """A sale whose draw is made, with EARLY customers in it."""
    sale = wait_in_line(shop, opens_in=8)
    assert [ticket(shop, sale, f"early-{n}")["number"] for n in range(EARLY)] == list(range(EARLY))
    eventually(lambda: line(shop, sale)["draw"]["seed"])
    return sale


def wait_in_line(shop: Site, **facts: Any) -> Sale:
    """A sale whose line is published. Its turns come slowly, so that nobody misses one."""
    sale = shop.sell(admission_required=True, open_now=False, **facts)
    Room.objects.update_or_create(sale=sale, defaults={"turn_rate": 1, "turn_seconds": 600})
    arming.open_sale(sale, actor="test")
    eventually(lambda: shop.get(f"/api/v1/sales/{sale.slug}/line").status_code == 200)
    return sale


def line(shop: Site, sale: Sale) -> dict[str, Any]:
    body: dict[str, Any] = shop.get(f"/api/v1/sales/{sale.slug}/line").json()
    return body


def ticket(shop: Site, sale: Sale, customer: str) -> dict[str, Any]:
    answer = requests.post(
        f"{shop.url}/api/v1/sales/{sale.slug}/tickets",
        json={},
        headers={"Authorization": f"Bearer {mint(customer)}"},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def holds(visitor: Visitor, customer: str, shop: Site | None = None, sale: Sale | None = None) -> None:
    """The browser is the customer's; with a sale, it also keeps the ticket."""
    kept = {"fluxgate.token": mint(customer)}
    if shop and sale:
        kept[f"fluxgate.ticket.{sale.slug}"] = ticket(shop, sale, customer)["ticket"]
    visitor.context.add_init_script(f"Object.assign(localStorage, {json.dumps(kept)})")


def checks(visitor: Visitor, sale: Sale) -> Page:
    return visitor.goes_to(f"{PAGES}/draw.html?sale={sale.slug}")


def marks(page: Page) -> dict[str, str | None]:
    return {step: page.locator(f"[data-check={step}]").get_attribute("data-step") for step in STEPS}


def altered(page: Page, sale: Sale, **changed: str) -> None:
    """The published draw says something else."""

    def alter(route: Route) -> None:
        body = route.fetch().json()
        route.fulfill(json=body | {"draw": body["draw"] | changed})

    page.route(f"**/api/v1/sales/{sale.slug}/line", alter)


def listed(page: Page, sale: Sale, alter: Callable[[str], str]) -> None:
    """The list of entries that is handed out is another one."""
    page.route(
        f"**/api/v1/sales/{sale.slug}/entries",
        lambda route: route.fulfill(content_type="text/plain", body=alter(route.fetch().text())),
    )


def test_the_browser_computes_the_same_places(visitor: Visitor) -> None:
    rng = random.Random(20261122)
    secret, entries = rng.randbytes(32), 100_000
    text = draw.listed(draw.tag(b"salt", f"buyer-{n}") for n in range(entries))
    digest = draw.digest(text)
    seed = draw.seed(secret, digest, "6 aus 49: 3 14 15 92 65 35 – Zürich")
    numbers = rng.sample(range(entries), 1_000)
    page = visitor.goes_to(f"{PAGES}/draw.html")
    told = page.evaluate(
        """async ([module, secret, text, beacon, numbers, entries, tag]) => {
          const draw = await import(module);
          const digest = await draw.digestOf(text);
          const seed = await draw.seedOf(secret, digest, beacon);
          const places = await Promise.all(numbers.map((number) => draw.placeOf(seed, number, entries)));
          const found = [draw.countOf(text), draw.numberOf(text, tag), draw.numberOf(text, tag.slice(1))];
          return { commitment: await draw.commitmentOf(secret), digest, seed, places, found };
        }""",
        [
            f"{PAGES}/draw.js",
            secret.hex(),
            text,
            "6 aus 49: 3 14 15 92 65 35 – Zürich",
            numbers,
            entries,
            draw.tag(b"salt", "buyer-77777"),
        ],
    )
    assert (told["commitment"], told["digest"], told["seed"]) == (
        draw.commitment(secret),
        digest,
        seed.hex(),
    )
    assert told["places"] == [draw.place(seed, number, entries) for number in numbers]
    assert told["found"] == [entries, 77_777, None]


@pytest.mark.parametrize("entries", [1, 2, 3, 17, 257, 2**31 + 1, 2**32])
def test_the_browser_agrees_at_the_edges(visitor: Visitor, entries: int) -> None:
    seed = draw.seed(bytes(32), "00" * 32)
    numbers = sorted({0, entries // 2, entries - 1})
    page = visitor.goes_to(f"{PAGES}/draw.html")
    places, refused = page.evaluate(
        """async ([module, seed, numbers, entries]) => {
          const { placeOf } = await import(module);
          const places = await Promise.all(numbers.map((number) => placeOf(seed, number, entries)));
          const outside = [-1, 0.5, entries].map((number) => placeOf(seed, number, entries));
          return [places, (await Promise.allSettled(outside)).map((each) => each.reason?.name)];
        }""",
        [f"{PAGES}/draw.js", seed.hex(), numbers, entries],
    )
    assert places == [draw.place(seed, number, entries) for number in numbers]
    assert refused == ["RangeError"] * 3


def test_from_the_promise_to_the_proof(shop: Site, visitor: Visitor) -> None:
    sale = wait_in_line(shop, opens_in=12)
    holds(visitor, "ann", shop, sale)
    page = checks(visitor, sale)
    visitor.sees("The draw has not been made yet")
    promised = line(shop, sale)["draw"]["commitment"]
    expect(page.locator("[data-commitment]")).to_have_text(promised)
    assert set(marks(page).values()) == {"ahead"}

    visitor.sees("Everything holds")
    assert set(marks(page).values()) == {"done"}
    expect(page.get_by_text("This browser saw the same commitment before the opening")).to_be_visible()
    place = ticket(shop, sale, "ann")["place"]
    expect(page.get_by_text(f"Calculated here: place {place}. The shop gives you the same.")).to_be_visible()


def test_everything_holds_and_any_number_has_a_place(shop: Site, drawn: Sale, visitor: Visitor) -> None:
    holds(visitor, "early-5", shop, drawn)
    page = checks(visitor, drawn)
    visitor.sees("Everything holds")
    assert set(marks(page).values()) == {"done"}
    expect(page.get_by_text("It stands there at number 5, the number on your ticket.")).to_be_visible()

    seed = bytes.fromhex(line(shop, drawn)["draw"]["seed"])
    page.get_by_label("Number", exact=True).focus()
    page.keyboard.type("3")
    page.keyboard.press("Enter")
    expect(page.locator("[data-any-said]")).to_have_text(f"Number 3 has place {draw.place(seed, 3, EARLY)}.")
    page.get_by_label("Number", exact=True).fill(str(EARLY))
    page.get_by_role("button", name="Show its place").click()
    expect(page.locator("[data-any-said]")).to_contain_text(f"The numbers in the draw end at {EARLY - 1}.")


def test_looking_on_takes_no_ticket(shop: Site, drawn: Sale, visitor: Visitor) -> None:
    holds(visitor, "early-2")
    page = checks(visitor, drawn)
    taken = line(shop, drawn)["tickets"]
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.method))
    page.reload()
    visitor.sees("Everything holds")
    assert marks(page) == dict.fromkeys(STEPS[:3], "done") | dict.fromkeys(STEPS[3:], "skipped")
    assert set(asked) == {"GET"}

    page.get_by_role("button", name="Check my ticket too").click()
    expect(page.get_by_text("It stands there at number 2, the number on your ticket.")).to_be_visible()
    visitor.sees("Everything holds")
    assert set(marks(page).values()) == {"done"}
    assert line(shop, drawn)["tickets"] == taken


def test_a_latecomer_took_no_part(shop: Site, drawn: Sale, visitor: Visitor) -> None:
    holds(visitor, "late", shop, drawn)
    page = checks(visitor, drawn)
    visitor.sees("Everything holds")
    expect(page.get_by_text("is from after the opening: it took no part in the draw.")).to_be_visible()
    assert marks(page)["place"] == "done"


def test_another_secret_is_seen(shop: Site, drawn: Sale, visitor: Visitor) -> None:
    holds(visitor, "early-1", shop, drawn)
    told = line(shop, drawn)["draw"]
    secret = "00" * 32
    seed = draw.seed(bytes.fromhex(secret), told["digest"])
    altered(visitor.page, drawn, secret=secret, seed=seed.hex())
    page = checks(visitor, drawn)
    visitor.sees("This draw does not hold")
    # The shop's seed does follow from its new secret, but the promise was another.
    place = "failed" if draw.place(seed, 1, EARLY) != ticket(shop, drawn, "early-1")["place"] else "done"
    assert marks(page) == {
        "secret": "failed",
        "list": "done",
        "seed": "done",
        "entry": "done",
        "place": place,
    }


def test_another_commitment_than_before_the_opening_is_seen(
    shop: Site, drawn: Sale, visitor: Visitor
) -> None:
    note = {"commitment": "11" * 32, "seen": line(shop, drawn)["server_time"]}
    visitor.context.add_init_script(
        f"localStorage.setItem('fluxgate.commitment.{drawn.slug}', {json.dumps(json.dumps(note))})"
    )
    page = checks(visitor, drawn)
    visitor.sees("This draw does not hold")
    expect(page.get_by_text(f"the shop had published another commitment: {'11' * 32}")).to_be_visible()
    assert marks(page)["secret"] == "failed"


@pytest.mark.parametrize(
    ("change", "entry"),
    [
        (lambda text: "ab" * 16 + text[32:], "done"),  # number 0 is somebody else now
        (lambda text: text + "cd" * 16 + "\n", "done"),  # one more
        (lambda text: "".join(reversed(text.splitlines(keepends=True))), "failed"),
        (lambda text: "", "failed"),
    ],
    ids=["exchanged", "added", "reordered", "emptied"],
)
def test_another_list_is_seen(
    shop: Site, drawn: Sale, visitor: Visitor, change: Callable[[str], str], entry: str
) -> None:
    holds(visitor, "early-1", shop, drawn)
    listed(visitor.page, drawn, change)
    page = checks(visitor, drawn)
    visitor.sees("This draw does not hold")
    assert marks(page) == {
        "secret": "done",
        "list": "failed",
        "seed": "done",
        "entry": entry,
        "place": "done",
    }


def test_another_seed_is_seen(drawn: Sale, visitor: Visitor) -> None:
    altered(visitor.page, drawn, seed="22" * 32)
    page = checks(visitor, drawn)
    visitor.sees("This draw does not hold")
    assert marks(page)["seed"] == "failed"


def test_a_list_that_is_held_back_is_not_a_proof(drawn: Sale, visitor: Visitor) -> None:
    path = f"**/api/v1/sales/{drawn.slug}/entries"
    visitor.page.route(path, lambda route: route.fulfill(status=404, json={}))
    page = checks(visitor, drawn)
    visitor.sees("Not everything is checked yet")
    assert (marks(page)["secret"], marks(page)["list"]) == ("done", "now")
    visitor.page.unroute(path)
    visitor.sees("Everything holds")


def test_a_sale_without_a_line_has_no_draw(shop: Site, visitor: Visitor) -> None:
    sale = shop.sell()
    page = checks(visitor, sale)
    visitor.sees("There is no draw to check")
    expect(page.get_by_role("link", name="See all sales")).to_be_visible()
    visitor.goes_to(f"{PAGES}/draw.html?sale=none-such")
    expect(page.get_by_role("heading", name="There is no such sale")).to_be_visible()


def test_without_a_secure_connection_nothing_is_claimed(drawn: Sale, visitor: Visitor) -> None:
    """crypto.subtle is missing on plain http:// to another machine."""
    visitor.context.add_init_script("delete Crypto.prototype.subtle")
    page = checks(visitor, drawn)
    visitor.sees("Not checked")
    expect(page.get_by_role("alert")).to_contain_text("Open this address with https://")
    expect(page.locator("[data-steps]")).to_be_hidden()


def test_without_javascript_the_page_says_so(visit: Callable[..., Visitor]) -> None:
    visitor = visit(PHONE, java_script_enabled=False)
    page = visitor.goes_to(f"{PAGES}/draw.html?sale=any")
    expect(page.locator("noscript .note")).to_contain_text("needs JavaScript")
    visitor.does_not_scroll_sideways()


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_is_photographed(
    shop: Site, drawn: Sale, visit: Callable[..., Visitor], viewport: ViewportSize, scheme: str
) -> None:
    visitor = visit(viewport, color_scheme=scheme)
    page = visitor.page

    def keep(name: str) -> None:
        visitor.does_not_scroll_sideways()
        visitor.photographs(f"draw-{name}-{scheme}")

    checks(visitor, wait_in_line(shop, opens_in=3_000))
    visitor.sees("The draw has not been made yet")
    expect(page.locator("[data-product-name]")).to_have_text(re.compile("Product of"))
    keep("before")
    checks(visitor, drawn)
    visitor.sees("Everything holds")
    keep("looked-on")
    holds(visitor, "early-3", shop, drawn)
    page.reload()
    expect(page.get_by_text("The shop gives you the same.")).to_be_visible()
    page.get_by_label("Number", exact=True).fill("7")
    page.get_by_role("button", name="Show its place").click()
    for summary in page.locator("[data-check=seed] summary, [data-without-us] summary").all():
        summary.click()
    keep("verified")
    listed(page, drawn, lambda text: "ab" * 16 + text[32:])
    page.reload()
    visitor.sees("This draw does not hold")
    keep("tampered")
