"""The real Lua on the real server against a plain Python model of the same rules.

gate_model.py has the rules, gate_machine.py drives both through days that hypothesis makes up. Then the Lua
is broken on purpose, one rule at a time, and the same machine must find it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from sales import fence
from sales import gate as gate_module
from sales.gate import Verdict, connect
from tests.sales.gate_machine import GateMachine
from tests.sales.gate_model import BROKEN, NO_SCRIPT

CLOCK = "local time = redis.call('TIME')"
TELLS_TIME = ("claim", "release")
SHIPPED = gate_module.script

BOUNDED = settings(
    max_examples=250,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    report_multiple_bugs=False,  # the first one ends a twin
    suppress_health_check=list(HealthCheck),
)


def with_a_clock_of_its_own(text: str) -> str:
    """A script with the one line changed that asks the server for the time."""
    assert text.count(CLOCK) == 1
    return text.replace(CLOCK, "local time = redis.call('MGET', 'clock:seconds', 'clock:micros')")


@contextmanager
def shipped_with(*changes: tuple[str, str, str]) -> Iterator[None]:
    """The gate's scripts with the clock replaced, and with these changes: script, text, other text."""
    scripts = {
        name: SHIPPED(name) for name in ("arm", "claim", "fence", "load", "release", "settle", "switch")
    }
    for name, text, other in changes:
        assert scripts[name].count(text) == 1, text
        scripts[name] = scripts[name].replace(text, other)
    for name in TELLS_TIME:
        scripts[name] = with_a_clock_of_its_own(scripts[name])
    with pytest.MonkeyPatch.context() as patch:
        for module in (gate_module, fence):
            patch.setattr(module, "script", scripts.__getitem__)
        yield


def run(reached: set[str], **bounds: Any) -> None:
    """One run of the machine on the gate's Redis of this test run."""
    with connect() as client:
        kind: type[GateMachine] = type("Machine", (GateMachine,), {"client": client, "reached": reached})
        run_state_machine_as_test(kind, settings=settings(BOUNDED, **bounds))


@pytest.mark.timeout(300)
def test_the_gate_follows_the_model_and_reaches_every_verdict() -> None:
    reached: set[str] = set()
    with shipped_with():
        run(reached)
    outcomes = {f"{step} {told}" for step in ("fence", "arm", "load") for told in (True, False)}
    outcomes |= {f"switch {told}" for told in ("switched", "stale", "arming", "closed", "turned")}
    failures = {NO_SCRIPT, "FENCED gate", "FENCED epoch", "FENCED incarnation"}
    assert reached - {BROKEN} == {*map(str, Verdict), *outcomes, *failures}


@pytest.mark.parametrize("name", ["arm", "claim", "fence", "load", "release", "settle", "switch"])
def test_a_shipped_script_asks_the_server_for_the_time_in_one_line(name: str) -> None:
    """So the machine's copy differs from what is shipped by that line, and no script reads another clock."""
    lines = [line.strip() for line in SHIPPED(name).splitlines()]
    asking = [line for line in lines if re.search(r"TIME\b", line.partition("--")[0])]
    assert asking == [CLOCK] * (name in TELLS_TIME)


