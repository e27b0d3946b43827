"""The gate has a replica and Sentinels, and another server takes over with less than was promised."""

from tests.chaos.registry import row
from tests.chaos.scenario import Scenario


@row("failover-stale", "gate: kill -9 of the master; Sentinel promotes a replica that lags", seconds=24)
def failover_stale(chaos: Scenario) -> None:
    cluster = chaos.gate_with_replica()
    chaos.sell(1500, rate=50)
    chaos.until_promised(60)
    replica = cluster.stop_replica()
    chaos.until_promised(60)  # of these the replica knows nothing
    cluster.kill_master()
    cluster.go_on(replica)
    cluster.wait_for_failover()
    chaos.selling_again()


@row("failover-and-back", "gate: master SIGSTOP, lagging replica promoted, the old master back", seconds=34)
def failover_and_back(chaos: Scenario) -> None:
    """The old master still has the sealed script loaded, over data that it took from the replica."""
    cluster = chaos.gate_with_replica()
    chaos.sell(2000, rate=50)
    chaos.until_promised(60)
    replica = cluster.stop_replica()
    chaos.until_promised(60)
    cluster.stop_master()
    cluster.go_on(replica)
    cluster.wait_for_failover()
    cluster.continue_stopped()
    cluster.fail_over()
    cluster.wait_for_failover()
    chaos.selling_again()
