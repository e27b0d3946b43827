"""The merchant's brand: in the admin, in the API, and on what is rendered."""

from typing import Any

import pytest
from django.core.cache import cache
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import OperationalError
from django.test import Client
from django.urls import reverse
from playwright.sync_api import expect

from tests.desk import EVERYTHING, sign_in
from tests.running_site import Site, eventually
from tests.waitingroom.visitor import Visitor
from waitingroom import brand
from waitingroom.colours import contrast
from waitingroom.models import Brand

SVG = b'<?xml version="1.0"?>\n<!-- drawn --><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>'
ADD = reverse("admin:waitingroom_brand_add")
OWN = {
    "name": "Kastanie",
    "headline": "Chestnuts, fairly",
    "lede": "One each.",
    "accent": "#7a1f3d",
    "accent_dark": "#ffb3c7",
}


@pytest.fixture(autouse=True)
def forgotten() -> None:
    cache.clear()


def upload(content: bytes, name: str = "logo.svg") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, content)


def errors(answer: Any) -> str:
    return str(answer.context["adminform"].form.errors)


@pytest.mark.django_db
def test_a_brand_of_ones_own() -> None:
    assert brand.current()["name"] == "Flux-Gate"
    client = sign_in(EVERYTHING)
    assert client.post(ADD, OWN | {"new_logo": upload(SVG)}).status_code == 302
    assert brand.current() == OWN | {"logo_url": "/api/v1/brand/logo?v=1"}
    page = Client().get("/").content.decode()
    assert "<title>Sales · Kastanie</title>" in page
    assert "Chestnuts, fairly" in page
    assert 'src="/api/v1/brand/logo?v=1"' in page
    assert client.post(ADD, OWN).status_code == 403  # there is one already
    change = reverse("admin:waitingroom_brand_change", args=[True])
    assert client.post(change, OWN | {"without_logo": "on"}).status_code == 302
    assert brand.current()["logo_url"] is None


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"accent": "#ffd700"}, "Contrast 1."),
        ({"accent_dark": "#3a45c9"}, "Contrast"),
        ({"accent": "red"}, "A colour as #rrggbb"),
        ({"accent": "#FFFFFF"}, "A colour as #rrggbb"),
        ({"name": ""}, "required"),
        ({"name": "x" * 61}, "60"),
        ({"new_logo": upload(b"<html><script>alert(1)</script></html>")}, "neither SVG nor PNG nor WebP"),
        ({"new_logo": upload(SVG + b" " * 65536)}, "larger than 64 kB"),
        ({"new_logo": upload(b"<!---->" * 5000)}, "neither SVG nor PNG nor WebP"),  # and it takes no time
        ({"new_logo": upload(b"GIF89a", "logo.png")}, "neither SVG nor PNG nor WebP"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_read_or_is_no_image_is_refused(wrong: dict[str, Any], said: str) -> None:
    answer = sign_in(EVERYTHING).post(ADD, OWN | wrong)
    assert answer.status_code == 200
    assert said in errors(answer)
    assert not Brand.objects.exists()


@pytest.mark.django_db
def test_a_name_is_text_and_nothing_else() -> None:
    Brand.objects.create(**OWN | {"name": "<script>alert(1)</script>"})
    assert "<script>alert" not in Client().get("/").content.decode()


@pytest.mark.django_db
def test_without_postgresql_it_is_as_it_was_last_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> Any:
        raise OperationalError("away")

    Brand.objects.create(**OWN)
    assert brand.current()["name"] == "Kastanie"
    monkeypatch.setattr(brand, "_read", away)
    brand.forget()
    assert brand.current()["name"] == "Kastanie"
    cache.clear()
    assert brand.current()["name"] == "Flux-Gate"


def test_contrast() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert contrast("#3a45c9", "#3a45c9") == 1


def test_over_http(site: Site) -> None:
    told = site.get("/api/v1/brand")
    assert told.json()["name"] == "Flux-Gate"
    assert told.headers["Cache-Control"] == "public, max-age=10"
    assert site.get("/api/v1/brand/logo").status_code == 404
    Brand.objects.create(**OWN, logo=SVG, logo_type="image/svg+xml", logo_version=1)
    eventually(lambda: site.get("/api/v1/brand").json()["name"] == "Kastanie")
    logo = eventually(lambda: (answer := site.get("/api/v1/brand/logo?v=1")).status_code == 200 and answer)
    assert (logo.content, logo.headers["Content-Type"]) == (SVG, "image/svg+xml")
    assert "sandbox" in logo.headers["Content-Security-Policy"]
    assert logo.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.browser
def test_the_pages_wear_it(shop: Site, visitor: Visitor) -> None:
    Brand.objects.get_or_create(only=True, defaults=OWN)
    eventually(lambda: shop.get("/api/v1/brand").json()["name"] == "Kastanie")
    sale = shop.sell(opens_in=600)
    visitor.page.goto(f"{shop.url}/static/waitingroom/countdown.html?sale={sale.slug}")
    expect(visitor.page.locator(".brand")).to_have_text("Kastanie")
    accent = "getComputedStyle(document.documentElement).getPropertyValue('--accent')"
    assert visitor.page.evaluate(accent) == "#7a1f3d"
    visitor.page.goto(shop.url)
    expect(visitor.page.get_by_role("heading", level=1)).to_have_text("Chestnuts, fairly")
