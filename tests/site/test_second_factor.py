"""The second factor of the admin: enrolled once, asked for ever after, and no page without it."""

import re
from base64 import b32decode
from typing import Any

import pytest
import structlog
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django_otp.oath import totp
from django_otp.plugins.otp_static.models import StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice

from sales.models import Sale
from tests.desk import EVERYTHING, VIEWER, draft, sign_in
from tests.site.test_roles import ELSEWHERE, PAGES, address, subject

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("log_topic")]

PAGE = reverse("second-factor")
INDEX = reverse("admin:index")
PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def required(settings: Any) -> Any:
    settings.FLUXGATE = settings.FLUXGATE.model_copy(update={"second_factor": "required"})
    settings.PASSWORD_HASHERS = [
        "django.contrib.auth.hashers.MD5PasswordHasher"
    ]  # the real one takes its time
    return settings


@pytest.fixture
def olivia() -> User:
    return User.objects.create_superuser("olivia", password=PASSWORD)


def with_password(name: str = "olivia") -> Client:
    """A browser that has given the right password, and nothing else."""
    client = Client()
    answer = client.post(reverse("admin:login"), {"username": name, "password": PASSWORD, "next": INDEX})
    assert (answer.status_code, answer.url) == (302, INDEX)  # type: ignore[attr-defined]
    return client


def secret(client: Client) -> bytes:
    """What an authenticator would read off the page."""
    text = client.get(PAGE).content.decode()
    [shown] = re.findall(r'class="fg-secret">([A-Z2-7 ]+)<', text)
    return b32decode(shown.replace(" ", ""))


def code(key: bytes, steps: int = 0) -> str:
    """Of now, or of so many half minutes later: each is taken once."""
    return f"{totp(key, t0=-30 * steps):06d}"


def enrolled(client: Client) -> tuple[bytes, list[str]]:
    key = secret(client)
    text = client.post(PAGE, {"code": code(key)}).content.decode()
    return key, re.findall(r"<li><code>(\w+)</code>", text)


def is_in(client: Client) -> bool:
    return client.get(INDEX).status_code == 200


def error(answer: Any) -> str:
    [found] = answer.context["form"].errors["code"]
    return str(found)


def test_a_password_alone_opens_no_page_of_the_admin(olivia: User) -> None:
    client = with_password()
    names = set(PAGES) - ELSEWHERE - {"login", "logout"}
    assert len(names) > 50
    for name in names:
        there = address(name, subject(name))
        before = list(Sale.objects.order_by("pk").values_list("pk", "state"))
        for answer in (client.get(there), client.post(there, {"reason": "forged", "post": "yes"})):
            assert (answer.status_code, answer.url.partition("?")[0]) == (302, PAGE), name  # type: ignore[attr-defined]
        assert list(Sale.objects.order_by("pk").values_list("pk", "state")) == before


def test_twin_without_the_middleware_a_password_is_enough(olivia: User, required: Any) -> None:
    required.MIDDLEWARE = [name for name in required.MIDDLEWARE if "SecondFactor" not in name]
    assert is_in(with_password())


def test_where_it_is_off_nobody_is_asked(olivia: User, required: Any) -> None:
    required.FLUXGATE = required.FLUXGATE.model_copy(update={"second_factor": "off"})
    client = with_password()
    assert is_in(client)
    assert client.get(PAGE).status_code == 404


def test_enrolment_shows_secret_and_recovery_codes_once(olivia: User) -> None:
    client = with_password()
    answer = client.get(PAGE)
    text = answer.content.decode()
    assert "no-store" in answer["Cache-Control"]
    assert "<svg" in text
    assert re.findall(r'(?:src|href)="(?:https?:)?//[^"]+', text) == []
    assert not TOTPDevice.objects.exists(), "looking at the page enrols nobody"
    assert error(client.post(PAGE, {"code": "000000"})).startswith("This code is not right")
    assert error(client.post(PAGE, {"code": "hello"})).startswith("This code is not right")
    assert not is_in(client)

    before = client.session.session_key
    key, codes = enrolled(client)
    assert len(set(codes)) == 10
    assert is_in(client)
    assert client.session.session_key != before
    assert TOTPDevice.objects.get().bin_key == key
    for page in (PAGE, INDEX):
        later = client.get(page, follow=True).content.decode()
        assert not any(each in later for each in codes)


def test_every_later_sign_in_asks_for_a_code(olivia: User) -> None:
    key, _ = enrolled(with_password())
    client = with_password()
    assert not is_in(client)
    text = client.get(PAGE).content.decode()
    assert "fg-secret" not in text
    assert "<svg" not in text.partition("<form")[0]
    there = reverse("admin:sales_sale_changelist")
    asked = client.get(there)
    answer = client.post(asked.url, {"code": f" {code(key, 1)[:3]} {code(key, 1)[3:]} "})  # type: ignore[attr-defined]
    assert (answer.status_code, answer.url) == (302, there)  # type: ignore[attr-defined]
    assert is_in(client)


