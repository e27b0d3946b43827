"""Every verdict of the gate, on a real server; and the seal that closes it to another incarnation."""

import asyncio
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis
from django.utils import timezone
from redis.exceptions import NoScriptError

from sales import arming, fence
from sales import gate as gate_module
from sales.directory import Facts
from sales.gate import (
    Answer,
    Attempt,
    Fenced,
    GateUnreachable,
    Verdict,
    image,
    mark_queued,
    pool_keys,
    release,
    script,
    settle,
)
from sales.models import Sale
from sales.turnstile import Turnstile

pytestmark = pytest.mark.django_db(transaction=True)


class Booth:
    """Makes attempts on one sale, and remembers what the gate has answered."""

    def __init__(self, turnstile: Turnstile, sale: Sale) -> None:
        self.turnstile, self.sale = turnstile, sale

    async def facts(self) -> Facts:
        facts = await self.turnstile.facts(self.sale.slug)
        assert facts is not None
        return facts

    async def attempt(
        self, customer: str = "ann", order_id: UUID | None = None, quantity: int = 1, admitted: bool = False
    ) -> Answer:
        attempt = Attempt(str(order_id or uuid4()), customer, quantity, admitted)
        return await self.turnstile.attempt(await self.facts(), attempt)

    async def verdict(self, *arguments: Any, **named: Any) -> Verdict:
        return (await self.attempt(*arguments, **named)).verdict


@pytest.fixture
def booth(turnstile: Turnstile, open_sale: Callable[..., Sale]) -> Callable[..., Booth]:
    return lambda **facts: Booth(turnstile, open_sale(**facts))


async def test_an_open_sale_claims(booth: Callable[..., Booth], gate: redis.Redis) -> None:
    stand = booth(allotment=3)
    order_id = uuid4()
    answer = await stand.attempt("ann", order_id)
    assert answer.verdict is Verdict.CLAIMED
    standing = image(gate, stand.sale.id)
    assert standing is not None
    assert (standing.loaded, standing.remaining, standing.held) == (3, 2, 1)
    (held,) = gate_module.held(gate, stand.sale.id, 0, older_than_seconds=-1)
    assert (held.order_id, held.customer, held.quantity, held.epoch) == (order_id, "ann", 1, stand.sale.epoch)


async def test_a_known_key_is_replayed_in_every_state(booth: Callable[..., Booth], gate: redis.Redis) -> None:
    stand = booth(allotment=1)
    order_id = uuid4()
    claimed = await stand.attempt("ann", order_id)
    epoch = stand.sale.epoch
    steps: list[tuple[Callable[[], int], str]] = [
        (lambda: 1, "h"),
        (lambda: mark_queued(gate, stand.sale.id, 0, epoch, [order_id]), "q"),
        (lambda: settle(gate, stand.sale.id, 0, [order_id]), "s"),
        (lambda: release(gate, stand.sale.id, 0, [order_id]), "r"),
    ]
    for step, letter in steps:
        assert step() == 1
        again = await stand.attempt("ann", order_id)
        assert (again.verdict, again.first, again.second) == (Verdict.REPLAYED, claimed.first, letter)


@pytest.mark.parametrize("step", ["pause", "close"])
async def test_replay_outranks_every_refusal(booth: Callable[..., Booth], step: str) -> None:
    stand = booth(allotment=1, limit_per_customer=1, burst=1, admission_rate=1)
    order_id = uuid4()
    await stand.attempt("ann", order_id)
    await asyncio.to_thread(getattr(arming, step), stand.sale, actor="test")
    assert await stand.verdict("ann", order_id) is Verdict.REPLAYED
    assert await stand.verdict("bob") in (Verdict.PAUSED, Verdict.CLOSED)


async def test_a_key_with_another_quantity_is_refused(booth: Callable[..., Booth]) -> None:
    stand = booth(limit_per_customer=5)
    order_id = uuid4()
    await stand.attempt("ann", order_id, 1)
    assert await stand.verdict("ann", order_id, 2) is Verdict.KEY_REUSED


async def test_an_armed_sale_is_not_open(booth: Callable[..., Booth]) -> None:
    assert await booth(until="armed").verdict() is Verdict.NOT_OPEN


async def test_before_its_window_an_open_sale_is_not_open(booth: Callable[..., Booth]) -> None:
    opens_at = timezone.now() + timedelta(hours=1)
    stand = booth(opens_at=opens_at, closes_at=opens_at + timedelta(hours=1))
    answer = await stand.attempt()
    assert (answer.verdict, int(answer.first)) == (Verdict.NOT_OPEN, gate_module.to_ms(opens_at))


