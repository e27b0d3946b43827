"""The broken twins: a row, and the guard that `broken/sitecustomize.py` takes out of the site's processes."""

from tests.chaos.registry import Twin, twins

twins(
    Twin("no-sweeper", "web-after-gate", "nobody appends held claims again", ("I8", "reconcile")),
    Twin(
        "release-on-timeout", "log-acknowledgement-lost", "a late acknowledgement gives the unit back",
        ("I3", "I5", "reconcile"),
    ),
    Twin("reload-script", "gate-aof-cut", "NOSCRIPT loads the script again, nobody rearms", ("I3",)),
    Twin("any-incarnation", "failover-and-back", "the replication id is not looked at, no rearming", ("I3",)),
    Twin("no-barrier", "gate-empty-consumer-behind", "the new gate does not wait for the barrier", ("I3",)),
    Twin("stock-before-key", "retry-when-sold-out", "units are looked at before the key", ("I5",)),
    Twin("new-id-per-request", "one-key-200-times", "the order id does not come from the key", ("I4",)),
    Twin(
        "no-transaction", "consumer-fulfill.after-position", "position and rows commit apart", ("I3",)
    ),
    Twin(
        "database-in-buy-path", "database-down-short", "placing an order asks PostgreSQL first", ("only",)
    ),
    Twin(
        "park-newer-version", "newer-version", "a record of a newer release is parked",
        ("a record of a newer", "orders behind"),
    ),
    Twin("pause-in-database-only", "pause-and-resume", "pause does not tell the gate", ("I7",)),
    Twin("no-drain", "deploy", "SIGTERM ends the web process at once", ("requests lost",)),
    Twin(
        "no-breaker", "log-down", "the log is believed to be there", ("unfit: buyers are told 503", "I2")
    ),
    Twin("no-gate-timeout", "gate-frozen", "the gate is waited for", ("hardly", "an answer", "buyers were")),
    Twin(
        "locks-for-ever", "consumer-zombie-in-transaction", "a transaction may stand still for ever",
        ("unfit: the other one",),
    ),
    Twin("no-parking", "poison", "a record that cannot be used raises", ("run_fulfillment ended", "unfit")),
)  # fmt: skip
