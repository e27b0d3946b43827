"""Guessing passwords: five wrong ones lock a name from one address, in every web process."""

from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import pytest
import requests
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.utils import timezone

from tests.running_site import Site, Web

RIGHT = "correct horse battery"
HERE, ELSEWHERE = "203.0.113.7", "203.0.113.8"


@pytest.fixture
def name(site: Site) -> Iterator[str]:
    user = User.objects.create_superuser(f"olivia-{uuid4().hex[:6]}", password=RIGHT)
    yield user.username
    user.delete()


def sign_in(web: Web, name: str, password: str, client: str = HERE) -> requests.Response:
    """As a browser at this address, behind a proxy on this machine."""
    page, headers = f"{web.url}/admin/login/", {"X-Forwarded-For": client}
    with requests.Session() as browser:
        token = browser.get(page, headers=headers, timeout=30).cookies["csrftoken"]
        data = {"username": name, "password": password, "csrfmiddlewaretoken": token, "next": "/admin/"}
        return browser.post(page, data, headers=headers, timeout=30, allow_redirects=False)


def guess(web: Web, name: str, times: int = 5, client: str = HERE) -> list[int]:
    return [sign_in(web, name, "wrong", client).status_code for _ in range(times)]


def test_five_wrong_passwords_lock_a_name_in_every_process(site: Site, name: str) -> None:
    assert guess(site, name) == [200, 200, 200, 200, 429]
    another = site.another_web()
    another.wait()
    for web in (site, another):
        locked = sign_in(web, name, RIGHT)
        assert locked.status_code == 429
        assert "5 wrong passwords" in locked.text
        assert "for 15 minutes" in locked.text
        assert "sessionid" not in locked.cookies
    assert "sign-in locked" in site.printed.read_text()
    assert HERE in site.printed.read_text()


def test_four_wrong_passwords_and_the_right_one(site: Site, name: str) -> None:
    for _ in range(2):
        assert guess(site, name, 4) == [200] * 4
        assert sign_in(site, name, RIGHT).status_code == 302, "and it is counted anew"


def test_neither_another_address_nor_another_name_is_locked(site: Site, name: str) -> None:
    assert guess(site, name)[-1] == 429
    assert sign_in(site, name, RIGHT, client=ELSEWHERE).status_code == 302
    other = User.objects.create_superuser(f"mark-{uuid4().hex[:6]}", password=RIGHT)
    assert sign_in(site, other.username, RIGHT).status_code == 302
    other.delete()


def test_an_address_that_no_proxy_of_ours_vouches_for_counts_for_nothing(site: Site, name: str) -> None:
    web = site.another_web(FLUXGATE_PROXIES="192.0.2.1")
    web.wait()
    answers = [sign_in(web, name, "wrong", f"203.0.113.{n}").status_code for n in range(5)]
    assert answers[-1] == 429, "a new address a guess would never be locked"
    assert set(AccessAttempt.objects.filter(username=name).values_list("ip_address", flat=True)) == {
        "127.0.0.1"
    }


def test_a_client_behind_our_proxy_cannot_choose_its_address(site: Site, name: str) -> None:
    answers = [sign_in(site, name, "wrong", f"198.51.100.{n}, {HERE}").status_code for n in range(5)]
    assert answers[-1] == 429
    assert set(AccessAttempt.objects.filter(username=name).values_list("ip_address", flat=True)) == {HERE}


def test_it_ends_after_a_quarter_of_an_hour(site: Site, name: str) -> None:
    assert guess(site, name)[-1] == 429
    attempts = AccessAttempt.objects.filter(username=name)
    before = timezone.now() - timedelta(minutes=14)
    attempts.update(attempt_time=before)
    assert sign_in(site, name, "wrong").status_code == 429
    assert sign_in(site, name, RIGHT).status_code == 429
    assert attempts.get().attempt_time == before, "a try while it is locked makes it no longer"
    attempts.update(attempt_time=timezone.now() - timedelta(minutes=15, seconds=1))
    assert sign_in(site, name, RIGHT).status_code == 302


def test_it_can_be_ended_before(site: Site, name: str) -> None:
    assert guess(site, name)[-1] == 429
    site.manage("axes_reset_username", name)
    assert sign_in(site, name, RIGHT).status_code == 302


def test_buyers_are_not_looked_at(site: Site, name: str) -> None:
    assert guess(site, name)[-1] == 429
    sale = site.sell()
    assert site.buy(sale.slug, name, **{"X-Forwarded-For": HERE}).status_code == 202