async def test_after_its_window_a_sale_is_closed(booth: Callable[..., Booth]) -> None:
    stand = booth(closes_at=timezone.now() + timedelta(seconds=0.4))
    await asyncio.sleep(0.5)
    assert await stand.verdict() is Verdict.CLOSED


async def test_pause_and_resume(booth: Callable[..., Booth]) -> None:
    stand = booth()
    await asyncio.to_thread(arming.pause, stand.sale, actor="test")
    assert await stand.verdict() is Verdict.PAUSED
    await asyncio.to_thread(arming.resume, stand.sale, actor="test")
    assert await stand.verdict() is Verdict.CLAIMED


async def test_the_room_asks_for_an_admission(booth: Callable[..., Booth]) -> None:
    stand = booth(admission_required=True)
    assert await stand.verdict("ann") is Verdict.ADMISSION_REQUIRED
    assert await stand.verdict("ann", admitted=True) is Verdict.CLAIMED


async def test_the_bucket_empties_and_fills(booth: Callable[..., Booth]) -> None:
    stand = booth(allotment=100, admission_rate=5, burst=2)
    verdicts = [await stand.verdict(f"c{i}") for i in range(4)]
    assert verdicts[:2] == [Verdict.CLAIMED] * 2
    busy = await stand.attempt("late")
    assert busy.verdict is Verdict.BUSY
    assert 0 < int(busy.first) <= 200  # ms until the next token, at five a second
    await asyncio.sleep(0.25)
    assert await stand.verdict("later") is Verdict.CLAIMED


async def test_the_limit_counts_units_of_one_customer(booth: Callable[..., Booth]) -> None:
    stand = booth(limit_per_customer=3)
    order_id = uuid4()
    await stand.attempt("ann", order_id, 2)
    reached = await stand.attempt("ann", None, 2)
    assert (reached.verdict, reached.first) == (Verdict.LIMIT_REACHED, str(order_id))
    assert await stand.verdict("ann", None, 1) is Verdict.CLAIMED
    assert await stand.verdict("bob", None, 3) is Verdict.CLAIMED


async def test_sold_out_tells_how_many_are_held(booth: Callable[..., Booth], gate: redis.Redis) -> None:
    stand = booth(allotment=2)
    order_ids = [uuid4(), uuid4()]
    for order_id in order_ids:
        await stand.attempt(f"c{order_id}", order_id)
    refused = await stand.attempt("late")
    assert (refused.verdict, refused.first) == (Verdict.SOLD_OUT, "2")
    settle(gate, stand.sale.id, 0, order_ids)
    async with asyncio.timeout(5):  # until then the process repeats what it was told
        while (await stand.attempt("late")).first != "0":
            await asyncio.sleep(0.01)


async def test_500_parallel_claims_for_100_units(booth: Callable[..., Booth], gate: redis.Redis) -> None:
    stand = booth(allotment=100)
    facts = await stand.facts()
    answers = await asyncio.gather(
        *(stand.turnstile.attempt(facts, Attempt(str(uuid4()), f"c{i}", 1)) for i in range(500))
    )
    verdicts = [answer.verdict for answer in answers]
    assert verdicts.count(Verdict.CLAIMED) == 100
    assert verdicts.count(Verdict.SOLD_OUT) == 400
    standing = image(gate, stand.sale.id)
    assert standing is not None
    assert (standing.remaining, standing.held) == (0, 100)


async def test_one_key_in_one_batch_is_one_claim(booth: Callable[..., Booth], gate: redis.Redis) -> None:
    stand = booth(allotment=100, limit_per_customer=50)
    facts, order_id = await stand.facts(), uuid4()
    answers = await asyncio.gather(
        *(stand.turnstile.attempt(facts, Attempt(str(order_id), "ann", 1)) for _ in range(100))
    )
    assert [answer.verdict for answer in answers].count(Verdict.CLAIMED) == 1
    standing = image(gate, stand.sale.id)
    assert standing is not None
    assert standing.held == 1


async def test_sales_that_share_a_call_get_their_own_answers(
    turnstile: Turnstile, open_sale: Callable[..., Sale], gate: redis.Redis
) -> None:
    """Interleaved in one round trip: one sells, one is sold out, one is fenced."""
    sells, empty, fenced = (Booth(turnstile, open_sale(allotment=units)) for units in (50, 1, 50))
    assert await empty.verdict("first") is Verdict.CLAIMED
    all_facts = [await each.facts() for each in (sells, empty, fenced)]
    gate.hset(pool_keys(fenced.sale.id).gate, "epoch", 1)
    attempts = [Attempt(str(uuid4()), f"buyer-{number}", 1) for number in range(30)]
    asked = [turnstile.attempt(facts, attempt) for attempt in attempts for facts in all_facts]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [getattr(answer, "verdict", "") for answer in answers[0::3]] == [Verdict.CLAIMED] * 30
    assert [getattr(answer, "verdict", "") for answer in answers[1::3]] == [Verdict.SOLD_OUT] * 30
    assert [type(answer) for answer in answers[2::3]] == [Fenced] * 30
    claims = gate.hgetall(pool_keys(sells.sale.id).claims)
    assert {key: value.rsplit(":", 1)[1] for key, value in claims.items()} == {
        attempt.order_id: attempt.customer for attempt in attempts
    }


