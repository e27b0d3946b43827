"""The gate's Redis is slow, silent, killed, wiped, full, or another one."""

from collections import Counter

from tests.chaos import history
from tests.chaos.registry import row
from tests.chaos.scenario import Scenario

FAST = 1.0  # seconds within which a buyer is told 503; the gate itself is given up after 0.25


@row("gate-reply-lost", "gate: its replies are lost on the way, eight times", seconds=16)
def gate_reply_lost(chaos: Scenario) -> None:
    chaos.sell(1500, rate=60)
    for _ in range(8):
        chaos.until_promised(20)
        chaos.ground.gate.swallow_replies()
        chaos.during(0.5)
        chaos.ground.gate.heal()
        chaos.selling_again()
    chaos.expect(
        any(said.replayed for each in chaos.buyers.history.attempts for said in each.said),
        "no retry met its own claim: nothing was tested",
    )


@row("gate-reply-cut", "gate: connections cut in the middle of a reply, ten times", seconds=14)
def gate_reply_cut(chaos: Scenario) -> None:
    chaos.sell(1500, rate=60)
    for number in range(10):
        chaos.until_promised(15)
        chaos.ground.gate.cut_after(reply_bytes=40 * number + 7)
        chaos.during(0.4)
        chaos.ground.gate.heal()
        chaos.selling_again()


@row("gate-down", "gate: refuses connections for 3 s", seconds=12)
def gate_down(chaos: Scenario) -> None:
    chaos.sell(1500, rate=60)
    chaos.until_promised(60)
    with chaos.measured() as span:
        chaos.ground.gate.refuse()
        chaos.during(3)
        chaos.ground.gate.heal()
    chaos.selling_again()
    _answered_fast(chaos, span())


@row("gate-frozen", "gate: SIGSTOP for 5 s, then SIGCONT", seconds=14)
def gate_frozen(chaos: Scenario) -> None:
    chaos.sell(1500, rate=60)
    chaos.until_promised(60)
    with chaos.measured() as span:
        chaos.ground.stop("gate")
        chaos.during(5)
        chaos.ground.thaw()
    chaos.selling_again()
    _answered_fast(chaos, span())


@row("gate-full", "gate: memory full for 3 s (maxmemory), noeviction", seconds=12)
def gate_full(chaos: Scenario) -> None:
    chaos.sell(1500, rate=60)
    chaos.until_promised(60)
    with chaos.measured() as span, chaos.ground.gate_client() as client:
        client.config_set("maxmemory", 1)
        chaos.during(3)
        client.config_set("maxmemory", 0)
    chaos.selling_again()
    _answered_fast(chaos, span())


@row("gate-sigkill", "gate: kill -9, back with its append-only file", seconds=18)
def gate_sigkill(chaos: Scenario) -> None:
    chaos.sell(1500, rate=60)
    chaos.until_promised(100)
    chaos.ground.kill("gate")
    chaos.ground.up()
    chaos.selling_again()


@row("gate-aof-cut", "gate: kill -9, back with the last third of this sale cut off its file", seconds=18)
def gate_aof_cut(chaos: Scenario) -> None:
    chaos.sell(1500, rate=60)
    chaos.until_promised(10)
    armed = chaos.ground.aof().stat().st_size
    chaos.until_promised(150)
    chaos.ground.kill("gate")
    file = chaos.ground.aof()
    with file.open("r+b") as cut:
        cut.truncate(armed + (file.stat().st_size - armed) * 2 // 3)
    chaos.ground.up()
    chaos.selling_again()


@row("gate-empty", "gate: kill -9, back with nothing at all", seconds=18)
def gate_empty(chaos: Scenario) -> None:
    chaos.sell(1500, rate=60)
    chaos.until_promised(150)
    chaos.ground.kill("gate")
    chaos.ground.empty_gate()
    chaos.ground.up()
    chaos.selling_again()


@row("gate-flushall", "gate: FLUSHALL mid-sale, three times", seconds=25)
def gate_flushall(chaos: Scenario) -> None:
    chaos.sell(1800, rate=60)
    for _ in range(3):
        chaos.until_promised(60)
        with chaos.ground.gate_client() as client:
            client.flushall()
        chaos.selling_again()


@row("gate-empty-consumer-behind", "gate: emptied while the consumers are 5 s behind (SIGSTOP)", seconds=22)
def gate_empty_consumer_behind(chaos: Scenario) -> None:
    """The claims that the new gate must know of are in the log and not in the order book yet."""
    chaos.sell(1500, rate=60)
    chaos.until_promised(50)
    for consumer in chaos.site.named("run_fulfillment"):
        consumer.stop()
    chaos.until_promised(150)
    with chaos.ground.gate_client() as client:
        client.flushall()
    chaos.during(5)
    for consumer in chaos.site.named("run_fulfillment"):
        consumer.go_on()
    chaos.selling_again()


@row("retry-after-restart", "gate: emptied; every buyer so far asks again with the same key", seconds=20)
def retry_after_restart(chaos: Scenario) -> None:
    chaos.sell(1500, rate=60)
    chaos.until_promised(100)
    with chaos.ground.gate_client() as client:
        expiring = [key for key in client.keys("fluxgate:{*") if client.ttl(key) != -1]
        chaos.expect(
            not expiring, f"keys of a sale that runs expire, so a late retry meets nothing: {expiring}"
        )
        client.flushall()
    chaos.selling_again()
    told = [each for each in list(chaos.buyers.history.attempts) if each.promised_at is not None][:40]
    for each in told:
        known = set(each.order_ids)
        chaos.buyers.again(each)
        chaos.expect(each.order_ids == known, f"I4: {each.key} was order {known}, now {each.said[-1]}")
        chaos.expect(
            each.said[-1].kind == history.QUEUED, f"I3: {each.key} was promised, now {each.said[-1]}"
        )


@row("retry-when-sold-out", "buyers: every owner of a unit asks again when the last one is gone", seconds=12)
def retry_when_sold_out(chaos: Scenario) -> None:
    chaos.sell(200, rate=100)
    chaos.let_come(200)
    chaos.until(lambda: chaos.buyers.history.sold_out_in_a_row > 5, "the last unit is sold")
    for each in [each for each in list(chaos.buyers.history.attempts) if each.promised_at is not None][:60]:
        chaos.buyers.again(each)


def _answered_fast(chaos: Scenario, span: tuple[float, float]) -> None:
    """Fail closed, fast: while the gate is away buyers hear 503 at once."""
    start, end = span
    answers = chaos.buyers.history.between(start + 0.5, end - 0.5)
    kinds = Counter(said.what for said in answers)
    chaos.expect(kinds["temporarily-unavailable"] > 50, f"hardly anybody was told 503: {dict(kinds)}")
    slowest = chaos.buyers.history.slowest(start + 0.5, end - 0.5)
    chaos.expect(slowest < FAST, f"an answer took {slowest:.1f} s while the gate was away")
    chaos.expect(
        not any(said.kind == history.UNKNOWN for said in answers), "buyers were left without an answer"
    )
