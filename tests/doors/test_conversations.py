"""Whole conversations: questions of the corpus, drawn by lot, on one connection, in pieces drawn by lot.

Each question has the answer it has alone, in its place, whatever stood before it and wherever the
packets end. A seed that fails is named by the test's own name, and fails again.
"""

import json
from random import Random

import pytest

from tests.doors.dialogue import Dialogue
from tests.doors.questions import Question
from tests.doors.questions_orders import ORDERS
from tests.doors.questions_others import OTHERS
from tests.doors.questions_verdicts import VERDICTS
from tests.doors.stages import stage_of
from tests.running_site import Web

SEEDS = 12
TURNS = 12  # questions in a conversation
ENDS = ("Connection: close", "Connection: X-Other, Close", "HTTP/1.0")  # what a name or its bytes may say


def _goes_on(name: str, question: Question) -> bool:
    """Whether this question needs nothing before it, and leaves the connection open."""
    ended = question.status == 413 or (question.status == 400 and not question.slug)
    return not (question.before or ended or any(end in name for end in ENDS))


LOTS = [(name, q) for name, q in (ORDERS | VERDICTS | OTHERS).items() if _goes_on(name, q)]


def pieces(random: Random, whole: bytes) -> list[bytes]:
    """The bytes, cut nowhere or in up to six places."""
    cuts = sorted(random.sample(range(1, len(whole)), random.choice((0, 0, 1, 2, 6))))
    return [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_question_keeps_its_answer(door: Web, seed: int) -> None:
    random = Random(seed)
    drawn = random.choices(LOTS, k=TURNS)
    if random.random() < 0.5:  # what a process or a connection may remember, it remembers of neighbours
        drawn = [random.choice(drawn[:3]) for _ in drawn]
    asked = [question.ask(stage_of(question.sale, question.customer)) for _, question in drawn]
    together = random.randrange(1, TURNS + 1)  # so many in one breath, then they are listened to
    with Dialogue(door.port) as dialogue:
        for start in range(0, TURNS, together):
            breath = slice(start, start + together)
            dialogue.say_apart(*pieces(random, b"".join(asked[breath])))
            for (name, question), sent in zip(drawn[breath], asked[breath], strict=True):
                answer = dialogue.hear(bodiless=sent.startswith(b"HEAD "))
                assert answer is not None, name
                assert answer.status == question.status, name
                if b'"/problems#' in answer.body:
                    assert json.loads(answer.body)["type"] == f"/problems#{question.slug}", name
                else:
                    assert not (question.slug and answer.body), name
