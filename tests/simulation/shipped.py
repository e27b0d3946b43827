"""Puts the twins where the shipped code touches a wire, a clock or a log file, and takes them out again.

Nothing that decides is replaced: modules keep their functions, Lua keeps its text. Replaced are the
statements of `orders.book` and `orders.epochs`, the clients of Redis and Kafka, `time` and
`datetime.now`, loggers, and the row updates of operators' steps.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from django.conf import settings

from management.management.commands import reconcile, run_fulfillment, run_gatekeeper
from orders import closing, consumer, lag
from sales import arming, crashpoints, directory, gate, topic
from sales.arming import Refused, _not_now
from sales.models import Sale

if TYPE_CHECKING:
    from tests.simulation.world import World

_PACKAGES = ("orders", "sales", "waitingroom", "management")
SETTINGS = {"kafka_partitions": 2, "kafka_group": "fulfillment", "fulfillment_batch": 500}


class Recorder:
    """A logger that writes into the world's history."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note

    def debug(self, event: str, **details: Any) -> None:
        pass

    def info(self, event: str, **details: Any) -> None:
        self._note(f"{event} {details}")

    warning = error = exception = critical = info


class _Sales:
    """As much of `Sale.objects` as operators' code and the closing of sales ask."""

    def __init__(self, world: "World", conditions: tuple[Callable[[Sale], bool], ...] = ()) -> None:
        self._world, self._conditions = world, conditions

    def filter(self, **wanted: Any) -> "_Sales":
        return self._with(lambda sale: _fits(sale, wanted))

    def exclude(self, **unwanted: Any) -> "_Sales":
        return self._with(lambda sale: not _fits(sale, unwanted))

    def _with(self, condition: Callable[[Sale], bool]) -> "_Sales":
        return _Sales(self._world, (*self._conditions, condition))

    def __iter__(self) -> Iterator[Sale]:
        everything = self._world.database.ask(lambda tables: [row.state for row in tables.sales.values()])
        sales = self._world.database.ask(lambda tables: tables.in_states(everything))
        for sale in sales:
            self._world.freshen(sale)
        return iter([sale for sale in sales if all(holds(sale) for holds in self._conditions)])


def _fits(sale: Sale, wanted: dict[str, Any]) -> bool:
    return all(
        getattr(sale, name.removesuffix("__in")) in (value if name.endswith("__in") else [value])
        for name, value in wanted.items()
    )


def _move(world: "World") -> Callable[..., None]:
    """`arming._move` without the ORM: the same conditional update, with its entry in the history."""

    def move(
        sale: Sale, sources: Any, target: str, action: str, actor: str, reason: str,
        expected_epoch: int | None = None, armed_at: Any = None, **values: Any,
    ) -> None:  # fmt: skip
        moved = world.database.ask(
            lambda tables: tables.move_sale(sale.pk, sources, target, expected_epoch, **values), write=True
        )
        sale.refresh_from_db()
        if not moved:
            raise Refused(_not_now(sale, action))

    return move


def _seams(world: "World") -> list[tuple[Any, str, Any]]:
    seams = [
        (module, name, function)
        for module, functions in world.database.functions().items()
        for name, function in functions.items()
    ]
    clock = SimpleNamespace(monotonic=world.monotonic, time=world.wall_clock, sleep=world.sleep)
    now = _Datetime(world.wall_clock)
    recorder = Recorder(world.log)
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in _PACKAGES:
            if getattr(module, "time", None) is time:
                seams.append((module, "time", clock))
            if getattr(module, "datetime", None) is datetime:
                seams.append((module, "datetime", now))
            if getattr(module, "incarnation", None) is topic.incarnation:
                seams.append((module, "incarnation", world.topic_id))
            if hasattr(module, "logger"):
                seams.append((module, "logger", recorder))
    return [
        *seams,
        (settings, "FLUXGATE", settings.FLUXGATE.model_copy(update=SETTINGS)),
        (gate, "connect", world.connect),
        (arming, "connect", world.connect),
        (arming, "_move", _move(world)),
        (arming, "transaction", SimpleNamespace(atomic=world.database.transaction)),
        (arming, "_take_allotment", lambda sale: None),
        (directory, "public_sales", lambda: _Sales(world).exclude(state="draft")),
        (closing, "Sale", SimpleNamespace(objects=_Sales(world))),
        (run_gatekeeper, "finish_settling", lambda client: 0),  # no sale is settled here
        (run_fulfillment, "Consumer", partial(consumer.Consumer, kafka=world.kafka_consumer)),
        (lag, "Consumer", world.kafka_consumer),
        (reconcile, "Leadership", world.leadership),
        (topic, "check_topic", lambda: None),
        (crashpoints, "reached", world.reached),
        (run_gatekeeper, "KafkaLog", world.producer),
        (run_gatekeeper, "Leadership", world.leadership),
        (run_gatekeeper, "TURN_SECONDS", 0.25),
        # No sale in this world has a line: its rows are in no twin. tests/waitingroom has the line.
        (run_gatekeeper, "Keeper", lambda client, log_takes: SimpleNamespace(step=lambda: None)),
    ]


class _Datetime:
    """`datetime` with another now."""

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock

    def now(self, zone: Any = None) -> datetime:
        return datetime.fromtimestamp(self._wall_clock(), zone or UTC)

    def __getattr__(self, name: str) -> Any:
        return getattr(datetime, name)


@contextmanager
def inside(world: "World") -> Iterator[None]:
    """While it lasts, the shipped code of this process runs in that world."""
    missing = object()
    before = []
    for target, name, twin in _seams(world):
        old = (
            target.__dict__.get(name, missing)
            if not isinstance(target, type(settings))
            else settings.FLUXGATE
        )
        before.append((target, name, old))
        setattr(target, name, twin)
    try:
        yield
    finally:
        for target, name, old in reversed(before):
            if old is missing:
                delattr(target, name)
            else:
                setattr(target, name, old)
