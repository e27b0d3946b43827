"""The planted bugs: each takes one guard of docs/architecture.md away, and must be caught.

`modes` are where to look for it, in this order.
"""

import re
import zlib
from contextlib import suppress
from typing import Any, NamedTuple

from msgspec.structs import replace

from orders import (
    book,
    cancelling,
    claims,
    epochs,
    gatekeeper,
    log,
    partition,
    placing,
    sifting,
    sweeper,
)
from orders.placing import Placed
from sales import arming, turnstile
from sales.gate import ClaimLetter, Fenced, pool_keys, script
from sales.turnstile import Turnstile
from tests.simulation import tables
from tests.simulation.planting import Planted, attribute, lua, python, together


class Bug(NamedTuple):
    planted: Planted
    modes: tuple[str, ...]
    says: str  # what is wrong with it


def _release_when_late(world: Any, place: Any) -> Any:
    async def wrong(turnstile: Any, log: Any, facts: Any, attempt: Any, **more: Any) -> Placed:
        placed: Placed = await place(turnstile, log, facts, attempt, **more)
        if placed.state == "held" and placed.answer.verdict == "claimed":
            with suppress(Exception):
                keys = pool_keys(facts.sale_id, facts.pool)
                await turnstile._aside.eval(script("release"), 4, *keys, str(attempt.order_id))
        return placed

    return wrong


def _reload_scripts(world: Any, claim: Any) -> Any:
    async def wrong(turnstile: Any, asked: Any) -> Any:
        answers = await claim(turnstile, asked)
        if not any(isinstance(answer, Fenced) for answer in answers):
            return answers
        for pool in dict.fromkeys(pool for pool, _ in asked):
            text = next(node.once[pool.facts.seal] for node in world.nodes if pool.facts.seal in node.once)
            text = re.sub("INCARNATION = '.*'", f"INCARNATION = '{world.redis.master.replication_id}'", text)
            pool.facts = replace(pool.facts, seal=await turnstile._client.script_load(text))
        return await claim(turnstile, asked)

    return wrong


def _partition_by_order(world: Any, record: Any) -> Any:
    def wrong(form: Any, order_id: str, *more: Any) -> Any:
        partition = zlib.crc32(order_id.encode()) % len(world.broker.partitions)
        return record(form, order_id, *more)._replace(partition=partition)

    return wrong


def _position_alone(world: Any, move_position: Any) -> Any:
    """The position is committed by itself, before the rows."""

    def wrong(source: Any, expected: int, following: int) -> None:
        def statement(working: Any) -> None:
            working.move_position(source, expected, following)
            alone = world.books.committed.copy()
            alone.positions[source] = following
            world.books.committed = alone

        world.database.ask(statement, write=True)

    return wrong


def _insert_counts_everything(world: Any, insert: Any) -> Any:
    def wrong(self: Any, rows: Any, state: Any, reasons: Any) -> Any:
        insert(self, rows, state, reasons)
        return {claim.order_id for claim in rows}

    return wrong


def _only_confirmed(world: Any, known: Any) -> Any:
    def wrong(self: Any, sale_id: Any, pool: int) -> Any:
        return [order for order in known(self, sale_id, pool) if order.letter == ClaimLetter.SETTLED]

    return wrong


def _believe_any_position(world: Any, move_position: Any) -> Any:
    def wrong(self: Any, source: Any, expected: int, following: int) -> None:
        self.positions[source] = following

    return wrong


_KNOWN = "local known = claims[id] or redis.call('HGET', KEYS[2], id)"
_SOLD_OUT = (
    "if quantity > remaining then return 'sold_out', held, remaining == 0 and claims_known() or '' end"
)

_NOT_AWAITED = together(
    python(
        gatekeeper.Gatekeeper,
        "_advance",
        "passed = epochs.passed([pool])[pool] if rearming.acknowledged else 0",
        "passed = rearming.sale.epoch",
    ),
    attribute(
        epochs,
        "known",
        lambda world, known: (
            lambda sale_id, pool, epoch: iter(
                [world.database.ask(lambda working: working.known(sale_id, pool))]
            )
        ),
    ),
)

_RELEASE_FIRST = """
    from contextlib import suppress
    from sales.gate import pool_keys, script
    with suppress(Exception):
        keys = pool_keys(facts.sale_id, facts.pool)
        await turnstile._aside.eval(script("release"), 4, *keys, str(standing.order_id))
    acknowledged = log.append(record)"""
_NEVER_LOOK = attribute(partition, "look_for_what_was_forgotten", lambda world, look: lambda partitions: None)