BROKEN_TWINS: dict[str, tuple[str, str, str]] = {
    "stock before the key": (
        "claim",
        "  if known then\n",
        "  if quantity > remaining then return 'sold_out', held, '' end\n  if known then\n",
    ),
    "window before the key": (
        "claim",
        "  local known = claims[id] or",
        "  local early = window()\n  if early then return early, '', '' end\n  local known = claims[id] or",
    ),
    "any quantity replays": ("claim", "if tonumber(units) ~= quantity then", "if false then"),
    "one batch does not see its own claims": ("claim", "claims[id] or redis", "redis"),
    "one batch does not see its own customers": ("claim", "customers[customer] or redis", "redis"),
    "no limit": ("claim", "if units + quantity > limit then", "if false then"),
    "the limit is one less": ("claim", "units + quantity > limit", "units + quantity >= limit"),
    "one unit too many": ("claim", "quantity > remaining then", "quantity > remaining + 1 then"),
    "the last unit stays": ("claim", "quantity > remaining then", "quantity >= remaining then"),
    "open a millisecond late": ("claim", "now < opens_at then", "now <= opens_at then"),
    "closed a millisecond late": ("claim", "now >= closes_at then", "now > closes_at then"),
    "no window": ("claim", "  if refusal then", "  if false then"),
    "no admission": ("claim", "admission_required and not admitted", "false"),
    "the bucket is not spent": ("claim", "tokens, spent = tokens - 1, true", "spent = true"),
    "the bucket overflows": ("claim", "math.min(burst, ", "math.max(0, "),
    "the bucket forgets fractions": ("claim", "'%.6f'", "'%.0f'"),
    "a clock that steps back takes tokens away": ("claim", "math.max(0, now - tokens_at)", "now - tokens_at"),
    "a clock that steps back starves the bucket": (
        "claim",
        "local spent, taken = now < tokens_at, 0",
        "local spent, taken = false, 0",
    ),
    "pending not written": ("claim", "  redis.call('ZADD', KEYS[4], unpack(new_pending))\n", ""),
    "customer not written": ("claim", "  redis.call('HSET', KEYS[3], unpack(new_customers))\n", ""),
    "epoch not compared": ("claim", "if gate[1] ~= EPOCH then", "if not gate[1] then"),
    "incarnation not compared": ("claim", "~= INCARNATION then", "== 'x' then"),
    "another pool's keys are taken": ("claim", "if KEYS[1] ~= GATE then", "if false then"),
    "settled goes back to queued": ("settle", "order[letter] < order[target] and", ""),
    "an acknowledgement of another epoch counts": ("settle", "(epoch == '' or of == epoch)", "true"),
    "queued stays pending": ("settle", "    redis.call('ZREM', KEYS[3], unpack(ids))\n", ""),
    "released twice": ("release", "s = 'settled' }", "s = 'settled', r = 'released' }"),
    "released, and still counted for the customer": ("release", "    if count then\n", "    if false then\n"),
    "released stays pending": ("release", "    redis.call('ZREM', KEYS[4], ARGV[i])\n", ""),
    "a stop asks for the epoch": ("switch", "ARGV[1] ~= '' and gate[1] ~= ARGV[1]", "gate[1] ~= ARGV[1]"),
    "a switch of another epoch": ("switch", "ARGV[1] ~= '' and gate[1] ~= ARGV[1]", "false"),
    "closed is opened again": ("switch", "if gate[2] == 'closed' and", "if false and"),
    "the turn is not compared": ("switch", "if ARGV[3] ~= '' and gate[3] ~= ARGV[3] then", "if false then"),
    "a gate that is being armed is opened": (
        "switch",
        "(gate[2] == 'arming') ~= (ARGV[4] == 'arming')",
        "false",
    ),
    "an older arming fences": ("fence", "tonumber(epoch) > tonumber(ARGV[1])", "false"),
    "an older arming builds": ("arm", "epoch > mine or", "false or"),
    "a gate in use is built again": ("arm", "(epoch == mine and gate[2] ~= 'arming')", "false"),
    "the turn starts anew": ("arm", "(gate[3] or 0) + 1", "1"),
    "loaded into a gate in use": ("load", " or gate[2] ~= 'arming'", ""),
    "loaded twice": (
        "load",
        "redis.call('HSETNX', KEYS[2], id, claim) == 1",
        "redis.call('HSET', KEYS[2], id, claim)",
    ),
    "loaded without its customer": (
        "load",
        "      redis.call('HSET', KEYS[3], customer,",
        "      redis.call('HGET', KEYS[3], customer); (function() end)(",
    ),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("twin", BROKEN_TWINS)
def test_twin_a_broken_rule_is_found(twin: str, capsys: pytest.CaptureFixture[str]) -> None:
    with shipped_with(BROKEN_TWINS[twin]), pytest.raises((AssertionError, redis.ResponseError)):
        run(set(), phases=[Phase.generate], max_examples=400)
    capsys.readouterr()  # the machine's own account of what it did
