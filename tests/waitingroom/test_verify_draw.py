"""`manage.py verify_draw`: recomputes what is published, and says in one line what does not hold."""

from typing import Any

import pytest

from sales.models import Sale
from tests.running_site import Site, eventually
from tests.waitingroom.test_tickets import line, room, ticket, wait_in_line
from waitingroom.models import Room

__all__ = ["room"]


def is_drawn(room: Site, sale: Sale) -> None:
    eventually(lambda: line(room, sale).json()["draw"]["seed"])


@pytest.fixture(scope="module")
def drawn(room: Site) -> Sale:
    """A sale whose draw of five entries is made."""
    sale = wait_in_line(room, opens_in=5)
    for n in range(5):
        ticket(room, sale, f"early-{n}")
    is_drawn(room, sale)
    return sale


def verify(room: Site, *arguments: str) -> tuple[int, str]:
    ended = room.manage("verify_draw", *arguments, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def test_a_draw_that_holds(room: Site, drawn: Sale) -> None:
    published = line(room, drawn).json()["draw"]
    code, said = verify(
        room, drawn.slug, "--url", room.url, "--number", "3", "--commitment", published["commitment"]
    )
    place = ticket(room, drawn, "early-3")["place"]
    assert (code, said.splitlines()) == (
        0,
        [
            f"The draw of 5 entries holds, by seed {published['seed']}.",
            f"Number 3 has place {place}, counted from 0.",
        ],
    )


def test_another_commitment_than_before_the_opening(room: Site, drawn: Sale) -> None:
    code, said = verify(room, drawn.slug, "--url", room.url, "--commitment", "00" * 32)
    assert code == 1
    assert "The secret is not the one that was committed to before the opening." in said


TAMPERED: dict[str, tuple[dict[str, Any], str]] = {
    "another list": ({"entries": "0" * 32 + "\n"}, "The list of entries is not the one that was frozen"),
    "another count": ({"entered": 6}, "The list has 5 entries, and 6 were published."),
}


@pytest.mark.parametrize("kind", TAMPERED)
def test_what_was_tampered_with_is_seen(room: Site, kind: str) -> None:
    sale = wait_in_line(room, opens_in=5)
    for n in range(5):
        ticket(room, sale, f"early-{n}")
    is_drawn(room, sale)
    changed, said = TAMPERED[kind]
    Room.objects.filter(sale=sale).update(**changed)
    eventually(lambda: said in verify(room, sale.slug, "--url", room.url)[1])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none-such"], "answers 404"),
        (["a/b?c"], "answers 404"),
        (["x", "--url", "ftp://127.0.0.1"], "--url begins with http:// or https://"),
        (["x", "--url", "http://127.0.0.1:1"], "the site does not answer"),
    ],
)
def test_bad_arguments_end_in_one_line(room: Site, arguments: list[str], said: str) -> None:
    if "--url" not in arguments:
        arguments = [*arguments, "--url", room.url]
    code, printed = verify(room, *arguments)
    assert code == 1
    assert said in printed
    assert len(printed.splitlines()) == 1


def test_a_number_that_took_no_part(room: Site, drawn: Sale) -> None:
    code, printed = verify(room, drawn.slug, "--url", room.url, "--number", "5")
    assert (code, printed.splitlines()[-1]) == (1, "CommandError: number 5 is not among 5 entries")


def test_a_draw_that_has_not_been_made(room: Site) -> None:
    sale = wait_in_line(room, opens_in=600)
    code, printed = verify(room, sale.slug, "--url", room.url)
    assert (code, "has not been made" in printed) == (1, True)