BUGS: dict[str, Bug] = {
    "no-sweeper": Bug(
        attribute(sweeper.Sweeper, "step", lambda world, step: lambda self: False),
        ("crashes", "network"),
        "nobody appends what stayed held",
    ),
    "sweeper-releases": Bug(
        python(sweeper.Sweeper, "sweep", "self._append(sale, held)",
               "gate.release(self._gate, sale.id, POOL, [held.order_id])"),
        ("standstill", "log", "network"),
        "a claim that stayed held is given back, though it may be in the log",
    ),
    "release-when-late": Bug(
        attribute(placing, "place", _release_when_late),
        ("network", "log"),
        "a unit is given back when its append is not acknowledged in time",
    ),
    "promise-after-the-deadline": Bug(
        together(
            python(placing, "place", "in_time = loop.time() < deadline", "in_time = True"),
            attribute(log.Acknowledgements, "_expire", lambda world, expire: lambda self: None),
        ),
        ("standstill", "everything"),
        "a process that stood still promises what a barrier has overtaken",
    ),
    "key-after-stock": Bug(
        lua("claim", (_KNOWN, _SOLD_OUT + "\n  " + _KNOWN)),
        ("network", "crashes"),
        "who asks again with a key that has a unit is told sold out",
    ),
    "scripts-reloaded": Bug(
        attribute(Turnstile, "_claim", _reload_scripts),
        ("redis", "everything"),
        "NOSCRIPT is answered by loading the script, as register_script does, for whichever server is there",
    ),
    "no-replication-id": Bug(
        lua("claim", ("if string.match(replication, 'master_replid:(%x+)') ~= INCARNATION", "if false")),
        ("redis",),
        "a failover and back finds the old script, and it decides",
    ),
    "no-epoch-in-the-script": Bug(
        lua("claim", ("if gate[1] ~= EPOCH then return redis.error_reply('FENCED epoch') end", "")),
        ("standstill", "redis"),
        "an old seal opens the new gate",
    ),
    "keyed-by-order": Bug(
        attribute(claims.ClaimForm, "record", _partition_by_order),
        ("everything", "database"),
        "claims of a pool are spread over partitions, and no barrier orders them",
    ),
    "any-position": Bug(
        together(attribute(tables.Tables, "move_position", _believe_any_position), _NEVER_LOOK),
        ("database",),
        "the position moves from wherever it is",
    ),
    "idle-consumer-never-looks": Bug(
        _NEVER_LOOK,
        ("database",),
        "rows that a failover has lost come back only when another record comes",
    ),
    "position-before-the-rows": Bug(
        attribute(book, "move_position", _position_alone),
        ("crashes", "database"),
        "how far the log has been read is committed before the rows",
    ),
    "insert-counts-everything": Bug(
        attribute(tables.Tables, "insert", _insert_counts_everything),
        ("crashes", "network"),
        "a redelivered claim counts as a new one",
    ),
    "no-wait-before-the-barrier": Bug(
        attribute(gatekeeper, "MARGIN_SECONDS", lambda world, seconds: -1000.0),
        ("redis", "standstill"),
        "the barrier overtakes claims that are being promised",
    ),
    "barrier-not-awaited": Bug(
        _NOT_AWAITED,
        ("standstill", "everything"),
        "the gate is loaded before fulfillment has passed the barrier",
    ),
    "no-barrier": Bug(
        together(
            _NOT_AWAITED,
            python(gatekeeper.Gatekeeper, "_append", "self._send(rearming, sale.id, barrier)", "pass"),
        ),
        ("standstill", "everything"),
        "nothing parts the claims of two armings in the log",
    ),
    "stale-claims-kept": Bug(
        python(sifting, "sift", "message.epoch < reached[message.sale_id, message.pool]", "False"),
        ("standstill", "everything"),
        "claims behind the barrier become orders that the gate does not know of",
    ),
    "only-confirmed-keys-loaded": Bug(
        attribute(tables.Tables, "known", _only_confirmed),
        ("redis", "everything"),
        "the key of a cancelled order is granted again after a rearming",
    ),
    "customers-not-loaded": Bug(
        lua("load", ("redis.call('HSET', KEYS[3], customer,", "tostring(")),
        ("redis",),
        "after a rearming nobody remembers who has had units",
    ),
    "queued-whatever-epoch": Bug(
        lua("settle", ("(epoch == '' or of == epoch)", "true")),
        ("standstill", "everything"),
        "an old acknowledgement speaks for a new claim of the same key",
    ),
    "released-twice": Bug(
        lua("release", ("s = 'settled' }", "s = 'settled', r = 'released' }")),
        ("crashes", "network"),
        "a cancel that is read twice gives the unit back twice",
    ),
    "cancel-releases-at-once": Bug(
        python(cancelling, "cancel", "    acknowledged = log.append(record)", _RELEASE_FIRST),
        ("crashes", "standstill", "network"),
        "the unit is given back before the log has the cancel",
    ),
    "pause-in-the-database-only": Bug(
        python(arming, "_stop", "fence.stop(client, sale.id, POOL, state)", "'switched'"),
        ("calm", "network"),
        "the gate goes on selling after the pause",
    ),
    "stopped-once": Bug(
        python(arming, "pause", 'reason)\n        _stop(client, sale, "paused")', "reason)"),
        ("standstill", "everything"),
        "a gate that was armed again while the pause was written is not stopped",
    ),
    "opened-without-its-turn": Bug(
        python(gatekeeper.Gatekeeper, "_switch_on", "GATE_STATE[state], turn,", 'GATE_STATE[state], "",'),
        ("standstill", "everything"),
        "a gate that is armed again opens though somebody has paused the sale meanwhile",
    ),
    "unknown-while-fenced": Bug(
        python(turnstile.Turnstile, "claim_of", "if fenced or not told:", "if False:"),
        ("redis",),
        "an order that was promised is unknown while its gate is being armed again",
    ),
}  # fmt: skip
