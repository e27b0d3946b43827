"""The store front as the server draws it: what is listed, what it costs, what it outlives."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from sales import storefront
from sales.models import Sale
from sales.problems import CATALOGUE


@pytest.fixture(autouse=True)
def _nothing_remembered(transactional_db: None) -> Iterator[None]:
    cache.delete_many([storefront.FRESH, storefront.LAST])
    yield
    cache.delete_many([storefront.FRESH, storefront.LAST])


@pytest.fixture
def scheduled(make_sale: Callable[..., Sale]) -> Callable[..., Sale]:
    """Makes public sales; `state` is written past the operator's steps, as only the list is at stake."""

    def make(*, state: str = "scheduled", **facts: object) -> Sale:
        sale = make_sale(**facts)
        Sale.objects.filter(pk=sale.pk).update(state=state)
        return sale

    return make


def test_drafts_and_sales_long_over_are_not_listed(
    client: Client, make_sale: Callable[..., Sale], scheduled: Callable[..., Sale]
) -> None:
    now = timezone.now()
    draft = make_sale(name="Secret draft")
    public = scheduled(name="Public sale")
    old = scheduled(
        name="Ancient sale",
        state="closed",
        opens_at=now - timedelta(days=20),
        closes_at=now - timedelta(days=10),
    )
    page = client.get("/").content.decode()
    assert public.slug in page
    assert draft.slug not in page
    assert old.slug not in page


def test_what_can_be_bought_comes_first(client: Client, scheduled: Callable[..., Sale]) -> None:
    now = timezone.now()
    scheduled(slug="over", state="closed")
    scheduled(slug="later", opens_at=now + timedelta(minutes=40))
    scheduled(slug="soon", opens_at=now + timedelta(minutes=20))
    scheduled(slug="running", state="open")
    page = client.get("/").content.decode()
    places = [page.index(f'data-slug="{slug}"') for slug in ("running", "soon", "later", "over")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("state", "opens_in", "offered"),
    [
        ("scheduled", 40, {"countdown"}),
        ("armed", 40, {"line", "countdown"}),
        ("open", 40, {"line", "countdown"}),
        ("open", -1, {"line"}),
        ("paused", -1, {"line"}),
        ("closed", -1, set()),
    ],
)
def test_a_sale_with_a_waiting_room_leads_into_its_line(
    client: Client, scheduled: Callable[..., Sale], state: str, opens_in: int, offered: set[str]
) -> None:
    opens_at = timezone.now() + timedelta(minutes=opens_in)
    sale = scheduled(state=state, opens_at=opens_at, admission_required=True)
    page = client.get("/").content.decode()
    links = re.findall(r'<a class="button[^>]*data-(\w+)-link(?! hidden)[^>]*>', page)
    assert set(links) == offered
    assert f"room.html?sale={sale.slug}" in page


def test_a_sale_without_one_leads_into_no_line(client: Client, scheduled: Callable[..., Sale]) -> None:
    scheduled(state="open", opens_at=timezone.now() + timedelta(minutes=40))
    page = client.get("/").content.decode()
    assert re.findall(r'<a class="button[^>]*data-(\w+)-link(?! hidden)[^>]*>', page) == ["countdown"]


def test_a_crowd_costs_one_query_a_second(
    client: Client, scheduled: Callable[..., Sale], django_assert_num_queries: Callable[..., Any]
) -> None:
    scheduled()
    with django_assert_num_queries(1):
        for _ in range(5):
            assert client.get("/").status_code == 200
    assert cache.ttl(storefront.FRESH) <= storefront.FRESH_SECONDS  # type: ignore[attr-defined]  # django-redis's


def test_the_list_outlives_the_database(
    client: Client, scheduled: Callable[..., Sale], monkeypatch: pytest.MonkeyPatch
) -> None:
    sale = scheduled()
    client.get("/")
    cache.delete(storefront.FRESH)

    def away() -> list[storefront.ListedSale]:
        raise OperationalError("connection refused")

    monkeypatch.setattr(storefront, "_read_sales", away)
    answer = client.get("/")
    assert (answer.status_code, sale.slug in answer.content.decode()) == (200, True)

    cache.delete_many([storefront.FRESH, storefront.LAST])
    answer = client.get("/")
    assert (answer.status_code, answer["Retry-After"]) == (503, str(storefront.AWAY_SECONDS))
    assert "Orders that were accepted are safe" in answer.content.decode()


def test_the_list_does_without_the_cache(
    client: Client, scheduled: Callable[..., Sale], settings: Any
) -> None:
    sale = scheduled()
    nobody = {"default": settings.CACHES["default"] | {"LOCATION": "redis://127.0.0.1:1/0"}}
    settings.CACHES = nobody
    answer = client.get("/")
    assert (answer.status_code, sale.slug in answer.content.decode()) == (200, True)


def test_an_empty_shop_says_so(client: Client) -> None:
    assert "No sale at the moment" in client.get("/").content.decode()


@pytest.mark.parametrize(
    ("amount", "currency", "words"),
    [
        ("19.90", "EUR", "€19.90"),
        ("1234567890.00", "USD", "$1,234,567,890.00"),
        ("24000.00", "JPY", "¥24,000"),
        ("5.00", "CHF", "CHF\u00a05.00"),
        ("0.00", "GBP", "£0.00"),
    ],
)
def test_a_price_is_written_for_people(
    client: Client, scheduled: Callable[..., Sale], amount: str, currency: str, words: str
) -> None:
    scheduled(unit_price=amount, currency=currency)
    assert words in client.get("/").content.decode()


def test_names_are_escaped(client: Client, scheduled: Callable[..., Sale]) -> None:
    scheduled(name='"><script>alert(1)</script>')
    page = client.get("/").content.decode()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


@pytest.mark.parametrize("path", ["/", "/problems"])
def test_a_page_runs_nothing_but_its_own_files(client: Client, path: str) -> None:
    answer = client.get(path)
    policy = answer["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    page = answer.content.decode()
    assert "style=" not in page
    assert "onclick=" not in page
    assert "<style" not in page


@pytest.mark.parametrize("path", ["/", "/problems"])
def test_a_page_is_only_read(client: Client, path: str) -> None:
    assert client.head(path).status_code == 200
    assert client.post(path).status_code == 405


def test_advice_is_given_for_problems_that_exist() -> None:
    assert {problem.slug for problem in CATALOGUE} > storefront.WORTH_REPEATING


def test_an_unknown_address_is_met_kindly(client: Client) -> None:
    answer = client.get("/nothing-here")
    assert answer.status_code == 404
    assert "See all sales" in answer.content.decode()
