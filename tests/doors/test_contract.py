"""One contract at three doors: every question of a corpus has the same answer at each of them.

What is compared is in comparing.py: the status line, every header, the body, Retry-After, and whether
the connection goes on. The corpus is data: questions_*.py, and the hostile one of tests/site.
"""

import json

import pytest
import redis

from sales.gate import pool_keys
from tests.doors.comparing import ask, differences, hostile_answers
from tests.doors.conftest import DOORS
from tests.doors.questions import Question, an_order, at, sale_id
from tests.doors.questions_orders import ORDERS
from tests.doors.questions_others import OTHERS
from tests.doors.questions_verdicts import VERDICTS
from tests.doors.stages import slug, stage_of
from tests.doors.twins import NAME, TWINS
from tests.running_site import Site, Web
from tests.site.hostile import wrong
from tests.site.hostile_bodies import BODIES
from tests.site.hostile_frames import FRAMES
from tests.site.hostile_requests import REQUESTS

QUESTIONS = ORDERS | VERDICTS | OTHERS
HOSTILE = {name: probe for name, probe in (BODIES | FRAMES | REQUESTS).items() if "10 MB" not in name}
PLAIN = Question(202, "", an_order())


def test_the_corpus_is_as_large_as_it_says() -> None:
    assert len(QUESTIONS) == len(ORDERS) + len(VERDICTS) + len(OTHERS) >= 250


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_doors_agree(doors: dict[str, Web], gate: redis.Redis, name: str) -> None:
    they_agree(doors, gate, QUESTIONS[name])


def they_agree(doors: dict[str, Web], gate: redis.Redis, question: Question) -> None:
    answers = {door: ask(doors[door], question, gate) for door in DOORS}
    answer, expected = answers["stock"]
    problem = json.loads(answer.body)["type"].partition("#")[2] if b'"/problems#' in answer.body else ""
    assert answer.status == question.status
    assert problem == question.slug or not answer.body  # HEAD
    for door, (_, seen) in answers.items():
        assert differences(expected, seen, drift=question.drift) == [], door


@pytest.mark.parametrize("name", HOSTILE)
def test_the_doors_agree_about_what_no_honest_client_sends(doors: dict[str, Web], name: str) -> None:
    probe = HOSTILE[name]
    stages = {door: stage_of("open", "") for door in DOORS}
    found = {door: hostile_answers(doors[door], probe, stages[door]) for door in DOORS}
    assert {door: wrong(probe, replies) for door, (replies, _) in found.items()} == dict.fromkeys(DOORS)
    if not probe.or_else and all(len(statuses) == 1 for statuses in probe.right):  # else the moment decides
        assert found["lean"][1] == found["hot"][1] == found["stock"][1]


def test_the_tag_of_one_door_is_known_at_the_others(doors: dict[str, Web], gate: redis.Redis) -> None:
    for path in ("/api/v1/sales", "/api/v1/sales/{slug}"):
        answer, _ = ask(doors["stock"], Question(200, "", at(path)), gate)
        tag = answer.header("etag")
        assert tag is not None
        they_agree(doors, gate, Question(304, "", at(path, ("If-None-Match", tag))))


def test_a_fallen_gate_is_answered_alike(doors: dict[str, Web], gate: redis.Redis) -> None:
    key = pool_keys(sale_id(slug("one"))).gate
    epoch = gate.hget(key, "epoch")
    gate.hset(key, "epoch", "999999")
    try:
        they_agree(doors, gate, Question(503, "temporarily-unavailable", an_order(), sale="one"))
    finally:
        gate.hset(key, "epoch", epoch)
    they_agree(doors, gate, PLAIN._replace(sale="one"))


@pytest.fixture(scope="module")
def twin(site: Site) -> Web:
    web = site.another_web(kind=Twin, FLUXGATE_DOOR="lean")
    web.wait()
    return web


class Twin(Web):
    application = "tests.doors.twins:application"


@pytest.mark.parametrize("name", TWINS)
def test_twin_a_door_that_differs_is_seen(
    doors: dict[str, Web], twin: Web, gate: redis.Redis, name: str
) -> None:
    named = PLAIN._replace(ask=an_order((NAME.decode(), name)))
    _, expected = ask(doors["stock"], named, gate)
    _, seen = ask(twin, named, gate)
    assert differences(expected, seen) != []


def test_twin_that_changes_nothing_is_not_seen(doors: dict[str, Web], twin: Web, gate: redis.Redis) -> None:
    _, expected = ask(doors["stock"], PLAIN, gate)
    _, seen = ask(twin, PLAIN, gate)
    assert differences(expected, seen) == []
