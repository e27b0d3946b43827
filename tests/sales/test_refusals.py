"""Refusals repeated from memory: never to a key that has a claim, whichever process got it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
import redis
from django.conf import settings

from sales import gate as gate_words
from sales.directory import Facts
from sales.gate import Answer, Attempt, GateUnreachable, Verdict
from sales.models import Sale
from sales.refusals import MOST_CLAIMS, Refusals
from sales.turnstile import Turnstile

pytestmark = pytest.mark.django_db(transaction=True)


class Counted(Turnstile):
    """A process whose questions to the gate are counted."""

    asked = 0

    async def _claim(self, asked: Any) -> list[Answer | Exception]:
        self.asked += len(asked)
        return await super()._claim(asked)


@pytest.fixture
async def processes() -> AsyncIterator[tuple[Counted, Counted]]:
    ours, theirs = Counted(), Counted()
    yield ours, theirs
    await ours.close()
    await theirs.close()


async def facts_of(process: Counted, sale: Sale) -> Facts:
    facts = await process.facts(sale.slug)
    assert facts is not None
    return facts


async def until_repeated(process: Counted, facts: Facts, verdict: Verdict) -> None:
    """Until the process answers a stranger without asking the gate."""
    async with asyncio.timeout(10):
        while True:
            before = process.asked
            answer = await process.attempt(facts, Attempt(str(uuid4()), f"stranger-{uuid4()}", 1))
            assert answer.verdict is verdict
            if process.asked == before:
                return
            await asyncio.sleep(0.001)


async def test_sold_out_is_repeated_and_a_claim_of_another_process_replays(
    open_sale: Callable[..., Sale], processes: tuple[Counted, Counted]
) -> None:
    sale = open_sale(allotment=2)
    ours, theirs = processes
    facts = await facts_of(ours, sale)
    won, lost = Attempt(str(uuid4()), "ann", 1), Attempt(str(uuid4()), "bob", 1)
    assert (await ours.attempt(facts, won)).verdict is Verdict.CLAIMED
    assert (await theirs.attempt(facts, lost)).verdict is Verdict.CLAIMED
    for process in processes:
        await until_repeated(process, facts, Verdict.SOLD_OUT)
        for attempt in (won, lost):
            assert (await process.attempt(facts, attempt)).verdict is Verdict.REPLAYED
        other = await process.attempt(facts, Attempt(str(uuid4()), "ann", 1))
        assert other.verdict is Verdict.LIMIT_REACHED


async def test_too_busy_is_repeated_and_a_claim_of_another_process_replays(
    open_sale: Callable[..., Sale], processes: tuple[Counted, Counted]
) -> None:
    sale = open_sale(allotment=10, admission_rate=1, burst=2)
    ours, theirs = processes
    facts = await facts_of(ours, sale)
    won = Attempt(str(uuid4()), "ann", 1)
    assert (await theirs.attempt(facts, won)).verdict is Verdict.CLAIMED
    assert (await ours.attempt(facts, Attempt(str(uuid4()), "bob", 1))).verdict is Verdict.CLAIMED
    await until_repeated(ours, facts, Verdict.BUSY)
    assert (await ours.attempt(facts, won)).verdict is Verdict.REPLAYED


async def test_its_broken_twin_refuses_a_claim_of_another_process(
    open_sale: Callable[..., Sale], processes: tuple[Counted, Counted], monkeypatch: pytest.MonkeyPatch
) -> None:
    sale = open_sale(allotment=10, admission_rate=1, burst=1)
    ours, theirs = processes
    facts = await facts_of(ours, sale)
    won = Attempt(str(uuid4()), "ann", 1)
    assert (await theirs.attempt(facts, won)).verdict is Verdict.CLAIMED

    def know_all(self: Refusals, question: Any, attempts: Any, answers: Any) -> None:
        self._known = int(answers[-1].second or 0)
        shipped(self, question, attempts, answers)

    shipped = Refusals.hear
    monkeypatch.setattr(Refusals, "hear", know_all)
    await until_repeated(ours, facts, Verdict.BUSY)
    assert (await ours.attempt(facts, won)).verdict is Verdict.BUSY


async def test_a_released_unit_ends_it_within_the_tenth_of_a_second(
    open_sale: Callable[..., Sale], processes: tuple[Counted, Counted], gate: redis.Redis
) -> None:
    sale = open_sale(allotment=1)
    ours, theirs = processes
    facts = await facts_of(ours, sale)
    won = Attempt(str(uuid4()), "ann", 1)
    assert (await theirs.attempt(facts, won)).verdict is Verdict.CLAIMED
    await until_repeated(ours, facts, Verdict.SOLD_OUT)
    gate_words.release(gate, sale.id, 0, [won.order_id])
    await asyncio.sleep(0.01 + settings.FLUXGATE.repeat_ms / 1000)
    assert (await ours.attempt(facts, Attempt(str(uuid4()), "bob", 1))).verdict is Verdict.CLAIMED


async def test_who_is_admitted_and_who_wants_more_is_asked_for(
    open_sale: Callable[..., Sale], processes: tuple[Counted, Counted]
) -> None:
    sale = open_sale(allotment=1, limit_per_customer=2)
    ours, _ = processes
    facts = await facts_of(ours, sale)
    await ours.attempt(facts, Attempt(str(uuid4()), "ann", 1))
    await until_repeated(ours, facts, Verdict.SOLD_OUT)
    for attempt in (Attempt(str(uuid4()), "bob", 1, True), Attempt(str(uuid4()), "cid", 3)):
        before = ours.asked
        await ours.attempt(facts, attempt)
        assert ours.asked == before + 1


async def test_a_gate_that_did_not_answer_may_have_granted(
    open_sale: Callable[..., Sale], processes: tuple[Counted, Counted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is lost after the decision: whoever asks again must not be told sold out from memory."""
    sale = open_sale(allotment=1)
    ours, _ = processes
    facts = await facts_of(ours, sale)
    shipped = ours._within

    async def lost(call: Any) -> Any:
        await shipped(call)
        raise GateUnreachable("the answer was lost")

    won = Attempt(str(uuid4()), "ann", 1)
    monkeypatch.setattr(ours, "_within", lost)
    with suppress(GateUnreachable):
        await ours.attempt(facts, won)
    monkeypatch.setattr(ours, "_within", shipped)
    monkeypatch.setattr(ours, "_broken_until", 0.0)
    await until_repeated(ours, facts, Verdict.SOLD_OUT)
    assert (await ours.attempt(facts, won)).verdict is Verdict.REPLAYED


