"""The order service under trouble: each failure ends in a state from which repeating converges."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis

from orders.claims import Claim, Record, decode
from orders.log import Acknowledgements, LogUnavailable, Reported
from orders.placing import place
from sales.gate import Attempt, Fenced, GateUnreachable, Verdict, held, image
from sales.models import Sale
from sales.turnstile import Turnstile

pytestmark = pytest.mark.django_db(transaction=True)
OpenSale = Callable[..., Sale]


class ScriptedLog:
    """A log whose reports the test gives by hand: the real one cannot be told when to be late."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.reports: list[Reported] = []
        self.up = self.room = True

    def available(self) -> bool:
        return self.up

    def append(self, record: Record, reported: Reported) -> None:
        if not self.room:
            raise LogUnavailable("full")
        self.records.append(record)
        self.reports.append(reported)

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def log() -> ScriptedLog:
    return ScriptedLog()


@pytest.fixture(autouse=True)
def short_promise(settings: Any) -> None:
    settings.FLUXGATE = settings.FLUXGATE.model_copy(update={"promise_seconds": 0.2})


async def until(question: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not question():
            await asyncio.sleep(0.005)


async def test_an_acknowledged_claim_is_queued_and_marked(
    open_sale: OpenSale, turnstile: Turnstile, gate: redis.Redis, log: ScriptedLog
) -> None:
    sale = open_sale(limit_per_customer=3)
    facts = await turnstile.facts(sale.slug)
    assert facts is not None
    attempt = Attempt(str(uuid4()), "ann", 2)
    placing = asyncio.ensure_future(place(turnstile, Acknowledgements(log), facts, attempt))
    await until(lambda: log.reports)
    log.reports[0](None)
    placed = await placing
    assert (placed.answer.verdict, placed.state) == (Verdict.CLAIMED, "queued")

    claim = decode(log.records[0].value)
    assert isinstance(claim, Claim)
    assert (claim.order_id, claim.sale_id, claim.user_id, claim.quantity) == (
        UUID(attempt[0]),
        sale.id,
        "ann",
        2,
    )
    assert (str(claim.unit_price), claim.currency, claim.epoch) == ("19.90", "EUR", sale.epoch)
    assert log.records[0].partition == facts.partition
    await until(lambda: (standing := image(gate, sale.id)) and standing.queued == 2)


async def test_a_late_acknowledgement_is_held_and_still_counts(
    open_sale: OpenSale, turnstile: Turnstile, gate: redis.Redis, log: ScriptedLog
) -> None:
    sale = open_sale()
    facts = await turnstile.facts(sale.slug)
    assert facts is not None
    acknowledgements = Acknowledgements(log)
    attempt = Attempt(str(uuid4()), "ann", 1)
    placed = await place(turnstile, acknowledgements, facts, attempt)
    assert placed.state == "held"
    again = await place(turnstile, acknowledgements, facts, attempt)
    assert (again.answer.verdict, again.state) == (Verdict.REPLAYED, "held")
    assert len(log.records) == 1

    log.reports[0](None)
    await until(lambda: (standing := image(gate, sale.id)) and standing.queued == 1)
    assert (await place(turnstile, acknowledgements, facts, attempt)).state == "queued"


async def test_an_unknown_append_is_held_never_released(
    open_sale: OpenSale, turnstile: Turnstile, gate: redis.Redis, log: ScriptedLog
) -> None:
    sale = open_sale(allotment=1)
    facts = await turnstile.facts(sale.slug)
    assert facts is not None
    acknowledgements = Acknowledgements(log)
    placing = asyncio.ensure_future(
        place(turnstile, acknowledgements, facts, Attempt(str(uuid4()), "ann", 1))
    )
    await until(lambda: log.reports)
    log.reports[0](TimeoutError("unknown"))
    assert (await placing).state == "held"
    assert len(held(gate, sale.id, 0, older_than_seconds=-1)) == 1
    other = await place(turnstile, acknowledgements, facts, Attempt(str(uuid4()), "bob", 1))
    assert other.answer.verdict is Verdict.SOLD_OUT


async def test_a_log_that_is_down_holds_nothing(
    open_sale: OpenSale, turnstile: Turnstile, gate: redis.Redis, log: ScriptedLog
) -> None:
    sale = open_sale()
    facts = await turnstile.facts(sale.slug)
    assert facts is not None
    log.up = False
    with pytest.raises(LogUnavailable):
        await place(turnstile, Acknowledgements(log), facts, Attempt(str(uuid4()), "ann", 1))
    standing = image(gate, sale.id)
    assert standing is not None
    assert (standing.remaining, standing.held) == (10, 0)


async def test_a_log_that_fills_up_after_the_gate_leaves_the_claim_to_the_sweeper(
    open_sale: OpenSale, turnstile: Turnstile, gate: redis.Redis, log: ScriptedLog
) -> None:
    sale = open_sale()
    facts = await turnstile.facts(sale.slug)
    assert facts is not None
    log.room = False
    placed = await place(turnstile, Acknowledgements(log), facts, Attempt(str(uuid4()), "ann", 1))
    assert (placed.answer.verdict, placed.state) == (Verdict.CLAIMED, "held")
    assert len(held(gate, sale.id, 0, older_than_seconds=-1)) == 1


@contextmanager
def silent_server() -> Iterator[str]:
    """A port that takes connections and never answers: Redis frozen, not gone."""

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"


async def test_a_gate_that_is_gone_or_silent_fails_closed_and_fast(
    open_sale: OpenSale, turnstile: Turnstile, log: ScriptedLog
) -> None:
    sale = open_sale()
    facts = await turnstile.facts(sale.slug)
    assert facts is not None
    with silent_server() as silent:
        for url in ("redis://127.0.0.1:1/0", silent):
            broken = Turnstile(url)
            async with asyncio.timeout(5):  # far above the 250 ms of the call, far below redis-py's 50 s
                with pytest.raises(GateUnreachable):
                    await place(broken, Acknowledgements(log), facts, Attempt(str(uuid4()), "ann", 1))
                with pytest.raises(GateUnreachable, match="a moment ago"):
                    await place(broken, Acknowledgements(log), facts, Attempt(str(uuid4()), "ann", 1))
            await broken.close()
    assert log.records == []


async def test_a_fenced_gate_appends_nothing(
    open_sale: OpenSale, turnstile: Turnstile, gate: redis.Redis, log: ScriptedLog
) -> None:
    facts = await turnstile.facts(open_sale().slug)
    assert facts is not None
    gate.script_flush()
    with pytest.raises(Fenced):
        await place(turnstile, Acknowledgements(log), facts, Attempt(str(uuid4()), "ann", 1))
    assert log.records == []


async def test_questions_to_a_silent_gate_wait_one_timeout_together() -> None:
    """In a queue each would wait its own: 200 polls of a frozen gate took 25 s."""
    with silent_server() as silent:
        turnstile = Turnstile(silent)
        async with asyncio.timeout(5):  # one after the other they would need 200 times 250 ms
            answers = await asyncio.gather(
                *(turnstile.published() for _ in range(200)), return_exceptions=True
            )
        assert {type(answer) for answer in answers} == {GateUnreachable}
        await turnstile.close()


async def test_a_crowd_that_asks_for_the_sales_is_one_question(
    turnstile: Turnstile, gate: redis.Redis
) -> None:
    def asked() -> int:
        statistics: Any = gate.info("commandstats")
        return int(statistics.get("cmdstat_hvals", {"calls": 0})["calls"])

    before = asked()
    await asyncio.gather(*(turnstile.published() for _ in range(200)))
    assert asked() - before == 1
