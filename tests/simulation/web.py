"""A web process: the shipped endpoints, on an event loop of its own, and what a client gets from them."""

import json
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from orders import api
from orders.log import Acknowledgements
from orders.status import Standings
from sales.database import AWAY_SECONDS, QUERY_SECONDS, DatabaseAway
from sales.problems import Problem
from sales.turnstile import Turnstile
from tests.simulation.processes import AsyncProcess
from tests.simulation.redis_clients import AsyncRedis
from tests.simulation.tables import as_sale

if TYPE_CHECKING:
    from tests.simulation.world import World

# Statuses of problems after which a client asks again with the same key; the rest is definite.
AGAIN = {
    "temporarily-unavailable",
    "sale-paused",
    "all-units-held",
    "too-busy",
    "sale-not-open",
    "internal-error",
}


class Answer(NamedTuple):
    """What a client has read. `status` 0: nothing, so the outcome is unknown."""

    status: int
    word: str = ""  # state of the order, or type of the problem
    order_id: str = ""
    reason: str = ""

    @property
    def known(self) -> bool:
        return self.status not in (0, 503)


UNKNOWN = Answer(0, "no answer")


class Books:
    """`Database` of a web process: the query that order status makes, over the wire of the twin."""

    def __init__(self, world: "World", process: AsyncProcess) -> None:
        self._world, self._process = world, process
        self._away_until = 0.0

    async def find(self, order_ids: Sequence[UUID]) -> list[Any]:
        scheduler = self._world.scheduler
        if scheduler.now < self._away_until:
            raise DatabaseAway("it did not answer a moment ago")
        future = self._process.create_future()

        def answer(value: Any) -> None:
            if not future.done():
                future.set_result(value)

        self._process.call_later(QUERY_SECONDS, answer, DatabaseAway("no answer"))
        self._world.database.find_async(self._process, order_ids, answer)
        value = await future
        if isinstance(value, Exception):
            self._away_until = scheduler.now + AWAY_SECONDS
            raise DatabaseAway(str(value))
        return [
            row and SimpleNamespace(sale=as_sale(sale), **row._asdict()) for row, sale in filter(None, value)
        ]


class _Standings(Standings):
    async def _read(self, order_ids: Sequence[UUID]) -> Any:
        books: Any = self._database
        rows = {row.id: row for row in await books.find(order_ids)}
        return [rows.get(order_id) for order_id in order_ids]


class WebProcess:
    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.process = AsyncProcess(world.scheduler, name, world.failed)
        self.process.strike = world.strike
        self.process.run_here(self._open)

    def _open(self) -> None:
        clients: Any = tuple(AsyncRedis(self.world.network, self.world.redis, self.process) for _ in range(2))
        turnstile = Turnstile(clients=clients)
        self._state = {
            "turnstile": turnstile,
            "log": Acknowledgements(self.world.producer_of(self.process)),
            "standings": _Standings(turnstile, Books(self.world, self.process)),  # type: ignore[arg-type]
        }

    def receive(
        self, customer: str, call: tuple[Any, ...], answer: Callable[[Answer], None]
    ) -> Callable[[], None]:
        """A request has arrived. `answer` is called when it leaves; what is returned hangs up."""
        tasks: list[Any] = []

        def begin() -> None:
            task = self.process.create_task(self._serve(customer, call))
            tasks.append(task)
            task.add_done_callback(lambda done: None if done.cancelled() else answer(done.result()))

        def hang_up() -> None:
            if tasks:
                tasks[0].cancel()

        self.process.run_here(begin)
        return lambda: self.process.run_here(hang_up)

    async def _serve(self, customer: str, call: tuple[Any, ...]) -> Answer:
        request: Any = SimpleNamespace(
            scope={"state": self._state}, auth=customer, headers={"Accept": "application/json"}
        )
        try:
            match call:
                case ("place", slug, key, quantity):
                    request.idempotency_key = key
                    response = await api.place_order(request, slug, SimpleNamespace(quantity=quantity))
                case ("status", order_id):
                    response = await api.order_status(request, order_id)
                case ("cancel", order_id):
                    response = await api.cancel_order(request, order_id)
                case _:
                    raise ValueError(call)
        except Problem as problem:
            return Answer(problem.type.status, problem.type.slug)
        except Exception as error:
            self.world.failed(f"{self.process.name}: {call[0]} raised {error!r}")
            return Answer(500, "internal-error")
        body = json.loads(response.content)
        return Answer(response.status_code, body["state"], str(body["order_id"]), body.get("reason", ""))