def test_a_code_is_taken_once(olivia: User) -> None:
    key, _ = enrolled(with_password())
    first, second = with_password(), with_password()
    used = code(key, 1)
    first.post(PAGE, {"code": used})
    assert is_in(first)
    assert "used already" in error(second.post(PAGE, {"code": used}))
    assert not is_in(second)


def test_guessing_is_slowed_down(olivia: User) -> None:
    key, _ = enrolled(with_password())
    TOTPDevice.objects.update(throttling_failure_count=9)
    client = with_password()
    # Far from the codes around now, whatever they are.
    right = {code(key, steps) for steps in range(-3, 4)}
    wrong = next(each for each in ("000000", "111111", "222222") if each not in right)
    with structlog.testing.capture_logs() as logged:
        client.post(PAGE, {"code": wrong})
    assert [(line["event"], line["user"]) for line in logged] == [("second factor refused", "olivia")]
    assert re.match(
        r"Too soon after a wrong code: wait \d+ s", error(client.post(PAGE, {"code": code(key, 1)}))
    )
    assert not is_in(client)


def test_a_recovery_code_lets_in_once(olivia: User) -> None:
    _, codes = enrolled(with_password())
    client = with_password()
    client.post(PAGE, {"code": codes[3].upper()})
    assert is_in(client)
    again = with_password()
    assert "used already" in error(again.post(PAGE, {"code": codes[3]}))
    assert not is_in(again)
    assert StaticToken.objects.count() == 9


def test_a_secret_that_somebody_else_was_shown_is_not_enrolled(olivia: User) -> None:
    thief, client = with_password(), with_password()
    assert secret(thief) != secret(client)
    enrolled(client)
    assert "fg-secret" not in thief.get(PAGE).content.decode()
    assert not is_in(thief)


def test_the_code_of_another_person_does_not_let_in(olivia: User) -> None:
    enrolled(with_password())
    User.objects.create_superuser("mark", password=PASSWORD)
    key, codes = enrolled(with_password("mark"))
    client = with_password()
    for given in (code(key, 1), codes[0]):
        client.post(PAGE, {"code": given})
        assert not is_in(client)


def test_who_is_not_staff_is_led_to_the_login(client: Client, olivia: User) -> None:
    User.objects.create_user("buyer", password=PASSWORD)
    buyer = Client()
    buyer.force_login(User.objects.get(username="buyer"))
    for someone in (client, buyer):
        for page in (PAGE, INDEX):
            answer = someone.get(page)
            assert (answer.status_code, answer.url.partition("?")[0]) == (302, reverse("admin:login"))  # type: ignore[attr-defined]


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example/", "javascript:alert(1)"])
def test_it_leads_nowhere_else(olivia: User, elsewhere: str) -> None:
    key, _ = enrolled(with_password())
    client = with_password()
    answer = client.post(f"{PAGE}?next={elsewhere}", {"code": code(key, 1)})
    assert (answer.status_code, answer.url) == (302, INDEX)  # type: ignore[attr-defined]


def test_permissions_are_asked_all_the_same(olivia: User) -> None:
    client = sign_in(*VIEWER)
    enrolled(client)
    sale = draft()
    assert client.get(reverse("admin:sales_sale_change", args=[sale.pk])).status_code == 200
    assert (
        client.post(reverse("admin:sales_sale_arm_step", args=[sale.pk]), {"reason": "x"}).status_code == 403
    )


def test_a_lost_phone(olivia: User, capsys: pytest.CaptureFixture[str]) -> None:
    client = with_password()
    key, codes = enrolled(client)
    with structlog.testing.capture_logs() as logged:
        call_command("reset_second_factor", "olivia")
    assert [(line["event"], line["user"]) for line in logged] == [("second factor reset", "olivia")]
    assert "sets up a new second factor at the next sign-in" in capsys.readouterr().out
    assert not is_in(client), "also whoever is signed in with the lost one"
    assert client.get(PAGE)["Location"].startswith("/admin/login/"), "who could set up a new one else"
    new, _ = enrolled(with_password())
    assert new != key
    thief = with_password()
    for given in (code(key, 1), codes[0]):
        thief.post(PAGE, {"code": given})
        assert not is_in(thief)
    with pytest.raises(CommandError, match="there is no user nobody"):
        call_command("reset_second_factor", "nobody")


def test_the_admin_shows_nobodys_secrets() -> None:
    """django-otp's and axes' own pages: a superuser could sign in as somebody else from them."""
    assert [name for name in PAGES if name.startswith(("otp_", "axes_"))] == []
    client = sign_in(EVERYTHING)
    enrolled(client)
    assert client.get("/admin/otp_totp/totpdevice/").status_code == 404
