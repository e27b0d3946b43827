"""Metrics of the orders app, shared by the web processes and the consumers.

Base units in the names, no ids as labels: a sale that is popular must not make the metrics grow.
"""

import asyncio
import time
from collections import Counter as Counts

from prometheus_client import Counter, Gauge, Histogram


class Tally:
    """A counter with one label, told of everything that was counted once in a tenth of a second.

    A lock and a shared file make one step of prometheus' own counter cost a tenth of a refusal.
    """

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._counts: Counts[str] = Counts()
        self._due = False

    def count(self, label: str) -> None:
        """To be called inside an event loop."""
        self._counts[str(label)] += 1  # an enum's own hash is slow
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(0.1, self.tell)

    def tell(self) -> None:
        """Adds what was counted since the last time."""
        self._due = False
        counts, self._counts = self._counts, Counts()
        for label, number in counts.items():
            self._counter.labels(label).inc(number)


class LogStanding:
    """How a process' log stands, told at every turn of the thread that reads its reports."""

    def __init__(self, down: Gauge, waiting: Gauge) -> None:
        self._down, self._waiting = down, waiting
        self._told_at = 0.0

    def stands(self, available: bool, waiting: int) -> None:
        """Passed on twice a second: under load the thread turns a thousand times as often."""
        now = time.monotonic()
        if now - self._told_at >= 0.5:
            self._told_at = now
            self._down.set(not available)
            self._waiting.set(waiting)


answers = Tally(
    Counter(
        "fluxgate_answers_total", "Attempts on units, by the gate's verdict or `unavailable`.", ["verdict"]
    )
)
acknowledgement_seconds = Histogram(
    "fluxgate_acknowledgement_seconds",
    "From an order's arrival to the log's acknowledgement: the oldest of those that came back together.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5),
)
append_errors = Counter(
    "fluxgate_append_errors_total", "Appends whose acknowledgement did not come: unknown, not failed."
)

log = LogStanding(
    Gauge(
        "fluxgate_log_down",
        "1 while this process's producer takes no records, or knows that they would be late.",
        multiprocess_mode="livesum",
    ),
    Gauge(
        "fluxgate_log_waiting_records",
        "Records of this process that wait for the log's acknowledgement.",
        multiprocess_mode="livesum",
    ),
)
failed_requests = Counter("fluxgate_failed_requests_total", "Requests that broke: answered with a 500.")

fulfilled_orders = Counter(
    "fluxgate_fulfilled_orders_total", "Orders written into the order book, by state.", ["state"]
)
fulfillment_batch_seconds = Histogram(
    "fluxgate_fulfillment_batch_seconds",
    "One batch of one partition, from the first record to the commit in PostgreSQL.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
fulfillment_lag_records = Gauge(
    "fluxgate_fulfillment_lag_records",
    "Records of this process's partitions that are in the log and not yet in the order book.",
    multiprocess_mode="livesum",
)
fulfillment_lag_seconds = Gauge(
    "fluxgate_fulfillment_lag_seconds",
    "Age of the oldest record of this process's partitions that is not yet in the order book.",
    multiprocess_mode="livemax",
)
fulfillment_waiting_partitions = Gauge(
    "fluxgate_fulfillment_waiting_partitions",
    "Partitions of this process that are not being fulfilled at the moment, by cause.",
    ["cause"],
    multiprocess_mode="livesum",
)
fulfillment_restarts = Counter(
    "fluxgate_fulfillment_restarts_total",
    "Times the consumer went back to the books, by cause.",
    ["cause"],
)
stale_claims = Counter(
    "fluxgate_stale_claims_total", "Claims dropped because their pool had been armed again before them."
)
parked_records = Counter("fluxgate_parked_records_total", "Records put into the parking table.")
settled_claims = Counter(
    "fluxgate_settled_claims_total", "Claims the gate was told the outcome of, by step.", ["step"]
)
swept_claims = Counter("fluxgate_swept_claims_total", "Held claims the sweeper appended again.")

parked_waiting_records = Gauge(
    "fluxgate_parked_waiting_records",
    "Records put aside that nobody has replayed or dropped.",
    multiprocess_mode="livesum",
)

gate_down = Gauge(
    "fluxgate_gate_down", "1 while the gate's Redis does not answer.", multiprocess_mode="livesum"
)
fenced_gates = Gauge(
    "fluxgate_fenced_gates",
    "Sales whose gate has fallen and is being armed again.",
    multiprocess_mode="livesum",
)
rearming_seconds = Histogram(
    "fluxgate_rearming_seconds",
    "From finding a fallen gate to selling again.",
    buckets=(1, 2.5, 3, 4, 5, 7.5, 10, 15, 30, 60, 300),
)
rearmings_given_up = Counter(
    "fluxgate_rearmings_given_up_total", "Armings that went wrong and begin again after a pause."
)

balance_sales = Gauge(
    "fluxgate_balance_sales",
    "Sales that are not over, by what their counters say in gate and order book.",
    ["verdict"],
    multiprocess_mode="livesum",
)
balance_units = Gauge(
    "fluxgate_balance_units",
    "Units of the sales that are not over, by the book that counts them.",
    ["book", "kind"],
    multiprocess_mode="livesum",
)
balance_read = Gauge(
    "fluxgate_balance_read_timestamp_seconds",
    "Unix time at which the balance was last read; 0 where nobody does.",
    multiprocess_mode="livemax",
)