def answer(verdict: Verdict, first: str = "0", second: str = "") -> Answer:
    return Answer(verdict, first, second, 0)


def told(refusals: Refusals, claims: int) -> None:
    refusals.hear(
        refusals.ask(), [Attempt(str(uuid4()), "x", 1)], [answer(Verdict.SOLD_OUT, second=str(claims))]
    )


def test_an_answer_that_was_overtaken_by_a_grant_is_not_repeated() -> None:
    """Its number of claims may leave out the one that was granted, and count a foreign one instead."""
    refusals = Refusals(0.05)
    question = refusals.ask()
    refusals.hear(refusals.ask(), [Attempt(str(uuid4()), "ann", 1)], [answer(Verdict.CLAIMED)])
    refusals.hear(question, [Attempt(str(uuid4()), "x", 1)], [answer(Verdict.SOLD_OUT, second="1")])
    assert refusals.repeat(Attempt(str(uuid4()), "bob", 1)) is None
    told(refusals, 1)
    assert refusals.repeat(Attempt(str(uuid4()), "bob", 1)) is not None
    assert refusals.repeat(Attempt(str(uuid4()), "ann", 1)) is None


def test_one_asks_again_half_way_while_the_others_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("sales.refusals.time", SimpleNamespace(monotonic=lambda: clock.now))
    refusals = Refusals(0.05)
    told(refusals, 0)

    def are_told() -> list[bool]:
        attempts = [Attempt(str(uuid4()), f"buyer-{number}", 1) for number in range(3)]
        return [refusals.repeat(attempt) is not None for attempt in attempts]

    assert are_told() == [True, True, True]
    clock.now += 0.026
    assert not refusals.hold_for("ann", clock.now), "the very bytes are not for the one who asks"
    assert are_told() == [False, True, True]
    assert refusals.hold_for("ann", clock.now)
    clock.now += 0.025
    assert are_told() == [False, False, False]
    told(refusals, 0)
    assert are_told() == [True, True, True]


def test_claims_are_read_when_some_are_not_known_and_not_too_many() -> None:
    refusals = Refusals(0.05)
    wanted = SimpleNamespace(none=refusals.wants_to_read())
    told(refusals, MOST_CLAIMS)
    wanted.many = refusals.wants_to_read()
    told(refusals, MOST_CLAIMS + 1)
    wanted.too_many = refusals.wants_to_read()
    assert vars(wanted) == {"none": False, "many": True, "too_many": False}


def test_a_reading_that_a_grant_overtook_does_not_count() -> None:
    refusals = Refusals(0.05)
    question = refusals.ask()
    refusals.hear(refusals.ask(), [Attempt(str(uuid4()), "ann", 1)], [answer(Verdict.CLAIMED)])
    refusals.read(question, ["q1:0:1:ann", "q1:0:1:bob"])
    told(refusals, 2)
    assert refusals.repeat(Attempt(str(uuid4()), "cid", 1)) is None
    refusals.read(refusals.ask(), ["q1:0:1:ann", "q1:0:1:bob"])
    told(refusals, 2)
    assert refusals.repeat(Attempt(str(uuid4()), "cid", 1)) is not None
    assert refusals.repeat(Attempt(str(uuid4()), "bob", 1)) is None


@pytest.mark.parametrize("broken", [False, True])
async def test_a_unit_that_came_back_is_not_granted_while_another_process_says_there_is_none(
    open_sale: Callable[..., Sale],
    processes: tuple[Counted, Counted],
    gate: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    broken: bool,
) -> None:
    """Its broken twin grants it at once, and then the other process refuses a key that has a claim."""
    if broken:
        for process in processes:
            process._repeat_seconds = 5.0  # however slow this machine is
        shipped = gate_words.script
        text = shipped("claim").replace("if coming_back then", "if false then")
        monkeypatch.setattr("sales.fence.script", lambda name: text if name == "claim" else shipped(name))
    sale = open_sale(allotment=1)
    ours, theirs = processes
    facts = await facts_of(ours, sale)
    first, second = Attempt(str(uuid4()), "ann", 1), Attempt(str(uuid4()), "bob", 1)
    assert (await theirs.attempt(facts, first)).verdict is Verdict.CLAIMED
    await until_repeated(ours, facts, Verdict.SOLD_OUT)
    gate_words.release(gate, sale.id, 0, [first.order_id])
    told = await theirs.attempt(facts, second)
    if broken:
        assert told.verdict is Verdict.CLAIMED
        assert (await ours.attempt(facts, second)).verdict is Verdict.SOLD_OUT, "a key that has a claim"
    else:
        assert told.verdict is Verdict.SOLD_OUT
        async with asyncio.timeout(5):
            while (await theirs.attempt(facts, second)).verdict is Verdict.SOLD_OUT:
                await asyncio.sleep(0.005)
        assert (await ours.attempt(facts, second)).verdict is Verdict.REPLAYED