async def test_the_reply_to_a_call_that_was_given_up_is_nobodys(
    turnstile: Turnstile, open_sale: Callable[..., Sale], gate: redis.Redis
) -> None:
    sells, empty = (Booth(turnstile, open_sale(allotment=units)) for units in (50, 1))
    assert await empty.verdict("first") is Verdict.CLAIMED
    facts = [await each.facts() for each in (sells, empty)]
    gate.client_pause(600)
    asked = [turnstile.attempt(each, Attempt(str(uuid4()), "late", 1)) for each in facts]
    late = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(answer) for answer in late] == [GateUnreachable] * 2
    await asyncio.sleep(0.7)  # the replies have come by now
    for number in range(8):  # through every connection of the pool
        asked = [
            turnstile.attempt(each, Attempt(str(uuid4()), f"buyer-{number}", 1)) for each in reversed(facts)
        ]
        found = [answer.verdict for answer in await asyncio.gather(*asked)]
        assert found == [Verdict.SOLD_OUT, Verdict.CLAIMED]


async def test_refusals_store_nothing(booth: Callable[..., Booth], gate: redis.Redis) -> None:
    stand = booth(allotment=1)
    await stand.attempt("first")
    keys = pool_keys(stand.sale.id)

    def sizes() -> list[Any]:
        return [
            gate.hlen(keys.gate),
            gate.hlen(keys.claims),
            gate.hlen(keys.customers),
            gate.zcard(keys.pending),
        ]

    before = sizes()
    for i in range(50):
        assert await stand.verdict(f"late-{i}") is Verdict.SOLD_OUT
    assert sizes() == before
    assert before[1:] == [1, 1, 1]


async def test_released_units_sell_again_and_only_once(
    booth: Callable[..., Booth], gate: redis.Redis
) -> None:
    stand = booth(allotment=1)
    order_id = uuid4()
    await stand.attempt("ann", order_id)
    assert release(gate, stand.sale.id, 0, [order_id, uuid4()]) == 1
    assert release(gate, stand.sale.id, 0, [order_id]) == 0
    # No process may still be repeating that there is none when it is granted.
    assert await stand.verdict("ann") is Verdict.SOLD_OUT
    async with asyncio.timeout(5):
        while (verdict := await stand.verdict("ann")) is Verdict.SOLD_OUT:
            await asyncio.sleep(0.01)
    assert verdict is Verdict.CLAIMED  # the limit has gone back as well
    assert await stand.verdict("bob") is Verdict.SOLD_OUT


async def test_settling_never_goes_back(booth: Callable[..., Booth], gate: redis.Redis) -> None:
    stand = booth()
    order_id = uuid4()
    await stand.attempt("ann", order_id)
    sale, epoch = stand.sale.id, stand.sale.epoch
    assert mark_queued(gate, sale, 0, epoch - 1, [order_id]) == 0  # of another arming
    assert settle(gate, sale, 0, [order_id, order_id]) == 1
    assert mark_queued(gate, sale, 0, epoch, [order_id]) == 0
    standing = image(gate, sale)
    assert standing is not None
    assert (standing.held, standing.queued, standing.settled) == (0, 0, 1)
    assert gate_module.held(gate, sale, 0, older_than_seconds=-1) == []


async def test_forgotten_scripts_close_the_gate(booth: Callable[..., Booth], gate: redis.Redis) -> None:
    stand = booth()
    assert await stand.verdict("ann") is Verdict.CLAIMED
    gate.script_flush()
    for _ in range(2):
        with pytest.raises(Fenced):
            await stand.attempt("bob")
    standing = image(gate, stand.sale.id)
    assert standing is not None
    assert standing.held == 1


async def test_without_the_fence_a_restarted_gate_would_sell(
    booth: Callable[..., Booth], gate: redis.Redis
) -> None:
    """The broken twin: a client that loads the script again on NOSCRIPT takes a unit."""
    stand = booth()
    facts = await stand.facts()
    replication: Any = gate.info("replication")
    text, sha = fence.seal(pool_keys(facts.sale_id), facts.epoch, replication["master_replid"])
    assert sha == facts.seal
    gate.script_flush()
    arguments = [*pool_keys(facts.sale_id), str(uuid4()), "ann", 1, "0"]
    with pytest.raises(NoScriptError):
        gate.evalsha(sha, 4, *arguments)
    reply: Any = gate.register_script(text)(keys=arguments[:4], args=arguments[4:])
    assert reply[1] == Verdict.CLAIMED


