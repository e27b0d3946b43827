"""Web processes die, buyers hang up, and one key is used by many at once."""

import signal
from collections import Counter
from uuid import uuid4

from tests.chaos import history
from tests.chaos.registry import row
from tests.chaos.scenario import Scenario
from tests.chaos.site import crashes

_POINTS = {
    "before-gate": "before it asks the gate",
    "after-gate": "between the gate and the log",
    "after-append": "between the append and its acknowledgement",
    "after-acknowledgement": "after the acknowledgement, before the answer",
}


def _dies_at(point: str) -> None:
    @row(f"web-{point}", f"web: kill -9 {_POINTS[point]}, again and again", seconds=16)
    def run(chaos: Scenario) -> None:
        chaos.sell(1500, rate=40)
        chaos.until_promised(40)
        # Each worker dies at its 15th order; gunicorn starts another one, which dies in its turn.
        dying = chaos.site.start_web(FLUXGATE_CRASH_AT=f"place.{point}:15")
        chaos.site.web.end()
        chaos.until(lambda: crashes(dying) >= 4, "four web processes have died", 40)
        chaos.site.web = chaos.site.start_web()
        dying.end()
        chaos.selling_again()


for _point in _POINTS:
    _dies_at(_point)


@row("web-sigkill", "web: kill -9 of the whole gunicorn, twice", seconds=14)
def web_sigkill(chaos: Scenario) -> None:
    chaos.sell(1500, rate=60)
    for _ in range(2):
        chaos.until_promised(50)
        chaos.site.web.kill()
        chaos.site.web = chaos.site.start_web()
        chaos.selling_again()


@row("client-hangs-up", "clients: 150 hang up 0 to 30 ms after the request, and come again", seconds=10)
def client_hangs_up(chaos: Scenario) -> None:
    chaos.sell(400, rate=60)
    for number in range(150):
        chaos.buyers.hang_up(f"impatient-{number}", uuid4().hex, after=0.0002 * number)


@row("one-key-200-times", "clients: 200 parallel requests with one key", seconds=8)
def one_key_200_times(chaos: Scenario) -> None:
    chaos.sell(300, rate=40)
    attempt = chaos.buyers.at_once("many-hands", "one-key", times=200)
    told = Counter(said.kind for said in list(attempt.said))
    chaos.expect(len(attempt.order_ids) == 1, f"I4: {len(attempt.order_ids)} orders for one key")
    chaos.expect(told[history.QUEUED] == 200, f"I4: of 200 requests with one key: {dict(told)}")


@row("deploy", "web: a new release takes over mid-sale, twice (SIGTERM to the old one)", seconds=14)
def deploy(chaos: Scenario) -> None:
    """Each request has a connection of its own: one that is lost was under way, and not only kept open."""
    chaos.sell(1500, rate=0)
    chaos.buyers.keep_alive = False
    chaos.ground.log.delay(0.3)  # so that some are always under way
    chaos.buyers.rate = 50
    with chaos.measured() as span:
        for _ in range(2):
            chaos.until_promised(60)
            old, chaos.site.web = chaos.site.web, chaos.site.start_web()
            chaos.expect(old.end(), "the old web process did not end within 30 s of SIGTERM")
        chaos.until_promised(60)
    answers = chaos.buyers.history.between(*span())
    lost = sum(said.kind == history.UNKNOWN for said in answers)
    chaos.expect(not lost, f"requests lost during the deploys: {lost} of {len(answers)}")
    away = Counter(said.what for said in answers if _away(said))
    chaos.expect(not away, f"answers during the deploys: {dict(away)}")


@row("reload", "web: SIGHUP to gunicorn mid-sale, workers replaced", seconds=10)
def reload(chaos: Scenario) -> None:
    chaos.sell(1500, rate=60)
    chaos.until_promised(60)
    with chaos.measured() as span:
        chaos.site.web.signal(signal.SIGHUP)
        chaos.until_promised(150)
    away = Counter(said.what for said in chaos.buyers.history.between(*span()) if _away(said))
    chaos.expect(not away, f"answers during the reload: {dict(away)}")


def _away(said: history.Said) -> bool:
    """An answer of 5xx."""
    return said.kind == history.BROKEN or said.what == "temporarily-unavailable"
