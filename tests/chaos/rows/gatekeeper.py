"""The gatekeeper dies while it arms a gate again."""

from tests.chaos.registry import row
from tests.chaos.scenario import Scenario

_POINTS = {
    "after-epoch": "with the new epoch in PostgreSQL only",
    "after-fence": "with the old gate shut",
    "after-barrier": "with the barrier in the log",
    "after-load": "with the new gate loaded and shut",
    "after-switch": "with the new gate open, before the web is told",
}


def _dies_at(point: str) -> None:
    @row(f"gatekeeper-{point}", f"gatekeeper: kill -9 {_POINTS[point]}, twice; gate emptied", seconds=24)
    def run(chaos: Scenario) -> None:
        chaos.sell(1500, rate=50, gatekeepers=0)
        chaos.until_promised(80)
        with chaos.ground.gate_client() as client:
            client.flushall()
        for _ in range(2):
            dying = chaos.site.start_gatekeeper(FLUXGATE_CRASH_AT=f"rearm.{point}")
            chaos.until(lambda dying=dying: not dying.alive, f"the gatekeeper dies at rearm.{point}", 25)  # type: ignore[misc]
            chaos.expect(dying.crashed, f"the gatekeeper ended by itself instead: {dying.printed()[-300:]}")
        chaos.site.start_gatekeeper()
        chaos.selling_again()


for _point in _POINTS:
    _dies_at(_point)


@row("gatekeeper-sweeps", "gatekeeper: kill -9 after it has appended a held claim, twice", seconds=24)
def gatekeeper_sweeps(chaos: Scenario) -> None:
    chaos.sell(1500, rate=50, gatekeepers=0)
    chaos.until_promised(80)
    chaos.ground.log.swallow_replies()
    chaos.during(3)
    chaos.site.web.kill()  # what it had granted is held now, and nobody else knows of it
    chaos.ground.log.heal()
    chaos.site.web = chaos.site.start_web()
    for _ in range(2):
        dying = chaos.site.start_gatekeeper(FLUXGATE_CRASH_AT="sweep.after-append:5")
        chaos.until(lambda dying=dying: not dying.alive, "the gatekeeper dies while it sweeps", 25)  # type: ignore[misc]
        chaos.expect(dying.crashed, f"the gatekeeper ended by itself instead: {dying.printed()[-300:]}")
    chaos.site.start_gatekeeper()
    chaos.selling_again()


@row("two-gatekeepers", "gatekeepers: the leader of two killed -9 while it arms a gate again", seconds=26)
def two_gatekeepers(chaos: Scenario) -> None:
    chaos.sell(1800, rate=50, gatekeepers=1)
    chaos.until_promised(60)
    leader = chaos.site.named("run_gatekeeper")[0]
    chaos.site.start_gatekeeper()
    with chaos.ground.gate_client() as client:
        client.flushall()
    chaos.until(lambda: "arming it again" in leader.printed(), "the gate is being armed", 15)
    leader.kill()
    chaos.selling_again()