@pytest.mark.parametrize(("epoch_step", "incarnation"), [(1, None), (0, "f" * 40)])
async def test_another_epoch_or_incarnation_is_fenced(
    booth: Callable[..., Booth], gate: redis.Redis, epoch_step: int, incarnation: str | None
) -> None:
    """A quick failover and back finds the old script still loaded: it must refuse by itself."""
    stand = booth()
    replication: Any = gate.info("replication")
    text, sha = fence.seal(
        pool_keys(stand.sale.id), stand.sale.epoch + epoch_step, incarnation or replication["master_replid"]
    )
    gate.script_load(text)
    arguments = [*pool_keys(stand.sale.id), str(uuid4()), "ann", 1, "0"]
    with pytest.raises(redis.ResponseError, match="FENCED"):
        gate.evalsha(sha, 4, *arguments)
    standing = image(gate, stand.sale.id)
    assert standing is not None
    assert (standing.remaining, standing.held) == (10, 0)


async def test_sales_armed_in_the_same_millisecond_have_seals_of_their_own(
    booth: Callable[..., Booth], monkeypatch: pytest.MonkeyPatch, gate: redis.Redis
) -> None:
    monkeypatch.setattr(arming.time, "time", lambda: 4_000_000_000.0)
    one, other = booth(allotment=1), booth(allotment=1)
    assert one.sale.epoch == other.sale.epoch
    ours, theirs = await one.facts(), await other.facts()
    assert ours.seal != theirs.seal
    assert await one.verdict("ann") is Verdict.CLAIMED
    assert await other.verdict("ann") is Verdict.CLAIMED
    with pytest.raises(redis.ResponseError, match="FENCED gate"):
        gate.evalsha(ours.seal, 4, *pool_keys(theirs.sale_id), str(uuid4()), "bob", 1, "0")


async def test_a_wiped_redis_is_no_404(booth: Callable[..., Booth], gate: redis.Redis) -> None:
    stand = booth()
    stand.turnstile._facts.clear()
    gate.flushall()
    with pytest.raises(Fenced):
        await stand.attempt()


def test_the_header_of_claim_lua_lists_every_verdict_and_key() -> None:
    header = script("claim").partition("\nlocal ")[0]
    listed = re.findall(r"^--   ([a-z_]+)  ", header, re.MULTILINE)
    assert listed == [verdict.value for verdict in Verdict]
    assert re.findall(r"KEYS\[(\d)\] (\w+)", header) == [
        (str(i + 1), name) for i, name in enumerate(gate_module.PoolKeys._fields)
    ]


def test_every_script_uses_only_the_keys_it_declares() -> None:
    for name in ("arm", "claim", "fence", "load", "settle", "release", "switch"):
        text = script(name)
        header, _, code = text.partition("\nlocal ")
        declared = set(re.findall(r"KEYS\[(\d)\]", header))
        assert set(re.findall(r"KEYS\[(\d)\]", code)) <= declared
        assert not re.search(
            r"redis\.call\('[A-Z]+', *['\"]", code.replace("redis.call('INFO', 'replication')", "")
        )


def test_the_keys_of_a_pool_share_one_hash_tag() -> None:
    keys = pool_keys(uuid4())
    assert len({re.search(r"\{(.+)\}", key).group(1) for key in keys}) == 1  # type: ignore[union-attr]


async def test_a_clock_that_steps_back_does_not_starve_the_bucket(
    booth: Callable[..., Booth], gate: redis.Redis
) -> None:
    stand = booth(admission_rate=5, burst=2)
    ahead = int(gate.time()[0]) * 1000 + 3_600_000
    gate.hset(pool_keys(stand.sale.id).gate, mapping={"tokens": "0.5", "tokens_at": ahead})
    assert await stand.verdict("ann") is Verdict.BUSY
    await asyncio.sleep(0.25)
    assert await stand.verdict("ann") is Verdict.CLAIMED


async def test_questions_about_made_up_sales_do_not_stand_in_the_way(booth: Callable[..., Booth]) -> None:
    stand = booth(allotment=50)
    facts = await stand.facts()
    questions = [stand.turnstile.facts(f"nope-{number}") for number in range(600)]
    attempts = [stand.turnstile.attempt(facts, Attempt(str(uuid4()), f"c{i}", 1)) for i in range(40)]
    found = await asyncio.gather(*questions, *attempts)
    assert found[:600] == [None] * 600
    assert [answer.verdict for answer in found[600:] if isinstance(answer, Answer)] == [Verdict.CLAIMED] * 40
