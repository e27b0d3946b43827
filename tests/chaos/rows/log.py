"""The log is away, frozen, or its acknowledgements are lost."""

from collections import Counter

from tests.chaos import history
from tests.chaos.registry import row
from tests.chaos.scenario import Scenario


@row("log-down", "log: refuses connections for 6 s", seconds=16)
def log_down(chaos: Scenario) -> None:
    chaos.sell(1500, rate=80)
    chaos.until_promised(60)
    chaos.ground.log.refuse()
    chaos.until(lambda: _turned_away(chaos, 0.3), "buyers are told 503 before the gate", 10)
    before = _granted(chaos)
    with chaos.measured() as span:
        chaos.during(3)
    chaos.expect(_granted(chaos) == before, "I2: the gate granted units while the log was known to be down")
    kinds = Counter(said.what for said in chaos.buyers.history.between(*span()))
    chaos.expect(kinds["temporarily-unavailable"] > 50, f"hardly anybody was told 503: {dict(kinds)}")
    chaos.ground.log.heal()
    chaos.selling_again()


@row("log-frozen", "log: broker frozen 45 s (SIGSTOP) under load, then thawed", seconds=75)
def log_frozen(chaos: Scenario) -> None:
    _frozen(chaos, 45)


@row("log-frozen-short", "log: broker frozen 6 s (SIGSTOP) under load, then thawed", seconds=20)
def log_frozen_short(chaos: Scenario) -> None:
    _frozen(chaos, 6)


def _frozen(chaos: Scenario, seconds: float) -> None:
    chaos.sell(1500, rate=80, patience=seconds + 60)
    chaos.until_promised(60)
    chaos.ground.stop("kafka")
    chaos.during(seconds)
    held = [each for each in list(chaos.buyers.history.attempts) if each.held_only]
    chaos.ground.thaw()
    chaos.expect(len(held) >= 20, f"only {len(held)} buyers were told `held`: nothing was tested")
    chaos.selling_again()
    chaos.until(lambda: all(each.promised_at for each in held), "every held order is queued", 40)
    chaos.notes.append(f"{len(held)} buyers were told held, and all of them queued afterwards")


@row("log-acknowledgement-lost", "log: records arrive, acknowledgements are lost for 4 s, twice", seconds=24)
def log_acknowledgement_lost(chaos: Scenario) -> None:
    chaos.sell(1500, rate=80)
    for _ in range(2):
        chaos.until_promised(60)
        chaos.ground.log.swallow_replies()
        chaos.during(4)
        chaos.ground.log.heal()
        chaos.selling_again()
    held = sum(any(said.kind == history.HELD for said in each.said) for each in chaos.buyers.history.attempts)
    chaos.expect(held >= 10, f"only {held} buyers were told `held`: nothing was tested")


@row("log-cut", "log: every connection to it cut, twenty times", seconds=16)
def log_cut(chaos: Scenario) -> None:
    chaos.sell(1500, rate=100)
    for _ in range(20):
        chaos.until_promised(8)
        chaos.ground.log.cut()
    chaos.selling_again()


def _turned_away(chaos: Scenario, seconds: float) -> bool:
    """Whether everybody who has asked in the last so many seconds was told 503."""
    import time

    answers = chaos.buyers.history.between(time.monotonic() - seconds, time.monotonic())
    return len(answers) > 5 and all(said.what == "temporarily-unavailable" for said in answers)


def _granted(chaos: Scenario) -> int:
    """Units that the gate has granted so far."""
    from sales import gate

    with chaos.ground.gate_client() as client:
        image = gate.image(client, chaos.sale.id)
    assert image is not None
    return image.loaded - image.remaining
