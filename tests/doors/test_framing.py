"""Bad framing and request smuggling: every door reads the bytes as two independent parsers do.

The doors parse with httptools (llhttp). A second web process parses with h11; where the two differ,
framings.py says so and why. A proxy in front may agree with either of them.
"""

import pytest

from tests.doors.conftest import DOORS, web_behind
from tests.doors.dialogue import Dialogue
from tests.doors.framings import FRAMINGS, ORDER, OTHER, REFUSED, Verdict
from tests.doors.questions import an_order
from tests.doors.stages import stage_of
from tests.running_site import Site, Web

BEHIND = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def h11(site: Site) -> Web:
    return web_behind(site, "H11")


def verdict_of(web: Web, name: str) -> Verdict:
    """What a web process makes of a framing, by its answers to it and to what stands behind it."""
    statuses = []
    with Dialogue(web.port) as dialogue:
        dialogue.say(FRAMINGS[name].make(stage_of("open", "")) + BEHIND)
        while (answer := dialogue.hear()) is not None:
            statuses.append(answer.status)
    if statuses in ([202, 200], [202]):
        return ORDER
    return REFUSED if statuses in ([400], [408]) else OTHER


@pytest.mark.parametrize("name", FRAMINGS)
def test_the_doors_and_both_parsers_agree(doors: dict[str, Web], h11: Web, name: str) -> None:
    framing = FRAMINGS[name]
    found = {door: verdict_of(doors[door], name) for door in DOORS}
    assert found == dict.fromkeys(DOORS, framing.verdict)
    assert verdict_of(h11, name) == (framing.h11 or framing.verdict)


def test_a_difference_has_a_reason() -> None:
    for name, framing in FRAMINGS.items():
        assert (framing.h11 is not None) == bool(framing.why), name
        assert OTHER is not framing.verdict, name


def test_behind_all_that_the_doors_still_sell(door: Web) -> None:
    with Dialogue(door.port) as dialogue:
        dialogue.say(an_order()(stage_of("open", "")))
        answer = dialogue.hear()
        assert answer is not None
        assert answer.status == 202


@pytest.fixture(scope="module")
def lenient(site: Site) -> Web:
    return web_behind(site, "Lenient")


@pytest.mark.parametrize(
    "name",
    [
        "chunk: shorter than it says",
        "chunk: a bare line feed behind the data",
        "head: space before the colon",
        "head: NUL in a value",
        "head: a bare line feed behind the head",
        "head: a folded line",
    ],
)
def test_twin_a_lenient_parser_is_seen(lenient: Web, name: str) -> None:
    assert verdict_of(lenient, name) != FRAMINGS[name].verdict
