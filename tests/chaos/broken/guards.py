"""What each broken twin takes out: by twin, the module and what is done to it once it is imported."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any
from uuid import uuid4

Patch = Callable[[Any], None]


def _no_sweeper(sweeper: Any) -> None:
    sweeper.Sweeper.step = lambda self: False


def _release_on_timeout(placing: Any) -> None:
    """Not acknowledged in time is taken for failed: the unit goes back on sale."""
    place = placing.place

    async def broken(turnstile: Any, log: Any, facts: Any, attempt: Any, **more: Any) -> Any:
        from sales.gate import pool_keys, script

        placed = await place(turnstile, log, facts, attempt, **more)
        if placed.state == "held":
            keys = pool_keys(facts.sale_id, facts.pool)
            # In a task of its own: redis-py asks for one, and a quick operation has none.
            await asyncio.ensure_future(
                turnstile._aside.eval(script("release"), 4, *keys, str(attempt.order_id))
            )
        return placed

    placing.place = broken


def _reload_on_noscript(turnstile: Any) -> None:
    """What redis-py's register_script does: a script that is gone is loaded again."""
    claim = turnstile.Turnstile._claim

    async def broken(self: Any, asked: Any) -> Any:
        from sales.fence import seal

        answers = await claim(self, asked)
        if not any(isinstance(answer, turnstile.Fenced) for answer in answers):
            return answers
        for facts, keys in {(pool.facts, pool.keys) for pool, _ in asked}:
            text, _ = seal(keys, facts.epoch, facts.incarnation)
            await self._client.script_load(text)
        return await claim(self, asked)

    turnstile.Turnstile._claim = broken


def _any_incarnation(gate: Any) -> None:
    _change_claim(gate, "~= INCARNATION then", "== 'nobody' then")


def _nobody_looks(gatekeeper: Any) -> None:
    gatekeeper.Gatekeeper.step = lambda self: False


def _no_barrier(epochs: Any) -> None:
    """The gatekeeper takes every barrier for passed: it does not wait until the log is in the order book."""
    if "run_gatekeeper" in sys.argv:
        epochs.passed = lambda pools: {
            pool: epochs.Sale.objects.values_list("epoch", flat=True).get(pk=pool[0]) for pool in pools
        }


def _stock_before_key(gate: Any) -> None:
    known = "local known = claims[id] or redis.call('HGET', KEYS[2], id)"
    _change_claim(gate, known, f"if quantity > remaining then return 'sold_out', held, '' end\n  {known}")


def _new_id_per_request(claims: Any) -> None:
    claims.order_id = lambda sale_id, customer, key: str(uuid4())


def _each_statement_by_itself(book: Any) -> None:
    book.transaction = nullcontext


def _database_in_the_buy_path(placing: Any) -> None:
    place = placing.place

    async def broken(*arguments: Any, **more: Any) -> Any:
        from asgiref.sync import sync_to_async
        from django.db import DatabaseError

        from orders.log import LogUnavailable
        from sales.models import Sale

        try:
            await sync_to_async(Sale.objects.count)()
        except DatabaseError as error:
            raise LogUnavailable(str(error)) from error
        return await place(*arguments, **more)

    placing.place = broken


def _park_newer_versions(sifting: Any) -> None:
    sift = sifting.sift
    sifting.sift = lambda records, *, patient: sift(records, patient=False)


def _pause_in_the_database_only(fence: Any) -> None:
    fence.stop = lambda client, sale_id, pool, state: "switched"
    fence.differing = lambda client, sales: []


def _no_drain(server: Any) -> None:
    server.Server.handle_exit = lambda self, number, frame: os._exit(0)


def _never_down(log: Any) -> None:
    log.KafkaLog.available = lambda self: True


def _wait_for_the_gate(turnstile: Any) -> None:
    opened = turnstile.Turnstile.__init__

    def broken(self: Any, *arguments: Any, **more: Any) -> None:
        opened(self, *arguments, **more)
        self._within = partial(turnstile.within, 30.0)

    turnstile.Turnstile.__init__ = broken


def _no_parking(book: Any) -> None:
    def broken(source: Any, read: Any, cause: str) -> None:
        raise RuntimeError(f"cannot use the record at {read.offset}: {cause}")

    book.park = broken


def _stops_in_its_third_transaction(book: Any) -> None:
    """Not a guard: a machine that is paused at a bad moment."""
    move_position = book.move_position
    passages = count(1)

    def broken(*arguments: Any) -> None:
        move_position(*arguments)
        if next(passages) == 3:
            os.kill(os.getpid(), signal.SIGSTOP)

    book.move_position = broken


def _transactions_stand_still(settings: Any) -> None:
    del settings.DATABASES["default"]["OPTIONS"]["options"]


def _reads_nothing(claims: Any) -> None:
    def broken(value: bytes | None) -> Any:
        raise claims.BadRecord("this release reads nothing")

    claims.decode = broken


def _clock(seconds: float) -> Patch:
    """Not a guard: a machine whose clock is wrong. Clocks that only go forward are as they were."""

    def broken(timezone: Any) -> None:
        honest = time.time
        time.time = lambda: honest() + seconds
        timezone.now = lambda: datetime.now(UTC) + timedelta(seconds=seconds)

    return broken


def _change_claim(gate: Any, old: str, new: str) -> None:
    script = gate.script

    def broken(name: str) -> str:
        text: str = script(name)
        if name == "claim":
            assert old in text, f"claim.lua has no {old!r} any more"
            text = text.replace(old, new)
        return text

    gate.script = broken


TWINS: dict[str, dict[str, Patch]] = {
    "no-sweeper": {"orders.sweeper": _no_sweeper},
    "release-on-timeout": {"orders.placing": _release_on_timeout},
    "reload-script": {
        "sales.turnstile": _reload_on_noscript,
        "sales.gate": _any_incarnation,
        "orders.gatekeeper": _nobody_looks,
    },
    "any-incarnation": {"sales.gate": _any_incarnation, "orders.gatekeeper": _nobody_looks},
    "no-barrier": {"orders.epochs": _no_barrier},
    "stock-before-key": {"sales.gate": _stock_before_key},
    "new-id-per-request": {"orders.claims": _new_id_per_request},
    "no-transaction": {"orders.book": _each_statement_by_itself},
    "database-in-buy-path": {"orders.placing": _database_in_the_buy_path},
    "park-newer-version": {"orders.sifting": _park_newer_versions},
    "pause-in-database-only": {"sales.fence": _pause_in_the_database_only},
    "no-drain": {"uvicorn.server": _no_drain},
    "no-breaker": {"orders.log": _never_down},
    "no-gate-timeout": {"sales.turnstile": _wait_for_the_gate},
    "locks-for-ever": {"fluxgate_site.settings": _transactions_stand_still},
    "no-parking": {"orders.book": _no_parking},
    # Not a twin of a row: the bad release of the row `all-poison`.
    "bad-release": {"orders.claims": _reads_nothing},
    # Nor these: the consumer of `consumer-zombie-in-transaction`, and the machines of the row `clocks`.
    "stops-in-transaction": {"orders.book": _stops_in_its_third_transaction},
    "hour-ahead": {"django.utils.timezone": _clock(3600)},
    "hour-behind": {"django.utils.timezone": _clock(-3600)},
}
